//! The blocking client.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::{DonationId, GrantId, LeaseId, PrincipalKey, ProviderId, QuarantineId, TransferId};
use caps::key::SigningKey;
use caps::limits::{VALUE_BYTES_MAX, VALUE_BYTES_MIN};
use caps::receipt::Receipt;
use caps::rights::Rights;
use caps::share::{ShareContract, TransferContract};
use caps::token::Token;
use caps::wire::place::Place;
use caps::wire::remote::leases::{self, Created};
use caps::wire::reply::{TokenState, Welcome};
use caps::wire::request::Path;
use caps::wire::row::{
    DonationRow, GrantRow, LeaseRow, Lifetime, NodeStatus, PrincipalRow, QuarantineRow, QuotaRow, RootRow,
    Target, TransferRow,
};
use caps::wire::wrap::{WrapId, WrapRow};
use caps::wire::{Name, Reason};
use transport::Role;

use crate::calls::{self, Call, Cursor, Row};
use crate::endpoint;
use crate::endpoint::{Endpoint, ROTATION_WAIT_MAX};
use crate::inherited;
use crate::lease::{LeaseOptions, LeaseView, Leased, checked, micros};
use crate::local::Local;
use crate::mediated::{Mediated, Memory};
use crate::ownership::{self, TakenOver, TransferProposal};
use crate::region::{OpenRight, Opening, Region, chunks, take_chunk};
use crate::remote;
use crate::session::link::Link;
use crate::share::{Accepted, Narrowing, Proposal, ShareOptions};
use crate::wrap::{self, Wrapped};

/// A session with a node, for programs that wait. [`crate::aio::Client`] has the same methods for those that do not.
///
/// It can be shared between threads, which then take turns: a node answers a session's requests one after another.
/// Open a second session for requests that must not wait behind the first one's.
pub struct Client {
    session: Session,
    welcome: Welcome,
    holder: PrincipalKey,
}

/// What the client and everything that it opened share.
#[derive(Clone)]
enum Session {
    /// Over the socket of a node on this machine.
    Local(Arc<Local>),
    /// Over TLS.
    Remote(Arc<remote::Session>),
}

impl Client {
    /// Connects and proves possession of `key`.
    ///
    /// On a socket the key is not kept: the calls that sign ask for it again. Over TLS a copy is, in memory that is wiped
    /// at the end, to prove it again when the connection is lost.
    ///
    /// # Errors
    /// `E_UNREACHABLE` if there is no node at the endpoint; `E_TIMEOUT` if it does not answer; `E_PEER_UID` if this
    /// user may not talk to it; `E_PEER_IDENTITY` if one of the certificates is not believed, or is not that of who was
    /// meant; `E_POSSESSION` if it does not accept the proof; `E_PROTOCOL`, `E_FRAME_*` if it is no node of this release.
    pub fn connect(endpoint: &Endpoint, key: &SigningKey) -> Result<Self> {
        let (session, welcome) = match endpoint.place() {
            endpoint::Place::Unix(path) => {
                let (local, welcome) = Local::connect(path, endpoint, key)?;
                (Session::Local(Arc::new(local)), welcome)
            }
            endpoint::Place::Tls { address, credentials } => {
                let (remote, welcome) = remote::Session::connect(address, credentials, endpoint, key)?;
                (Session::Remote(Arc::new(remote)), welcome)
            }
        };
        Ok(Self { session, welcome, holder: key.public() })
    }

    /// Goes on with the session of the program that started this one: `leasehold run` leaves it behind. There is one a
    /// process, for opening, reading, writing and closing; the node refuses it everything else.
    ///
    /// # Errors
    /// `E_UNREACHABLE` if this process was started otherwise, if the session was taken already, or if the node is
    /// gone; `E_TIMEOUT` if it does not answer.
    pub fn inherited() -> Result<Self> {
        let link = Arc::new(Link::new(inherited::session()?, ROTATION_WAIT_MAX));
        let (local, holder, welcome) = Local::confined(link)?;
        Ok(Self { session: Session::Local(Arc::new(local)), welcome, holder })
    }

