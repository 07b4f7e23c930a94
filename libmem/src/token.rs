//! What a holder does with a token alone: no node is asked, no root key is needed.
//!
//! A token can only ever get weaker on its way. Whoever holds it narrows it ([`attenuate`]); the holder whose key it names
//! makes it somebody else's ([`delegate`]), if the owner allowed that when it was made; what travels is best sealed
//! ([`seal`]), so that a copy is of no use to anybody without the key. What a token says can be read by everybody
//! ([`inspect`]); whether it is still believed is for a node to say ([`crate::Client::token_check`]).
//!
//! ```
//! use libmem::token::{Narrow, attenuate, delegate, inspect, seal};
//! use libmem::{ByteRange, Code, PrincipalKey, Rights, SigningKey, Token};
//!
//! /// Gives the first page, for reading, to somebody else.
//! fn hand_over(token: &Token, mine: &SigningKey, to: PrincipalKey) -> libmem::Result<Token> {
//!     let page = Narrow {
//!         rights: Some(Rights::READ),
//!         range: Some(ByteRange::new(0, 4096)?),
//!         max_hops: Some(0), // and no further
//!         ..Narrow::default()
//!     };
//!     seal(&delegate(token, mine, to, &page)?)
//! }
//! # use caps::{id::*, time::UnixMicros, token::{RootKey, Terms}};
//! # fn main() -> libmem::Result<()> {
//! # let (mine, theirs) = (SigningKey::generate(), SigningKey::generate());
//! # let token = RootKey::generate().mint(&Terms {
//! #     lease: LeaseId::random(), region: RegionId::random(), grant: None, range: ByteRange::new(0, 65_536)?,
//! #     rights: Rights::READ_WRITE, holder: mine.public(), not_before: UnixMicros(0), expires: UnixMicros::MAX,
//! #     max_hops: 1, cluster: ClusterEpoch::random(), provider: ProviderId::random(),
//! # })?;
//!
//! // `token` came from `Client::lease` or `Client::share_accept`, and allows one delegation.
//! let handed = hand_over(&token, &mine, theirs.public())?;
//! let shown = inspect(&handed, None)?;
//! assert_eq!(shown.holders, [mine.public().to_string(), theirs.public().to_string()]);
//! assert_eq!((shown.effective.rights.as_str(), shown.effective.range), ("r", Some([0, 4096])));
//! assert_eq!(shown.blocks[1].took.rights, Rights::WRITE);
//!
//! // It never widens again, and a sealed one is as it is for good.
//! let all = Narrow { rights: Some(Rights::READ_WRITE), ..Narrow::default() };
//! attenuate(&token, &all)?; // no wider than it is: allowed
//! assert_eq!(attenuate(&handed, &all).unwrap_err().code(), Code::Denied);
//! # Ok(())
//! # }
//! ```
//!
//! | errors | |
//! |---|---|
//! | `E_RANGE` | wider than what is left, or nothing said |
//! | `E_DENIED` | sealed, or no delegation is left |
//! | `E_TOKEN_BOUND` | the key that shall delegate is not the holder's |
//! | `E_TOKEN_TOO_BIG` | eight blocks, or 8 KiB |
//! | other `E_TOKEN_*` | no token, or its chain of holders is broken |

pub use caps::time::UnixMicros;
pub use caps::token::{
    BlockView, Inspection, Kind, Lowered, Narrow, Narrowing, RootKeys, RootPublic, Signatures, Took, View,
    attenuate, delegate, inspect, seal,
};
pub use caps::wire::reply::TokenState;
