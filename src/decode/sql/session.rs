//! Statements about the session, the transaction, other statements and the server.

use pg_query::NodeEnum;
use pg_query::protobuf::{self as pg, TransactionStmtKind, VariableSetKind};
use serde_json::json;

use super::actions::{self, Action};
use super::object::{object, table};
use super::settings::is_harmless;
use super::tree::{Fields, Walk};
use super::view::names_secret;
use super::walker::Walker;
use crate::policy::Object;

/// A setting; names of settings do not tell upper case from lower.
pub(super) fn setting(name: Option<&str>) -> Object {
    Object::new("setting", [name.map(str::to_ascii_lowercase)])
}

/// A setting is set; one that is not known could be any, the role too.
pub(super) fn sets(walker: &mut Walker, name: Option<&str>, value: Option<&str>) {
    walker.effect(actions::SET, Some(setting(name)));
    let lower = name.map(str::to_ascii_lowercase);
    if !name.is_some_and(is_harmless) {
        walker.holds_secret();
    }
    if matches!(lower.as_deref(), None | Some("role" | "session_authorization")) {
        let role = name.and(value).map(str::to_owned);
        walker.effect(actions::SET_ROLE, Some(Object::new("role", [role])));
    }
}

/// A setting of the session is set, not one that is kept for later.
pub(super) fn sets_now(walker: &mut Walker, name: Option<&str>, value: Option<&str>) {
    let encoding = name.is_some_and(|name| name.eq_ignore_ascii_case("client_encoding"));
    if encoding && value.is_some_and(|value| !is_utf8(value)) {
        walker.marks.leaves_utf8 = true;
    }
}

/// Whether PostgreSQL takes a name for that of UTF-8: it looks at letters and digits only
/// (`pg_char_to_encoding`).
pub fn is_utf8(name: &str) -> bool {
    let plain = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase());
    let plain: String = plain.collect();
    plain == "utf8" || plain == "unicode"
}

/// SET in all its forms; also within ALTER ROLE, ALTER DATABASE, CREATE FUNCTION.
impl Walk for pg::VariableSetStmt {
    fn walk(&self, walker: &mut Walker) {
        let name = (!self.name.is_empty()).then_some(self.name.as_str());
        match self.kind() {
            VariableSetKind::VarResetAll => {
                walker.effect(actions::RESET, Some(setting(None)));
            }
            VariableSetKind::VarReset | VariableSetKind::VarSetDefault
                if !matches!(name, Some("role" | "session_authorization")) =>
            {
                walker.effect(actions::RESET, Some(setting(name)));
            }
            // SET TRANSACTION, SET SESSION CHARACTERISTICS.
            VariableSetKind::VarSetMulti => {
                let prefix = if name == Some("TRANSACTION") { "" } else { "default_" };
                transaction_settings(&self.args, prefix, walker);
                if name == Some("TRANSACTION SNAPSHOT") {
                    walker.effect(actions::TRANSACTION, None);
                }
            }
            _ => {
                let value = walker.constant(self.args.first());
                sets(walker, name, value);
            }
        }
        self.fields(walker);
    }
}

/// READ ONLY, ISOLATION LEVEL … are settings with a name of their own.
fn transaction_settings(options: &[pg::Node], prefix: &str, walker: &mut Walker) {
    for option in options {
        if let Some(NodeEnum::DefElem(option)) = &option.node {
            let name = format!("{prefix}{}", option.defname);
            walker.effect(actions::SET, Some(setting(Some(&name))));
        }
    }
}

impl Walk for pg::VariableShowStmt {
    fn walk(&self, walker: &mut Walker) {
        let name = (self.name != "all").then_some(self.name.as_str());
        // SHOW ALL leaves out what nobody has declared.
        walker.marks.reveals |= name.is_some_and(|name| !is_harmless(name));
        walker.effect(actions::SHOW, Some(setting(name)));
    }
}

impl Walk for pg::AlterSystemStmt {
    fn walk(&self, walker: &mut Walker) {
        let name = self.setstmt.as_ref().map(|set| set.name.as_str());
        let name = name.filter(|name| !name.is_empty());
        walker.effect(actions::ALTER_SYSTEM, Some(setting(name)));
        walker.holds_secret();
    }
}

