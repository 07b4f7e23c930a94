//! A node over mutual TLS.

use std::sync::Arc;

use caps::error::{Code, Error, Result};
use caps::id::LeaseId;
use caps::key::SigningKey;
use caps::rights::Rights;
use caps::token::Token;
use caps::wire::remote::leases::Created;
use caps::wire::reply::{Opened, Welcome};

use crate::calls::Call;
use crate::endpoint::Endpoint;
use crate::lease::LeaseOptions;
use crate::mediated::Stat;

pub use transport::{Credentials, Domain, Files, PeerId, Reload, Reloaded, Role};

const LATER: Error = Error::new(Code::Unreachable, "this end of TLS is being built");

pub(crate) struct Session;

impl Session {
    pub(crate) fn connect(
        _: &str,
        _: &Arc<Credentials>,
        endpoint: &Endpoint,
        _: &SigningKey,
    ) -> Result<(Self, Welcome)> {
        let _ = (endpoint.expected_node(), endpoint.is_checked(), endpoint.reconnect_bound());
        Err(LATER)
    }

    pub(crate) fn call<T>(&self, _: Call<T>) -> Result<T> {
        Err(LATER)
    }

    pub(crate) fn create(&self, _: &[(LeaseOptions, &[u8])]) -> Result<Vec<Result<Created>>> {
        Err(LATER)
    }

    pub(crate) fn delete(&self, _: &[LeaseId]) -> Result<Vec<Result<()>>> {
        Err(LATER)
    }
}

pub(crate) struct Right {
    opened: Opened,
}

impl Right {
    pub(crate) fn open(_: Arc<Session>, _: &Token, _: Rights) -> Result<Self> {
        Err(LATER)
    }

    pub(crate) const fn opened(&self) -> &Opened {
        &self.opened
    }

    pub(crate) fn read_at(&self, _: u64, _: &mut [u8]) -> Result<()> {
        Err(LATER)
    }

    pub(crate) fn read_into(&self, _: u64, _: &mut [u8]) -> Result<usize> {
        Err(LATER)
    }

    pub(crate) fn write_at(&self, _: u64, _: &[u8]) -> Result<()> {
        Err(LATER)
    }

    pub(crate) fn gather(&self, _: &mut [(u64, &mut [u8])]) -> Result<Vec<Result<usize>>> {
        Err(LATER)
    }

    pub(crate) fn scatter(&self, _: &[(u64, &[u8])]) -> Result<Vec<Result<usize>>> {
        Err(LATER)
    }

    pub(crate) fn compare_exchange_u64(&self, _: u64, _: u64, _: u64) -> Result<u64> {
        Err(LATER)
    }

    pub(crate) fn fetch_add_u64(&self, _: u64, _: u64) -> Result<u64> {
        Err(LATER)
    }

    pub(crate) fn stat(&self) -> Result<Stat> {
        Err(LATER)
    }
}
