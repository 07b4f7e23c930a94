//! Group G: clients that are slow, stopped, or half gone.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use caps::error::Code;
use caps::wire::Request;
use caps::wire::remote::Verb;
use caps::wire::remote::body::Span;
use libmem::{Client, LeaseOptions, Lifetime};
use policy::limits::{REMOTE_FRAME_MS_MAX, REMOTE_KEEPALIVE_MS, SEND_MS_MAX};
use rustix::process::Signal;
use zerocopy::IntoBytes;

use super::bed::{BYTES, Bed, SERVED_WITHIN};
use super::child::Child;
use super::common::until;

/// What a machine that does other things may add to a bound.
const SLACK: Duration = Duration::from_secs(5);

#[test]
fn g1_a_request_of_a_byte_a_second() {
    let mut bed = Bed::new("");
    let ((), longest) = bed.beside("G1", |bed| {
        let (mut tls, handle) = bed.opened();
        let began = Instant::now();
        let frame = tls.frame(Verb::Read, Span::new(handle, 0, 1).as_bytes());
        for byte in frame.chunks(1) {
            let _ = tls.write(byte); // the node may have hung up
            if began.elapsed() > Duration::from_millis(REMOTE_FRAME_MS_MAX) + Duration::from_secs(1) {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        assert_eq!(tls.closed(), Some(Code::Timeout));
        assert!(
            began.elapsed() < Duration::from_millis(REMOTE_FRAME_MS_MAX) + SLACK,
            "{:?}",
            began.elapsed()
        );
    });
    println!("the bystander waited {longest:.1?} at most");
    bed.on_record(Code::Timeout);
    bed.finish("G1");
}

/// Who does not read what it asked for is cut off, and none of it is kept for it in the node beyond a frame.
#[test]
fn g1_answers_that_are_not_read() {
    const CONNECTIONS: usize = 16;
    /// What is kept of an answer for each: the rest of a frame, and TLS.
    const HELD_BYTES_MAX: u64 = 512 << 10;
    let mut bed = Bed::new("");
    let open: Vec<_> = (0..CONNECTIONS).map(|_| bed.opened()).collect();
    let before = bed.held().resident_kib;
    let ((), longest) = bed.beside("G1", |bed| {
        let began = Instant::now();
        let mut open = open;
        for (tls, handle) in &mut open {
            // 8 MiB, far more than sockets hold.
            let frames: Vec<u8> = (0..32)
                .flat_map(|_| tls.frame(Verb::Read, Span::new(*handle, 0, BYTES).as_bytes()))
                .collect();
            tls.write(&frames).unwrap();
        }
        let mut most = 0;
        let sockets: Vec<_> = open.iter().map(|(tls, _)| tls.socket().try_clone().unwrap()).collect();
        until("those who do not read are cut off", || {
            most = most.max(bed.held().resident_kib);
            // Cut off: not even what is sent arrives any more.
            let gone = |socket: &TcpStream| {
                rustix::net::sockopt::socket_error(socket).is_ok_and(|error| error.is_err())
                    || rustix::net::send(socket, &[0], rustix::net::SendFlags::NOSIGNAL).is_err()
            };
            sockets.iter().all(gone).then_some(())
        });
        let each = (most.saturating_sub(before) << 10) / CONNECTIONS as u64;
        println!("cut off within {:.1?}; {each} bytes of memory each", began.elapsed());
        assert!(each <= HELD_BYTES_MAX);
        assert!(began.elapsed() < Duration::from_millis(SEND_MS_MAX) * 4 + SLACK);
    });
    println!("the bystander waited {longest:.1?} at most");
    bed.finish("G1");
}

/// A byte of the answer a second is no reading.
#[test]
fn g1_an_answer_read_a_byte_a_second() {
    let mut bed = Bed::new("");
    let ((), longest) = bed.beside("G1", |bed| {
        let (mut tls, handle) = bed.opened();
        let frames: Vec<u8> =
            (0..32).flat_map(|_| tls.frame(Verb::Read, Span::new(handle, 0, BYTES).as_bytes())).collect();
        let began = Instant::now();
        tls.write(&frames).unwrap();
        let socket = tls.socket().try_clone().unwrap();
        let cut_off = loop {
            let mut byte = [0];
            match rustix::net::recv(&socket, &mut byte, rustix::net::RecvFlags::empty()) {
                Ok((0, _)) | Err(_) => break true,
                Ok(_) => {}
            }
            if rustix::net::send(&socket, &[0], rustix::net::SendFlags::NOSIGNAL).is_err() {
                break true;
            }
            if began.elapsed() > Duration::from_secs(30) {
                break false;
            }
            std::thread::sleep(Duration::from_secs(1));
        };
        println!("cut off after {:.1?}", began.elapsed());
        assert!(cut_off, "it still reads");
    });
    println!("the bystander waited {longest:.1?} at most");
    bed.finish("G1");
}

/// A process that holds a lease is stopped until the lease is over, and then writes.
#[test]
fn g2_a_client_that_was_stopped_while_its_lease_ended() {
    let mut bed = Bed::new("");
    let client = Client::connect(&bed.node.endpoint(), &bed.mallory.key).unwrap();
    let options = LeaseOptions::new(4_096, Duration::from_secs(10)).lifetime(Lifetime::Detached);
    let leased = client.lease(options).unwrap();
    let mut child = Child::start_with(&bed, &leased.token, "write late");
    assert_eq!(child.said(), "open");
    child.stop();
    child.go_on();
    until("the lease is over", || {
        let ended = client.lease_show(leased.lease.id).map(|view| view.memory.is_none());
        ended.unwrap_or(true).then_some(())
    });
    child.signal(Signal::CONT);
    let said = child.said();
    assert!(["E_LEASE_EXPIRED", "E_REVOKED"].contains(&&said[..]), "G2: {said}");
    bed.unharmed("G2");
    child.kill();
    drop(client);
    bed.finish("G2");
}

/// Who has said all that it will is answered, and then gone; a node does not wait for more.
#[test]
fn g4_half_closed_connections() {
    let bed = Bed::new("");
    for n in 0..50 {
        let (mut tls, handle) = bed.opened();
        let frame = tls.frame(Verb::Read, Span::new(handle, 0, 1 + n).as_bytes());
        tls.write(&frame).unwrap();
        let began = Instant::now();
        match n % 3 {
            0 => tls.socket().shutdown(std::net::Shutdown::Write).unwrap(),
            1 => tls.say_goodbye(),
            _ => tls.shut(),
        }
        let answer = tls.hear().expect("what it asked before is answered");
        assert_eq!(answer.body.len() as u64, 1 + n, "G4");
        assert_eq!(tls.closed(), None, "G4: and that is all");
        assert!(began.elapsed() < SERVED_WITHIN);
    }
    // Without a word, before the session and in it.
    for _ in 0..50 {
        drop(TcpStream::connect(bed.node.address()).unwrap());
        drop(bed.session());
    }
    bed.finish("G4");
}

/// Whoever vanishes without a word is found out by the kernel: each connection has its timer.
#[test]
fn g5_every_connection_is_kept_alive_by_the_kernel() {
    /// Of the column `tr tm->when`: a timer that is no retransmission.
    const KEEP_ALIVE: &str = "02";
    /// `USER_HZ` of /proc, everywhere.
    const TICKS_PER_S: u64 = 100;
    let bed = Bed::new("");
    let (mut tls, handle) = bed.opened();
    tls.read_at(handle, 0, 1).unwrap();
    assert!(tls.control(&Request::Status).is_ok());
    let (node, client) = (bed.node.address().port(), tls.socket().local_addr().unwrap().port());
    let left = until("its timer is a keep-alive", || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let ends = |text: &str, port: u16| text.ends_with(&format!(":{port:04X}"));
        let timer = table.lines().find_map(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            (ends(columns[1], node) && ends(columns[2], client)).then(|| columns[5].to_owned())
        });
        let timer = timer.expect("the node's end of the connection");
        let (kind, when) = timer.split_once(':').unwrap();
        (kind == KEEP_ALIVE).then(|| u64::from_str_radix(when, 16).unwrap())
    });
    let most = REMOTE_KEEPALIVE_MS * TICKS_PER_S / 1_000;
    println!("the next look is in {left} hundredths of a second");
    assert!(left <= most, "{left}");
    drop(tls);
    bed.finish("G5");
}
