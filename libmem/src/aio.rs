//! The asynchronous client, on tokio.
//!
//! The same methods as [`crate::Client`], to be awaited. The runtime must have its I/O and time drivers enabled
//! (`enable_all`). Every future here can be dropped at any time: an answer that comes later is thrown away, and a
//! right that it opened is closed. Whether a change took effect is then not known.
//!
//! It speaks with a node's own socket alone: an endpoint over TLS is refused with `E_PROTOCOL`. A program on tokio that
//! needs one runs the blocking client on threads of its own (`spawn_blocking`).
//!
//! A [`Region`] is the same type as that of the blocking client: touching mapped memory needs no waiting.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use caps::error::{Code, Error, Result};
use caps::id::{DonationId, GrantId, LeaseId, PrincipalKey, QuarantineId, TransferId};
use caps::key::SigningKey;
use caps::receipt::Receipt;
use caps::rights::Rights;
use caps::share::{ShareContract, TransferContract};
use caps::token::Token;
use caps::wire::reply::{Opened, TokenState, Welcome};
use caps::wire::request::Path;
use caps::wire::row::{
    DonationRow, GrantRow, LeaseRow, Lifetime, NodeStatus, PrincipalRow, QuarantineRow, QuotaRow, RootRow,
    Target, TransferRow,
};
use caps::wire::wrap::{WrapId, WrapRow};
use caps::wire::{Name, Reason};
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::calls::{self, Call, Cursor, Row};
use crate::endpoint::Endpoint;
use crate::lease::{LeaseOptions, LeaseView, Leased, checked, micros};
use crate::ownership::{self, TakenOver, TransferProposal};
use crate::region::{Facts, OpenRight, Opening, Region, chunks, take_chunk};
use crate::session::handshake;
use crate::session::link::{Link, Ticket};
use crate::session::protocol::Answer;
use crate::session::socket::{self, Failure};
use crate::share::{Accepted, Narrowing, Proposal, ShareOptions};
use crate::wrap::{self, Wrapped};

/// A session with a node. See [`crate::Client`], whose methods these are; tasks that share it take turns.
pub struct Client {
    session: Arc<Session>,
    welcome: Welcome,
    holder: PrincipalKey,
}

struct Session {
    link: Arc<Link>,
    socket: AsyncFd<Arc<OwnedFd>>,
    /// Held from a request to its answer, so that one task at a time reads from the socket.
    turn: Mutex<()>,
    /// Held by who asks for the rotation channel, which is given once.
    asking: Mutex<()>,
    timeout: Duration,
}

impl Client {
    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    /// As [`crate::Client::connect`]; `E_SYSTEM` if the runtime cannot watch the socket; `E_PROTOCOL` for an endpoint over
    /// TLS.
    pub async fn connect(endpoint: &Endpoint, key: &SigningKey) -> Result<Self> {
        let limit = endpoint.handshake_timeout();
        let path = endpoint.path().map(ToOwned::to_owned).ok_or(Error::new(
            Code::Protocol,
            "the asynchronous client speaks with sockets alone: use the blocking one over TLS",
        ))?;
        // connect(2) waits while the node's queue is full, and there is no event for its end.
        let connected = tokio::task::spawn_blocking(move || socket::connect(&path, limit)).await;
        let link = Arc::new(Link::new(connected.map_err(|_| driver())??, endpoint.rotation_bound()));
        let socket = registered(link.socket().clone())?;
        let mut session =
            Session { link, socket, turn: Mutex::new(()), asking: Mutex::new(()), timeout: limit };
        let (hello, request) = handshake::hello(key);
        let (proving, request) = hello.prove(key, session.call(calls::raw(request)).await?)?;
        let welcome = proving.welcome(session.call(calls::raw(request)).await?)?;
        session.timeout = endpoint.request_timeout();
        Ok(Self { session: Arc::new(session), welcome, holder: key.public() })
    }