    /// Tells the node that a program in the sandbox goes on with this session, and gives up its socket for it. That
    /// program gets no key, and cannot ask for anything but memory. Whatever was opened here before ends with this
    /// process' last hold on it.
    ///
    /// # Errors
    /// Those of any request; `E_SYSTEM` if there is no descriptor to be had; `E_MEDIATED_ONLY` over TLS.
    pub fn hand_over(self) -> Result<OwnedFd> {
        let local = self.session.local("a session over TLS stays in the process that began it")?;
        local.call(calls::confine())?;
        local.link.hand_over()
    }

    /// The life of the node's provider that was there last: a node that was started again is another one, and a session over
    /// TLS goes on with it. [`Self::welcome`] says which was there first.
    #[must_use]
    pub fn provider(&self) -> ProviderId {
        match &self.session {
            Session::Local(_) => self.welcome.provider,
            Session::Remote(session) => session.life().1,
        }
    }

    /// The name in the certificate of the node; `None` at a socket, which shows none.
    #[must_use]
    pub fn node(&self) -> Option<&Name> {
        match &self.session {
            Session::Local(_) => None,
            Session::Remote(session) => session.node(),
        }
    }

    /// The role in the certificate of the node: broker or provider; `None` at a socket, which shows none.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match &self.session {
            Session::Local(_) => None,
            Session::Remote(session) => session.role(),
        }
    }

    /// What the node said at the start: its lives, the caller's name, the tier of the caller's mappings.
    #[must_use]
    pub const fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Where a provider is: of any life that the broker knows. Whoever has a token knows the id of its provider.
    ///
    /// # Errors
    /// `E_PROVIDER_LOST`, `E_EPOCH` or the like if that life is over; `E_WRONG_NODE` from a node that is no broker.
    pub fn provider_show(&self, provider: ProviderId) -> Result<Place> {
        self.session.call(calls::provider_show(provider))
    }

    /// Whether nothing can be asked here any more: the node hung up its socket. A session over TLS is made anew.
    pub(crate) fn is_over(&self) -> bool {
        match &self.session {
            Session::Local(session) => session.is_over(),
            Session::Remote(_) => false,
        }
    }

    /// The key that this session proved.
    #[must_use]
    pub const fn holder(&self) -> PrincipalKey {
        self.holder
    }

    /// Leases memory: it is committed, and the token minted, when this returns.
    ///
    /// # Errors
    /// `E_QUOTA`, `E_NOMEM`, `E_RANGE`, `E_POLICY_DENIED`, `E_EXISTS` (the name), `E_PRINCIPAL_UNKNOWN`;
    /// `E_UNCERTAIN` if no answer came.
    pub fn lease(&self, options: LeaseOptions) -> Result<Leased> {
        self.session.call(calls::lease_create(options.spec()?))
    }

    /// Moves a lease's end to `ttl` from now, at most what the node allows, and brings a token for the new end.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN`, `E_LEASE_EXPIRED`, `E_RANGE`; `E_UNCERTAIN` if no answer came.
    pub fn renew(&self, lease: LeaseId, ttl: Duration) -> Result<Leased> {
        self.session.call(calls::lease_renew(lease, micros(ttl)?))
    }

    /// Gives a lease back before its time. Its memory is wiped when this returns.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN`; `E_CONTRACT_SIG` if the receipt is not signed; `E_UNCERTAIN` if no answer came.
    pub fn release(&self, lease: LeaseId) -> Result<Receipt> {
        self.session.call(calls::lease_release(lease)).and_then(checked)
    }

    /// The caller's leases, or everyone's for the administrator, fetched page by page.
    pub fn leases(&self) -> impl Iterator<Item = Result<LeaseRow>> + use<'_> {
        Rows { session: &self.session, cursor: Cursor::new() }
    }

    /// One lease, with what the provider knows of its memory.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN`.
    pub fn lease_show(&self, lease: LeaseId) -> Result<LeaseView> {
        self.session.call(calls::lease_show(lease))
    }

    /// Steps 1 and 2 of `MEM_SHARE`: signs the contract as the owner, and the node issues the grant. Nobody can use
    /// it until the receiver accepts. Where the options name a co-signer, it is issued once that one has signed: see
    /// [`Client::share_cosign`].
    ///
    /// # Errors
    /// `E_DENIED`, `E_POLICY_DENIED`, `E_QUOTA`, `E_PRINCIPAL_UNKNOWN`, `E_RANGE`; `E_UNCERTAIN` if no answer came.
    pub fn share_offer(
        &self,
        lease: &LeaseRow,
        options: &ShareOptions,
        key: &SigningKey,
    ) -> Result<GrantRow> {
        let contract = options.contract(self.welcome.cluster, lease)?;
        self.session.call(calls::share_offer(contract, key))
    }

    /// What accepting a grant would sign. Look at it before [`Client::share_accept`].
    ///
    /// # Errors
    /// `E_GRANT_UNKNOWN`; `E_PROTOCOL` if the node's contract is not that of the grant.
    pub fn share_show(&self, grant: GrantId) -> Result<Proposal> {
        self.session.call(calls::share_show(grant))?.checked(grant, self.welcome.cluster)
    }

    /// Step 3: signs the contract as the receiver, exactly as it is given here. The token opens the memory.
    ///
    /// # Errors
    /// `E_GRANT_UNKNOWN`, `E_SHARE_ORDER`; `E_CONTRACT_SIG`, also if the node sends a signature that is not the owner's;
    /// `E_UNCERTAIN` if no answer came.
    pub fn share_accept(
        &self,
        contract: &ShareContract,
        lifetime: Lifetime,
        key: &SigningKey,
    ) -> Result<Accepted> {
        let by_receiver = contract.sign(key);
        let receiving = self.session.call(calls::share_accept(contract.grant, by_receiver, lifetime))?;
        receiving.accepted(contract, by_receiver)
    }

    /// Takes a part of a grant back: rights, bytes or time. When this returns, nothing beyond the rest can be reached
    /// by any path, and the rest goes on: a mapping of the receiver's that may stay is moved to fresh memory with the
    /// same bytes. The receipt says what is left. Once more is no error, and what was taken is not given again.
    ///
    /// # Errors
    /// `E_GRANT_UNKNOWN`; `E_DENIED` for a right that the grant does not give and for whoever is not its owner;
    /// `E_RANGE` if it is no part of what is left, or nothing would be; `E_SHARE_ORDER` if it is over;
    /// `E_CONTRACT_SIG` if the receipt is not signed; `E_UNCERTAIN` if no answer came.
    pub fn share_narrow(&self, grant: GrantId, narrowing: Narrowing) -> Result<Receipt> {
        self.session.call(calls::share_narrow(grant, narrowing)?).and_then(checked)
    }

    /// The grants that the caller offered or was offered, fetched page by page.
    pub fn shares(&self) -> impl Iterator<Item = Result<GrantRow>> + use<'_> {
        Rows { session: &self.session, cursor: Cursor::new() }
    }

    /// Takes rights back. When this returns, nothing of them can be reached by any path.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN` or `E_GRANT_UNKNOWN`, `E_NOT_ADMIN`; `E_CONTRACT_SIG` if the receipt is not signed;
    /// `E_UNCERTAIN` if no answer came.
    pub fn revoke(&self, target: Target, reason: Reason) -> Result<Receipt> {
        self.session.call(calls::revoke(target, reason)).and_then(checked)
    }

    /// Takes one block of a token back, the authority block being 0, with all that was made of it; the rest of its grant
    /// lives on. When this returns, nothing of it can be reached by any path. The token need not be bound to this
    /// client's key: the lease's owner, both sides of the grant and whoever held the token up to that block may ask.
    ///
    /// A delegation that was taken back cannot be appended again, not even by who made it: to the same person with the
    /// very same narrowing it is the same. One that differs in anything is another.
    ///
    /// # Errors
    /// `E_DENIED`; `E_RANGE` if the token has no such block; `E_TOKEN_SIG` and the like if it is no token of this node's;
    /// `E_QUOTA` if those who only hold tokens of the lease took back too many of them; `E_LEASE_UNKNOWN`;
    /// `E_CONTRACT_SIG` if the receipt is not signed; `E_UNCERTAIN` if no answer came.
    pub fn revoke_token(&self, token: &Token, block: u8, reason: Reason) -> Result<Receipt> {
        self.session.call(calls::revoke_token(token, block, reason)).and_then(checked)
    }

    /// Takes a lease's region from everybody, as [`Client::revoke`] does, and has its bytes kept as they were, for an
    /// investigator. The receipt says how many are kept: none if the region was already going back. Administrator only.
    ///
    /// # Errors
    /// `E_DENIED`; `E_LEASE_UNKNOWN` if there is no memory of it; `E_NOMEM` if quarantine has no room for it, and then
    /// nothing is taken; `E_UNCERTAIN` if no answer came.
    pub fn quarantine_add(&self, lease: LeaseId, reason: Reason) -> Result<Receipt> {
        self.session.call(calls::quarantine_add(lease, reason)).and_then(checked)
    }

    /// What is in quarantine. Administrator only.
    ///
    /// # Errors
    /// `E_DENIED`.
    pub fn quarantine(&self) -> Result<Vec<QuarantineRow>> {
        self.session.call(calls::quarantine_list())
    }

    /// Wipes something in quarantine and gives its bytes back to the pool. Returns the bytes wiped. Administrator only.
    ///
    /// # Errors
    /// `E_DENIED`; `E_LEASE_UNKNOWN` if there is no such thing; `E_SYSTEM` if it cannot be wiped, and then it stays;
    /// `E_AUDIT_UNAVAILABLE`; `E_UNCERTAIN` if no answer came.
    pub fn quarantine_release(&self, id: QuarantineId) -> Result<u64> {
        self.session.call(calls::quarantine_release(id))
    }

    /// Fills `buffer` from `offset` of the region of something in quarantine. Each piece of 64 KiB is a request and an
    /// entry of the log. Administrator only.
    ///
    /// # Errors
    /// `E_DENIED`; `E_LEASE_UNKNOWN` if there is no such thing; `E_RANGE` for bytes that are not kept or cannot be read;
    /// `E_AUDIT_UNAVAILABLE`; `E_CHECKSUM`. Some first part of `buffer` may be filled.
    pub fn quarantine_read(&self, id: QuarantineId, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none() {
            return Err(Error::new(Code::Range, "these bytes lie outside of every region"));
        }
        for (at, place) in chunks(offset, buffer.len()) {
            let place = &mut buffer[place];
            // A chunk's length fits 32 bits many times over.
            let (bytes, crc) = self.session.call(calls::quarantine_read(id, at, place.len() as u32))?;
            take_chunk(place, &bytes, crc)?;
        }
        Ok(())
    }

    /// Draws a new root key, which mints from now on. The one before is believed until its last token has expired, and
    /// not at all any more if none of its tokens lives. Returns the keys that are believed then, the new one first.
    /// Administrator only.
    ///
    /// # Errors
    /// `E_DENIED`; `E_BUSY` if as many keys are believed as may be; `E_CONFIG_IO` if the key cannot be kept on disk;
    /// `E_AUDIT_UNAVAILABLE`: then nothing changed. `E_UNCERTAIN` if no answer came.
    pub fn root_rotate(&self) -> Result<Vec<RootRow>> {
        self.session.call(calls::root_rotate())
    }

    /// Believes a root key no longer: its tokens are refused with `E_TOKEN_UNKNOWN_KEY`, and what is open under them
    /// ends as by a revoke, which is over when this returns. Leases live on: whoever owns one renews it for a token of
    /// the key that mints. Returns the keys that are believed then. Administrator only.
    ///
    /// # Errors
    /// `E_DENIED`, also for the key that mints; `E_TOKEN_UNKNOWN_KEY` if no such key is believed;
    /// `E_AUDIT_UNAVAILABLE` if it cannot be recorded: it has taken effect all the same. `E_UNCERTAIN` if no answer
    /// came.
    pub fn root_retire(&self, id: u32) -> Result<Vec<RootRow>> {
        self.session.call(calls::root_retire(id))
    }

    /// The root keys that are believed, the one that mints first. Administrator only.
    ///
    /// # Errors
    /// `E_DENIED`.
    pub fn roots(&self) -> Result<Vec<RootRow>> {
        self.session.call(calls::root_list())
    }

    /// The node's numbers.
    ///
    /// # Errors
    /// `E_NOT_ADMIN` where the node shows them to its administrator alone.
    pub fn status(&self) -> Result<NodeStatus> {
        self.session.call(calls::status())
    }

    /// Registers a principal. Administrator only.
    ///
    /// # Errors
    /// `E_NOT_ADMIN`, `E_EXISTS`, `E_RANGE` (the key); `E_UNCERTAIN` if no answer came.
    pub fn principal_add(&self, name: Name, key: PrincipalKey) -> Result<()> {
        self.session.call(calls::principal_add(name, key))
    }

    /// The principals that the node knows, fetched page by page.
    pub fn principals(&self) -> impl Iterator<Item = Result<PrincipalRow>> + use<'_> {
        Rows { session: &self.session, cursor: Cursor::new() }
    }

    /// Maps what the token gives into this process.
    ///
    /// What travels is a sealed copy of the token. Making one costs a signature; a program that opens the same token
    /// often seals it once ([`caps::token::seal`]) and passes that.
    ///
    /// # Errors
    /// Whatever the token's judgement says (`E_TOKEN_*`, `E_DENIED`, `E_EPOCH`); `E_MEDIATED_ONLY` if the right
    /// cannot be enforced by a mapping; `E_FD_TYPE` if the node sent something that is not a lease's memory;
    /// `E_NOMEM` or `E_BUSY` if this process has no room for another mapping. Over TLS always `E_MEDIATED_ONLY`.
    pub fn open_mapped(&self, token: &Token, rights: Rights) -> Result<Region> {
        let session = self.session.local("over TLS no memory is mapped: use `open_mediated`, or `open`")?;
        session.channel()?;
        let call = calls::open(token, rights, Path::Mapped);
        let mut answer = session.ask(&call)?;
        let opened = call.read(answer.take_reply()?)?;
        let mut opening = Opening::new(session.link.clone(), opened, &mut answer)?;
        while let Some(call) = opening.ask() {
            let mut answer = session.ask(&call)?;
            opening.take(call.read(answer.take_reply()?)?, &mut answer)?;
        }
        opening.finish()
    }

    /// Opens what the token gives for reads and writes through the node.
    ///
    /// # Errors
    /// Whatever the token's judgement says (`E_TOKEN_*`, `E_DENIED`, `E_EPOCH`).
    pub fn open_mediated(&self, token: &Token, rights: Rights) -> Result<Mediated> {
        match &self.session {
            Session::Local(session) => {
                let opened = session.call(calls::open(token, rights, Path::Mediated))?;
                let right = OpenRight::new(session.link.clone(), opened);
                Ok(Mediated::local(session.clone(), right))
            }
            Session::Remote(session) => {
                remote::Right::open(session.clone(), token, rights).map(Mediated::remote)
            }
        }
    }

    /// Opens what the token gives: mapped where the right allows it, else through the node.
    ///
    /// # Errors
    /// As [`Client::open_mapped`], without `E_MEDIATED_ONLY`.
    pub fn open(&self, token: &Token, rights: Rights) -> Result<Memory> {
        match self.open_mapped(token, rights) {
            Err(error) if error.code() == Code::MediatedOnly => {
                self.open_mediated(token, rights).map(Memory::Mediated)
            }
            mapped => mapped.map(Memory::Mapped),
        }
    }

    /// What opening with this token would find now, without opening it and without a record: expired, revoked and by
    /// which block, or how long it still lives. For whoever has held it, the lease's owner and the administrator.
    ///
    /// # Errors
    /// `E_TOKEN_BOUND` for everybody else; the `E_TOKEN_*` of a token that is none of this node's.
    pub fn token_check(&self, token: &Token) -> Result<TokenState> {
        self.session.call(calls::token_check(token))
    }

    /// Puts a token into the node, to be fetched once: by `to`, or by the first who knows the id. For whoever has held it.
    ///
    /// # Errors
    /// `E_TOKEN_BOUND` for everybody else; the `E_TOKEN_*` of a token that is not good; `E_RANGE` for a time of more than
    /// 10 minutes; `E_QUOTA` if the share of this key, or of the token's first holder, is spent; `E_BUSY` if the node has
    /// as many as it may; `E_AUDIT_UNAVAILABLE`; `E_UNCERTAIN` if no answer came.
    pub fn wrap(&self, token: &Token, to: Option<PrincipalKey>, ttl: Duration) -> Result<Wrapped> {
        self.session.call(wrap::wrap(token, to, ttl)?)
    }

    /// Fetches a token that was put into the node. It works once.
    ///
    /// # Errors
    /// `E_DENIED` if it was fetched before, with when and by which key: then somebody may have been in between.
    /// `E_GRANT_UNKNOWN` if there is no such wrap, its time is over, or it is for somebody else: nothing tells these
    /// apart. `E_BUSY` if somebody fetches it at this moment; `E_AUDIT_UNAVAILABLE`, and then it is still there;
    /// `E_UNCERTAIN` if no answer came: whoever put it in can see whether it was fetched.
    pub fn unwrap(&self, id: WrapId) -> Result<Token> {
        self.session.call(wrap::unwrap(id))
    }

    /// Whether a token was fetched, by whom and when, and how often it was refused. For whoever put it in, and the
    /// administrator.
    ///
    /// # Errors
    /// `E_GRANT_UNKNOWN` for everybody else, and once its time is over.
    pub fn wrap_show(&self, id: WrapId) -> Result<WrapRow> {
        self.session.call(wrap::wrap_show(id))
    }

    /// Lends `bytes` of the caller's quota to `to`, for `ttl`: the caller may lease so much less, and `to` so much more.
    /// What `to` has leased with it when it is over stays lent until that memory is given back. Draw the id
    /// ([`DonationId::random`]): asking again with the same id and terms gives once for as long as the gift lasts, whatever
    /// became of the first answer. Once it is wholly back the id is free, and asking again gives anew.
    ///
    /// # Errors
    /// `E_QUOTA` if so much is not free, or the caller has given too often; `E_RANGE` for no bytes, to oneself, or a time
    /// outside of the node's bounds; `E_PRINCIPAL_UNKNOWN`; `E_EXISTS` if the id was used with other terms,
    /// or the gift is over and not wholly back; `E_POLICY_DENIED`; `E_BUSY` if the table is full; `E_AUDIT_UNAVAILABLE`;
    /// `E_UNCERTAIN` if no answer came.
    pub fn quota_give(
        &self,
        id: DonationId,
        to: PrincipalKey,
        bytes: u64,
        ttl: Duration,
    ) -> Result<DonationRow> {
        self.session.call(calls::quota_give(id, to, bytes, micros(ttl)?))
    }

    /// Ends a donation before its time, for its giver and the administrator. The answer says how much is still lent.
    ///
    /// # Errors
    /// `E_DONATION_UNKNOWN` if there is none of this id that the caller may end, or it is wholly back; `E_UNCERTAIN` if no answer
    /// came.
    pub fn quota_take_back(&self, id: DonationId) -> Result<DonationRow> {
        self.session.call(calls::quota_take_back(id))
    }

    /// What the caller's quota of bytes comes to.
    ///
    /// # Errors
    /// `E_PRINCIPAL_UNKNOWN`.
    pub fn quota(&self) -> Result<QuotaRow> {
        self.session.call(calls::quota())
    }

    /// The donations that the caller gave and was given, or everyone's for the administrator, fetched page by page.
    pub fn donations(&self) -> impl Iterator<Item = Result<DonationRow>> + use<'_> {
        Rows { session: &self.session, cursor: Cursor::new() }
    }

    /// Between steps 1 and 2, where the contract names this client's key as its co-signer: signs it exactly as it is given
    /// here, and the node issues the grant. Look at it first, with [`Client::share_show`]. It is signed once: where no
    /// answer came, looking again tells whether it was.
    ///
    /// # Errors
    /// `E_GRANT_UNKNOWN`; `E_DENIED` if the contract names somebody else, or nobody; `E_SHARE_ORDER` if it was co-signed
    /// before or is over; `E_LEASE_EXPIRED` if it comes too late; `E_CONTRACT_SIG` if this is not the contract of the grant;
    /// `E_POLICY_DENIED`, after which the offer is over; `E_AUDIT_UNAVAILABLE`; `E_UNCERTAIN` if no answer came.
    pub fn share_cosign(&self, contract: &ShareContract, key: &SigningKey) -> Result<GrantRow> {
        self.session.call(calls::share_cosign(contract.grant, contract.sign(key)))
    }
}

