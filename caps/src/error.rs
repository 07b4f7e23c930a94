//! The closed set of stable error codes.
//!
//! A code is a promise to scripts: its text and its number never change and are never used again. [`Code`] is one
//! closed enum so that every `match` from an error to what a user sees is checked by the compiler. Each code says
//! who is to blame ([`Blame`]) and what to do ([`Code::help`]).

use std::borrow::Cow;

/// Shorthand for results of this system.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Whose mistake an error is. Faults of the client count towards policy's reaction; ours never do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The request was wrong: fix it before sending it again.
    Client,
    /// The request was right and the answer is no.
    Refused,
    /// The other side cannot be reached or cannot answer now.
    Unreachable,
    /// Files do not say what they must: someone changed them, or the disk did.
    Tampering,
    /// The operator's files or the machine.
    Operator,
    /// A defect or a failed machine on our side.
    Ours,
}

impl Blame {
    /// The exit code of the command line for this blame: 1 failed, 2 usage, 3 refused, 4 unreachable, 5 tampering.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Client | Self::Operator | Self::Ours => 1,
            Self::Refused => 3,
            Self::Unreachable => 4,
            Self::Tampering => 5,
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $blame:ident, $help:literal;)*) => {
        /// Every error this system can report. Numbers are the wire form, texts the form people and logs see.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        impl Code {
            /// Every code, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable text, as in `E_QUOTA`.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What the reader can do about it.
            #[must_use]
            pub const fn help(self) -> &'static str {
                match self { $(Self::$name => $help,)* }
            }

            /// Whose mistake it is.
            #[must_use]
            pub const fn blame(self) -> Blame {
                match self { $(Self::$name => Blame::$blame,)* }
            }

            /// The code with this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    // 1xx: the token's bytes
    /// The bytes are not a token.
    TokenMalformed = 100, "E_TOKEN_MALFORMED", Client, "check that the file is a token and was copied whole";
    /// Larger than 8 KiB, or more than 8 blocks.
    TokenTooBig = 101, "E_TOKEN_TOO_BIG", Client, "a token has at most 8 KiB and 8 blocks; delegate or narrow fewer times";
    /// The same token has another, canonical encoding; only that one is accepted.
    TokenNoncanonical = 102, "E_TOKEN_NONCANONICAL", Client, "present the bytes exactly as they were issued";
    /// A block schema version outside 3 to 5.
    TokenVersion = 103, "E_TOKEN_VERSION", Client, "make the token with the version of this release";
    /// Datalog outside the vocabulary of leases.
    TokenProfile = 104, "E_TOKEN_PROFILE", Client, "a block may hold only the lease vocabulary; narrow with `leasehold token attenuate`";
    /// A key or signature that is not Ed25519.
    TokenAlgorithm = 105, "E_TOKEN_ALG", Client, "tokens are signed with Ed25519 only";
    /// A signature does not verify.
    TokenSignature = 106, "E_TOKEN_SIG", Client, "the token was changed, or was issued by somebody else; ask for it again";
    /// The root key id names no key that this node trusts.
    TokenUnknownKey = 107, "E_TOKEN_UNKNOWN_KEY", Client, "the token is of another cluster or of a retired key";
    // 2xx: what the token says
    /// The token's time is over.
    TokenExpired = 200, "E_TOKEN_EXPIRED", Refused, "ask the owner or the broker for a new token";
    /// The token's time has not begun.
    TokenNotYet = 201, "E_TOKEN_NOT_YET", Refused, "wait until the token becomes valid";
    /// The token does not allow this.
    Denied = 202, "E_DENIED", Refused, "`leasehold token inspect` shows what the token allows";
    /// The token is bound to another key than the session proved.
    TokenBound = 203, "E_TOKEN_BOUND", Refused, "use the identity that the token names as its holder";
    /// The token, or one it descends from, was revoked.
    TokenRevoked = 204, "E_TOKEN_REVOKED", Refused, "the right was taken back; ask the owner for another";
    /// The token is of an earlier life of the control plane or of the provider.
    Epoch = 205, "E_EPOCH", Refused, "the node restarted and its memory is gone; create the lease again";
    /// Judging the token took more than its bound. Neither a yes nor a policy's no.
    TokenLimit = 206, "E_TOKEN_LIMIT", Ours, "the machine is overloaded; try again";
    /// Proof of possession failed.
    Possession = 207, "E_POSSESSION", Client, "sign the challenge of this session with the key you named";
    // 3xx: frames and sessions
    /// The frame's length is not what it says, or is over the bound.
    FrameSize = 300, "E_FRAME_SIZE", Client, "a frame is at most 128 KiB and exactly as long as its header says";
    /// The frame ends before its header does.
    FrameTruncated = 301, "E_FRAME_TRUNCATED", Client, "send whole frames";
    /// An unknown type, a reserved flag, or a body that is not its type's.
    FrameType = 302, "E_FRAME_TYPE", Client, "speak the protocol of `caps::wire`";
    /// A protocol version that this node does not speak.
    FrameVersion = 303, "E_FRAME_VERSION", Client, "use a client of the same release";
    /// The request id was used for another request of this session.
    FrameDuplicate = 304, "E_FRAME_DUP", Client, "number requests uniquely in a session";
    /// The message is known but not allowed now.
    Protocol = 305, "E_PROTOCOL", Client, "say hello, prove possession, then ask";
    /// The peer took too long.
    Timeout = 306, "E_TIMEOUT", Unreachable, "the other side did not answer in time";
    /// The user id is not on the allow-list.
    PeerUid = 307, "E_PEER_UID", Refused, "add the user id to `allow_uids` in the node's configuration";
    /// A received descriptor is not what it must be.
    DescriptorType = 308, "E_FD_TYPE", Client, "the peer sent a descriptor that is not a lease's memory";
    /// The node cannot be reached.
    Unreachable = 309, "E_UNREACHABLE", Unreachable, "start a node with `leasehold up`, or name its directory with --dir";
    /// The request was sent and its outcome is not known.
    Uncertain = 310, "E_UNCERTAIN", Unreachable, "list your leases to see whether it took effect";
    /// The certificate at the other end names nobody, or somebody else.
    PeerIdentity = 311, "E_PEER_IDENTITY", Refused, "check address and port, of which a broker has one for clients and one for providers; use a certificate of this trust domain that names who you are: `leasehold pki issue` makes one";
    // 4xx: the control plane
    /// A number outside its bounds.
    Range = 400, "E_RANGE", Client, "see the bounds in the message";
    /// A quota would be exceeded.
    Quota = 401, "E_QUOTA", Refused, "release something, have somebody lend you quota, or ask the operator for more";
    /// The pool has no room.
    NoMemory = 402, "E_NOMEM", Refused, "ask for less, or wait until a lease ends";
    /// A queue or table is full, or a rate is exceeded.
    Busy = 403, "E_BUSY", Unreachable, "try again in a moment";
    /// No such lease, as far as this principal may know.
    LeaseUnknown = 404, "E_LEASE_UNKNOWN", Client, "`leasehold lease list` shows your leases";
    /// The lease's time is over.
    LeaseExpired = 405, "E_LEASE_EXPIRED", Refused, "create a new lease; renew earlier next time";
    /// No such grant, as far as this principal may know.
    GrantUnknown = 406, "E_GRANT_UNKNOWN", Client, "`leasehold share list` shows the grants that concern you";
    /// A step of `MEM_SHARE` out of its order.
    ShareOrder = 407, "E_SHARE_ORDER", Client, "offer, issue, accept, open, end: in this order only";
    /// No such principal.
    PrincipalUnknown = 408, "E_PRINCIPAL_UNKNOWN", Client, "`leasehold id list` shows the principals this node knows";
    /// The name, key or id is taken.
    Exists = 409, "E_EXISTS", Client, "choose another name or id";
    /// The policy says no.
    PolicyDenied = 410, "E_POLICY_DENIED", Refused, "`leasehold policy check` shows the rules; ask the operator";
    /// Only the administrator may.
    NotAdmin = 411, "E_NOT_ADMIN", Refused, "use the identity `admin`";
    /// A signature over a contract does not verify.
    ContractSignature = 412, "E_CONTRACT_SIG", Client, "sign the contract exactly as it was offered";
    /// A name stands for another key than the one that was trusted.
    KeyChanged = 413, "E_KEY_CHANGED", Refused, "ask its owner; then `leasehold id forget NAME` and `leasehold id trust NAME KEY`";
    /// No such donation of quota, as far as this principal may know.
    DonationUnknown = 416, "E_DONATION_UNKNOWN", Client, "`leasehold quota list` shows what you gave and were given";
    // 5xx: memory
    /// The right was taken back while in use.
    Revoked = 500, "E_REVOKED", Refused, "the lease ended; its bytes are gone";
    /// The right cannot be enforced by a mapping; use mediated reads and writes.
    MediatedOnly = 501, "E_MEDIATED_ONLY", Refused, "use read and write calls: this right cannot be mapped";
    /// The provider's process is gone, and with it the memory.
    ProviderLost = 502, "E_PROVIDER_LOST", Unreachable, "the memory is lost; create the lease again";
    /// A chunk's checksum does not match its bytes.
    Checksum = 503, "E_CHECKSUM", Client, "send the chunk again";
    /// A system call that must not fail did.
    System = 504, "E_SYSTEM", Ours, "`leasehold doctor` shows what this machine lacks";
    /// Sealed bytes do not authenticate: somebody without the key changed them, or the key is another one.
    Seal = 505, "E_SEAL", Tampering, "somebody without the key changed these bytes, or the key is not theirs; nothing of them was given out";
    /// This is asked of another node: of the broker, or of the provider that has the lease.
    WrongNode = 506, "E_WRONG_NODE", Refused, "ask the node that the message names: the broker for rights, the lease's provider for its memory";
    // 6xx: files of the operator
    /// A file cannot be read or written.
    ConfigIo = 600, "E_CONFIG_IO", Operator, "check the path and its permissions";
    /// A file does not parse, or has an unknown or repeated key.
    ConfigSyntax = 601, "E_CONFIG_SYNTAX", Operator, "fix the line that the message names";
    /// A value is outside its bounds.
    ConfigValue = 602, "E_CONFIG_VALUE", Operator, "fix the value that the message names";
    /// A file, directory or socket has the wrong owner, mode or kind.
    ConfigPerms = 603, "E_CONFIG_PERMS", Operator, "keys are files of mode 0600 of the node's user; sockets are no links";
    /// The policy does not parse.
    PolicySyntax = 604, "E_POLICY_SYNTAX", Operator, "fix the line that the message names";
    /// The policy parses and is almost certainly wrong.
    PolicyLint = 605, "E_POLICY_LINT", Operator, "fix the rule, or state that you mean it with `allow_all = true`";
    /// Another node uses this directory.
    Locked = 606, "E_LOCKED", Operator, "one node uses a directory at a time; stop the other one";
    /// Certificates, a key, roots or a revocation list cannot be used.
    ConfigTls = 607, "E_CONFIG_TLS", Operator, "replace the file that the message names; what was loaded before stays in use";
    // 7xx: audit
    /// No device can record, so nothing was changed.
    AuditUnavailable = 700, "E_AUDIT_UNAVAILABLE", Ours, "make room on the audit device; revokes still work";
    /// An entry is not canonical, out of sequence, or not chained to the one before.
    AuditEntry = 701, "E_AUDIT_ENTRY", Tampering, "restore the log from a copy and compare";
    /// A tile does not hash to what the tree says.
    TileMismatch = 702, "E_TILE_MISMATCH", Tampering, "restore the log from a copy and compare";
    /// The tree's root is not the checkpoint's.
    RootMismatch = 703, "E_ROOT", Tampering, "restore the log from a copy and compare";
    /// The checkpoint's text is not a checkpoint of this log.
    CheckpointBody = 704, "E_CP_BODY", Tampering, "use the checkpoint of this log";
    /// No signature of the given key verifies.
    CheckpointUnsigned = 705, "E_CP_UNSIGNED", Tampering, "check that the vkey is this log's";
    /// The log is shorter than a checkpoint that was signed.
    AuditRollback = 706, "E_AUDIT_ROLLBACK", Tampering, "the log was cut back; restore it from a copy";
    /// Two signed histories disagree.
    Fork = 707, "E_FORK", Tampering, "keep both copies: they prove that the log's key signed two histories";
    /// A proof does not lead from the entry to the checkpoint.
    ProofMismatch = 708, "E_PROOF", Tampering, "make the proof again from the log";
    /// A file of the log is missing or has the wrong length.
    AuditFile = 709, "E_AUDIT_FILE", Tampering, "restore the file that the message names";
    // 9xx
    /// A defect: an invariant did not hold.
    Internal = 900, "E_INTERNAL", Ours, "this is a defect in Leasehold; please report it";
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.text())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(*self as u16)
    }
}

