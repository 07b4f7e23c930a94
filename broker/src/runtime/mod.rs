//! The thin shell around [`crate::state`]: a thread that owns it, a queue in front, and the requests of clients as
//! sequences of commands.
//!
//! ```text
//! Handle::request ──▶ policy, on the caller's task ──▶ queue ──▶ engine: state + entries ──▶ recorder
//!        ▲                                                         │            ▲
//!        │   claim, mint, receipt: on the caller's task            └─▶ takes ──▶ ProviderLink
//!        └────────────────────────────────────────────── answer, once it is durable
//! ```
//!
//! | file | idea |
//! |---|---|
//! | `clock.rs` | time that never steps |
//! | `link.rs` | what the broker asks of a provider |
//! | `links.rs` | the providers that can be reached |
//! | `providers.rs` | they come, come back, are asked how they are, and are lost |
//! | `queue.rs` | two lanes of fixed size |
//! | `engine.rs` | the thread: batches, entries, effects, undoing |
//! | `directory.rs` | names by key, for the policy |
//! | `receipts.rs` | the receipts that were given last |
//! | `record.rs` | entries about the node itself |
//! | `minting.rs` | the key that mints, and how another takes its place |
//! | `open.rs` | whether the policy lets a right be opened |
//! | `create.rs`, `renew.rs`, `share.rs`, `cosign.rs`, `revoke.rs`, `lists.rs`, `quota.rs` | requests as sequences of commands |
//! | `transfer.rs` | the same, of a lease that changes its owner |
//!
//! # What a crash, or a caller that goes away, leaves
//!
//! | between | leaves | who tidies up |
//! |---|---|---|
//! | reserve and claim | a reservation | its deadline |
//! | claim and commit | memory nobody knows the token of | the reservation's deadline takes it |
//! | commit and reply | a lease that its owner sees in a list | its expiry, or the owner |
//! | revoke and reply | nothing: taking back runs as a task of its own | - |
//! | the acceptance of a lease and the provider | an offer that is marked as accepted | its deadline: it stands again |
//! | a take-back and a provider that does not answer | in the books what was to go is gone; what is smaller than a lease waits to be told | its next heartbeat, or its loss |
//! | the provider and the new owner's books | nothing: both run in a task of its own; if that dies, the deadline tells the provider the former owner | - |

mod clock;
mod cosign;
mod create;
mod directory;
mod engine;
mod link;
mod links;
mod lists;
mod minting;
mod open;
mod policies;
mod providers;
mod queue;
mod quota;
mod receipts;
mod record;
mod renew;
mod revoke;
mod share;
mod transfer;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use audit::Recorder;
use caps::id::PrincipalKey;
use caps::key::SigningKey;
use caps::token::RootKey;
use caps::wire::Name;
use caps::wire::link::Notice;
use caps::wire::reply::Reply;
use caps::wire::request::Request;
use caps::{Code, Error, Result};
use policy::limits::URGENT_AGAIN_MS;
use policy::{Facts, Policy};
use tokio::sync::oneshot;

pub use clock::{Clock, SteadyClock};
use directory::Directory;
use engine::{Engine, Job, Mode, Order, Outcome};
pub use link::{Boxed, Claimed, ProviderLink, ProviderStatus};
use links::Links;
use minting::Minting;
pub use minting::Replaced;
use policies::Policies;
use queue::Queue;
pub use queue::URGENT_QUEUE_MAX;
use receipts::Receipts;
pub use revoke::RECEIPT_LEASES_MAX;

use crate::state::{Actor, Answer, Broker, Genesis, Kind, Narrowing, PolicyVerdict, Query, RowId, View};

/// What a running broker is made of.
pub struct Parts {
    /// How the cluster begins.
    pub genesis: Genesis,
    /// The policy whose hash stands in `genesis`.
    pub policy: Arc<Policy>,
    /// The broker's log.
    pub recorder: Arc<Recorder>,
    /// The provider of `genesis`; `None` if that has none.
    pub link: Option<Arc<dyn ProviderLink>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Signs tokens, and nothing else.
    pub root: RootKey,
    /// Signs receipts, and nothing else.
    pub receipts: SigningKey,
    /// Where take-backs run.
    pub tasks: tokio::runtime::Handle,
}