/// Leases by the dozen, with what they begin with.
impl Client {
    /// Makes leases, each with its first bytes, and says of each what became of it. What no bytes come for is zero. Over TLS
    /// this is one request; at a socket it is one after the other.
    ///
    /// # Errors
    /// `E_RANGE` for none, or more than [`caps::limits::REMOTE_LEASES_MAX`]; what broke the session; `E_UNCERTAIN` if no
    /// answer came. Each item: as [`Client::lease`]; `E_RANGE` too for a lease of less than 64 KiB or more than 1 GiB, and
    /// for more first bytes than it has. A lease whose bytes could not be written is given back.
    pub fn create(&self, values: &[(LeaseOptions, &[u8])]) -> Result<Vec<Result<Created>>> {
        leases::bounded(values.len())?;
        match &self.session {
            Session::Local(_) => {
                Ok(values.iter().map(|(options, bytes)| self.create_one(options, bytes)).collect())
            }
            Session::Remote(session) => session.create(values),
        }
    }

    fn create_one(&self, options: &LeaseOptions, bytes: &[u8]) -> Result<Created> {
        let spec = options.clone().spec()?;
        if !(VALUE_BYTES_MIN..=VALUE_BYTES_MAX).contains(&spec.bytes) || bytes.len() as u64 > spec.bytes {
            return Err(Error::new(
                Code::Range,
                "a value has 64 KiB to 1 GiB, and no more first bytes than that",
            ));
        }
        let Leased { lease, token } = self.session.call(calls::lease_create(spec))?;
        let written = self
            .open_mediated(&token, Rights::READ_WRITE)
            .and_then(|memory| memory.write_at(0, bytes))
            .inspect_err(|_| {
                let _ = self.release(lease.id); // the first error says what happened; the lease ends with its time
            });
        written.map(|()| Created { lease, token, written: bytes.len() as u64 })
    }

