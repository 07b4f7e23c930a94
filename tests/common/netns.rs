//! Several hosts on one machine: network namespaces, each with addresses of its own, and cables between them.
//!
//! ```text
//!   broker ──veth──┐            ┌──veth── client
//!                  ├── bridge ──┤                      [`Star`]: a switch, and a cable for each host that can be pulled
//!   provider a ────┘            └──────── provider b
//! ```
//!
//! A namespace here has no name: it lives as long as a descriptor of it or a process in it, and its devices go with it. So
//! a test that was killed leaves nothing behind to be swept, and tests that run side by side cannot meet.
//!
//! Threads are in a namespace, not processes: a client of this process is in one as long as its thread is, for every
//! socket that the thread makes, and what that thread starts begins there.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::is_root;

/// The switch's network.
const STAR: [u8; 3] = [10, 99, 0];

/// Whether this machine lets the tests have networks of their own. Says why, where it does not.
pub fn possible() -> bool {
    let missing = if !is_root() {
        "only root can make network namespaces"
    } else if Command::new("ip").arg("-V").output().is_err() {
        "`ip` of iproute2 is not here"
    } else if !std::path::Path::new("/dev/net/tun").exists() {
        "/dev/net/tun is not here"
    } else if let Err(error) = make() {
        eprintln!("not run: no network namespace can be made: {error}");
        return false;
    } else {
        return true;
    };
    eprintln!("not run: {missing}");
    false
}

/// A namespace with nothing in it but a loopback that is down.
fn make() -> std::io::Result<OwnedFd> {
    // A thread of its own, which ends: the caller stays where it is.
    let unshared = std::thread::spawn(|| {
        // SAFETY: takes a number, and concerns the calling thread alone.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
    });
    unshared.join().expect("nothing there panics")
}

/// A network namespace. Copies are the same one, which is gone with the last of them and the last process in it.
#[derive(Clone, Debug)]
pub struct Space {
    net: Arc<OwnedFd>,
}

impl Space {
    /// A namespace with a loopback and no other device.
    pub fn new() -> Self {
        let space = Self { net: Arc::new(make().unwrap()) };
        // Hosts that announce themselves would be in every count of packets.
        space.enter(|| {
            let ipv6 = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
            if std::path::Path::new(ipv6).exists() {
                std::fs::write(ipv6, "1").unwrap();
                std::fs::write(ipv6.replace("all", "default"), "1").unwrap();
            }
        });
        space.ip("link set lo up");
        space
    }

    /// Does something on a thread that is here from its first moment to its last, and waits for it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(self.net.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Has a process begin here, and end with the thread that starts it: a test that is killed leaves no process behind
    /// that would keep the namespace. So whoever starts it has to stay for as long as it is wanted.
    pub fn place(&self, command: &mut Command) {
        let net = self.net.clone();
        let enter = move || {
            move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
        };
        // SAFETY: between fork and exec, two system calls on what was made before; nothing is allocated, no lock is taken.
        unsafe { command.pre_exec(enter) };
    }

    /// Runs `ip` here, with these arguments.
    #[track_caller]
    pub fn ip(&self, args: &str) {
        let mut command = Command::new("ip");
        self.place(command.args(args.split_whitespace()));
        let output = command.output().unwrap();
        assert!(output.status.success(), "ip {args}: {output:?}");
    }

    /// How `ip` is told of it by another namespace's commands.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.net.as_raw_fd())
    }
}

/// A switch.
pub struct Star {
    hub: Space,
    hosts: u8,
}

/// A host at a switch.
pub struct Host {
    /// Where its processes are.
    pub space: Space,
    /// Its address.
    pub address: Ipv4Addr,
    hub: Space,
    /// The name of its cable's end at the switch.
    port: String,
}

impl Star {
    /// A switch without hosts.
    pub fn new() -> Self {
        let hub = Space::new();
        hub.ip("link add switch type bridge");
        hub.ip("link set switch up");
        Self { hub, hosts: 0 }
    }

    /// One more host.
    pub fn host(&mut self) -> Host {
        self.hosts += 1;
        let [a, b, c] = STAR;
        let address = Ipv4Addr::new(a, b, c, self.hosts);
        let (space, port) = (Space::new(), format!("port{}", self.hosts));
        self.hub.ip(&format!("link add {port} type veth peer name cable netns {}", space.path()));
        self.hub.ip(&format!("link set {port} master switch up"));
        space.ip(&format!("addr add {address}/24 dev cable"));
        space.ip("link set cable up");
        Host { space, address, hub: self.hub.clone(), port }
    }
}

impl Host {
    /// Pulls the cable at the switch.
    pub fn unplug(&self) {
        self.hub.ip(&format!("link set {} down", self.port));
    }

    /// Puts it back.
    pub fn plug(&self) {
        self.hub.ip(&format!("link set {} up", self.port));
    }
}
