//! What can be asked, and what counts as its answer: one function a request, shared by both clients.

use caps::error::{Code, Error, Result};
use caps::id::{
    DonationId, GrantId, LeaseId, PrincipalKey, ProviderId, QuarantineId, SlotHandle, TransferId,
};
use caps::key::{Signature, SigningKey};
use caps::limits::PAGE_ROWS_MAX;
use caps::receipt::Receipt;
use caps::rights::Rights;
use caps::share::{ShareContract, TransferContract};
use caps::time::Micros;
use caps::token::Token;
use caps::wire::place::Place;
use caps::wire::reply::{Opened, Page, TokenState, Welcome};
use caps::wire::request::{LeaseSpec, Path};
use caps::wire::row::{
    DonationRow, GrantRow, LeaseRow, Lifetime, NodeStatus, PrincipalRow, QuarantineRow, QuotaRow, Revocation,
    RootRow, Target, TransferRow,
};
use caps::wire::{Name, Reason, Reply, Request};

use crate::lease::{LeaseView, Leased};
use crate::ownership::{Taking, TransferProposal};
use crate::share::{Narrowing, Proposal, Receiving};

/// A request and the way to read its answer. `None` from `read` means that the answer is of another kind.
pub(crate) struct Call<T> {
    pub(crate) request: Request,
    read: fn(Reply) -> Option<T>,
}

impl<T> Call<T> {
    /// A request, and how its answer is read.
    pub(crate) fn new(request: Request, read: fn(Reply) -> Option<T>) -> Self {
        Self { request, read }
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// `E_PROTOCOL` if the node answered with something that does not belong to the question.
    pub(crate) fn read(&self, reply: Reply) -> Result<T> {
        (self.read)(reply)
            .ok_or(Error::new(Code::Protocol, "the node's answer does not belong to the question"))
    }
}

/// A row of a list: what is asked for the next page, and by what it goes on.
pub(crate) trait Row: Sized {
    type Key: Copy + Ord;
    fn key(&self) -> Self::Key;
    fn page(after: Option<Self::Key>) -> Call<Page<Self>>;
}

impl Row for LeaseRow {
    type Key = LeaseId;

    fn key(&self) -> LeaseId {
        self.id
    }

    fn page(after: Option<LeaseId>) -> Call<Page<Self>> {
        let read = |reply| if let Reply::Leases(page) = reply { Some(page) } else { None };
        Call { request: Request::LeaseList { after }, read }
    }
}

impl Row for GrantRow {
    type Key = GrantId;

    fn key(&self) -> GrantId {
        self.id
    }

    fn page(after: Option<GrantId>) -> Call<Page<Self>> {
        let read = |reply| if let Reply::Grants(page) = reply { Some(page) } else { None };
        Call { request: Request::ShareList { after }, read }
    }
}

impl Row for PrincipalRow {
    type Key = PrincipalKey;

    fn key(&self) -> PrincipalKey {
        self.key
    }

    fn page(after: Option<PrincipalKey>) -> Call<Page<Self>> {
        let read = |reply| if let Reply::Principals(page) = reply { Some(page) } else { None };
        Call { request: Request::PrincipalList { after }, read }
    }
}

impl Row for DonationRow {
    type Key = DonationId;

    fn key(&self) -> DonationId {
        self.id
    }

    fn page(after: Option<DonationId>) -> Call<Page<Self>> {
        let read = |reply| if let Reply::Quota { donations, .. } = reply { Some(donations) } else { None };
        Call { request: Request::QuotaList { after }, read }
    }
}

/// Where a list stands. A node that sends rows out of order, or pages without end, is stopped here.
pub(crate) struct Cursor<T: Row> {
    after: Option<T::Key>,
    rows: std::vec::IntoIter<T>,
    more: bool,
}

impl<T: Row> Cursor<T> {
    pub(crate) fn new() -> Self {
        Self { after: None, rows: Vec::new().into_iter(), more: true }
    }

    /// The next row that is already here.
    pub(crate) fn row(&mut self) -> Option<T> {
        self.rows.next()
    }

    /// The request for the next page, if there is one.
    pub(crate) fn ask(&self) -> Option<Call<Page<T>>> {
        self.more.then(|| T::page(self.after))
    }

