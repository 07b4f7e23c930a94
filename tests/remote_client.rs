//! A second client, which knows nothing of Leasehold but `docs/protocol.md`: what the page says is enough to speak to a
//! node, and is what a node understands.
//!
//! | file | idea |
//! |---|---|
//! | `client.rs` | frames, CBOR, the proof |
//! | `script.rs` | the page's example session as the other end |
//! | `node.rs` | a node that serves TLS |
//! | `tls.rs` | the transport, and an end of it that knows as little |

#[path = "remote_client/client.rs"]
mod client;
#[path = "remote_client/node.rs"]
mod node;
#[path = "remote_client/script.rs"]
mod script;
#[path = "remote_client/tls.rs"]
mod tls;

use std::io::{Read, Write};

use client::{Client, Failure, Handle};
use ed25519_dalek::{Signer, SigningKey, Verifier, VerifyingKey};
use node::Node;
use script::{Script, block, line};

/// The turns of the page up to the welcome.
const BEGINNING: [(&str, &str); 2] = [("hello", "challenge"), ("prove", "welcome")];

/// The key, the client's nonce and the exporter's bytes of the page.
fn given() -> (SigningKey, [u8; 32], [u8; 32]) {
    let array = |bytes: Vec<u8>| <[u8; 32]>::try_from(bytes).unwrap();
    let key = SigningKey::from_bytes(&array(line("seed", 0, 32)));
    let nonce = array(line("signed", 21 + 16 + 32, 32));
    (key, nonce, array(line("seed", 64, 32)))
}

#[test]
fn the_key_and_the_signature_of_the_page_are_those_of_rfc_8032() {
    let (key, _, exporter) = given();
    assert_eq!(key.verifying_key().to_bytes()[..], line("seed", 32, 32));
    let signed = block("signed");
    assert_eq!(signed.len(), 21 + 16 + 4 * 32);
    assert!(signed.starts_with(b"leasehold-pop-tls-v1\0") && signed.ends_with(&exporter));
    assert!(
        block("prove").ends_with(&key.sign(&signed).to_bytes()),
        "the signature is the request's last field"
    );
}

#[test]
fn the_page_is_spoken_byte_by_byte() {
    let turns = [
        ("resume", "resumed"),
        ("lease-create", "leased"),
        ("open", "opened"),
        ("write", "written"),
        ("write-frames", "written-frames"),
        ("read", "data"),
        ("read-frames", "data-frames"),
        ("read-end", "data-end"),
        ("read-over", "revoked"),
        ("gather", "gathered"),
        ("scatter", "scattered"),
        ("cas", "swapped"),
        ("cas-late", "not-swapped"),
        ("fetch-add", "added"),
        ("stat", "standing"),
        ("create", "create-done"),
        ("delete", "deleted"),
        ("close", "closed"),
        ("lease-release", "released"),
    ];
    let (key, nonce, exporter) = given();
    let mut client = Client::new(Script::new(&[&BEGINNING[..], &turns].concat()));
    let welcome = client.begin(&key, nonce, exporter).unwrap();
    assert_eq!((welcome.provider, welcome.name.as_deref()), (vec![6; 16], Some("alice")));
    assert!(!client.resume([8; 16]).unwrap());

    let leased = client.lease(65_536, 60_000_000, Some("frames")).unwrap();
    assert_eq!(leased.lease, [3; 16]);
    let opened = client.open(&leased.token, 3).unwrap();
    assert_eq!((opened.region_bytes, opened.rights), (65_536, 3));
    let at = opened.handle;
    let over = Handle { epoch: at.epoch - 1, ..at };

    client.checked = true;
    assert_eq!(client.write(at, 0, b"hello, world"), Ok(12));
    client.checked = false;
    client.chunks = vec![7, 8, 1];
    assert_eq!(client.write(at, 4_096, b"first, second, x"), Ok(16));
    client.deadline = 2_000;
    assert_eq!(client.read(at, 0, 12).unwrap(), b"hello, world");
    assert_eq!(client.read(at, 4_096, 16).unwrap(), b"first, second, x");
    assert_eq!(client.read(at, 65_532, 64).unwrap(), [0; 4]);
    client.deadline = 0;
    assert!(matches!(client.read(over, 0, 12), Err(Failure::Refused(500, _))));

    let gathered = client.gather(&[(at, 7, 5), (over, 0, 8), (at, 0, 5)]).unwrap();
    assert_eq!(gathered, [(b"world".to_vec(), 0), (vec![], 500), (b"hello".to_vec(), 0)]);
    let scattered = client.scatter(&[(at, 100, b"abc"), (at, 65_535, b"de")]).unwrap();
    assert_eq!(scattered, [(3, 0), (1, 0)]);

    assert_eq!(client.compare_exchange(at, 8_192, 0, 7), Ok(0));
    assert_eq!(client.compare_exchange(at, 8_192, 0, 9), Ok(7));
    assert_eq!(client.fetch_add(at, 8_192, 5), Ok(7));
    let standing = client.stat(at).unwrap();
    assert_eq!((standing.region_bytes, standing.range, standing.rights), (65_536, (0, 65_536), 3));
    assert_eq!(standing.left_us, 59_000_000);

    let created = client.create(&[(65_536, 60_000_000, b"begin"), (4_096, 60_000_000, b"")]).unwrap();
    let (made, written) = created[0].as_ref().unwrap();
    assert_eq!((&made.lease[..], *written), (&[9; 16][..], 5));
    assert!(matches!(created[1], Err(Failure::Refused(400, _))));
    let deleted = client.delete(&[&[9; 16], &[0xee; 16]]).unwrap();
    assert_eq!(deleted[0], Ok(()));
    assert!(matches!(deleted[1], Err(Failure::Refused(404, _))));

    client.close(at).unwrap();
    assert_eq!(client.release(&leased.lease), Ok(65_536));
    assert!(client.into_stream().is_over());
}

