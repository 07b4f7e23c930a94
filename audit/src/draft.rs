//! An entry before it has a place in the log.
//!
//! A [`Draft`] can only hold fields of a closed list, each set through a function of its own type and stored as the
//! JSON it will be. So whatever a caller does, the entry is canonical, has no secret (a token only as
//! [`TokenHmac`]), and is shorter than [`ENTRY_BYTES_MAX`]: every value has a largest form, and a test fills every
//! field with it. Text of peers goes through [`crate::text::push_quoted`].

use std::fmt::Write as _;

use caps::error::Code;
use caps::id::{ClusterEpoch, DonationId, GrantId, LeaseId, PrincipalKey, ProviderId, ReceiptId, RegionId};
use caps::key::Signature;
use caps::limits::{NAME_BYTES_MAX, REASON_BYTES_MAX, TOKEN_BLOCKS_MAX};
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::{Micros, UnixMicros};

use crate::event::{Event, Outcome};
use crate::hash::Hash;
use crate::key::{Origin, Vkey};
use crate::salt::TokenHmac;
use crate::text::{push_quoted, push_time};

/// Longest entry in bytes: its length has 16 bits in a bundle.
pub const ENTRY_BYTES_MAX: usize = 65_535;
/// Most keys in a `chain`. A token has at most 8 blocks, so no verified chain is longer.
pub const CHAIN_KEYS_MAX: usize = TOKEN_BLOCKS_MAX;
/// Most ids in a `revocation_id`: two of each block.
pub const REVOCATION_IDS_MAX: usize = 2 * TOKEN_BLOCKS_MAX;
/// Longest word of our own (`method`, `cause`, ...) in bytes. They are literals of the source.
pub const WORD_BYTES_MAX: usize = 64;