    /// As [`crate::Client::welcome`].
    #[must_use]
    pub const fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// As [`crate::Client::holder`].
    #[must_use]
    pub const fn holder(&self) -> PrincipalKey {
        self.holder
    }

    /// As [`crate::Client::lease`].
    ///
    /// # Errors
    /// As [`crate::Client::lease`].
    pub async fn lease(&self, options: LeaseOptions) -> Result<Leased> {
        self.session.call(calls::lease_create(options.spec()?)).await
    }

    /// As [`crate::Client::renew`].
    ///
    /// # Errors
    /// As [`crate::Client::renew`].
    pub async fn renew(&self, lease: LeaseId, ttl: Duration) -> Result<Leased> {
        self.session.call(calls::lease_renew(lease, micros(ttl)?)).await
    }

    /// As [`crate::Client::release`].
    ///
    /// # Errors
    /// As [`crate::Client::release`].
    pub async fn release(&self, lease: LeaseId) -> Result<Receipt> {
        self.session.call(calls::lease_release(lease)).await.and_then(checked)
    }

    /// As [`crate::Client::leases`].
    #[must_use]
    pub fn leases(&self) -> Rows<'_, LeaseRow> {
        Rows { session: &self.session, cursor: Cursor::new() }
    }

    /// As [`crate::Client::lease_show`].
    ///
    /// # Errors
    /// As [`crate::Client::lease_show`].
    pub async fn lease_show(&self, lease: LeaseId) -> Result<LeaseView> {
        self.session.call(calls::lease_show(lease)).await
    }

    /// As [`crate::Client::share_offer`].
    ///
    /// # Errors
    /// As [`crate::Client::share_offer`].
    pub async fn share_offer(
        &self,
        lease: &LeaseRow,
        options: &ShareOptions,
        key: &SigningKey,
    ) -> Result<GrantRow> {
        let contract = options.contract(self.welcome.cluster, lease)?;
        self.session.call(calls::share_offer(contract, key)).await
    }

    /// As [`crate::Client::share_show`].
    ///
    /// # Errors
    /// As [`crate::Client::share_show`].
    pub async fn share_show(&self, grant: GrantId) -> Result<Proposal> {
        self.session.call(calls::share_show(grant)).await?.checked(grant, self.welcome.cluster)
    }

    /// As [`crate::Client::share_accept`].
    ///
    /// # Errors
    /// As [`crate::Client::share_accept`].
    pub async fn share_accept(
        &self,
        contract: &ShareContract,
        lifetime: Lifetime,
        key: &SigningKey,
    ) -> Result<Accepted> {
        let by_receiver = contract.sign(key);
        let receiving = self.session.call(calls::share_accept(contract.grant, by_receiver, lifetime)).await?;
        receiving.accepted(contract, by_receiver)
    }

    /// As [`crate::Client::share_narrow`].
    ///
    /// # Errors
    /// As [`crate::Client::share_narrow`].
    pub async fn share_narrow(&self, grant: GrantId, narrowing: Narrowing) -> Result<Receipt> {
        self.session.call(calls::share_narrow(grant, narrowing)?).await.and_then(checked)
    }

    /// As [`crate::Client::shares`].
    #[must_use]
    pub fn shares(&self) -> Rows<'_, GrantRow> {
        Rows { session: &self.session, cursor: Cursor::new() }
    }

    /// As [`crate::Client::revoke`].
    ///
    /// # Errors
    /// As [`crate::Client::revoke`].
    pub async fn revoke(&self, target: Target, reason: Reason) -> Result<Receipt> {
        self.session.call(calls::revoke(target, reason)).await.and_then(checked)
    }

    /// As [`crate::Client::revoke_token`].
    ///
    /// # Errors
    /// As [`crate::Client::revoke_token`].
    pub async fn revoke_token(&self, token: &Token, block: u8, reason: Reason) -> Result<Receipt> {
        self.session.call(calls::revoke_token(token, block, reason)).await.and_then(checked)
    }

    /// As [`crate::Client::quarantine_add`].
    ///
    /// # Errors
    /// As [`crate::Client::quarantine_add`].
    pub async fn quarantine_add(&self, lease: LeaseId, reason: Reason) -> Result<Receipt> {
        self.session.call(calls::quarantine_add(lease, reason)).await.and_then(checked)
    }

    /// As [`crate::Client::quarantine`].
    ///
    /// # Errors
    /// As [`crate::Client::quarantine`].
    pub async fn quarantine(&self) -> Result<Vec<QuarantineRow>> {
        self.session.call(calls::quarantine_list()).await
    }

    /// As [`crate::Client::quarantine_release`].
    ///
    /// # Errors
    /// As [`crate::Client::quarantine_release`].
    pub async fn quarantine_release(&self, id: QuarantineId) -> Result<u64> {
        self.session.call(calls::quarantine_release(id)).await
    }

    /// As [`crate::Client::quarantine_read`].
    ///
    /// # Errors
    /// As [`crate::Client::quarantine_read`].
    pub async fn quarantine_read(&self, id: QuarantineId, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset.checked_add(buffer.len() as u64).is_none() {
            return Err(Error::new(Code::Range, "these bytes lie outside of every region"));
        }
        self.session.fill(offset, buffer, |at, length| calls::quarantine_read(id, at, length)).await
    }

    /// As [`crate::Client::root_rotate`].
    ///
    /// # Errors
    /// As [`crate::Client::root_rotate`].
    pub async fn root_rotate(&self) -> Result<Vec<RootRow>> {
        self.session.call(calls::root_rotate()).await
    }

    /// As [`crate::Client::root_retire`].
    ///
    /// # Errors
    /// As [`crate::Client::root_retire`].
    pub async fn root_retire(&self, id: u32) -> Result<Vec<RootRow>> {
        self.session.call(calls::root_retire(id)).await
    }

    /// As [`crate::Client::roots`].
    ///
    /// # Errors
    /// As [`crate::Client::roots`].
    pub async fn roots(&self) -> Result<Vec<RootRow>> {
        self.session.call(calls::root_list()).await
    }

    /// As [`crate::Client::status`].
    ///
    /// # Errors
    /// As [`crate::Client::status`].
    pub async fn status(&self) -> Result<NodeStatus> {
        self.session.call(calls::status()).await
    }

    /// As [`crate::Client::principal_add`].
    ///
    /// # Errors
    /// As [`crate::Client::principal_add`].
    pub async fn principal_add(&self, name: Name, key: PrincipalKey) -> Result<()> {
        self.session.call(calls::principal_add(name, key)).await
    }

    /// As [`crate::Client::principals`].
    #[must_use]
    pub fn principals(&self) -> Rows<'_, PrincipalRow> {
        Rows { session: &self.session, cursor: Cursor::new() }
    }

    /// As [`crate::Client::open_mapped`].
    ///
    /// # Errors
    /// As [`crate::Client::open_mapped`].
    pub async fn open_mapped(&self, token: &Token, rights: Rights) -> Result<Region> {
        self.session.channel().await?;
        let call = calls::open(token, rights, Path::Mapped);
        let mut answer = self.session.ask(&call).await?;
        let opened = call.read(answer.take_reply()?)?;
        let mut opening = Opening::new(self.session.link.clone(), opened, &mut answer)?;
        while let Some(call) = opening.ask() {
            let mut answer = self.session.ask(&call).await?;
            opening.take(call.read(answer.take_reply()?)?, &mut answer)?;
        }
        opening.finish()
    }

    /// As [`crate::Client::open_mediated`].
    ///
    /// # Errors
    /// As [`crate::Client::open_mediated`].
    pub async fn open_mediated(&self, token: &Token, rights: Rights) -> Result<Mediated> {
        let opened = self.session.call(calls::open(token, rights, Path::Mediated)).await?;
        let right = OpenRight::new(self.session.link.clone(), opened);
        Ok(Mediated { session: self.session.clone(), right })
    }

    /// As [`crate::Client::open`].
    ///
    /// # Errors
    /// As [`crate::Client::open`].
    pub async fn open(&self, token: &Token, rights: Rights) -> Result<Memory> {
        match self.open_mapped(token, rights).await {
            Err(error) if error.code() == Code::MediatedOnly => {
                self.open_mediated(token, rights).await.map(Memory::Mediated)
            }
            mapped => mapped.map(Memory::Mapped),
        }
    }

    /// As [`crate::Client::token_check`].
    ///
    /// # Errors
    /// As [`crate::Client::token_check`].
    pub async fn token_check(&self, token: &Token) -> Result<TokenState> {
        self.session.call(calls::token_check(token)).await
    }

    /// As [`crate::Client::wrap`].
    ///
    /// # Errors
    /// As [`crate::Client::wrap`].
    pub async fn wrap(&self, token: &Token, to: Option<PrincipalKey>, ttl: Duration) -> Result<Wrapped> {
        self.session.call(wrap::wrap(token, to, ttl)?).await
    }

    /// As [`crate::Client::unwrap`].
    ///
    /// # Errors
    /// As [`crate::Client::unwrap`].
    pub async fn unwrap(&self, id: WrapId) -> Result<Token> {
        self.session.call(wrap::unwrap(id)).await
    }

    /// As [`crate::Client::wrap_show`].
    ///
    /// # Errors
    /// As [`crate::Client::wrap_show`].
    pub async fn wrap_show(&self, id: WrapId) -> Result<WrapRow> {
        self.session.call(wrap::wrap_show(id)).await
    }

    /// As [`crate::Client::quota_give`].
    ///
    /// # Errors
    /// As [`crate::Client::quota_give`].
    pub async fn quota_give(
        &self,
        id: DonationId,
        to: PrincipalKey,
        bytes: u64,
        ttl: Duration,
    ) -> Result<DonationRow> {
        self.session.call(calls::quota_give(id, to, bytes, micros(ttl)?)).await
    }

    /// As [`crate::Client::quota_take_back`].
    ///
    /// # Errors
    /// As [`crate::Client::quota_take_back`].
    pub async fn quota_take_back(&self, id: DonationId) -> Result<DonationRow> {
        self.session.call(calls::quota_take_back(id)).await
    }

    /// As [`crate::Client::quota`].
    ///
    /// # Errors
    /// As [`crate::Client::quota`].
    pub async fn quota(&self) -> Result<QuotaRow> {
        self.session.call(calls::quota()).await
    }

    /// As [`crate::Client::donations`].
    #[must_use]
    pub fn donations(&self) -> Rows<'_, DonationRow> {
        Rows { session: &self.session, cursor: Cursor::new() }
    }

    /// As [`crate::Client::share_cosign`].
    ///
    /// # Errors
    /// As [`crate::Client::share_cosign`].
    pub async fn share_cosign(&self, contract: &ShareContract, key: &SigningKey) -> Result<GrantRow> {
        self.session.call(calls::share_cosign(contract.grant, contract.sign(key))).await
    }
}

