//! What can happen: a closed list. A new event needs a new entry version.

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// What an entry records.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Event { $($(#[$doc])* $name,)* }

        impl Event {
            /// Every event.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in entries.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The event of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$name),)* _ => None }
            }
        }
    };
}

events! {
    /// An owner asks to share.
    ShareOffer = "share.offer";
    /// The broker allowed the share and bound it to the receiver.
    ShareIssue = "share.issue";
    /// The receiver accepted with its own key.
    ShareAccept = "share.accept";
    /// The receiver opened the share at the provider.
    ShareOpen = "share.open";
    /// The share ended, and with it all that was delegated from it.
    ShareEnd = "share.end";
    /// An access outside what is mapped or leased.
    FaultAccess = "fault.access";
    /// An access that the right does not allow.
    FaultRight = "fault.right";
    /// A message that the protocol does not allow.
    FaultProtocol = "fault.protocol";
    /// A holder went past a quota in a way that only a defect or an attack explains.
    FaultQuota = "fault.quota";
    /// A holder's process ended.
    HolderExit = "holder.exit";
    /// A token was turned into a lease at a provider.
    LeaseClaim = "lease.claim";
    /// A holder gave a lease back.
    LeaseRelease = "lease.release";
    /// Memory was set aside because it could not be proved clean.
    RegionQuarantine = "region.quarantine";
    /// The log was opened; says what recovery found.
    LogStart = "log.start";
    /// The log was closed in order.
    LogStop = "log.stop";
    /// A key took another's place, or is believed no longer: the log's, named by `vkey`, or one that mints tokens, named
    /// by `root`.
    KeyRotate = "key.rotate";
    /// A policy took effect.
    PolicyLoad = "policy.load";
    /// A configuration took effect.
    ConfigLoad = "config.load";
    /// A node joined.
    NodeJoin = "node.join";
    /// A node left.
    NodeLeave = "node.leave";
    /// Memory was reserved for a lease.
    LeaseOffer = "lease.offer";
    /// A lease was granted and its token minted.
    LeaseGrant = "lease.grant";
    /// A right became narrower: a narrower token was first seen, or a part of a grant was taken back.
    LeaseAttenuate = "lease.attenuate";
    /// A lease's time was extended.
    LeaseRenew = "lease.renew";
    /// A right was opened by a session.
    LeaseOpen = "lease.open";
    /// A right was closed; carries the sums of what was done with it.
    LeaseClose = "lease.close";
    /// A right was taken back.
    LeaseRevoke = "lease.revoke";
    /// A lease's time ended.
    LeaseExpire = "lease.expire";
    /// A request about a lease was denied.
    LeaseDeny = "lease.deny";
    /// A token was refused.
    TokenReject = "token.reject";
    /// Refusals of one kind, counted.
    RejectBurst = "reject.burst";
    /// A quota said no.
    QuotaDeny = "quota.deny";
    /// A provider is gone, and with it the memory.
    ProviderLost = "provider.lost";
    /// A new life of the control plane.
    EpochBump = "epoch.bump";
    /// A time in which nothing could be recorded.
    AuditGap = "audit.gap";
    /// The wall clock stepped.
    TimeStep = "time.step";
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was done. The code is `OK`.
    Ok,
    /// It was refused.
    Deny,
    /// It failed.
    Error,
}

impl Outcome {
    /// The name in entries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Deny => "deny",
            Self::Error => "error",
        }
    }

    /// The outcome of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Ok, Self::Deny, Self::Error].into_iter().find(|outcome| outcome.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_need_no_escape() {
        for &event in Event::ALL {
            assert_eq!(Event::from_name(event.name()), Some(event));
            assert!(event.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'.'));
        }
        // The list of the format, counted by hand there: a change here needs a new entry version.
        assert_eq!(Event::ALL.len(), 36);
        assert_eq!(Event::from_name("lease.grants"), None);
    }
}
