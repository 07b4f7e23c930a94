use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;
use crate::Severity;
use crate::fault::{FaultKind, Reaction};

const BIG: Machine = Machine { total_bytes: 128 * GIB, available_bytes: 100 * GIB };

fn ok(text: &str) -> Config {
    check_on(text, "f", &BIG).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

fn mistakes(text: &str) -> Vec<(u32, u32, Code)> {
    let mistakes = check_on(text, "f", &BIG).expect_err(text);
    assert!(mistakes.iter().all(|mistake| mistake.severity == Severity::Error));
    mistakes.into_iter().map(|mistake| (mistake.line, mistake.column, mistake.code)).collect()
}

#[test]
fn silence_is_the_default() {
    assert_eq!(ok(""), Config::default());
    assert_eq!(ok(default_text()), Config::default());
}

/// Every key of the commented file exists, with the default it claims.
#[test]
fn the_default_file_says_what_is() {
    let mut keys = 0;
    let mut text = String::new();
    for line in default_text().lines() {
        let key = line
            .strip_prefix("# ")
            .filter(|rest| rest.contains(" = ") && !rest.starts_with(char::is_uppercase));
        match key {
            // A node is a broker or a provider: the other one's turn is below.
            Some(rest) if rest.contains("\"10.0.0.4:7172\"") => keys += usize::from(ok_with(rest)),
            Some(_) if line.contains("\"8GiB\"") || line.contains("\"16GiB\"") => {}
            Some(rest) => {
                keys += 1;
                // Behind the value stands, after two spaces, what it means.
                text.push_str(rest.split("  ").next().unwrap());
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text.push_str("broker = \"10.0.0.4:7172\"\n");
    assert_eq!(keys, 5 + 5 + 7 + 4 + 5 + 2 + 1 + 6 + 7, "{text}");
    let mut stated = ok(&text);
    assert_eq!(stated.node.pool.take(), Some(4 * GIB));
    assert_eq!(stated.node.allow_uids.take(), Some(vec![1000]));
    assert_eq!(stated.audit.devices.pop(), Some("/var/lib/leasehold/audit".into()));
    assert_eq!(stated.node.root.take(), Some("root.key".into()));
    assert_eq!(stated.policy.file.take(), Some("policy.dl".into()));
    let remote = std::mem::take(&mut stated.remote);
    assert_eq!(remote.listen, Some("127.0.0.1:7171".parse().unwrap()));
    assert!(remote.domain.is_some() && remote.certificate.is_some() && remote.key.is_some());
    assert!(remote.roots.is_some() && remote.lists.is_some());
    let cluster = std::mem::take(&mut stated.cluster);
    assert!(cluster.broker_name.is_some() && cluster.name.is_some() && cluster.locality.is_some());
    assert_eq!((cluster.address.is_some(), cluster.classes.len()), (true, 1));
    assert_eq!(stated, Config::default());
}

/// That a key of `[cluster]` is good by itself.
fn ok_with(line: &str) -> bool {
    ok(&format!("[cluster]\n{line}")) != Config::default()
}

#[test]
fn a_full_file_is_read() {
    let config = ok(r#"
        [node]
        cluster = "blue"
        pool = "4GiB"
        allow_uids = [0, 1000, 0xfffe]
        allow_swap = true
        root = "keys/given"
        [lease]
        ttl_default = "30s"
        ttl_max = "1h"
        bytes_min = 65_536
        bytes_max = "1GiB"
        per_principal = 7
        [quota.default]
        leased_bytes = "2GiB"
        [quota.alice]
        leases = 9
        resident_bytes = 0
        [quota."b.o-b"]
        [audit]
        devices = ["/a", "b"]
        on_full = "halt"
        checkpoint_every = "500ms"
        checkpoint_entries = 1
        [faults]
        access = "kill"
        quota = "revoke"
        quarantine = ["access", "right"]
        [policy]
        file = "mine.dl"
        allow_all = true
        [canary]
        every = "2s"
        [remote]
        listen = "[::1]:7171"
        domain = "mem.example"
        certificate = "tls/node.pem"
        key = "/k"
    "#);
    assert_eq!(config.node.pool, Some(4 * GIB));
    assert_eq!(config.node.allow_uids, Some(vec![0, 1000, 65_534]));
    assert_eq!(config.node.root_file(Path::new("/etc/l.toml")), Some("/etc/keys/given".into()));
    assert_eq!(config.lease.bytes_min, 65_536);
    let [alice, bob, carol] =
        ["alice", "b.o-b", "carol"].map(|name| *config.quotas.of(Some(&Name::new(name).unwrap())));
    assert_eq!(config.quotas.default.leases, 7, "[lease] per_principal is the default");
    assert_eq!(
        (alice.leases, alice.leased_bytes, alice.resident_bytes),
        (9, 2 * GIB, 0),
        "the rest is as in default"
    );
    assert_eq!((bob, carol), (config.quotas.default, config.quotas.default));
    assert_eq!(*config.quotas.of(None), config.quotas.default);
    assert_eq!(config.audit.on_full, OnFull::Halt);
    assert_eq!(config.faults.reaction(FaultKind::Access), Reaction::Kill);
    assert_eq!(config.faults.reaction(FaultKind::Protocol), Reaction::Fault);
    assert_eq!(config.faults.reaction(FaultKind::Quota), Reaction::Revoke);
    assert!(config.faults.quarantine.iter().eq([FaultKind::Access, FaultKind::Right]));
    assert_eq!(config.policy.path(Path::new("/etc/l.toml")), Some("/etc/mine.dl".into()));
    assert_eq!(config.policy.path(Path::new("l.toml")), Some("mine.dl".into()));
    assert_eq!(config.canary.every, Some(Micros::from_millis(2_000)));
    let remote = config.remote.beside(Path::new("/etc/l.toml"));
    assert_eq!(remote.listen, Some("[::1]:7171".parse().unwrap()));
    assert_eq!((remote.certificate, remote.key), (Some("/etc/tls/node.pem".into()), Some("/k".into())));
    assert_eq!((remote.roots, remote.domain.as_deref()), (None, Some("mem.example")));
}

#[test]
fn k2_syntax_duplicates_and_typos_have_a_place() {
    assert_eq!(mistakes("[node\npool = \"1GiB\""), [(1, 6, Code::ConfigSyntax)]);
    assert_eq!(mistakes("[node]\npool = \"1GiB\"\npool = \"2GiB\""), [(3, 1, Code::ConfigSyntax)]);
    assert_eq!(mistakes("[node]\n[node]"), [(2, 2, Code::ConfigSyntax)]);
    assert_eq!(mistakes("[nodes]"), [(1, 2, Code::ConfigSyntax)]);
    assert_eq!(mistakes("[node]\n  poll = \"1GiB\""), [(2, 3, Code::ConfigSyntax)]);
    assert_eq!(mistakes("pool = \"1GiB\""), [(1, 1, Code::ConfigSyntax)]);
    assert_eq!(mistakes("[quota.a]\nlease = 1"), [(2, 1, Code::ConfigSyntax)]);
    assert_eq!(
        mistakes("[tls]\nenabled = false"),
        [(1, 2, Code::ConfigSyntax)],
        "K5: there is nothing to turn off"
    );
    let help = &check_on("[node]\npoll = 1", "f", &BIG).unwrap_err()[0].help;
    assert_eq!(help, "did you mean `pool`?");
    let deep = format!("a = {}", "[".repeat(100_000));
    assert_eq!(mistakes(&deep)[0].2, Code::ConfigSyntax);
    let deep = format!("{} = 1", ["a"; 10_000].join("."));
    assert_eq!(mistakes(&deep)[0].2, Code::ConfigSyntax);
}

#[test]
fn k3_values_out_of_bounds_have_a_place() {
    for (line, column) in [
        ("node.pool = \"10GB\"", 13),
        ("node.pool = \"1.5GiB\"", 13),
        ("node.pool = -1", 13),
        ("node.pool = 0", 13),
        ("node.pool = \"90GiB\"", 13),
        ("node.pool = 99999999999999999999999999999999999999999999", 13),
        ("node.pool = 1.0", 13),
        ("node.pool = true", 13),
        ("node.pool = 1979-05-27", 13),
        ("node.pool = []", 13),
        ("node = 1", 8),
        ("remote.listen = \"7171\"", 17),
        ("remote.listen = \"localhost:7171\"", 17),
        ("remote.domain = \"Mem Example\"", 17),
        ("remote.key = \"\"", 14),
        ("quota.alice = 1", 15),
        ("quota.\"a b\".leases = 1", 7),
        ("node.cluster = \"a b\"", 16),
        ("node.cluster = 1", 16),
        ("node.allow_uids = 1", 19),
        ("node.allow_uids = [1, -1]", 23),
        ("node.allow_uids = [4294967295]", 20),
        ("node.allow_swap = \"yes\"", 19),
        ("lease.ttl_max = 10", 17),
        ("lease.ttl_max = \"0s\"", 17),
        ("lease.ttl_max = \"8760h\"", 17),
        ("lease.ttl_max = \"1m\"", 17),
        ("lease.ttl_default = \"25h\"", 21),
        ("lease.bytes_min = 0", 19),
        ("lease.bytes_max = \"2048GiB\"", 19),
        ("lease.per_principal = 1000000", 23),
        ("quota.a.leases = -1", 18),
        ("quota.a.shared_bytes = \"99999999999GiB\"", 24),
        ("audit.devices = [\"\"]", 18),
        ("audit.devices = [\"/a\", \"/b\", \"/a\"]", 30),
        ("audit.devices = [\"/a\", \"/b\", \"/c\", \"/d\", \"/e\"]", 17),
        ("audit.on_full = \"ignore\"", 17),
        ("audit.checkpoint_every = \"2h\"", 26),
        ("audit.checkpoint_entries = 0", 28),
        ("faults.right = \"ban\"", 16),
        ("faults.quarantine = [\"all\"]", 22),
        ("policy.file = \"a\\u0000\"", 15),
        ("policy.allow_all = 1", 20),
        ("canary.every = \"1ms\"", 16),
        ("canary.every = \"1h\"", 16),
        ("canary.every = \"never\"", 16),
        ("canary.every = false", 16),
        ("node.pool = \"15MiB\"", 13),
        ("cluster.listen = \"7172\"", 18),
        ("cluster.listen = 7172", 18),
        ("cluster.broker = \"10.0.0.4\"", 18),
        ("cluster.broker = \"a b:1\"", 18),
        ("cluster.name = \"node-1\"", 16),
        ("cluster.address = \"mem-1.example:7171\"", 19),
        ("cluster.classes = [\"a\"]", 19),
        ("cluster = 1", 11),
    ] {
        assert_eq!(mistakes(line), [(1, column, Code::ConfigValue)], "{line}");
    }
    assert_eq!(mistakes("[lease]\nbytes_max = 1\nbytes_min = 2"), [(3, 13, Code::ConfigValue)]);
    assert_eq!(
        mistakes("[node]\npool = \"16MiB\"\n[lease]\nbytes_min = \"17MiB\""),
        [(4, 13, Code::ConfigValue)]
    );
}

#[test]
fn a_node_is_a_broker_a_provider_or_neither() {
    let broker = ok("[node]\npool = 0\n[lease]\nbytes_min = 4096\n[cluster]\nlisten = \"[::]:7172\"");
    assert_eq!((broker.node.pool, broker.node.pool_bytes(&BIG)), (Some(0), 0));
    assert_eq!(broker.cluster.listen, Some("[::]:7172".parse().unwrap()));
    let provider = |remote: &str, more: &str| {
        format!("[cluster]\nbroker = \"b:1\"\n{more}\n[remote]\nlisten = \"{remote}\"")
    };
    let told = |text: &str| {
        let config = ok(text);
        config.cluster.told(&config.remote).map(|address| address.to_string())
    };
    assert_eq!(told(&provider("10.0.0.5:7171", "")), Some("10.0.0.5:7171".into()));
    assert_eq!(told(&provider("[::1]:7171", "")), Some("[::1]:7171".into()));
    assert_eq!(told(&provider("0.0.0.0:0", "address = \"m:7\"")), Some("m:7".into()));
    assert_eq!(told("[cluster]\nbroker = \"b:1\""), None, "only clients of its own machine");
    for nowhere in ["0.0.0.0:7171", "[::]:7171", "10.0.0.5:0"] {
        assert_eq!(mistakes(&provider(nowhere, "")), [(5, 10, Code::ConfigValue)], "{nowhere}");
    }
    let value = Code::ConfigValue;
    assert_eq!(mistakes("[cluster]\nlisten = \"[::]:1\"\nbroker = \"b:1\""), [(3, 10, value)]);
    assert_eq!(mistakes("[cluster]\nlisten = \"[::]:1\"\nlocality = \"a\""), [(3, 12, value)]);
    assert_eq!(mistakes("[cluster]\nbroker = \"b:1\"\nclasses = [\"a\", \"b\", \"a\"]"), [(3, 22, value)]);
    let many: Vec<_> = (0..9).map(|at| format!("\"c{at}\"")).collect();
    let many = format!("[cluster]\nbroker = \"b:1\"\nclasses = [{}]", many.join(","));
    assert_eq!(mistakes(&many), [(3, 11, value)]);
    // What could not be read is named once.
    assert_eq!(mistakes("[cluster]\nbroker = 1\nname = \"a\""), [(2, 10, value)]);
    let help = &check_on("[cluster]\nbrokers = \"b:1\"", "f", &BIG).unwrap_err()[0].help;
    assert_eq!(help, "did you mean `broker`?");
}

#[test]
fn k2_k3_all_mistakes_at_once() {
    let text =
        "[node]\npool = \"10GB\"\npoll = 1\nallow_swap = 3\n[lease]\nttl_max = \"1w\"\nttl_max = 2\n[zzz]\n";
    let lines: Vec<_> = mistakes(text).into_iter().map(|(line, ..)| line).collect();
    assert_eq!(lines, [2, 3, 4, 6, 7, 8]);
    let shown: Vec<_> = check_on(text, "f", &BIG).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(shown[0], "f:2:8: error[E_CONFIG_VALUE]: `node.pool`: `GB` can mean 10^9 or 2^30 bytes");
    assert_eq!(shown[1], "f:3:1: error[E_CONFIG_SYNTAX]: unknown key `node.poll`");
}

#[test]
fn a_flood_of_mistakes_is_bounded() {
    let count = if cfg!(miri) { DIAGNOSTICS_MAX + 2 } else { 5_000 };
    let many = (0..count).map(|at| format!("k{at} = 1\n")).collect::<String>();
    assert_eq!(mistakes(&many).len(), DIAGNOSTICS_MAX + 1);
    let garbage = "\u{1}=[\n".repeat(count);
    assert_eq!(mistakes(&garbage).len(), DIAGNOSTICS_MAX + 1);
}

#[test]
fn messages_do_not_write_to_the_terminal() {
    let text = "\"\\u001b[2J\" = 1\n[node]\ncluster = \"\\u202e\"\n[audit]\non_full = \"\\u001b]0;x\"";
    for mistake in check_on(text, "f\u{1b}[2J", &BIG).unwrap_err() {
        assert!(mistake.to_string().chars().all(|c| (' '..='~').contains(&c)), "{mistake:?}");
    }
}

#[test]
fn the_pool_follows_the_machine() {
    let node = Node::default();
    assert_eq!(node.pool_bytes(&BIG), 25 * GIB);
    let odd = Node { pool: Some(16 * MIB + 5), ..Node::default() };
    assert_eq!(odd.pool_bytes(&BIG), 16 * MIB, "whole pages");
    check("[node]\npool = \"16GiB\"\n[audit]\non_full = \"x\"", "f").expect_err("this machine is asked too");
}

#[test]
#[cfg_attr(miri, ignore = "real files")]
fn k1_whatever_stands_at_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(at("blank"), " \n\n").unwrap();
    std::fs::write(at("latin1"), b"# ok\n# \xe4\n").unwrap();
    std::fs::write(at("good"), default_text()).unwrap();
    std::fs::write(at("bad"), "x = 1\n").unwrap();
    // Sparse: it has 1 GiB and takes no disk.
    std::fs::File::create(at("huge")).unwrap().set_len(GIB).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    symlink(at("nowhere"), at("dangling")).unwrap();
    symlink(at("good"), at("link")).unwrap();
    let names = ["missing", ".", "empty", "blank", "latin1", "huge", "fifo", "dangling"];
    for path in names.iter().map(|name| at(name)).chain(["/dev/zero", "/dev/null"].map(PathBuf::from)) {
        let mistakes = load(&path).expect_err("not a configuration");
        assert_eq!(mistakes.len(), 1, "{path:?}");
        assert_eq!(mistakes[0].code, Code::ConfigIo, "{path:?}");
        assert!(mistakes[0].to_string().contains(": error[E_CONFIG_IO]: "), "{path:?}");
        assert_eq!(mistakes[0].to_error().code(), Code::ConfigIo);
    }
    assert_eq!(load(&at("latin1")).unwrap_err()[0].line, 2);
    assert_eq!(load(&at("good")).unwrap(), Config::default());
    assert_eq!(load(&at("link")).unwrap(), Config::default());
    let bad = load(&at("bad")).unwrap_err();
    assert!(bad[0].to_string().ends_with("bad:1:1: error[E_CONFIG_SYNTAX]: unknown key `x`"), "{bad:?}");
}

fn sizes() -> impl Strategy<Value = u64> {
    prop_oneof![0..=QUOTA_BYTES_MAX, Just(0), Just(QUOTA_BYTES_MAX), (0_u64..1_000).prop_map(|mib| mib * MIB)]
}

fn quotas() -> impl Strategy<Value = Quota> {
    let slots = || 0..=SLOTS_MAX as u32;
    (0..=LEASES_MAX as u32, sizes(), sizes(), sizes(), 0..=GRANTS_MAX as u32, slots(), slots()).prop_map(
        |(leases, leased_bytes, resident_bytes, shared_bytes, grants, opens, mappings)| Quota {
            leases,
            leased_bytes,
            resident_bytes,
            shared_bytes,
            grants,
            opens,
            mappings,
        },
    )
}

proptest! {
    #[test]
    fn what_is_written_reads_back(
        pool in proptest::option::of(POOL_BYTES_MIN..80 * GIB),
        uids in proptest::option::of(proptest::collection::vec(0..u32::MAX, 0..5)),
        swap: bool,
        ttl in LEASE_TTL_MS_MIN..=LEASE_TTL_MS_MAX,
        default in quotas(),
        named in proptest::collection::btree_map("[A-Za-z0-9_][A-Za-z0-9._-]{0,9}", quotas(), 0..4),
        devices in proptest::collection::btree_set("[^\0]{1,12}", 0..4),
        reactions in proptest::array::uniform4(0_usize..Reaction::ALL.len()),
        kept in proptest::array::uniform4(proptest::bool::ANY),
        file in proptest::option::of("[^\0]{1,12}"),
        every in proptest::option::of(CANARY_EVERY_MS_MIN..=CANARY_EVERY_MS_MAX),
        broker in proptest::option::of("[a-z0-9.-]{1,9}:[1-9][0-9]{0,3}"),
        classes in proptest::collection::btree_set("[a-z]{1,9}", 0..4),
        root in proptest::option::of("[^\0]{1,12}"),
    ) {
        let mut config = Config::default();
        match broker {
            Some(broker) => {
                let names = || classes.iter().map(|class| Name::new(class).unwrap());
                config.cluster.broker = caps::wire::provider::Address::new(&broker).ok();
                config.cluster.address = config.cluster.broker.clone();
                config.cluster.classes = names().collect();
                (config.cluster.name, config.cluster.locality) = (names().next(), names().nth(1));
                config.cluster.broker_name = names().nth(2);
            }
            None => config.cluster.listen = Some(([10, 0, 0, 1], ttl as u16).into()),
        }
        config.node = Node { pool, allow_uids: uids, allow_swap: swap, root: root.map(PathBuf::from), ..config.node };
        config.lease.ttl_max = Micros::from_millis(ttl);
        config.lease.ttl_default = Micros::from_millis(LEASE_TTL_MS_MIN + (ttl - LEASE_TTL_MS_MIN) / 2);
        config.quotas.default = default;
        let named = named.into_iter().filter(|(name, _)| name != "default");
        config.quotas.named = named.map(|(name, quota)| (Name::new(&name).unwrap(), quota)).collect();
        config.audit.devices = devices.into_iter().map(PathBuf::from).collect();
        for (kind, at) in FaultKind::ALL.into_iter().zip(reactions) {
            config.faults.set(kind, Reaction::ALL[at]);
        }
        for (kind, kept) in FaultKind::ALL.into_iter().zip(kept) {
            if kept {
                config.faults.quarantine.insert(kind);
            }
        }
        config.policy.file = file.map(PathBuf::from);
        config.canary.every = every.map(Micros::from_millis);
        let text = config.to_string();
        prop_assert_eq!(check_on(&text, "f", &BIG), Ok(config), "{}", text);
    }
}
