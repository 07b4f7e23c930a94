//! The messages of both directions, closed: what is not here is refused.

use serde::{Deserialize, Serialize};

use super::{Fact, Message, Refusal};
use crate::error::{Code, Error, Result};
use crate::id::{ClusterEpoch, LeaseId, PrincipalKey};
use crate::limits::{LINK_NOTICES_PER_FRAME_MAX, TOKEN_BLOCKS_MAX};
use crate::time::{Micros, UnixMicros};
use crate::token::Cut;
use crate::wire::link::{ClaimTicket, Notice, Take, Taken};
use crate::wire::provider::Registration;
use crate::wire::row::{EndCause, MemoryRow, Tier};
use crate::wire::{Reason, Reply};

/// The first message of a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// [`PROTOCOL`](super::PROTOCOL).
    pub protocol: u32,
    /// Who it is, and what it has. The same through its life.
    pub registration: Registration,
    /// The life of the control plane whose leases it has; `None` while it has joined none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterEpoch>,
}

/// What the broker answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// [`PROTOCOL`](super::PROTOCOL).
    pub protocol: u32,
    /// This life of the control plane. Memory of another is nobody's any more.
    pub cluster: ClusterEpoch,
    /// The administrator.
    pub admin: PrincipalKey,
}

/// How a provider is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pulse {
    /// Bytes of memory committed to regions, the ones being taken back included.
    pub committed_bytes: u64,
    /// Open sessions.
    pub sessions: u32,
    /// How strongly mappings of other uids are held.
    pub tier: Tier,
    /// Entries in its log.
    pub entries: u64,
}

/// What a broker asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum BrokerAsks {
    /// Turn a ticket into memory. Answered with [`ProviderSays::Claimed`], and once more with [`ToBroker::Recorded`].
    Claim {
        /// The ticket. Refused after its `claim_by`.
        ticket: ClaimTicket,
    },
    /// Make a lease's deadline `ttl` from now.
    Renew {
        /// Which.
        lease: LeaseId,
        /// From the moment when it is carried out.
        ttl: Micros,
        /// Refused with `E_TIMEOUT` after this: what is renewed late would live longer than the broker has told others.
        by: UnixMicros,
    },
    /// Take rights back.
    Take {
        /// What.
        take: Take,
        /// Why.
        cause: EndCause,
    },
    /// What of a lease's memory is there?
    Memory {
        /// Which.
        lease: LeaseId,
    },
    /// How is it?
    Status,
    /// Know this from now on.
    Fact(Fact),
}

/// What a provider answers, one a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ProviderSays {
    /// The memory is committed. Its record follows.
    Claimed {
        /// Bytes: those of the ticket.
        bytes: u64,
    },
    /// To a renewal and to a fact.
    Done,
    /// To a take.
    Taken(Taken),
    /// To a question about memory; `None`: there is none.
    Memory(Option<MemoryRow>),
    /// To a question how it is.
    Status(Pulse),
}

/// What a provider asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ProviderAsks {
    /// Know what happened here, in this order.
    Notices {
        /// The place of the first among all that happened in this life of the provider, counted from 0. A broker that has
        /// noted some of them leaves those out; one that finds a gap asks what of its leases is there.
        first: u64,
        /// At least one, at most [`LINK_NOTICES_PER_FRAME_MAX`].
        notices: Vec<Notice>,
    },
    /// Take back what a principal holds here: the operator's reaction to a fault of its.
    RevokeHolder {
        /// Whose.
        holder: PrincipalKey,
    },
    /// Take back one block of a token that somebody showed here.
    RevokeToken {
        /// Who showed it, and proved to be who it says.
        holder: PrincipalKey,
        /// The block.
        cut: Box<Cut>,
        /// Why.
        reason: Reason,
    },
}

/// What a broker answers, one a question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum BrokerSays {
    /// To notices: these need not be told again.
    Noted {
        /// How many there were up to here, in all of this life: the place of the next.
        next: u64,
    },
    /// To a reaction to a fault.
    Done,
    /// To a revocation of a block: its receipt.
    Revoked(Box<Reply>),
}

