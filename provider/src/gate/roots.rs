//! The administrator's requests about root keys. Who keeps the keys answers them, behind the control plane.

use caps::error::Result;
use caps::wire::{Reply, Request};

use super::visitor::Visitor;

impl Visitor {
    /// Hands on what only the administrator may ask.
    pub(super) async fn root_request(&self, request: Request) -> Result<Reply> {
        self.administers(None, "root keys are the administrator's").await?;
        let (shared, caller) = (self.shared.clone(), self.caller());
        shared.control.request(caller, request).await
    }
}
