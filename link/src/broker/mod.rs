//! The broker's end: lets providers in, hands the runtime a [`ProviderLink`](broker::runtime::ProviderLink) for each, tells
//! them what they have to know, and hears what they say of their own leases.
//!
//! ```text
//! let source = FactsSource::following(&handle, facts);     // root keys are the node's to tell
//! let listener = Listener::bind(address, credentials, handle, source, Timings::default()).await?;
//! tokio::spawn(listener.serve());                  // dropping it cuts every link
//! ```

mod admission;
mod desk;
mod greeting;
mod listener;
mod rates;
mod refusals;
mod registry;
mod remote;
mod serve;
mod source;
mod taking;

pub use listener::Listener;
pub use source::FactsSource;