impl<'de> serde::Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u16::deserialize(deserializer)?;
        Self::from_number(number).ok_or_else(|| serde::de::Error::custom("no such error code"))
    }
}

/// A code and what happened.
///
/// The detail never holds text or bytes that a peer chose, and no secret: it is a literal of this source, or a
/// literal with numbers, ids and file positions filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{code}: {detail}")]
pub struct Error {
    code: Code,
    detail: Cow<'static, str>,
}

impl Error {
    /// A code with a literal detail.
    #[must_use]
    pub const fn new(code: Code, detail: &'static str) -> Self {
        Self { code, detail: Cow::Borrowed(detail) }
    }

    /// A code with a detail that has numbers, ids or file positions filled in. Never pass a peer's text.
    #[must_use]
    pub fn with(code: Code, detail: String) -> Self {
        Self { code, detail: Cow::Owned(detail) }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// What happened, for people.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl From<Code> for Error {
    fn from(code: Code) -> Self {
        Self::new(code, code.help())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_and_texts_are_unique_and_round_trip() {
        let mut texts = BTreeSet::new();
        let mut last = 0;
        for &code in Code::ALL {
            assert!(code as u16 > last, "{code}: numbers ascend, so none is used twice");
            last = code as u16;
            assert!(texts.insert(code.text()), "{code}");
            assert!(code.text().starts_with("E_") && !code.help().is_empty());
            assert_eq!(Code::from_number(code as u16), Some(code));
        }
        assert_eq!(Code::from_number(0), None);
    }
}
