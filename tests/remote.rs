//! The gate over TLS: a real node, certificates of its own authority, and a client that speaks by hand.

mod common;
#[path = "remote/repeats.rs"]
mod repeats;
#[path = "remote/turns.rs"]
mod turns;

use std::io::{Read, Write};
use std::net::TcpStream;

use caps::id::SlotHandle;
use caps::wire::Request;
use caps::wire::remote::{Flags, Header, Span, Verb};
use caps::wire::request::Path as By;
use common::shell::Shell;
use common::tls::{HEADER, Tls, credentials, issued};
use common::{Node, PATIENCE, code, log, pattern, refused, until};
use libmem::{Code, Error, Rights, SigningKey, Token};
use zerocopy::IntoBytes;

/// Bytes of the lease.
const BYTES: u64 = 1 << 20;

/// A node with alice, her certificate and a lease of hers.
struct Scene {
    node: Node,
    shell: Shell,
    alice: std::sync::Arc<transport::Credentials>,
    token: Token,
}

impl Scene {
    fn set() -> Self {
        let node = Node::start_with_tls("");
        let shell = Shell::new(node.path());
        shell.bytes(&["id", "new", "alice"]);
        shell.bytes(&["id", "new", "bob"]);
        let leased = shell
            .json(&["--as", "alice", "lease", "create", "--size", "1MiB", "--ttl", "10m", "--name", "l"]);
        let file = leased["token_file"].as_str().unwrap_or_else(|| panic!("{leased}"));
        let token = Token::parse_text(std::fs::read_to_string(file).unwrap().trim_end()).unwrap();
        let alice = credentials(&node, "alice");
        Self { node, shell, alice, token }
    }

    fn connect(&self) -> Tls {
        Tls::connect(self.node.address(), &self.alice, &self.node.key("alice")).unwrap()
    }

    fn opened(&self) -> (Tls, SlotHandle) {
        let mut tls = self.connect();
        let handle = tls.open(&self.token, Rights::READ.union(Rights::WRITE)).unwrap();
        (tls, handle)
    }

    /// That the node still serves.
    #[track_caller]
    fn is_well(&mut self) {
        assert!(self.node.is_alive(), "{}", self.node.said());
        let (mut tls, handle) = self.opened();
        assert_eq!(tls.read_at(handle, 0, 1).unwrap().len(), 1);
    }
}

#[test]
fn bytes_written_over_tls_are_read_over_tls_and_here() {
    let mut scene = Scene::set();
    let (mut tls, handle) = scene.opened();
    let bytes = pattern(1, 64 << 10);
    for at in [0, 65_536, BYTES - 65_536] {
        assert_eq!(tls.write_at(handle, at, &bytes), Ok(65_536));
    }
    assert_eq!(tls.read_at(handle, 65_536, 64).unwrap(), &bytes[..64]);
    let all = tls.read_at(handle, 0, BYTES).unwrap();
    assert_eq!(all.len() as u64, BYTES);
    assert!(all.ends_with(&bytes) && all.starts_with(&bytes));
    assert_eq!(scene.shell.bytes(&["--as", "alice", "get", "l", "--len", "64KiB"]), bytes);
    // A request of the local socket, and those that are its alone.
    assert!(tls.control(&Request::Status).is_ok());
    let mapped = Request::Open { token: scene.token.clone(), rights: Rights::READ, path: By::Mapped };
    refused(tls.control(&mapped), Code::MediatedOnly);
    refused(tls.control(&Request::Channel), Code::Protocol);
    assert!(tls.control(&Request::Close { handle }).is_ok());
    refused(tls.read_at(handle, 0, 1), Code::Revoked);
    scene.is_well();
}

#[test]
fn a_certificate_and_a_key_have_to_be_of_the_same_principal() {
    let mut scene = Scene::set();
    let address = scene.node.address();
    let bob = scene.node.key("bob");
    fn connect(
        at: std::net::SocketAddr,
        who: &transport::Credentials,
        key: &SigningKey,
    ) -> Result<(), Error> {
        Tls::connect(at, who, key).map(drop)
    }
    refused(connect(address, &scene.alice, &bob), Code::PeerIdentity);
    refused(connect(address, &scene.alice, &SigningKey::from_seed(&[9; 32])), Code::PeerIdentity);
    // A node's certificate opens no session, whoever proves what.
    let other = issued(&scene.node, "node-2", "provider");
    refused(connect(address, &other, &scene.node.key("alice")), Code::PeerIdentity);
    // Nor does the proof of another connection.
    let (mut here, mut there) = (Tls::silent(address, &scene.alice), Tls::silent(address, &scene.alice));
    let alice = scene.node.key("alice");
    let (transcript, _) = (here.hello(&alice).unwrap(), there.hello(&alice).unwrap());
    let plain = Request::Prove { signature: transcript.sign(&alice) };
    refused(here.control(&plain), Code::Possession);
    assert_eq!(there.control(&Request::Status).unwrap_err().code(), Code::Protocol, "before it is welcome");
    scene.is_well();
}

#[test]
fn c10_what_is_no_tls_is_hung_up_on() {
    let mut scene = Scene::set();
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.6\r\n", b"stats\r\n"] {
        let mut socket = TcpStream::connect(scene.node.address()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(bytes).unwrap();
        // At most an alert, then the end.
        let mut answer = Vec::new();
        socket.take(64).read_to_end(&mut answer).unwrap();
        assert!(answer.len() < 16, "{answer:?}");
    }
    scene.is_well();
}