/// Leases that change their owner.
impl Client {
    /// As [`crate::Client::transfer_offer`].
    ///
    /// # Errors
    /// As [`crate::Client::transfer_offer`].
    pub async fn transfer_offer(
        &self,
        lease: &LeaseRow,
        to: PrincipalKey,
        ttl: Option<Duration>,
        key: &SigningKey,
    ) -> Result<TransferRow> {
        let contract = ownership::contract(self.welcome.cluster, lease, to, ttl)?;
        self.session.call(calls::transfer_offer(contract, key)).await
    }

    /// As [`crate::Client::transfer_show`].
    ///
    /// # Errors
    /// As [`crate::Client::transfer_show`].
    pub async fn transfer_show(&self, transfer: TransferId) -> Result<TransferProposal> {
        let proposal = self.session.call(calls::transfer_show(transfer)).await?;
        proposal.checked(transfer, self.welcome.cluster)
    }

    /// As [`crate::Client::transfer_accept`].
    ///
    /// # Errors
    /// As [`crate::Client::transfer_accept`].
    pub async fn transfer_accept(
        &self,
        contract: &TransferContract,
        lifetime: Lifetime,
        key: &SigningKey,
    ) -> Result<TakenOver> {
        let by_receiver = contract.sign(key);
        let call = calls::transfer_accept(contract.transfer, by_receiver, lifetime);
        self.session.call(call).await?.taken(contract, by_receiver)
    }

