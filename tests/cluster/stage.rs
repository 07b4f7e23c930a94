//! The hosts, their processes, and what is typed at them.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libmem::SigningKey;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use transport::{Credentials, Domain, Files};

use crate::common::faults::{NEAR, Wire};
use crate::common::netns::{Host, Star};
use crate::common::shell::Shell;
use crate::common::{PATIENCE, until};

/// The trust domain of everybody here.
const DOMAIN: &str = "test.example";
/// What key files begin with.
const KEY_PREFIX: &str = "leasehold-key-v1:";
/// Where clients come, to whichever host.
const CLIENTS: u16 = 7171;
/// Where providers come.
const PROVIDERS: u16 = 7172;
/// Bytes of a provider's pool.
pub(crate) const POOL: u64 = 64 << 20;

/// One broker, two providers, and alice at a host without any of them.
pub(crate) struct Stage {
    // Dropped in this order: processes, networks, files.
    pub(crate) broker: Part,
    pub(crate) a: Part,
    pub(crate) b: Part,
    pub(crate) client: Host,
    /// Between the broker (near) and node-a (far): what the link between both goes over, and nothing else.
    pub(crate) link: Wire,
    dir: TempDir,
}

/// A broker or a provider: a process on a host, and its directory.
pub(crate) struct Part {
    /// `broker` or `provider`.
    role: &'static str,
    /// The name in its certificate.
    pub(crate) name: &'static str,
    pub(crate) host: Host,
    dir: PathBuf,
    running: Option<(Child, Mutex<Receiver<String>>)>,
}

impl Stage {
    /// Starts all of it, and waits until both providers are there.
    pub(crate) fn set() -> Self {
        let dir = tempfile::Builder::new().prefix("leasehold-e2e-").tempdir().unwrap();
        let mut star = Star::new();
        let mut part =
            |role, name| Part { role, name, host: star.host(), dir: dir.path().join(name), running: None };
        let (broker, a, b) =
            (part("broker", "broker-1"), part("provider", "node-a"), part("provider", "node-b"));
        let client = star.host();
        let link = Wire::between(&broker.host.space, &a.host.space, 51);
        let mut stage = Self { broker, a, b, client, link, dir };
        stage.prepare();
        stage.broker.start();
        stage.admit("alice");
        stage.a.start();
        stage.b.start();
        stage.await_providers("both providers are there", |rows| {
            rows.iter().filter(|row| row["state"] == "up").count() == 2
        });
        stage
    }

    /// Directories, certificates and configurations.
    fn prepare(&self) {
        fs::create_dir(&self.broker.dir).unwrap();
        let authority = Shell::new(&self.broker.dir);
        authority.bytes(&["pki", "init", "--domain", DOMAIN]);
        for part in [&self.broker, &self.a, &self.b] {
            authority.bytes(&["pki", "issue", part.name, "--role", part.role]);
            let tls = part.dir.join("tls");
            fs::create_dir_all(&tls).unwrap();
            for (file, name) in [("pem", "node.pem"), ("key", "node.key")] {
                fs::copy(self.issued(&format!("{}.{file}", part.name)), tls.join(name)).unwrap();
            }
            for file in ["roots.pem", "lists.pem"] {
                fs::copy(self.issued(file), tls.join(file)).unwrap();
            }
            let at = if part.name == self.a.name { NEAR } else { self.broker.host.address };
            let [own, tls] = [part.host.address.to_string(), tls.display().to_string()];
            let (pool, cluster) = match part.role {
                "broker" => (0, format!("listen = \"0.0.0.0:{PROVIDERS}\"")),
                _ => (POOL, format!("broker = \"{at}:{PROVIDERS}\"\nbroker_name = \"{}\"", self.broker.name)),
            };
            let config = format!(
                "[node]\npool = {pool}\n[canary]\nevery = \"off\"\n[cluster]\n{cluster}\n[remote]\n\
                 listen = \"{own}:{CLIENTS}\"\ndomain = \"{DOMAIN}\"\ncertificate = \"{tls}/node.pem\"\n\
                 key = \"{tls}/node.key\"\nroots = \"{tls}/roots.pem\"\nlists = \"{tls}/lists.pem\"\n"
            );
            fs::write(part.dir.join("leasehold.toml"), config).unwrap();
        }
        for sub in ["client/ids", "client/pki"] {
            fs::create_dir_all(self.dir.path().join(sub)).unwrap();
        }
    }

    /// A file of the authority, which is at the broker's.
    fn issued(&self, file: &str) -> PathBuf {
        self.broker.dir.join("pki").join(file)
    }

