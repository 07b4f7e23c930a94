//! Whose word is followed: about itself everybody's, about other nodes that of a broker.
//!
//! An address alone does not say what answers there: a node of its own, whose certificate says `provider`, is asked the same
//! things as a broker. So anybody who has a provider's certificate and stands at the broker's address is taken for a node of
//! its own, and gets what is leased there from then on, as such a node would. But it sends nobody to others, and nobody who
//! knows where a provider is shows it that one's tokens, or believes it that that one is lost.

use caps::error::{Code, Error, Result};
use caps::id::ProviderId;
use caps::wire::place::Place;
use transport::Role;

use crate::client::Client;

/// Whether what this node says of others is followed. A socket of this machine shows no certificate: whoever names it
/// chose the node.
pub(super) fn decides(node: &Client) -> bool {
    node.role() != Some(Role::Provider)
}

/// Whether a node is to be asked for what it calls a provider's, at a place that it named itself.
///
/// # Errors
/// `E_PEER_IDENTITY` if that is another node, and this one's certificate is no broker's.
pub(super) fn may_name(node: &Client, place: &Place) -> Result<()> {
    // At no address nobody is sent anywhere.
    if decides(node) || place.address.is_none() || node.node() == Some(&place.node) {
        return Ok(());
    }
    let who = node.node().map_or("", |name| name.as_str());
    Err(Error::with(
        Code::PeerIdentity,
        format!(
            "`{who}` has a provider's certificate, and speaks of the provider {place} as a broker does: check that this is the \
             broker's address; a broker's certificate has the role broker"
        ),
    ))
}

/// Whether a node is the very life that has the memory of a token, as far as it says so now; where somebody said before
/// what that one is called, it has to have the name.
pub(super) fn has(node: &Client, provider: ProviderId, place: Option<&Place>) -> bool {
    let named = match (place, node.node()) {
        (Some(place), Some(name)) => place.node == *name,
        _ => true,
    };
    // All zeros stand for no provider, and no token of one is anybody's.
    named && provider != ProviderId::NOBODY && node.provider() == provider
}
