//! Functions of PostgreSQL and its extensions that do what their call does not show.
//!
//! A function is known by its last name: an extension may stand in any schema. What a function
//! that somebody wrote does is not known; that it is called is an effect by itself.

use super::actions::{self, Action};

/// What a known function does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// This action, on the function.
    Does(Action),
    /// Another server, and SQL given as text; its arguments hold a password.
    RunsElsewhere,
    /// Arguments: a setting's name, its value.
    SetsSetting,
    /// Argument: a setting's name.
    ShowsSetting,
    /// Argument: a channel.
    Notifies,
    /// Argument: a sequence.
    MovesSequence,
    /// Arguments hold a key or a password.
    TakesSecret,
}

/// What is known of a function by its name.
pub(super) fn known(schema: Option<&str>, name: &str) -> Option<Known> {
    if name.starts_with("dblink") {
        return Some(Known::RunsElsewhere);
    }
    if schema == Some("cron") {
        return Some(Known::Does(actions::DYNAMIC));
    }
    let by_name = |(known, _): &(&str, Known)| (*known).cmp(name);
    if let Ok(at) = KNOWN.binary_search_by(by_name) {
        return KNOWN.get(at).map(|(_, known)| *known);
    }
    FAMILIES.iter().find(|(prefix, _)| name.starts_with(prefix)).map(|(_, known)| *known)
}

/// Whether a function of this name reads what its call does not name: SQL or a table given as
/// text, files, pages, another server.
pub fn reads_unseen(name: &str) -> bool {
    use actions::{DYNAMIC, FILE, INSPECT, REMOTE};
    match known(None, name) {
        Some(Known::Does(action)) => [DYNAMIC, FILE, INSPECT, REMOTE].contains(&action),
        Some(Known::RunsElsewhere) => true,
        _ => false,
    }
}

/// Functions whose first argument names a table or a sequence, as a `regclass` or as text.
pub(super) fn names_table(name: &str) -> bool {
    NAMES_TABLE.contains(&name)
}

const NAMES_TABLE: &[&str] = &[
    "currtid2",
    "currval",
    "pg_freespace",
    "pg_indexes_size",
    "pg_relation_filenode",
    "pg_relation_filepath",
    "pg_relation_size",
    "pg_sequence_last_value",
    "pg_table_size",
    "pg_total_relation_size",
    "pgrowlocks",
    "to_regclass",
];

/// Functions of one argument that take a whole row, and so may be written as if columns of it.
pub(super) fn takes_whole_row(name: &str) -> bool {
    WHOLE_ROW.contains(&name)
}

const WHOLE_ROW: &[&str] = &[
    "any_value",
    "array_agg",
    "concat",
    "format",
    "hash_record",
    "hash_record_extended",
    "hstore",
    "json_agg",
    "json_agg_strict",
    "json_build_array",
    "jsonb_agg",
    "jsonb_agg_strict",
    "jsonb_build_array",
    "max",
    "min",
    "quote_literal",
    "quote_nullable",
    "record_out",
    "record_send",
    "row_to_json",
    "to_json",
    "to_jsonb",
];

/// By the beginning of the name.
const FAMILIES: &[(&str, Known)] = &[
    ("brin_page", Known::Does(actions::INSPECT)),
    ("brin_revmap", Known::Does(actions::INSPECT)),
    ("bt_", Known::Does(actions::INSPECT)),
    ("cursor_to_xml", Known::Does(actions::DYNAMIC)),
    ("database_to_xml", Known::Does(actions::DYNAMIC)),
    ("gin_leafpage", Known::Does(actions::INSPECT)),
    ("gin_metapage", Known::Does(actions::INSPECT)),
    ("gin_page", Known::Does(actions::INSPECT)),
    ("gist_page", Known::Does(actions::INSPECT)),
    ("hash_bitmap", Known::Does(actions::INSPECT)),
    ("hash_metapage", Known::Does(actions::INSPECT)),
    ("hash_page", Known::Does(actions::INSPECT)),
    ("lo_", Known::Does(actions::LARGE_OBJECT)),
    ("pg_backup_", Known::Does(actions::SERVER)),
    ("pg_clear_", Known::Does(actions::SERVER)),
    ("pg_copy_", Known::Does(actions::SERVER)),
    ("pg_create_", Known::Does(actions::SERVER)),
    ("pg_drop_replication", Known::Does(actions::SERVER)),
    ("pg_file_", Known::Does(actions::FILE)),
    ("pg_get_wal_", Known::Does(actions::INSPECT)),
    ("pg_logical_emit_message", Known::Does(actions::SERVER)),
    ("pg_logical_slot_", Known::Does(actions::INSPECT)),
    ("pg_ls_", Known::Does(actions::FILE)),
    ("pg_read_", Known::Does(actions::FILE)),
    ("pg_replication_origin_", Known::Does(actions::SERVER)),
    ("pg_replication_slot_advance", Known::Does(actions::SERVER)),
    ("pg_restore_", Known::Does(actions::SERVER)),
    ("pg_sleep", Known::Does(actions::SLEEP)),
    ("pg_stat_get_backend_", Known::Does(actions::INSPECT)),
    ("pg_stat_reset", Known::Does(actions::SERVER)),
    ("pg_wal_replay_", Known::Does(actions::SERVER)),
    ("pgp_", Known::TakesSecret),
    ("query_to_xml", Known::Does(actions::DYNAMIC)),
    ("schema_to_xml", Known::Does(actions::DYNAMIC)),
    ("table_to_xml", Known::Does(actions::DYNAMIC)),
];

