//! Sessions against a node that speaks real frames: the good case, every lie, and giving up. Each case runs with the
//! blocking client and with the asynchronous one.

mod node;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::Duration;

use caps::error::{Code, Error};
use caps::id::{LeaseId, RegionId, RequestId, SlotHandle};
use caps::limits::{CHUNK_BYTES_MAX, FRAME_BYTES_MAX};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::Micros;
use caps::wire::reply::{Opened, Page};
use caps::wire::row::{LeaseRow, LeaseState};
use caps::wire::{FrameKind, Reply, Request, frame};
use libmem::{Client, Endpoint, LeaseOptions, Memory, Result, SigningKey, aio};
use node::{HANDLE, Node, Peer, REGION_BYTES, memory, opened, serve_mapping, token};

/// What a node says instead of an answer.
type Lie = fn(RequestId) -> Vec<u8>;

fn key() -> SigningKey {
    SigningKey::from_seed(&[5; 32])
}

fn connect(node: &Node) -> Client {
    Client::connect(&node.endpoint(), &key()).unwrap()
}

/// Runs the script and the call twice: once with each client.
macro_rules! with_both {
    ($script:expr, $client:ident => $blocking:expr, $asynchronous:expr, $check:expr) => {{
        let node = Node::with($script);
        let check = $check;
        {
            let $client = Client::connect(&node.endpoint(), &key()).unwrap();
            check($blocking, "blocking");
        }
        node.finish();
        let node = Node::with($script);
        runtime().block_on(async {
            let $client = aio::Client::connect(&node.endpoint(), &key()).await.unwrap();
            check($asynchronous.await, "asynchronous");
        });
        node.finish();
    }};
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn expect<T>(code: Code) -> impl Fn(Result<T>, &str) {
    move |result, which| assert_eq!(result.err().map(|error| error.code()), Some(code), "{which}")
}

#[test]
fn the_handshake_proves_the_key() {
    let node = Node::with(|peer| assert_eq!(peer.holder, key().public()));
    let client = connect(&node);
    assert_eq!((client.holder(), client.welcome().provider), (key().public(), node::NODE));
    node.finish();
}

#[test]
fn a_node_that_refuses_the_caller_says_why_before_it_hangs_up() {
    // As a node does that looks at the peer's uid before it reads a byte.
    let node = Node::raw(|peer| peer.refuse(RequestId(0), &Error::new(Code::PeerUid, "not on the list")));
    let error = Client::connect(&node.endpoint(), &key()).unwrap_err();
    assert_eq!(error.code(), Code::PeerUid);
    node.finish();
}

#[test]
fn a_node_that_hangs_up_in_the_handshake_is_unreachable() {
    let node = Node::raw(drop);
    assert_eq!(Client::connect(&node.endpoint(), &key()).unwrap_err().code(), Code::Unreachable);
    node.finish();
}

#[test]
fn a_silent_node_times_out() {
    let (done, wait) = mpsc::channel::<()>();
    let node = Node::raw(move |_peer| wait.recv().unwrap());
    let endpoint = node.endpoint().timeout(Duration::from_millis(20));
    assert_eq!(Client::connect(&endpoint, &key()).unwrap_err().code(), Code::Timeout);
    done.send(()).unwrap();
    node.finish();
}

#[test]
fn packets_that_break_the_rules() {
    let cases: [(Code, Lie); 6] = [
        (Code::FrameType, |id| frame::encode(FrameKind::Request, id, &Request::Status).unwrap()),
        (Code::Protocol, |id| frame::encode(FrameKind::Reply, RequestId(id.0 + 1), &Reply::Done).unwrap()),
        (Code::FrameTruncated, |_| vec![1; 5]),
        (Code::FrameType, |_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        (Code::FrameSize, |_| vec![0; FRAME_BYTES_MAX + 1]),
        (Code::Protocol, |id| {
            let page = Page::<LeaseRow> { rows: Vec::new(), more: false };
            frame::encode(FrameKind::Reply, id, &Reply::Leases(page)).unwrap()
        }),
    ];
    for (code, packet) in cases {
        let script = move |peer: &mut Peer| {
            let (id, _) = peer.next();
            peer.bytes(&packet(id));
            peer.drain();
        };
        with_both!(script, client => client.status(), client.status(), expect(code));
    }
}

#[test]
fn a_truncated_body_is_not_believed() {
    let script = |peer: &mut Peer| {
        let (id, _) = peer.next();
        let mut bytes = frame::encode(FrameKind::Reply, id, &Reply::Done).unwrap();
        bytes.pop();
        peer.bytes(&bytes);
        peer.drain();
    };
    with_both!(script, client => client.status(), client.status(), expect(Code::FrameSize));
}

#[test]
fn one_broken_rule_ends_the_session() {
    let node = Node::with(|peer| {
        let (id, _) = peer.next();
        peer.bytes(&frame::encode(FrameKind::Request, id, &Request::Status).unwrap());
        assert!(peer.try_next().is_none(), "nothing more is asked");
    });
    let client = connect(&node);
    for _ in 0..2 {
        assert_eq!(client.status().unwrap_err().code(), Code::FrameType);
    }
    drop(client);
    node.finish();
}

#[test]
fn a_refusal_is_the_callers_and_the_session_goes_on() {
    let script = |peer: &mut Peer| {
        let (id, _) = peer.next();
        peer.refuse(id, &Error::new(Code::Quota, "over by 1 byte"));
        peer.drain();
    };
    let options = || LeaseOptions::new(4096, Duration::from_secs(1));
    with_both!(script, client => {
        let refused = client.lease(options());
        assert_eq!(client.principal_add(libmem::Name::new("x").unwrap(), key().public()), Ok(()));
        refused
    }, async {
        let refused = client.lease(options()).await;
        assert_eq!(client.principal_add(libmem::Name::new("x").unwrap(), key().public()).await, Ok(()));
        refused
    }, expect(Code::Quota));
}

#[test]
fn a_mapping_reads_writes_and_closes() {
    let script = |peer: &mut Peer| {
        let memory = serve_mapping(peer);
        let requests = peer.drain();
        assert!(matches!(requests[..], [Request::Close { handle: HANDLE }]), "{requests:?}");
        let mut bytes = [0; 5];
        rustix::io::pread(&memory, &mut bytes, 10).unwrap();
        assert_eq!(&bytes, b"hello");
    };
    let check = |region: Result<libmem::Region>, which: &str| {
        let region = region.unwrap();
        region.write_at(10, b"hello").unwrap();
        let mut bytes = [0; 5];
        region.read_at(10, &mut bytes).unwrap();
        assert_eq!(&bytes, b"hello", "{which}");
        region.store_u64(64, 1).unwrap();
        assert_eq!(region.fetch_add_u64(64, 2).unwrap(), 1);
        assert_eq!(region.compare_exchange_u64(64, 3, 9).unwrap(), 3);
        assert_eq!(region.load_u64(64).unwrap(), 9);
        for (offset, length) in [(REGION_BYTES, 1), (REGION_BYTES - 1, 2), (u64::MAX, 2)] {
            let error = region.read_at(offset, &mut vec![0; length]).unwrap_err();
            assert_eq!(error.code(), Code::Range, "{offset} {length}");
        }
        assert_eq!(region.load_u64(4).unwrap_err().code(), Code::Range);
    };
    let all = Rights::READ_WRITE;
    with_both!(script, client => client.open_mapped(&token(), all), client.open_mapped(&token(), all), check);
}

#[test]
fn m4_a_lying_descriptor_is_refused_and_the_right_closed() {
    let file = |path: &str| -> OwnedFd {
        std::fs::File::options().read(true).write(true).open(path).unwrap().into()
    };
    let wrong_size = || {
        let memory = memory();
        rustix::fs::ftruncate(&memory, REGION_BYTES + 4096).unwrap();
        memory
    };
    for descriptor in [file("/dev/zero"), wrong_size(), rustix::pipe::pipe().unwrap().0] {
        let node = Node::with(move |peer| {
            let (id, _) = peer.next_open();
            peer.reply_with(id, &Reply::Opened(opened(true)), &[descriptor.as_fd()]);
            let requests = peer.drain();
            assert!(matches!(requests[..], [Request::Close { handle: HANDLE }]), "{requests:?}");
        });
        let client = connect(&node);
        let error = client.open_mapped(&token(), Rights::READ_WRITE).unwrap_err();
        assert_eq!(error.code(), Code::DescriptorType);
        drop(client);
        node.finish();
    }
}

#[test]
fn descriptors_that_were_not_announced_or_too_many_end_the_session() {
    let unannounced = |peer: &mut Peer| {
        let (id, _) = peer.next();
        peer.reply_with(id, &Reply::Done, &[memory().as_fd()]);
        peer.drain();
    };
    with_both!(unannounced, client => client.status(), client.status(), expect(Code::DescriptorType));
    let two = |peer: &mut Peer| {
        let (id, _) = peer.next_open();
        peer.reply_with(id, &Reply::Opened(opened(true)), &[memory().as_fd(), memory().as_fd()]);
        peer.drain();
    };
    let missing = |peer: &mut Peer| {
        let (id, _) = peer.next_open();
        peer.reply(id, &Reply::Opened(opened(true)));
        peer.drain();
    };
    let read = Rights::READ;
    for script in [two as fn(&mut Peer), missing as fn(&mut Peer)] {
        with_both!(script, client => client.open_mapped(&token(), read), client.open_mapped(&token(), read),
            expect(Code::DescriptorType));
    }
}

#[test]
fn a_hang_up_revokes_mappings_though_nobody_cut_and_nobody_asked() {
    let node = Node::with(|peer| {
        serve_mapping(peer);
        // The script ends here: the socket closes, and the memory stays as it is.
    });
    let client = connect(&node);
    let region = client.open_mapped(&token(), Rights::READ_WRITE).unwrap();
    node.finish();
    while region.read_at(0, &mut [0]).is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(region.read_at(0, &mut [0]).unwrap_err().code(), Code::Revoked);
    assert_eq!(region.write_at(0, &[0]).unwrap_err().code(), Code::Revoked);
    assert_eq!(client.status().unwrap_err().code(), Code::Unreachable);
}

#[test]
fn a_region_outlives_its_client() {
    let node = Node::with(|peer| {
        serve_mapping(peer);
        peer.drain();
    });
    let region = connect(&node).open_mapped(&token(), Rights::READ_WRITE).unwrap();
    region.write_at(0, b"still here").unwrap();
    drop(region);
    node.finish(); // ends only once the session does
}

#[test]
fn dropping_many_rights_never_waits_and_closes_each() {
    const RIGHTS: u32 = 100;
    let node = Node::with(|peer| {
        for slot in 0..RIGHTS {
            let (id, _) = peer.next();
            peer.reply(id, &Reply::Opened(Opened { handle: SlotHandle { slot, epoch: 0 }, ..opened(false) }));
        }
        let (mut closed, mut asked) = (Vec::new(), 0);
        while let Some((id, request)) = peer.try_next() {
            match request {
                Request::Close { handle } => closed.push(handle.slot),
                _ => asked += 1,
            }
            peer.refuse(id, &Error::new(Code::LeaseUnknown, "whatever was asked"));
        }
        closed.sort_unstable();
        assert_eq!(closed, (0..RIGHTS).collect::<Vec<_>>());
        assert!(asked > 0);
    });
    let client = connect(&node);
    let rights: Vec<_> = (0..RIGHTS).map(|_| client.open_mediated(&token(), Rights::READ).unwrap()).collect();
    drop(rights);
    // What could not be sent without waiting goes out with the requests that follow.
    for _ in 0..RIGHTS {
        assert_eq!(client.status().unwrap_err().code(), Code::LeaseUnknown);
    }
    drop(client);
    node.finish();
}

/// A node's memory, served by reads and writes of at most a chunk.
fn serve_chunks(peer: &mut Peer, spoil: bool) {
    let mut memory = vec![0u8; REGION_BYTES as usize];
    while let Some((id, request)) = peer.try_next() {
        match request {
            Request::Channel => peer.give_channel(id),
            Request::Open { path: caps::wire::request::Path::Mapped, .. } => {
                peer.refuse(id, &Code::MediatedOnly.into());
            }
            Request::Open { .. } => peer.reply(id, &Reply::Opened(opened(false))),
            Request::Read { handle: HANDLE, offset, length } => {
                assert!(length as usize <= CHUNK_BYTES_MAX && length > 0);
                let bytes = memory[offset as usize..][..length as usize].to_vec();
                let crc = crc32c::crc32c(&bytes) ^ u32::from(spoil);
                peer.reply(id, &Reply::Data { bytes, crc });
            }
            Request::Write { handle: HANDLE, offset, data, crc } => {
                assert_eq!(crc32c::crc32c(&data), crc);
                assert!(data.len() <= CHUNK_BYTES_MAX && !data.is_empty());
                memory[offset as usize..][..data.len()].copy_from_slice(&data);
                peer.reply(id, &Reply::Done);
            }
            Request::Close { handle: HANDLE } => peer.reply(id, &Reply::Done),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn open_falls_back_to_mediated_access_and_every_byte_arrives() {
    let bytes: Vec<u8> = (0..2 * CHUNK_BYTES_MAX + 777).map(|at| (at % 251) as u8).collect();
    let offset = REGION_BYTES - bytes.len() as u64;

    let node = Node::with(|peer| serve_chunks(peer, false));
    let client = connect(&node);
    let memory = client.open(&token(), Rights::READ_WRITE).unwrap();
    assert!(matches!(memory, Memory::Mediated(_)));
    memory.write_at(offset, &bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    memory.read_at(offset, &mut back).unwrap();
    assert_eq!(back, bytes);
    memory.read_at(REGION_BYTES, &mut []).unwrap();
    assert_eq!(memory.read_at(offset + 1, &mut back).unwrap_err().code(), Code::Range);
    drop((memory, client));
    node.finish();

    let node = Node::with(|peer| serve_chunks(peer, false));
    runtime().block_on(async {
        let client = aio::Client::connect(&node.endpoint(), &key()).await.unwrap();
        let memory = client.open(&token(), Rights::READ_WRITE).await.unwrap();
        memory.write_at(offset, &bytes).await.unwrap();
        let mut back = vec![0; bytes.len()];
        memory.read_at(offset, &mut back).await.unwrap();
        assert_eq!(back, bytes);
    });
    node.finish();
}

#[test]
fn a_chunk_with_a_wrong_checksum_is_not_taken() {
    let node = Node::with(|peer| serve_chunks(peer, true));
    let client = connect(&node);
    let memory = client.open(&token(), Rights::READ).unwrap();
    let mut byte = [7];
    assert_eq!(memory.read_at(0, &mut byte).unwrap_err().code(), Code::Checksum);
    assert_eq!(byte, [7]);
    drop((memory, client));
    node.finish();
}

#[test]
fn giving_up_is_named_and_the_late_answer_disturbs_nobody() {
    let (late, answer_now) = mpsc::channel::<()>();
    let node = Node::with(move |peer| {
        let (status, _) = peer.next();
        let (create, _) = peer.next();
        answer_now.recv().unwrap();
        peer.refuse(status, &Error::new(Code::NotAdmin, "late"));
        peer.refuse(create, &Error::new(Code::Quota, "late"));
        let (id, _) = peer.next();
        peer.refuse(id, &Error::new(Code::Busy, "in time"));
        peer.drain();
    });
    let client = Client::connect(&patient(&node), &key()).unwrap();
    assert_eq!(client.status().unwrap_err().code(), Code::Timeout);
    let error = client.lease(LeaseOptions::new(1, Duration::from_secs(1))).unwrap_err();
    assert_eq!(error.code(), Code::Uncertain);
    late.send(()).unwrap();
    assert_eq!(client.status().unwrap_err().code(), Code::Busy);
    drop(client);
    node.finish();
}

/// Short enough to give up in a test, long enough for the handshake on a loaded machine.
fn patient(node: &Node) -> Endpoint {
    node.endpoint().timeout(Duration::from_secs(1))
}

#[test]
fn a_dropped_future_leaves_the_session_whole_and_closes_what_it_opened() {
    let (asked, was_asked) = tokio::sync::oneshot::channel::<()>();
    let (dropped, was_dropped) = mpsc::channel::<()>();
    let node = Node::with(move |peer| {
        let (id, _) = peer.next_open();
        asked.send(()).unwrap();
        was_dropped.recv().unwrap();
        peer.reply_with(id, &Reply::Opened(opened(true)), &[memory().as_fd()]);
        let (id, request) = peer.next();
        assert!(matches!(request, Request::Status), "{request:?}");
        peer.refuse(id, &Error::new(Code::NotAdmin, "the second"));
        let (_, request) = peer.next();
        assert!(matches!(request, Request::Close { handle: HANDLE }), "{request:?}");
    });
    runtime().block_on(async {
        let client = aio::Client::connect(&node.endpoint(), &key()).await.unwrap();
        let token = token();
        tokio::select! {
            biased;
            _ = client.open_mapped(&token, Rights::READ) => panic!("nobody answered yet"),
            asked = was_asked => asked.unwrap(),
        }
        dropped.send(()).unwrap();
        assert_eq!(client.status().await.unwrap_err().code(), Code::NotAdmin);
    });
    node.finish();
}

fn row(number: u8) -> LeaseRow {
    LeaseRow {
        id: LeaseId([number; 16]),
        region: RegionId([number; 16]),
        name: None,
        owner: key().public(),
        owner_name: None,
        rights: Rights::ALL,
        range: ByteRange::new(0, 4096).unwrap(),
        expires_in: Micros(1),
        state: LeaseState::Live,
        cause: None,
        epoch: 0,
        provider: node::NODE,
        grants: 0,
        node: None,
        placement: None,
        address: None,
        segment_bytes: 4096,
    }
}

#[test]
fn lists_come_page_by_page() {
    let script = |peer: &mut Peer| {
        for (after, rows, more) in [(None, [1, 2], true), (Some(2), [3, 4], true), (Some(4), [5, 6], false)] {
            let (id, request) = peer.next();
            assert_eq!(request, Request::LeaseList { after: after.map(|number| LeaseId([number; 16])) });
            peer.reply(id, &Reply::Leases(Page { rows: rows.map(row).to_vec(), more }));
        }
        peer.drain();
    };
    let expected: Vec<_> = (1..=6).map(row).collect();
    let check = |rows: Vec<LeaseRow>, which: &str| assert_eq!(rows, expected, "{which}");
    with_both!(script, client => client.leases().map(Result::unwrap).collect::<Vec<_>>(), async {
        let (mut rows, mut list) = (Vec::new(), client.leases());
        while let Some(row) = list.next().await {
            rows.push(row.unwrap());
        }
        rows
    }, check);
}

#[test]
fn a_list_without_end_is_ended() {
    let node = Node::with(|peer| {
        for _ in 0..2 {
            let (id, _) = peer.next();
            peer.reply(id, &Reply::Leases(Page { rows: vec![row(1)], more: true }));
        }
        peer.drain();
    });
    let client = connect(&node);
    let mut leases = client.leases();
    assert!(leases.next().unwrap().is_ok());
    assert_eq!(leases.next().unwrap().unwrap_err().code(), Code::Protocol);
    assert!(leases.next().is_none());
    drop(leases);
    drop(client);
    node.finish();
}

#[test]
fn a_hang_up_during_a_change_is_uncertain() {
    let script = |peer: &mut Peer| drop(peer.next());
    let lease = LeaseId([1; 16]);
    with_both!(script, client => client.release(lease), client.release(lease), expect(Code::Uncertain));
    with_both!(script, client => client.status(), client.status(), expect(Code::Unreachable));
}