    /// As [`crate::Client::transfer_withdraw`].
    ///
    /// # Errors
    /// As [`crate::Client::transfer_withdraw`].
    pub async fn transfer_withdraw(&self, transfer: TransferId) -> Result<TransferRow> {
        self.session.call(calls::transfer_withdraw(transfer)).await
    }

    /// As [`crate::Client::transfers`].
    #[must_use]
    pub fn transfers(&self) -> Rows<'_, TransferRow> {
        Rows { session: &self.session, cursor: Cursor::new() }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("holder", &self.holder).finish_non_exhaustive()
    }
}

/// As [`crate::Mediated`].
pub struct Mediated {
    session: Arc<Session>,
    right: OpenRight,
}

impl Mediated {
    /// As [`crate::Mediated::read_at`].
    ///
    /// # Errors
    /// As [`crate::Mediated::read_at`].
    pub async fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.right.check_read(offset, buffer.len())?;
        let handle = self.right.opened().handle;
        self.session.fill(offset, buffer, |at, length| calls::read(handle, at, length)).await
    }

    /// As [`crate::Mediated::write_at`].
    ///
    /// # Errors
    /// As [`crate::Mediated::write_at`].
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.right.check_write(offset, bytes.len())?;
        for (at, place) in chunks(offset, bytes.len()) {
            self.session.call(calls::write(self.right.opened().handle, at, &bytes[place])).await?;
        }
        Ok(())
    }

    /// As [`crate::Mediated::facts`].
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.right.opened().into()
    }

    /// The same in the node's words.
    pub(crate) const fn opened(&self) -> &Opened {
        self.right.opened()
    }
}

