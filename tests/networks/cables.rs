//! Hosts at a switch.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::common::netns::{self, Host, Star};
use crate::common::{PATIENCE, until};

/// How long a connection that cannot be made is tried for.
const IN_VAIN: Duration = Duration::from_millis(200);

/// Sends a word to whoever listens, and has it sent back. Waits for as long as nobody answers, but to `patience`.
fn word(from: &Host, to: std::net::SocketAddr, patience: Duration) -> std::io::Result<[u8; 4]> {
    from.space.enter(|| {
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"word")?;
        let mut back = [0; 4];
        stream.read_exact(&mut back)?;
        Ok(back)
    })
}

#[test]
fn hosts_reach_one_another_until_a_cable_is_pulled_and_again_once_it_is_back() {
    if !netns::possible() {
        return;
    }
    let mut star = Star::new();
    let [one, two, three] = [star.host(), star.host(), star.host()];
    let listener = one.space.enter(|| TcpListener::bind((one.address, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    // Ends with the process: it waits for connections that others make as long as they like.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut heard = [0; 4];
            if stream.read_exact(&mut heard).is_ok() {
                let _ = stream.write_all(&heard); // whoever asked may have gone
            }
        }
    });
    assert_eq!(&word(&two, address, PATIENCE).unwrap(), b"word");
    assert_eq!(&word(&three, address, PATIENCE).unwrap(), b"word");
    two.unplug();
    assert!(word(&two, address, IN_VAIN).is_err(), "the cable is pulled");
    assert_eq!(&word(&three, address, PATIENCE).unwrap(), b"word", "the others have theirs");
    two.plug();
    let back = until("the cable carries again", || word(&two, address, PATIENCE).ok());
    assert_eq!(&back, b"word");
    // The tests' own network is another one.
    assert!(TcpStream::connect_timeout(&address, IN_VAIN).is_err());
}

#[test]
fn a_process_that_is_placed_in_a_network_is_there() {
    if !netns::possible() {
        return;
    }
    let mut star = Star::new();
    let host = star.host();
    let mut command = std::process::Command::new("ip");
    host.space.place(command.args(["-o", "addr"]));
    let seen = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(seen.contains(&format!("{}/24", host.address)), "{seen}");
}