/// What a header with one thing changed is refused with, at the byte that says so.
#[test]
fn c1_c4_c8_a_bad_header_ends_the_connection_with_its_code() {
    let mut scene = Scene::set();
    let change = |at: usize, value: u8| {
        let (mut tls, handle) = scene.opened();
        let mut frame = tls.frame(Verb::Read, Span::new(handle, 0, 1).as_bytes());
        frame[at] = value;
        // The header alone: nobody waits for what it announces.
        tls.write(&frame[..HEADER]).unwrap();
        tls.closed()
    };
    assert_eq!(change(0, b'X'), Some(Code::FrameType));
    assert_eq!(change(4, 0), Some(Code::FrameVersion));
    assert_eq!(change(4, 255), Some(Code::FrameVersion));
    assert_eq!(change(5, 99), Some(Code::FrameType));
    assert_eq!(change(6, 8), Some(Code::FrameType), "a reserved flag");
    assert_eq!(change(19, 0xff), Some(Code::FrameSize));
    assert_eq!(change(18, 2), Some(Code::FrameSize));
    // An answer, from a client.
    let (mut tls, handle) = scene.opened();
    let body = *Span::new(handle, 0, 1).as_bytes().first_chunk::<{ Span::BYTES }>().unwrap();
    let answer = Header::of(Verb::Read, Flags::ANSWER, tls.number(), body.len()).unwrap();
    tls.write(&[&answer.encode()[..], &body].concat()).unwrap();
    assert_eq!(tls.closed(), Some(Code::FrameType));
    scene.is_well();
}

#[test]
fn c2_what_is_cut_off_has_no_effect_and_is_on_record() {
    let mut scene = Scene::set();
    let (mut tls, handle) = scene.opened();
    let data = [7; 100];
    let frame = tls.frame(Verb::Write, &[Span::new(handle, 0, 100).as_bytes(), &data].concat());
    for cut in [1, HEADER - 1, HEADER, HEADER + 1, frame.len() - 1] {
        let (mut other, handle) = scene.opened();
        let frame = other.frame(Verb::Write, &[Span::new(handle, 0, 100).as_bytes(), &data].concat());
        other.write(&frame[..cut]).unwrap();
        drop(other);
    }
    until("the cut frames are on record", || {
        let entries = log::read(&scene.node.audit()).provider;
        let cut = |entry: &&serde_json::Value| entry["code"] == "E_FRAME_TRUNCATED";
        (entries.iter().filter(cut).count() == 5).then_some(())
    });
    assert_eq!(tls.read_at(handle, 0, 100).unwrap(), [0; 100]);
    scene.is_well();
}

#[test]
fn c5_a_frame_may_come_in_records_of_one_byte() {
    let mut scene = Scene::set();
    let (mut tls, handle) = scene.opened();
    let frame = tls.frame(Verb::Read, Span::new(handle, 0, 64).as_bytes());
    for byte in &frame {
        tls.write(std::slice::from_ref(byte)).unwrap();
    }
    assert_eq!(tls.hear().unwrap().body.len(), 64);
    scene.is_well();
}

#[test]
fn c7_a_number_is_one_request_and_answers_come_in_order() {
    let mut scene = Scene::set();
    let (mut tls, handle) = scene.opened();
    // Many at once: one write, answers in their order.
    let frames: Vec<u8> =
        (0..32).flat_map(|n| tls.frame(Verb::Read, Span::new(handle, n, 1 + n).as_bytes())).collect();
    tls.write(&frames).unwrap();
    let mut before = None;
    for n in 0..32 {
        let frame = tls.hear().unwrap();
        assert_eq!(frame.body.len(), 1 + n);
        assert!(before < Some(frame.header.request.0));
        before = Some(frame.header.request.0);
    }
    // The frames of two requests are not mixed.
    let header = Header::of(Verb::Write, Flags::MORE, tls.number(), Span::BYTES + 1).unwrap();
    let body = [Span::new(handle, 0, 2).as_bytes(), &[1]].concat();
    let other = tls.frame(Verb::Read, Span::new(handle, 0, 1).as_bytes());
    tls.write(&[&header.encode()[..], &body, &other].concat()).unwrap();
    assert_eq!(tls.closed(), Some(Code::FrameType));
    scene.is_well();
}

#[test]
fn forged_handles_are_refused_and_on_record_with_the_address() {
    let mut scene = Scene::set();
    let mut tls = scene.connect();
    let forged = SlotHandle { slot: 7, epoch: 9 };
    assert_eq!(code(&tls.read_at(forged, 0, 1)), "E_REVOKED");
    log::await_provider(&scene.node.audit(), "the fault is on record", |entry| {
        entry["event"] == "fault.access" && entry["cause"] == "forged" && entry["peer"] == "127.0.0.1"
    });
    scene.is_well();
}

#[test]
fn a_node_without_certificates_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let shell = Shell::new(dir.path());
    let up = ["up", "--pool", "64MiB", "--listen", "127.0.0.1:0"];
    shell.fails(&up, 1, "E_CONFIG_TLS");
    shell.bytes(&["pki", "init", "--domain", "test.example"]);
    shell.fails(&up, 1, "E_CONFIG_TLS");
    shell.bytes(&["pki", "issue", "alice"]);
    shell.fails(&up, 1, "E_CONFIG_TLS");
}
