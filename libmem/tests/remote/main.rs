//! The client over TLS against a node that is written for the test: it speaks real TLS and real frames over a real
//! connection, and says whatever the test has it say, true or not.
//!
//! | file | idea |
//! |---|---|
//! | `certificates.rs` | a CA, and who has which certificate |
//! | `node.rs` | the node: connections, frames, and a memory for those that are honest |
//! | `session.rs` | how a session begins, and who is believed |
//! | `verbs.rs` | what each call sends, and what it makes of true answers |
//! | `lies.rs` | what it makes of others |
//! | `losses.rs` | connections that are lost |
//! | `doubts.rs` | what is said of changes that may have been done |

mod certificates;
mod doubts;
mod lies;
mod losses;
mod node;
mod session;
mod verbs;
