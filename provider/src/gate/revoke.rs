//! The request to take back a token below its grant. The gate has the keys that say what a token is; the control plane
//! has the books that say whose it is.

use caps::error::Result;
use caps::token::Token;
use caps::wire::{Reason, Reply};

use super::visitor::Visitor;

impl Visitor {
    /// Verifies the token as for opening it, and hands on what is to be taken back. A token whose time is over, or that
    /// is bound to another key, can be shown as well: nothing is opened by it.
    pub(super) async fn revoke_token(&mut self, token: &Token, block: u8, reason: Reason) -> Result<Reply> {
        let cut = self.verified(token).await?.cut(block)?;
        self.shared.control.revoke_token(self.caller(), cut, reason).await
    }
}