    /// Takes a page, or what came instead of one, after which the list is over.
    pub(crate) fn take(&mut self, page: Result<Page<T>>) -> Result<()> {
        self.more = false;
        let page = page?;
        let keys = || self.after.into_iter().chain(page.rows.iter().map(Row::key));
        if page.rows.len() > PAGE_ROWS_MAX || !keys().is_sorted_by(|a, b| a < b) {
            return Err(Error::new(Code::Protocol, "the node's list is too long or out of order"));
        }
        self.more = page.more && !page.rows.is_empty();
        self.after = keys().last();
        self.rows = page.rows.into_iter();
        Ok(())
    }
}

/// A call whose answer is read by the handshake.
pub(crate) fn raw(request: Request) -> Call<Reply> {
    Call { request, read: Some }
}

fn receipt(reply: Reply) -> Option<Receipt> {
    if let Reply::Receipt(receipt) = reply { Some(receipt) } else { None }
}

fn leased(reply: Reply) -> Option<Leased> {
    if let Reply::Leased { lease, token } = reply { Some(Leased { lease, token }) } else { None }
}

fn data(reply: Reply) -> Option<(Vec<u8>, u32)> {
    if let Reply::Data { bytes, crc } = reply { Some((bytes, crc)) } else { None }
}

fn done(reply: Reply) -> Option<()> {
    matches!(reply, Reply::Done).then_some(())
}

pub(crate) fn lease_create(spec: LeaseSpec) -> Call<Leased> {
    Call { request: Request::LeaseCreate(spec), read: leased }
}

pub(crate) fn lease_renew(lease: LeaseId, ttl: Micros) -> Call<Leased> {
    Call { request: Request::LeaseRenew { lease, ttl }, read: leased }
}

pub(crate) fn lease_release(lease: LeaseId) -> Call<Receipt> {
    Call { request: Request::LeaseRelease { lease }, read: receipt }
}

pub(crate) fn lease_show(lease: LeaseId) -> Call<LeaseView> {
    let read = |reply| match reply {
        Reply::Lease { lease, memory } => Some(LeaseView { lease, memory }),
        _ => None,
    };
    Call { request: Request::LeaseShow { lease }, read }
}

pub(crate) fn share_offer(contract: ShareContract, key: &SigningKey) -> Call<GrantRow> {
    let read = |reply| if let Reply::Shared(grant) = reply { Some(grant) } else { None };
    Call { request: Request::ShareOffer { contract, signature: contract.sign(key) }, read }
}

pub(crate) fn share_show(grant: GrantId) -> Call<Proposal> {
    let read = |reply| match reply {
        Reply::Contract { grant, contract, by_owner, by_receiver, by_cosigner } => {
            Some(Proposal { grant, contract, by_owner, by_receiver, by_cosigner })
        }
        _ => None,
    };
    Call { request: Request::ShareShow { grant }, read }
}

pub(crate) fn share_accept(grant: GrantId, signature: Signature, lifetime: Lifetime) -> Call<Receiving> {
    let read = |reply| match reply {
        Reply::Accepted { grant, token, by_owner, by_cosigner } => {
            Some(Receiving { grant, token, by_owner, by_cosigner })
        }
        _ => None,
    };
    Call { request: Request::ShareAccept { grant, signature, lifetime }, read }
}

pub(crate) fn revoke(target: Target, reason: Reason) -> Call<Receipt> {
    Call { request: Request::Revoke(Revocation { target, reason }), read: receipt }
}

pub(crate) fn revoke_token(token: &Token, block: u8, reason: Reason) -> Call<Receipt> {
    Call { request: Request::RevokeToken { token: token.clone(), block, reason }, read: receipt }
}

pub(crate) fn quarantine_add(lease: LeaseId, reason: Reason) -> Call<Receipt> {
    Call { request: Request::QuarantineAdd { lease, reason }, read: receipt }
}

pub(crate) fn quarantine_list() -> Call<Vec<QuarantineRow>> {
    let read = |reply| if let Reply::Quarantine(rows) = reply { Some(rows) } else { None };
    Call { request: Request::QuarantineList, read }
}

pub(crate) fn quarantine_read(id: QuarantineId, offset: u64, length: u32) -> Call<(Vec<u8>, u32)> {
    Call { request: Request::QuarantineRead { id, offset, length }, read: data }
}

pub(crate) fn quarantine_release(id: QuarantineId) -> Call<u64> {
    let read =
        |reply| if let Reply::QuarantineOver { wiped_bytes } = reply { Some(wiped_bytes) } else { None };
    Call { request: Request::QuarantineRelease { id }, read }
}

pub(crate) fn root_rotate() -> Call<Vec<RootRow>> {
    Call { request: Request::RootRotate, read: roots }
}

pub(crate) fn root_retire(id: u32) -> Call<Vec<RootRow>> {
    Call { request: Request::RootRetire { id }, read: roots }
}

pub(crate) fn root_list() -> Call<Vec<RootRow>> {
    Call { request: Request::RootList, read: roots }
}

fn roots(reply: Reply) -> Option<Vec<RootRow>> {
    if let Reply::Roots(rows) = reply { Some(rows) } else { None }
}

pub(crate) fn share_narrow(grant: GrantId, narrowing: Narrowing) -> Result<Call<Receipt>> {
    Ok(Call { request: narrowing.request(grant)?, read: receipt })
}

/// From here on the session is for a program in the sandbox.
pub(crate) fn confine() -> Call<(PrincipalKey, Welcome)> {
    let read =
        |reply| if let Reply::Confined { holder, welcome } = reply { Some((holder, welcome)) } else { None };
    Call { request: Request::Confine, read }
}

pub(crate) fn status() -> Call<NodeStatus> {
    let read = |reply| if let Reply::Status(status) = reply { Some(status) } else { None };
    Call { request: Request::Status, read }
}

pub(crate) fn principal_add(name: Name, key: PrincipalKey) -> Call<()> {
    Call { request: Request::PrincipalAdd { name, key }, read: done }
}

/// What is sent is a sealed copy, which nobody who sees it can extend. Bytes that cannot be sealed are no token, and are
/// sent as they are: the node has the code for what is wrong with them.
pub(crate) fn open(token: &Token, rights: Rights, path: Path) -> Call<Opened> {
    let token = caps::token::seal(token).unwrap_or_else(|_| token.clone());
    let read = |reply| if let Reply::Opened(opened) = reply { Some(opened) } else { None };
    Call { request: Request::Open { token, rights, path }, read }
}

pub(crate) fn channel() -> Call<()> {
    Call { request: Request::Channel, read: |reply| matches!(reply, Reply::Channel).then_some(()) }
}

/// Its answer is the index that was asked for, and the descriptor beside it.
pub(crate) fn segment(handle: SlotHandle, index: u32) -> Call<u32> {
    let read = |reply| if let Reply::Segment { index } = reply { Some(index) } else { None };
    Call { request: Request::Segment { handle, index }, read }
}

pub(crate) fn read(handle: SlotHandle, offset: u64, length: u32) -> Call<(Vec<u8>, u32)> {
    Call { request: Request::Read { handle, offset, length }, read: data }
}

pub(crate) fn write(handle: SlotHandle, offset: u64, data: &[u8]) -> Call<()> {
    let crc = crc32c::crc32c(data);
    Call { request: Request::Write { handle, offset, data: data.to_vec(), crc }, read: done }
}

/// A sealed copy is sent, as with [`open`]: checking needs nothing that extends a token.
pub(crate) fn token_check(token: &Token) -> Call<TokenState> {
    let token = caps::token::seal(token).unwrap_or_else(|_| token.clone());
    let read = |reply| if let Reply::Token(state) = reply { Some(state) } else { None };
    Call { request: Request::TokenCheck { token }, read }
}

pub(crate) fn provider_show(provider: ProviderId) -> Call<Place> {
    let read = |reply| {
        if let Reply::Provider { name, address } = reply { Some(Place { node: name, address }) } else { None }
    };
    Call { request: Request::ProviderShow { provider }, read }
}

pub(crate) fn quota() -> Call<QuotaRow> {
    let read = |reply| if let Reply::Quota { quota, .. } = reply { Some(quota) } else { None };
    Call { request: Request::QuotaList { after: None }, read }
}

pub(crate) fn quota_give(id: DonationId, to: PrincipalKey, bytes: u64, ttl: Micros) -> Call<DonationRow> {
    Call { request: Request::QuotaGive { id, to, bytes, ttl }, read: donated }
}

pub(crate) fn quota_take_back(id: DonationId) -> Call<DonationRow> {
    Call { request: Request::QuotaTakeBack { id }, read: donated }
}

fn donated(reply: Reply) -> Option<DonationRow> {
    if let Reply::Donated(row) = reply { Some(row) } else { None }
}

pub(crate) fn share_cosign(grant: GrantId, signature: Signature) -> Call<GrantRow> {
    let read = |reply| if let Reply::Shared(grant) = reply { Some(grant) } else { None };
    Call { request: Request::ShareCosign { grant, signature }, read }
}

impl Row for TransferRow {
    type Key = TransferId;

