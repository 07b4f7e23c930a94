//! Memory that the node holds and cannot read.
//!
//! A lease can have a key of its own. Whoever has it reads and writes through [`Sealed`]; everybody else, the node that
//! holds the memory among them, sees blocks that say nothing and cannot be changed unnoticed. It is off unless somebody
//! asks for it: mapped memory without it is as fast as memory is.
//!
//! ```no_run
//! use libmem::sealed::{DataKey, Envelope, Sealed};
//! use libmem::{Client, PrincipalKey, Rights, SigningKey, Token};
//!
//! /// Seals the memory of a lease, writes to it, and makes the key ready for somebody else.
//! fn hide(client: &Client, lease: libmem::LeaseId, token: &Token, me: &SigningKey, bob: PrincipalKey) -> libmem::Result<String> {
//!     let key = DataKey::generate(lease);
//!     let memory = Sealed::new(client.open(token, Rights::READ_WRITE)?, &key)?;
//!     memory.format()?; // once: from here on every block is known
//!     memory.write_at(100, b"nobody else's business")?;
//!     Ok(Envelope::seal(&key, me, bob)?.to_text())
//! }
//!
//! /// Takes the key that `alice` sent, from nobody else, and reads.
//! fn see(client: &Client, token: &Token, me: &SigningKey, alice: PrincipalKey, envelope: &str) -> libmem::Result<Vec<u8>> {
//!     let key = Envelope::parse_text(envelope)?.open(me, alice)?;
//!     let memory = Sealed::new(client.open(token, Rights::READ)?, &key)?;
//!     let mut bytes = vec![0; 22];
//!     memory.read_at(100, &mut bytes)?;
//!     Ok(bytes)
//! }
//! ```
//!
//! # Files, in reading order
//!
//! | file | what |
//! |---|---|
//! | `key` | the key of one lease: drawn, kept in a file, compared by its fingerprint |
//! | `layout` | where a logical byte is: arithmetic alone |
//! | `cipher` | one block, sealed and opened |
//! | `bytes` | what can be sealed: anything that reads and writes bytes at offsets |
//! | `memory` | [`Sealed`]: formatting, reading, writing, in batches |
//! | `envelope` | the key on its way to somebody else |
//!
//! # What it answers
//!
//! The node, whoever took it over, whoever reads its machine's memory or what quarantine keeps, and any holder of a token
//! without the key:
//!
//! - **reads nothing**: it sees AES-256-GCM-SIV under a key that never leaves the clients that share it;
//! - **changes nothing unnoticed**: a block that was flipped, zeroed, cut, or moved to another place or lease is
//!   `E_SEAL` for whoever reads it, and none of its bytes are given out;
//! - **keeps nothing**: once every copy of the key is destroyed, the bytes are shredded wherever copies of them are.
//!
//! # What it does not answer
//!
//! - **No protection from rollback.** Whoever holds the memory can give back a block as it once was, under the same key
//!   and in the same place, and each block by itself. Put a number or a hash of your own where that matters.
//! - **No atomicity.** A write of a part of a block reads the block, changes it and writes it whole: of two writers
//!   of one block at the same time one is lost, or the block is torn and `E_SEAL` until somebody writes it whole. A reader
//!   that meets a writer looks again, a few times. Writers of different blocks do not disturb each other.
//! - **Words are not words any more.** `CAS`, `FETCH_ADD`, the 8-byte loads and stores and all of [`crate::sync`] work on
//!   what is stored, which is ciphertext: on sealed memory they destroy a block. `Sealed` has none of them.
//! - **Lengths and patterns show**: how long the lease is, which blocks are read and written, when, and by whom.
//! - **No revocation.** Who was given the key can read whatever bytes it gets, for ever. A revoke takes the memory
//!   away; only another lease with another key takes the key away.
//! - **Speed.** Every block is copied and ciphered by the caller's processor, 4,068 of 4,096 bytes are the caller's, and a
//!   mapping is no faster here than the copying calls.
//! - [`crate::Client::snapshot`] copies ciphertext, which is bound to the lease that it is of: to copy what it says, read it
//!   with the key of the original and write it to a sealed lease of its own.

mod bytes;
mod cipher;
mod envelope;
mod key;
mod layout;
mod memory;

pub use bytes::Bytes;
pub use envelope::{ENVELOPE_TEXT_BYTES, Envelope};
pub use key::{DataKey, Fingerprint, KEY_TEXT_BYTES};
pub use layout::{BLOCK_BYTES, PAYLOAD_BYTES, logical_bytes, physical_bytes};
pub use memory::{IO_BYTES, READ_TRIES, Sealed};