/// By the whole name, in order.
const KNOWN: &[(&str, Known)] = &[
    ("connectby", Known::Does(actions::DYNAMIC)),
    ("crosstab", Known::Does(actions::DYNAMIC)),
    ("crosstab2", Known::Does(actions::DYNAMIC)),
    ("crosstab3", Known::Does(actions::DYNAMIC)),
    ("crosstab4", Known::Does(actions::DYNAMIC)),
    ("crosstabn", Known::Does(actions::DYNAMIC)),
    ("crypt", Known::TakesSecret),
    ("current_setting", Known::ShowsSetting),
    ("currtid2", Known::Does(actions::INSPECT)),
    ("decrypt", Known::TakesSecret),
    ("decrypt_iv", Known::TakesSecret),
    ("encrypt", Known::TakesSecret),
    ("encrypt_iv", Known::TakesSecret),
    ("fsm_page_contents", Known::Does(actions::INSPECT)),
    ("get_raw_page", Known::Does(actions::INSPECT)),
    ("heap_force_freeze", Known::Does(actions::SERVER)),
    ("heap_force_kill", Known::Does(actions::SERVER)),
    ("heap_page_item_attrs", Known::Does(actions::INSPECT)),
    ("heap_page_items", Known::Does(actions::INSPECT)),
    ("hmac", Known::TakesSecret),
    ("http", Known::Does(actions::REMOTE)),
    ("http_delete", Known::Does(actions::REMOTE)),
    ("http_get", Known::Does(actions::REMOTE)),
    ("http_head", Known::Does(actions::REMOTE)),
    ("http_patch", Known::Does(actions::REMOTE)),
    ("http_post", Known::Does(actions::REMOTE)),
    ("http_put", Known::Does(actions::REMOTE)),
    ("lo_export", Known::Does(actions::FILE)),
    ("lo_import", Known::Does(actions::FILE)),
    ("loread", Known::Does(actions::LARGE_OBJECT)),
    ("lowrite", Known::Does(actions::LARGE_OBJECT)),
    ("nextval", Known::MovesSequence),
    ("page_header", Known::Does(actions::INSPECT)),
    ("pg_cancel_backend", Known::Does(actions::SERVER)),
    ("pg_check_frozen", Known::Does(actions::INSPECT)),
    ("pg_check_visible", Known::Does(actions::INSPECT)),
    ("pg_current_logfile", Known::Does(actions::FILE)),
    ("pg_freespace", Known::Does(actions::INSPECT)),
    ("pg_hba_file_rules", Known::Does(actions::FILE)),
    ("pg_ident_file_mappings", Known::Does(actions::FILE)),
    ("pg_import_system_collations", Known::Does(actions::SERVER)),
    ("pg_log_backend_memory_contexts", Known::Does(actions::SERVER)),
    ("pg_logdir_ls", Known::Does(actions::FILE)),
    ("pg_logfile_rotate", Known::Does(actions::SERVER)),
    ("pg_notify", Known::Notifies),
    ("pg_promote", Known::Does(actions::SERVER)),
    ("pg_reload_conf", Known::Does(actions::SERVER)),
    ("pg_rotate_logfile", Known::Does(actions::SERVER)),
    ("pg_show_all_file_settings", Known::Does(actions::FILE)),
    ("pg_start_backup", Known::Does(actions::SERVER)),
    ("pg_stat_file", Known::Does(actions::FILE)),
    ("pg_stat_get_activity", Known::Does(actions::INSPECT)),
    ("pg_stat_statements", Known::Does(actions::INSPECT)),
    ("pg_stat_statements_reset", Known::Does(actions::SERVER)),
    ("pg_stop_backup", Known::Does(actions::SERVER)),
    ("pg_switch_wal", Known::Does(actions::SERVER)),
    ("pg_sync_replication_slots", Known::Does(actions::SERVER)),
    ("pg_terminate_backend", Known::Does(actions::SERVER)),
    ("pg_truncate_visibility_map", Known::Does(actions::SERVER)),
    ("pg_visibility", Known::Does(actions::INSPECT)),
    ("pg_visibility_map", Known::Does(actions::INSPECT)),
    ("pg_visibility_map_summary", Known::Does(actions::INSPECT)),
    ("pgrowlocks", Known::Does(actions::INSPECT)),
    ("set_config", Known::SetsSetting),
    ("setval", Known::MovesSequence),
    ("ts_rewrite", Known::Does(actions::DYNAMIC)),
    ("ts_stat", Known::Does(actions::DYNAMIC)),
    ("tuple_data_split", Known::Does(actions::INSPECT)),
    ("verify_heapam", Known::Does(actions::INSPECT)),
    ("xpath_table", Known::Does(actions::DYNAMIC)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order() {
        assert!(KNOWN.is_sorted_by_key(|(name, _)| name));
        assert!(KNOWN.iter().all(|(name, known_as)| known(None, name) == Some(*known_as)));
    }
}
