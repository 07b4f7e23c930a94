//! Bad input through the real doors of a node: its socket, its files, its command line.
//!
//! Each test is named after its rows in the catalogue, `bad-input.toml`, which says of every row where it is tested or
//! why it is not; [`catalogue`] fails if a row or a test is missing.
//!
//! | file | holds |
//! |---|---|
//! | `node` | a node of the test's own |
//! | `wire` | a client that follows no rule |
//! | `bed` | the five-part outcome that every row owes |
//! | `tokens` | groups A and B |
//! | `holders` | groups B and H: tokens in the wrong hands |
//! | `frames` | group C, as far as the local socket has it |
//! | `again` | rows C7 and H1: numbers of requests that are used again |
//! | `sizes` | group E |
//! | `socket` | group M, and what belongs to it and is not in the list |
//! | `races` | what ends while something else is under way |
//! | `endings` | rows I7 and I9: the next tenant of a lease's bytes, and a revoke that no device records |
//! | `turns` | many sessions whose tokens have to be verified, and somebody else |
//! | `files` | group K |
//! | `catalogue` | every row is accounted for |
//!
//! Tests that need users of their own say so and do nothing where they are not root.

#[path = "bad_input/again.rs"]
mod again;
#[path = "bad_input/bed.rs"]
mod bed;
#[path = "bad_input/catalogue.rs"]
mod catalogue;
#[path = "bad_input/endings.rs"]
mod endings;
#[path = "bad_input/files.rs"]
mod files;
#[path = "bad_input/frames.rs"]
mod frames;
#[path = "bad_input/holders.rs"]
mod holders;
#[path = "common/named.rs"]
mod named;
#[path = "bad_input/node.rs"]
mod node;
#[path = "bad_input/races.rs"]
mod races;
#[path = "bad_input/sizes.rs"]
mod sizes;
#[path = "bad_input/socket.rs"]
mod socket;
#[path = "bad_input/tokens.rs"]
mod tokens;
#[path = "bad_input/turns.rs"]
mod turns;
#[path = "bad_input/wire.rs"]
mod wire;
