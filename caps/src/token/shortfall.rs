//! Where a token falls short of a question that nobody asks in a session: no key is proven, no node is there.
//!
//! A provider's decision is [`authorize`](super::VerifiedToken::authorize). This says beforehand, and afterwards, which
//! limit it is that refuses, and which block of the token set it.

use serde::{Deserialize, Serialize};

use super::authorize::Limit;
use super::gate::Gated;
use super::terms::Effective;
use crate::error::Result;
use crate::range::ByteRange;
use crate::rights::Rights;
use crate::time::UnixMicros;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is to be done, every part of it; [`Rights::NONE`] asks whether anything may be done at all.
    pub rights: Rights,
    /// To which bytes, every one of them; `None` asks whether any byte is reached.
    pub range: Option<ByteRange>,
    /// When.
    pub at: UnixMicros,
}

/// One limit that a token does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shortfall {
    /// Which.
    pub limit: Limit,
    /// The first block after which it is not met; 0 is the broker's grant.
    pub block: u8,
}

impl Gated<'_> {
    /// Every limit that the question falls outside of, in the order in which a provider would look; none if a provider
    /// that finds the token unrevoked would say yes to its holder. Limits on use count as met unless they allow no use.
    ///
    /// # Errors
    /// `E_TOKEN_SIG` if the chain of holders is broken.
    pub fn shortfalls(&self, question: &Question) -> Result<Vec<Shortfall>> {
        let after = self.walk()?.after;
        let first = |limit| {
            let block = after.iter().position(|left| !meets(left, limit, question))?;
            // A token has at most 8 blocks.
            Some(Shortfall { limit, block: block as u8 })
        };
        Ok(ASKED.into_iter().filter_map(first).collect())
    }
}

/// The limits that can be judged without a session, as [`super::VerifiedToken::refusal`] orders them.
const ASKED: [Limit; 8] = [
    Limit::Expires,
    Limit::NotBefore,
    Limit::Hops,
    Limit::Rights,
    Limit::Range,
    Limit::Opens,
    Limit::Rate,
    Limit::Budget,
];

fn meets(left: &Effective, limit: Limit, question: &Question) -> bool {
    match limit {
        Limit::Expires => question.at < left.expires,
        Limit::NotBefore => left.not_before <= question.at,
        Limit::Hops => left.hops <= left.max_hops,
        Limit::Rights => left.rights.contains(question.rights) && !left.rights.is_empty(),
        Limit::Range => {
            left.range.is_some_and(|range| question.range.is_none_or(|asked| range.contains(asked)))
        }
        Limit::Opens => left.opens != Some(0),
        Limit::Rate => left.bytes_per_second != Some(0),
        Limit::Budget => left.bytes_total != Some(0),
        // A session's and a provider's.
        Limit::Holder | Limit::Cluster | Limit::Lease | Limit::Region | Limit::Provider => true,
    }
}
