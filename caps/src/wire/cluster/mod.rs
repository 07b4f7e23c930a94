//! What broker and provider say to each other where a network is between them.
//!
//! ```text
//! provider                                                broker
//!   │ TLS 1.3, both with certificates, ALPN leasehold-link/1 │
//!   │ Hello { protocol, registration, cluster }            ▶ │  is this the certificate of who it says it is?
//!   │ ◀ Welcome { protocol, cluster, admin }                 │
//!   │ ◀ Fact ... Fact, Told                                  │  what a provider cannot know by itself
//!   │ Ready                                                ▶ │  registered, or there again
//!   │ ◀ Joined { noted }                                     │
//!   │ ◀ Ask 1 ...                        Answer 1 ...      ▶ │  claim, renew, take, memory, status, fact
//!   │ Ask 1 ...                        ▶ ◀ Answer 1 ...      │  notices, what a holder or a fault wants revoked
//!   │ ◀ Bye                                            Bye ▶ │  why it ends, if there is time to say it
//!   │                                                 Gone ▶ │  or: the provider stops, and has nothing any more
//! ```
//!
//! A frame is a length and one message in CBOR. Both sides number their questions from 1 on, each by itself and without
//! a gap; an answer carries the number. At most [`LINK_WINDOW_MAX`](crate::limits::LINK_WINDOW_MAX) of a side's questions
//! have no answer, and answers come in any order. Whoever breaks a rule is told with `Bye`, and the link ends.
//!
//! | file | holds |
//! |---|---|
//! | `frame.rs` | lengths, encode and decode |
//! | `message.rs` | the messages of both directions |
//! | `fact.rs` | what a broker tells its providers of keys, policy, quotas and people |
//! | `refusal.rs` | an error as it travels: its code, and a text of bounded length and plain characters |

mod fact;
mod frame;
mod message;
mod refusal;
#[cfg(test)]
mod tests;

pub use fact::{Allowance, Fact, PolicyText, Quotas, Roots};
pub use frame::{Message, PREFIX_BYTES, decode, encode, fuzz, length};
pub use message::{
    BrokerAsks, BrokerSays, Hello, ProviderAsks, ProviderSays, Pulse, ToBroker, ToProvider, Welcome,
};
pub use refusal::Refusal;

/// The version of these messages. A side that speaks another is refused with `E_FRAME_VERSION`.
pub const PROTOCOL: u32 = 1;
