//! Several nodes against scripted ones: each speaks real TLS with a certificate of one authority, and says whatever the test
//! has it say, true or not.
//!
//! | file | idea |
//! |---|---|
//! | `scene.rs` | the authority, nodes of any name, tokens of any provider |
//! | `routes.rs` | which node is asked: by what the broker says, by what is remembered |
//! | `redirects.rs` | nodes that send to others |
//! | `losses.rs` | brokers and providers that are not there |
//! | `values.rs` | leases made with their first bytes |
//! | `lists.rs` | plain lists of nodes |
//! | `words.rs` | nodes without a broker's certificate that speak of others |
//! | `lives.rs` | brokers that began anew under a session |
#![allow(dead_code, reason = "a part of the scripted node is for the tests of one session")]

#[path = "../remote/certificates.rs"]
mod certificates;
mod lists;
mod lives;
mod losses;
#[path = "../remote/node.rs"]
mod node;
mod redirects;
mod routes;
mod scene;
mod values;
mod words;
