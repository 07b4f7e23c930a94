//! A turn: a neighbour's region, what happens beside it, its end.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc;

use caps::error::{Code, Error, Result};
use caps::id::{GrantId, PrincipalKey};
use caps::key::SigningKey;
use caps::receipt::Receipt;
use caps::rights::Rights;
use caps::wire::row::Target;
use caps::wire::{Name, Reason};
use libmem::{Client, LeaseOptions, Leased, Lifetime, ShareOptions};
use policy::limits::PAGE_BYTES;

use super::neighbour::{Brief, Neighbour, Word};
use crate::bench::crew::{LEASE_TTL, Member};
use crate::bench::numbers::timed;
use crate::bench::revoke::crowd::{self, Crowd};
use crate::bench::revoke::message::Order;
use crate::node::Spawned;

/// Cuts of another region in each turn, while the neighbour is at work and nobody takes anything back from it.
const CUTS: usize = 5;
/// The processes that the node lets in: the mapper of the other region, the honest neighbour, the witness.
const MAPPERS: u32 = 3;
/// Users that a command may be.
const COMMAND_UIDS: u32 = 4;

/// How often a lease is asked for that was given up because its memory was not there in time.
const LEASE_TRIES_MAX: u32 = 8;

/// What of the neighbour's is taken back at the end of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The lease.
    Lease,
    /// What the neighbour was given of it, by rotation: another holder keeps it.
    Grant,
}

/// Cuts of another region.
#[derive(Default)]
pub struct Cuts {
    /// `dead_us` of the receipts.
    pub dead: Vec<f64>,
    /// From the call until the mapper was dead, as it saw it.
    pub seen: Vec<f64>,
    /// From the call to the receipt.
    pub receipt: Vec<f64>,
    /// Touches that began after the receipt and succeeded.
    pub touched_after: usize,
}

/// Take-backs from the neighbour's region.
#[derive(Default)]
pub struct Own {
    /// `dead_us` of the receipts.
    pub dead: Vec<f64>,
    /// From the call to the receipt.
    pub receipt: Vec<f64>,
}

/// What the turns of one neighbour found.
#[derive(Default)]
pub struct Found {
    /// Cuts of another region while the neighbour is at work.
    pub beside: Cuts,
    /// The same while the neighbour's region is taken back.
    pub during: Cuts,
    /// The same while the neighbour's region is rotated because somebody else loses a right to it.
    pub rotating: Cuts,
    pub taken: Own,
    pub rotated: Own,
}

/// Everybody who is there in every turn.
pub struct Street<'a> {
    node: &'a Spawned,
    /// Owns the other regions, and takes them back.
    owner: Member,
    /// Owns the neighbour's region, and takes it back.
    landlord: Member,
    /// Maps the other regions, and touches them until they are gone.
    mapper: Crowd,
    /// The honest neighbour.
    honest: Crowd,
    /// Has the neighbour's region too, so that there is somebody to take it from, or to leave it to.
    witness: Crowd,
    bytes: u64,
    rights: Rights,
    take: Take,
    turns: u32,
}

/// The users whom the node must let in: none but its own unless it runs as root.
pub fn uids() -> Option<Vec<u32>> {
    crowd::uids(MAPPERS + COMMAND_UIDS)
}

/// The users that a command may be: those that no mapper is.
fn command_uids() -> Vec<u32> {
    let own = || vec![rustix::process::geteuid().as_raw(); COMMAND_UIDS as usize];
    uids().map_or_else(own, |uids| uids.into_iter().skip(MAPPERS as usize).collect())
}

impl<'a> Street<'a> {
    pub fn new(node: &'a Spawned, bytes: u64, write: bool, take: Take) -> Result<Self> {
        Ok(Self {
            node,
            owner: Member::join(node, "owner")?,
            landlord: Member::join(node, "landlord")?,
            mapper: Crowd::of(node, 0..1, 1)?,
            honest: Crowd::of(node, 1..2, 0)?,
            witness: Crowd::of(node, 2..3, 0)?,
            bytes,
            rights: if write { Rights::READ_WRITE } else { Rights::READ },
            take,
            turns: 0,
        })
    }

    /// Plays a turn with an honest neighbour, or with what the command starts.
    pub fn turn(&mut self, found: &mut Found, command: Option<&[OsString]>) -> Result<()> {
        self.turns += 1;
        let region = lease(&self.landlord, self.bytes)?;
        fill(&self.landlord, &region)?;
        let (grant, hostile) = match command {
            None => {
                let grant = self.give(&self.landlord, &region, &self.honest)?;
                self.rotate(&region, found)?;
                (grant, None)
            }
            Some(command) => {
                let (grant, mut hostile) = self.move_in(&region, command)?;
                while hostile.hear()? == Word::Rotate {
                    self.rotate(&region, found)?;
                    hostile.say("rotated")?;
                }
                (grant, Some(hostile))
            }
        };
        for _ in 0..CUTS {
            self.cut(&mut found.beside, || ())?;
        }
        match self.take {
            Take::Lease => {
                self.together(Target::Lease(region.lease.id), &mut found.during, &mut found.taken)?
            }
            Take::Grant => {
                self.give(&self.landlord, &region, &self.witness)?;
                self.together(Target::Grant(grant), &mut found.during, &mut found.taken)?;
                self.witness.forget()?;
                self.landlord.client.release(region.lease.id)?;
            }
        }
        match hostile {
            Some(hostile) => hostile.over(),
            None => self.honest.forget(),
        }
    }

