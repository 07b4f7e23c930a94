//! The requests to hand a token over through the node, so that it is seen if somebody else has fetched it.
//!
//! Each is on record before it is answered. What names the token in the log is its HMAC, the same in the entry of its
//! wrap, of its fetch and of every refusal; the wrap's id is in none, because who reads the log could fetch by it.
//!
//! | entry | cause | says |
//! |---|---|---|
//! | `lease.attenuate` | `wrap` | who put it in, for whom, until when |
//! | `lease.attenuate` | `unwrap` | who fetched it |
//! | `lease.deny` | `unwrap_again` | who asked after that, and in `receiver` and `first_time` who had fetched it, and when |
//! | `lease.deny` | `unwrap_foreign` | who asked for what is another's, named in `receiver`: that one can still fetch it |
//! | `lease.deny` | `unwrap_unknown`, `wrap_show` | who asked by an id that is none, or for what it did not put in |

use audit::{Draft, Event as Entry};
use caps::error::{Code, Error, Result};
use caps::id::PrincipalKey;
use caps::time::Micros;
use caps::token::{Limit, Token, VerifiedToken};
use caps::wire::Reply;
use caps::wire::wrap::{Fetched, WrapId};
use policy::limits::{WRAP_TTL_MS_MAX, WRAP_TTL_MS_MIN};

use super::check::has_held;
use super::visitor::Visitor;
use super::wraps::{About, Refusal};

/// One answer for what never was, what is over and what is somebody else's: an id that was guessed teaches nothing.
const UNKNOWN: Error = Error::new(
    Code::GrantUnknown,
    "there is no such wrap, or its time is over, or it is not for the key of this session",
);

impl Visitor {
    /// Takes a token in. It must be good, and whoever wraps it must have held it: this is no store for anything else.
    pub(super) async fn wrap(&self, token: Token, to: Option<PrincipalKey>, ttl: Micros) -> Result<Reply> {
        // Not remembered as those that are opened are: the only copy is the table's.
        let verified = self.verified_in_turn(&token).await?;
        let me = self.opener.proven.holder();
        if !has_held(&verified, me) {
            let error = Error::from(Limit::Holder);
            self.denied(&token, Some(&verified), &error);
            return Err(error);
        }
        let expires_in = self.wrap_span(&token, &verified, ttl)?;
        let (shared, opener) = (self.shared.clone(), self.opener);
        let (provider, terms) = (&shared.provider, *verified.terms());
        let (now, since) = (provider.clock().boot(), provider.clock().unix());
        let about = About {
            by: me,
            to,
            payer: verified.chain().first_holder,
            lease: terms.lease,
            grant: terms.grant,
            hmac: provider.salt().token(token.as_bytes()),
            since,
            until: now.plus(expires_in),
        };
        let entry = about.entry(Draft::ok(Entry::LeaseAttenuate).cause("wrap"));
        let entry = entry.maybe(to, Draft::receiver).holder(verified.chain().holder);
        let entry = opener.identified(entry.ttl_us(expires_in).expires(since.plus(expires_in)));
        // A task of its own: what was put in is on record or forgotten, also when the client hangs up meanwhile.
        let wrapped = tokio::spawn(async move {
            let id = shared.wraps.put(now, about, token)?;
            if let Err(error) = shared.provider.record(entry).await {
                shared.wraps.forget(id);
                return Err(error);
            }
            Ok(Reply::Wrapped { id, expires_in })
        });
        wrapped.await.unwrap_or(Err(panicked()))
    }

