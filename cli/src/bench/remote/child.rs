//! The other processes of the benchmark: servers to compare with, and crowds of clients.
//!
//! Each is this program, started with a hidden command. Its standard input is a pipe from the benchmark, a document of
//! JSON a line; its standard output is the way back. It ends when its input does. An order may hold a seed or a token:
//! the pipe is between the benchmark and its own child.

use std::io::{BufRead, BufReader, Lines, Write, stdin, stdout};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use caps::error::{Code, Error, Result};
use caps::token::Token;
use serde::{Deserialize, Serialize};

use super::papers::{Paper, failed};
use super::{crowd, echo, idle, slow};

/// What a process is to be, and then what it is to do.
// No Debug: a guest has secrets.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Be the bare TLS server.
    Echo { paper: Paper },
    /// Prove so many sessions and do nothing with them.
    Idle { guest: Guest, sessions: usize },
    /// Prove so many sessions, to read from them.
    Crowd { guest: Guest, sessions: usize },
    /// Read for so long, with so many requests unanswered on each session.
    Load { bytes: u64, unanswered: usize, ms: u64 },
    /// Keep up so many connections that say too little, or take too little.
    Slow { guest: Guest, peers: usize },
    /// Try to begin so many sessions, one after the other.
    Knock { guest: Guest, times: usize },
}

/// Whose sessions they are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    pub address: SocketAddr,
    pub paper: Paper,
    /// In hexadecimal.
    pub seed: String,
    /// As in a token's file: JSON has no bytes.
    pub token: String,
}

impl Guest {
    /// Its right to the region.
    pub fn token(&self) -> Result<Token> {
        Token::parse_text(&self.token)
    }
}

/// What a process answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// It serves here.
    Serves { address: SocketAddr },
    /// So many sessions stand.
    Stand { sessions: usize },
    /// What came of a load.
    Loaded(crowd::Loaded),
    /// So many were let in; the others were refused with `E_BUSY` after so many microseconds, sorted.
    Knocked { let_in: usize, refused_us: Vec<f64> },
    /// It could not.
    Failed { why: String },
}

/// Does what it is told until the benchmark hangs up.
pub fn serve() -> Result<()> {
    let mut orders = stdin().lock().lines();
    let Some(first) = receive::<Order, _>(&mut orders) else {
        return Err(Error::new(Code::Protocol, "the benchmark's processes are started by the benchmark"));
    };
    let done = match first? {
        Order::Echo { paper } => paper.load().and_then(|paper| echo::serve(&paper)).and_then(|address| {
            say(&Answer::Serves { address })?;
            wait(&mut orders)
        }),
        Order::Idle { guest, sessions } => idle::hold(&guest, sessions).and_then(|held| {
            say(&Answer::Stand { sessions: held.len() })?;
            wait(&mut orders)
        }),
        Order::Crowd { guest, sessions } => crowd::Crowd::gather(&guest, sessions).and_then(|mut crowd| {
            say(&Answer::Stand { sessions })?;
            while let Some(order) = receive::<Order, _>(&mut orders) {
                let Order::Load { bytes, unanswered, ms } = order? else { break };
                say(&Answer::Loaded(crowd.load(bytes, unanswered, ms)?))?;
            }
            Ok(())
        }),
        Order::Slow { guest, peers } => {
            slow::keep(&guest, peers, |stand| say(&Answer::Stand { sessions: stand }))
        }
        Order::Knock { guest, times } => idle::knock(&guest, times).and_then(|(let_in, refused_us)| {
            say(&Answer::Knocked { let_in, refused_us })?;
            wait(&mut orders)
        }),
        Order::Load { .. } => Err(Error::new(Code::Protocol, "a load needs a crowd")),
    };
    done.or_else(|error| say(&Answer::Failed { why: format!("{}: {}", error.code(), error.detail()) }))
}

/// Until the benchmark hangs up.
fn wait(orders: &mut impl Iterator<Item = std::io::Result<String>>) -> Result<()> {
    orders.for_each(drop);
    Ok(())
}