    /// Gives leases back, and says of each what became of it. Over TLS this is one request; at a socket it is one after the
    /// other. There is no receipt: who needs one calls [`Client::release`].
    ///
    /// # Errors
    /// As [`Client::create`]; each item as [`Client::release`].
    pub fn delete(&self, leases: &[LeaseId]) -> Result<Vec<Result<()>>> {
        leases::bounded(leases.len())?;
        match &self.session {
            Session::Local(_) => Ok(leases.iter().map(|&lease| self.release(lease).map(drop)).collect()),
            Session::Remote(session) => session.delete(leases),
        }
    }
}

/// Leases that change their owner.
impl Client {
    /// Offers a lease to another owner: signs the contract. It stays the caller's until the receiver accepts. The offer stands
    /// for `ttl`; without it, as long as the lease lives.
    ///
    /// # Errors
    /// `E_LEASE_UNKNOWN`; `E_PRINCIPAL_UNKNOWN`; `E_EXISTS` if the lease is offered already; `E_POLICY_DENIED`;
    /// `E_RANGE`; `E_AUDIT_UNAVAILABLE`; `E_UNCERTAIN` if no answer came.
    pub fn transfer_offer(
        &self,
        lease: &LeaseRow,
        to: PrincipalKey,
        ttl: Option<Duration>,
        key: &SigningKey,
    ) -> Result<TransferRow> {
        let contract = ownership::contract(self.welcome.cluster, lease, to, ttl)?;
        self.session.call(calls::transfer_offer(contract, key))
    }

