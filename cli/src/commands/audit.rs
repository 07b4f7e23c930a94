//! `leasehold audit`: the log, from its files alone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use audit::Vkey;
use audit::proof::{Inclusion, prove};
use audit::read::{Reader, Stored};
use audit::verify::{Damage, LogReport, Options, Report as Logs, verify_dir_with};
use caps::error::Code;
use serde_json::{Value, json};

use crate::args::audit::{Audit, Prove, Tail, Verify};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::files;
use crate::output::Report;
use crate::output::table::{Align, Table};

/// Bytes of a file with public keys of logs: some dozens of lines.
const VKEY_FILE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a checkpoint that was kept: the most a signed note of ours can have.
const CHECKPOINT_BYTES_MAX: usize = 64 * 1024;
/// Most entries that one call shows.
const TAIL_LINES_MAX: u64 = 100_000;
/// How long to wait for entries before looking again, should the kernel's notice be lost.
const FOLLOW_WAIT: Duration = Duration::from_secs(5);

pub(crate) fn run(command: &Audit, context: &Context) -> Result<Report> {
    match command {
        Audit::Verify(arguments) => verify(arguments, context),
        Audit::Tail(arguments) => tail(arguments, context),
        Audit::Prove(arguments) => inclusion(arguments, context),
        Audit::Receipt(arguments) => super::receipt::run(arguments, context),
    }
}

fn verify(arguments: &Verify, context: &Context) -> Result<Report> {
    let vkeys = arguments.vkeys.iter().map(|text| vkeys(text)).collect::<Result<Vec<_>>>()?.concat();
    let against = arguments.against.iter().map(|path| checkpoint(path)).collect::<Result<Vec<_>>>()?;
    let logs = verify_dir_with(&arguments.dir, &Options { vkeys, against })?;
    let failure = logs.damage().map(|(path, damage)| damaged(path, damage));
    Ok(Report::new(value(&logs), text(&logs, context.style.stdout)).failing(failure))
}

/// A key, or a file with one a line.
pub(super) fn vkeys(text: &str) -> Result<Vec<Vkey>> {
    let refusal = match Vkey::parse(text) {
        Ok(vkey) => return Ok(vec![vkey]),
        Err(error) => error,
    };
    let path = Path::new(text);
    if !path.exists() {
        // Neither: it was more likely meant as a key.
        return Err(Failure::usage(
            format!("neither a vkey nor a file: {}", refusal.detail()),
            "a vkey is NAME+HASH+KEY, as in the file `vkeys` beside the logs",
        ));
    }
    let lines = files::read_text(path, VKEY_FILE_BYTES_MAX)?;
    let lines = lines.lines().filter(|line| !line.trim().is_empty());
    let parsed = lines.map(Vkey::parse).collect::<caps::Result<Vec<_>>>();
    parsed.map_err(|error| Failure::of(error.code(), format!("{}: {}", files::show(path), error.detail())))
}

fn checkpoint(path: &Path) -> Result<Vec<u8>> {
    Ok(files::read_text(path, CHECKPOINT_BYTES_MAX)?.as_bytes().to_vec())
}

fn damaged(path: &str, damage: &Damage) -> Failure {
    let place = if path.is_empty() { String::new() } else { format!("log `{}`: ", printable(path)) };
    Failure::of(damage.code, format!("{place}{}", printable(&damage.to_string())))
}

fn printable(text: &str) -> String {
    policy::diagnostic::quote(text)
}

fn text(logs: &Logs, colour: bool) -> String {
    let mut table = Table::new([
        ("LOG", Align::Left),
        ("", Align::Left),
        ("ENTRIES", Align::Right),
        ("UNSIGNED", Align::Right),
        ("ROOT", Align::Left),
    ]);
    for LogReport { path, outcome } in &logs.logs {
        let path = if path.is_empty() { ".".to_owned() } else { printable(path) };
        table.row(match outcome {
            Ok(summary) => {
                let checkpoint = summary.signed.checkpoint();
                let (size, unsigned) = (checkpoint.size.to_string(), summary.unsigned.to_string());
                [path, "ok".into(), size, unsigned, checkpoint.root.to_string()]
            }
            Err(damage) => [path, "DAMAGED".into(), "-".into(), "-".into(), damage.code.text().into()],
        });
    }
    table.render(colour, "no logs")
}

