//! Who takes part in one run: the node, the bare TLS server, and Redis where it is installed.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use caps::error::{Code, Error, Result};
use transport::Credentials;

use super::child::{Order, Process};
use super::echo::Echo;
use super::ours::Node;
use super::papers::Papers;
use super::redis::{self, Redis};
use super::side::Side;
use crate::files;

/// One of those that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Leasehold,
    Echo,
    Redis,
}

impl Who {
    /// As it stands in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Leasehold => "leasehold",
            Self::Echo => "rustls_echo",
            Self::Redis => "redis_tls",
        }
    }
}

/// All of them. Dropping it ends them.
pub struct Stage {
    pub node: Node,
    echo: (Process, SocketAddr),
    redis: Option<redis::Server>,
    credentials: Arc<Credentials>,
    _directory: Directory,
}

/// A directory that is gone when this is dropped.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // throw-away keys, in a temporary directory
    }
}

impl Stage {
    /// Starts them. Redis gets values of these lengths to be read.
    pub fn start(scratch: &Path, lengths: &[usize]) -> Result<Self> {
        let directory = Directory(scratch.join(format!("leasehold-bench-remote-{}", std::process::id())));
        files::make_directory(&directory.0)?;
        let papers = Papers::begin(&directory.0)?;
        let credentials = papers.client("bench-other")?.load()?;
        let echo = Process::server(&Order::Echo { paper: papers.node() })?;
        let redis = redis::Server::start(&directory.0, &papers.node())?;
        if let Some(redis) = &redis {
            Redis::connect(redis.address, &credentials)?.fill(lengths)?;
        }
        let node = Node::start(scratch, &papers)?;
        Ok(Self { node, echo, redis, credentials, _directory: directory })
    }

    /// Who is there.
    pub fn who(&self) -> Vec<Who> {
        let redis = self.redis.as_ref().map(|_| Who::Redis);
        [Who::Leasehold, Who::Echo].into_iter().chain(redis).collect()
    }

    /// What Redis says that it is, where it is installed.
    pub fn redis_version(&self) -> Option<&str> {
        self.redis.as_ref().map(|redis| redis.version.as_str())
    }

    /// Where somebody listens.
    ///
    /// # Errors
    /// `E_INTERNAL` for who is not there.
    pub fn address(&self, who: Who) -> Result<SocketAddr> {
        match who {
            Who::Leasehold => Ok(self.node.address),
            Who::Echo => Ok(self.echo.1),
            Who::Redis => self.redis().map(|redis| redis.address),
        }
    }

    /// Somebody's server process.
    pub fn pid(&self, who: Who) -> Result<u32> {
        match who {
            Who::Leasehold => self.node.pid(),
            Who::Echo => Ok(self.echo.0.pid()),
            Who::Redis => self.redis().map(redis::Server::pid),
        }
    }

    fn redis(&self) -> Result<&redis::Server> {
        self.redis.as_ref().ok_or(Error::new(Code::Internal, "redis-server is not there to be asked"))
    }

    /// A connection to somebody, at their own address or at that of a hop to them.
    pub fn connect(&self, who: Who, address: SocketAddr) -> Result<Box<dyn Side>> {
        Ok(match who {
            Who::Leasehold => Box::new(self.node.honest.connect(address)?),
            Who::Echo => Box::new(Echo::connect(address, &self.credentials)?),
            Who::Redis => Box::new(Redis::connect(address, &self.credentials)?),
        })
    }
}