impl Walk for pg::TransactionStmt {
    fn walk(&self, walker: &mut Walker) {
        let (action, kind) = match self.kind() {
            TransactionStmtKind::TransStmtBegin | TransactionStmtKind::TransStmtStart => {
                (actions::TRANSACTION, "begin")
            }
            TransactionStmtKind::TransStmtCommit => (actions::TRANSACTION, "commit"),
            TransactionStmtKind::TransStmtRollback => (actions::TRANSACTION, "rollback"),
            TransactionStmtKind::TransStmtSavepoint => (actions::TRANSACTION, "savepoint"),
            TransactionStmtKind::TransStmtRelease => (actions::TRANSACTION, "release"),
            TransactionStmtKind::TransStmtRollbackTo => (actions::TRANSACTION, "rollback-to"),
            TransactionStmtKind::TransStmtPrepare => (actions::TWO_PHASE, "prepare"),
            TransactionStmtKind::TransStmtCommitPrepared => (actions::TWO_PHASE, "commit"),
            TransactionStmtKind::TransStmtRollbackPrepared => (actions::TWO_PHASE, "rollback"),
            TransactionStmtKind::Undefined => return walker.does_not_understand(),
        };
        walker.effect_with(action, None, [("kind", json!(kind))]);
        transaction_settings(&self.options, "", walker);
        self.fields(walker);
    }
}

impl Walk for pg::ConstraintsSetStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::SET_CONSTRAINTS, None);
    }
}

impl Walk for pg::DiscardStmt {
    fn walk(&self, walker: &mut Walker) {
        let target = match self.target() {
            pg::DiscardMode::DiscardPlans => "plans",
            pg::DiscardMode::DiscardSequences => "sequences",
            pg::DiscardMode::DiscardTemp => "temporary",
            pg::DiscardMode::DiscardAll | pg::DiscardMode::Undefined => "all",
        };
        walker.effect_with(actions::DISCARD, None, [("target", json!(target))]);
    }
}

// Statements and cursors by name.

fn prepared(name: &str) -> Option<Object> {
    Some(Object::new("statement", [(!name.is_empty()).then(|| name.to_owned())]))
}

fn cursor(name: &str) -> Option<Object> {
    Some(Object::new("cursor", [(!name.is_empty()).then(|| name.to_owned())]))
}

impl Walk for pg::PrepareStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::PREPARE, prepared(&self.name));
        self.fields(walker);
    }
}

impl Walk for pg::ExecuteStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::EXECUTE, prepared(&self.name));
        self.fields(walker);
    }
}

impl Walk for pg::DeallocateStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::DEALLOCATE, prepared(&self.name));
    }
}

impl Walk for pg::DeclareCursorStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::CURSOR, cursor(&self.portalname));
        self.fields(walker);
    }
}

impl Walk for pg::FetchStmt {
    fn walk(&self, walker: &mut Walker) {
        let moves = [("move", json!(self.ismove))];
        walker.effect_with(actions::FETCH, cursor(&self.portalname), moves);
    }
}

impl Walk for pg::ClosePortalStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::CLOSE, cursor(&self.portalname));
    }
}

impl Walk for pg::ExplainStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { query, options } = self;
        let analyze = options.iter().any(asks_to_execute);
        walker.effect_with(actions::EXPLAIN, None, [("analyze", json!(analyze))]);
        if analyze {
            query.walk(walker);
        } else {
            walker.explained(|walker| query.walk(walker));
        }
        options.walk(walker);
    }
}

/// Whether an option of EXPLAIN is ANALYZE and is not clearly off. Of several the last counts to
/// the server, any to us.
pub(super) fn asks_to_execute(option: &pg::Node) -> bool {
    let Some(NodeEnum::DefElem(option)) = &option.node else { return true };
    if option.defname != "analyze" {
        return false;
    }
    match option.arg.as_deref().and_then(|arg| arg.node.as_ref()) {
        Some(NodeEnum::Integer(number)) => number.ival != 0,
        Some(NodeEnum::Boolean(value)) => value.boolval,
        Some(NodeEnum::String(text)) => {
            !["false", "off"].iter().any(|off| text.sval.eq_ignore_ascii_case(off))
        }
        _ => true,
    }
}

impl Walk for pg::DoStmt {
    fn walk(&self, walker: &mut Walker) {
        let language = option_text(&self.args, "language", walker).unwrap_or("plpgsql");
        let language = language.to_ascii_lowercase();
        walker.effect(actions::DO, Some(Object::new("language", [Some(language)])));
        let code = option_text(&self.args, "as", walker);
        may_hold_password(code, walker);
    }
}

