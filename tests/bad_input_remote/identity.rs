//! Rows C10 and D1 to D8: who is not let in, with a certificate or without.

use std::io::{Read, Write};
use std::net::TcpStream;

use caps::error::Code;
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use transport::rustls::{ClientConfig, HandshakeKind};

use super::bed::Bed;
use super::common::PATIENCE;
use super::common::tls::DOMAIN;
use super::forge::{Authority, Flaws, Shown, careless, connect, self_signed, uri};

/// How often each is tried.
const TIMES: usize = 20;

/// What a client that shows this gets to hear: nothing, if it is not let in.
fn heard(bed: &Bed, config: ClientConfig) -> Option<Code> {
    let mut tls = connect(bed.node.address(), config);
    match tls.begin(&bed.mallory.key) {
        Ok(()) => None,
        Err(error) => Some(error.code()),
    }
}

fn shows(bed: &mut Bed, row: &str, shown: &Shown, told: Code) {
    bed.row(row, TIMES, Some(told), |bed| heard(bed, careless(Some(shown))));
    bed.unharmed(row);
}

#[test]
fn d1_d2_d3_d4_certificates_that_are_not_believed() {
    let mut bed = Bed::new("");
    let (ours, theirs) = (Authority::of(bed.node.path()), Authority::other());
    let good = || Flaws::default();
    let fine = ours.issue(good());
    assert_eq!(
        heard(&bed, careless(Some(&fine))),
        None,
        "it is the certificate, and not the client, that is refused"
    );
    // In the handshake: the node has said nothing yet.
    let refused = Code::Unreachable;
    bed.row("D1", TIMES, Some(refused), |bed| heard(bed, careless(None)));
    shows(&mut bed, "D2 another authority", &theirs.issue(good()), refused);
    shows(&mut bed, "D2 nobody's", &self_signed(), refused);
    let names = |names: &[&str]| Flaws { names: names.iter().map(|name| uri(name)).collect(), ..good() };
    let of = |name: &str| format!("spiffe://{DOMAIN}/principal/{name}");
    shows(
        &mut bed,
        "D2 another domain",
        &ours.issue(names(&["spiffe://other.example/principal/mallory"])),
        refused,
    );
    shows(&mut bed, "D3 over", &ours.issue(Flaws { is_over: true, ..good() }), refused);
    shows(&mut bed, "D3 not yet", &ours.issue(Flaws { is_early: true, ..good() }), refused);
    let server = vec![ExtendedKeyUsagePurpose::ServerAuth];
    shows(&mut bed, "D4 a server's", &ours.issue(Flaws { usage: server, ..good() }), refused);
    shows(&mut bed, "D4 a CA's own", &ours.issue(Flaws { is_ca: true, ..good() }), refused);
    let dns = vec![SanType::DnsName("mallory".try_into().unwrap())];
    for (row, flaws) in [
        ("D4 nobody", names(&[])),
        ("D4 no identity", Flaws { names: dns, ..good() }),
        ("D4 two", names(&[&of("mallory"), &of("alice")])),
        ("D4 twice the same", names(&[&of("mallory"), &of("mallory")])),
        ("D4 any", names(&[&of("*")])),
        ("D4 NUL", names(&[&of("mallory\0")])),
        ("D4 percent", names(&[&of("mallor%79")])),
        ("D4 a path", names(&[&of("x/../mallory")])),
        ("D4 another scheme", names(&[&format!("https://{DOMAIN}/principal/mallory")])),
    ] {
        shows(&mut bed, row, &ours.issue(flaws), refused);
    }
    // More than the library takes as one handshake message.
    shows(&mut bed, "D4 64 KiB", &ours.issue(names(&[&of(&"m".repeat(64 << 10))])), refused);
    let many: Vec<_> = (0..1_000).map(|n| of(&format!("m{n}"))).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    shows(&mut bed, "D4 1,000 of them", &ours.issue(names(&many)), refused);
    // Good ones, of somebody who has no business here. It is told so, since it is known who it is.
    let broker = format!("spiffe://{DOMAIN}/broker/mallory");
    shows(&mut bed, "a broker's", &ours.issue(names(&[&broker])), Code::PeerIdentity);
    let provider = format!("spiffe://{DOMAIN}/provider/node-1");
    shows(&mut bed, "D10 the node's own name", &ours.issue(names(&[&provider])), Code::PeerIdentity);
    shows(&mut bed, "another's name", &ours.issue(names(&[&of("alice")])), Code::PeerIdentity);
    let key = of(&format!("mallory/{}", "ab".repeat(32)));
    shows(&mut bed, "another's key", &ours.issue(names(&[&key])), Code::PeerIdentity);
    let log = bed.finish("D1 to D4");
    let gathered: u64 = log
        .provider
        .iter()
        .filter(|entry| entry["event"] == "reject.burst" && entry["code"] == "E_PEER_IDENTITY")
        .map(|entry| super::bed::counter(&entry["count"]))
        .sum();
    assert!(gathered >= 15 * TIMES as u64, "each of them is counted: {gathered}");
}

