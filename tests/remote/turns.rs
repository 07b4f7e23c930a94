//! What one connection does, or leaves undone, is no burden to its neighbours and to the node.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use caps::error::Code;
use caps::id::SlotHandle;
use caps::wire::Request;
use caps::wire::remote::{Flags, Header, Span, Verb};
use policy::limits::{
    REMOTE_HANDSHAKE_WAIT_MS_MAX, REMOTE_HANDSHAKES_BURST, REMOTE_HANDSHAKES_PER_S, REMOTE_PARTING_MS_MAX,
    REMOTE_SHARDS_MAX,
};
use rustix::net::{AddressFamily, SocketType};
use zerocopy::IntoBytes;

use super::Scene;
use super::common::tls::{HEADER, Tls, credentials};
use super::common::{log, refused, until};

impl Scene {
    /// Processor time of the threads that serve TLS.
    fn worked(&self) -> Duration {
        /// Of `/proc`, everywhere.
        const TICKS_PER_S: u64 = 100;
        let tasks = format!("/proc/{}/task", self.node.pid().as_raw_nonzero());
        let ticks: u64 = std::fs::read_dir(tasks)
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok())
            .filter_map(|stat| {
                let (name, rest) = stat.split_once(") ")?;
                let of = |at: usize| rest.split(' ').nth(at)?.parse::<u64>().ok();
                name.ends_with("(lh-remote").then_some(of(11)? + of(12)?)
            })
            .sum();
        Duration::from_millis(ticks * 1_000 / TICKS_PER_S)
    }
}

/// A connection whose frame was not whole in time is told so and parts for a while, in which its shard serves the others.
#[test]
fn c11_a_frame_that_stalls_holds_up_nobody_else() {
    let mut scene = Scene::set();
    // On every shard.
    let mut others: Vec<_> = (0..REMOTE_SHARDS_MAX).map(|_| scene.opened()).collect();
    let parting = Duration::from_millis(REMOTE_PARTING_MS_MAX);
    // A machine that is busy may take as long by itself, once.
    let overtaken = (0..3).any(|_| {
        let (mut tls, handle) = scene.opened();
        let frame = tls.frame(Verb::Read, Span::new(handle, 0, 1).as_bytes());
        tls.write(&frame[..HEADER + 1]).unwrap();
        let told = tls.hear().expect("why it ends").failure().unwrap();
        assert_eq!(told.code(), Code::Timeout);
        let told = Instant::now();
        others.iter_mut().for_each(|(other, handle)| assert_eq!(other.read_at(*handle, 0, 1), Ok(vec![0])));
        told.elapsed() < parting / 2
    });
    assert!(overtaken, "the others were answered only when it was gone");
    scene.is_well();
}

/// A request that has failed is over, though frames of it are to come and its time passes: nobody looks at it.
#[test]
fn a_request_that_failed_and_is_not_whole_costs_nothing() {
    let mut scene = Scene::set();
    let (mut tls, handle) = scene.opened();
    let number = tls.number();
    let forged = SlotHandle { slot: 7, epoch: 9 };
    let body = [Span::new(forged, 0, 2).as_bytes(), &[1]].concat();
    let of = Header::of(Verb::Write, Flags::MORE, number, body.len()).unwrap();
    let first = Header { deadline_or_code: 20, ..of };
    tls.write(&[&first.encode()[..], &body].concat()).unwrap();
    let answer = tls.hear().expect("an answer");
    assert_eq!(answer.failure().unwrap().code(), Code::Revoked);
    // Nothing happens, for long after its deadline: there is nothing to wait for.
    let (before, span) = (scene.worked(), Duration::from_millis(1_000));
    std::thread::sleep(span);
    let worked = scene.worked().checked_sub(before).unwrap();
    assert!(worked < span / 10, "{worked:?} of {span:?}");
    // The rest of it is swallowed, and the connection goes on.
    let last = Header::of(Verb::Write, Flags::NONE, number, 1).unwrap();
    tls.write(&[&last.encode()[..], &[1]].concat()).unwrap();
    assert_eq!(tls.read_at(handle, 0, 2), Ok(vec![0, 0]));
    scene.is_well();
}

/// Who says in TLS that it says no more, and leaves its socket open, is gone.
#[test]
fn a_goodbye_in_tls_is_enough() {
    let mut scene = Scene::set();
    let (mut tls, handle) = scene.opened();
    assert_eq!(tls.read_at(handle, 0, 1), Ok(vec![0]));
    tls.say_goodbye();
    assert_eq!(tls.closed(), None, "the node has closed it");
    scene.is_well();
}