    /// Makes somebody known to the broker, and gives the client's host what that takes.
    fn admit(&self, name: &str) {
        let at_broker = Shell::new(&self.broker.dir);
        at_broker.bytes(&["id", "new", name]);
        at_broker.bytes(&["pki", "issue", name]);
        let key = format!("{name}.key");
        fs::copy(self.broker.dir.join("ids").join(&key), self.home().join("ids").join(&key)).unwrap();
        for file in [&format!("{name}.pem"), &key, "roots.pem", "lists.pem", "domain"] {
            fs::copy(self.issued(file), self.home().join("pki").join(file)).unwrap();
        }
    }

    /// The client's directory.
    fn home(&self) -> PathBuf {
        self.dir.path().join("client")
    }

    /// The key of somebody who was admitted.
    pub(crate) fn key(&self, name: &str) -> SigningKey {
        let text = fs::read_to_string(self.home().join(format!("ids/{name}.key"))).unwrap();
        let base64 = text.trim_end().strip_prefix(KEY_PREFIX).expect("a key file");
        let seed = data_encoding::BASE64URL_NOPAD.decode(base64.as_bytes()).unwrap();
        SigningKey::from_seed(&seed.try_into().unwrap())
    }

    /// The credentials of somebody who was admitted.
    pub(crate) fn credentials(&self, name: &str) -> Arc<Credentials> {
        let file = |file: &str| self.home().join("pki").join(file);
        let files = Files {
            chain: file(&format!("{name}.pem")),
            key: file(&format!("{name}.key")),
            roots: file("roots.pem"),
            lists: Some(file("lists.pem")),
        };
        Arc::new(Credentials::load(&Domain::new(DOMAIN).unwrap(), &files).unwrap())
    }

    /// The provider of this name.
    pub(crate) fn provider(&mut self, name: &str) -> &mut Part {
        [&mut self.a, &mut self.b].into_iter().find(|part| part.name == name).expect("one of both")
    }

    // ---- What is typed

    /// Types a command at the client's host, which has the broker's address and no other.
    pub(crate) fn typed(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        self.client.space.place(&mut command);
        let broker = format!("{}:{CLIENTS}", self.broker.host.address);
        let mut child = command
            .args(args)
            .env_clear()
            .env("LEASEHOLD_DIR", self.home())
            .env("LEASEHOLD_BROKER", broker)
            .current_dir(self.home())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let _ = input.write_all(stdin); // a command that fails early reads no further
            });
            child.wait_with_output().unwrap()
        })
    }

    /// One that must succeed: what it printed.
    #[track_caller]
    pub(crate) fn bytes(&self, args: &[&str], stdin: &[u8]) -> Vec<u8> {
        let output = self.typed(args, stdin);
        assert!(output.status.success(), "{args:?}: {output:?}");
        output.stdout
    }

    /// One that must succeed: its document.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_slice(&self.bytes(&[args, &["--json"]].concat(), b"")).unwrap()
    }

    /// One that must fail within a time: its code.
    #[track_caller]
    pub(crate) fn refused(&self, args: &[&str], within: Duration) -> String {
        let began = Instant::now();
        let output = self.typed(&[args, &["--json"]].concat(), b"");
        assert!(!output.status.success(), "{args:?}: {output:?}");
        let took = began.elapsed();
        assert!(took <= within, "{args:?} took {took:?}: {output:?}");
        let document: Value = serde_json::from_slice(&output.stderr).unwrap_or_else(|_| panic!("{output:?}"));
        document["error"]["code"].as_str().unwrap().to_owned()
    }

    /// Alice's new lease: what `lease create` says.
    #[track_caller]
    pub(crate) fn lease(&self, name: &str, size: &str, ttl: &str) -> Value {
        self.json(&["lease", "create", "--as", "alice", "--size", size, "--ttl", ttl, "--name", name])
    }

    /// Where a lease is: the provider's name.
    #[track_caller]
    pub(crate) fn node_of(&self, lease: &str) -> String {
        let shown = self.json(&["lease", "show", lease, "--as", "alice"]);
        shown["lease"]["placement"]["node"].as_str().unwrap_or_else(|| panic!("{shown}")).to_owned()
    }

    /// The broker's word about its providers, from the broker's own machine.
    pub(crate) fn providers(&self) -> Vec<Value> {
        let list = Shell::new(&self.broker.dir).json(&["node", "list", "--as", "admin"]);
        list["nodes"].as_array().unwrap().clone()
    }

    /// Types a command of the administrator's at the broker's machine.
    #[track_caller]
    pub(crate) fn administrate(&self, args: &[&str]) {
        Shell::new(&self.broker.dir).bytes(&[args, &["--as", "admin"]].concat());
    }

    /// Waits until the broker says so of its providers.
    #[track_caller]
    pub(crate) fn await_providers(&self, what: &str, is: impl Fn(&[Value]) -> bool) {
        until(what, || is(&self.providers()).then_some(()));
    }

    /// Waits until nothing is leased anywhere.
    #[track_caller]
    pub(crate) fn balances(&self) {
        self.await_providers("the books balance", |rows| {
            rows.iter().all(|row| row["committed_bytes"] == 0 && row["reserved_bytes"] == 0)
        });
    }

    /// Ends everybody as an operator does, and checks every log that there is.
    pub(crate) fn finish(mut self) {
        for part in [&mut self.a, &mut self.b, &mut self.broker] {
            if part.running.is_some() {
                part.stop();
            }
        }
        for part in [&self.broker, &self.a, &self.b] {
            let dir = part.dir.join("audit");
            let vkeys = fs::read_to_string(dir.join("vkeys")).unwrap();
            let vkeys: Vec<_> = vkeys.lines().map(|line| audit::key::Vkey::parse(line).unwrap()).collect();
            let report = audit::verify::verify_dir(&dir, &vkeys).unwrap();
            assert_eq!(report.damage(), None, "{}", part.name);
        }
    }
}