/// Who sends a request: what the session has proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key whose possession it proved.
    pub holder: PrincipalKey,
    /// The user id of its process, of which the policy knows.
    pub uid: Option<u32>,
    /// The session. Rights with the lifetime of a process end with [`Handle::holder_exit`] of it.
    pub session: u64,
}

struct Shared {
    queue: Queue<Job>,
    directory: Directory,
    policies: Policies,
    recorder: Arc<Recorder>,
    links: Links,
    clock: Arc<dyn Clock>,
    minting: Minting,
    receipts: SigningKey,
    given: Receipts,
    tasks: tokio::runtime::Handle,
    genesis: Genesis,
}

/// Asks a running broker. Cheap to clone; all methods may be called from any task.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

/// The running broker. Dropping it stops the thread once the queue is empty.
pub struct Runtime {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Broker>>,
}

/// Starts a broker: records how its cluster begins, then serves.
///
/// # Errors
/// As [`Broker::new`]; `E_CONFIG_VALUE` if the policy is not the one in `genesis`, or one of provider and link is missing; `E_AUDIT_UNAVAILABLE` if the beginning
/// cannot be recorded; `E_SYSTEM` if the thread cannot be started.
pub fn start(parts: Parts) -> Result<(Runtime, Handle)> {
    let Parts { genesis, policy, recorder, link, clock, root, receipts, tasks } = parts;
    let broker = Broker::new(genesis.clone())?;
    if policy.hash().0 != genesis.policy {
        return Err(Error::new(Code::ConfigValue, "the policy is not the one that the cluster begins with"));
    }
    let links = Links::default();
    match (&genesis.provider, link) {
        (Some(said), Some(link)) => drop(links.add(said.id, link)),
        (None, None) => {}
        _ => {
            return Err(Error::new(Code::ConfigValue, "a cluster's own provider and its link come together"));
        }
    }
    // Blocking is fine here: nobody is served yet.
    let (tell, told) = std::sync::mpsc::channel();
    let done = Box::new(move |outcome: Result<audit::Recorded>| {
        let _ = tell.send(outcome.map(|recorded| recorded.first()));
    });
    recorder.submit(Broker::opening(&genesis), genesis.at, done)?;
    told.recv().unwrap_or(Err(Error::new(Code::AuditUnavailable, "the recorder has stopped")))?;

    let directory = Directory::default();
    directory.insert(genesis.admin, genesis.admin_name.clone());
    let queue = Queue::new();
    let shared = Arc::new(Shared {
        queue,
        directory,
        policies: Policies::new(policy),
        recorder,
        links,
        clock,
        minting: Minting::new(root),
        receipts,
        given: Receipts::default(),
        tasks,
        genesis,
    });
    let engine = Engine::new(Arc::clone(&shared), broker);
    let thread = std::thread::Builder::new()
        .name("broker".to_owned())
        .spawn(move || engine.work())
        .map_err(|_| Error::new(Code::System, "the broker's thread cannot be started"))?;
    let handle = Handle { shared: Arc::clone(&shared) };
    Ok((Runtime { shared, thread: Some(thread) }, handle))
}

impl Runtime {
    /// Lets nothing more in, applies what waits, and returns the last state. The recorder is the caller's to shut down
    /// afterwards.
    ///
    /// # Errors
    /// `E_INTERNAL` if the thread died of a defect.
    pub fn stop(mut self) -> Result<Broker> {
        self.shared.queue.close();
        let defect = Error::new(Code::Internal, "the broker's thread died");
        self.thread.take().and_then(|thread| thread.join().ok()).ok_or(defect)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic of it has been printed; whoever wants to know calls `stop`.
            let _ = thread.join();
        }
    }
}