    /// What accepting an offer would sign. Look at it before [`Client::transfer_accept`].
    ///
    /// # Errors
    /// `E_GRANT_UNKNOWN`; `E_PROTOCOL` if the node's contract is not that of the offer; `E_CONTRACT_SIG` if a signature on it
    /// is not that of who it names.
    pub fn transfer_show(&self, transfer: TransferId) -> Result<TransferProposal> {
        let proposal = self.session.call(calls::transfer_show(transfer))?;
        proposal.checked(transfer, self.welcome.cluster)
    }

    /// Takes a lease over: signs the contract as the receiver, exactly as it is given here. When this returns, nothing of the
    /// lease can be reached on a right of the former owner's, or on one that came from it, and its bytes are as they were.
    ///
    /// # Errors
    /// `E_GRANT_UNKNOWN`, `E_SHARE_ORDER`; `E_DENIED` if it is offered to somebody else; `E_LEASE_EXPIRED` if it comes too
    /// late; `E_BUSY` if another lease is just being handed over to the caller; `E_QUOTA` if it is more than the caller may
    /// have; `E_NOMEM` if the node has no room to take it from those who map it, and then nothing has changed;
    /// `E_POLICY_DENIED`; `E_CONTRACT_SIG`; `E_AUDIT_UNAVAILABLE`; `E_UNCERTAIN` if no answer came.
    pub fn transfer_accept(
        &self,
        contract: &TransferContract,
        lifetime: Lifetime,
        key: &SigningKey,
    ) -> Result<TakenOver> {
        let by_receiver = contract.sign(key);
        let call = calls::transfer_accept(contract.transfer, by_receiver, lifetime);
        self.session.call(call)?.taken(contract, by_receiver)
    }

