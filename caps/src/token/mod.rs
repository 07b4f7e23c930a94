//! The capability: a biscuit token that a broker mints, a holder narrows, and a provider judges.
//!
//! # Data flow
//!
//! ```text
//!             Terms                    Narrow                 Request + Proven
//!               │                        │                          │
//! RootKey ──▶ mint ──▶ Token ──▶ attenuate, delegate, seal          │
//!                        │                                          ▼
//!                      gate ──▶ Gated ──verify(RootKeys)──▶ VerifiedToken ──authorize──▶ Authorized
//! ```
//! Only the broker has a root key. Narrowing, delegating and sealing are offline and need no key of the cluster. A
//! provider gates and verifies a token once per session and then judges each request natively.
//!
//! # What keeps a later block from widening an earlier one
//!
//! Rights, range, times and hops are *checks*, and all checks of all blocks must hold, so blocks can only narrow. The
//! gate lets through nothing but such checks, and one fact, `delegate`, in blocks that the holder has signed.
//!
//! # Files
//!
//! | file | idea |
//! |---|---|
//! | `bytes.rs` | [`Token`]: bytes, text, CBOR, HMAC |
//! | `keys.rs` | [`RootKey`] mints, [`RootKeys`] are believed |
//! | `terms.rs` | [`Terms`], [`Narrow`], [`Effective`]: what a token says, as values |
//! | `vocabulary.rs` | values to Datalog: every fact and check there is |
//! | `reader.rs`, `container.rs`, `block.rs`, `symbols.rs` | bytes to trees, bounded and canonical |
//! | `profile.rs` | Datalog to values, or a refusal |
//! | `weak.rs` | keys of small order |
//! | `gate.rs` | [`gate()`]: all of the above in order |
//! | `chain.rs` | [`Chain`]: who gave the token to whom |
//! | `mark.rs`, `meter.rs` | [`Mark`], [`Meter`]: what can be revoked of a token, and what is counted for it |
//! | `cut.rs` | [`Cut`]: what it takes to take back a block |
//! | `verify.rs` | [`VerifiedToken`]: every signature |
//! | `authorize.rs`, `datalog.rs` | the decision: native, and the reference |
//! | `append.rs` | [`attenuate`], [`delegate`], [`seal`] |
//! | `inspect.rs`, `took.rs` | [`inspect`]: what a token says, for people, and what each block took away |
//! | `shortfall.rs` | which limit a question falls outside of, and which block set it |
//! | `fold.rs` | test: the fold of narrowings against a model, a million chains |
//! | `forge.rs`, `fuzzing.rs`, `fuzzing/` | for tests and fuzz targets |
//! | `sample.rs`, `hostile.rs`, `yardstick.rs` | honest tokens of every size, hostile ones, the library alone: for tests and benchmarks |
//!
//! # A token's life
//!
//! ```
//! use caps::{id::*, key::SigningKey, range::ByteRange, rights::{Operation, Rights}, time::UnixMicros, token::*};
//! # use caps::pop::{Nonce, Transcript};
//! # fn main() -> caps::Result<()> {
//! // The broker grants.
//! let (root, holder) = (RootKey::generate(), SigningKey::generate());
//! let terms = Terms {
//!     lease: LeaseId::random(),
//!     region: RegionId::random(),
//!     grant: None,
//!     range: ByteRange::new(0, 65_536)?,
//!     rights: Rights::READ_WRITE,
//!     holder: holder.public(),
//!     not_before: UnixMicros(0),
//!     expires: UnixMicros(2_000_000_000_000_000),
//!     max_hops: 0,
//!     cluster: ClusterEpoch::random(),
//!     provider: ProviderId::random(),
//! };
//! let token = root.mint(&terms)?;
//!
//! // The holder narrows, offline.
//! let narrowed = attenuate(&token, &Narrow { rights: Some(Rights::READ), ..Narrow::default() })?;
//!
//! // The provider judges.
//! let keys = RootKeys::of(root.public())?;
//! let verified = gate(narrowed.as_bytes())?.verify(&keys)?;
//! # let transcript = Transcript { node: terms.provider, server: Nonce::random(), client: Nonce::random(), holder: holder.public() };
//! # let proven = transcript.verify(&transcript.sign(&holder))?;
//! let request = Request {
//!     operation: Operation::Read,
//!     range: ByteRange::new(0, 4_096)?,
//!     now: UnixMicros(1_800_000_000_000_000),
//!     proven, // by `caps::pop`, once per session
//!     lease: terms.lease,
//!     region: terms.region,
//!     cluster: terms.cluster,
//!     provider: terms.provider,
//!     usage: None,
//! };
//! assert!(verified.authorize(&request).is_ok());
//! let write = Request { operation: Operation::Write, ..request };
//! assert_eq!(verified.authorize(&write).unwrap_err().code(), caps::Code::Denied);
//! # Ok(())
//! # }
//! ```

mod append;
mod authorize;
mod block;
mod bytes;
mod chain;
mod container;
mod cut;
mod datalog;
#[cfg(test)]
mod fold;
#[doc(hidden)]
pub mod forge;
#[doc(hidden)]
pub mod fuzzing;
mod gate;
#[doc(hidden)]
pub mod hostile;
mod inspect;
mod keys;
mod mark;
mod meter;
mod profile;
mod reader;
#[doc(hidden)]
pub mod sample;
mod shortfall;
mod symbols;
mod terms;
mod took;
mod verify;
mod vocabulary;
mod weak;
#[doc(hidden)]
pub mod yardstick;

pub use append::{attenuate, delegate, seal};
pub use authorize::{Authorized, Limit, Request, Usage};
pub use bytes::{TOKEN_TEXT_BYTES_MAX, TOKEN_TEXT_PREFIX, Token, hmac};
pub use chain::{Chain, Hop, RevocationId};
pub use cut::Cut;
pub use gate::{Gated, gate};
pub use inspect::{BlockView, Inspection, Kind, Signatures, View, inspect};
pub use keys::{ROOT_KEYS_MAX, RootKey, RootKeys, RootPublic};
pub use mark::Mark;
pub use meter::Meter;
pub use shortfall::{Question, Shortfall};
pub use terms::{Effective, Narrow, Narrowing, Terms};
pub use took::{Lowered, Took};
pub use verify::VerifiedToken;
