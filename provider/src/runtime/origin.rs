//! Where a client comes from: facts of its connection, none of them its word.

use std::net::IpAddr;

use audit::Draft;
use audit::rejects::Source;

/// Where a client comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A process of this machine, as the kernel named it when it connected.
    Process {
        /// Its user.
        uid: u32,
        /// Its process id, for the log.
        pid: u32,
        /// SHA-256 of its executable, for the log.
        exe: Option<[u8; 32]>,
        /// Whether it runs in the sandbox: its own word, which counts only from those who have no boundary otherwise.
        sandboxed: bool,
    },
    /// Somewhere else. Its memory is not this machine's, so it maps nothing.
    Network {
        /// Its address, for the log and for who is counted together.
        address: IpAddr,
    },
}

impl Origin {
    /// Its user, if it is a process of this machine.
    #[must_use]
    pub const fn uid(&self) -> Option<u32> {
        match self {
            Self::Process { uid, .. } => Some(*uid),
            Self::Network { .. } => None,
        }
    }

    /// Whether it said that it runs in the sandbox.
    #[must_use]
    pub const fn is_sandboxed(&self) -> bool {
        matches!(self, Self::Process { sandboxed: true, .. })
    }

    /// With whom it is counted: nobody gets more of the node by coming twice.
    #[must_use]
    pub fn source(&self) -> Source {
        match self {
            Self::Process { uid, .. } => Source::Uid(*uid),
            Self::Network { address } => Source::of(*address),
        }
    }

    /// Says so, in an entry.
    pub(crate) fn identified(&self, entry: Draft) -> Draft {
        match self {
            Self::Process { uid, pid, exe, .. } => {
                entry.peer_uid(*uid).peer_pid(*pid).maybe(exe.as_ref(), Draft::exe_sha256)
            }
            Self::Network { address } => entry.peer(&address.to_canonical().to_string()),
        }
    }
}
