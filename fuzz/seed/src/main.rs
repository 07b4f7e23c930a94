//! Writes `fuzz/seeds/`: for each target the inputs that it starts from, made by the code that it attacks. The same
//! code gives the same bytes, so a seed that no longer fits its format shows as a difference.
//!
//! Run `cargo run --manifest-path fuzz/Cargo.toml -p seed`.
#![forbid(unsafe_code)]

mod audit_log;
mod commands;
mod frames;
mod link;

use std::path::Path;
use std::{fs, io};

/// Whole files of an operator and the shortest texts that reach one rule each.
const CONFIGS: &[&str] = &[
    "[node]\npool = \"1GiB\"\n",
    "[lease]\nttl_max = \"1h\"\nttl_default = \"5m\"\n",
    "[quota.default]\nleases = 10\n[quota.alice]\nleased_bytes = \"64MiB\"\n",
    "a = [[[[[[",
    "[node]\npool = -1\npool = \"x\"\n",
];
const POLICIES: &[&str] = &[
    "allow if true;",
    "role(\"alice\", \"ops\");\noperator($n) <- role($n, \"ops\");\nallow if request(\"revoke\"), principal($k, $n), operator($n);\n",
    "deny if request(\"lease.create\"), size($bytes), $bytes > 1073741824;",
    "deny if right(\"write\"), receiver($k, $n), !{\"bob\", \"carol\"}.contains($n) or ttl($t), $t > 5;",
    "allow if ((((",
    "f($x) <- f($x); // a circle\n/* open",
];

fn main() -> io::Result<()> {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    if seeds.exists() {
        fs::remove_dir_all(&seeds)?; // a seed that is made no more must not stay
    }
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let targets = [
        ("token_gate", caps::token::fuzzing::token_seeds()),
        ("token_block", caps::token::fuzzing::block_seeds()),
        ("token_chain", caps::token::fuzzing::chain_seeds()),
        ("wire_frame", frames::frames()),
        ("wire_channel", frames::channel()),
        ("socket_server", provider::gate::fuzzing::handshake_seeds()),
        ("socket_client", libmem::fuzzing::conversation_seeds()),
        ("audit_entry", audit_log::entries()),
        ("audit_note", audit_log::notes()),
        ("audit_vkey", audit_log::vkeys()),
        ("audit_proof", audit_log::proofs()),
        ("audit_path", audit_log::paths()),
        ("audit_journal", audit_log::journals()),
        ("audit_tile", audit_log::directories()),
        ("config", [texts(&[policy::config::default_text()]), texts(CONFIGS)].concat()),
        ("policy", [texts(&[policy::datalog::DEFAULT]), texts(POLICIES)].concat()),
        ("broker_command", commands::runs()),
        ("kernel_events", provider::kernel::fuzzing::event_seeds()),
        ("broker_story", broker::fuzzing::story_seeds()),
        ("remote_stream", caps::wire::remote::fuzzing::seeds()),
        ("wire_link", link::bodies()),
    ];
    for (target, inputs) in targets {
        let directory = seeds.join(target);
        fs::create_dir_all(&directory)?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(directory.join(format!("{number:02}")), input)?;
        }
    }
    Ok(())
}
