//! The stage of the demo: a node in a temporary directory, and client processes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use audit::Event;
use audit::key::Vkey;
use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::key::SigningKey;
use caps::wire::Name;
use caps::wire::row::Tier;

use super::script::{Line, Role};
use crate::dirs::Dirs;
use crate::node::Spawned;

/// Bytes of the demo's pool.
pub const POOL_BYTES: u64 = 256 << 20;
/// The uids of the clients when the demo runs as root. Nothing on the machine needs to know them.
const CLIENT_UIDS: [u32; 3] = [61_184, 61_185, 61_186];
/// How long the stage waits for a process to say or do what it must.
const WAIT: Duration = Duration::from_secs(15);

/// A node and its directory, both gone when this is dropped.
pub struct Stage {
    node: Spawned,
    tier: Tier,
    root: bool,
}

/// A client process.
pub struct Actor {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |_| Error::new(Code::System, what)
}

impl Stage {
    /// Starts a node and connects as its administrator.
    pub fn set() -> Result<Self> {
        let root = rustix::process::geteuid().is_root();
        // A node lets in nobody but its own user and root unless it is told to.
        let config = root.then(|| format!("[node]\nallow_uids = {CLIENT_UIDS:?}\n"));
        let node = Spawned::start(&std::env::temp_dir(), "demo", POOL_BYTES, config.as_deref())?;
        let tier = node.admin()?.status()?.tier;
        Ok(Self { node, tier, root })
    }

    pub fn dir(&self) -> &Path {
        self.node.dir()
    }

    fn dirs(&self) -> Dirs {
        self.node.dirs()
    }

    /// Whether this machine and user allow the strongest tier.
    pub fn is_sealed(&self) -> bool {
        self.tier == Tier::Sealed
    }

    /// Whether the clients, of whatever uid they are here, may map to write.
    pub fn others_may_write(&self) -> bool {
        self.is_sealed() || !self.root
    }

    pub const fn tier_in_words(&self) -> &'static str {
        match self.tier {
            Tier::Sealed => "tier sealed (clients can map, and nothing else)",
            Tier::Sandboxed => "tier sandboxed",
            Tier::Open => "tier open (without privileges; clients of the same user are not confined)",
        }
    }

    pub fn users_in_words(&self) -> String {
        if self.root {
            let [alice, bob, carol] = CLIENT_UIDS;
            format!(
                "alice (uid {alice}), bob ({bob}) and carol ({carol}) are registered, each with a key of their own"
            )
        } else {
            "alice, bob and carol are registered; as you are not root they share your uid, which is no boundary"
                .into()
        }
    }

    pub fn register(&self, name: &Name, key: PrincipalKey) -> Result<()> {
        self.node.admin()?.principal_add(name.clone(), key)
    }

    /// Starts a client process and hands it its key through a pipe.
    pub fn enter(&self, role: Role, user: usize, key: &SigningKey) -> Result<Actor> {
        // /proc/self/exe can be executed whatever the directories on the way to the binary allow another uid.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("leasehold-demo-client")
            .args(["demo-client", role.word()])
            .current_dir("/")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if self.root {
            command.uid(CLIENT_UIDS[user]).gid(CLIENT_UIDS[user]);
        }
        let mut child = command.spawn().map_err(failed("cannot start a client"))?;
        let stdin = child.stdin.take();
        let stdout =
            BufReader::new(child.stdout.take().ok_or(Error::new(Code::Internal, "a pipe is missing"))?);
        let mut actor = Actor { child, stdin, stdout };
        let seed = data_encoding::HEXLOWER.encode(&*key.seed());
        actor.say(&Line::Begin { socket: self.dirs().socket(), seed })?;
        match actor.hear()? {
            Line::Ready => Ok(actor),
            _ => Err(Error::new(Code::Internal, "a client did not begin")),
        }
    }

    /// Waits until the provider's log has an entry of this kind.
    pub fn wait_for(&self, event: Event) -> Result<bool> {
        let wanted = format!("\"event\":\"{}\"", event.name());
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline {
            for entry in audit::read::entries(&self.dirs().audit().join("provider-1"), 0)? {
                let bytes = entry?.bytes;
                if bytes.windows(wanted.len()).any(|part| part == wanted.as_bytes()) {
                    return Ok(true);
                }
            }
            std::thread::sleep(Duration::from_millis(20)); // the log is another process'
        }
        Ok(false)
    }

    /// Ends the node as SIGTERM does, and verifies what it leaves.
    pub fn stop_and_verify(&mut self) -> Result<(usize, u64)> {
        self.node.stop()?;
        let directory = self.dirs().audit();
        let vkeys =
            fs::read_to_string(directory.join("vkeys")).map_err(failed("cannot read the logs' vkeys"))?;
        let vkeys = vkeys.lines().map(Vkey::parse).collect::<Result<Vec<_>>>()?;
        let report = audit::verify::verify_dir(&directory, &vkeys)?;
        if let Some((log, damage)) = report.damage() {
            return Err(Error::with(damage.code, format!("the log {log} is damaged in {}", damage.file)));
        }
        let entries = report
            .logs
            .iter()
            .filter_map(|log| log.outcome.as_ref().ok())
            .map(|log| log.signed.checkpoint().size)
            .sum();
        Ok((report.logs.len(), entries))
    }
}

impl Actor {
    pub fn say(&mut self, line: &Line) -> Result<()> {
        let text =
            serde_json::to_string(line).map_err(|_| Error::new(Code::Internal, "a line does not encode"))?;
        let stdin = self.stdin.as_mut().ok_or(Error::new(Code::Internal, "the client has left"))?;
        writeln!(stdin, "{text}").and_then(|()| stdin.flush()).map_err(failed("a client of the demo is gone"))
    }

    pub fn hear(&mut self) -> Result<Line> {
        let mut text = String::new();
        self.stdout.read_line(&mut text).map_err(failed("a client of the demo is gone"))?;
        serde_json::from_str(&text)
            .map_err(|_| Error::new(Code::Internal, "a client of the demo ended before its line"))
    }

    /// The signal that ended the process.
    pub fn wait_for_death(&mut self) -> Result<Option<i32>> {
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().map_err(failed("cannot wait for a client"))? {
                return Ok(status.signal());
            }
            std::thread::sleep(Duration::from_millis(5)); // a wait without end would hang the demo
        }
        Ok(None)
    }

    /// Lets the process end, as its standard input does.
    pub fn leave(&mut self) -> Result<()> {
        self.stdin = None;
        self.child.wait().map(drop).map_err(failed("cannot wait for a client"))
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.stdin = None;
        let _ = self.child.kill(); // ours, and perhaps dead already
        let _ = self.child.wait();
    }
}
