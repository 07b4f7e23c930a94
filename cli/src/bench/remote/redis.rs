//! Redis over TLS: what people use today. Started on a loopback port of its own, with no other port, no disk and no
//! configuration file; spoken to in its own protocol over the same TLS client as the bare baseline.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use caps::error::{Code, Error, Result};
use transport::Credentials;

use super::papers::{Paper, failed};
use super::side::{FILL, GATHER_ITEM_BYTES, GATHER_ITEMS, Side, VALUE_BYTES_MAX, judge};
use super::stack::{self, AwakeStream};

/// How often a port is drawn: somebody may take it between its choice and its use.
const PORTS_TRIED: usize = 3;
/// What it says once it serves.
const READY: &str = "Ready to accept connections";

/// Its process, ended when this is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    pub version: String,
}

impl Server {
    /// Starts it. `None` where it is not installed.
    ///
    /// # Errors
    /// `E_SYSTEM` if it is, and does not serve.
    pub fn start(directory: &Path, paper: &Paper) -> Result<Option<Self>> {
        let version = match Command::new("redis-server").arg("--version").stdin(Stdio::null()).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("cannot run redis-server")(error)),
            Ok(output) => version(&String::from_utf8_lossy(&output.stdout)),
        };
        for _ in 0..PORTS_TRIED {
            let address = free_port()?;
            let mut child = Command::new("redis-server")
                .args(["--port", "0", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
                .args(["--tls-port", &address.port().to_string(), "--tls-protocols", "TLSv1.3"])
                .arg("--tls-cert-file")
                .arg(&paper.chain)
                .arg("--tls-key-file")
                .arg(&paper.key)
                .arg("--tls-ca-cert-file")
                .arg(&paper.roots)
                .arg("--dir")
                .arg(directory)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .map_err(failed("cannot start redis-server"))?;
            let said = child.stdout.take();
            let server = Self { child, address, version: version.clone() };
            let lines = said.map(|said| BufReader::new(said).lines().map_while(Result::ok));
            if lines.is_some_and(|mut lines| lines.any(|line| line.contains(READY))) {
                return Ok(Some(server));
            }
        }
        Err(Error::new(Code::System, "redis-server is installed, but does not serve TLS"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill(); // ours, with nothing on disk
        let _ = self.child.wait();
    }
}

/// `7.0.15` of `Redis server v=7.0.15 sha=...`.
fn version(said: &str) -> String {
    let word = said.split_whitespace().find_map(|word| word.strip_prefix("v="));
    word.unwrap_or("unknown").to_owned()
}

fn free_port() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed("no free port"))?;
    listener.local_addr().map_err(failed("no free port"))
}

/// One connection to it.
pub struct Redis {
    stream: BufReader<AwakeStream>,
    command: Vec<u8>,
    value: Vec<u8>,
    /// What is written.
    fill: Vec<u8>,
}

impl Redis {
    pub fn connect(address: SocketAddr, credentials: &Arc<Credentials>) -> Result<Self> {
        let stream = BufReader::new(stack::connect_awake(address, credentials)?);
        Ok(Self { stream, command: Vec::new(), value: Vec::new(), fill: vec![FILL; VALUE_BYTES_MAX] })
    }

    /// Puts there what is read later: a value of each of these lengths, and those of a gather.
    pub fn fill(&mut self, lengths: &[usize]) -> Result<()> {
        lengths.iter().try_for_each(|&bytes| self.write(bytes))?;
        (0..GATHER_ITEMS).try_for_each(|n| self.set(&item(n), GATHER_ITEM_BYTES))
    }

    /// Puts so many bytes there.
    fn set(&mut self, key: &str, bytes: usize) -> Result<()> {
        spell(&[b"SET", key.as_bytes(), &self.fill[..bytes]], &mut self.command);
        self.stream.get_mut().write_all(&self.command).map_err(gone)?;
        let line = self.line()?;
        if line == "+OK" { Ok(()) } else { Err(unexpected(&line)) }
    }

    /// Sends a command in one piece.
    fn ask(&mut self, words: &[&[u8]]) -> Result<()> {
        spell(words, &mut self.command);
        self.stream.get_mut().write_all(&self.command).map_err(gone)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).map_err(gone)?;
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    /// Reads a value, which must have so many bytes.
    fn bulk(&mut self, bytes: usize) -> Result<()> {
        let line = self.line()?;
        if line.strip_prefix('$').and_then(|length| length.parse().ok()) != Some(bytes) {
            return Err(unexpected(&line));
        }
        self.value.resize(bytes + 2, 0); // its end is CR LF
        self.stream.read_exact(&mut self.value).map_err(gone)?;
        judge(&self.value[..bytes])
    }
}

impl Side for Redis {
    fn read(&mut self, bytes: usize) -> Result<()> {
        self.ask(&[b"GET", key(bytes).as_bytes()])?;
        self.bulk(bytes)
    }

    fn write(&mut self, bytes: usize) -> Result<()> {
        self.set(&key(bytes), bytes)
    }

    fn gather(&mut self) -> Result<()> {
        let keys: Vec<_> = (0..GATHER_ITEMS).map(item).collect();
        let words: Vec<_> = [&b"MGET"[..]].into_iter().chain(keys.iter().map(|key| key.as_bytes())).collect();
        self.ask(&words)?;
        let line = self.line()?;
        if line != format!("*{GATHER_ITEMS}") {
            return Err(unexpected(&line));
        }
        (0..GATHER_ITEMS).try_for_each(|_| self.bulk(GATHER_ITEM_BYTES))
    }
}

fn key(bytes: usize) -> String {
    format!("value-{bytes}")
}

fn item(n: usize) -> String {
    format!("item-{n}")
}

/// A command as an array of strings, each with its length.
fn spell(words: &[&[u8]], command: &mut Vec<u8>) {
    command.clear();
    command.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
}

fn gone(error: std::io::Error) -> Error {
    Error::with(Code::Unreachable, format!("redis-server is gone: {error}"))
}

fn unexpected(line: &str) -> Error {
    let line: String = line.chars().take(64).collect();
    Error::with(Code::Protocol, format!("redis-server answered {:?}", line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_strings_with_their_lengths() {
        let mut command = vec![1];
        spell(&[b"SET", b"a", b"\r\n"], &mut command);
        assert_eq!(command, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$2\r\n\r\n\r\n");
    }

    #[test]
    fn a_version_is_read_from_what_it_says_of_itself() {
        assert_eq!(version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc"), "7.0.15");
        assert_eq!(version("?"), "unknown");
    }
}
