//! `leasehold run`: what a program in the sandbox can do, what it cannot, and that no line of its list is for nothing.
//!
//! This binary is also the programs that run in the sandbox, and the one that launches them with a line withdrawn: the
//! first argument says which. So there is no test framework here, whose threads and files would be in the way.

#[path = "common/mod.rs"]
mod common;
#[path = "sandbox/daemons.rs"]
mod daemons;
#[path = "sandbox/hostile.rs"]
mod hostile;
#[path = "sandbox/lines.rs"]
mod lines;
#[path = "sandbox/programs.rs"]
mod programs;
#[path = "sandbox/scene.rs"]
mod scene;
#[path = "sandbox/use_it.rs"]
mod use_it;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// A test and its name.
type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("programs_use_their_leases", use_it::programs_use_their_leases),
    (
        "a_program_starts_with_nothing_but_what_it_may_use",
        use_it::a_program_starts_with_nothing_but_what_it_may_use,
    ),
    ("a_confined_session_is_for_memory_alone", use_it::a_confined_session_is_for_memory_alone),
    ("where_nothing_stronger_is_to_be_had_the_tier_is_sandboxed", use_it::the_tier_is_sandboxed),
    ("what_cannot_be_run_is_refused", use_it::what_cannot_be_run_is_refused),
    ("every_attack_is_deadly_or_in_vain", hostile::every_attack_is_deadly_or_in_vain),
    ("every_line_of_the_list_is_used", lines::every_line_of_the_list_is_used),
    ("node_and_guardian_are_under_their_lists", daemons::node_and_guardian_are_under_their_lists),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("program") => return programs::play(&arguments.collect::<Vec<_>>()),
        Some("launch") => return lines::launch(&arguments.collect::<Vec<_>>()),
        _ => {}
    }
    // What `cargo test` passes on: options are not for us, a word selects tests.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    if std::env::args().any(|word| word == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let mut failed = 0;
    let mut passed = 0;
    for (name, test) in
        TESTS.iter().filter(|(name, _)| words.is_empty() || words.iter().any(|word| name.contains(word)))
    {
        let good = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if good { "ok" } else { "FAILED" });
        *(if good { &mut passed } else { &mut failed }) += 1;
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