/// An option that is a password by its name, wherever options stand.
impl Walk for pg::DefElem {
    fn walk(&self, walker: &mut Walker) {
        if names_secret(&self.defname) {
            walker.holds_secret();
        }
        self.fields(walker);
    }
}

/// The text of an option by name.
pub(super) fn option_text<'a>(
    options: &'a [pg::Node],
    name: &str,
    walker: &mut Walker,
) -> Option<&'a str> {
    options.iter().find_map(|option| match &option.node {
        Some(NodeEnum::DefElem(option)) if option.defname == name => {
            match option.arg.as_deref()?.node.as_ref()? {
                NodeEnum::List(list) => walker.constant(list.items.first()),
                _ => walker.constant(option.arg.as_deref()),
            }
        }
        _ => None,
    })
}

/// Code in a string is shown to those who approve it, unless it speaks of a password.
pub(super) fn may_hold_password(code: Option<&str>, walker: &mut Walker) {
    if code.is_some_and(|code| code.to_ascii_lowercase().contains("password")) {
        walker.holds_secret();
    }
}

impl Walk for pg::CallStmt {
    fn walk(&self, walker: &mut Walker) {
        let procedure = self.funccall.as_ref().and_then(|call| object("function", &call.funcname));
        walker.effect(actions::CALL, procedure);
        walker.writing(|walker| self.fields(walker));
    }
}

// Channels.

fn channel(name: &str) -> Option<Object> {
    Some(Object::new("channel", [(!name.is_empty()).then(|| name.to_owned())]))
}

impl Walk for pg::ListenStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::LISTEN, channel(&self.conditionname));
    }
}

impl Walk for pg::UnlistenStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::UNLISTEN, channel(&self.conditionname));
    }
}

impl Walk for pg::NotifyStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::NOTIFY, channel(&self.conditionname));
    }
}

// Tables and the server, as a whole.

impl Walk for pg::LockStmt {
    fn walk(&self, walker: &mut Walker) {
        // By the numbers of lockdefs.h.
        let mode = match self.mode {
            1 => "access share",
            2 => "row share",
            3 => "row exclusive",
            4 => "share update exclusive",
            5 => "share",
            6 => "share row exclusive",
            7 => "exclusive",
            _ => "access exclusive",
        };
        for relation in &self.relations {
            walker.effect_with(actions::LOCK, Some(table(relation)), [("mode", json!(mode))]);
        }
    }
}

/// An action on the tables named, or on all when none is.
fn on_tables<'a>(
    walker: &mut Walker,
    action: Action,
    relations: impl Iterator<Item = &'a pg::RangeVar>,
) {
    let mut named = false;
    for relation in relations {
        walker.effect(action, Some(table(relation)));
        named = true;
    }
    if !named {
        walker.effect(action, Some(Object::new("table", [])));
    }
}

impl Walk for pg::VacuumStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { options, rels, is_vacuumcmd } = self;
        let action = if *is_vacuumcmd { actions::VACUUM } else { actions::ANALYZE };
        let relations = rels.iter().filter_map(|rel| match &rel.node {
            Some(NodeEnum::VacuumRelation(rel)) => rel.relation.as_ref(),
            _ => None,
        });
        on_tables(walker, action, relations);
        options.walk(walker);
    }
}

impl Walk for pg::ClusterStmt {
    fn walk(&self, walker: &mut Walker) {
        on_tables(walker, actions::CLUSTER, self.relation.iter());
    }
}

impl Walk for pg::ReindexStmt {
    fn walk(&self, walker: &mut Walker) {
        let target = match self.kind() {
            pg::ReindexObjectType::ReindexObjectIndex => object("index", &self.relation),
            pg::ReindexObjectType::ReindexObjectTable => object("table", &self.relation),
            pg::ReindexObjectType::ReindexObjectSchema => object("schema", &self.name),
            _ => object("database", &self.name),
        };
        walker.effect(actions::REINDEX, target);
    }
}

impl Walk for pg::RefreshMatViewStmt {
    fn walk(&self, walker: &mut Walker) {
        on_tables(walker, actions::REFRESH, self.relation.iter());
    }
}

impl Walk for pg::LoadStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::LOAD, None);
    }
}

impl Walk for pg::CheckPointStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::CHECKPOINT, None);
    }
}