/// As [`crate::Memory`].
pub enum Memory {
    /// Mapped into this process.
    Mapped(Region),
    /// Behind the node.
    Mediated(Mediated),
}

impl Memory {
    /// As [`crate::Memory::read_at`].
    ///
    /// # Errors
    /// As [`crate::Memory::read_at`].
    pub async fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match self {
            Self::Mapped(region) => region.read_at(offset, buffer),
            Self::Mediated(mediated) => mediated.read_at(offset, buffer).await,
        }
    }

    /// As [`crate::Memory::write_at`].
    ///
    /// # Errors
    /// As [`crate::Memory::write_at`].
    pub async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Mapped(region) => region.write_at(offset, bytes),
            Self::Mediated(mediated) => mediated.write_at(offset, bytes).await,
        }
    }

    /// As [`crate::Memory::facts`].
    #[must_use]
    pub fn facts(&self) -> Facts {
        match self {
            Self::Mapped(region) => region.facts(),
            Self::Mediated(mediated) => mediated.facts(),
        }
    }

    /// The same in the node's words.
    pub(crate) const fn opened(&self) -> &Opened {
        match self {
            Self::Mapped(region) => region.opened(),
            Self::Mediated(mediated) => mediated.opened(),
        }
    }
}

impl Session {
    async fn call<T>(&self, call: Call<T>) -> Result<T> {
        call.read(self.ask(&call).await?.take_reply()?)
    }