/// The greeting of TLS 1.2 or before: no word of TLS 1.3 in it.
fn old_hello(version: [u8; 2]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]); // random
    body.push(0); // no session
    body.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f]); // ECDHE with AES-128-GCM
    body.extend([1, 0]); // no compression
    let groups = [0, 10, 0, 4, 0, 2, 0, 23];
    let signatures = [0, 13, 0, 6, 0, 4, 4, 3, 8, 4];
    let extensions = [&groups[..], &signatures].concat();
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    let length = body.len() as u32;
    let handshake = [&[1, 0], &(length as u16).to_be_bytes()[..], &body].concat();
    [&[22, 3, 1], &(handshake.len() as u16).to_be_bytes()[..], &handshake].concat()
}

/// What a socket is answered that says this, to its end.
fn answered(bed: &Bed, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(bed.node.address()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer); // a reset is an end as well
    answer
}

#[test]
fn c10_d6_who_speaks_something_else() {
    let mut bed = Bed::new("");
    let alert = |bed: &Bed, bytes: &[u8]| {
        let answer = answered(bed, bytes);
        // An alert is a record of type 21 with two bytes, the first of which says that it is the end.
        assert!(answer.is_empty() || (answer.len() == 7 && answer[0] == 21 && answer[5] == 2), "{answer:?}");
        answer.get(6).copied()
    };
    const PROTOCOL_VERSION: u8 = 70;
    for _ in 0..TIMES {
        for bytes in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"stats\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &[0; 64],
            &[0xff; 64],
            // Records that are none: too long, empty, of application data before any key.
            &[22, 3, 3, 0xff, 0xff, 1, 0, 0],
            &[22, 3, 3, 0, 0],
            &[23, 3, 3, 0, 4, 1, 2, 3, 4],
            &[21, 3, 3, 0, 2, 2, 40],
        ] {
            alert(&bed, bytes);
        }
        for version in [[3, 3], [3, 2], [3, 1], [3, 0]] {
            assert_eq!(alert(&bed, &old_hello(version)), Some(PROTOCOL_VERSION), "D6 {version:?}");
        }
    }
    bed.unharmed("C10");
    let fine = Authority::of(bed.node.path()).issue(Flaws::default());
    for protocols in [vec![], vec![b"h2".to_vec()], vec![b"leasehold/2".to_vec(), b"LEASEHOLD/1".to_vec()]] {
        let told = bed.row_of(&format!("D6 {protocols:?}"), |bed| {
            let mut config = careless(Some(&fine));
            config.alpn_protocols = protocols.clone();
            heard(bed, config)
        });
        assert!(matches!(told, Some(Code::Unreachable | Code::PeerIdentity)), "{protocols:?}: {told:?}");
    }
    let log = bed.finish("C10 D6");
    assert!(log.provider.iter().any(|entry| entry["event"] == "reject.burst"), "they are counted");
}

#[test]
fn d8_nothing_is_early_and_nothing_is_resumed() {
    let bed = Bed::new("");
    let fine = Authority::of(bed.node.path()).issue(Flaws::default());
    let mut eager = careless(Some(&fine));
    eager.enable_early_data = true;
    for _ in 0..3 {
        let mut tls = connect(bed.node.address(), eager.clone());
        tls.begin(&bed.mallory.key).unwrap();
        assert_eq!(tls.tls().handshake_kind(), Some(HandshakeKind::Full));
        assert!(!tls.tls().is_early_data_accepted() && tls.tls().early_data().is_none());
    }
    bed.finish("D8");
}

#[test]
fn d8_a_flood_of_key_updates_is_closed() {
    const UPDATES: usize = 10_000;
    let bed = Bed::new("");
    let mut ended = Vec::new();
    for _ in 0..3 {
        let (mut tls, handle) = bed.opened();
        let mut sent = 0;
        while sent < UPDATES {
            tls.tls().refresh_traffic_keys().unwrap();
            sent += 1;
            if tls.flush().is_err() {
                break;
            }
        }
        let read = tls.read_at_or_gone(handle);
        assert_eq!(read, Err(Code::Unreachable), "a session that does nothing but change its keys is closed");
        ended.push(sent);
    }
    println!("closed before this many key updates were sent: {ended:?}");
    bed.on_record(Code::PeerIdentity);
    bed.finish("D8");
}
