//! The command line from outside: usage, exit codes, the form of errors, colours, help, and what works without a node.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use caps::id::{ClusterEpoch, LeaseId, ProviderId, RegionId};
use caps::key::SigningKey;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::UnixMicros;
use caps::token::{RootKey, Terms, Token};
use serde_json::Value;

/// Runs the built binary with nothing of this environment but what it needs.
fn leasehold(arguments: &[&str]) -> Output {
    with(arguments, &[], "")
}

fn with(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it need not read it
    child.wait_with_output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it was not killed")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Checks the form of an error and returns its code.
fn error(output: &Output, exit: i32) -> String {
    let stderr = text(&output.stderr);
    assert_eq!(code(output), exit, "{stderr}");
    assert!(output.stdout.is_empty(), "errors go to standard error: {}", text(&output.stdout));
    let mut lines = stderr.lines();
    let first = lines.next().unwrap_or_default();
    let stable = first.strip_prefix("error[").and_then(|rest| rest.split_once("]: "));
    let (stable, message) = stable.unwrap_or_else(|| panic!("{stderr}"));
    assert!(stable.starts_with("E_") && !message.is_empty(), "{stderr}");
    assert!(lines.next().is_some_and(|line| line.starts_with("help: ") && line.len() > 6), "{stderr}");
    assert_eq!(lines.next(), None, "{stderr}");
    stable.to_owned()
}

/// Checks the JSON form of an error and returns its code.
fn json_error(output: &Output, exit: i32) -> String {
    assert_eq!(code(output), exit, "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
    let value: Value = serde_json::from_slice(&output.stderr).expect("one JSON document");
    assert_eq!(value.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"]);
    for key in ["code", "message", "help"] {
        assert!(value["error"][key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {value}");
    }
    value["error"]["code"].as_str().unwrap().to_owned()
}

fn done(output: &Output) -> &str {
    assert_eq!(code(output), 0, "{}", text(&output.stderr));
    text(&output.stdout)
}

fn json(output: &Output) -> Value {
    serde_json::from_str(done(output)).expect("one JSON document")
}

fn directory() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn wrong_usage_is_exit_2_in_both_forms() {
    let cases: &[&[&str]] = &[
        &["nonsense"],
        &["lease", "create"],
        &["lease", "create", "--size", "64MB", "--ttl", "10m"],
        &["lease", "create", "--size", "64MiB", "--ttl", "10"],
        &["lease", "create", "--size", "-1", "--ttl", "10m"],
        &["lease", "create", "--size", "1MiB", "--ttl", "1m", "--name", "a/b"],
        &["lease", "create", "--sise", "1MiB", "--ttl", "1m"],
        &["share", "offer", "x", "--to", "bob", "--rights", "wr"],
        &["share", "offer", "x", "--to", "bob", "--rights", "r", "--range", "5..4"],
        &["share", "accept", "not-an-id"],
        &["revoke", "planet", "x"],
        &["revoke", "lease", "x", "--reason", "\u{1b}[2J"],
        &["get"],
        &["token", "seal", "x"],
        &["token", "verify", "x", "--at", "yesterday"],
        &["token", "verify", "x", "--rights", "wr"],
        &["token", "verify", "x", "--range", "4..4"],
        &["token", "delegate", "x", "--to", "b/b", "-o", "y"],
        &["share", "offer", "x", "--to", "bob", "--rights", "r", "--hops", "-1"],
        &["id", "trust", "bob"],
        &["id", "trust", "bob", "5d4d"],
        &["id", "trust", "../bob", "5d4d3dc6c2dfd46f1707e0e993d7351561ec5e5616115214784bc48af49ab327"],
        &["id", "forget"],
        &["audit", "verify", "/tmp"],
        &["audit", "tail", "--follow", "--json"],
        &["completions", "tcsh"],
        &["bench", "beside"],
        &["bench", "beside", "--size", "1MB", "--", "true"],
        &["bench", "beside", "true"],
        &["bench", "beside", "--rounds", "0", "--", "true"],
        &["--as", "../admin", "status"],
        &["--broker", "node.example", "status"],
        &["--broker", "node.example:0", "status"],
        &["--broker", "node.example:65536", "status"],
        &["--broker", "::1:7171", "status"],
        &["--broker", "", "status"],
        &["--broker", "\u{1b}[2J:7171", "status"],
        &["--broker", "node.example:7171", "--node", "-x", "status"],
        &["--node", "node-1", "status"],
        &["--broker", "node.example:7171", "run", "--", "true"],
    ];
    for arguments in cases {
        let wants_json = arguments.contains(&"--json");
        if !wants_json {
            assert_eq!(error(&leasehold(arguments), 2), "E_USAGE", "{arguments:?}");
        }
        // What follows `--` belongs to another command.
        let own = arguments.iter().position(|argument| *argument == "--").unwrap_or(arguments.len());
        let arguments = [&arguments[..own], &["--json"], &arguments[own..]].concat();
        assert_eq!(json_error(&leasehold(&arguments), 2), "E_USAGE", "{arguments:?}");
    }
}

#[test]
fn a_missing_command_shows_the_help_on_standard_error() {
    for arguments in [&[][..], &["lease"], &["share"]] {
        let output = leasehold(arguments);
        assert_eq!(code(&output), 2);
        assert!(output.stdout.is_empty() && text(&output.stderr).contains("Example:"));
    }
    assert_eq!(json_error(&leasehold(&["lease", "--json"]), 2), "E_USAGE");
}

#[test]
fn an_argument_cannot_write_to_the_terminal() {
    let output = leasehold(&["\u{1b}[2J\u{202e}"]);
    assert_eq!(error(&output, 2), "E_USAGE");
    assert!(!output.stderr.contains(&0x1b) && !text(&output.stderr).contains('\u{202e}'));
}

#[test]
fn no_node_is_exit_4_and_says_what_to_do() {
    let (_directory, dir) = directory();
    done(&leasehold(&["--dir", &dir, "id", "new", "alice"]));
    for command in [
        &["status"][..],
        &["lease", "list"],
        &["lease", "create", "--size", "1MiB", "--ttl", "1m"],
        &["share", "list"],
        &["revoke", "region", "0123456789abcdef0123456789abcdef"],
        &["id", "register", "alice"],
    ] {
        let arguments: Vec<_> = ["--dir", &dir].into_iter().chain(command.iter().copied()).collect();
        let output = leasehold(&arguments);
        assert_eq!(error(&output, 4), "E_UNREACHABLE", "{command:?}");
        assert!(text(&output.stderr).contains("leasehold up"));
        let arguments: Vec<_> = arguments.into_iter().chain(["--json"]).collect();
        assert_eq!(json_error(&leasehold(&arguments), 4), "E_UNREACHABLE");
    }
}

#[test]
fn who_i_am_must_be_clear() {
    let (_directory, dir) = directory();
    let status = |more: &[&str], environment: &[(&str, &str)]| {
        let arguments: Vec<_> =
            ["--dir", &dir, "lease", "list"].into_iter().chain(more.iter().copied()).collect();
        with(&arguments, environment, "")
    };
    assert_eq!(error(&status(&[], &[]), 2), "E_USAGE");
    done(&leasehold(&["--dir", &dir, "id", "new", "alice"]));
    assert_eq!(error(&status(&[], &[]), 4), "E_UNREACHABLE", "the only one there is");
    done(&leasehold(&["--dir", &dir, "id", "new", "bob"]));
    let output = status(&[], &[]);
    assert_eq!(error(&output, 2), "E_USAGE");
    assert!(text(&output.stderr).contains("alice, bob"));
    assert_eq!(error(&status(&["--as", "bob"], &[]), 4), "E_UNREACHABLE");
    assert_eq!(error(&status(&[], &[("LEASEHOLD_ID", "bob")]), 4), "E_UNREACHABLE");
    assert_eq!(error(&status(&["--as", "carol"], &[]), 1), "E_CONFIG_IO");
}

#[test]
fn the_directory_comes_from_the_environment_too() {
    let (_directory, dir) = directory();
    let output = with(&["id", "new", "alice", "--json"], &[("LEASEHOLD_DIR", &dir)], "");
    let file = json(&output)["identity"]["file"].as_str().unwrap().to_owned();
    assert_eq!(file, format!("{dir}/ids/alice.key"));
    let xdg = [("XDG_STATE_HOME", &dir[..]), ("XDG_RUNTIME_DIR", &dir)];
    let output = with(&["id", "new", "alice", "--json"], &xdg, "");
    assert_eq!(json(&output)["identity"]["file"].as_str().unwrap(), format!("{dir}/leasehold/ids/alice.key"));
}

#[test]
fn a_key_is_its_owners_alone_and_is_never_shown() {
    let (_directory, dir) = directory();
    let made = json(&leasehold(&["--dir", &dir, "id", "new", "alice", "--json"]));
    let file = format!("{dir}/ids/alice.key");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(std::fs::metadata(format!("{dir}/ids")).unwrap().mode() & 0o7777, 0o700);
    let secret = std::fs::read_to_string(&file).unwrap();
    let secret = secret.trim_end().strip_prefix("leasehold-key-v1:").unwrap();
    for arguments in [&["id", "list"][..], &["id", "show", "alice"], &["id", "list", "--json"]] {
        let arguments: Vec<_> = ["--dir", &dir].into_iter().chain(arguments.iter().copied()).collect();
        let output = leasehold(&arguments);
        let shown = done(&output);
        assert!(shown.contains(made["identity"]["key"].as_str().unwrap()));
        assert!(!shown.contains(secret));
    }
    assert_eq!(error(&leasehold(&["--dir", &dir, "id", "new", "alice"]), 1), "E_EXISTS");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(error(&leasehold(&["--dir", &dir, "lease", "list"]), 1), "E_CONFIG_PERMS");
}

#[test]
fn registering_by_force_fails_without_a_node_and_keeps_the_key() {
    let (_directory, dir) = directory();
    let output = leasehold(&["--dir", &dir, "id", "new", "alice", "--register"]);
    assert_eq!(error(&output, 4), "E_UNREACHABLE");
    assert!(Path::new(&format!("{dir}/ids/alice.key")).exists());
}

#[test]
fn a_pipe_gets_no_colours_whatever_is_asked() {
    for environment in [&[("TERM", "xterm-256color")][..], &[("TERM", "xterm"), ("NO_COLOR", "1")]] {
        let (_directory, dir) = directory();
        for arguments in [&["--help"][..], &["nonsense"], &["--dir", &dir, "id", "new", "a"]] {
            let output = with(arguments, environment, "");
            assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{arguments:?}");
        }
    }
}

/// Runs the binary with a terminal as its standard error and returns what it wrote there.
fn on_a_terminal(arguments: &[&str], environment: &[(&str, &str)]) -> Vec<u8> {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = std::fs::File::options().write(true).open(name.to_str().unwrap()).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().copied())
        .stdout(Stdio::null())
        .stderr(slave)
        .spawn()
        .unwrap();
    child.wait().unwrap();
    let mut shown = vec![0; 4096];
    let count = rustix::io::read(&master, &mut shown).unwrap();
    shown.truncate(count);
    shown
}

#[test]
fn colours_are_for_terminals_and_no_color_is_honoured() {
    let terminal = ("TERM", "xterm-256color");
    assert!(on_a_terminal(&["nonsense"], &[terminal]).contains(&0x1b));
    assert!(on_a_terminal(&["nonsense"], &[terminal, ("NO_COLOR", "")]).contains(&0x1b), "empty means unset");
    assert!(!on_a_terminal(&["nonsense"], &[terminal, ("NO_COLOR", "1")]).contains(&0x1b));
    assert!(!on_a_terminal(&["nonsense"], &[("TERM", "dumb")]).contains(&0x1b));
}

#[test]
fn every_help_is_printed_and_has_its_example() {
    fn walk(words: &[&str], seen: &mut usize) {
        let arguments: Vec<_> = words.iter().copied().chain(["--help"]).collect();
        let output = leasehold(&arguments);
        let help = done(&output).to_owned();
        let example = help.lines().skip_while(|line| *line != "Example:").nth(1);
        let example = example.unwrap_or_else(|| panic!("{words:?}")).trim();
        assert!(example.starts_with("leasehold"), "{example}");
        *seen += 1;
        let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        for line in commands.take_while(|line| !line.is_empty()) {
            let name = line.split_whitespace().next().unwrap();
            let indented = line.starts_with("  ") && !line.starts_with("   ");
            if indented {
                walk(&words.iter().copied().chain([name]).collect::<Vec<_>>(), seen);
            }
        }
    }
    let mut seen = 0;
    walk(&[], &mut seen);
    assert!(seen > 25, "{seen}");
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(done(&leasehold(&["completions", shell])).contains("leasehold"));
        assert_eq!(json(&leasehold(&["completions", shell, "--json"]))["shell"], shell);
    }
}

fn mint(root: &RootKey, holder: &SigningKey) -> Token {
    root.mint(&Terms {
        lease: LeaseId([1; 16]),
        region: RegionId([2; 16]),
        grant: None,
        range: ByteRange::new(0, 65_536).unwrap(),
        rights: Rights::ALL,
        holder: holder.public(),
        not_before: UnixMicros(0),
        expires: UnixMicros(4_000_000_000_000_000),
        max_hops: 2,
        cluster: ClusterEpoch([3; 16]),
        provider: ProviderId([4; 16]),
    })
    .unwrap()
}

#[test]
fn a_token_is_inspected_narrowed_sealed_and_verified_offline() {
    let (directory, dir) = directory();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let root = RootKey::from_seed(&[1; 32]);
    let token = mint(&root, &SigningKey::from_seed(&[2; 32]));
    let (whole, narrow, sealed) = (path("whole.token"), path("narrow.token"), path("sealed.token"));
    std::fs::write(&whole, format!("{}\n", *token.to_text())).unwrap();
    let key = root.public().to_string();

    let seen = json(&leasehold(&["token", "inspect", &whole, "--json"]));
    assert_eq!(seen["token"]["signatures"]["state"], "not_checked");
    assert_eq!(seen["token"]["effective"]["rights"], "rws");
    let seen = json(&leasehold(&["token", "inspect", &whole, "--root", &key, "--json"]));
    assert_eq!(seen["token"]["signatures"]["state"], "verified");

    let narrowing = ["token", "attenuate", &whole, "--rights", "r", "--range", "0..4KiB", "-o", &narrow];
    done(&leasehold(&narrowing));
    assert_eq!(std::fs::metadata(&narrow).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(error(&leasehold(&narrowing), 1), "E_EXISTS");
    let seen = json(&leasehold(&["token", "inspect", &narrow, "--json"]));
    assert_eq!(seen["token"]["effective"]["rights"], "r");
    assert_eq!(seen["token"]["effective"]["range"], serde_json::json!([0, 4096]));

    let wider = leasehold(&["token", "attenuate", &narrow, "--rights", "rw", "-o", &path("wider.token")]);
    assert_eq!(error(&wider, 1), "E_RANGE");
    assert!(!directory.path().join("wider.token").exists());

    done(&leasehold(&["token", "seal", &narrow, "-o", &sealed]));
    let again = leasehold(&["token", "attenuate", &sealed, "--ttl", "1s", "-o", &path("x.token")]);
    assert_eq!(error(&again, 3), "E_DENIED");

    for file in [&whole, &narrow, &sealed] {
        assert_eq!(json(&leasehold(&["token", "verify", file, "--root", &key, "--json"]))["verified"], true);
        let other = RootKey::from_seed(&[9; 32]).public().to_string();
        assert_eq!(error(&leasehold(&["token", "verify", file, "--root", &other]), 1), "E_TOKEN_UNKNOWN_KEY");
    }
    assert_eq!(error(&leasehold(&["--dir", &dir, "token", "verify", &whole]), 2), "E_USAGE");

    // From standard input, and with the root key in a file.
    std::fs::write(path("root"), format!("{key}\n")).unwrap();
    let output = with(&["token", "verify", "-", "--root", &path("root")], &[], &token.to_text());
    assert!(done(&output).contains("every signature verifies"));
}

#[test]
fn a_token_is_delegated_by_its_holder_and_by_nobody_else() {
    let (directory, dir) = directory();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let key = |name: &str| {
        let made = json(&leasehold(&["--dir", &dir, "id", "new", name, "--json"]));
        made["identity"]["key"].as_str().unwrap().to_owned()
    };
    let (alice, bob) = (key("alice"), key("bob"));
    let root = RootKey::from_seed(&[1; 32]);
    let alice_seed = std::fs::read_to_string(path("ids/alice.key")).unwrap();
    let seed = data_encoding::BASE64URL_NOPAD
        .decode(alice_seed.trim_end().strip_prefix("leasehold-key-v1:").unwrap().as_bytes())
        .unwrap();
    let holder = SigningKey::from_seed(&seed.try_into().unwrap());
    std::fs::write(path("a.token"), &**mint(&root, &holder).to_text()).unwrap();
    let delegate = |who: &str, to: &str, output: &str| {
        leasehold(&[
            "--dir",
            &dir,
            "--as",
            who,
            "token",
            "delegate",
            &path("a.token"),
            "--to",
            to,
            "-o",
            output,
        ])
    };
    assert_eq!(error(&delegate("bob", &bob, &path("x.token")), 3), "E_TOKEN_BOUND");
    assert_eq!(error(&delegate("alice", "carol", &path("x.token")), 1), "E_PRINCIPAL_UNKNOWN");
    done(&delegate("alice", "bob", &path("b.token")));
    let seen = json(&leasehold(&["token", "inspect", &path("b.token"), "--json"]));
    assert_eq!(seen["token"]["holders"], serde_json::json!([alice, bob]));
}

/// The one document of `token verify --json`, which is there whatever the answer is, and the exit code.
fn judged(arguments: &[&str], exit: i32) -> Value {
    let output = leasehold(&[&["token", "verify"], arguments, &["--json"]].concat());
    assert_eq!(code(&output), exit, "{}", text(&output.stderr));
    let value: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(value["verified"], exit == 0);
    if exit != 0 {
        let error: Value = serde_json::from_slice(&output.stderr).expect("one JSON document");
        assert_eq!(error["error"]["code"], value["reasons"][0]["code"]);
    }
    assert_eq!(value["node"]["asked"], false);
    value
}

#[test]
fn a_token_is_judged_with_the_limit_and_the_block_that_refuse() {
    let (directory, dir) = directory();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (root, holder, next) =
        (RootKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32]), SigningKey::from_seed(&[3; 32]));
    let key = root.public().to_string();
    let whole = mint(&root, &holder);
    let narrow = caps::token::Narrow {
        rights: Some(Rights::READ),
        range: Some(ByteRange::new(0, 4096).unwrap()),
        expires: Some(UnixMicros(3_900_000_000_000_000)),
        ..caps::token::Narrow::default()
    };
    let delegated = caps::token::delegate(&whole, &holder, next.public(), &narrow).unwrap();
    // Somebody's own tool wrote that it may not have been delegated at all.
    let none = caps::token::Narrowing { hops: Some(0), ..caps::token::Narrowing::default() };
    let over = caps::token::forge::narrow_anyhow(&delegated, &none).unwrap();
    let ended = caps::token::Narrow { expires: Some(UnixMicros(1)), ..caps::token::Narrow::default() };
    let ended = caps::token::attenuate(&delegated, &ended).unwrap();
    for (name, token) in [("good", &delegated), ("over", &over), ("ended", &ended)] {
        std::fs::write(path(name), format!("{}\n", *token.to_text())).unwrap();
    }
    let (good, over, ended) = (path("good"), path("over"), path("ended"));
    let ask = |file: &str, more: &[&str], exit: i32| {
        let value = judged(&[&["--dir", &dir, file, "--root", &key], more].concat(), exit);
        let reasons = value["reasons"].as_array().unwrap().iter();
        let reason = |reason: &Value| {
            (reason["limit"].as_str().unwrap().to_owned(), reason["block"].as_u64().unwrap())
        };
        reasons.map(reason).collect::<Vec<_>>()
    };
    let limit = |limit: &str, block| (limit.to_owned(), block);
    assert_eq!(ask(&good, &[], 0), []);
    assert_eq!(ask(&good, &["--rights", "r", "--range", "0..4KiB", "--at", "+1h"], 0), []);
    assert_eq!(ask(&good, &["--rights", "rw"], 3), [limit("rights", 1)]);
    assert_eq!(ask(&good, &["--range", "0..8KiB"], 3), [limit("range", 1)]);
    assert_eq!(ask(&good, &["--range", "64KiB..65KiB"], 3), [limit("range", 0)]);
    assert_eq!(ask(&good, &["--at", "2093-08-01T21:20:00Z"], 3), [limit("expires", 1)]);
    assert_eq!(ask(&good, &["--at", "2093-08-01T21:19:59Z"], 0), []);
    assert_eq!(ask(&ended, &[], 3), [limit("expires", 2)]);
    assert_eq!(ask(&ended, &["--at", "1970-01-01T00:00:00Z"], 0), []);
    assert_eq!(ask(&over, &["--rights", "w"], 3), [limit("hops", 2), limit("rights", 1)]);

    // For people: the reason with its block, and that nobody asked about revocation.
    let output = leasehold(&["--dir", &dir, "token", "verify", &over, "--root", &key]);
    assert_eq!(code(&output), 3);
    assert!(text(&output.stderr).starts_with("error[E_DENIED]: hops: "), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    assert!(said.contains("(block 2: attenuation") && said.contains("whether it was revoked is not known"));
    assert!(
        done(&leasehold(&["--dir", &dir, "token", "verify", &good, "--root", &key]))
            .contains("\nyes: r on 0..4096")
    );
    // What is no token, or another's, is no matter of time or rights.
    std::fs::write(path("bad"), "leasehold-token-v1:!!\n").unwrap();
    let bad = leasehold(&["--dir", &dir, "token", "verify", &path("bad"), "--root", &key]);
    assert_eq!(error(&bad, 1), "E_TOKEN_MALFORMED");
}

#[test]
fn keys_of_others_are_taken_once_and_delegated_to_by_name() {
    let (directory, dir) = directory();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let here = |arguments: &[&str]| leasehold(&[&["--dir", &dir], arguments].concat());
    let alice =
        json(&here(&["id", "new", "alice", "--json"]))["identity"]["key"].as_str().unwrap().to_owned();
    let [carol, other] = [5, 6].map(|n| SigningKey::from_seed(&[n; 32]).public().to_string());

    assert!(done(&here(&["id", "trust", "carol", &carol])).ends_with("taken\n"));
    assert!(done(&here(&["id", "trust", "carol", &carol])).ends_with("known already\n"));
    let file = path("contacts/carol.pub");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(json(&here(&["id", "show", "carol", "--json"]))["contact"]["key"], carol[..]);
    let listed = json(&here(&["id", "list", "--json"]));
    assert_eq!(
        (&listed["contacts"][0]["name"], &listed["contacts"][0]["by_hand"]),
        (&"carol".into(), &true.into())
    );
    assert!(done(&here(&["id", "list"])).contains(&carol));

    let output = here(&["id", "trust", "carol", &other]);
    assert_eq!(error(&output, 3), "E_KEY_CHANGED");
    for said in [&carol[..], &other, "leasehold id forget carol"] {
        assert!(text(&output.stderr).contains(said), "{}", text(&output.stderr));
    }
    assert_eq!(error(&here(&["id", "trust", "alice", &other]), 1), "E_EXISTS", "that is me");
    assert_eq!(error(&here(&["id", "trust", "eve", &"ff".repeat(32)]), 1), "E_RANGE", "no key");
    assert_eq!(error(&here(&["id", "forget", "eve"]), 1), "E_PRINCIPAL_UNKNOWN");

    // By name, with no node anywhere.
    let seed = std::fs::read_to_string(path("ids/alice.key")).unwrap();
    let seed = seed.trim_end().strip_prefix("leasehold-key-v1:").unwrap();
    let seed = data_encoding::BASE64URL_NOPAD.decode(seed.as_bytes()).unwrap();
    let token = mint(&RootKey::from_seed(&[1; 32]), &SigningKey::from_seed(&seed.try_into().unwrap()));
    std::fs::write(path("a.token"), &**token.to_text()).unwrap();
    let delegate = |to: &str, file: &str| {
        let narrow = ["--rights", "r", "--range", "0..16KiB", "--ttl", "5m"];
        here(&[&["token", "delegate", &path("a.token"), "--to", to, "-o", &path(file)][..], &narrow].concat())
    };
    done(&delegate("carol", "c.token"));
    let seen = json(&here(&["token", "inspect", &path("c.token"), "--json"]));
    assert_eq!(seen["token"]["holders"], serde_json::json!([alice, carol]));
    assert_eq!((&seen["names"][&alice], &seen["names"][&carol]), (&"alice".into(), &"carol".into()));
    assert_eq!(seen["token"]["blocks"][1]["took"]["rights"], "ws");
    let shown = here(&["token", "inspect", &path("c.token")]);
    let shown = done(&shown);
    for said in [
        "alice -> carol",
        "block 1: delegation by alice to carol",
        "the right to ws, bytes 16384..65536, its last ",
        "whether it was revoked is not known",
    ] {
        assert!(shown.contains(said), "{said}: {shown}");
    }
    let unknown = delegate("dave", "d.token");
    assert_eq!(error(&unknown, 1), "E_PRINCIPAL_UNKNOWN");
    assert!(text(&unknown.stderr).contains("leasehold id trust dave KEY"));
    // A damaged contact is nobody's key, and a name with two keys is none of them.
    std::fs::write(&file, "5d4d\n").unwrap();
    assert_eq!(error(&delegate("carol", "e.token"), 1), "E_CONFIG_SYNTAX");
    std::fs::write(path("contacts/alice.pub"), format!("{other}\n")).unwrap();
    assert_eq!(error(&delegate("alice", "f.token"), 2), "E_USAGE");
    done(&here(&["id", "forget", "carol"]));
}

#[test]
fn a1_what_is_no_token_is_refused() {
    for input in ["", "leasehold-token-v1:", "leasehold-token-v1:!!", "hello", &"x".repeat(100_000)] {
        let output = with(&["token", "inspect", "-"], &[], input);
        let stable = error(&output, 1);
        assert!(["E_TOKEN_MALFORMED", "E_CONFIG_IO"].contains(&&stable[..]), "{stable}");
    }
    assert_eq!(error(&leasehold(&["token", "inspect", "./missing"]), 1), "E_CONFIG_IO");
}

#[test]
fn k2_every_mistake_of_a_file_is_named_with_its_place() {
    let (directory, _) = directory();
    let file = directory.path().join("leasehold.toml");
    let file = file.to_str().unwrap();
    std::fs::write(file, "[node]\npool = \"10GB\"\nbogus = 1\n").unwrap();
    let output = leasehold(&["config", "check", file]);
    assert_eq!(code(&output), 1);
    let shown = text(&output.stderr);
    assert_eq!(shown.lines().filter(|line| line.starts_with("error[")).count(), 2, "{shown}");
    assert!(shown.contains("leasehold.toml:2:") && shown.contains("leasehold.toml:3:"), "{shown}");
    let output = leasehold(&["config", "check", file, "--json"]);
    json_error(&output, 1);
    let value: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(value["error"]["mistakes"].as_array().unwrap().len(), 2);

    std::fs::write(file, "[node]\n").unwrap();
    assert_eq!(json(&leasehold(&["config", "check", file, "--json"]))["config"]["ok"], true);
    for (command, missing) in
        [("config", "missing.toml"), ("policy", "missing.dl"), ("config", "/"), ("policy", "/dev/zero")]
    {
        assert_eq!(error(&leasehold(&[command, "check", missing]), 1), "E_CONFIG_IO", "{command} {missing}");
    }
}

#[test]
fn k8_a_policy_is_checked() {
    let (directory, _) = directory();
    let file = directory.path().join("policy.dl");
    let file = file.to_str().unwrap();
    std::fs::write(file, "allow if true;\n").unwrap();
    let output = leasehold(&["policy", "check", file, "--json"]);
    assert_eq!(json_error(&output, 1), "E_POLICY_LINT");
    std::fs::write(file, "allow if ((((;\n").unwrap();
    assert_eq!(error(&leasehold(&["policy", "check", file]), 1), "E_POLICY_SYNTAX");
}

#[test]
fn a_log_that_is_not_there_is_no_success() {
    let (_directory, dir) = directory();
    let vkey = "leasehold/audit/broker+00000000+AAAA";
    assert_eq!(
        error(&leasehold(&["audit", "verify", &dir, "--vkey", vkey]), 2),
        "E_USAGE",
        "no vkey, no file"
    );
    assert_ne!(code(&leasehold(&["audit", "tail", &dir])), 0);
    assert_ne!(code(&leasehold(&["audit", "prove", "0", "--log", &dir])), 0);
}

#[test]
fn put_and_get_refuse_what_cannot_be_before_they_ask_a_node() {
    let (_directory, dir) = directory();
    done(&leasehold(&["--dir", &dir, "id", "new", "alice"]));
    assert_eq!(error(&leasehold(&["--dir", &dir, "put", "-"]), 2), "E_USAGE");
    assert_eq!(json_error(&leasehold(&["--dir", &dir, "get", "x", "--json"]), 2), "E_USAGE");
    assert_eq!(error(&leasehold(&["--dir", &dir, "put", "x"]), 4), "E_UNREACHABLE");
}

#[test]
fn doctor_tries_this_machine() {
    let report = json(&leasehold(&["doctor", "--json"]));
    assert!(["sealed", "open"].contains(&report["doctor"]["tier"].as_str().unwrap()));
    for check in report["doctor"]["checks"].as_array().unwrap() {
        assert!(check["ok"].is_boolean() && check["found"].is_string(), "{check}");
        assert_eq!(check["advice"].is_null(), check["ok"] == true, "{check}");
    }
    let daemons = |check: &&Value| check["name"] == "daemons sandboxed";
    assert_eq!(report["doctor"]["checks"].as_array().unwrap().iter().find(daemons).unwrap()["ok"], true);
    assert!(done(&leasehold(&["doctor"])).contains("tier "));
}

#[test]
fn a_reader_that_closes_early_is_no_failure() {
    let script = format!("{} completions bash | head -c 1 >/dev/null", env!("CARGO_BIN_EXE_leasehold"));
    let output = Command::new("bash").args(["-o", "pipefail", "-c", &script]).output().unwrap();
    assert_eq!(code(&output), 0, "{}", text(&output.stderr));
    assert!(output.stderr.is_empty());
}

/// A directory with the identity `alice`, and her certificate.
fn with_certificate() -> (tempfile::TempDir, String) {
    let (directory, dir) = directory();
    done(&leasehold(&["--dir", &dir, "id", "new", "alice"]));
    done(&leasehold(&["--dir", &dir, "pki", "init", "--domain", "mem.example"]));
    done(&leasehold(&["--dir", &dir, "pki", "issue", "alice"]));
    (directory, dir)
}

/// A port at which nobody listens: one that the kernel gave out, and has back.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_node_that_nobody_hears_at_is_exit_4_and_named_by_its_address() {
    let (_directory, dir) = with_certificate();
    let address = format!("127.0.0.1:{}", free_port());
    for command in [&["lease", "list"][..], &["put", "frames"], &["get", "frames", "-o", "got"], &["status"]]
    {
        let arguments = [&["--dir", &dir, "--broker", &address], command].concat();
        let output = leasehold(&arguments);
        assert_eq!(error(&output, 4), "E_UNREACHABLE", "{command:?}");
        let said = text(&output.stderr);
        assert!(said.contains(&address) && said.contains("leasehold up --listen"), "{said}");
        assert_eq!(json_error(&leasehold(&[&arguments[..], &["--json"]].concat()), 4), "E_UNREACHABLE");
    }
    // The same from the environment, and the certificate from another directory.
    let tls = format!("{dir}/pki");
    let (_other, other) = self::directory();
    done(&leasehold(&["--dir", &other, "id", "new", "alice"]));
    let environment =
        [("LEASEHOLD_BROKER", &address[..]), ("LEASEHOLD_TLS", &tls), ("LEASEHOLD_DIR", &other)];
    let output = with(&["lease", "list"], &environment, "");
    assert_eq!(error(&output, 4), "E_UNREACHABLE");
    assert!(text(&output.stderr).contains(&address));
}

#[test]
fn without_a_good_certificate_nobody_is_called() {
    let (_directory, dir) = self::directory();
    done(&leasehold(&["--dir", &dir, "id", "new", "alice"]));
    let address = format!("127.0.0.1:{}", free_port());
    let ask = |more: &[&str]| {
        leasehold(&[&["--dir", &dir, "--broker", &address][..], more, &["lease", "list"]].concat())
    };
    let refused = |more: &[&str], stable: &str, said: &str| {
        let output = ask(more);
        assert_eq!(error(&output, 1), stable);
        assert!(text(&output.stderr).contains(said), "{said}: {}", text(&output.stderr));
    };
    refused(&[], "E_CONFIG_TLS", "leasehold pki init");
    refused(&["--tls", "/nonexistent"], "E_CONFIG_TLS", "--tls");
    done(&leasehold(&["--dir", &dir, "pki", "init", "--domain", "mem.example"]));
    refused(&[], "E_CONFIG_TLS", "leasehold pki issue alice");
    done(&leasehold(&["--dir", &dir, "pki", "issue", "alice"]));
    let file = |name: &str| format!("{dir}/pki/{name}");
    let mode = |name: &str, mode| {
        std::fs::set_permissions(file(name), std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("alice.key", 0o644);
    refused(&[], "E_CONFIG_TLS", "0600");
    mode("alice.key", 0o600);
    std::fs::rename(file("alice.key"), file("aside")).unwrap();
    refused(&[], "E_CONFIG_TLS", "alice.key");
    std::fs::rename(file("aside"), file("alice.key")).unwrap();
    std::fs::write(file("alice.pem"), "no certificate\n").unwrap();
    refused(&[], "E_CONFIG_TLS", "alice.pem");
    done(&leasehold(&["--dir", &dir, "pki", "rotate", "alice"]));
    done(&leasehold(&["--dir", &dir, "pki", "revoke", "alice"]));
    refused(&[], "E_CONFIG_TLS", "alice.pem");
    mode("", 0o777);
    refused(&[], "E_CONFIG_PERMS", "others may put files there");
}

#[test]
fn an_authority_keeps_its_own_files_and_what_it_issued_once() {
    let (_directory, dir) = with_certificate();
    let pki = |arguments: &[&str]| leasehold(&[&["--dir", &dir, "pki"], arguments].concat());
    for name in ["ca", "ca-before", "roots", "lists", "domain", "issued"] {
        assert_eq!(error(&pki(&["issue", name]), 1), "E_CONFIG_VALUE", "{name}");
    }
    let again = pki(&["issue", "alice"]);
    assert_eq!(error(&again, 1), "E_EXISTS");
    assert!(text(&again.stderr).contains("leasehold pki rotate alice"), "{}", text(&again.stderr));
    for command in ["rotate", "revoke"] {
        let nobody = pki(&[command, "bob"]);
        assert_eq!(error(&nobody, 1), "E_CONFIG_VALUE");
        assert!(text(&nobody.stderr).contains("leasehold pki list"), "{}", text(&nobody.stderr));
    }
    let lists = format!("{dir}/pki/lists.pem");
    let before = std::fs::read(&lists).unwrap();
    let renewed = json(&pki(&["list", "--renew", "--json"]));
    assert_eq!(renewed["lists"]["file"], lists[..]);
    assert_ne!(std::fs::read(&lists).unwrap(), before);
    done(&pki(&["rotate", "--ca"]));
    let twice = pki(&["rotate", "--ca"]);
    assert_eq!(error(&twice, 1), "E_CONFIG_VALUE");
    let until = &json(&pki(&["list", "--json"]))["certificates"][0]["until"];
    assert!(text(&twice.stderr).contains(until.as_str().unwrap()), "{}", text(&twice.stderr));
    done(&pki(&["revoke", "alice"]));
    done(&pki(&["rotate", "--ca"]));
}

#[test]
fn what_answers_without_tls_is_no_node() {
    let (_directory, dir) = with_certificate();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let said = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        let mut all = Vec::new();
        let _ = std::io::Read::read_to_end(&mut stream, &mut all); // it may be reset
        all
    });
    let output = leasehold(&["--dir", &dir, "--broker", &address, "lease", "list"]);
    assert_ne!(code(&output), 0);
    assert!(text(&output.stderr).starts_with("error[E_"), "{}", text(&output.stderr));
    assert_eq!(said.join().unwrap().first(), Some(&0x16), "a TLS record, and nothing in the clear");
}
