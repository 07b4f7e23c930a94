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
use std::sync::{Arc, OnceLock};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{faults, is_root};

/// `required` here makes a failure of a test that would not be run, where all that it needs is supposed to be there.
const DEMAND: &str = "LEASEHOLD_NETWORKS";
/// The switch's network.
const STAR: [u8; 3] = [10, 99, 0];

/// Whether this machine lets the tests have networks of their own: found out once, by making one of each thing that they
/// need. Says why, where it does not.
///
/// # Panics
/// If it does not, and the environment says that they are required.
pub fn possible() -> bool {
    static MADE: OnceLock<Result<(), String>> = OnceLock::new();
    let Err(why) = MADE.get_or_init(try_all) else { return true };
    let is_required = match std::env::var(DEMAND) {
        Ok(demand) if demand == "required" => true,
        Ok(other) => panic!("{DEMAND} is `required` or not set, and not `{other}`"),
        Err(_) => false,
    };
    assert!(!is_required, "{DEMAND}=required, and there can be none: {why}");
    eprintln!("not run: {why}");
    false
}

/// One of each: namespaces, a wire's device, a switch with a host at it. Why not, at the first that cannot be made.
fn try_all() -> Result<(), String> {
    if !is_root() {
        return Err("only root can make network namespaces".into());
    }
    if let Err(error) = Command::new("ip").arg("-V").output() {
        return Err(format!("`ip` of iproute2 cannot be started: {error}"));
    }
    let space = Space::try_new()?;
    faults::try_end(&space, faults::NEAR)?;
    let mut star = Star::try_new()?;
    star.try_host().map(drop)
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
        Self::try_new().unwrap()
    }

    /// The same, where it is not known yet whether that is possible. Why it is not.
    fn try_new() -> Result<Self, String> {
        let net = make().map_err(|error| format!("no network namespace can be made: {error}"))?;
        let space = Self { net: Arc::new(net) };
        // Hosts that announce themselves would be in every count of packets.
        space.enter(|| -> Result<(), String> {
            let all = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
            if !std::path::Path::new(all).exists() {
                return Ok(());
            }
            for file in [all, &all.replace("all", "default")] {
                std::fs::write(file, "1").map_err(|error| format!("{file} cannot be written: {error}"))?;
            }
            Ok(())
        })?;
        space.try_ip("link set lo up")?;
        Ok(space)
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
        self.try_ip(args).unwrap();
    }

    /// The same, where it is not known yet whether that is possible. Why it is not.
    pub fn try_ip(&self, args: &str) -> Result<(), String> {
        let mut command = Command::new("ip");
        self.place(command.args(args.split_whitespace()));
        let output = command.output().map_err(|error| format!("ip {args}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        output.status.success().then_some(()).ok_or_else(|| format!("ip {args}: {}", said.trim_end()))
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
        Self::try_new().unwrap()
    }

    fn try_new() -> Result<Self, String> {
        let hub = Space::try_new()?;
        hub.try_ip("link add switch type bridge")?;
        hub.try_ip("link set switch up")?;
        Ok(Self { hub, hosts: 0 })
    }

    /// One more host.
    pub fn host(&mut self) -> Host {
        self.try_host().unwrap()
    }

    fn try_host(&mut self) -> Result<Host, String> {
        self.hosts += 1;
        let [a, b, c] = STAR;
        let address = Ipv4Addr::new(a, b, c, self.hosts);
        let (space, port) = (Space::try_new()?, format!("port{}", self.hosts));
        self.hub.try_ip(&format!("link add {port} type veth peer name cable netns {}", space.path()))?;
        self.hub.try_ip(&format!("link set {port} master switch up"))?;
        space.try_ip(&format!("addr add {address}/24 dev cable"))?;
        space.try_ip("link set cable up")?;
        Ok(Host { space, address, hub: self.hub.clone(), port })
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