    /// As in the blocking client.
    async fn fill(
        &self,
        offset: u64,
        buffer: &mut [u8],
        call: impl Fn(u64, u32) -> Call<(Vec<u8>, u32)>,
    ) -> Result<()> {
        for (at, place) in chunks(offset, buffer.len()) {
            let place = &mut buffer[place];
            // A chunk's length fits 32 bits many times over.
            let (bytes, crc) = self.call(call(at, place.len() as u32)).await?;
            take_chunk(place, &bytes, crc)?;
        }
        Ok(())
    }

    /// Asks for the rotation channel, unless the session has it.
    async fn channel(&self) -> Result<()> {
        let _asking = self.asking.lock().await;
        if self.link.has_channel() {
            return Ok(());
        }
        let call = calls::channel();
        let mut answer = self.ask(&call).await?;
        self.link.keep_channel(&mut answer)?;
        call.read(answer.take_reply()?)
    }

    /// Sends a request and waits for its answer.
    async fn ask<T>(&self, call: &Call<T>) -> Result<Answer> {
        let turn = async {
            let turn = self.turn.lock().await;
            self.send(call).await.map(|ticket| (turn, ticket))
        };
        let (_turn, mut ticket) = match timeout(self.timeout, turn).await {
            Ok(sent) => sent?,
            Err(_) => return Err(Failure::NotNow.error()), // nothing was sent
        };
        let answer = timeout(self.timeout, self.answer(&mut ticket)).await;
        answer.unwrap_or_else(|_| Err(ticket.give_up()))
    }

    async fn send<T>(&self, call: &Call<T>) -> Result<Ticket<'_>> {
        loop {
            let mut ready = self.socket.writable().await.map_err(|_| driver())?;
            if let Some(ticket) = self.link.send(&call.request)? {
                return Ok(ticket);
            }
            ready.clear_ready();
        }
    }

    async fn answer(&self, ticket: &mut Ticket<'_>) -> Result<Answer> {
        loop {
            let mut ready = self.socket.readable().await.map_err(|_| driver())?;
            if let Some(answer) = ticket.answer()? {
                return Ok(answer);
            }
            ready.clear_ready();
        }
    }
}

/// The socket as the runtime watches it.
#[allow(unsafe_code)]
fn registered(socket: Arc<OwnedFd>) -> Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: the `Arc` keeps the descriptor open for as long as the `AsyncFd` holds it, and an `OwnedFd` never
    // changes which descriptor it is.
    unsafe { AsyncFd::register(socket) }.map_err(|_| driver())
}

/// The runtime is shutting down or has no I/O driver.
const fn driver() -> Error {
    Error::new(Code::System, "the asynchronous runtime cannot watch the node's socket")
}

/// The rows of a list, fetched page by page.
#[expect(private_bounds, reason = "which rows there are is this crate's to say")]
pub struct Rows<'a, T: Row> {
    session: &'a Session,
    cursor: Cursor<T>,
}

#[expect(private_bounds, reason = "which rows there are is this crate's to say")]
impl<T: Row> Rows<'_, T> {
    /// The next row; `None` after the last one, or after an error.
    pub async fn next(&mut self) -> Option<Result<T>> {
        loop {
            if let Some(row) = self.cursor.row() {
                return Some(Ok(row));
            }
            let page = self.session.call(self.cursor.ask()?).await;
            if let Err(error) = self.cursor.take(page) {
                return Some(Err(error));
            }
        }
    }
}

/// About providers.
impl Client {
    /// As [`crate::Client::provider_drain`].
    ///
    /// # Errors
    /// As [`crate::Client::provider_drain`].
    pub async fn provider_drain(&self, name: Name, drain: bool) -> Result<()> {
        self.session.call(calls::provider_drain(name, drain)).await
    }

    /// As [`crate::Client::provider_lost`].
    ///
    /// # Errors
    /// As [`crate::Client::provider_lost`].
    pub async fn provider_lost(&self, name: Name) -> Result<()> {
        self.session.call(calls::provider_lost(name)).await
    }
}
