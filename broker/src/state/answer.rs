//! What applying a command comes to.

use audit::Draft;
use caps::Result;
use caps::id::{LeaseId, ProviderId};
use caps::share::Rest;
use caps::time::{Micros, UnixMicros};
use caps::token::Terms;
use caps::wire::link::{ClaimTicket, Take};
use caps::wire::row::{DonationRow, EndCause, GrantRow, LeaseRow, TransferRow};

use super::membership::Whereabouts;

/// The outcome of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Applied {
    /// What to tell whoever asked. An error changed nothing but the count of refusals (and ends a grant that could
    /// not be issued).
    pub answer: Result<Answer>,
    /// What to record, in this order, before anybody is told.
    pub entries: Vec<Draft>,
    /// What the runtime must do.
    pub effects: Vec<Effect>,
}

/// A yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done, and there is nothing to say.
    Done,
    /// Capacity is set aside: exchange the ticket at this provider.
    Reserved(ClaimTicket, ProviderId),
    /// A lease lives, or lives longer.
    Leased {
        /// As lists show it.
        lease: LeaseRow,
        /// What its token says.
        terms: Terms,
        /// When it would have ended before a renewal.
        before: UnixMicros,
    },
    /// A grant was offered or issued.
    Shared(GrantRow),
    /// A grant was accepted.
    Accepted {
        /// As lists show it.
        grant: GrantRow,
        /// What the receiver's token says.
        terms: Terms,
    },
    /// Rights were taken back. The effects hold what the provider has to do before that may be acknowledged.
    Ending {
        /// Leases whose memory is going back, by this command or by one before.
        leases: Vec<LeaseId>,
    },
    /// All that was to be revoked had ended before. As [`Self::Ending`] but for that.
    EndedBefore {
        /// Leases whose memory is still going back.
        leases: Vec<LeaseId>,
    },
    /// A part of a grant was taken back. As for [`Self::Ending`], the effects come before the acknowledgement.
    Narrowed {
        /// What it still gives.
        left: Rest,
        /// Whether that is what it gave before.
        again: bool,
    },
    /// Quota was lent, or is going back: the donation as it is now.
    Donated {
        /// As lists show it.
        row: DonationRow,
        /// Whether that is what it was before.
        again: bool,
    },
    /// A lease was offered to another owner, or is not any more.
    Transfer(TransferRow),
    /// An offer was accepted: have the provider do this, then order [`Kind::TransferDone`], or [`Kind::TransferBack`] if
    /// it refused.
    ///
    /// [`Kind::TransferDone`]: super::Kind::TransferDone
    /// [`Kind::TransferBack`]: super::Kind::TransferBack
    HandingOver {
        /// What makes the provider go over to the new owner.
        give: Take,
        /// What makes it go back, if it did.
        back: Take,
        /// Where the lease is.
        at: Whereabouts,
    },
    /// A provider was heard: tell it this, in this order, and order [`Kind::Told`] for each that it answers.
    ///
    /// [`Kind::Told`]: super::Kind::Told
    Heard {
        /// What it did not answer before.
        untold: Vec<(Take, EndCause)>,
    },
    /// A provider came, or was given up: this life of it is over, if there was one.
    Over(Option<ProviderId>),
}

/// What the runtime must do because of a command, at the provider of the lease: [`Broker::whereabouts`] as it is right
/// after the command. Both may be done twice without harm.
///
/// [`Broker::whereabouts`]: super::Broker::whereabouts
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make the provider take something back.
    Take(Take, EndCause),
    /// Make the provider's deadline of a lease `ttl` from now.
    Renew(LeaseId, Micros),
}

/// Collects entries and effects while a command is applied.
#[derive(Debug, Default)]
pub(super) struct Out {
    pub(super) entries: Vec<Draft>,
    pub(super) effects: Vec<Effect>,
}
