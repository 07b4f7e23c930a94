//! Group F: more of everything than there is.

use caps::error::Code;
use caps::limits::REMOTE_LEASES_MAX;
use caps::time::Micros;
use caps::wire::remote::Verb;
use caps::wire::remote::leases::{Create, Creations};
use caps::wire::request::LeaseSpec;
use caps::wire::row::Lifetime;
use caps::wire::{Request, cbor};
use policy::limits::{
    FDS_PER_REMOTE_SESSION, FDS_PER_SESSION, FDS_RESERVED, REMOTE_REFUSALS_MAX, SESSIONS_MAX,
};

use super::bed::{Bed, ON_TIME};
use super::broken::encoded;
use super::common::tls::Tls;
use super::common::{Node, oom_kills, until};

/// Connections that a node with so few descriptors has: half of what is left of them is for leases.
const CONNECTIONS: u64 = 40;
/// Descriptors of such a node.
const DESCRIPTORS: u64 = FDS_RESERVED
    + FDS_PER_SESSION * SESSIONS_MAX as u64
    + 2 * FDS_PER_REMOTE_SESSION * (CONNECTIONS + REMOTE_REFUSALS_MAX as u64);

#[test]
fn f1_connections_up_to_the_descriptors_and_past_them() {
    let mut bed = Bed::of(Node::start_with_tls_and_descriptors("", Some(DESCRIPTORS)));
    let connect = |bed: &Bed| {
        let mut tls = Tls::silent(bed.node.address(), &bed.mallory.credentials);
        tls.begin(&bed.mallory.key).map(|()| tls)
    };
    for round in 0..2 {
        let mut open = Vec::new();
        let refused = loop {
            match connect(&bed) {
                Ok(tls) => open.push(tls),
                Err(error) => break error,
            }
            assert!(open.len() <= CONNECTIONS as usize, "more than there are descriptors for");
        };
        assert_eq!(refused.code(), Code::Busy, "F1: {refused}");
        println!("round {round}: {} connections of one network, then E_BUSY", open.len());
        assert!(open.len() > CONNECTIONS as usize / 2);
        bed.row("F1 one more", 50, Some(Code::Busy), |bed| connect(bed).err().map(|error| error.code()));
        // Far more at once than are even told so. Who is in is served, and what he does is on record.
        let ((), _) = bed.beside("F1", |bed| {
            let crowd: Vec<_> = (0..2 * REMOTE_REFUSALS_MAX)
                .filter_map(|_| std::net::TcpStream::connect(bed.node.address()).ok())
                .collect();
            drop(crowd);
        });
        for tls in &mut open {
            assert!(tls.control(&Request::Status).is_ok(), "who is in is served");
        }
        drop(open);
        until("there is room again", || connect(&bed).ok());
    }
    bed.on_record(Code::Busy);
    bed.finish("F1");
}

#[test]
fn f2_leases_up_to_the_quota_and_past_it() {
    const LEASES: usize = 256;
    const PAST: usize = 40;
    let config = format!("[quota.mallory]\nleases = {}\n", LEASES + 1);
    let mut bed = Bed::new(&config);
    let killed = oom_kills();
    let ((), longest) = bed.beside("F2", |bed| {
        let mut tls = bed.session();
        let spec = LeaseSpec {
            bytes: 64 << 10,
            ttl: Micros::from_millis(600_000),
            name: None,
            class: None,
            lifetime: Lifetime::Process,
            segment_bytes: None,
            max_hops: 0,
            near: None,
        };
        let batch = encoded(&Create { leases: vec![spec.clone(); REMOTE_LEASES_MAX] });
        let mut made = 0;
        for round in 0..LEASES / REMOTE_LEASES_MAX + PAST {
            let frame = tls.ask(Verb::Create, &batch);
            assert_eq!(frame.failure(), None);
            let outcomes: Creations = cbor::decode(&frame.body).unwrap();
            for outcome in outcomes {
                match outcome {
                    Ok(_) => made += 1,
                    Err(error) => assert_eq!(error.code(), Code::Quota, "F2 round {round}: {error}"),
                }
            }
            let alone = tls.control(&Request::LeaseCreate(spec.clone()));
            match alone {
                Ok(_) => made += 1,
                Err(error) => assert_eq!(error.code(), Code::Quota, "F2 round {round}"),
            }
        }
        assert_eq!(made, LEASES, "as many as the quota says, and no more");
    });
    println!("{} refusals; the bystander waited {longest:.1?} at most", PAST * REMOTE_LEASES_MAX);
    assert_eq!(oom_kills(), killed);
    bed.on_record(Code::Quota);
    // What ended with the session is there for the next.
    let mut tls = bed.session();
    until("the leases of the session are over", || {
        let caps::wire::Reply::Status(status) = tls.control(&Request::Status).unwrap() else {
            panic!("no status")
        };
        (status.leases <= 2).then_some(())
    });
    drop(tls);
    bed.finish("F2");
}

/// Openings are bounded by how many may be open, of one session and of one principal; not by their rate.
#[test]
fn f3_openings_up_to_the_bound_and_past_it() {
    const OPENS: u32 = 64;
    let mut bed = Bed::new(&format!("[quota.mallory]\nopens = {OPENS}\n"));
    let ((), longest) = bed.beside("F3", |bed| {
        let (mut one, mut other) = (bed.session(), bed.session());
        let rights = caps::rights::Rights::READ;
        let handles: Vec<_> = (0..OPENS).map(|_| one.open(&bed.mallory.token, rights).unwrap()).collect();
        let began = std::time::Instant::now();
        for _ in 0..200 {
            assert_eq!(one.open(&bed.mallory.token, rights).unwrap_err().code(), Code::Quota, "F3");
        }
        println!("200 openings too many refused in {:.1?}", began.elapsed());
        assert_eq!(
            other.open(&bed.mallory.token, rights).unwrap_err().code(),
            Code::Quota,
            "on another connection"
        );
        let began = std::time::Instant::now();
        one.control(&Request::Close { handle: handles[0] }).unwrap();
        other.open(&bed.mallory.token, rights).unwrap();
        assert!(began.elapsed() < ON_TIME);
    });
    println!("the bystander waited {longest:.1?} at most");
    bed.finish("F3");
}
