//! Bad input at the port that serves TLS: groups C to G of the catalogue (`bad-input.toml`), against a real node with an
//! authority of its own, hostile clients with good certificates and without, and a bystander whom nothing may touch.
//!
//! | file | holds |
//! |---|---|
//! | `bed` | the node, the attacker, the bystander, and what every group owes |
//! | `dice` | random numbers that come again with their seed |
//! | `ground` | rights that a client may have had, never had, or has no more |
//! | `broken` | one request with one thing wrong |
//! | `framing` | group C |
//! | `child` | a client in a process of its own, to be stopped and killed |
//! | `numbers` | group E |
//! | `exhaustion` | group F |
//! | `slow` | group G |
//! | `forge` | certificates that are not what they should be |
//! | `identity` | C10, D1 to D8: who is not let in |
//! | `handshakes` | D12: handshakes that stall |
//! | `reload` | D3 and D9: the node's own files |
//!
//! A hundred thousand of them are in `storm.rs`, which cargo runs when nothing of this is under way.

#[allow(dead_code, reason = "each of two test binaries uses a part of it")]
#[path = "bad_input_remote/bed.rs"]
mod bed;
#[allow(dead_code, reason = "each of two test binaries uses a part of it")]
#[path = "bad_input_remote/broken.rs"]
mod broken;
#[path = "bad_input_remote/child.rs"]
mod child;
mod common;
#[allow(dead_code, reason = "each of two test binaries uses a part of it")]
#[path = "bad_input_remote/dice.rs"]
mod dice;
#[path = "bad_input_remote/exhaustion.rs"]
mod exhaustion;
#[path = "bad_input_remote/forge.rs"]
mod forge;
#[path = "bad_input_remote/framing.rs"]
mod framing;
#[allow(dead_code, reason = "each of two test binaries uses a part of it")]
#[path = "bad_input_remote/ground.rs"]
mod ground;
#[path = "bad_input_remote/handshakes.rs"]
mod handshakes;
#[path = "bad_input_remote/identity.rs"]
mod identity;
#[path = "bad_input_remote/numbers.rs"]
mod numbers;
#[path = "bad_input_remote/reload.rs"]
mod reload;
#[path = "bad_input_remote/slow.rs"]
mod slow;