macro_rules! keys {
    ($($name:ident = $text:literal,)*) => {
        /// The keys of an entry, in bytewise order, which is the order they have in it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)] // each is documented at its setter
        pub enum Key { $($name,)* }

        impl Key {
            /// Every key.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The key as it stands in the entry.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

keys! {
    AfterUs = "after_us",
    Asked = "asked",
    Bytes = "bytes",
    Cause = "cause",
    Chain = "chain",
    Check = "check",
    Class = "class",
    Cluster = "cluster",
    Code = "code",
    Config = "config",
    Cosigner = "cosigner",
    Count = "count",
    CutBytes = "cut_bytes",
    DeadUs = "dead_us",
    Donation = "donation",
    Dropped = "dropped",
    Epoch = "epoch",
    Event = "event",
    ExeSha256 = "exe_sha",
    Exit = "exit",
    Expires = "expires",
    FenceUs = "fence_us",
    FirstTime = "first_time",
    Grant = "grant",
    Held = "held",
    Holder = "holder",
    Hops = "hops",
    LastTime = "last_time",
    Lease = "lease",
    Limit = "limit",
    MappingsClosed = "mappings_closed",
    Method = "method",
    Name = "name",
    Node = "node",
    Offset = "offset",
    Omitted = "omitted",
    Ops = "ops",
    Outcome = "outcome",
    Owner = "owner",
    Parent = "parent",
    ParentGrant = "parent_grant",
    Peer = "peer",
    PeerNet = "peer_net",
    PeerPid = "peer_pid",
    PeerUid = "peer_uid",
    Policy = "policy",
    Prev = "prev",
    Provider = "provider",
    Quota = "quota",
    RaftIndex = "raft_index",
    Range = "range",
    Reaction = "reaction",
    Reason = "reason",
    Receipt = "receipt",
    Receiver = "receiver",
    Recovered = "recovered",
    Region = "region",
    Request = "request",
    RevocationId = "revocation_id",
    Rights = "rights",
    Root = "root",
    SegmentBytes = "segment_bytes",
    Seq = "seq",
    Signal = "signal",
    Signature = "signature",
    StepUs = "step_us",
    Subject = "subject",
    SubjectName = "subject_name",
    Suppressed = "suppressed",
    Tier = "tier",
    Time = "time",
    TokenHmac = "token_hmac",
    TtlUs = "ttl_us",
    Used = "used",
    V = "v",
    Vkey = "vkey",
    WipedBytes = "wiped_bytes",
}

/// What happened, to whom, how it ended: everything of an entry but its place, time and node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Draft {
    event: Event,
    outcome: Outcome,
    code: Option<Code>,
    /// Sorted by key, each key once, each value canonical JSON.
    fields: Vec<(Key, String)>,
}

/// Defines setters that share a type and a rendering.
macro_rules! setters {
    ($render:ident($type:ty): $($(#[$doc:meta])* $name:ident => $key:ident,)*) => {
        $($(#[$doc])*
        pub fn $name(self, value: $type) -> Self {
            let json = $render(value);
            self.set(Key::$key, json)
        })*
    };
}

impl Draft {
    /// It was done.
    pub const fn ok(event: Event) -> Self {
        Self { event, outcome: Outcome::Ok, code: None, fields: Vec::new() }
    }

    /// It was refused with `code`.
    pub const fn deny(event: Event, code: Code) -> Self {
        Self { event, outcome: Outcome::Deny, code: Some(code), fields: Vec::new() }
    }

    /// It failed with `code`.
    pub const fn error(event: Event, code: Code) -> Self {
        Self { event, outcome: Outcome::Error, code: Some(code), fields: Vec::new() }
    }

    /// What it records.
    #[must_use]
    pub const fn event(&self) -> Event {
        self.event
    }

    /// How it ended.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The code, if it did not end well.
    #[must_use]
    pub const fn code(&self) -> Option<Code> {
        self.code
    }

    /// The JSON of a field that was set.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&str> {
        self.fields.iter().find(|(k, _)| *k == key).map(|(_, json)| &json[..])
    }

    /// Sets a field if there is a value for it: `draft.maybe(lease, Draft::lease)`.
    pub fn maybe<T>(self, value: Option<T>, set: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => set(self, value),
            None => self,
        }
    }

    fn set(mut self, key: Key, json: String) -> Self {
        match self.fields.binary_search_by_key(&key, |(k, _)| *k) {
            Ok(at) => self.fields[at].1 = json,
            Err(at) => self.fields.insert(at, (key, json)),
        }
        self
    }

    setters! { hex_of(PrincipalKey):
        /// Who asked, or whom it concerns.
        subject => Subject,
        /// Who a token or right is bound to.
        holder => Holder,
        /// Who owns the lease.
        owner => Owner,
        /// Who receives a share.
        receiver => Receiver,
        /// Who has to sign a share besides its owner and its receiver.
        cosigner => Cosigner,
    }
    setters! { hex_of(LeaseId):
        /// The lease.
        lease => Lease,
        /// The lease it was derived from.
        parent => Parent,
    }
    setters! { hex_of(GrantId):
        /// The share.
        grant => Grant,
        /// The share it was derived from.
        parent_grant => ParentGrant,
    }
    setters! { hex_of(RegionId):
        /// The memory.
        region => Region,
    }
    setters! { hex_of(ClusterEpoch):
        /// The life of the control plane.
        cluster => Cluster,
    }
    setters! { hex_of(ProviderId):
        /// The life of the provider.
        provider => Provider,
    }
    setters! { hex_of(DonationId):
        /// The donation of quota.
        donation => Donation,
    }
    setters! { hex_of(ReceiptId):
        /// The receipt of a revocation.
        receipt => Receipt,
    }
    setters! { bytes_of(&[u8; 32]):
        /// SHA-256 of the peer's executable file.
        exe_sha256 => ExeSha256,
        /// SHA-256 of the policy in force.
        policy => Policy,
        /// SHA-256 of the configuration in force.
        config => Config,
        /// The public half of a root key, which mints tokens.
        root => Root,
    }
    setters! { bytes_of(&[u8; 64]):
        /// The id of what was revoked of a token.
        revocation_id => RevocationId,
    }
    setters! { counter(u64):
        /// Bytes leased, shared, moved or asked for.
        bytes => Bytes,
        /// Bytes wiped before the memory was given back.
        wiped_bytes => WipedBytes,
        /// The size of a segment in bytes.
        segment_bytes => SegmentBytes,
        /// Epoch of a lease or slot.
        epoch => Epoch,
        /// From the request to the fence, in microseconds.
        fence_us => FenceUs,
        /// From the request until the last mapping was dead, in microseconds.
        dead_us => DeadUs,
        /// How many mappings were closed.
        mappings_closed => MappingsClosed,
        /// How many of what the event names.
        count => Count,
        /// How many operations a session made.
        ops => Ops,
        /// Entries of this kind that the rate limit left out since the last one.
        suppressed => Suppressed,
        /// A bound that was met.
        limit => Limit,
        /// What was used of it before.
        used => Used,
        /// The client's number for its request.
        request => Request,
        /// The index of the ordered command.
        raft_index => RaftIndex,
        /// Entries that recovery found after the checkpoint.
        recovered => Recovered,
        /// Bytes that recovery cut because nobody had been told of them.
        cut_bytes => CutBytes,
        /// From the end of a right to the use that broke a rule, in microseconds.
        after_us => AfterUs,
        /// The first byte that was asked for, counted from the region's start.
        offset => Offset,
        /// Entries that waited in memory for a device.
        held => Held,
        /// Entries that found no room to wait.
        dropped => Dropped,
    }
    setters! { small(u32):
        /// User id of the local peer.
        peer_uid => PeerUid,
        /// Process id of the local peer, for people: the kernel's answer, never an identity.
        peer_pid => PeerPid,
        /// Delegations made, or still allowed.
        hops => Hops,
        /// The signal that ended a holder.
        signal => Signal,
        /// The status with which a holder ended by itself.
        exit => Exit,
    }
    setters! { time_of(UnixMicros):
        /// The first time of several.
        first_time => FirstTime,
        /// The last time of several.
        last_time => LastTime,
        /// When a right ends.
        expires => Expires,
    }
    setters! { name_of(&str):
        /// A name that somebody chose: at most [`NAME_BYTES_MAX`] bytes, made harmless.
        name => Name,
        /// The subject's name, as [`Self::name`].
        subject_name => SubjectName,
        /// The remote peer's identity or address, as [`Self::name`] with [`REASON_BYTES_MAX`].
        peer => Peer,
    }
    setters! { word(&'static str):
        /// How mappings were closed.
        method => Method,
        /// Why it came to this, in a word of ours.
        cause => Cause,
        /// How strongly descriptors bind: `sealed`, `sandboxed` or `open`.
        tier => Tier,
        /// Which quota.
        quota => Quota,
        /// Which check of the token failed.
        check => Check,
        /// What policy did about a violation: `log`, `fault`, `kill` or `revoke`.
        reaction => Reaction,
        /// The class of memory.
        class => Class,
    }

    /// Why, in the words of whoever asked: at most [`REASON_BYTES_MAX`] bytes, made harmless.
    pub fn reason(self, reason: &str) -> Self {
        let json = quoted(reason, REASON_BYTES_MAX);
        self.set(Key::Reason, json)
    }

    /// What a right allows, as in `rw`.
    pub fn rights(self, rights: Rights) -> Self {
        self.set(Key::Rights, format!("\"{rights}\""))
    }

    /// The operation that was asked for, as in `w`, where it is not what the right allows.
    pub fn asked(self, rights: Rights) -> Self {
        self.set(Key::Asked, format!("\"{rights}\""))
    }

    /// Which bytes: `["start","end"]`, half open.
    pub fn range(self, range: ByteRange) -> Self {
        self.set(Key::Range, format!("[\"{}\",\"{}\"]", range.start(), range.end()))
    }

    /// For how long.
    pub fn ttl_us(self, ttl: Micros) -> Self {
        self.set(Key::TtlUs, counter(ttl.0))
    }

    /// By how much the wall clock stepped, in microseconds.
    pub fn step_us(self, step: i64) -> Self {
        self.set(Key::StepUs, format!("\"{step}\""))
    }

    /// Which token, without the token.
    pub fn token_hmac(self, token: TokenHmac) -> Self {
        self.set(Key::TokenHmac, bytes_of(token.as_bytes()))
    }

    /// A signature over a contract or receipt.
    pub fn signature(self, signature: &Signature) -> Self {
        self.set(Key::Signature, bytes_of(&signature.0))
    }

    /// Every id by which a token that was shown can be revoked, one after the other, 128 digits each: the authority
    /// block's first, and of a block that is a delegation its own before the delegation's. Past
    /// [`REVOCATION_IDS_MAX`], more than any token has, they are left out.
    pub fn revocation_ids<'a>(self, ids: impl Iterator<Item = &'a [u8; 64]>) -> Self {
        let ids: Vec<u8> = ids.take(REVOCATION_IDS_MAX).flatten().copied().collect();
        if ids.is_empty() { self } else { self.set(Key::RevocationId, bytes_of(&ids)) }
    }

    /// The log's next key.
    pub fn vkey(self, vkey: &Vkey) -> Self {
        self.set(Key::Vkey, quoted(&vkey.to_string(), Vkey::TEXT_BYTES_MAX))
    }

    /// The holders from the first to the last. Past [`CHAIN_KEYS_MAX`] the number left out stands in `omitted`.
    pub fn chain(self, holders: &[PrincipalKey]) -> Self {
        let mut json = String::from("[");
        for (i, key) in holders.iter().take(CHAIN_KEYS_MAX).enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let _ = write!(json, "{comma}\"{key}\""); // writing to a String cannot fail
        }
        json.push(']');
        let draft = self.set(Key::Chain, json);
        match holders.len().saturating_sub(CHAIN_KEYS_MAX) {
            0 => draft,
            more => draft.set(Key::Omitted, counter(more as u64)),
        }
    }

    /// The peers' network, the first 24 bits of their IPv4 address.
    pub fn peer_net4(self, [a, b, c]: [u8; 3]) -> Self {
        self.set(Key::PeerNet, format!("\"{a}.{b}.{c}.0/24\""))
    }

    /// The peers' network, the first 56 bits of their IPv6 address.
    pub fn peer_net6(self, net: [u8; 7]) -> Self {
        let mut address = [0; 16];
        address[..7].copy_from_slice(&net);
        self.set(Key::PeerNet, format!("\"{}/56\"", std::net::Ipv6Addr::from(address)))
    }

    /// Appends the entry to `out`: canonical JSON without a newline. Pure: the same arguments give the same bytes.
    pub fn encode(&self, out: &mut Vec<u8>, seq: u64, prev: Hash, time: UnixMicros, node: &Origin) {
        let mut when = String::with_capacity(29);
        when.push('"');
        push_time(&mut when, time);
        when.push('"');
        let code = self.code.map_or("OK", Code::text);
        // In the order of `Key`, as the merge below needs them.
        let required = [
            (Key::Code, format!("\"{code}\"")),
            (Key::Event, format!("\"{}\"", self.event.name())),
            (Key::Node, format!("\"{node}\"")),
            (Key::Outcome, format!("\"{}\"", self.outcome.name())),
            (Key::Prev, format!("\"{prev}\"")),
            (Key::Seq, counter(seq)),
            (Key::Time, when),
            (Key::V, String::from("1")),
        ];
        let (mut ours, mut theirs) = (required.iter().peekable(), self.fields.iter().peekable());
        let mut before = b'{';
        while let Some((key, json)) = match (ours.peek(), theirs.peek()) {
            (Some(a), Some(b)) if b.0 < a.0 => theirs.next(),
            (None, _) => theirs.next(),
            (Some(_), _) => ours.next(),
        } {
            out.extend_from_slice(&[before, b'"']);
            out.extend_from_slice(key.name().as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(json.as_bytes());
            before = b',';
        }
        out.push(b'}');
    }
}

fn hex_of(id: impl std::fmt::Display) -> String {
    format!("\"{id}\"")
}

fn bytes_of(bytes: &[u8]) -> String {
    format!("\"{}\"", data_encoding::HEXLOWER.encode(bytes))
}

/// 64-bit numbers are strings: JSON's readers keep 53 bits.
fn counter(n: u64) -> String {
    format!("\"{n}\"")
}

fn small(n: u32) -> String {
    n.to_string()
}

fn time_of(time: UnixMicros) -> String {
    let mut out = String::from("\"");
    push_time(&mut out, time);
    out.push('"');
    out
}

fn quoted(text: &str, max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(max) + 2);
    push_quoted(&mut out, text, max);
    out
}

fn name_of(text: &str) -> String {
    quoted(text, NAME_BYTES_MAX)
}

fn word(text: &'static str) -> String {
    quoted(text, WORD_BYTES_MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::Entry;

    fn origin() -> Origin {
        Origin::parse(&"o".repeat(Origin::BYTES_MAX)).unwrap()
    }

    /// Every field, each in its longest form.
    fn fullest() -> Draft {
        let control = "\u{1}".repeat(1_000);
        let word = "a word that is longer than any word that stands in the source of this system, by far";
        let key = PrincipalKey([0xff; 32]);
        let vkey = crate::key::LogKey::from_seed(&[1; 32]).vkey(&origin());
        Draft::deny(Event::RegionQuarantine, Code::AuditUnavailable)
            .subject(key)
            .holder(key)
            .owner(key)
            .receiver(key)
            .cosigner(key)
            .lease(LeaseId([255; 16]))
            .parent(LeaseId([255; 16]))
            .grant(GrantId([255; 16]))
            .parent_grant(GrantId([255; 16]))
            .region(RegionId([255; 16]))
            .cluster(ClusterEpoch([255; 16]))
            .provider(ProviderId([255; 16]))
            .receipt(ReceiptId([255; 16]))
            .exe_sha256(&[255; 32])
            .policy(&[255; 32])
            .config(&[255; 32])
            .revocation_ids([[255; 64]; 1_000].iter())
            .root(&[255; 32])
            .bytes(u64::MAX)
            .wiped_bytes(u64::MAX)
            .segment_bytes(u64::MAX)
            .epoch(u64::MAX)
            .fence_us(u64::MAX)
            .dead_us(u64::MAX)
            .mappings_closed(u64::MAX)
            .count(u64::MAX)
            .ops(u64::MAX)
            .suppressed(u64::MAX)
            .limit(u64::MAX)
            .used(u64::MAX)
            .request(u64::MAX)
            .raft_index(u64::MAX)
            .recovered(u64::MAX)
            .cut_bytes(u64::MAX)
            .held(u64::MAX)
            .dropped(u64::MAX)
            .donation(DonationId([255; 16]))
            .peer_uid(u32::MAX)
            .peer_pid(u32::MAX)
            .hops(u32::MAX)
            .signal(u32::MAX)
            .exit(u32::MAX)
            .after_us(u64::MAX)
            .offset(u64::MAX)
            .first_time(UnixMicros::MAX)
            .last_time(UnixMicros::MAX)
            .expires(UnixMicros::MAX)
            .name(&control)
            .subject_name(&control)
            .peer(&control)
            .method(word)
            .cause(word)
            .tier(word)
            .quota(word)
            .check(word)
            .reaction(word)
            .class(word)
            .reason(&control)
            .rights(Rights::ALL)
            .asked(Rights::ALL)
            .range(ByteRange::new(u64::MAX >> 2, i64::MAX as u64).unwrap())
            .ttl_us(Micros(u64::MAX))
            .step_us(i64::MIN)
            .token_hmac(crate::salt::Salt::new(&[0; 32]).token(b""))
            .signature(&Signature([255; 64]))
            .vkey(&vkey)
            .chain(&[key; 1_000])
            .peer_net6([255; 7])
    }

    #[test]
    fn keys_are_in_order_and_of_the_allowed_form() {
        for pair in Key::ALL.windows(2) {
            assert!(pair[0].name() < pair[1].name(), "{pair:?}");
        }
        for key in Key::ALL {
            assert!(key.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{key:?}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "derives a key: half a minute there")]
    fn the_fullest_entry_fits() {
        let draft = fullest();
        assert_eq!(draft.fields.len() + 8, Key::ALL.len(), "the test fills every field");
        let mut bytes = Vec::new();
        draft.encode(&mut bytes, u64::MAX, Hash::ZERO, UnixMicros::MAX, &origin());
        assert!(bytes.len() < ENTRY_BYTES_MAX / 4, "{}", bytes.len());
        Entry::parse(&bytes).unwrap();
    }

    #[test]
    fn a_field_set_twice_has_the_last_value() {
        let draft = Draft::ok(Event::LeaseOpen).count(1).bytes(5).count(2);
        assert_eq!(draft.get(Key::Count), Some("\"2\""));
        assert_eq!(draft.fields.len(), 2);
    }

    /// Any text of at most so many characters.
    fn text(most: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(any::<char>(), 0..=most).prop_map(String::from_iter)
    }

    /// A draft with fields of every kind, hostile text included.
    pub(crate) fn any_draft() -> impl Strategy<Value = Draft> {
        (
            prop::sample::select(Event::ALL),
            prop::option::of(prop::sample::select(Code::ALL)),
            prop::option::of(any::<[u8; 16]>()),
            prop::option::of(text(80)),
            prop::option::of(text(300)),
            prop::option::of(any::<u64>()),
            prop::option::of(any::<u32>()),
            prop::collection::vec(any::<[u8; 32]>(), 0..12),
        )
            .prop_map(|(event, code, lease, name, reason, count, uid, chain)| {
                let chain: Vec<_> = chain.into_iter().map(PrincipalKey).collect();
                code.map_or(Draft::ok(event), |code| Draft::deny(event, code))
                    .maybe(lease.map(LeaseId), Draft::lease)
                    .maybe(name.as_deref(), Draft::name)
                    .maybe(reason.as_deref(), Draft::reason)
                    .maybe(count, Draft::count)
                    .maybe(uid, Draft::peer_uid)
                    .maybe(Some(&chain[..]).filter(|c| !c.is_empty()), Draft::chain)
            })
    }

    proptest! {
        #[test]
        fn every_draft_is_canonical(draft in any_draft(), seq in any::<u64>(), time in any::<u64>()) {
            let mut bytes = Vec::new();
            draft.encode(&mut bytes, seq, Hash([7; 32]), UnixMicros(time), &origin());
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(serde_json::to_vec(&value).unwrap(), bytes.clone());
            prop_assert!(bytes.is_ascii());
            let entry = Entry::parse(&bytes).unwrap();
            prop_assert_eq!(entry.seq(), seq);
            prop_assert_eq!(entry.event(), draft.event());
        }
    }
}