    /// Takes an offer back, or turns one down. One that is accepted cannot be.
    ///
    /// # Errors
    /// `E_GRANT_UNKNOWN`, `E_SHARE_ORDER`; `E_AUDIT_UNAVAILABLE`, although it can have taken effect: [`Client::transfer_show`]
    /// tells; `E_UNCERTAIN` if no answer came.
    pub fn transfer_withdraw(&self, transfer: TransferId) -> Result<TransferRow> {
        self.session.call(calls::transfer_withdraw(transfer))
    }

    /// The offers of leases that the caller made or was made, fetched page by page.
    pub fn transfers(&self) -> impl Iterator<Item = Result<TransferRow>> + use<'_> {
        Rows { session: &self.session, cursor: Cursor::new() }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl Session {
    fn call<T>(&self, call: Call<T>) -> Result<T> {
        match self {
            Self::Local(session) => session.call(call),
            Self::Remote(session) => session.call(call),
        }
    }

    /// The session, if it is over the socket: what passes descriptors is nothing for TLS.
    fn local(&self, why_not: &'static str) -> Result<&Arc<Local>> {
        match self {
            Self::Local(session) => Ok(session),
            Self::Remote(_) => Err(Error::new(Code::MediatedOnly, why_not)),
        }
    }
}

/// The rows of a list.
struct Rows<'a, T: Row> {
    session: &'a Session,
    cursor: Cursor<T>,
}

