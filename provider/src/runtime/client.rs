//! The client at the other end of a session: who it is in an entry, and how its process is killed.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use audit::Draft;
use rustix::process::{Signal, pidfd_send_signal};
use tokio::io::unix::AsyncFd;

use super::open::Opener;
use super::origin::Origin;

/// Why a process may be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// It broke a rule, and the operator said that whoever does is killed.
    Policy,
    /// It holds up a take-back.
    Blockade,
}

/// The node's own process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its user.
    pub uid: u32,
    /// Its process id, found out at the start: a node that serves may not ask any more.
    pub pid: u32,
}

/// A client: its process, as the kernel named it when it connected, if it is one of this machine's.
#[derive(Clone, Debug)]
pub struct Client {
    opener: Opener,
    process: Option<Arc<AsyncFd<OwnedFd>>>,
}

impl Client {
    /// The client of a session, with the pidfd of its process.
    pub fn new(opener: Opener, process: Option<Arc<AsyncFd<OwnedFd>>>) -> Self {
        Self { opener, process }
    }

    /// Says who it is, in an entry.
    pub fn identified(&self, entry: Draft) -> Draft {
        self.opener.identified(entry)
    }

    /// Kills its process through the pidfd, which can never come to mean another one. `false` if it may not be killed
    /// or could not be: the kernel refuses a node without privileges the processes of other users. A client that came
    /// over the network has no process here.
    pub fn kill(&self, force: Force, node: Node) -> bool {
        let Some(process) = &self.process else { return false };
        if !self.opener.may_be_killed(force, node) {
            return false;
        }
        let sent = pidfd_send_signal(process.get_ref(), Signal::KILL);
        if let Err(error) = sent {
            tracing::warn!(%error, origin = ?self.opener.origin, "a client could not be killed");
        }
        sent.is_ok()
    }
}

impl Opener {
    /// Says who this client is, in an entry.
    pub fn identified(&self, entry: Draft) -> Draft {
        self.origin.identified(entry.subject(self.proven.holder()))
    }

    /// Whether force may be used on it. Never on the node and on process 1. By policy only on those who have a
    /// boundary towards the node: an unconfined process of its own user, or root, is the operator's own, the
    /// administrator's session among them. Whoever blocks a take-back is killed whoever it is.
    fn may_be_killed(&self, force: Force, node: Node) -> bool {
        let Origin::Process { uid, pid, sandboxed, .. } = self.origin else { return false };
        let bounded = (uid != 0 && uid != node.uid) || sandboxed;
        // 0: a process of a PID namespace that this one does not see, which is neither.
        pid != 1 && pid != node.pid && (bounded || force == Force::Blockade)
    }
}

#[cfg(test)]
mod tests {
    use caps::key::SigningKey;
    use caps::pop::{Nonce, Transcript};

    use super::*;

    #[test]
    fn force_spares_the_node_process_1_and_the_operators_own() {
        let key = SigningKey::from_seed(&[1; 32]);
        let nonce = Nonce::random();
        let node = caps::id::ProviderId([0; 16]);
        let transcript = Transcript { node, server: nonce, client: nonce, holder: key.public() };
        let proven = transcript.verify(&transcript.sign(&key)).unwrap();
        let opener = |uid, pid, sandboxed| {
            let origin = Origin::Process { uid, pid, exe: None, sandboxed };
            Opener { session: 1, origin, proven }
        };
        let own = Node { uid: 500, pid: 7 };
        for (uid, pid, sandboxed, policy, blockade) in [
            (1_000, 50, false, true, true),
            (1_000, 1, false, false, false),
            (1_000, 7, true, false, false),
            (500, 50, false, false, true),
            (500, 50, true, true, true),
            (0, 50, false, false, true),
            (0, 1, true, false, false),
        ] {
            let opener = opener(uid, pid, sandboxed);
            assert_eq!(opener.may_be_killed(Force::Policy, own), policy, "{opener:?}");
            assert_eq!(opener.may_be_killed(Force::Blockade, own), blockade, "{opener:?}");
        }
    }
}
