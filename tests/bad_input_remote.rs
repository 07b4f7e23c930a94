//! Bad input at the port that serves TLS: groups C to G of the catalogue (`bad-input.toml`), against a real node with an
//! authority of its own, hostile clients with good certificates and without, and a bystander whom nothing may touch.
//!
//! | file | holds |
//! |---|---|
//! | `bed` | the node, the attacker, the bystander, and what every group owes |
//! | `dice` | random numbers that come again with their seed |
//! | `ground` | rights that a client may have had, never had, or has no more |
//! | `broken` | one request with one thing wrong |
//! | `storm` | a hundred thousand of them |

#[path = "bad_input_remote/bed.rs"]
mod bed;
#[path = "bad_input_remote/broken.rs"]
mod broken;
mod common;
#[path = "bad_input_remote/dice.rs"]
mod dice;
#[path = "bad_input_remote/ground.rs"]
mod ground;
#[path = "bad_input_remote/storm.rs"]
mod storm;