    /// Has a process map a lease.
    fn give(&self, owner: &Member, leased: &Leased, to: &Crowd) -> Result<GrantId> {
        let key = to.keys().next().ok_or(Error::new(Code::Internal, "a crowd of nobody"))?;
        let grant = offer(owner, leased, key, self.rights)?;
        to.map([Order::MapGrant { grant, write: self.rights == Rights::READ_WRITE }], None)?;
        Ok(grant)
    }

    /// Starts the command with a right of a principal of its own, which is another one in each turn.
    fn move_in(&self, region: &Leased, command: &[OsString]) -> Result<(GrantId, Neighbour)> {
        let key = SigningKey::generate();
        let name = Name::new(&format!("neighbour-{}", self.turns))?;
        self.node.admin()?.principal_add(name, key.public())?;
        let grant = offer(&self.landlord, region, key.public(), self.rights)?;
        let client = Client::connect(&self.node.endpoint(), &key)?;
        let proposal = client.share_show(grant)?;
        let accepted = client.share_accept(&proposal.contract, Lifetime::Detached, &key)?;
        let socket: PathBuf = self.node.dirs().socket();
        let brief = Brief {
            socket: &socket,
            uids: &command_uids(),
            seed: &data_encoding::HEXLOWER.encode(&*key.seed()),
            token: &accepted.token.to_text(),
        };
        Ok((grant, Neighbour::start(command, &brief)?))
    }

    /// Takes the neighbour's region from the witness, so that it is rotated.
    fn rotate(&self, region: &Leased, found: &mut Found) -> Result<()> {
        let grant = self.give(&self.landlord, region, &self.witness)?;
        self.together(Target::Grant(grant), &mut found.rotating, &mut found.rotated)?;
        self.witness.forget()
    }

    /// Takes something back from the neighbour's region and, right after that call began, another region.
    fn together(&self, target: Target, cuts: &mut Cuts, own: &mut Own) -> Result<()> {
        let (go, told) = mpsc::channel::<()>();
        let (tell, begun) = mpsc::channel::<()>();
        let (took, receipt) = std::thread::scope(|scope| {
            let taking = scope.spawn(move || {
                let not_asked = |_| Error::new(Code::Internal, "the other region was not cut");
                told.recv().map_err(not_asked)?;
                let _ = tell.send(()); // who asked waits for it
                let (took, receipt) = timed(|| revoke(&self.landlord, target));
                receipt.map(|receipt| (took, receipt))
            });
            // Moved into the closure: where it is not called, `go` is dropped and the thread ends.
            let cut = self.cut(cuts, move || {
                let _ = go.send(());
                let _ = begun.recv();
            });
            let taken =
                taking.join().map_err(|_| Error::new(Code::Internal, "the thread that takes back panicked"));
            cut.and(taken?)
        })?;
        own.dead.push(receipt.body.dead.0 as f64);
        own.receipt.push(took);
        Ok(())
    }

    /// Leases another region, has it mapped and touched, and takes it back.
    fn cut(&self, cuts: &mut Cuts, prepare: impl FnOnce() + Send) -> Result<()> {
        let leased = lease(&self.owner, self.bytes)?;
        self.give(&self.owner, &leased, &self.mapper)?;
        let seen = self.mapper.watch(prepare, || revoke(&self.owner, Target::Lease(leased.lease.id)))?;
        self.mapper.forget()?;
        cuts.dead.push(seen.answer.body.dead.0 as f64);
        cuts.seen.push(seen.dead_us());
        cuts.receipt.push(seen.returned_us());
        cuts.touched_after += usize::from(seen.alive_ns > seen.returned_ns);
        Ok(())
    }
}

/// Leases memory. Who keeps the processors busy can make that take longer than a reservation lasts, so it is asked for
/// again: what is measured is the take-back.
fn lease(owner: &Member, bytes: u64) -> Result<Leased> {
    let ask = || owner.client.lease(LeaseOptions::new(bytes, LEASE_TTL).lifetime(Lifetime::Detached));
    let given_up = |leased: &Result<Leased>| {
        leased.as_ref().is_err_and(|error| matches!(error.code(), Code::LeaseExpired | Code::TokenRevoked))
    };
    let mut leased = ask();
    for _ in 1..LEASE_TRIES_MAX {
        if !given_up(&leased) {
            break;
        }
        leased = ask();
    }
    leased
}

/// Makes every page of a lease there, with something in it that is worth taking.
fn fill(owner: &Member, leased: &Leased) -> Result<()> {
    let region = owner.client.open_mapped(&leased.token, Rights::READ_WRITE)?;
    let page = [0x5a; PAGE_BYTES as usize];
    (0..region.facts().range.len()).step_by(page.len()).try_for_each(|at| region.write_at(at, &page))
}

fn offer(owner: &Member, leased: &Leased, to: PrincipalKey, rights: Rights) -> Result<GrantId> {
    let options = ShareOptions::new(to, rights);
    owner.client.share_offer(&leased.lease, &options, &owner.key).map(|grant| grant.id)
}

fn revoke(owner: &Member, target: Target) -> Result<Receipt> {
    owner.client.revoke(target, Reason::new("the benchmark takes it back")?)
}
