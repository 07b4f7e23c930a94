//! Counts what really is on the wire: a hop between a client and a server that passes every byte on and adds them up.
//!
//! It stands in the way of what is counted only, never of what is timed. Bytes are those of the TCP stream: TLS records
//! with their headers and tags, frames, and values; not the headers of TCP and IP, which the kernel's offloads decide
//! over.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caps::error::Result;

use super::papers::failed;
use super::stack;

/// A hop to one server.
pub struct Relay {
    pub address: SocketAddr,
    passed: Arc<AtomicU64>,
}

impl Relay {
    /// Listens on a free port of the loopback. It stays as long as the process does; a connection's threads end with it.
    pub fn to(server: SocketAddr) -> Result<Self> {
        let no_socket = failed("cannot listen");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(&no_socket)?;
        let address = listener.local_addr().map_err(&no_socket)?;
        let passed = Arc::new(AtomicU64::new(0));
        let count = passed.clone();
        std::thread::spawn(move || {
            // A client that comes when the server is gone is hung up on.
            for client in listener.incoming().flatten() {
                let Ok(server) = stack::dial(server) else { continue };
                let _ = join(client, server, &count);
            }
        });
        Ok(Self { address, passed })
    }

    /// Bytes of both directions so far. Those of an answer are in it before the client has the answer.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }
}

/// Passes on what comes from either.
fn join(client: TcpStream, server: TcpStream, count: &Arc<AtomicU64>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    server.set_read_timeout(None)?; // a connection may be idle while others are counted
    let both = [(client.try_clone()?, server.try_clone()?), (server, client)];
    for (from, to) in both {
        let count = count.clone();
        std::thread::spawn(move || pass(from, to, &count));
    }
    Ok(())
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut bytes = vec![0; 256 << 10];
    while let Ok(some @ 1..) = from.read(&mut bytes) {
        count.fetch_add(some as u64, Ordering::Release);
        if to.write_all(&bytes[..some]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write); // it may be gone already
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_counted_before_it_arrives() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay = Relay::to(server.local_addr().unwrap()).unwrap();
        let mut client = TcpStream::connect(relay.address).unwrap();
        client.write_all(b"ask").unwrap();
        let (mut peer, _) = server.accept().unwrap();
        let mut asked = [0; 3];
        peer.read_exact(&mut asked).unwrap();
        assert_eq!((&asked, relay.passed()), (b"ask", 3));
        peer.write_all(b"answer").unwrap();
        let mut answer = [0; 6];
        client.read_exact(&mut answer).unwrap();
        assert_eq!((&answer, relay.passed()), (b"answer", 9));
        drop(client);
        assert_eq!(peer.read(&mut answer).unwrap(), 0, "a hang-up is passed on");
    }
}
