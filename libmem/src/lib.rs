//! The client library: memory that you lease, share and lose in good order.
//!
//! One complete program. It needs a node (`leasehold up`) and its own key, registered there:
//!
//! ```no_run
//! use std::time::Duration;
//! use libmem::{Client, Code, Endpoint, LeaseOptions, Rights, SigningKey};
//!
//! fn main() -> libmem::Result<()> {
//!     let key = SigningKey::generate(); // or from your key file
//!     let client = Client::connect(&Endpoint::unix("/run/leasehold/node.sock"), &key)?;
//!
//!     // 64 MiB for ten minutes. The token is the right; keep it as you keep a password.
//!     let leased = client.lease(LeaseOptions::new(64 << 20, Duration::from_secs(600)).name("frames")?)?;
//!     println!("{} is mine until {:?} from now", leased.lease.id, leased.lease.expires_in);
//!
//!     // Mapped into this process: no copy, no call on the way.
//!     let region = client.open_mapped(&leased.token, Rights::READ_WRITE)?;
//!     region.write_at(0, b"the first bytes")?;
//!     region.store_u64(4096, 7)?;
//!
//!     // Whoever may end the lease can do so at any moment. Then this process goes on, and every access says so.
//!     let mut bytes = [0; 15];
//!     match region.read_at(0, &mut bytes) {
//!         Ok(()) => println!("{}", String::from_utf8_lossy(&bytes)),
//!         Err(error) if error.code() == Code::Revoked => println!("taken back"),
//!         Err(error) => return Err(error),
//!     }
//!
//!     drop(region); // unmaps, then tells the node
//!     let receipt = client.release(leased.lease.id)?;
//!     println!("{} bytes wiped", receipt.body.wiped_bytes);
//!     Ok(())
//! }
//! ```
//!
//! [`aio::Client`] is the same for tokio.
//!
//! # On another machine
//!
//! [`Endpoint::tls`] is a node that listens on the network, and everything else stays as it is: the same calls, the same
//! codes. Nothing can be mapped there, so [`Client::open`] gives [`Memory::Mediated`], whose bytes come and go over mutual
//! TLS 1.3. A socket is for whoever runs beside the node: a mapping costs nothing an access, a mediated call a microsecond
//! or two. Over TLS a call costs a round trip; [`Mediated::gather`] and [`Mediated::scatter`] have many places share one,
//! and [`Mediated::fetch_add_u64`] and its like change words in one step. [`remote`] says what becomes of calls whose
//! connection is lost.
//!
//! # On many machines
//!
//! Where a broker places leases on several providers, [`Cluster`] is one session with the broker and one with each provider
//! that has something of the caller's; what the provider of this host has is still mapped. [`Nodes`] is a plain list of nodes
//! without a broker. [`cluster`] says who is believed, and what becomes of what when somebody is not there.
//!
//! # Limits
//!
//! - One mediated read or write at a node's socket moves **64 KiB**, over TLS **1 GiB** in frames of 64 KiB; longer ones are
//!   split, and a revoke stops them between two pieces.
//! - Over TLS a batch has **512** places a request, and 1 to **64** leases are made or given back at a time, each of
//!   **64 KiB to 1 GiB**. A lost connection is made again after **10 ms**, then twice as long each time up to **2 s**, with
//!   jitter, for as long as the request may take unless [`Endpoint::reconnect`] says otherwise.
//! - A request takes at most **30 s** unless the [`Endpoint`] says otherwise; connecting and each step of the handshake
//!   **5 s**. A change whose answer did not come is `E_UNCERTAIN`: it may have taken effect.
//! - At most **32** requests of a session may be unanswered, those included that nobody waits for any more.
//! - A name has **64** bytes, a reason **256**, a token **8 KiB** and **8** blocks, a frame **128 KiB**.
//! - A process holds at most **65,536** mappings, one of at most **64 TiB**.
//! - The path of a socket has at most **107** bytes.
//!
//! # When a lease is revoked under you
//!
//! Its pages leave your mapping while your code runs. What you see depends on how you touched them:
//!
//! | you use | you see |
//! |---|---|
//! | [`Region::read_at`], [`Region::write_at`], [`Region::load_u64`] and its kin | `Err(E_REVOKED)`, now and from then on |
//! | [`Mediated::read_at`], [`Mediated::write_at`] | `Err(E_REVOKED)`, at the next piece of 64 KiB |
//! | [`Mapping::volatile`], [`Mapping::as_slice`] | SIGBUS: the process dies, unless it handles the signal itself |
//! | a descriptor you kept, a forked child, a copy of the token | the same: the right ended, not only your way to it |
//!
//! The same happens when the lease's time is over, when its owner's process dies ([`Lifetime::Process`]), and when the
//! node is gone: each session that has mapped something watches its socket from one thread, and a hang-up revokes all its
//! mappings even if nobody cut them. Write what you cannot lose somewhere else first; leased memory is lent.
//!
//! <!-- The complete example stands here, first of all: connect, lease, map, write, share, survive a revoke. -->
//!
//! # From a lease to a byte, and what a revoke does to it
//!
//! ```text
//! provider ──descriptor──▶ session ──Segment──▶ Mapping::new ──▶ Region
//!                            │                  checks what         │ read_at, write_at, load_u64, ...
//!                            │                  it was sent         ▼
//!                            │                                  guard: copies that survive a cut
//!                            │                                      │
//! revoke ──▶ provider cuts the pages ───────────── SIGBUS ─────────▶ Err(E_REVOKED)
//! rotation ▶ provider cuts the pages ───────────── SIGBUS ─▶ fresh segment over the channel ─▶ goes on
//! provider hangs up ─────────┴─ Revocation ────────────────────────▶ Err(E_REVOKED)
//! ```
//!
//! # Files, in reading order
//!
//! | file | what |
//! |---|---|
//! | `client`, [`aio`] | the two faces of a session: who waits, and how |
//! | `inherited` | the session and the tokens that `leasehold run` leaves to a program |
//! | `endpoint`, `lease`, `share`, `ownership` | what to say and what comes back |
//! | [`wrap`] | a token handed over through the node, to be fetched once |
//! | [`snapshot`] | a copy in a lease of one's own |
//! | [`sealed`] | memory that the node cannot read: a key for each lease, which the clients share among themselves |
//! | `region` | opened rights: mapped, and the parts that mediated access shares |
//! | `mediated` | leased memory behind the node, at its socket or over TLS |
//! | `local` | the blocking session over the socket |
//! | [`remote`] | the session over TLS |
//! | [`cluster`] | a broker with many providers, and a plain list of nodes: which session is asked |
//! | `calls` | every request with the answer that belongs to it; lists page by page |
//! | `session/` | the protocol without I/O, the socket, the hang-up and who reads the rotation channel |
//! | [`mapping`] | leased memory as one range of addresses: guarded, volatile and raw access |
//! | `mapping/descriptor` | what a received descriptor must be |
//! | `mapping/reservation`, `mapping/place` | who owns which addresses, and what is mapped there |
//! | `mapping/volatile` | the safe view for raw access |
//! | [`token`] | narrowing, delegating, sealing and reading tokens, without a node |
//! | [`sync`] | processes that wait for one another: events, locks, rings of messages |
//! | `guard` | the routines that survive a cut, the fault handler, and rotation: table, assembly, decision, channel |
//!
//! # Limits
//!
//! A message of a ring has at most **64 KiB**, a ring **1 GiB**, a receiver **64** lanes. A wait looks again every **50 ms** and
//! lasts a day at most. The owner of a lock may be silent for **10 ms to 60 s**.
//!
//! **65,536** mappings a process, **4,096** segments and **64 TiB** a mapping. Words are **8** bytes on a multiple
//! of 8. x86_64 and aarch64, 64-bit Linux.
//!
//! # When somebody else's right ends
//!
//! Then your memory is *rotated*: cut from everybody, copied, and mapped again at the same address. Your accesses wait
//! for that and go on, and lose nothing. [`mapping`] says what it asks of you: no kernel I/O on registered leased memory,
//! no futexes but this library's, nothing of it for forked children.
//!
//! # What happens to SIGBUS and SIGSEGV in your process
//!
//! The first mapping installs a handler for SIGBUS, the first one that a session made also one for SIGSEGV. They absorb
//! faults of guarded access to leased memory, let accesses wait that met a rotation, and nothing else; every other fault
//! goes to the handler that was there before, or ends the process as it would have.
//! A handler that you install *later* replaces ours: keep the action that `sigaction` returns, and call it for
//! faults that are not yours. Each thread's first guarded access unblocks both signals for that thread, because
//! Linux kills a process that faults while the signal is blocked.
#![deny(unsafe_code)]

