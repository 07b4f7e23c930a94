//! Regions, and the ledger of their bytes.

use std::collections::BTreeSet;

use caps::id::{GrantId, LeaseId, PrincipalKey, RegionId};
use caps::time::BootNanos;
use caps::wire::row::EndCause;

use super::event::SessionId;
use super::table::Key;

/// Names a region for as long as the kernel knows it.
pub type RegionKey = Key;

/// Where a region is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionState {
    /// Its memory is being committed and pinned. Nobody can open it.
    Building,
    /// In use.
    Live,
    /// Fenced; its memory is being taken back. Its bytes still count.
    Ending(EndCause),
}

/// One region.
#[derive(Clone, Debug)]
pub struct RegionRow {
    /// Its lease.
    pub lease: LeaseId,
    /// Its public id.
    pub region: RegionId,
    /// Who owns it.
    pub owner: PrincipalKey,
    /// Bytes committed.
    pub bytes: u64,
    /// Where it is.
    pub state: RegionState,
    /// When its lease ends; fixed at the claim, moved by renewals.
    pub deadline: BootNanos,
    /// The session it ends with.
    pub tied_to: Option<SessionId>,
    /// Size of its pages; 0 while it is being built.
    pub page_bytes: u32,
    /// Whether every page is pinned.
    pub pinned: bool,
    /// Open rights to it.
    pub opens: BTreeSet<Key>,
    /// Descriptors handed out for mapping and not closed by their holder. A holder that closed may still map, so
    /// this is a count for people; `mapped` decides.
    pub mappings: u32,
    /// Whether a descriptor of it ever left the provider: only then does ending it take a cut.
    pub mapped: bool,
    /// Grants under which a descriptor left the provider.
    pub mapped_grants: BTreeSet<GrantId>,
    /// Grants that were opened at least once.
    pub opened_grants: BTreeSet<GrantId>,
}
