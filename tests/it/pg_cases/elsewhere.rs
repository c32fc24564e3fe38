//! Rows that a test of their own holds.

use super::Plan;

/// File and function.
pub fn of(id: &str) -> Option<Plan> {
    Some(Plan::Elsewhere(match id {
        "X13" | "X15" => &[("hostile", "bytes_behind_an_ssl_request_are_never_taken")],
        "X18" => &[("hostile", "mutated_bytes_of_clients_end_their_own_session_at_most")],
        "X19" => &[("clients", "an_interrupted_psql_cancels_its_statement_and_goes_on")],
        "X52" => &[("memory", "a_large_select_does_not_grow_the_gateway")],
        "G01" => {
            &[("approval/held", "python_drivers_wait_with_their_values_shown_and_go_on_after_a_no")]
        }
        "G03" => &[("approval/held", "in_a_transaction_that_has_done_something_the_wait_is_short")],
        "G05" => &[("approval/held", "a_request_ends_with_its_time_and_with_its_client")],
        "G07" => &[("approval/held", "a_pipeline_keeps_its_order_and_a_no_skips_to_its_sync")],
        "G08" => &[("clients", "psql_says_the_same_through_the_gateway")],
        "G10" => &[("clients", "pgbench_runs_in_all_its_modes")],
        "G12" => &[("clients", "protocol_3_2_and_tls_from_the_first_byte_change_nothing")],
        "G14" => &[("clients", "asyncpg_says_the_same_through_the_gateway")],
        "G18" => &[("hostile", "mutated_bytes_of_servers_end_their_own_session_at_most")],
        "G28" => &[(
            "disk_full",
            "on_a_full_disk_sessions_end_nothing_runs_unrecorded_and_service_resumes_with_space",
        )],
        "G29" => &[
            ("session", "a_reload_that_takes_the_access_away_ends_the_session"),
            ("session", "what_runs_when_the_token_ends_may_finish_within_the_grace"),
        ],
        "G20" => &[("masking/clients", "values_keep_their_types_in_both_formats")],
        "G22" | "X105" => &[("masking/statements", "no_statement_brings_a_masked_value")],
        "G24" => &[("masking/stores", "patterns_are_masked_wherever_they_stand")],
        _ => return None,
    }))
}
