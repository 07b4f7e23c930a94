//! A session that is made when it is wanted, and made anew when it is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use caps::error::{Code, Error, Result};

use crate::client::Client;

/// How long somebody who could not be reached is not tried again: all who waited for the same attempt, and whatever they ask
/// next, are told at once what became of it.
pub const DOWN: Duration = Duration::from_millis(500);

/// One session, or the way to it.
#[derive(Default)]
pub(super) struct Slot(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    None,
    Up(Arc<Client>),
    Down(Instant, Error),
}

impl Slot {
    /// The session that is there, or the one that `connect` makes. One attempt at a time is made, for all who wait.
    pub(super) fn get(&self, connect: impl FnOnce() -> Result<Client>) -> Result<Arc<Client>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Up(client) if !client.is_over() => return Ok(client.clone()),
            State::Down(since, error) if since.elapsed() < DOWN => return Err(error.clone()),
            _ => {}
        }
        match connect() {
            Ok(client) => {
                let client = Arc::new(client);
                *state = State::Up(client.clone());
                Ok(client)
            }
            Err(error) => {
                *state = match error.code() {
                    Code::Unreachable | Code::Timeout => State::Down(Instant::now(), error.clone()),
                    // Somebody answered: what was wrong may be right the next time.
                    _ => State::None,
                };
                Err(error)
            }
        }
    }

    /// The session, if it is there. Never waits for one that is being made.
    pub(super) fn there(&self) -> Option<Arc<Client>> {
        match &*self.0.try_lock().ok()? {
            State::Up(client) if !client.is_over() => Some(client.clone()),
            _ => None,
        }
    }
}
