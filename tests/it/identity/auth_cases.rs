//! The hostile tokens, keys and issuers of `tests/cases/auth_cases.tsv`, row by row.
//!
//! Every row of the file is in exactly one of three lists: run here against the verifier, run in
//! the gateway's tests, or waiting for a part that does not exist yet.

mod claims;
mod discovery;
mod signature;

use std::collections::BTreeSet;

/// Declares a test for each row that is run here.
macro_rules! run_here {
    ($($id:literal => $part:ident::$rule:ident,)*) => {
        const RUN_HERE: &[&str] = &[$($id),*];

        mod row {
            $(
                #[tokio::test]
                async fn $rule() {
                    super::$part::$rule().await;
                }
            )*
        }
    };
}

run_here! {
    "A01" => signature::an_unsigned_token_is_refused,
    "A03" => signature::an_algorithm_or_curve_is_not_taken_for_another,
    "A05" => signature::a_twin_signature_gives_the_same_token_id,
    "A07" => signature::a_token_has_one_text,
    "A09" => signature::keys_with_one_kid_or_none_are_tried_by_kind,
    "A10" => signature::a_key_in_the_header_is_ignored,
    "A12" => signature::a_kid_is_only_looked_up,
    "A14" => signature::only_tokens_of_known_types_are_taken,
    "A16" => claims::a_token_without_audience_is_refused,
    "A18" => claims::an_audience_is_ours_to_the_byte,
    "A20" => claims::an_expiry_is_whole_seconds_and_near,
    "A22" => claims::not_before_is_honoured,
    "A24" => claims::an_identity_is_issuer_and_subject,
    "A26" => claims::a_payload_is_a_json_object,
    "A28" => claims::groups_are_a_list_of_texts_or_an_error,
    "A30" => claims::groups_are_found_by_pointer,
    "A32" => claims::an_unverified_address_counts_for_nothing,
    "A34" => claims::an_id_token_is_no_access_token,
    "A36" => claims::a_client_and_a_user_of_one_name_can_be_told_apart,
    "A38" => discovery::an_issuer_that_points_elsewhere_is_refused,
    "A40" => discovery::new_keys_work_at_once_and_removed_ones_die,
    "A42" => discovery::keys_come_only_over_verified_tls,
}

/// Rows that need a gateway: in `approval/kills.rs` (A43), `session.rs` (A45, A48), `http/secrets.rs`
/// (A50) and `gateway.rs` (A52).
const RUN_IN_GATEWAY: &[&str] = &["A43", "A45", "A48", "A50", "A52"];

/// Rows that need a later part, and which.
const WAITING: &[(&str, &str)] = &[("A47", "token introspection, which nothing configures")];

/// SHA-256 of the file that the lists above are about.
const PINNED: &str = "e453f021baad28ed1263f5600e35e2ef95deea38936326c20e2c8f4a8fc0ece9";

#[test]
fn every_row_of_the_pinned_file_is_run_or_listed() {
    let file = include_bytes!("../../cases/auth_cases.tsv");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, file);
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, PINNED, "the cases changed: read them again, then pin the new hash");
    let text = std::str::from_utf8(file).unwrap();
    let rows: Vec<&str> = text.lines().skip(1).map(|row| row.split('\t').next().unwrap()).collect();
    let waiting = WAITING.iter().map(|(id, _)| id);
    let listed: Vec<&str> = RUN_HERE.iter().chain(RUN_IN_GATEWAY).chain(waiting).copied().collect();
    let unique: BTreeSet<&str> = listed.iter().copied().collect();
    assert_eq!(unique.len(), listed.len(), "a row is listed twice");
    assert_eq!(unique, rows.iter().copied().collect(), "rows and lists differ");
}
