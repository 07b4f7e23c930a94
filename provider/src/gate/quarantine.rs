//! The administrator's requests about what is in quarantine. Nobody else may make them, whatever they know.

use audit::{Draft, Event as Entry};
use caps::error::{Code, Error, Result};
use caps::id::{LeaseId, QuarantineId};
use caps::wire::row::{Revocation, Target};
use caps::wire::{Reason, Reply, Request};

use super::visitor::Visitor;

const QUARANTINE: &str = "quarantine is the administrator's";

impl Visitor {
    /// Takes a lease's region from everybody, by a revoke like any other, and has its bytes kept.
    pub(super) async fn quarantine_add(&self, lease: LeaseId, reason: Reason) -> Result<Reply> {
        self.administers(Some(lease), QUARANTINE).await?;
        let (shared, caller) = (self.shared.clone(), self.caller());
        shared.provider.quarantine_order(lease, caller.holder)?;
        // A task of its own: an order that nobody followed by a revoke would keep the region at the end of its time.
        let ordered = tokio::spawn(async move {
            let revoke = Request::Revoke(Revocation { target: Target::Lease(lease), reason });
            let answer = shared.control.request(caller, revoke).await;
            if answer.is_err() {
                shared.provider.quarantine_withdraw(lease, caller.holder);
            }
            answer
        });
        ordered.await.unwrap_or(Err(Error::new(Code::Internal, "an order to keep panicked")))
    }

    /// What is there.
    pub(super) async fn quarantine_list(&self) -> Result<Reply> {
        self.administers(None, QUARANTINE).await?;
        Ok(Reply::Quarantine(self.shared.provider.quarantined()))
    }

    /// Bytes of it.
    pub(super) async fn quarantine_read(&self, id: QuarantineId, offset: u64, length: u32) -> Result<Reply> {
        self.administers(None, QUARANTINE).await?;
        let bytes = self.shared.provider.quarantine_read(&self.opener, id, offset, length).await?;
        let crc = crc32c::crc32c(&bytes);
        Ok(Reply::Data { bytes, crc })
    }

    /// Wipes it and gives it back.
    pub(super) async fn quarantine_release(&self, id: QuarantineId) -> Result<Reply> {
        self.administers(None, QUARANTINE).await?;
        let wiped_bytes = self.shared.provider.quarantine_release(&self.opener, id).await?;
        Ok(Reply::QuarantineOver { wiped_bytes })
    }

    /// Whether this client is the administrator; a refusal is on record. Who is not learns nothing else, not even
    /// whether there is such a lease.
    pub(super) async fn administers(&self, lease: Option<LeaseId>, whose: &'static str) -> Result<()> {
        if self.shared.control.principal(self.opener.proven.holder()).await.1 {
            return Ok(());
        }
        let entry = self.opener.identified(Draft::deny(Entry::LeaseDeny, Code::Denied));
        self.shared.rejects.deny(self.opener.origin.source(), entry.maybe(lease, Draft::lease));
        Err(Error::new(Code::Denied, whose))
    }
}