#[test]
fn an_error_of_the_connection_is_told_under_no_number() {
    let (key, nonce, exporter) = given();
    let mut client = Client::new(Script::new(&[("hello", "frame-error")]));
    assert!(matches!(client.begin(&key, nonce, exporter), Err(Failure::Refused(303, _))));
}

#[test]
fn the_exporter_gives_both_ends_what_is_signed() {
    let (key, nonce, _) = given();
    let authority = tls::Authority::new();
    let (client, node) =
        (authority.issue("principal/alice", false), authority.issue("provider/node-1", true));
    let theirs = tls::Listener::new(node, authority.roots());
    let address = theirs.address();
    // The other end plays the page's challenge, and looks at what was signed over its own exporter.
    let holder = key.verifying_key();
    let other = std::thread::spawn(move || {
        let (mut stream, exporter) = theirs.accept();
        let hello = tls::body(&mut stream);
        stream.write_all(&block("challenge")).unwrap();
        let prove = tls::body(&mut stream);
        assert!(block("hello").ends_with(&hello));
        let signed = block("signed");
        let signed = [&signed[..signed.len() - 32], &exporter].concat();
        let signature = prove.last_chunk::<64>().unwrap();
        let proven = VerifyingKey::verify(&holder, &signed, &ed25519_dalek::Signature::from_bytes(signature));
        assert!(proven.is_ok());
        stream.write_all(&block("welcome")).unwrap();
    });
    let (stream, exporter, name) = tls::connect(&address, client, authority.roots()).unwrap();
    assert_eq!(name, "spiffe://mem.example/provider/node-1");
    Client::new(stream).begin(&key, nonce, exporter).unwrap();
    other.join().unwrap();
}

/// Connects to a node as `name`, with its files, and begins a session whose first request has the number after `last`.
fn session(node: &Node, name: &str, last: u64) -> Client<tls::Stream> {
    let own = tls::Own::of_files(&node.pki(&format!("{name}.pem")), &node.pki(&format!("{name}.key")));
    let roots = tls::roots_of_file(&node.pki("roots.pem"));
    let (stream, exporter, at) = tls::connect(&node.address, own, roots).unwrap();
    assert_eq!(at, "spiffe://mem.example/provider/node-1");
    let mut client = Client::new(stream);
    client.last = last;
    let welcome = client.begin(&identity(node, name), fresh(), exporter).unwrap();
    assert_eq!(welcome.name.as_deref(), Some(name));
    client
}

/// The key of an identity, as its file has it.
fn identity(node: &Node, name: &str) -> SigningKey {
    let text = std::fs::read_to_string(node.path().join(format!("ids/{name}.key"))).unwrap();
    let text = text.trim_end().strip_prefix("leasehold-key-v1:").unwrap();
    let seed = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    SigningKey::from_bytes(&seed.try_into().unwrap())
}

/// 32 bytes that nobody drew before.
fn fresh() -> [u8; 32] {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).unwrap();
    bytes
}

const MINUTE: u64 = 60_000_000;

