//! A node and its clients on networks that fail: a wire that loses, delays, reorders and doubles packets, that is cut and
//! mended, that lets one direction through, or where the answer is lost and the connection with it.
//!
//! | file | idea |
//! |---|---|
//! | `cables.rs` | hosts at a switch reach one another, until a cable is pulled |
//! | `wire.rs` | the wire does to packets what it is told, and counts it |
//! | `scene.rs` | a node at one end of a wire, and clients at the other |
//! | `bytes.rs` | what arrives is what was sent |
//! | `effects.rs` | what was acknowledged was done once, and what was not says so in time |
//! | `ends.rs` | leases end on time while nobody can be told, and nothing of them arrives afterwards |

#[path = "networks/bytes.rs"]
mod bytes;
#[path = "networks/cables.rs"]
mod cables;
mod common;
#[path = "networks/effects.rs"]
mod effects;
#[path = "networks/ends.rs"]
mod ends;
#[path = "networks/scene.rs"]
mod scene;
#[path = "networks/wire.rs"]
mod wire;
