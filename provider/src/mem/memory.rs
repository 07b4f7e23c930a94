//! The mechanism as a whole: what a provider starts once and makes regions with.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use caps::error::Result;
use caps::wire::row::Tier;

use super::capabilities::Capabilities;
use super::opener::Opener;
use super::pin::PinTable;
use super::pipes::PipeTable;
use super::region::Region;
use crate::factory::{Factory, Shape};

/// What the operator may choose about the mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strength {
    /// Sealed regions if this machine can make them, else open ones.
    #[default]
    Best,
    /// Open regions even where sealed ones are possible: for tests, and for machines whose FUSE must not be used.
    OpenOnly,
    /// As on a machine without io_uring: pages are held by pipes, and orphaned ones are not wiped. For tests.
    PipesOnly,
}

/// The memory mechanism. Cheap to clone; every call may come from any thread.
#[derive(Clone, Debug)]
pub struct Memory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) factory: Factory,
    pub(super) pins: Option<Arc<PinTable>>,
    pub(super) pipes: Option<Arc<PipeTable>>,
    pub(super) opener: Option<Opener>,
    capabilities: Capabilities,
    tier: Tier,
}

impl Memory {
    /// Starts the mechanism on a factory: sets up the pins, tries what this machine can do (a few milliseconds), and
    /// decides the tier. Starts a thread where regions are open.
    ///
    /// # Errors
    ///
    /// Those of the factory, if it fails at its first request.
    pub fn start(factory: Factory, strength: Strength) -> Result<Self> {
        let config = factory.config();
        let pins = match strength {
            Strength::PipesOnly => None,
            Strength::Best | Strength::OpenOnly => {
                PinTable::for_pool(config.regions_max, config.pool_bytes_max).ok()
            }
        };
        let pipes = PipeTable::new().ok();
        let capabilities = Capabilities::probe(&factory, pins.as_ref(), pipes.as_ref());
        let tier = if strength == Strength::OpenOnly { Tier::Open } else { capabilities.tier() };
        let opener = if tier == Tier::Open { Opener::start().ok() } else { None };
        Ok(Self { inner: Arc::new(Inner { factory, pins, pipes, opener, capabilities, tier }) })
    }

    /// Makes a region of at least `bytes` zero bytes: fresh memory, never another region's. Blocks while the kernel
    /// zeroes the pages, on this thread alone.
    ///
    /// # Errors
    ///
    /// [`Code::NoMemory`](caps::error::Code::NoMemory) when the pool or the machine has no room,
    /// [`Code::Range`](caps::error::Code::Range) for no bytes, and the codes of [`Factory::create`]. In tier `sealed`
    /// also when the pages cannot all be pinned. After an error nothing is left behind.
    pub fn region(&self, bytes: u64) -> Result<Region> {
        Region::create(&self.inner, bytes)
    }

    /// What this machine allows, found out at the start.
    #[must_use]
    pub fn capabilities(&self) -> &Capabilities {
        &self.inner.capabilities
    }

    /// [`Tier::Sealed`] or [`Tier::Open`]: what regions are made as.
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.inner.tier
    }

    /// The guardian's pidfd: when it is readable, cut every region and stop; nobody guards them any more.
    #[must_use]
    pub fn guardian(&self) -> BorrowedFd<'_> {
        self.inner.factory.guardian()
    }
}

impl Inner {
    pub(super) const fn shape(&self) -> Shape {
        match self.tier {
            Tier::Sealed => Shape::Sealed,
            Tier::Sandboxed | Tier::Open => Shape::Open,
        }
    }
}