impl<T: Row> Iterator for Rows<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            if let Some(row) = self.cursor.row() {
                return Some(Ok(row));
            }
            let page = self.session.call(self.cursor.ask()?);
            if let Err(error) = self.cursor.take(page) {
                return Some(Err(error));
            }
        }
    }
}

/// About providers.
impl Client {
    /// Has a provider take no new leases, or take them again. What it has stays until it ends. Administrator only.
    ///
    /// # Errors
    /// `E_NOT_ADMIN`; `E_RANGE` if no provider has this name. `E_UNCERTAIN` if no answer came: asking again does no harm.
    pub fn provider_drain(&self, name: Name, drain: bool) -> Result<()> {
        self.session.call(calls::provider_drain(name, drain))
    }

    /// Gives a provider up whose process is gone, and with it all its memory: its leases end, and nothing more is waited
    /// for. Whoever says so answers for its truth. Administrator only.
    ///
    /// # Errors
    /// `E_NOT_ADMIN`; `E_RANGE` if no provider has this name; `E_EXISTS` if it is known. `E_UNCERTAIN` if no answer came.
    pub fn provider_lost(&self, name: Name) -> Result<()> {
        self.session.call(calls::provider_lost(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_node_is_unreachable_and_says_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::unix(directory.path().join("node.sock"));
        let error = Client::connect(&endpoint, &SigningKey::from_seed(&[1; 32])).unwrap_err();
        assert_eq!(error.code(), Code::Unreachable);
        assert!(error.code().help().contains("leasehold up"));
    }
}
