//! A client in a process of its own, to be stopped and killed: this test program once more.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use caps::id::RequestId;
use caps::rights::Rights;
use caps::wire::remote::body::Span;
use caps::wire::remote::{Flags, Header, Verb};
use libmem::{SigningKey, Token};
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use zerocopy::IntoBytes;

use super::bed::Bed;
use super::broken::raw;
use super::common::tls::{Tls, found};

/// What tells this program that it is one: directory, address, seed of the key, token and what to do, in lines.
const TOLD: &str = "LEASEHOLD_BAD_INPUT_CLIENT";
/// Before what it says.
const SAYS: &str = "client: ";

/// The process, killed when dropped.
pub struct Child {
    child: std::process::Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Child {
    /// Starts one that opens the attacker's lease and does something.
    pub fn start(bed: &Bed, act: &str) -> Self {
        Self::start_with(bed, &bed.mallory.token, act)
    }

    /// The same with another of the attacker's tokens.
    pub fn start_with(bed: &Bed, token: &Token, act: &str) -> Self {
        let mallory = &bed.mallory;
        let seed = data_encoding::HEXLOWER.encode(&mallory.key.seed()[..]);
        let dir = bed.node.path().to_str().unwrap();
        let told = [dir, &bed.node.address().to_string(), &seed, &token.to_text(), act].join("\n");
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child::a_client_of_its_own", "--exact", "--nocapture"])
            .env(TOLD, told)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    /// The next that it says.
    #[track_caller]
    pub fn said(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.stdout.read_line(&mut line).unwrap(), 0, "the client is gone");
            if let Some(at) = line.find(SAYS) {
                return line[at + SAYS.len()..].trim_end().to_owned();
            }
        }
    }

    /// Has it go on.
    pub fn go_on(&mut self) {
        writeln!(self.stdin, "go on").unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Stops it, and returns when every thread of it stands still: until then some may run on, and act.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let pid = Some(Pid::from_child(&self.child));
        let (_, status) = rustix::process::waitpid(pid, WaitOptions::UNTRACED).unwrap().expect("it waits");
        assert!(status.stopped(), "{status:?}");
    }

    /// Ends it as nothing else does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may be gone
        let _ = self.child.wait();
    }
}

fn say(what: &str) {
    println!("\n{SAYS}{what}");
    std::io::stdout().flush().unwrap();
}

/// Waits until the test has it go on, or is gone itself.
fn wait() {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).unwrap() == 0 {
        std::process::exit(0);
    }
}

/// The process itself. Does nothing in one that no test started.
#[test]
fn a_client_of_its_own() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let [dir, address, seed, token, act] = told.lines().collect::<Vec<_>>().try_into().unwrap();
    let seed = data_encoding::HEXLOWER.decode(seed.as_bytes()).unwrap();
    let key = SigningKey::from_seed(&seed.try_into().unwrap());
    let credentials = found(std::path::Path::new(dir), "mallory");
    let mut tls = Tls::connect(address.parse().unwrap(), &credentials, &key).unwrap();
    let handle = tls.open(&Token::parse_text(token).unwrap(), Rights::READ_WRITE).unwrap();
    let body = [Span::new(handle, 0, 100).as_bytes(), &[0xee; 100]].concat();
    let frame = raw(&Header::of(Verb::Write, Flags::NONE, RequestId(9), body.len()).unwrap(), &body);
    if let Some(cut) = act.strip_prefix("cut ") {
        tls.write(&frame[..cut.parse().unwrap()]).unwrap();
        say("cut");
        wait();
        return;
    }
    assert_eq!(act, "write late");
    say("open");
    wait();
    let answer = match tls.write(&frame) {
        Ok(()) => tls.hear().map(|frame| frame.failure().map_or("OK", |error| error.code().text())),
        Err(_) => None,
    };
    say(answer.unwrap_or("gone"));
}