fn receive<T: for<'a> Deserialize<'a>, R: Iterator<Item = std::io::Result<String>>>(
    lines: &mut R,
) -> Option<Result<T>> {
    let unread =
        |_| Error::new(Code::Protocol, "a line between the benchmark and its process is not understood");
    let line = lines.next()?.ok()?;
    Some(serde_json::from_str(&line).map_err(unread))
}

fn say(message: &impl Serialize) -> Result<()> {
    write(&mut stdout().lock(), message)
}

fn write(to: &mut impl Write, message: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(message);
    let line = line.map_err(|_| Error::new(Code::Internal, "a message of the benchmark does not encode"))?;
    writeln!(to, "{line}")
        .and_then(|()| to.flush())
        .map_err(|_| Error::new(Code::Unreachable, "a process of the benchmark is gone"))
}

/// One of them, as the benchmark sees it. Ended when this is dropped.
pub struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts one with its first order.
    pub fn start(order: &Order) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg0("leasehold-bench-peer")
            .arg("bench-peer")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed("cannot start a process of the benchmark"))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::new(Code::Internal, "a child without its pipes"));
        };
        let mut process = Self { child, orders: Some(orders), answers: BufReader::new(answers).lines() };
        process.order(order)?;
        Ok(process)
    }

    /// Tells it something.
    pub fn order(&mut self, order: &Order) -> Result<()> {
        match &mut self.orders {
            Some(orders) => write(orders, order),
            None => Err(Error::new(Code::Internal, "the process was let go")),
        }
    }

    /// What it answers, which may take as long as what it was told to do.
    pub fn hear(&mut self) -> Result<Answer> {
        match receive(&mut self.answers) {
            Some(Ok(Answer::Failed { why })) => {
                Err(Error::with(Code::Internal, format!("a process of the benchmark failed: {why}")))
            }
            Some(answer) => answer,
            None => Err(Error::new(Code::Unreachable, "a process of the benchmark ended")),
        }
    }

    /// Starts a server and waits until it serves.
    pub fn server(order: &Order) -> Result<(Self, SocketAddr)> {
        let mut process = Self::start(order)?;
        match process.hear()? {
            Answer::Serves { address } => Ok((process, address)),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until it has its sessions. How many they are.
    pub fn stands(&mut self) -> Result<usize> {
        match self.hear()? {
            Answer::Stand { sessions } => Ok(sessions),
            other => Err(unexpected(&other)),
        }
    }

    /// Waits until it has knocked. How often it was let in, and the microseconds of the other times.
    pub fn knocked(&mut self) -> Result<(usize, Vec<f64>)> {
        match self.hear()? {
            Answer::Knocked { let_in, refused_us } => Ok((let_in, refused_us)),
            other => Err(unexpected(&other)),
        }
    }

    /// Has a crowd read.
    pub fn load(&mut self, bytes: u64, unanswered: usize, ms: u64) -> Result<crowd::Loaded> {
        self.order(&Order::Load { bytes, unanswered, ms })?;
        match self.hear()? {
            Answer::Loaded(loaded) => Ok(loaded),
            other => Err(unexpected(&other)),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::with(Code::Protocol, format!("a process of the benchmark answered {answer:?}"))
}

impl Drop for Process {
    fn drop(&mut self) {
        self.orders = None; // ends it
        let _ = self.child.kill(); // and if it was in the middle of something, too
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_is_told_reads_as_it_was_written() {
        let token = Token::from_bytes(vec![0, 255]).unwrap();
        let file = std::path::PathBuf::from("/f");
        let paper = Paper { chain: file.clone(), key: file.clone(), roots: file.clone(), lists: file };
        let (address, seed) = (([127, 0, 0, 1], 1).into(), "00".to_owned());
        let guest = Guest { address, paper, seed, token: token.to_text().to_string() };
        let mut line = Vec::new();
        write(&mut line, &Order::Slow { guest, peers: 3 }).unwrap();
        let line = String::from_utf8(line).unwrap();
        let told = receive::<Order, _>(&mut [Ok(line)].into_iter());
        let Some(Ok(Order::Slow { guest, peers: 3 })) = told else { panic!("something else was told") };
        assert_eq!(guest.token().unwrap(), token);
        assert!(receive::<Order, _>(&mut [Ok("{}".to_owned())].into_iter()).unwrap().is_err());
    }
}