impl Part {
    /// Starts its process and waits until it says that it is ready.
    pub(crate) fn start(&mut self) {
        assert!(self.running.is_none(), "one at a time");
        let errors = fs::OpenOptions::new().create(true).append(true).open(self.errors()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
        self.host.space.place(&mut command);
        let mut child = command
            .args([self.role, "--json", "--config"])
            .arg(self.dir.join("leasehold.toml"))
            .env_clear()
            .env("LEASEHOLD_DIR", &self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (tell, told) = channel();
        // Ends with the process, whose standard output it reads to the end so that it never writes in vain.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = tell.send(line); // lives after the one that was waited for
            }
        });
        self.running = Some((child, Mutex::new(told)));
        self.await_ready();
    }

    /// Waits until a life of it says that it is ready.
    #[track_caller]
    pub(crate) fn await_ready(&self) {
        let (_, told) = self.running.as_ref().expect("it runs");
        let told = told.lock().unwrap_or_else(PoisonError::into_inner);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match told.recv_timeout(left) {
                Ok(line) if line.contains("\"ready\"") => return,
                Ok(_) => {}
                Err(_) => panic!("{} is not ready: {}", self.name, self.said()),
            }
        }
    }

    fn errors(&self) -> PathBuf {
        self.dir.join("stderr")
    }

    /// What it wrote to standard error.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.errors()).unwrap_or_default()
    }

    /// Where clients of other hosts reach it.
    pub(crate) fn address(&self) -> (Ipv4Addr, u16) {
        (self.host.address, CLIENTS)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.running.as_ref().expect("it runs").0)
    }

    /// The process that serves: of a provider the life, whose parent only starts it.
    fn serving(&self) -> Pid {
        if self.role == "broker" {
            return self.pid();
        }
        let above = self.pid().as_raw_nonzero();
        until("a life of the provider", || {
            let children = fs::read_to_string(format!("/proc/{above}/task/{above}/children")).ok()?;
            Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
        })
    }

    /// Ends it as an operator does, and checks that it ends well.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        let (mut child, _) = self.running.take().expect("it runs");
        let status = until("it ends", || child.try_wait().unwrap());
        assert!(status.success(), "{} ended with {status}: {}", self.name, self.said());
    }

    /// Ends the process that serves as a crash does, and waits for whatever is above it.
    pub(crate) fn kill(&mut self) {
        kill_process(self.serving(), Signal::KILL).unwrap();
        let (mut child, _) = self.running.take().expect("it runs");
        until("it ends", || child.try_wait().unwrap());
    }

    /// The entries of its own logs, as they are now.
    pub(crate) fn log(&self) -> Vec<Value> {
        let logs = fs::read_dir(self.dir.join("audit")).unwrap().map_while(Result::ok);
        let of_dir = |dir: &Path| {
            let entries = audit::read::entries(dir, 0).unwrap().map_while(Result::ok);
            entries.filter_map(|stored| serde_json::from_slice(&stored.bytes).ok()).collect::<Vec<Value>>()
        };
        logs.map(|log| log.path()).filter(|path| path.is_dir()).flat_map(|path| of_dir(&path)).collect()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what {} wrote to standard error:\n{}", self.name, self.said());
        }
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill(); // ours, and perhaps gone already
            let _ = child.wait();
        }
    }
}
