//! What the server's own relations and functions tell of rows, whoever may see them: values, counts of
//! rows that were read, locks on rows.
//!
//! A statement under a row filter may look at other rows, by an index, before it leaves them out. What
//! counts or locks those rows would tell which of them there are.

/// Columns of the system's that show values of any column: statistics, statements of others.
const VALUES: &[(&str, &[&str])] = &[
    ("pg_cursors", &["statement"]),
    ("pg_prepared_statements", &["statement"]),
    ("pg_stat_activity", &["query"]),
    ("pg_stat_statements", &["query"]),
    ("pg_statistic", &["stavalues1", "stavalues2", "stavalues3", "stavalues4", "stavalues5"]),
    ("pg_statistic_ext_data", &["stxdmcv", "stxdexpr"]),
    ("pg_stats", &["most_common_vals", "histogram_bounds", "most_common_elems"]),
    ("pg_stats_ext", &["most_common_vals"]),
    ("pg_stats_ext_exprs", &["most_common_vals", "histogram_bounds", "most_common_elems"]),
];

/// The names of relations of the system's that tell of sessions and not of rows, though they begin as
/// those with counts do.
const OF_SESSIONS: &[&str] = &[
    "pg_stat_activity",
    "pg_stat_archiver",
    "pg_stat_gssapi",
    "pg_stat_replication",
    "pg_stat_replication_slots",
    "pg_stat_ssl",
    "pg_stat_subscription",
    "pg_stat_wal_receiver",
    "pg_statistic_ext",
];

/// What names of the others begin with: counts of rows, blocks and calls, and statistics made from
/// rows.
const COUNTING: &str = "pg_stat";

/// Columns of those that say what is counted, and no count.
const COUNTED: &[&str] = &[
    "attname",
    "attnames",
    "datid",
    "datname",
    "dbid",
    "expr",
    "exprs",
    "funcid",
    "funcname",
    "indexrelid",
    "indexrelname",
    "inherited",
    "kinds",
    "phase",
    "pid",
    "queryid",
    "relid",
    "relname",
    "schemaname",
    "staattnum",
    "stainherit",
    "starelid",
    "stats_reset",
    "statistics_name",
    "statistics_owner",
    "statistics_schemaname",
    "stxdinherit",
    "stxoid",
    "tablename",
    "toplevel",
    "usename",
    "userid",
];

/// The locks without those that a serializable transaction has on rows that it read.
pub(super) const LOCKS: &str = "SELECT * FROM pg_catalog.pg_lock_status() AS l \
    WHERE l.mode OPERATOR(pg_catalog.<>) 'SIReadLock'";

/// Functions of the server and its extensions that tell of rows in the same way, but for those about
/// sessions.
const FUNCTIONS: &[&str] = &[
    "currtid",
    "pg_check_",
    "pg_freespace",
    "pg_lock_status",
    "pg_stat_get_",
    "pg_stat_statements",
    "pg_visibility",
    "pgrowlocks",
    "pgstat",
    "verify_heapam",
];
const OF_SESSION: &[&str] = &[
    "pg_stat_get_activity",
    "pg_stat_get_backend_activity",
    "pg_stat_get_backend_activity_start",
    "pg_stat_get_backend_client_addr",
    "pg_stat_get_backend_client_port",
    "pg_stat_get_backend_dbid",
    "pg_stat_get_backend_idset",
    "pg_stat_get_backend_pid",
    "pg_stat_get_backend_start",
    "pg_stat_get_backend_userid",
    "pg_stat_get_backend_wait_event",
    "pg_stat_get_backend_wait_event_type",
    "pg_stat_get_backend_xact_start",
];

/// Columns of a relation of this name that show values of any column.
pub(super) fn shown_by(relation: &str) -> Option<&'static [&'static str]> {
    VALUES.iter().find(|(known, _)| *known == relation).map(|(_, columns)| *columns)
}

/// The names of relations with such columns.
pub(super) fn showing() -> impl Iterator<Item = &'static str> {
    VALUES.iter().map(|(name, _)| *name)
}

/// The relations that tell of rows by anything but their values, for LIKE.
pub(super) const TELLING: &[&str] = &["pg\\_stat%", "pg\\_locks"];

/// How a relation of this name tells of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tells {
    /// By some of its columns.
    Columns,
    /// By its rows.
    Locks,
}

/// Whether a relation of this name tells of rows, whoever may see them.
pub(super) fn tells(relation: &str) -> Option<Tells> {
    match relation {
        "pg_locks" => Some(Tells::Locks),
        _ if counts(relation) || shown_by(relation).is_some() => Some(Tells::Columns),
        _ => None,
    }
}

fn counts(relation: &str) -> bool {
    relation.starts_with(COUNTING) && !OF_SESSIONS.contains(&relation)
}

/// Whether a column of a relation of this name does.
pub(super) fn tells_by(relation: &str, column: &str) -> bool {
    match counts(relation) {
        true => !COUNTED.contains(&column),
        false => shown_by(relation).is_some_and(|columns| columns.contains(&column)),
    }
}

/// Whether a function of this name does.
pub(super) fn function_tells(name: &str) -> bool {
    FUNCTIONS.iter().any(|start| name.starts_with(start)) && !OF_SESSION.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_rows_is_told_apart_from_what_names_them() {
        for (relation, column) in [
            ("pg_stat_xact_user_tables", "idx_tup_fetch"),
            ("pg_statio_all_indexes", "idx_blks_hit"),
            ("pg_stat_database", "tup_returned"),
            ("pg_stats", "most_common_freqs"),
            ("pg_stats", "histogram_bounds"),
            ("pg_stat_statements", "rows"),
            ("pg_stat_activity", "query"),
        ] {
            assert!(
                tells(relation) == Some(Tells::Columns) && tells_by(relation, column),
                "{relation}"
            );
        }
        for (relation, column) in [
            ("pg_stat_user_tables", "relname"),
            ("pg_stat_activity", "state"),
            ("pg_stats", "attname"),
            ("customers", "n_live_tup"),
        ] {
            assert!(!tells_by(relation, column), "{relation}");
        }
        assert_eq!((tells("pg_locks"), tells("pg_stat_ssl")), (Some(Tells::Locks), None));
        for name in ["pg_stat_get_xact_tuples_returned", "pgstattuple", "pg_lock_status"] {
            assert!(function_tells(name), "{name}");
        }
        assert!(!function_tells("pg_stat_get_backend_pid") && !function_tells("pg_relation_size"));
    }
}