    /// How long it may wait: as long as was asked for, at most as long as the token lives.
    fn wrap_span(&self, token: &Token, verified: &VerifiedToken, ttl: Micros) -> Result<Micros> {
        if !(WRAP_TTL_MS_MIN..=WRAP_TTL_MS_MAX).contains(&ttl.as_millis())
            || ttl > Micros::from_millis(WRAP_TTL_MS_MAX)
        {
            return Err(Error::new(Code::Range, "a token is wrapped for 1 ms to 10 minutes"));
        }
        let state = self.shared.provider.check(token, verified)?;
        // What a right of it would live may be more: its lease was renewed, and the token was not.
        let left = verified.effective().expires.since(self.shared.provider.clock().unix());
        match state.code {
            None => Ok(ttl.min(state.expires_in).min(left)),
            // It may be handed over before its time has come.
            Some(Code::TokenNotYet) => Ok(ttl.min(left)),
            Some(code) => {
                let error = Error::from(code);
                self.denied(token, Some(verified), &error);
                Err(error)
            }
        }
    }

    /// Gives a token out, once.
    pub(super) async fn unwrap(&self, id: WrapId) -> Result<Reply> {
        let (shared, opener) = (self.shared.clone(), self.opener);
        let (me, clock) = (opener.proven.holder(), shared.provider.clock());
        let at = clock.unix();
        let (token, about) =
            shared.wraps.take(clock.boot(), id, me).map_err(|refusal| self.not_unwrapped(refusal))?;
        let entry = about.entry(Draft::ok(Entry::LeaseAttenuate).cause("unwrap"));
        let entry = opener.identified(entry.maybe(about.to, Draft::receiver));
        // A task of its own: it is put back, or on record as fetched, whether or not the client waits. One that hangs up
        // before the answer reaches it has fetched the token.
        let unwrapped = tokio::spawn(async move {
            if let Err(error) = shared.provider.record(entry).await {
                shared.wraps.stay(id, token);
                return Err(error);
            }
            shared.wraps.fetched(id, Fetched { by: me, at });
            Ok(Reply::Unwrapped { token })
        });
        unwrapped.await.unwrap_or(Err(panicked()))
    }

    /// Records that a token was not given, and says what the client is told.
    fn not_unwrapped(&self, refusal: Refusal) -> Error {
        let (about, cause, error) = match refusal {
            Refusal::Leaving => {
                return Error::new(
                    Code::Busy,
                    "the token is being fetched at this moment; ask again who has it",
                );
            }
            Refusal::Unknown => (None, "unwrap_unknown", UNKNOWN),
            Refusal::Foreign(about) => (Some((*about, about.to, None)), "unwrap_foreign", UNKNOWN),
            Refusal::Again(about, first) => {
                (Some((*about, Some(first.by), Some(first.at))), "unwrap_again", fetched_before(first))
            }
        };
        let mut entry = self.opener.identified(Draft::deny(Entry::LeaseDeny, error.code()).cause(cause));
        if let Some((about, receiver, first)) = about {
            entry = about.entry(entry).maybe(receiver, Draft::receiver).maybe(first, Draft::first_time);
        }
        self.shared.rejects.deny(self.opener.origin.source(), entry);
        error
    }

    /// Says what became of a token, to whoever put it in and the administrator.
    pub(super) async fn wrap_show(&self, id: WrapId) -> Result<Reply> {
        let me = self.opener.proven.holder();
        let admin = self.shared.control.principal(me).await.1;
        let row = self.shared.wraps.show(self.shared.provider.clock().boot(), id);
        if let Some(row) = row.filter(|row| admin || row.by == me) {
            return Ok(Reply::Wrap(row));
        }
        let entry = Draft::deny(Entry::LeaseDeny, UNKNOWN.code()).cause("wrap_show");
        self.shared.rejects.deny(self.opener.origin.source(), self.opener.identified(entry));
        Err(UNKNOWN)
    }
}

impl About {
    /// What every entry says of it.
    fn entry(&self, entry: Draft) -> Draft {
        entry.lease(self.lease).maybe(self.grant, Draft::grant).token_hmac(self.hmac)
    }
}

/// What tells an honest receiver that somebody else was first.
fn fetched_before(Fetched { by, at }: Fetched) -> Error {
    let mut when = String::new();
    audit::text::push_time(&mut when, at);
    Error::with(Code::Denied, format!("the token was fetched before, at {when}, by the key {by}"))
}

fn panicked() -> Error {
    Error::new(Code::Internal, "handing a token over panicked")
}
