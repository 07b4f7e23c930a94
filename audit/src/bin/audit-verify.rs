//! Verifies logs with nothing but their files and public keys: `audit-verify DIR VKEY...`.
//!
//! It needs nothing of a running node, so an auditor can build it alone. Exit code 0: all verify; 5: damage; 1: the
//! directory cannot be read; 2: wrong usage.

use std::path::Path;
use std::process::ExitCode;

use audit::verify::{Options, Report, verify_dir_with};
use audit::{Vkey, text};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(dir) = arguments.next() else { return usage() };
    let vkeys = arguments.map(|text| Vkey::parse(text.to_str()?).ok()).collect::<Option<Vec<_>>>();
    let Some(vkeys) = vkeys.filter(|vkeys| !vkeys.is_empty()) else { return usage() };
    match verify_dir_with(Path::new(&dir), &Options { vkeys, against: Vec::new() }) {
        Ok(report) => print(&report),
        Err(error) => {
            eprintln!("error[{}]: {}\nhelp: {}", error.code(), error.detail(), error.code().help());
            ExitCode::from(error.code().blame().exit_code())
        }
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: audit-verify DIR VKEY...\n  DIR   a log, or a directory with logs below it\n  VKEY  name+hash+key"
    );
    ExitCode::from(2)
}

fn print(report: &Report) -> ExitCode {
    for log in &report.logs {
        let path = if log.path.is_empty() { ".".to_owned() } else { text::printable(log.path.as_bytes()) };
        match &log.outcome {
            Ok(summary) => {
                let checkpoint = summary.signed.checkpoint();
                println!(
                    "ok   {path}  {}  {} entries signed, {} after the checkpoint, root {}",
                    checkpoint.origin, checkpoint.size, summary.unsigned, checkpoint.root
                );
            }
            Err(damage) => println!("BAD  {path}  {}: {damage}", damage.code),
        }
    }
    if report.damage().is_some() { ExitCode::from(5) } else { ExitCode::SUCCESS }
}
