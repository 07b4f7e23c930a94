//! The memory mechanism against a real kernel: what it promises, and who tries to break it.
//!
//! Each test runs in a process of its own, forked while there is one thread, because a factory must be forked before
//! any other exists. Client processes are forked by the test before it starts a factory. Run as root everything is
//! tested; run as an ordinary user the sealed tests cannot be, and the list says so.
//!
//! `harness` runs tests, `client` is the other process, the rest are tests by subject.

mod client;
mod death;
mod harness;
mod life;
mod open;
mod sealed;
mod words;

use harness::{Test, User};

const TESTS: &[Test] = &[
    Test::new("life::region_is_fresh_zeroed_and_exact", User::Root, life::region_is_fresh_zeroed_and_exact),
    Test::new(
        "life::region_is_fresh_zeroed_and_exact_open",
        User::Nobody,
        life::region_is_fresh_zeroed_and_exact,
    ),
    Test::new("life::steps_come_in_order", User::Any, life::steps_come_in_order),
    Test::new(
        "life::what_is_pinned_is_read_after_the_cut",
        User::Any,
        life::what_is_pinned_is_read_after_the_cut,
    ),
    Test::new(
        "life::what_is_pinned_is_read_after_the_cut_open",
        User::Nobody,
        life::what_is_pinned_is_read_after_the_cut,
    ),
    Test::new("life::mediated_access_ends_with_the_cut", User::Any, life::mediated_access_ends_with_the_cut),
    Test::new("life::no_mediated_write_survives_a_cut", User::Any, life::no_mediated_write_survives_a_cut),
    Test::new("life::pool_is_a_limit_and_comes_back", User::Any, life::pool_is_a_limit_and_comes_back),
    Test::new("life::threads_make_regions_side_by_side", User::Any, life::threads_make_regions_side_by_side),
    Test::new(
        "life::what_was_given_back_is_there_for_who_asks_next",
        User::Any,
        life::what_was_given_back_is_there_for_who_asks_next,
    ),
    Test::new("life::factory_wants_a_single_thread", User::Any, life::factory_wants_a_single_thread),
    Test::new("life::factory_refuses_impossible_bounds", User::Any, life::factory_refuses_impossible_bounds),
    Test::new("life::capabilities_say_what_is_missing", User::Any, life::capabilities_say_what_is_missing),
    Test::new("life::process_leaves_no_core", User::Any, life::process_leaves_no_core),
    Test::new("sealed::root_gets_every_protection", User::Root, sealed::root_gets_every_protection),
    Test::new(
        "sealed::client_maps_and_every_attack_fails",
        User::Root,
        sealed::client_maps_and_every_attack_fails,
    ),
    Test::new("sealed::cut_is_sigbus", User::Root, sealed::cut_is_sigbus),
    Test::new(
        "sealed::wipe_reaches_what_a_client_pinned",
        User::Root,
        sealed::wipe_reaches_what_a_client_pinned,
    ),
    Test::new("sealed::rotation_loses_no_write", User::Root, sealed::rotation_loses_no_write),
    Test::new(
        "sealed::rotation_by_pipes_loses_no_write",
        User::Root,
        sealed::rotation_by_pipes_loses_no_write,
    ),
    Test::new("sealed::descriptor_is_made_once", User::Root, sealed::descriptor_is_made_once),
    Test::new(
        "sealed::works_on_mounts_of_a_user_namespace",
        User::Root,
        sealed::works_on_mounts_of_a_user_namespace,
    ),
    Test::new("open::other_users_only_read_as_root", User::Root, open::other_users_only_read),
    Test::new("open::other_users_only_read", User::Nobody, open::other_users_only_read),
    Test::new("open::same_user_cannot_truncate", User::Nobody, open::same_user_cannot_truncate),
    Test::new("open::dead_file_cannot_be_refilled_as_root", User::Root, open::dead_file_cannot_be_refilled),
    Test::new("open::dead_file_cannot_be_refilled", User::Nobody, open::dead_file_cannot_be_refilled),
    Test::new("open::pin_covers_what_fits", User::Nobody, open::pin_covers_what_fits),
    Test::new("open::stuck_region_holds_up_no_other", User::Root, open::stuck_region_holds_up_no_other),
    Test::new(
        "death::killed_provider_is_cut_by_the_guardian",
        User::Root,
        death::killed_provider_is_cut_by_the_guardian,
    ),
    Test::new(
        "death::killed_provider_is_cut_in_the_open_tier",
        User::Nobody,
        death::killed_provider_is_cut_by_the_guardian,
    ),
    Test::new(
        "death::stuck_region_does_not_stop_the_last_cut",
        User::Root,
        death::stuck_region_does_not_stop_the_last_cut,
    ),
    Test::new(
        "death::guardian_outlives_signals_and_ends_when_told",
        User::Any,
        death::guardian_outlives_signals_and_ends_when_told,
    ),
    Test::new("death::guardian_told_to_end_cuts_first", User::Any, death::guardian_told_to_end_cuts_first),
    Test::new("death::killed_guardian_is_noticed", User::Any, death::killed_guardian_is_noticed),
    Test::new("words::only_whole_words_are_changed", User::Any, words::only_whole_words_are_changed),
    Test::new(
        "words::every_change_before_a_cut_is_kept",
        User::Any,
        words::every_change_before_a_cut_is_kept,
    ),
    Test::new(
        "words::every_change_before_a_cut_is_kept_open",
        User::Nobody,
        words::every_change_before_a_cut_is_kept,
    ),
    Test::new(
        "words::words_that_were_changed_are_not_counted_as_the_providers",
        User::Any,
        words::words_that_were_changed_are_not_counted_as_the_providers,
    ),
    Test::new("words::no_change_is_lost_to_a_rotation", User::Root, words::no_change_is_lost_to_a_rotation),
    Test::new(
        "words::no_change_is_lost_to_a_rotation_open",
        User::Nobody,
        words::no_change_is_lost_to_a_rotation,
    ),
];

fn main() {
    harness::run(TESTS);
}
