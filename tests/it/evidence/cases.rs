//! The rows of `tests/cases/store_cases.tsv`: which tests execute each.

use std::fs;
use std::path::Path;

use crate::support::sources::test_is_there;

/// The tests that do what a row says, as `file: function`.
const ROWS: &[(&str, &[&str])] = &[
    (
        "R01",
        &[
            "kills.rs: whenever_the_gateway_is_killed_every_statement_the_server_received_is_recorded",
        ],
    ),
    (
        "R03",
        &[
            "recording.rs: a_crash_loop_seals_once_and_the_same",
            "recording.rs: a_kill_at_any_byte_of_a_repair_is_repaired",
        ],
    ),
    ("R05", &["recording.rs: on_a_full_disk_nothing_is_half_recorded_and_service_resumes"]),
    ("R07", &["evidence/faults.rs: a_store_that_is_swapped_for_a_link_is_not_followed"]),
    (
        "R09",
        &[
            "evidence/faults.rs: without_descriptors_nobody_is_served_unrecorded_and_service_resumes_with_them",
        ],
    ),
    ("R10", &["database/outage.rs: under_load_no_session_fails_and_the_index_is_whole_afterwards"]),
    (
        "R12",
        &[
            "evidence/archive.rs: while_the_store_fails_recordings_wait_here_and_nothing_is_lost",
            "evidence/archive.rs: whenever_the_gateway_is_killed_no_recording_is_lost_on_its_way",
        ],
    ),
    (
        "R14",
        &[
            "evidence/alterations.rs: every_byte_of_a_recording_and_its_ledger_counts",
            "recording.rs: no_single_changed_bit_passes",
        ],
    ),
    (
        "R16",
        &[
            "evidence/alterations.rs: both_verifiers_find_every_alteration_of_the_corpus",
            "evidence/command.rs: the_database_knows_a_ledger_whose_end_was_cut",
        ],
    ),
    (
        "R18",
        &[
            "evidence/index.rs: whatever_is_changed_added_or_removed_in_the_index_is_named",
            "evidence/index.rs: a_running_gateway_and_one_that_is_behind_are_no_alarm",
        ],
    ),
    ("R20", &["evidence/command.rs: an_older_copy_of_everything_on_the_disk_is_found"]),
    ("R22", &["evidence/alterations.rs: both_verifiers_find_every_alteration_of_the_corpus"]),
    ("R24", &["evidence/retention.rs: a_clock_that_jumped_ahead_deletes_nothing"]),
    (
        "R25",
        &[
            "evidence/prune.rs: a_hold_that_was_set_is_never_too_late_for_what_is_still_there",
            "evidence/retention.rs: a_hold_beats_retention_until_an_admin_lifts_it",
        ],
    ),
    ("R27", &["evidence/prune.rs: a_deletion_cut_short_anywhere_is_done_to_its_end"]),
    (
        "R28",
        &[
            "api_rights.rs: every_operation_needs_its_right_and_answers_as_it_is_described",
            "pages/rights.rs: a_page_shows_to_each_what_the_api_does",
        ],
    ),
    ("R30", &["pages/rights.rs: a_page_shows_to_each_what_the_api_does"]),
    (
        "R32",
        &["pages/browser.rs: every_page_works_in_a_browser_and_runs_nothing_of_what_was_recorded"],
    ),
    (
        "R34",
        &[
            "approval/held.rs: who_decides_sees_what_a_text_would_hide",
            "approval/held.rs: psql_waits_is_told_where_and_the_command_runs_once",
        ],
    ),
    (
        "R36",
        &[
            "exports.rs: an_export_acts_on_nothing_that_opens_it_and_is_the_same_by_command_and_by_api",
        ],
    ),
    (
        "R38",
        &[
            "approval/held.rs: a_word_counts_once_from_the_groups_named_and_never_from_who_asked",
            "approval/held.rs: another_account_of_the_same_person_does_not_decide",
        ],
    ),
    (
        "R40",
        &[
            "approval/moments.rs: a_prepared_statement_that_is_bound_again_waits_again",
            "approval/moments.rs: what_is_sent_behind_it_does_not_change_what_was_approved",
            "approval/held.rs: rules_that_got_stricter_while_it_waited_stop_it",
            "approval/again.rs: who_does_not_wait_is_told_where_to_look_and_the_same_request_runs_once_after_a_yes",
        ],
    ),
    (
        "R42",
        &[
            "approval/moments.rs: a_word_that_does_not_count_is_refused_and_audited",
            "approval/table.rs: psql",
        ],
    ),
    (
        "R44",
        &[
            "approval/held.rs: a_word_counts_once_from_the_groups_named_and_never_from_who_asked",
            "approval/moments.rs: a_word_that_does_not_count_is_refused_and_audited",
        ],
    ),
    (
        "R45",
        &[
            "masking/statements.rs: no_statement_brings_a_masked_value",
            "masking/stores.rs: what_a_client_writes_into_a_masked_column_is_in_no_store",
            "masking/stores.rs: patterns_are_masked_wherever_they_stand",
        ],
    ),
    (
        "R47",
        &[
            "evidence/encryption.rs: no_number_is_sealed_under_twice_and_no_key_is_used_after_a_restart",
            "evidence/encryption.rs: a_block_of_another_recording_is_refused_by_its_key",
        ],
    ),
];

#[test]
fn every_row_is_held_by_tests_that_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("tests/cases/store_cases.tsv")).unwrap();
    let ids: Vec<_> = table.lines().skip(1).map(|row| row.split('\t').next().unwrap()).collect();
    assert_eq!(ids, ROWS.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    for (id, tests) in ROWS {
        assert!(!tests.is_empty(), "{id}");
        for test in *tests {
            let (file, function) = test.split_once(": ").unwrap();
            assert_eq!(test_is_there(file, function), Ok(()), "{id}");
        }
    }
}
