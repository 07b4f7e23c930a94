//! The provider's end: dials the broker, does what it asks, and tells it what happens.
//!
//! ```text
//! let (mut dialler, asker) = Dialler::new(config);
//! let facts = dialler.first_contact().await?;      // until the broker is there; nothing is registered yet
//! ... make the provider of `facts` ...
//! match dialler.serve(executor).await {            // registers; comes back after every cut
//!     Ended::NewLife(why) => ...                   // wipe everything, begin as a new process
//!     Ended::Stopped => ...
//! }
//! ```

mod asker;
mod backoff;
mod dialler;
mod executor;
mod greeting;
mod notices;
mod serve;

pub use asker::Asker;
pub use dialler::{Config, Dialler, Ended};
pub use executor::Executor;
