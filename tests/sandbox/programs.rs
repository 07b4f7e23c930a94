//! The programs that run in the sandbox. They begin without a test framework, and print lines.

use std::io::{BufRead, stdin};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use libmem::sync::Event;
use libmem::{Client, Code, LeaseOptions, Reason, Rights, Target, inherited_tokens};

use crate::hostile;

pub fn play(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match &words[..] {
        ["client"] => client(),
        ["sleeper"] => sleeper(),
        ["holder"] => holder(),
        ["survivor"] => survivor(),
        ["asker"] => asker(),
        ["attacker", rest @ ..] => hostile::attack(rest),
        _ => return ExitCode::FAILURE,
    }
    ExitCode::SUCCESS
}

fn heard() -> String {
    let mut line = String::new();
    stdin().lock().read_line(&mut line).unwrap();
    line
}

/// Uses a lease in the ordinary ways: maps it, reads and writes it from two threads, through the node too, and ends.
fn client() {
    let client = Client::inherited().unwrap();
    assert_eq!(Client::inherited().unwrap_err().code(), Code::Unreachable, "there is one session");
    let tokens = inherited_tokens().unwrap();
    let token = &tokens[0].token;
    let region = client.open_mapped(token, Rights::READ_WRITE).unwrap();
    let (say, said) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            region.write_at(4096, b"from a thread").unwrap();
            std::thread::yield_now();
            say.send(region.fetch_add_u64(0, 1).unwrap()).unwrap();
        });
        let _ = said.recv().unwrap();
    });
    let mut bytes = [0; 13];
    region.read_at(4096, &mut bytes).unwrap();
    assert_eq!(&bytes, b"from a thread");
    let mediated = client.open_mediated(token, Rights::READ_WRITE).unwrap();
    mediated.write_at(8192, b"through the node").unwrap();
    // Grows in steps, so that the allocator moves a large block.
    let mut large: Vec<u8> = Vec::new();
    for size in 1..=8 {
        large.resize(size << 20, 1);
    }
    assert_eq!(large.len(), 8 << 20);
    let random: std::collections::HashSet<u64> = [1].into();
    assert!(random.contains(&1));
    // SAFETY: clock_gettime writes one timespec, and here as a machine does it whose clock needs a call.
    unsafe {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        assert_eq!(libc::syscall(libc::SYS_clock_gettime, libc::CLOCK_MONOTONIC, &raw mut now), 0);
    }
    // Newer C libraries ask so what a descriptor is, and `put` how much of a file is left.
    let mut about = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat writes one `struct stat` to memory of that size.
    assert_eq!(unsafe { libc::syscall(libc::SYS_fstat, 0, about.as_mut_ptr()) }, 0);
    let _ = rustix::fs::tell(stdin()); // a pipe has no position
    println!("used {}", tokens[0].name.as_ref().unwrap());
    let panicked = std::panic::catch_unwind(|| panic!("a program may panic"));
    assert!(panicked.is_err());
}

/// Sleeps until it is signalled.
fn sleeper() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing, which is allowed in signal context.
    unsafe { libc::signal(libc::SIGUSR1, nothing as extern "C" fn(libc::c_int) as libc::sighandler_t) };
    println!("sleeping");
    let long = libc::timespec { tv_sec: 60, tv_nsec: 0 };
    // SAFETY: reads one timespec and writes nothing. Not the library's sleep, which a signal does not end.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const long, std::ptr::null_mut()) };
    println!("awake");
}

/// Keeps a lease mapped until it is told to look at it again.
fn holder() {
    let client = Client::inherited().unwrap();
    let region = client.open_mapped(&inherited_tokens().unwrap()[0].token, Rights::READ_WRITE).unwrap();
    region.write_at(0, b"held").unwrap();
    println!("{:?} {:?}", region.facts().tier, client.welcome().tier);
    heard();
    match region.read_at(0, &mut [0; 4]) {
        Ok(()) => println!("OK"),
        Err(error) => println!("{}", error.code().text()),
    }
}

/// Keeps a lease mapped, and a thread waiting for an event in it, while the memory behind both is replaced.
fn survivor() {
    let client = Client::inherited().unwrap();
    let region = client.open_mapped(&inherited_tokens().unwrap()[0].token, Rights::READ_WRITE).unwrap();
    region.write_at(4096, b"kept").unwrap();
    let event = Event::new(&region, 0).unwrap();
    let seen = event.count().unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| event.wait(seen, Duration::from_secs(60)).unwrap());
        println!("waiting");
        heard();
        let mut bytes = [0; 4];
        region.read_at(4096, &mut bytes).unwrap();
        assert_eq!(&bytes, b"kept");
        event.notify_all().unwrap();
        assert_eq!(waits.join().unwrap(), seen + 1);
    });
    println!("woken");
}

/// Asks for what a confined session is refused.
fn asker() {
    let client = Client::inherited().unwrap();
    let lease = LeaseOptions::new(64 << 10, Duration::from_secs(60));
    println!("{}", client.lease(lease).unwrap_err().code().text());
    println!("{}", client.leases().next().unwrap().unwrap_err().code().text());
    let all = Target::Holder(client.holder());
    println!("{}", client.revoke(all, Reason::new("").unwrap()).unwrap_err().code().text());
    println!("{}", client.status().unwrap_err().code().text());
    println!(
        "{}",
        client
            .principal_add("eve".to_owned().try_into().unwrap(), client.holder())
            .unwrap_err()
            .code()
            .text()
    );
    let tokens = libmem::inherited_tokens().unwrap();
    println!("{}", client.token_check(&tokens[0].token).unwrap_err().code().text());
}
