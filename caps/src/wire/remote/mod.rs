//! What travels over TLS: the verbs of the data plane, and the requests of the local socket inside one of them.
//!
//! ```text
//!  0        4       5      6       8          16        20         24         28        32
//!  ┌────────┬───────┬──────┬───────┬──────────┬─────────┬──────────┬──────────┬─────────┬──────────┐
//!  │ "LSHR" │version│ verb │ flags │ request  │ body    │ deadline │ crc32c   │ items   │ body ... │
//!  │  u32   │  u8   │  u8  │  u16  │  u64     │ u32     │ or code  │ of body  │ u32     │          │
//!  └────────┴───────┴──────┴───────┴──────────┴─────────┴──────────┴──────────┴─────────┴──────────┘
//! ```
//!
//! A message is one frame or several; all but the last have the flag `MORE`. No frame is larger than
//! [`FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX) and none carries more than
//! [`CHUNK_BYTES_MAX`](crate::limits::CHUNK_BYTES_MAX) bytes of a region, so that a gibibyte is read and written
//! through a buffer of one frame, and what is under way when a right ends is one chunk at most. Every integer is
//! little-endian. `docs/protocol.md` has the same for whoever writes a client in another language.
//!
//! | file | idea |
//! |---|---|
//! | `header.rs` | the 32 bytes before every body |
//! | `stream.rs` | frames out of a stream of bytes |
//! | `body.rs` | the fixed parts of bodies: spans, pieces, words |
//! | `ask.rs` | what a client's frame means |
//! | `answer.rs` | what a node's frame means |
//! | `leases.rs` | leases made and given back many at a time |
//! | `fuzzing.rs` | what must hold of any bytes |

pub mod answer;
pub mod ask;
pub mod body;
#[doc(hidden)]
pub mod fuzzing;
pub mod header;
pub mod leases;
pub mod stream;

pub use answer::Answer;
pub use ask::Ask;
pub use body::{Add, Piece, Span, Standing, Swap};
pub use header::{Flags, Header, Verb};
pub use stream::{Next, next};