#[test]
fn a_node_understands_who_has_read_the_page() {
    let node = Node::start(&["alice"]);
    let mut client = session(&node, "alice", 0);
    let leased = client.lease(1 << 20, MINUTE, Some("frames")).unwrap();
    let opened = client.open(&leased.token, 3).unwrap();
    let at = opened.handle;
    assert_eq!((opened.region_bytes, opened.rights), (1 << 20, 3));

    // More than a frame there, more than a frame back, with and without checksums.
    let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for checked in [false, true] {
        client.checked = checked;
        assert_eq!(client.write(at, 4_097, &bytes), Ok(300_000));
        assert!(client.read(at, 4_097, 300_000).unwrap() == bytes);
    }
    client.chunks = vec![1, 65_536, 7];
    assert_eq!(client.write(at, 500_000, &bytes), Ok(300_000));
    assert!(client.read(at, 500_000, 300_000).unwrap() == bytes);
    client.chunks = Vec::new();
    client.checked = false;

    // The region's end.
    assert_eq!(client.read(at, (1 << 20) - 4, 64).unwrap().len(), 4);
    assert_eq!(client.read(at, 1 << 20, 64).unwrap().len(), 0);
    assert!(matches!(client.read(at, (1 << 20) + 1, 1), Err(Failure::Refused(400, _))));
    assert_eq!(client.write(at, (1 << 20) - 4, &[7; 64]), Ok(4));

    // Others asked behind one, in their order.
    let asked: Vec<_> = (0..32).map(|index| client.ask_read(at, 4_097 + index, 1).unwrap()).collect();
    for (index, request) in asked.into_iter().enumerate() {
        assert_eq!(client.take_read(request).unwrap(), bytes[index..=index]);
    }

    let gone = Handle { epoch: at.epoch.wrapping_add(1), ..at };
    let gathered = client.gather(&[(at, 4_097, 100_000), (gone, 0, 1), (at, (1 << 20) - 1, 9)]).unwrap();
    assert!(gathered[0] == (bytes[..100_000].to_vec(), 0));
    assert_eq!(gathered[1..], [(vec![], 500), (vec![7], 0)]);
    let scattered = client.scatter(&[(at, 0, b"abc"), (gone, 0, b"d"), (at, (1 << 20) - 1, b"ef")]).unwrap();
    assert_eq!(scattered, [(3, 0), (0, 500), (1, 0)]);
    assert_eq!(client.read(at, 0, 3).unwrap(), b"abc");

    let standing = client.stat(at).unwrap();
    assert_eq!((standing.region_bytes, standing.range, standing.rights), (1 << 20, (0, 1 << 20), 3));
    assert!(standing.left_us > 0 && standing.left_us <= MINUTE);
    assert!(matches!(client.read(gone, 0, 1), Err(Failure::Refused(500, _))));

    client.close(at).unwrap();
    assert!(matches!(client.read(at, 0, 1), Err(Failure::Refused(500, _))));
    assert_eq!(client.release(&leased.lease), Ok(1 << 20));
    assert!(matches!(client.open(&leased.token, 1), Err(Failure::Refused(204, _))));
}

#[test]
fn a_proof_of_another_connection_is_none_of_this_one() {
    let node = Node::start(&["alice"]);
    let connect = || {
        let own = tls::Own::of_files(&node.pki("alice.pem"), &node.pki("alice.key"));
        tls::connect(&node.address, own, tls::roots_of_file(&node.pki("roots.pem"))).unwrap()
    };
    let ((_, elsewhere, _), (stream, here, _)) = (connect(), connect());
    assert_ne!(elsewhere, here);
    let key = identity(&node, "alice");
    let refused = Client::new(stream).begin(&key, fresh(), elsewhere).unwrap_err();
    assert!(matches!(refused, Failure::Refused(207, _)), "{refused:?}");
}

#[test]
fn what_is_asked_again_on_another_connection_has_one_effect() {
    const PROGRAM: [u8; 16] = [1; 16];
    let node = Node::start(&["alice"]);
    let mut before = session(&node, "alice", 0);
    assert!(!before.resume(PROGRAM).unwrap(), "it was never there");
    let leased = before.lease(65_536, MINUTE, None).unwrap();
    let at = before.open(&leased.token, 3).unwrap().handle;
    assert_eq!(before.fetch_add(at, 8, 5), Ok(0));
    let number = before.last;
    drop(before); // as if the answer had been lost

    let mut after = session(&node, "alice", 100);
    assert!(after.resume(PROGRAM).unwrap(), "it was there before");
    let at = after.open(&leased.token, 3).unwrap().handle;
    let next = after.last;
    after.last = number - 1;
    assert_eq!(after.fetch_add(at, 8, 5), Ok(0), "the answer that there was");
    after.last = number - 1;
    assert!(matches!(after.fetch_add(at, 8, 6), Err(Failure::Refused(304, _))), "another request");
    after.last = next;
    assert_eq!(after.fetch_add(at, 8, 1), Ok(5), "added once");

    // Another program of the same holder has numbers of its own.
    let mut other = session(&node, "alice", 0);
    other.resume([2; 16]).unwrap();
    let at = other.open(&leased.token, 3).unwrap().handle;
    other.last = number - 1;
    assert_eq!(other.fetch_add(at, 8, 1), Ok(6));
    assert_eq!(other.compare_exchange(at, 8, 7, 1), Ok(7));
    assert_eq!(other.compare_exchange(at, 8, 7, 2), Ok(1));

    let made = other.create(&[(65_536, MINUTE, b"begin"), (4_096, MINUTE, b"")]).unwrap();
    let (lease, written) = made[0].as_ref().unwrap();
    assert_eq!(*written, 5);
    assert!(matches!(made[1], Err(Failure::Refused(400, _))));
    let opened = other.open(&lease.token, 1).unwrap();
    assert_eq!(other.read(opened.handle, 0, 8).unwrap(), b"begin\0\0\0");
    let deleted = other.delete(&[&lease.lease, &[0xee; 16]]).unwrap();
    assert_eq!(deleted[0], Ok(()));
    assert!(matches!(deleted[1], Err(Failure::Refused(404, _))));
}
