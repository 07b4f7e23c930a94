//! Frames of the local socket: one for each shape of body.

use caps::error::{Code, Error};
use caps::id::{DonationId, GrantId, LeaseId, PrincipalKey, QuarantineId, RequestId, SlotHandle};
use caps::key::{Signature, SigningKey};
use caps::pop::Nonce;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::share::ShareContract;
use caps::time::Micros;
use caps::token::Token;
use caps::wire::channel::{Message, SegmentAccess};
use caps::wire::request::{LeaseSpec, Path};
use caps::wire::row::{Lifetime, Revocation, Target};
use caps::wire::wrap::WrapId;
use caps::wire::{FrameKind, Name, Reason, Reply, Request, frame};
use serde::Serialize;

/// Every message of the rotation channel.
pub fn channel() -> Vec<Vec<u8>> {
    let (handle, index) = (SlotHandle { slot: 3, epoch: 4 }, 5);
    let messages = [
        Message::Ready { handle },
        Message::Segment { handle, index, access: SegmentAccess::Read },
        Message::Segment { handle, index, access: SegmentAccess::ReadWrite },
        Message::Taken { handle, index },
        Message::Withdrawn { handle, index },
        Message::Ended { handle },
    ];
    messages.iter().map(|message| message.encode().to_vec()).collect()
}

/// Requests, replies and an error, encoded.
pub fn frames() -> Vec<Vec<u8>> {
    let name = |text| Name::new(text).expect("a literal name");
    let (key, signature) = (PrincipalKey([7; 32]), Signature([8; 64]));
    let (lease, grant, handle) = (LeaseId([1; 16]), GrantId([2; 16]), SlotHandle { slot: 3, epoch: 4 });
    let token = caps::token::fuzzing::token_seeds().swap_remove(0);
    let token = Token::from_bytes(token).expect("a seed is a token");
    let contract = ShareContract {
        cluster: caps::id::ClusterEpoch([5; 16]),
        grant,
        lease,
        region: caps::id::RegionId([6; 16]),
        owner: key,
        receiver: SigningKey::from_seed(&[9; 32]).public(),
        rights: Rights::READ,
        range: ByteRange::new(0, 4096).expect("a range"),
        ttl: Micros::from_millis(1_000),
        max_hops: 1,
        cosigner: None,
    };
    let spec = LeaseSpec {
        bytes: 65_536,
        ttl: Micros::from_millis(60_000),
        name: Some(name("weights")),
        class: Some(name("training")),
        lifetime: Lifetime::Detached,
        segment_bytes: None,
        max_hops: 0,
        near: None,
    };
    let revocation =
        Revocation { target: Target::Holder(key), reason: Reason::new("left").expect("a reason") };
    let transfer = caps::id::TransferId([8; 16]);
    let handing_over = caps::share::TransferContract {
        cluster: contract.cluster,
        transfer,
        lease,
        region: contract.region,
        from: key,
        to: contract.receiver,
        ttl: Micros(9),
    };
    let requests = [
        Request::Hello { holder: key, nonce: Nonce([1; 32]) },
        Request::Prove { signature },
        Request::PrincipalAdd { name: name("bob"), key },
        Request::PrincipalList { after: Some(key) },
        Request::LeaseCreate(spec),
        Request::LeaseRenew { lease, ttl: Micros::from_millis(5) },
        Request::ShareOffer { contract, signature },
        Request::ShareAccept { grant, signature, lifetime: Lifetime::Process },
        Request::Revoke(revocation),
        Request::Status,
        Request::Open { token: token.clone(), rights: Rights::READ_WRITE, path: Path::Mapped },
        Request::Read { handle, offset: 512, length: 4096 },
        Request::Write { handle, offset: 0, data: vec![0xab; 64], crc: 1 },
        Request::Confine,
        Request::RevokeToken {
            token: token.clone(),
            block: 1,
            reason: Reason::new("over").expect("a reason"),
        },
        Request::ShareNarrow { grant, rights: Some(Rights::READ), range: None, ttl: Some(Micros(9)) },
        Request::QuarantineAdd { lease, reason: Reason::new("odd").expect("a reason") },
        Request::QuarantineList,
        Request::QuarantineRead { id: QuarantineId(1), offset: 0, length: 4096 },
        Request::QuarantineRelease { id: QuarantineId(1) },
        Request::RootRotate,
        Request::RootRetire { id: 7 },
        Request::RootList,
        Request::Wrap { token: token.clone(), to: Some(key), ttl: Micros::from_millis(5) },
        Request::Unwrap { id: WrapId([6; 16]) },
        Request::WrapShow { id: WrapId([6; 16]) },
        Request::QuotaGive { id: DonationId([6; 16]), to: key, bytes: 4096, ttl: Micros(9) },
        Request::QuotaTakeBack { id: DonationId([6; 16]) },
        Request::QuotaList { after: Some(DonationId([6; 16])) },
        Request::ShareCosign { grant, signature },
        Request::TransferOffer { contract: handing_over, signature },
        Request::TransferAccept { transfer, signature, lifetime: Lifetime::Process },
        Request::TransferShow { transfer },
        Request::TransferList { after: Some(transfer) },
        Request::TransferWithdraw { transfer },
        Request::Resume { client: caps::id::ClientId([7; 16]) },
        Request::ProviderShow { provider: caps::id::ProviderId([5; 16]) },
        Request::ProviderDrain { name: name("east"), drain: true },
        Request::ProviderLost { name: name("east") },
    ];
    let replies = [
        Reply::Done,
        Reply::Challenge { node: caps::id::ProviderId([5; 16]), nonce: Nonce([2; 32]) },
        Reply::Data { bytes: vec![1; 32], crc: 2 },
        Reply::Wrapped { id: WrapId([6; 16]), expires_in: Micros::from_millis(5) },
        Reply::Unwrapped { token },
        Reply::Resumed { known: true },
        Reply::Provider { name: name("east"), address: None },
    ];
    let mut frames: Vec<_> = requests.iter().map(|request| encode(FrameKind::Request, request)).collect();
    frames.extend(replies.iter().map(|reply| encode(FrameKind::Reply, reply)));
    let error = Error::new(Code::Quota, "the principal's quota is spent");
    frames.push(encode(FrameKind::Error, &error));
    frames
}

fn encode(kind: FrameKind, body: &impl Serialize) -> Vec<u8> {
    frame::encode(kind, RequestId(1), body).expect("a message of ours encodes")
}