/// A certificate opens no connection once it is revoked, and keeps none open.
#[test]
fn a_revoked_certificate_ends_its_connection_and_no_other() {
    let scene = Scene::set();
    let bob = credentials(&scene.node, "bob");
    let mut other = Tls::connect(scene.node.address(), &bob, &scene.node.key("bob")).unwrap();
    let (tls, _) = scene.opened();
    scene.shell.bytes(&["pki", "revoke", "alice"]);
    assert_eq!(tls.closed(), Some(Code::PeerIdentity));
    assert!(other.control(&Request::Status).is_ok());
    assert!(Tls::connect(scene.node.address(), &scene.alice, &scene.node.key("alice")).is_err());
}

/// Credentials that are not good any more change nothing but the log.
#[test]
fn d9_a_bad_reload_is_on_record_and_changes_nothing() {
    let mut scene = Scene::set();
    let (mut tls, handle) = scene.opened();
    std::fs::write(scene.node.path().join("pki/node-1.pem"), "rubbish").unwrap();
    log::await_provider(&scene.node.audit(), "the error is on record", |entry| {
        entry["event"] == "config.load" && entry["code"] == "E_CONFIG_TLS"
    });
    assert_eq!(tls.read_at(handle, 0, 1), Ok(vec![0]));
    scene.is_well();
}

/// What no honest client asks for is on record, and its session goes on.
#[test]
fn a_local_request_over_tls_is_refused_and_on_record() {
    let mut scene = Scene::set();
    let (mut tls, handle) = scene.opened();
    refused(tls.control(&Request::Channel), Code::Protocol);
    assert_eq!(tls.read_at(handle, 0, 1), Ok(vec![0]));
    log::await_provider(&scene.node.audit(), "the fault is on record", |entry| {
        entry["event"] == "fault.protocol" && entry["code"] == "E_PROTOCOL" && entry["reaction"] == "log"
    });
    scene.is_well();
}

/// A connection that comes from another network than the tests' own, and asks for a handshake.
fn from_elsewhere(to: SocketAddr) -> std::io::Result<TcpStream> {
    /// A whole record, in which a ClientHello begins that is longer.
    const BEGUN: [u8; 10] = [22, 3, 1, 0, 5, 1, 0, 1, 0, 3];
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::new(127, 0, 77, 1), 0)))?;
    rustix::net::connect(&socket, &to)?;
    let mut socket = TcpStream::from(socket);
    socket.write_all(&BEGUN)?;
    Ok(socket)
}

/// Whether the node ends a connection that has not said all, long before a handshake's time is over.
fn is_hung_up_on(mut socket: TcpStream) -> bool {
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    match socket.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// A network that begins handshakes without end is hung up on before they cost anything, and others come in meanwhile.
#[test]
fn a_network_that_begins_too_many_keeps_no_other_out() {
    let mut scene = Scene::set();
    let (address, over) = (scene.node.address(), AtomicBool::new(false));
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                drop(from_elsewhere(address)); // its own queue of ports may be full for a moment
            }
        });
        until("a connection of that network is hung up on", || {
            from_elsewhere(address).is_ok_and(is_hung_up_on).then_some(())
        });
        for _ in 0..8 {
            let (mut tls, handle) = scene.opened();
            assert_eq!(tls.read_at(handle, 0, 1), Ok(vec![0]));
        }
        over.store(true, Ordering::Relaxed);
    });
    scene.is_well();
}

/// Who only connects takes no handshake from those of its network who ask for one.
#[test]
fn connections_that_say_nothing_keep_no_neighbour_out() {
    let mut scene = Scene::set();
    let waiting = u64::from(REMOTE_HANDSHAKES_PER_S) * REMOTE_HANDSHAKE_WAIT_MS_MAX / 1_000;
    // Many more than there would be tokens, and waits for one, if each took one.
    for _ in 0..2 * (u64::from(REMOTE_HANDSHAKES_BURST) + waiting) {
        drop(TcpStream::connect(scene.node.address()).unwrap());
    }
    let (mut tls, handle) = scene.opened();
    assert_eq!(tls.read_at(handle, 0, 1), Ok(vec![0]));
    scene.is_well();
}
