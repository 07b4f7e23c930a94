//! Row D12: handshakes that are begun and not ended, as many as there may be descriptors.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use policy::limits::{HANDSHAKE_MS_MAX, HELLO_MS_MAX, REMOTE_GREETINGS_MAX};
use rustix::process::{Resource, getrlimit, setrlimit};

use super::bed::{Bed, SERVED_WITHIN};
use super::common::PATIENCE;
use super::common::tls::Tls;

/// Handshakes of the row.
const STALLED: usize = 10_000;
/// Descriptors that the test needs for other things.
const RESERVED: usize = 256;
/// Where an honest client is: in another network than those who stall.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 9);
/// How long it may take until an honest client is let in: others who wait to be accepted are before it.
const LET_IN_WITHIN: Duration = SERVED_WITHIN;
/// Between two sessions of the honest client's.
const BETWEEN: Duration = Duration::from_millis(50);
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
    let flood = |bed: &Bed| {
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
    };
    // Who comes meanwhile is let in, again and again.
    let (((ended, longest_of_all, crowd), honest), longest) = bed.beside("D12", |bed| {
        std::thread::scope(|scope| {
            let flooding = scope.spawn(|| flood(bed));
            let mut honest = Vec::new();
            while !flooding.is_finished() {
                let began = Instant::now();
                drop(let_in(bed));
                honest.push(began.elapsed());
                std::thread::sleep(BETWEEN);
            }
            (flooding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), honest)
        })
    });
    let slowest = honest.iter().max().expect("at least one session while they are there");
    println!("meanwhile {} honest sessions from elsewhere began, each within {slowest:.1?}", honest.len());
    assert!(*slowest < LET_IN_WITHIN, "an honest client waited {slowest:?} to be let in");
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
    bed.on_record(caps::error::Code::Timeout);
    bed.finish("D12");
}

/// A session of somebody honest, from elsewhere.
fn let_in(bed: &Bed) -> Tls {
    let Bed { node, mallory, .. } = bed;
    let tls = Tls::connect_from(ELSEWHERE, node.address(), &mallory.credentials, &mallory.key);
    tls.expect("who comes from another network is let in")
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