/// From a provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ToBroker {
    /// Who comes. First, and never again.
    Hello(Box<Hello>),
    /// It has what it was told, and serves. Second, and never again.
    Ready,
    /// A question.
    Ask {
        /// Its number.
        number: u64,
        /// What is asked.
        ask: ProviderAsks,
    },
    /// An answer.
    Answer {
        /// The number of the question.
        number: u64,
        /// Yes, and this.
        says: ProviderSays,
    },
    /// A question was answered with no.
    Failed {
        /// The number of the question.
        number: u64,
        /// Why.
        why: Refusal,
    },
    /// The entry of a claim that was answered is durable, or cannot be and the memory is being taken back.
    Recorded {
        /// The number of the claim.
        number: u64,
        /// Why not; `None`: it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<Refusal>,
    },
    /// The last message.
    Bye(Refusal),
    /// The last message of a provider that stops: everything that it had is taken back and wiped, it makes nothing of any
    /// ticket any more, and its process ends. Answered with the end of the link.
    Gone,
}

/// From a broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum ToProvider {
    /// Who comes is let in, and told what it has to know. First, and never again.
    Welcome(Welcome),
    /// Something that it has to know before it is ready.
    Fact(Fact),
    /// That was all.
    Told,
    /// From now on leases are placed there.
    Joined {
        /// The place of the next notice: those before need not be told again.
        noted: u64,
    },
    /// A question.
    Ask {
        /// Its number.
        number: u64,
        /// What is asked.
        ask: BrokerAsks,
    },
    /// An answer.
    Answer {
        /// The number of the question.
        number: u64,
        /// Yes, and this.
        says: BrokerSays,
    },
    /// A question was answered with no.
    Failed {
        /// The number of the question.
        number: u64,
        /// Why.
        why: Refusal,
    },
    /// The last message. Before [`ToProvider::Joined`]: the provider is not let in.
    Bye(Refusal),
}

impl Message for ToBroker {
    fn check(&self) -> Result<()> {
        let wrong = |detail| Err(Error::new(Code::FrameType, detail));
        match self {
            Self::Hello(hello) => hello.registration.check(),
            Self::Ask { ask: ProviderAsks::Notices { first, notices }, .. } => {
                let count = notices.len();
                if count == 0 || count > LINK_NOTICES_PER_FRAME_MAX {
                    return wrong("no notices, or more than a message may have");
                }
                let last = first.checked_add(count as u64);
                if last.is_none() { wrong("notices have places that cannot be counted") } else { Ok(()) }
            }
            Self::Ask { ask: ProviderAsks::RevokeToken { cut, .. }, .. } => {
                let held = cut.holders.len();
                if held == 0 || held > TOKEN_BLOCKS_MAX + 1 {
                    return wrong("a token has had no holder, or more than it has blocks");
                }
                Ok(())
            }
            Self::Ask { ask: ProviderAsks::RevokeHolder { .. }, .. }
            | Self::Ready
            | Self::Answer { .. }
            | Self::Failed { .. }
            | Self::Recorded { .. }
            | Self::Bye(_)
            | Self::Gone => Ok(()),
        }
    }
}

impl Message for ToProvider {
    fn check(&self) -> Result<()> {
        match self {
            Self::Fact(fact) | Self::Ask { ask: BrokerAsks::Fact(fact), .. } => fact.check(),
            Self::Answer { says: BrokerSays::Revoked(reply), .. }
                if !matches!(**reply, Reply::Receipt(_) | Reply::Done) =>
            {
                Err(Error::new(Code::FrameType, "a revocation is answered with a receipt"))
            }
            Self::Welcome(_)
            | Self::Told
            | Self::Joined { .. }
            | Self::Ask { .. }
            | Self::Answer { .. }
            | Self::Failed { .. }
            | Self::Bye(_) => Ok(()),
        }
    }
}
