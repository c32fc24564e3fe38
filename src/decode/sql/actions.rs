//! The words for what SQL does; `docs/effects.md` is for those who write rules with them.

use crate::policy::Effect;

/// The name of an action, `sql.…`.
pub type Action = &'static str;

macro_rules! actions {
    ($($constant:ident = $name:literal, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub(super) const $constant: Action = $name;)*

        /// Every action that a statement can have an effect of, with its meaning.
        pub const ACTIONS: &[(Action, &str)] = &[$(($name, $meaning)),*];
    };
}

actions! {
    SELECT = "sql.select", "reads a table, view, sequence or anything else that has columns";
    INSERT = "sql.insert", "adds rows to a table";
    UPDATE = "sql.update", "changes rows of a table";
    DELETE = "sql.delete", "removes rows of a table";
    TRUNCATE = "sql.truncate", "empties a table";
    COPY_TO = "sql.copy-to", "sends a table's or query's rows by COPY, to client, file or program";
    COPY_FROM = "sql.copy-from", "takes a table's rows by COPY, from client, file or program";
    COPY_FILE = "sql.copy-file", "COPY that reads or writes a file of the server";
    COPY_PROGRAM = "sql.copy-program", "COPY that runs a program on the server";
    LOCK = "sql.lock", "locks a table, or rows of it";
    SEQUENCE = "sql.sequence", "moves a sequence: nextval, setval";
    LOOKUP = "sql.lookup", "asks about a table by a name in a string (a cast to regclass)";
    REFERENCES = "sql.references", "names a table for its structure or keys: LIKE, INHERITS, foreign keys";
    CREATE = "sql.create", "creates an object";
    ALTER = "sql.alter", "changes an object's definition, name, owner or place";
    DROP = "sql.drop", "drops an object, or a column";
    COMMENT = "sql.comment", "comments on an object";
    SECURITY_LABEL = "sql.security-label", "labels an object";
    GRANT = "sql.grant", "gives rights or a role's membership";
    REVOKE = "sql.revoke", "takes rights or a role's membership";
    FUNCTION = "sql.function", "names a function that is called, or that will be (by a trigger, a cast …)";
    CALL = "sql.call", "calls a procedure, whose body is not seen";
    DO = "sql.do", "runs a block of code, which is not understood";
    EXECUTE = "sql.execute", "runs a prepared statement";
    PREPARE = "sql.prepare", "prepares a statement under a name";
    DEALLOCATE = "sql.deallocate", "forgets a prepared statement, or all";
    CURSOR = "sql.cursor", "opens a cursor";
    FETCH = "sql.fetch", "fetches from or moves a cursor";
    CLOSE = "sql.close", "closes a cursor, or all";
    DYNAMIC = "sql.dynamic", "a function that runs SQL, or reads a table, given as text";
    FILE = "sql.file", "a function that reaches files of the server";
    REMOTE = "sql.remote", "a function that reaches another server";
    SERVER = "sql.server", "a function that acts on other sessions or on the server as a whole";
    INSPECT = "sql.inspect", "a function that shows data from beneath tables, or what other sessions do";
    SLEEP = "sql.sleep", "a function that waits";
    LARGE_OBJECT = "sql.large-object", "a function that reads or writes large objects";
    SET = "sql.set", "sets a setting";
    RESET = "sql.reset", "resets a setting, or all";
    SHOW = "sql.show", "shows a setting, or all";
    SET_ROLE = "sql.set-role", "changes the role that statements run as, or could";
    DISCARD = "sql.discard", "discards state of the session";
    SET_CONSTRAINTS = "sql.set-constraints", "defers constraints or checks them";
    TRANSACTION = "sql.transaction", "begins, ends or marks a transaction";
    TWO_PHASE = "sql.two-phase", "prepares a transaction for two-phase commit, or ends such a one";
    LISTEN = "sql.listen", "listens to a channel";
    UNLISTEN = "sql.unlisten", "no longer listens to a channel, or to any";
    NOTIFY = "sql.notify", "notifies a channel";
    EXPLAIN = "sql.explain", "explains a statement; without ANALYZE, also: names what it would change";
    VACUUM = "sql.vacuum", "vacuums a table, or all";
    ANALYZE = "sql.analyze", "gathers statistics of a table, or all";
    CLUSTER = "sql.cluster", "rewrites a table in an index's order";
    REINDEX = "sql.reindex", "rebuilds indexes";
    REFRESH = "sql.refresh", "refreshes a materialized view";
    IMPORT = "sql.import", "imports a foreign schema";
    ALTER_SYSTEM = "sql.alter-system", "changes the server's configuration";
    LOAD = "sql.load", "loads a library into the server";
    CHECKPOINT = "sql.checkpoint", "forces a checkpoint";
    UNPARSED = "sql.unparsed", "a text that is not understood";
}