    fn key(&self) -> TransferId {
        self.id
    }

    fn page(after: Option<TransferId>) -> Call<Page<Self>> {
        let read = |reply| if let Reply::Transfers(page) = reply { Some(page) } else { None };
        Call { request: Request::TransferList { after }, read }
    }
}

fn transfer(reply: Reply) -> Option<TransferRow> {
    if let Reply::Transfer(row) = reply { Some(row) } else { None }
}

pub(crate) fn transfer_offer(contract: TransferContract, key: &SigningKey) -> Call<TransferRow> {
    Call { request: Request::TransferOffer { contract, signature: contract.sign(key) }, read: transfer }
}

pub(crate) fn transfer_withdraw(id: TransferId) -> Call<TransferRow> {
    Call { request: Request::TransferWithdraw { transfer: id }, read: transfer }
}

pub(crate) fn transfer_show(id: TransferId) -> Call<TransferProposal> {
    let read = |reply| match reply {
        Reply::TransferContract { transfer, contract, by_owner, by_receiver } => {
            Some(TransferProposal { transfer, contract, by_owner, by_receiver })
        }
        _ => None,
    };
    Call { request: Request::TransferShow { transfer: id }, read }
}

pub(crate) fn transfer_accept(id: TransferId, signature: Signature, lifetime: Lifetime) -> Call<Taking> {
    let read = |reply| match reply {
        Reply::Transferred { lease, token, by_owner } => Some(Taking { lease, token, by_owner }),
        _ => None,
    };
    Call { request: Request::TransferAccept { transfer: id, signature, lifetime }, read }
}

pub(crate) fn provider_drain(name: Name, drain: bool) -> Call<()> {
    Call { request: Request::ProviderDrain { name, drain }, read: done }
}

pub(crate) fn provider_lost(name: Name) -> Call<()> {
    Call { request: Request::ProviderLost { name }, read: done }
}