fn value(logs: &Logs) -> Value {
    let log = |LogReport { path, outcome }: &LogReport| match outcome {
        Ok(summary) => {
            let checkpoint = summary.signed.checkpoint();
            json!({
                "path": path,
                "ok": true,
                "origin": checkpoint.origin.to_string(),
                "entries": checkpoint.size,
                "unsigned": summary.unsigned,
                "torn_bytes": summary.torn_bytes,
                "root": checkpoint.root.to_string(),
                "signed_by": summary.signed.keys(),
                "witnesses": summary.signed.witnesses().iter().map(|(name, _)| name).collect::<Vec<_>>(),
            })
        }
        Err(damage) => json!({
            "path": path,
            "ok": false,
            "code": damage.code.text(),
            "file": damage.file,
            "index": damage.index,
            "detail": damage.detail,
        }),
    };
    json!({ "ok": logs.damage().is_none(), "logs": logs.logs.iter().map(log).collect::<Vec<_>>() })
}

/// The log that is meant where none is named.
fn broker_log(context: &Context) -> PathBuf {
    context.dirs.audit().join("broker")
}

fn tail(arguments: &Tail, context: &Context) -> Result<Report> {
    if arguments.lines > TAIL_LINES_MAX {
        let message = format!("at most {TAIL_LINES_MAX} entries are shown at once");
        return Err(Failure::usage(message, "choose fewer with --lines"));
    }
    let dir = arguments.log.clone().unwrap_or_else(|| broker_log(context));
    let size = Reader::open(&dir, 0)?.size()?;
    let mut reader = Reader::open(&dir, size.saturating_sub(arguments.lines))?;
    let mut entries = Vec::new();
    loop {
        let batch = reader.batch()?;
        if batch.is_empty() {
            break;
        }
        entries.extend(batch);
    }
    if arguments.follow {
        return follow(&mut reader, &entries);
    }
    let values: Vec<_> = entries.iter().map(entry_value).collect();
    Ok(Report::new(json!({ "entries": values }), entries.iter().map(line).collect::<String>()))
}

/// Prints entries as they come. Ends with the process, or once nobody reads any more.
fn follow(reader: &mut Reader, shown: &[Stored]) -> Result<Report> {
    let mut out = std::io::stdout().lock();
    let mut print = |entries: &[Stored]| {
        let text: String = entries.iter().map(line).collect();
        std::io::Write::write_all(&mut out, text.as_bytes()).is_ok()
    };
    let mut more = print(shown);
    while more {
        reader.wait(FOLLOW_WAIT)?;
        let batch = reader.batch()?;
        more = batch.is_empty() || print(&batch);
    }
    Ok(Report::silent())
}

/// An entry on a line. What does not parse is shown as it is, escaped: tail shows a log, verify judges it.
fn line(stored: &Stored) -> String {
    format!("{}\n", audit::text::printable(&stored.bytes))
}

fn entry_value(stored: &Stored) -> Value {
    serde_json::from_slice(&stored.bytes).unwrap_or_else(
        |_| json!({ "index": stored.index, "damaged": audit::text::printable(&stored.bytes) }),
    )
}

/// What to do about an entry that no checkpoint covers.
const NOT_COVERED: &str = "if `leasehold audit tail` shows the entry, wait for the next checkpoint and try again: \
                           `audit.checkpoint_every` in the node's configuration says how often one is signed";

fn inclusion(arguments: &Prove, context: &Context) -> Result<Report> {
    let log = arguments.log.clone().unwrap_or_else(|| broker_log(context));
    let Inclusion { entry, proof } = prove(&log, arguments.index).map_err(|error| match error.code() {
        // Nothing is wrong with the number, perhaps: a young entry has no proof yet.
        Code::Range => Failure::from(error).help(NOT_COVERED),
        _ => error.into(),
    })?;
    let Ok(entry) = String::from_utf8(entry) else {
        return Err(Failure::of(Code::AuditEntry, format!("entry {} is no text", arguments.index)));
    };
    let Some(output) = &arguments.output else {
        let value = json!({ "index": arguments.index, "entry": entry, "proof": proof });
        return Ok(Report::new(value, format!("{}\n\n{proof}", audit::text::printable(entry.as_bytes()))));
    };
    let with = |end: &str| {
        let mut path = output.clone().into_os_string();
        path.push(end);
        PathBuf::from(path)
    };
    let (entry_file, proof_file) = (with(".entry"), with(".tlog-proof"));
    files::create(&entry_file, &entry)?;
    files::create(&proof_file, &proof)?;
    let text = format!("wrote {} and {}\n", files::show(&entry_file), files::show(&proof_file));
    let value = json!({
        "index": arguments.index,
        "entry_file": entry_file.to_string_lossy(),
        "proof_file": proof_file.to_string_lossy(),
    });
    Ok(Report::new(value, text))
}