#[cfg(test)]
extern crate self as libmem; // what unit tests share with the others calls it so

pub mod aio;
mod calls;
mod client;
pub mod cluster;
mod endpoint;
#[allow(unsafe_code)] // assembly, the signal handler, and calls between the two
mod guard;
#[allow(unsafe_code)] // takes ownership of descriptors by their numbers
mod inherited;
mod lease;
mod local;
#[allow(unsafe_code)] // mmap, munmap, and slices of what they gave
pub mod mapping;
mod mediated;
mod ownership;
mod region;
pub mod remote;
pub mod sealed;
mod session;
mod share;
pub mod snapshot;
pub mod sync;
pub mod token;
pub mod wrap;

pub use caps::error::{Code, Error, Result};
pub use caps::id::{
    DonationId, GrantId, LeaseId, PrincipalKey, ProviderId, QuarantineId, RegionId, TransferId,
};
pub use caps::key::SigningKey;
pub use caps::range::ByteRange;
pub use caps::receipt::Receipt;
pub use caps::rights::Rights;
pub use caps::token::Token;
pub use caps::wire::place::Place;
pub use caps::wire::remote::leases::Created;
pub use caps::wire::row::CosignerRow;
pub use caps::wire::row::{
    DonationRow, DonationState, GrantRow, LeaseRow, Lifetime, QuarantineCause, QuarantineRow, QuotaRow,
    RootRow, RootState, Target, TransferRow, TransferState,
};
pub use caps::wire::wrap::{Fetched, WrapId, WrapRow};
pub use caps::wire::{Name, Reason};
pub use client::Client;
pub use cluster::{Cluster, Nodes};
pub use endpoint::{Endpoint, HANDSHAKE_SECONDS, REQUEST_SECONDS};
pub use inherited::{InheritedToken, SESSION_VARIABLE, TOKENS_VARIABLE, inherited_tokens, is_inherited};
pub use lease::{LeaseOptions, LeaseView, Leased};
pub use mapping::{Access, Mapping, Revocation, Segment, Volatile};
pub use mediated::{Mediated, Memory, Stat};
pub use ownership::{TakenOver, TransferProposal};
pub use region::{Facts, Region};
#[doc(hidden)]
pub use session::fuzzing;
pub use share::{Accepted, Narrowing, Proposal, ShareOptions};
pub use snapshot::SnapshotOptions;
pub use wrap::Wrapped;
