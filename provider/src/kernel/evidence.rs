//! What must be shown before a right is opened.
//!
//! ```text
//!  VerifiedToken ──authorize──▶ [Authorized]   each operation on the bytes     ┐
//!        └──Config::epoch_current──▶ EpochCurrent   these lives, not earlier   ├──▶ OpenRequest ──▶ Event::Open
//!  Kernel::within_quota ──▶ WithinQuota   room for one more, perhaps mapped    ┘
//! ```
//! An [`OpenRequest`] has no other constructor outside of this crate, so a mapping without a verified signature, a
//! current epoch and a quota that was asked does not compile. None of it says that the right is still there when it
//! is opened: that it is neither revoked nor due, and that its counts are not used up, is judged by the kernel in the
//! step that opens it.

use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::range::ByteRange;
use caps::rights::Rights;
use caps::time::UnixMicros;
use caps::token::{Authorized, Limit, VerifiedToken};
use caps::wire::request::Path;
use policy::{Quota, WithinQuota};

use super::event::{OpenRequest, SessionId};
use super::{Config, Kernel};

/// Evidence that a verified token is of these lives of the control plane and of the provider. Made by
/// [`Config::epoch_current`] and nowhere else; it lasts as long as it borrows the token.
///
/// Not from a token whose signatures nobody verified:
/// ```compile_fail
/// fn hasty(config: &provider::kernel::Config, gated: &caps::token::Gated) -> caps::Result<()> {
///     config.epoch_current(gated).map(drop)
/// }
/// ```
/// and not by hand:
/// ```compile_fail
/// fn forge(token: &caps::token::VerifiedToken) -> provider::kernel::EpochCurrent<'_> {
///     provider::kernel::EpochCurrent { token }
/// }
/// ```
/// but so:
/// ```
/// fn honest(config: &provider::kernel::Config, verified: &caps::token::VerifiedToken) -> caps::Result<()> {
///     config.epoch_current(verified).map(drop)
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "an epoch that nobody looks at protects nothing"]
pub struct EpochCurrent<'t> {
    token: &'t VerifiedToken,
}

impl Config {
    /// Checks that a token was minted in this life of the control plane and for this life of the provider.
    ///
    /// # Errors
    /// `E_EPOCH` for another life of the control plane, `E_DENIED` for another provider.
    pub fn epoch_current<'t>(&self, token: &'t VerifiedToken) -> Result<EpochCurrent<'t>> {
        let terms = token.terms();
        if terms.cluster != self.cluster {
            return Err(Limit::Cluster.into());
        }
        if terms.provider != self.provider {
            return Err(Limit::Provider.into());
        }
        Ok(EpochCurrent { token })
    }
}

impl Kernel {
    /// Asks the quota of `payer`, the first holder of a token, for one more open right by `path`.
    ///
    /// # Errors
    /// `E_QUOTA`.
    pub fn within_quota(&self, payer: PrincipalKey, quota: &Quota, path: Path) -> Result<WithinQuota> {
        self.openings(payer).ask(payer, quota, path == Path::Mapped)
    }
}

/// Who opens: facts that the gate established.
#[derive(Clone, Copy, Debug)]
pub struct By {
    /// The session.
    pub session: SessionId,
    /// The uid of its process, if it is one of this machine's.
    pub uid: Option<u32>,
    /// Whether its process runs in the sandbox, and its word for it counts.
    pub sandboxed: bool,
}

impl OpenRequest {
    /// A right to what was authorized, of the token whose epoch was checked, by the path that the quota was asked for.
    /// `now` is the wall time.
    ///
    /// Nothing else makes a request outside of this crate:
    /// ```compile_fail
    /// fn forge(honest: provider::kernel::OpenRequest) -> provider::kernel::OpenRequest {
    ///     provider::kernel::OpenRequest { rights: caps::rights::Rights::READ_WRITE, ..honest }
    /// }
    /// ```
    /// and nothing is left out:
    /// ```compile_fail
    /// # use provider::kernel::{By, EpochCurrent, OpenRequest};
    /// # use caps::{time::UnixMicros, token::Authorized};
    /// # use policy::WithinQuota;
    /// fn hasty(all: &[Authorized], epoch: EpochCurrent<'_>, by: By) -> caps::Result<OpenRequest> {
    ///     OpenRequest::new(all, epoch, by, UnixMicros(0))
    /// }
    /// ```
    /// ```
    /// # use provider::kernel::{By, EpochCurrent, OpenRequest};
    /// # use caps::{time::UnixMicros, token::Authorized};
    /// # use policy::WithinQuota;
    /// fn honest(
    ///     all: &[Authorized], epoch: EpochCurrent<'_>, quota: WithinQuota, by: By,
    /// ) -> caps::Result<OpenRequest> {
    ///     OpenRequest::new(all, epoch, quota, by, UnixMicros(0))
    /// }
    /// ```
    ///
    /// # Errors
    /// `E_INTERNAL` if the evidence is not all of one token, or there is none.
    pub fn new(
        authorized: &[Authorized],
        epoch: EpochCurrent<'_>,
        quota: WithinQuota,
        by: By,
        now: UnixMicros,
    ) -> Result<Self> {
        let token = epoch.token;
        let (terms, chain, left) = (token.terms(), token.chain(), token.effective());
        let first = authorized.first().ok_or(Error::new(Code::Internal, "nothing was authorized"))?;
        let of_token = |one: &Authorized| {
            (one.lease(), one.region(), one.holder()) == (terms.lease, terms.region, chain.holder)
                && one.effective() == left
                && one.range() == first.range()
        };
        if !authorized.iter().all(of_token) || quota.payer() != chain.first_holder {
            return Err(Error::new(Code::Internal, "the evidence for an opening is not of one token"));
        }
        let rights = |sum: Rights, one: &Authorized| sum.union(Rights::of(one.operation()));
        let rights = authorized.iter().fold(Rights::NONE, rights);
        Ok(Self::of_token(token, rights, first.range(), quota, by, now))
    }

    /// A right as a verified token gives it, without evidence that it does: to be judged, not to be opened.
    pub(crate) fn of_token(
        token: &VerifiedToken,
        rights: Rights,
        range: ByteRange,
        quota: WithinQuota,
        by: By,
        now: UnixMicros,
    ) -> Self {
        let (terms, chain, left) = (token.terms(), token.chain(), token.effective());
        Self {
            session: by.session,
            uid: by.uid,
            sandboxed: by.sandboxed,
            holder: chain.holder,
            lease: terms.lease,
            grant: terms.grant,
            rights,
            range,
            expires: left.expires,
            minted_until: terms.expires,
            now_unix: now,
            metered: left.mediated_only(),
            narrowed: left.expires < terms.expires || !chain.hops.is_empty(),
            first_holder: chain.first_holder,
            delegate: chain.hops.first().map(|hop| hop.to),
            path: if quota.mapped() { Path::Mapped } else { Path::Mediated },
            marks: token.marks().into(),
            meters: token.meters().into(),
            root: token.root_key_id(),
            not_before: terms.not_before,
            quota,
        }
    }
}
