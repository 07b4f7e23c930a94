//! The link between a broker and its providers, where a network is between them.
//!
//! # Data flow
//!
//! ```text
//!            broker's process                                        provider's process
//!  ┌──────────────────────────────────┐                 ┌──────────────────────────────────────┐
//!  │ broker::runtime                  │                 │                                      │
//!  │   ProviderLink ──▶ RemoteProvider│   ask, answer   │ Dialler ──▶ Executor: claim, renew,  │
//!  │                    (questions) ──┼────────────────▶│   (link)    take, memory, status     │
//!  │   Handle ◀── desk ◀──────────────┼─────────────────┼── Asker: notices, revocations        │
//!  │              (what a provider may│   ask, answer   │                                      │
//!  │   FactsSource   say of its own)  │                 │                                      │
//!  │      └── keys, policy, people ───┼────────────────▶│ Executor: facts, fact                │
//!  └──────────────────────────────────┘                 └──────────────────────────────────────┘
//!        Listener: TCP, TLS 1.3, role provider                 TCP, TLS 1.3, role broker
//! ```
//!
//! The messages are [`caps::wire::cluster`]'s. Certificates are judged by `transport`: a broker lets in providers only, each
//! under the name of its certificate; a provider believes a broker only, and, if it is told so, only that of one name.
//!
//! # A life and its links
//!
//! A provider's life is that of its process. Its link may be cut and made again many times in it:
//!
//! | what happens | what comes of it |
//! |---|---|
//! | the link is cut | every question without an answer ends with `E_UNREACHABLE`; the provider serves on, and dials |
//! | it dials in time | it says which cluster's memory it has, joins again, and tells the notices that were not noted |
//! | a second link of the same life comes | the newer is used, the older is closed |
//! | the provider stops in order | `Gone`, once it has nothing any more: the life is over in the books at once |
//! | a link is silent | the provider takes it for cut; the broker counts missed heartbeats |
//! | the broker has another epoch, or declared the life lost | `E_EPOCH`: [`provider::Ended::NewLife`] |
//!
//! A notice is noted once: notices have places in the provider's life, and the broker remembers how many it noted. If some
//! were lost (the provider keeps a bounded number), the broker asks what of each of its leases there is.
//!
//! # Bounds
//!
//! | what | bound |
//! |---|---|
//! | a frame | `LINK_FRAME_BYTES_MAX`, before the first one was read `LINK_HELLO_BYTES_MAX` |
//! | questions of a side without an answer | `LINK_WINDOW_MAX`; heartbeats and takes have places of their own |
//! | connections that have not said who they are | `LINK_GREETINGS_MAX`, of one address `LINK_GREETINGS_PER_ADDRESS_MAX` |
//! | those of one address in a second | `LINK_GREETINGS_PER_S`, after a quiet time `LINK_GREETINGS_BURST` |
//! | links | `LINKS_MAX` |
//! | notices kept | `LINK_NOTICES_MAX` |
//! | every wait | [`Timings`] |
//!
//! Who breaks a rule is told with a code and loses the link; nobody else notices. The broker reads on for a moment after its
//! last words, so that no reset overtakes them.
//!
//! # Files
//!
//! | file | idea |
//! |---|---|
//! | `timings.rs` | how long everything may take |
//! | `facts.rs` | what a provider has to know, whole and in pages |
//! | `end.rs` | that a link is over, and why |
//! | `line.rs` | frames over a stream, each read and written within a time |
//! | `questions.rs` | the questions of one side that have no answer |
//! | `work.rs` | the questions of the other side that are being worked on |
//! | `broker/listener.rs` | accepts connections |
//! | `broker/admission.rs` | how many may be at the door |
//! | `broker/rates.rs` | how many of one address may come there in a time |
//! | `broker/greeting.rs` | who comes, and what it is told |
//! | `broker/registry.rs` | the lives whose links there are |
//! | `broker/remote.rs` | a provider, as the broker's runtime sees it |
//! | `broker/desk.rs` | what a provider may say, and only of its own leases |
//! | `broker/source.rs` | facts that change, and who knows which |
//! | `broker/serve.rs` | one link from joined to over |
//! | `provider/dialler.rs` | finds the broker, again and again |
//! | `provider/greeting.rs` | a connection until it is told everything |
//! | `provider/backoff.rs` | how long to wait in between |
//! | `provider/executor.rs` | what is asked of a provider |
//! | `provider/asker.rs` | what a provider asks and tells |
//! | `provider/notices.rs` | notices until they are noted |
//! | `provider/serve.rs` | one link from joined to over |
#![forbid(unsafe_code)]

pub mod broker;
mod end;
mod facts;
mod line;
pub mod provider;
mod questions;
mod timings;
mod work;

pub use facts::Facts;
pub use timings::Timings;
