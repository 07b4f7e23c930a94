//! The data requests of the remote gate against a real provider: real regions, slots, take-backs and TCP sockets; only
//! the TLS is left out.
//!
//! The factory is forked while there is one thread, so the tests have a harness of their own and share one provider.
//! `world` is the provider and its leases, `line` the other end of a request, the rest are tests by subject.

mod batches;
mod broker;
mod effects;
mod line;
mod settling;
mod spans;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use world::World;

type Test = (&'static str, fn(&World));

/// Names a test after its function.
macro_rules! tests {
    ($($module:ident :: $name:ident,)*) => {
        const TESTS: &[Test] = &[$((concat!(stringify!($module), "::", stringify!($name)), $module::$name),)*];
    };
}

tests! {
    spans::a_read_ends_where_the_region_does,
    spans::a_right_to_a_part_reads_that_part_or_nothing,
    spans::a_write_ends_where_the_region_does,
    spans::a_write_of_many_frames_is_written_as_it_comes,
    spans::a_write_that_failed_swallows_the_rest,
    spans::a_frame_out_of_step_is_refused,
    spans::a_question_is_answered_as_the_right_is_now,
    spans::foreign_and_forged_handles_look_alike,
    spans::an_answer_has_a_checksum_if_the_request_had,
    spans::a_request_of_a_gibibyte_needs_a_chunk,
    spans::no_room_is_waited_for,
    spans::a_deadline_ends_it_wherever_it_is,
    spans::a_rotation_is_waited_for,
    spans::a_revoke_stops_a_long_read_within_a_chunk,
    batches::items_fail_one_by_one,
    batches::an_item_may_need_many_frames,
    batches::a_scatter_may_come_in_many_frames,
    batches::a_batch_is_bounded_over_all_its_frames,
    batches::a_part_that_was_written_is_told,
    batches::random_batches_do_what_vectors_do,
    settling::who_reads_has_it_before_the_acknowledgement,
    settling::who_does_not_read_is_cut_off,
    settling::what_was_closed_before_is_settled_too,
    settling::a_grant_is_settled_and_its_neighbours_are_left_alone,
    settling::an_expiry_is_settled,
    settling::a_narrowing_is_settled,
    settling::a_session_ends_with_nothing_under_way,
    settling::nobody_waits_for_a_lease_that_left_nothing_under_way,
    settling::what_ended_earlier_is_waited_for_while_an_operation_is_inside,
    settling::a_narrowing_waits_for_the_one_before_it,
    settling::many_that_do_not_read_are_waited_for_together,
    settling::a_refused_change_of_owner_still_ends_what_is_due,
    effects::a_word_is_changed_by_who_may_read_and_write_it,
    effects::no_addition_is_lost_to_rotations_and_none_is_made_twice,
    effects::what_was_done_is_answered_again_by_another_connection,
    effects::a_word_is_not_told_again_by_a_right_that_does_not_reach_it,
    effects::what_was_done_is_known_when_its_slot_is_anothers,
    effects::leases_are_made_with_their_first_bytes,
    effects::leases_are_made_once_however_often_they_are_asked_for,
    effects::leases_whose_first_bytes_broke_off_are_given_back,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let chosen: Vec<&Test> =
        TESTS.iter().filter(|t| filters.is_empty() || filters.iter().any(|f| t.0.contains(*f))).collect();
    if arguments.iter().any(|a| a == "--list") {
        return chosen.iter().for_each(|test| println!("{}: test", test.0));
    }
    if chosen.is_empty() && !arguments.iter().any(|a| a == "--measure") {
        return;
    }
    let world = World::start();
    if arguments.iter().any(|a| a == "--measure") {
        return spans::measure(&world);
    }
    println!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for (name, body) in &chosen {
        let started = Instant::now();
        let ok = catch_unwind(AssertUnwindSafe(|| body(&world))).is_ok();
        failed += usize::from(!ok);
        let (ms, word) = (started.elapsed().as_millis(), if ok { "ok" } else { "FAILED" });
        println!("test {name} ... {word} ({ms} ms)");
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {} passed; {failed} failed; 0 ignored\n", chosen.len() - failed);
    drop(world);
    std::process::exit(i32::from(failed > 0) * 101);
}
