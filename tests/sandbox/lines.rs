//! Each line of the list of allowed calls is withdrawn in turn: what only it allows then ends the program. If every
//! program still ends well, nothing uses the line, and it must go.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use provider::sandbox::{Launch, program};
use rustix::process::{Pid, Signal, kill_process};

use crate::common::until;
use crate::scene::{LEASE, Program, Scene, connect, own_path, until_in_call};

/// The programs: how they are started, after the program's file.
const PROGRAMS: [&[&str]; 5] = [
    &["OWN", "program", "client"],
    &["OWN", "program", "sleeper"],
    &["LEASEHOLD", "get", LEASE, "--len", "3MiB"],
    &["LEASEHOLD", "put", LEASE],
    &["OWN", "program", "survivor"],
];

pub fn every_line_of_the_list_is_used() {
    let scene = Scene::set();
    let token = scene.node.path().join("alice.token");
    // Once with everything allowed: otherwise a program that never works would "need" every line.
    for arguments in PROGRAMS {
        assert_eq!(end(&scene, &token, None, arguments), None, "{arguments:?} with everything allowed");
    }
    let unused: Vec<_> = program::ALLOWED
        .iter()
        .enumerate()
        .filter(|(line, _)| {
            PROGRAMS.iter().all(|arguments| end(&scene, &token, Some(*line), arguments) != Some(libc::SIGSYS))
        })
        .map(|(_, rule)| (rule.name, rule.arguments))
        .collect();
    assert!(unused.is_empty(), "nothing uses {unused:?}");
}

/// The signal that ended a program with a line withdrawn.
fn end(scene: &Scene, token: &Path, line: Option<usize>, arguments: &[&str]) -> Option<i32> {
    if !token.exists() {
        let text = scene.shell.json(&["lease", "renew", LEASE, "--as", "alice", "--ttl", "10m"]);
        fs::copy(text["token_file"].as_str().unwrap(), token).unwrap();
    }
    let mut command = Command::new(own_path());
    command.arg("launch").arg(scene.node.path()).arg(token);
    command.arg(line.map_or("none".to_owned(), |line| line.to_string()));
    for word in arguments {
        match *word {
            "OWN" => command.arg(own_path()),
            "LEASEHOLD" => command.arg(env!("CARGO_BIN_EXE_leasehold")),
            word => command.arg(word),
        };
    }
    command.env_clear().stderr(std::process::Stdio::null());
    let mut program = Program::start(command);
    if arguments.contains(&"sleeper") && program.hear() == "sleeping" {
        stop_and_continue(program.pid());
    }
    if arguments.contains(&"survivor") && program.hear() == "waiting" {
        until_in_call(program.pid(), libc::SYS_futex_waitv);
        scene.rotate();
    }
    program.tell("go on");
    let (_, status) = program.end();
    if line.is_none() {
        assert!(status.success(), "{arguments:?} ended with {status}");
    }
    status.signal()
}

/// Stops a process in its sleep and lets it go on, which takes it through `restart_syscall`; then signals it.
fn stop_and_continue(pid: u32) {
    let syscall = |wanted: libc::c_long| {
        move || {
            let text = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
            // Gone, or killed for the sleep itself: nothing to wait for.
            let over = text.is_empty()
                || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default().contains(") Z");
            (over || text.split(' ').next() == Some(&wanted.to_string())).then_some(())
        }
    };
    until("the program sleeps", syscall(libc::SYS_clock_nanosleep));
    let process = Pid::from_raw(pid as i32).unwrap();
    let _ = kill_process(process, Signal::STOP); // it may be gone, killed for what was withdrawn
    until("it is stopped", || {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (text.is_empty() || text.contains(") T") || text.contains(") Z")).then_some(())
    });
    let _ = kill_process(process, Signal::CONT);
    until("it sleeps on", syscall(libc::SYS_restart_syscall));
    let _ = kill_process(process, Signal::USR1); // its handler takes it through `rt_sigreturn`
}

/// Becomes a program in the sandbox, with a line withdrawn: `launch DIRECTORY TOKEN LINE|none PROGRAM ARGUMENT...`.
pub fn launch(arguments: &[String]) -> ExitCode {
    let [directory, token, line, command @ ..] = arguments else { return ExitCode::FAILURE };
    let directory = Path::new(directory);
    let (client, _) = connect(directory, "alice");
    let word = |text: &str| CString::new(text).unwrap();
    let launch = Launch {
        program: command[0].clone().into(),
        arguments: command.iter().map(|text| word(text)).collect(),
        environment: vec![word("LEASEHOLD_SESSION_FD=3"), word(&format!("LEASEHOLD_TOKEN_FDS={LEASE}:4"))],
        session: client.hand_over().unwrap(),
        tokens: vec![OwnedFd::from(File::open(token).unwrap())],
    };
    let error = match line.parse() {
        Ok(line) => launch.exec_without(line),
        Err(_) => launch.exec(),
    };
    let _ = writeln!(std::io::stderr(), "{error}"); // for whoever looks why
    ExitCode::FAILURE
}