/// Marks an effect as opaque when what follows from its action, on an object of its kind, is not among
/// a statement's effects: it runs code, or makes or changes what runs later (a function, a trigger, a
/// rule …), or data of another server or of a file, which may be a table's own, come under a name of
/// their own, or it changes who may get at the data and how their sessions begin.
pub(super) fn mark_opaque(effect: &mut Effect) {
    let action = &*effect.action;
    let is_code = || effect.object.as_ref().is_some_and(|object| CODE.contains(&object.kind()));
    if OPAQUE_ACTIONS.contains(&action) {
        effect.mark_opaque_by_action();
    } else if OPAQUE_ON_CODE.contains(&action) && is_code() {
        effect.mark_opaque_by_object();
    }
}

/// The kinds of objects that are code, or name code that runs without being called by its name, or
/// lead to another server, or say who may get at the data.
pub const CODE: &[&str] = &[
    "access-method",
    "cast",
    "conversion",
    "database",
    "event-trigger",
    "extension",
    "foreign-data-wrapper",
    "function",
    "language",
    "operator",
    "operator-class",
    "operator-family",
    "policy",
    "publication",
    "role",
    "rule",
    "server",
    "subscription",
    "transform",
    "trigger",
    "user-mapping",
];

/// Actions that are opaque whatever their object is.
pub const OPAQUE_ACTIONS: &[Action] =
    &[ALTER_SYSTEM, CALL, COPY_FILE, COPY_PROGRAM, DO, DYNAMIC, FILE, GRANT, IMPORT, LOAD];

/// Actions that are opaque on objects that are code.
pub const OPAQUE_ON_CODE: &[Action] = &[ALTER, CREATE];

/// What a plain EXPLAIN does not do; it only names the object then.
pub(super) fn only_when_executed(action: Action) -> bool {
    [INSERT, UPDATE, DELETE, CREATE, REFRESH, CURSOR, LOCK].contains(&action)
}

/// Every kind of object that a statement's effects are on.
pub const KINDS: &[&str] = &[
    "access-method",
    "cast",
    "channel",
    "collation",
    "column",
    "constraint",
    "conversion",
    "cursor",
    "database",
    "event-trigger",
    "extension",
    "foreign-data-wrapper",
    "function",
    "index",
    "language",
    "large-object",
    "operator",
    "operator-class",
    "operator-family",
    "other",
    "policy",
    "publication",
    "role",
    "rule",
    "schema",
    "server",
    "setting",
    "statement",
    "statistics",
    "subscription",
    "table",
    "tablespace",
    "text-search",
    "transform",
    "trigger",
    "type",
    "user-mapping",
];

/// Every attribute that an effect of a statement can have.
pub const ATTRIBUTES: &[&str] = &[
    "analyze",
    "cascade",
    "commands",
    "format",
    "grant_option",
    "grantees",
    "has_where",
    "kind",
    "language",
    "mode",
    "move",
    "on_conflict",
    "options",
    "owned",
    "privileges",
    "reason",
    "replace",
    "target",
    "type",
    "where_names_column",
];