impl Handle {
    /// Answers one request of a client.
    ///
    /// # Errors
    /// The code that the client is told. `E_PROTOCOL` for requests that are the provider's.
    pub async fn request(&self, caller: Caller, request: Request) -> Result<Reply> {
        match request {
            Request::PrincipalAdd { name, key } => {
                let kind = Kind::PrincipalAdd { name, key };
                self.shared.order_recorded(caller, kind, None, None).await?;
                Ok(Reply::Done)
            }
            Request::PrincipalList { after } => self.principals(caller, after).await,
            Request::LeaseCreate(spec) => self.create(caller, spec).await,
            Request::LeaseRenew { lease, ttl } => self.renew(caller, lease, ttl).await,
            Request::LeaseRelease { lease } => self.release(caller, lease).await,
            Request::LeaseList { after } => self.leases(caller, after).await,
            Request::LeaseShow { lease } => self.lease(caller, lease).await,
            Request::ShareOffer { contract, signature } => self.offer(caller, contract, signature).await,
            Request::ShareAccept { grant, signature, lifetime } => {
                self.accept(caller, grant, signature, lifetime).await
            }
            Request::ShareShow { grant } => self.contract(caller, grant).await,
            Request::ShareList { after } => self.grants(caller, after).await,
            Request::Revoke(revocation) => self.revoke(caller, revocation).await,
            Request::ShareNarrow { grant, rights, range, ttl } => {
                self.narrow(caller, Narrowing { grant, rights, range, ttl }).await
            }
            Request::Status => self.status(caller).await,
            Request::QuotaGive { id, to, bytes, ttl } => self.quota_give(caller, id, to, bytes, ttl).await,
            Request::QuotaTakeBack { id } => self.quota_take_back(caller, id).await,
            Request::QuotaList { after } => self.quota_list(caller, after).await,
            Request::ShareCosign { grant, signature } => self.cosign(caller, grant, signature).await,
            Request::TransferOffer { contract, signature } => {
                self.transfer_offer(caller, contract, signature).await
            }
            Request::TransferAccept { transfer, signature, lifetime } => {
                self.transfer_accept(caller, transfer, signature, lifetime).await
            }
            Request::TransferShow { transfer } => self.transfer(caller, transfer).await,
            Request::TransferList { after } => self.transfers(caller, after).await,
            Request::TransferWithdraw { transfer } => self.transfer_withdraw(caller, transfer).await,
            Request::ProviderShow { provider } => self.provider_show(provider).await,
            Request::ProviderDrain { name, drain } => {
                self.provider_drain(caller, name, drain).await.map(|()| Reply::Done)
            }
            Request::ProviderLost { name } => self.provider_lost(name, caller).await.map(|()| Reply::Done),
            Request::Hello { .. }
            | Request::Prove { .. }
            | Request::Confine
            | Request::Open { .. }
            | Request::Read { .. }
            | Request::Write { .. }
            | Request::Segment { .. }
            | Request::Channel
            | Request::Close { .. }
            | Request::QuarantineAdd { .. }
            | Request::QuarantineList
            | Request::QuarantineRead { .. }
            | Request::QuarantineRelease { .. }
            | Request::RevokeToken { .. }
            | Request::TokenCheck { .. }
            | Request::RootRotate
            | Request::RootRetire { .. }
            | Request::RootList
            | Request::Wrap { .. }
            | Request::Unwrap { .. }
            | Request::WrapShow { .. }
            | Request::Resume { .. } => {
                Err(Error::new(Code::Protocol, "this is a request to the node, not to the broker"))
            }
        }
    }

    /// The registered name of a key, and whether it is the administrator's: for the `Welcome` of a session.
    ///
    /// # Errors
    /// `E_BUSY` or `E_UNREACHABLE`.
    pub async fn who(&self, key: PrincipalKey) -> Result<(Option<Name>, bool)> {
        match self.shared.look(key, Query::Who).await? {
            View::Who { name, admin } => Ok((name, admin)),
            _ => Err(unexpected()),
        }
    }

    /// What the provider in the broker's own process tells unasked. Returns at once. Others: [`Self::provider_notice`].
    ///
    /// # Errors
    /// `E_EPOCH` if there is none; `E_BUSY` if the urgent lane is full: tell it again later. `E_UNREACHABLE` once the broker stops.
    pub fn notice(&self, notice: Notice) -> Result<()> {
        let own = self.shared.genesis.provider.as_ref();
        let provider = own.ok_or(Error::new(Code::Epoch, "the broker has no provider of its own"))?.id;
        self.shared.order_unattended(Kind::Notice { provider, notice })
    }

    /// A session's process is gone. Returns at once. What the session asked for and is still waiting is applied first,
    /// so that what it gained by it ends, too. It must not ask for anything after this.
    ///
    /// # Errors
    /// As [`Self::notice`].
    pub fn holder_exit(&self, session: u64) -> Result<()> {
        let exit = Job::Order(Box::new(system(Kind::HolderExit { session })));
        self.shared.queue.push_urgent_behind(exit, |job| match job {
            Job::Order(order) => order.session == Some(session),
            Job::Look { .. } | Job::Undo { .. } => false,
        })
    }
}

