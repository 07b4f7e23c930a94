//! Row D12: handshakes that are begun and not ended, as many as there may be descriptors.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use policy::limits::{HANDSHAKE_MS_MAX, HELLO_MS_MAX, REMOTE_GREETINGS_MAX};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::bed::{Bed, SERVED_WITHIN};
use super::common::PATIENCE;

/// Handshakes of the row.
const STALLED: usize = 10_000;
/// Descriptors that the test needs for other things.
const RESERVED: usize = 256;
/// What a machine that does other things may add to a bound.
const SLACK: Duration = Duration::from_secs(5);

#[test]
fn d12_handshakes_that_stall() {
    let mut bed = Bed::new("");
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let may = limit.maximum.map_or(STALLED, |most| (most as usize).saturating_sub(RESERVED));
    let stalled = STALLED.min(may);
    // The first bytes of a greeting of TLS, and no more; of some, not even one.
    let begun = [22, 3, 1, 1, 0, 1, 0];
    let ((ended, longest_of_all, crowd), longest) = bed.beside("D12", |bed| {
        let began = Instant::now();
        let mut sockets = Vec::new();
        for n in 0..stalled {
            match TcpStream::connect_timeout(&bed.node.address(), PATIENCE) {
                Ok(mut socket) => {
                    if n % 4 != 0 {
                        let _ = socket.write_all(&begun[..1 + n % begun.len()]); // it may be ended already
                    }
                    sockets.push((socket, Instant::now()));
                }
                Err(error) => panic!("handshake {n} could not be begun: {error}"),
            }
        }
        let crowd = began.elapsed();
        let mut longest = Duration::ZERO;
        let mut ended = 0;
        for (mut socket, since) in sockets {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            match socket.read(&mut [0; 64]) {
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
                {
                    panic!("a stalled handshake is still there after {:?}", since.elapsed())
                }
                _ => ended += 1,
            }
            longest = longest.max(since.elapsed());
        }
        (ended, longest, crowd)
    });
    println!(
        "{ended} of {stalled} stalled handshakes ended (descriptors allow {may}); begun within {crowd:.1?}"
    );
    println!(
        "the last of them {longest_of_all:.1?} after it was begun; the bystander waited {longest:.1?} at most"
    );
    assert_eq!(ended, stalled);
    let most = Duration::from_millis(HANDSHAKE_MS_MAX) + crowd + SLACK;
    assert!(longest_of_all < most, "{longest_of_all:?}, and not {most:?}");
    assert!(longest < SERVED_WITHIN);
    // Who comes while they are there is let in.
    let begun = Instant::now();
    drop(bed.opened());
    assert!(begun.elapsed() < SERVED_WITHIN);
    bed.on_record(caps::error::Code::Timeout);
    bed.finish("D12");
}

/// An honest client is let in while as many as may be are beginning, and those who stop after TLS end as well.
#[test]
fn d12_who_stops_before_the_hello_ends_and_others_are_let_in() {
    let mut bed = Bed::new("");
    let ((), longest) = bed.beside("D12", |bed| {
        let silent: Vec<_> = (0..REMOTE_GREETINGS_MAX + 64)
            .map(|_| TcpStream::connect_timeout(&bed.node.address(), PATIENCE).unwrap())
            .collect();
        let began = Instant::now();
        drop(bed.opened());
        println!("let in among {} that are beginning after {:.1?}", silent.len(), began.elapsed());
        assert!(began.elapsed() < Duration::from_millis(HANDSHAKE_MS_MAX) + SLACK);
        // TLS is through, and nothing more is said.
        let mut quiet = super::common::tls::Tls::silent(bed.node.address(), &bed.mallory.credentials);
        let began = Instant::now();
        quiet.flush().unwrap();
        assert_eq!(quiet.closed(), Some(caps::error::Code::Timeout));
        assert!(began.elapsed() < Duration::from_millis(HELLO_MS_MAX) + SLACK);
    });
    assert!(longest < SERVED_WITHIN);
    bed.finish("D12");
}
