//! Who dies when: the provider, the guardian, and signals to either.

use std::os::fd::AsFd;

use caps::error::Code;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Uid;
use provider::factory::{Factory, Namespace, Shape};
use provider::mem::{Access, Holder, Memory, Strength};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal as PidfdSignal, pidfd_send_signal};

use crate::client::{Client, Line, READ, load, map};
use crate::harness::{NOBODY, config, in_child, start, start_as};
use crate::open::hold_the_lock;

const LEN: usize = 64 << 10;

/// Maps, says so, reads for ever.
fn reader(line: &Line) {
    let at = map(line.take(), LEN, READ).unwrap();
    load(at, 0);
    line.say(b'm');
    loop {
        load(at, 0);
    }
}

fn give(line: &Line, memory: &Memory) -> provider::mem::Region {
    let region = memory.region(LEN as u64).unwrap();
    line.give(region.client_descriptor(Access::ReadOnly, Holder::OtherUser).unwrap().as_fd());
    region
}

fn wait_forever() -> ! {
    loop {
        std::thread::park();
    }
}

pub(crate) fn killed_provider_is_cut_by_the_guardian() {
    let clients: Vec<Client> = (0..4).map(|_| Client::fork(NOBODY, reader)).collect();
    let provider = in_child(|| {
        let memory = start();
        let _regions: Vec<_> = clients.iter().map(|client| give(&client.line, &memory)).collect();
        wait_forever();
    });
    clients.iter().for_each(|client| client.line.hear(b'm'));
    kill(provider, Signal::SIGKILL).unwrap();
    waitpid(provider, None).unwrap();
    clients.into_iter().for_each(Client::dies_of_sigbus);
}

pub(crate) fn stuck_region_does_not_stop_the_last_cut() {
    assert!(Uid::effective().is_root());
    // More hostile regions than the guardian starts with threads.
    let hostile: Vec<Client> = (0..4).map(|_| Client::fork(0, hold_the_lock)).collect();
    let clients: Vec<Client> = (0..4).map(|_| Client::fork(NOBODY, reader)).collect();
    let provider = in_child(|| {
        let memory = start_as(Strength::OpenOnly).unwrap();
        let mut regions = Vec::new();
        for client in &hostile {
            let region = memory.region(LEN as u64).unwrap();
            let descriptor = region.client_descriptor(Access::ReadWrite, Holder::SameUser).unwrap();
            client.line.give(descriptor.as_fd());
            regions.push(region);
        }
        regions.extend(clients.iter().map(|client| give(&client.line, &memory)));
        wait_forever();
    });
    hostile.iter().for_each(|client| client.line.hear(b'h'));
    clients.iter().for_each(|client| client.line.hear(b'm'));
    kill(provider, Signal::SIGKILL).unwrap();
    waitpid(provider, None).unwrap();
    // The honest readers die while every hostile writer still holds its lock.
    clients.into_iter().for_each(Client::dies_of_sigbus);
    for client in hostile {
        client.line.say(b'l');
        client.succeeds();
    }
}

fn ended(pidfd: impl AsFd, limit_s: i64) -> bool {
    let limit = Timespec { tv_sec: limit_s, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).unwrap() > 0
}

pub(crate) fn guardian_outlives_signals_and_ends_when_told() {
    let client = Client::fork(NOBODY, reader);
    let memory = start();
    let region = give(&client.line, &memory);
    client.line.hear(b'm');
    for signal in
        [PidfdSignal::INT, PidfdSignal::TERM, PidfdSignal::HUP, PidfdSignal::QUIT, PidfdSignal::PIPE]
    {
        pidfd_send_signal(memory.guardian(), signal).unwrap();
    }
    // It serves on.
    memory.region(LEN as u64).unwrap().close();
    let pidfd = memory.guardian().try_clone_to_owned().unwrap();
    assert!(!ended(&pidfd, 0));
    drop(region);
    drop(memory);
    assert!(ended(&pidfd, 0), "the last handle waits for the guardian's end");
    client.dies_of_sigbus();
}

/// Nobody closes or cuts this region but the guardian, while the provider lives on.
pub(crate) fn guardian_told_to_end_cuts_first() {
    let client = Client::fork(NOBODY, reader);
    let factory = Factory::spawn(config(Namespace::WhenNeeded)).unwrap();
    let made = factory.create(LEN as u64, Shape::Open).unwrap();
    rustix::io::pwrite(&made.file, b"x", 0).unwrap();
    client.line.give(factory.read_only(made.key).unwrap().as_fd());
    client.line.hear(b'm');
    let pidfd = factory.guardian().try_clone_to_owned().unwrap();
    factory.shutdown().unwrap();
    assert!(ended(&pidfd, 0));
    client.dies_of_sigbus();
    assert_eq!(rustix::fs::fstat(&made.file).unwrap().st_size, 0);
}

pub(crate) fn killed_guardian_is_noticed() {
    let memory = start();
    let region = memory.region(LEN as u64).unwrap();
    assert!(!ended(memory.guardian(), 0));
    pidfd_send_signal(memory.guardian(), PidfdSignal::KILL).unwrap();
    assert!(ended(memory.guardian(), 10));
    assert_eq!(memory.region(LEN as u64).unwrap_err().code(), Code::ProviderLost);
    // What exists can still be taken back.
    let _ = region.cut().unwrap();
    assert_eq!(region.wipe().unwrap(), region.coverage().pinned);
}
