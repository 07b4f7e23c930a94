//! What bad requests are made of: rights of every kind that a client may have had, never had, or has no more.

use caps::id::{ClusterEpoch, LeaseId, PrincipalKey, SlotHandle};
use caps::key::SigningKey;
use caps::rights::Rights;
use caps::time::UnixMicros;
use caps::token::{Narrow, Token, attenuate};
use caps::wire::row::LeaseRow;
use libmem::{Client, LeaseOptions, Lifetime};

use super::bed::Bed;
use super::common::tls::Tls;
use super::common::{MINUTE, SMALL};

/// Tokens and ids that all sessions of a run share.
pub struct Ground {
    /// The attacker's lease, which is good.
    pub lease: LeaseRow,
    pub token: Token,
    /// The same token for reading alone, for a part of the region, and for a time that is over or has not begun.
    pub read_only: Token,
    pub narrow: Token,
    pub expired: Token,
    pub not_yet: Token,
    /// A token whose lease was released.
    pub revoked: Token,
    pub released: LeaseId,
    /// Somebody else's.
    pub foreign: Token,
    pub foreign_lease: LeaseId,
    pub foreign_key: PrincipalKey,
    pub own_key: PrincipalKey,
    /// The node's life.
    pub cluster: ClusterEpoch,
    /// Signs what nobody asked for.
    pub forger: SigningKey,
}

/// The open rights of one session.
#[derive(Clone, Copy, Debug)]
pub struct Handles {
    pub good: SlotHandle,
    pub read_only: SlotHandle,
    pub narrow: SlotHandle,
    pub closed: SlotHandle,
}

impl Ground {
    /// Makes what there is not yet.
    pub fn lay(bed: &Bed) -> Self {
        let mallory = &bed.mallory;
        let client = Client::connect(&bed.node.endpoint(), &mallory.key).unwrap();
        let options = LeaseOptions::new(SMALL, 10 * MINUTE).lifetime(Lifetime::Detached);
        let gone = client.lease(options).unwrap();
        client.release(gone.lease.id).unwrap();
        // Somebody else again: what is tried on it must not be tried on the bystander's, of which a lease is left whole.
        let (carol, theirs) = bed.stranger("carol");
        let narrowed = |narrow: Narrow| attenuate(&mallory.token, &narrow).unwrap();
        let range = caps::range::ByteRange::new(4_096, 8_192).unwrap();
        Self {
            lease: mallory.lease.clone(),
            token: mallory.token.clone(),
            read_only: narrowed(Narrow { rights: Some(Rights::READ), ..Narrow::default() }),
            narrow: narrowed(Narrow { range: Some(range), ..Narrow::default() }),
            expired: narrowed(Narrow { expires: Some(UnixMicros(1_000_000)), ..Narrow::default() }),
            not_yet: narrowed(Narrow { not_before: Some(UnixMicros(u64::MAX >> 12)), ..Narrow::default() }),
            revoked: gone.token,
            released: gone.lease.id,
            foreign: theirs.token,
            foreign_lease: theirs.lease.id,
            foreign_key: carol.public(),
            own_key: mallory.key.public(),
            cluster: client.welcome().cluster,
            forger: SigningKey::from_seed(&[0x5a; 32]),
        }
    }

    /// Opens what a session needs.
    ///
    /// # Errors
    /// What the node refuses with.
    pub fn open(&self, tls: &mut Tls) -> Result<Handles, libmem::Error> {
        let good = tls.open(&self.token, Rights::READ_WRITE)?;
        let read_only = tls.open(&self.read_only, Rights::READ)?;
        let narrow = tls.open(&self.narrow, Rights::READ_WRITE)?;
        let closed = tls.open(&self.token, Rights::READ)?;
        tls.control(&caps::wire::Request::Close { handle: closed })?;
        Ok(Handles { good, read_only, narrow, closed })
    }
}
