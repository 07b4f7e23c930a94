//! Leases made with their first bytes: the broker makes the lease, the provider takes the bytes.

use caps::error::{Code, Error, Result};
use caps::id::LeaseId;
use caps::limits::{VALUE_BYTES_MAX, VALUE_BYTES_MIN};
use caps::rights::Rights;
use caps::wire::remote::leases::{self, Created};

use super::Cluster;
use crate::client::Client;
use crate::lease::{LeaseOptions, Leased};

impl Cluster {
    /// Makes leases, each with its first bytes, and says of each what became of it. What no bytes come for is zero. One after
    /// the other: each may be at another provider.
    ///
    /// # Errors
    /// `E_RANGE` for none, or more than [`caps::limits::REMOTE_LEASES_MAX`]; `E_UNREACHABLE` if there is no broker. Each item: as
    /// [`Cluster::lease`] and [`Cluster::open_mediated`]. A lease whose bytes could not be written is given back; where that failed,
    /// too, the error says so and names the lease.
    pub fn create(&self, values: &[(LeaseOptions, &[u8])]) -> Result<Vec<Result<Created>>> {
        leases::bounded(values.len())?;
        let broker = self.broker()?;
        Ok(values.iter().map(|(options, bytes)| self.create_one(&broker, options, bytes)).collect())
    }

    fn create_one(&self, broker: &Client, options: &LeaseOptions, bytes: &[u8]) -> Result<Created> {
        let spec = options.clone().spec()?;
        if !(VALUE_BYTES_MIN..=VALUE_BYTES_MAX).contains(&spec.bytes) || bytes.len() as u64 > spec.bytes {
            let message = "a value has 64 KiB to 1 GiB, and no more first bytes than that";
            return Err(Error::new(Code::Range, message));
        }
        let Leased { lease, token } = self.leased(broker, options.clone())?;
        let written = match bytes {
            [] => Ok(()), // it is zero, and nobody need be asked for that
            bytes => {
                self.open_mediated(&token, Rights::READ_WRITE).and_then(|memory| memory.write_at(0, bytes))
            }
        };
        match written {
            Ok(()) => Ok(Created { lease, token, written: bytes.len() as u64 }),
            Err(error) => Err(given_back(broker, lease.id, error)),
        }
    }

    /// Gives leases back, and says of each what became of it. There is no receipt: who needs one calls
    /// [`Client::release`].
    ///
    /// # Errors
    /// As [`Cluster::create`]; each item as [`Client::release`].
    pub fn delete(&self, leases: &[LeaseId]) -> Result<Vec<Result<()>>> {
        leases::bounded(leases.len())?;
        let broker = self.broker()?;
        Ok(leases.iter().map(|&lease| broker.release(lease).map(drop)).collect())
    }
}

/// It is the first error that says what happened; a lease that is still there all the same is told with it.
pub(super) fn given_back(broker: &Client, lease: LeaseId, error: Error) -> Error {
    match broker.release(lease) {
        Ok(_) => error,
        Err(left) => {
            let message = format!("{}; lease {lease} was not given back: {}", error.detail(), left.detail());
            Error::with(error.code(), message)
        }
    }
}
