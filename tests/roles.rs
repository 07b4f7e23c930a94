//! Broker and provider as processes of their own: they find each other, share the work, and lose each other.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use caps::wire::row::{RootRow, RootState};
use common::shell::Shell;
use common::tls::DOMAIN;
use common::{PATIENCE, pattern, refused, until};
use libmem::{Client, Code, Endpoint, LeaseOptions, Leased, Name, Rights, SigningKey};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const BYTES: u64 = 1 << 20;
const TTL: Duration = Duration::from_secs(600);

/// A role that runs in a directory of its own. Dropping it kills it.
struct Part {
    dir: TempDir,
    role: &'static str,
    child: Child,
    lines: Receiver<String>,
    ready: Value,
}

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("leasehold-role-").tempdir().unwrap()
}

/// Starts a role, which says on lines what it has to say.
fn start(role: &str, dir: &Path) -> (Child, Receiver<String>) {
    let errors = fs::OpenOptions::new().create(true).append(true).open(dir.join("stderr")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args([role, "--json", "--dir"])
        .arg(dir)
        .arg("--config")
        .arg(dir.join("role.toml"))
        .env_remove("LEASEHOLD_LIFE_OF")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = tell.send(line); // the test may have seen enough
        }
    });
    (child, told)
}

impl Part {
    fn begin(role: &'static str, dir: TempDir, config: &str) -> Self {
        fs::write(dir.path().join("role.toml"), config).unwrap();
        let (child, lines) = start(role, dir.path());
        let mut part = Self { dir, role, child, lines, ready: Value::Null };
        part.becomes_ready();
        part
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.path().join("stderr")).unwrap_or_default()
    }

    #[track_caller]
    fn becomes_ready(&mut self) {
        let line = self.lines.recv_timeout(2 * PATIENCE);
        let line = line.unwrap_or_else(|_| panic!("{} is not ready: {}", self.role, self.said()));
        self.ready = serde_json::from_str::<Value>(&line).unwrap()["ready"].clone();
        assert!(self.ready.is_object(), "{line}");
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        until("the role ends", || child.try_wait().unwrap())
    }

    /// The process that serves, of a provider, whose parent only starts it.
    fn life(&self) -> Pid {
        let above = self.child.id();
        let children = fs::read_to_string(format!("/proc/{above}/task/{above}/children")).unwrap();
        Pid::from_raw(children.split_whitespace().next().expect("a life").parse().unwrap()).unwrap()
    }

    /// Starts it again where it was, once it has ended.
    fn again(&mut self) {
        (self.child, self.lines) = start(self.role, self.dir.path());
        self.becomes_ready();
    }

    fn connect(&self, key: &SigningKey) -> Client {
        Client::connect(&Endpoint::unix(self.path().join("node.sock")), key).unwrap()
    }

    fn key(&self, name: &str) -> SigningKey {
        let text = fs::read_to_string(self.path().join(format!("ids/{name}.key"))).unwrap();
        let base64 = text.trim_end().strip_prefix("leasehold-key-v1:").unwrap();
        let seed = data_encoding::BASE64URL_NOPAD.decode(base64.as_bytes()).unwrap();
        SigningKey::from_seed(&seed.try_into().unwrap())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("standard error of the {}:\n{}", self.role, self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that does nothing until this is dropped.
struct Halted(Pid);

impl Halted {
    /// Returns when every thread stands still: until then some may run on, and act.
    fn halt(process: Pid) -> Self {
        kill_process(process, Signal::STOP).unwrap();
        let halted = Self(process);
        until("every thread stands still", || {
            let mut threads = fs::read_dir(format!("/proc/{process}/task")).unwrap().map_while(Result::ok);
            let stands = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'));
            threads
                .all(|thread| fs::read_to_string(thread.path().join("stat")).is_ok_and(stands))
                .then_some(())
        });
        halted
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT); // it may have been killed
    }
}

/// Whether another process than `but` has a file open.
fn has_open(file: &Path, but: Pid) -> bool {
    let numbers = fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let others = numbers.filter(|entry| {
        entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .is_some_and(|number: i32| number != but.as_raw_nonzero().get())
    });
    // One that ends meanwhile, or is somebody else's, is not the one.
    others.filter_map(|process| fs::read_dir(process.path().join("fd")).ok()).any(|open| {
        open.map_while(Result::ok).any(|one| fs::read_link(one.path()).is_ok_and(|path| path == file))
    })
}

/// A port of a loopback address that no other test has: what is told to others has to be known before it is bound.
fn address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let host = NEXT.fetch_add(1, Ordering::Relaxed);
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let listener = TcpListener::bind((std::net::Ipv4Addr::new(127, high.max(1), low, host), 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A broker without memory, an authority in its directory, and where providers come.
struct Scene {
    broker: Part,
    link: String,
    alice: SigningKey,
}

impl Scene {
    fn set() -> Self {
        let dir = directory();
        let shell = Shell::new(dir.path());
        shell.bytes(&["pki", "init", "--domain", DOMAIN]);
        for (name, role) in [("broker-1", "broker"), ("node-1", "provider")] {
            shell.bytes(&["pki", "issue", name, "--role", role]);
        }
        let link = address();
        let broker = Part::begin("broker", dir, &format!("[cluster]\nlisten = \"{link}\"\n"));
        assert_eq!(broker.ready["cluster"], link);
        shell.bytes(&["id", "new", "alice"]);
        let alice = broker.key("alice");
        Self { broker, link, alice }
    }

    /// The configuration of the provider `node-1`.
    fn config(&self, more: &str) -> String {
        let pki = self.broker.path().join("pki");
        let file = |name: &str| pki.join(name).display().to_string();
        let [chain, key, roots, lists] = ["node-1.pem", "node-1.key", "roots.pem", "lists.pem"].map(file);
        format!(
            "[node]\npool = \"64MiB\"\n[remote]\nlisten = \"{}\"\ndomain = \"{DOMAIN}\"\ncertificate = \"{chain}\"\n\
             key = \"{key}\"\nroots = \"{roots}\"\nlists = \"{lists}\"\n[cluster]\nbroker = \"{}\"\n{more}\n",
            address(),
            self.link
        )
    }

    fn provider(&self) -> Part {
        Part::begin("provider", directory(), &self.config("locality = \"room-1\""))
    }

    fn shell(&self) -> Shell {
        Shell::new(self.broker.path())
    }

    fn nodes(&self) -> Vec<Value> {
        self.shell().json(&["node", "list", "--as", "admin"])["nodes"].as_array().unwrap().clone()
    }

    fn client(&self) -> Client {
        self.broker.connect(&self.alice)
    }
}

fn lease(client: &Client) -> Leased {
    client.lease(LeaseOptions::new(BYTES, TTL)).unwrap()
}

#[test]
fn leases_of_a_broker_are_memory_of_its_provider() {
    let scene = Scene::set();
    let broker = scene.client();
    refused(broker.lease(LeaseOptions::new(BYTES, TTL)), Code::ProviderLost);
    let mut provider = scene.provider();
    assert_eq!(
        (&provider.ready["name"], &provider.ready["broker"]),
        (&"node-1".into(), &scene.link[..].into())
    );
    assert!(provider.said().contains(&format!("waiting for the broker at {}", scene.link)));
    let nodes = scene.nodes();
    assert_eq!((nodes.len(), &nodes[0]["state"], &nodes[0]["locality"]), (1, &"up".into(), &"room-1".into()));
    assert_eq!(nodes[0]["address"], provider.ready["address"]);

    // Made at the broker, opened at the provider, and nowhere else.
    let leased = lease(&broker);
    let there = provider.connect(&scene.alice);
    assert_eq!(there.welcome().name.as_ref().map(Name::as_str), Some("alice"));
    assert_eq!(
        (there.welcome().cluster, leased.lease.provider),
        (broker.welcome().cluster, there.welcome().provider)
    );
    let region = there.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    let bytes = pattern(3, 4096);
    region.write_at(0, &bytes).unwrap();
    let here = broker.open_mapped(&leased.token, Rights::READ).unwrap_err();
    assert_eq!(here.code(), Code::WrongNode, "{here}");
    assert!(here.detail().contains(provider.ready["address"].as_str().unwrap()), "{here}");
    let wrong = there.lease(LeaseOptions::new(BYTES, TTL)).unwrap_err();
    assert_eq!(wrong.code(), Code::WrongNode, "{wrong}");
    assert!(wrong.detail().contains(&scene.link), "{wrong}");

    // A key that mints from now on is believed there already.
    let admin = scene.broker.connect(&scene.broker.key("admin"));
    admin.root_rotate().unwrap();
    let second = lease(&broker);
    drop(there.open_mapped(&second.token, Rights::READ).unwrap());

    // Taken back at the broker, dead at the provider when the receipt is here.
    let receipt = broker.release(leased.lease.id).unwrap();
    assert_eq!(receipt.body.wiped_bytes, BYTES);
    refused(region.read_at(0, &mut [0; 8]), Code::Revoked);

    // Nothing new comes to one that drains.
    scene.shell().json(&["node", "drain", "node-1", "--as", "admin"]);
    assert_eq!(scene.nodes()[0]["state"], "draining");
    assert!(broker.lease(LeaseOptions::new(BYTES, TTL)).is_err());
    scene.shell().json(&["node", "undrain", "node-1", "--as", "admin"]);
    lease(&broker);

    // It has said that it goes before it was gone: nobody waits for its silence.
    provider.signal(Signal::TERM);
    assert!(provider.wait().success(), "{}", provider.said());
    refused(broker.lease(LeaseOptions::new(BYTES, TTL)), Code::ProviderLost);
    assert_eq!(scene.nodes()[0]["state"], "lost");
    let shown = scene.shell().json(&["lease", "show", &second.lease.id.to_string(), "--as", "alice"]);
    assert_eq!(shown["lease"]["state"], "ended", "{shown}");
    // And whoever has its name next begins at once.
    provider.again();
    lease(&broker);
}

#[test]
fn a_provider_outlives_its_broker_and_begins_anew_with_the_next() {
    let mut scene = Scene::set();
    let mut provider = scene.provider();
    let broker = scene.client();
    let leased = broker.lease(LeaseOptions::new(BYTES, TTL).lifetime(libmem::Lifetime::Detached)).unwrap();
    let there = provider.connect(&scene.alice);
    let region = there.open_mapped(&leased.token, Rights::READ_WRITE).unwrap();
    let bytes = pattern(7, 4096);
    region.write_at(0, &bytes).unwrap();

    scene.broker.signal(Signal::KILL);
    scene.broker.wait();
    let mut read = vec![0; bytes.len()];
    region.read_at(0, &mut read).unwrap();
    assert_eq!(read, bytes);
    // Also who comes only now, by a token that it has.
    drop(provider.connect(&scene.alice).open_mapped(&leased.token, Rights::READ).unwrap());
    refused(broker.lease(LeaseOptions::new(BYTES, TTL)), Code::Unreachable);

    let before = there.welcome().provider;
    scene.broker.again();
    provider.becomes_ready();
    until("what the life before had is dead", || region.read_at(0, &mut read).err());
    let next = provider.connect(&scene.alice);
    assert_ne!(next.welcome().provider, before);
    refused(next.open_mapped(&leased.token, Rights::READ), Code::Epoch);
    let client = scene.client();
    let leased = lease(&client);
    drop(next.open_mapped(&leased.token, Rights::READ).unwrap());
}

#[test]
fn a_provider_that_is_killed_is_lost_and_its_lease_with_it() {
    let scene = Scene::set();
    let mut provider = scene.provider();
    let broker = scene.client();
    let leased = lease(&broker);
    let region = provider.connect(&scene.alice).open_mapped(&leased.token, Rights::READ).unwrap();
    // The life ends with the process above it, and has the directory until then. Whoever starts it again does not wait for
    // that, and need not.
    let ending = Halted::halt(provider.life());
    provider.signal(Signal::KILL);
    provider.wait();
    (provider.child, provider.lines) = start(provider.role, provider.path());
    until("the next one waits for the directory", || {
        let ended = provider.child.try_wait().unwrap();
        assert!(ended.is_none(), "it did not wait: {}", provider.said());
        has_open(&provider.path().join("lock"), ending.0).then_some(())
    });
    drop(ending);
    until("its memory is dead", || region.read_at(0, &mut [0; 8]).err());
    // A new life of the name proves that the one before is gone.
    provider.becomes_ready();
    assert_eq!(scene.nodes()[0]["state"], "up");
    let shown = broker.lease_show(leased.lease.id).unwrap();
    assert!(format!("{shown:?}").contains("Lost") || format!("{shown:?}").contains("Ended"), "{shown:?}");
    lease(&broker);
}

/// A root key that minted, and has been replaced by another: one that minted nothing is not believed any more then.
fn replaced(admin: &Client) -> u32 {
    let minting = |row: &&RootRow| row.state == RootState::Minting;
    let id = admin.roots().unwrap().iter().find(minting).unwrap().id;
    let rows = admin.root_rotate().unwrap();
    assert!(rows.iter().any(|row| row.id == id && row.state == RootState::Believed), "{rows:?}");
    id
}

#[test]
fn the_retirement_of_a_key_succeeds_only_if_no_provider_can_honour_it() {
    let scene = Scene::set();
    let mut provider = scene.provider();
    // Its leases end with its session.
    let client = scene.client();
    let leased = lease(&client);
    let admin = scene.broker.connect(&scene.broker.key("admin"));
    // One that is here says that it knows.
    let first = replaced(&admin);
    let region =
        provider.connect(&scene.alice).open_mapped(&leased.token, Rights::READ).expect("it is believed yet");
    admin.root_retire(first).unwrap();
    refused(region.read_at(0, &mut [0; 8]), Code::Revoked);

    let [second, third, fourth] = [(); 3].map(|()| {
        lease(&client);
        replaced(&admin)
    });
    // The life itself: one whose upper process is killed stops in order, and says so.
    kill_process(provider.life(), Signal::KILL).unwrap();
    provider.wait();
    // Its link is cut, and nobody has said that its process is gone: not before it is lost, and not after.
    let unheard = |id| {
        let error = admin.root_retire(id).unwrap_err();
        assert_eq!(error.code(), Code::Unreachable, "{error}");
        let (_, bound) = error.detail().split_once("ends within ").unwrap_or_else(|| panic!("{error}"));
        let seconds: u64 = bound.split(' ').next().unwrap().parse().unwrap();
        assert!((TTL.as_secs() - 60..TTL.as_secs() + 60).contains(&seconds), "{error}");
    };
    unheard(second);
    assert!(admin.roots().unwrap().iter().all(|row| row.id != second), "it is in force all the same");
    until("it is lost", || (scene.nodes()[0]["state"] == "lost").then_some(()));
    unheard(third);
    scene.shell().json(&["node", "lost", "node-1", "--as", "admin"]);
    admin.root_retire(fourth).unwrap();
}

#[test]
fn what_was_opened_by_a_key_that_expired_goes_on_with_its_renewed_lease() {
    let scene = Scene::set();
    let provider = scene.provider();
    let client = scene.client();
    let leased = client.lease(LeaseOptions::new(BYTES, Duration::from_secs(4))).unwrap();
    let region = provider.connect(&scene.alice).open_mapped(&leased.token, Rights::READ).unwrap();
    let admin = scene.broker.connect(&scene.broker.key("admin"));
    replaced(&admin);
    client.renew(leased.lease.id, TTL).unwrap();
    until("the old key expires", || (admin.roots().unwrap().len() == 1).then_some(()));
    // It has been told by the time that it believes another new one.
    let next = replaced(&admin);
    lease(&client);
    region.read_at(0, &mut [0; 8]).expect("it was renewed, and nobody took it back");
    // The key that retires next takes with it what it opened, and nothing else.
    let renewed = client.renew(leased.lease.id, TTL).unwrap();
    drop(renewed);
    admin.root_retire(next).unwrap();
    region.read_at(0, &mut [0; 8]).expect("it was opened by another key");
}

/// How a role ends that must not start, and what it says.
#[track_caller]
fn fails(role: &str, config: &str, dir: &TempDir) -> String {
    fs::write(dir.path().join("role.toml"), config).unwrap();
    let (mut child, lines) = start(role, dir.path());
    let status = until("the role ends", || child.try_wait().unwrap());
    assert!(!status.success() && lines.recv().is_err());
    fs::read_to_string(dir.path().join("stderr")).unwrap()
}

#[test]
fn k_bad_configurations_are_refused_before_anything_starts() {
    let dir = directory();
    for (role, config, says) in [
        ("broker", "# nothing\n", "where providers come"),
        ("broker", "[cluster]\nbroker = \"127.0.0.1:7172\"\n", "leasehold provider"),
        ("broker", "[cluster]\nlisten = \"127.0.0.1:7172\"\n", "E_CONFIG_TLS"),
        ("provider", "# nothing\n", "where the broker is"),
        ("provider", "[cluster]\nbroker = \"127.0.0.1:7172\"\n", "E_CONFIG_TLS"),
        ("provider", "[cluster]\nbroker = \"127.0.0.1\"\n", "role.toml:2:10"),
    ] {
        let said = fails(role, config, &dir);
        assert!(said.contains(says), "{role} {config}: {said}");
        fs::remove_file(dir.path().join("stderr")).unwrap();
    }
    // Certificates of another role, and of another name.
    let shell = Shell::new(dir.path());
    shell.bytes(&["pki", "init", "--domain", DOMAIN]);
    shell.bytes(&["pki", "issue", "node-1", "--role", "provider"]);
    let said = fails("broker", "[cluster]\nlisten = \"127.0.0.1:7172\"\n", &dir);
    assert!(said.contains("--role broker"), "{said}");
    let said = fails("provider", "[cluster]\nbroker = \"127.0.0.1:7172\"\nname = \"node-2\"\n", &dir);
    assert!(said.contains("cluster.name"), "{said}");
}

#[test]
fn a_provider_waits_for_its_broker_and_can_be_stopped_meanwhile() {
    let dir = directory();
    let shell = Shell::new(dir.path());
    shell.bytes(&["pki", "init", "--domain", DOMAIN]);
    shell.bytes(&["pki", "issue", "node-1", "--role", "provider"]);
    let nobody = address();
    fs::write(dir.path().join("role.toml"), format!("[cluster]\nbroker = \"{nobody}\"\n")).unwrap();
    let (mut child, lines) = start("provider", dir.path());
    until("it says that it waits", || {
        fs::read_to_string(dir.path().join("stderr")).ok().filter(|said| said.contains(&nobody))
    });
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let status = until("it ends", || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    assert!(lines.recv().is_err(), "it was never ready");
}

#[test]
fn a_broker_without_memory_says_that_it_has_no_provider_and_no_tier() {
    let scene = Scene::set();
    let shown = || scene.shell().json(&["status", "--as", "admin"])["status"].clone();
    let is_nobodys = |status: &Value| {
        let keys = status.as_object().unwrap();
        for key in ["provider", "tier"] {
            assert_eq!(keys.get(key), Some(&Value::Null), "{status}");
        }
    };
    is_nobodys(&shown());
    // Neither is that of the provider that is there its own.
    let provider = scene.provider();
    let status = shown();
    is_nobodys(&status);
    assert_eq!(status["providers"][0]["name"], "node-1");
    let text = String::from_utf8(scene.shell().bytes(&["status", "--as", "admin"])).unwrap();
    assert!(text.contains("none: it has no memory of its own") && !text.contains("open"), "{text}");
    drop(provider);
}

#[test]
fn a_lease_owner_is_told_at_the_provider_what_a_token_of_it_is_worth() {
    let scene = Scene::set();
    let mut provider = scene.provider();
    let shell = scene.shell();
    for who in ["bob", "carol"] {
        shell.bytes(&["id", "new", who]);
    }
    let (alice, bob) = (scene.client(), scene.broker.connect(&scene.broker.key("bob")));
    let leased = lease(&alice);
    let options = libmem::ShareOptions::new(bob.holder(), Rights::READ);
    let grant = alice.share_offer(&leased.lease, &options, &scene.alice).unwrap();
    let contract = bob.share_show(grant.id).unwrap().contract;
    let accepted = bob.share_accept(&contract, libmem::Lifetime::Detached, &scene.broker.key("bob")).unwrap();

    // Bob has held it, and Alice has not.
    let check = |key: &SigningKey| provider.connect(key).token_check(&accepted.token);
    assert_eq!(check(&scene.broker.key("bob")).unwrap().code, None);
    assert_eq!(check(&scene.alice).unwrap().code, None);
    refused(check(&scene.broker.key("carol")), Code::TokenBound);

    // The same in words, from another machine.
    let (file, at) = (scene.broker.path().join("bobs.token"), provider.ready["address"].as_str().unwrap());
    fs::write(&file, accepted.token.to_text().as_bytes()).unwrap();
    shell.bytes(&["pki", "issue", "alice"]);
    let ask = ["token", "inspect", file.to_str().unwrap(), "--as", "alice", "--broker", at];
    let told = shell.json(&ask)["node"].clone();
    assert_eq!((&told["asked"], &told["opens"]), (&true.into(), &true.into()), "{told}");
    alice.revoke(libmem::Target::Grant(grant.id), libmem::Reason::default()).unwrap();
    let told = shell.json(&ask)["node"].clone();
    assert_eq!((&told["opens"], &told["code"]), (&false.into(), &"E_TOKEN_REVOKED".into()), "{told}");
    provider.signal(Signal::TERM);
    provider.wait();
}

#[test]
fn who_comes_to_the_wrong_port_is_told_that_there_are_two() {
    const TWO: &str = "one for clients and one for providers";
    let scene = Scene::set();
    let shell = scene.shell();
    shell.bytes(&["pki", "issue", "alice"]);
    let wrong = shell.pipe(&["lease", "list", "--as", "alice", "--broker", &scene.link], b"");
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(said.starts_with(&format!("error[E_PEER_IDENTITY]: {}: ", scene.link)), "{said}");
    assert!(said.contains("leasehold/1") && said.contains(TWO), "{said}");

    // And a provider that dials where clients come.
    let provider = scene.provider();
    let clients = provider.ready["address"].as_str().unwrap();
    let said = fails("provider", &scene.config("").replace(&scene.link, clients), &directory());
    assert!(said.contains("E_PEER_IDENTITY") && said.contains("leasehold-link/1"), "{said}");
    assert!(said.contains(TWO), "{said}");
}