impl Shared {
    /// Judges a request on the caller's task. The policy's no is ordered like its yes, so that it is recorded.
    fn judge(&self, facts: &Facts, about: Option<RowId>) -> Result<PolicyVerdict> {
        self.judge_for(facts.key, facts, about)
    }

    /// As [`Self::judge`], where it is `who` that asks for it to be judged.
    fn judge_for(&self, who: PrincipalKey, facts: &Facts, about: Option<RowId>) -> Result<PolicyVerdict> {
        let policy = self.policies.now();
        match policy.decide(facts) {
            Ok(decision) => Ok(PolicyVerdict {
                allowed: decision.allowed,
                rule: decision.rule.map(|rule| rule.index),
                hash: decision.policy.0,
            }),
            Err(error) => {
                let kind = Kind::Refused { who, code: error.code(), about };
                self.order_unattended(kind)?;
                Err(error)
            }
        }
    }

    /// Orders commands and waits for the answer, not for the record.
    async fn order(&self, order: Order) -> Result<Outcome> {
        let (tell, told) = oneshot::channel();
        let urgent = order.mode == Mode::Regardless;
        let job = Job::Order(Box::new(Order { tell: Some(tell), ..order }));
        if urgent {
            self.queue.push_urgent(job)?
        } else {
            self.queue.push(job)?
        }
        told.await.map_err(|_| stopping())
    }

    /// Orders one or two commands of a principal, and waits for the answer and the record.
    async fn order_recorded(
        &self,
        caller: Caller,
        first: Kind,
        then: Option<Kind>,
        policy: Option<PolicyVerdict>,
    ) -> Result<Answer> {
        let outcome = self.order(principal(caller, first, then, policy)).await?;
        recorded_index(outcome.recorded).await?;
        outcome.answer
    }

    /// Orders a command of the node's own and waits until it is applied.
    async fn order_and_wait(&self, kind: Kind) -> Result<()> {
        self.order(system(kind)).await?.answer.map(drop)
    }

    /// Orders a command of the node's own that must not be left out, and waits until it is applied. Where the urgent lane is
    /// full, as soon as there is room.
    async fn order_surely(&self, kind: Kind) -> Result<()> {
        loop {
            match self.order(system(kind.clone())).await {
                Err(full) if full.code() == Code::Busy => {
                    tokio::time::sleep(Duration::from_millis(URGENT_AGAIN_MS)).await;
                }
                outcome => return outcome?.answer.map(drop),
            }
        }
    }

    /// Orders a command of the node's own.
    fn order_unattended(&self, kind: Kind) -> Result<()> {
        self.queue.push_urgent(Job::Order(Box::new(system(kind))))
    }

    async fn look(&self, by: PrincipalKey, query: Query) -> Result<View> {
        let (tell, told) = oneshot::channel();
        self.queue.push(Job::Look { by, query, tell })?;
        told.await.map_err(|_| stopping())?
    }
}

/// Commands of a principal that stand or fall with their record.
fn principal(caller: Caller, first: Kind, then: Option<Kind>, policy: Option<PolicyVerdict>) -> Order {
    let by = Actor::Principal(caller.holder);
    let (session, mode) = (Some(caller.session), Mode::Recorded);
    Order { by, session, random: [0; 32], policy, first, then, mode, tell: None }
}

/// A command of the node's own, which takes effect regardless.
fn system(kind: Kind) -> Order {
    let (by, mode) = (Actor::System, Mode::Regardless);
    Order { by, session: None, random: [0; 32], policy: None, first: kind, then: None, mode, tell: None }
}

/// Waits for the record: the index of the first entry, `None` if there was nothing to record.
async fn recorded_index(recorded: oneshot::Receiver<Result<u64>>) -> Result<Option<u64>> {
    recorded.await.map_or(Ok(None), |outcome| outcome.map(Some))
}

const fn stopping() -> Error {
    Error::new(Code::Unreachable, "the node is stopping")
}

/// The state answered something that does not belong to the command.
const fn unexpected() -> Error {
    Error::new(Code::Internal, "the answer is not of the kind that was asked for")
}
