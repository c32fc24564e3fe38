//! Queries: what they read, and the functions that they call.

use pg_query::NodeEnum;
use pg_query::protobuf as pg;

use super::actions;
use super::functions::{self, Known};
use super::object::{object, table};
use super::session;
use super::settings::is_harmless;
use super::tree::{Fields, Walk};
use super::walker::{Relation, TableId, Walker, name, names};
use crate::policy::Object;

impl Walk for pg::SelectStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self {
            distinct_clause,
            into_clause,
            target_list,
            from_clause,
            where_clause,
            group_clause,
            group_distinct: _,
            having_clause,
            window_clause,
            values_lists,
            sort_clause,
            limit_offset,
            limit_count,
            limit_option: _,
            locking_clause,
            with_clause,
            op: _,
            all: _,
            larg,
            rarg,
        } = self;
        let settings = settings_picked(self, walker);
        walker.with_common_tables(|walker| {
            let told = walker.gives_outputs() && gives_its_own(self, walker);
            let query = |walker: &mut Walker| {
                with_clause.walk(walker);
                into_clause.walk(walker);
                larg.walk(walker);
                rarg.walk(walker);
                let relations = relations_in(from_clause, walker);
                walker.in_scope(relations, |walker| {
                    from_clause.walk(walker);
                    // What stands in FROM does not see them, but by LATERAL.
                    walker.sees_columns(columns_given(from_clause));
                    walker.with_settings(settings, |walker| {
                        if told {
                            walker.outputs(target_list, comes_out);
                        } else {
                            target_list.iter().for_each(|target| comes_out(target, walker));
                        }
                    });
                    walker.computing(|walker| values_lists.walk(walker));
                    walker.filtering(|walker| {
                        where_clause.walk(walker);
                        group_clause.walk(walker);
                        having_clause.walk(walker);
                        window_clause.walk(walker);
                        distinct_clause.walk(walker);
                        sort_clause.walk(walker);
                    });
                    // How many rows come out tells these.
                    walker.computing(|walker| {
                        limit_offset.walk(walker);
                        limit_count.walk(walker);
                    });
                    locking_clause.walk(walker);
                });
            };
            // What `name` means in a query around this one it need not mean here.
            walker.with_settings(None, |walker| {
                if into_clause.is_some() { walker.writing(query) } else { query(walker) }
            });
        });
    }
}

/// The settings that `FROM pg_settings WHERE name = '…'` picks, by which `set_config(name, …)` in the
/// select list sets them: `pg_dump` sets so what an older server may not have. `None` for other queries.
///
/// Whatever bears that name, its column `name` equals one of these where the list is computed.
fn settings_picked(query: &pg::SelectStmt, walker: &mut Walker) -> Option<Vec<String>> {
    let [pg::Node { node: Some(NodeEnum::RangeVar(from)) }] = query.from_clause.as_slice() else {
        return None;
    };
    let plain = from.relname == "pg_settings"
        && matches!(from.schemaname.as_str(), "" | "pg_catalog")
        && from.alias.is_none()
        && query.with_clause.is_none();
    let condition = query.where_clause.as_deref().filter(|_| plain)?;
    picked_by(condition, walker)
}

/// The names that a condition leaves of `pg_settings`, if it names them.
fn picked_by(condition: &pg::Node, walker: &mut Walker) -> Option<Vec<String>> {
    match condition.node.as_ref()? {
        NodeEnum::BoolExpr(all) if all.boolop() == pg::BoolExprType::AndExpr => {
            all.args.iter().find_map(|part| picked_by(part, walker))
        }
        NodeEnum::AExpr(equal) if names(&equal.name).as_slice() == ["="] => {
            let (left, right) = (equal.lexpr.as_deref()?, equal.rexpr.as_deref()?);
            match (equal.kind(), right.node.as_ref()?) {
                (pg::AExprKind::AexprOp, _) if is_setting_name(left) => {
                    Some(vec![walker.constant(Some(right))?.to_owned()])
                }
                (pg::AExprKind::AexprOp, _) if is_setting_name(right) => {
                    Some(vec![walker.constant(Some(left))?.to_owned()])
                }
                (pg::AExprKind::AexprIn, NodeEnum::List(list)) if is_setting_name(left) => {
                    let names = list.items.iter().map(|item| walker.constant(Some(item)));
                    names.map(|name| name.map(str::to_owned)).collect()
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// `name`, of `pg_settings`.
fn is_setting_name(node: &pg::Node) -> bool {
    let Some(NodeEnum::ColumnRef(column)) = &node.node else { return false };
    matches!(
        names(&column.fields).as_slice(),
        ["name"] | ["pg_settings", "name"] | ["pg_catalog", "pg_settings", "name"]
    ) && names(&column.fields).len() == column.fields.len()
}

/// Whether each item of a query's select list is one column, and reads nothing but what is named
/// in it: no set operation, nothing in FROM but tables, no star.
fn gives_its_own(query: &pg::SelectStmt, walker: &Walker) -> bool {
    let plain = |item: &pg::Node| is_plain(item, walker);
    let single = |target: &pg::Node| match &target.node {
        Some(NodeEnum::ResTarget(target)) => !target.val.iter().any(|value| has_star(value)),
        _ => false,
    };
    query.larg.is_none()
        && query.rarg.is_none()
        && query.into_clause.is_none()
        && query.with_clause.is_none()
        && query.values_lists.is_empty()
        && query.from_clause.iter().all(plain)
        && query.target_list.iter().all(single)
}

/// A table, or tables joined.
fn is_plain(item: &pg::Node, walker: &Walker) -> bool {
    match &item.node {
        Some(NodeEnum::RangeVar(name)) => !walker.is_common_table(name),
        Some(NodeEnum::JoinExpr(join)) => {
            [&join.larg, &join.rarg].into_iter().flatten().all(|side| is_plain(side, walker))
        }
        _ => false,
    }
}

fn has_star(value: &pg::Node) -> bool {
    let fields = match &value.node {
        Some(NodeEnum::ColumnRef(column)) => &column.fields,
        Some(NodeEnum::AIndirection(inner)) => &inner.indirection,
        _ => return false,
    };
    fields.iter().any(|field| matches!(field.node, Some(NodeEnum::AStar(_))))
}

/// An item of a select list: a column as it is, or something computed.
pub(super) fn comes_out(target: &pg::Node, walker: &mut Walker) {
    let plain = match &target.node {
        Some(NodeEnum::ResTarget(target)) => target
            .val
            .as_ref()
            .is_some_and(|value| matches!(value.node, Some(NodeEnum::ColumnRef(_)))),
        _ => false,
    };
    if plain { target.walk(walker) } else { walker.computing(|walker| target.walk(walker)) }
}

impl Walk for pg::WithClause {
    fn walk(&self, walker: &mut Walker) {
        let names = self.ctes.iter().map(|cte| match &cte.node {
            Some(NodeEnum::CommonTableExpr(cte)) => cte.ctename.as_str(),
            _ => "",
        });
        walker.in_common(|walker| {
            if self.recursive {
                names.for_each(|name| walker.add_common_table(name));
                self.ctes.walk(walker);
                return;
            }
            // Without RECURSIVE a name is known to what comes after it alone.
            for (cte, name) in self.ctes.iter().zip(names) {
                cte.walk(walker);
                walker.add_common_table(name);
            }
        });
    }
}

/// The relations that items of FROM bring into scope; tables among them are noted as read.
pub(super) fn relations_in(items: &[pg::Node], walker: &mut Walker) -> Vec<Relation> {
    let mut relations = Vec::new();
    for item in items {
        collect(item, walker, &mut relations);
    }
    relations
}

fn collect(item: &pg::Node, walker: &mut Walker, into: &mut Vec<Relation>) {
    let (alias, tables) = match &item.node {
        Some(NodeEnum::RangeVar(name)) => {
            let mut tables = Vec::new();
            if !walker.is_common_table(name) {
                tables.push(walker.read(table(name)));
            }
            return into.push(named(name, tables));
        }
        Some(NodeEnum::JoinExpr(join)) => {
            let first = into.len();
            for side in [&join.larg, &join.rarg].into_iter().flatten() {
                collect(side, walker, into);
            }
            let within = into.get(first..).unwrap_or_default();
            let tables: Vec<TableId> = within.iter().flat_map(|r| r.tables.clone()).collect();
            if let Some(alias) = &join.join_using_alias {
                into.push(aliased(alias, tables.clone()));
            }
            (join.alias.as_ref(), tables)
        }
        Some(NodeEnum::RangeTableSample(sample)) => {
            return sample.relation.iter().for_each(|inner| collect(inner, walker, into));
        }
        Some(NodeEnum::RangeSubselect(inner)) => (inner.alias.as_ref(), Vec::new()),
        Some(NodeEnum::RangeFunction(inner)) => (inner.alias.as_ref(), Vec::new()),
        Some(NodeEnum::RangeTableFunc(inner)) => (inner.alias.as_ref(), Vec::new()),
        Some(NodeEnum::JsonTable(inner)) => (inner.alias.as_ref(), Vec::new()),
        _ => (None, Vec::new()),
    };
    into.extend(alias.map(|alias| aliased(alias, tables)));
}

/// Columns that items of FROM have whatever the tables are: those that subqueries name.
fn columns_given(items: &[pg::Node]) -> Vec<&str> {
    let mut columns = Vec::new();
    for item in items {
        match &item.node {
            Some(NodeEnum::RangeSubselect(inner)) if !renames(inner.alias.as_ref()) => {
                if let Some(NodeEnum::SelectStmt(select)) =
                    inner.subquery.as_deref().and_then(|query| query.node.as_ref())
                {
                    columns.extend(select.target_list.iter().filter_map(output_name));
                }
            }
            Some(NodeEnum::JoinExpr(join)) if !renames(join.alias.as_ref()) => {
                for side in [&join.larg, &join.rarg].into_iter().flatten() {
                    columns.extend(columns_given(std::slice::from_ref(side)));
                }
            }
            _ => {}
        }
    }
    columns
}

fn renames(alias: Option<&pg::Alias>) -> bool {
    alias.is_some_and(|alias| !alias.colnames.is_empty())
}

/// The name of a column of a result, where it has one of the statement's.
fn output_name(target: &pg::Node) -> Option<&str> {
    let Some(NodeEnum::ResTarget(target)) = &target.node else { return None };
    match target.val.as_deref().and_then(|value| value.node.as_ref()) {
        _ if !target.name.is_empty() => Some(&target.name),
        Some(NodeEnum::ColumnRef(column)) => column.fields.last().and_then(name),
        _ => None,
    }
}

fn aliased(alias: &pg::Alias, tables: Vec<TableId>) -> Relation {
    let renamed = !alias.colnames.is_empty();
    Relation { alias: alias.aliasname.clone(), schema: None, tables, renamed }
}

/// A table by its alias, or else by its own name.
pub(super) fn named(name: &pg::RangeVar, tables: Vec<TableId>) -> Relation {
    match &name.alias {
        Some(alias) => aliased(alias, tables),
        None => Relation {
            alias: name.relname.clone(),
            schema: (!name.schemaname.is_empty()).then(|| name.schemaname.clone()),
            tables,
            renamed: false,
        },
    }
}

/// Wherever nothing else is known of a name, it is a table that is read.
impl Walk for pg::RangeVar {
    fn walk(&self, walker: &mut Walker) {
        if !walker.is_common_table(self) {
            walker.effect(actions::SELECT, Some(table(self)));
        }
        self.fields(walker);
    }
}

impl Walk for pg::JoinExpr {
    fn walk(&self, walker: &mut Walker) {
        let Self {
            jointype: _,
            is_natural,
            larg,
            rarg,
            using_clause,
            join_using_alias: _,
            quals,
            alias: _,
            rtindex: _,
        } = self;
        larg.walk(walker);
        rarg.walk(walker);
        walker.filtering(|walker| {
            quals.walk(walker);
            for column in names(using_clause) {
                walker.unqualified(column);
            }
            if *is_natural {
                walker.every_column_here();
            }
        });
    }
}

impl Walk for pg::ColumnRef {
    fn walk(&self, walker: &mut Walker) {
        walker.refer(&self.fields);
    }
}

/// FOR UPDATE and its like: the tables of this query, or those named.
impl Walk for pg::LockingClause {
    fn walk(&self, walker: &mut Walker) {
        let mut tables = Vec::new();
        if self.locked_rels.is_empty() {
            tables = walker.tables_here(None);
        }
        for locked in &self.locked_rels {
            if let Some(NodeEnum::RangeVar(name)) = &locked.node {
                tables.extend(walker.tables_here(Some(&name.relname)));
            }
        }
        for table in tables {
            let object = walker.object_of(table);
            walker.effect_with(actions::LOCK, object, [("mode", "rows".into())]);
        }
    }
}

impl Walk for pg::CurrentOfExpr {
    fn walk(&self, walker: &mut Walker) {
        walker.condition_names_row();
        self.fields(walker);
    }
}

impl Walk for pg::RangeTableSample {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::FUNCTION, object("function", &self.method));
        self.fields(walker);
    }
}

/// `'orders'::regclass` asks about the table that the string names.
impl Walk for pg::TypeCast {
    fn walk(&self, walker: &mut Walker) {
        let to = self.type_name.as_ref().map(|to| names(&to.names)).unwrap_or_default();
        if matches!(to.as_slice(), ["regclass"] | ["pg_catalog", "regclass"]) {
            // A number or a value that is not written out names nothing: clients look up by number
            // what they found in the catalogs, and learn no more of it than stands there.
            let named = walker.constant(self.arg.as_deref()).filter(|text| !is_number(text));
            walker.effect(actions::LOOKUP, named.map(|text| written(Some(text))));
        }
        self.fields(walker);
    }
}

impl Walk for pg::FuncCall {
    fn walk(&self, walker: &mut Walker) {
        let function = object("function", &self.funcname);
        walker.effect(actions::FUNCTION, function.clone());
        let mut writes = false;
        if let [.., name] = names(&self.funcname).as_slice() {
            // Which locks are held is there for everybody to see.
            writes = name.starts_with("pg_advisory") || name.starts_with("pg_try_advisory");
            if functions::names_table(name)
                && let Some(named) = walker.constant(self.args.first()).filter(|t| !is_number(t))
            {
                walker.effect(actions::LOOKUP, Some(written(Some(named))));
            }
        }
        if let [schema @ .., name] = names(&self.funcname).as_slice()
            && let Some(known) = functions::known(schema.last().copied(), name)
        {
            writes = !matches!(known, Known::ShowsSetting | Known::TakesSecret);
            does(known, self, function, walker);
        }
        if writes {
            walker.writing(|walker| self.fields(walker));
        } else {
            walker.computing(|walker| self.fields(walker));
        }
    }
}

/// What a call of a known function does beside calling it.
fn does(known: Known, call: &pg::FuncCall, function: Option<Object>, walker: &mut Walker) {
    let argument = |at: usize, walker: &mut Walker| walker.constant(call.args.get(at));
    match known {
        Known::Does(action) => {
            walker.effect(action, function);
        }
        Known::RunsElsewhere => {
            walker.effect(actions::REMOTE, function.clone());
            walker.effect(actions::DYNAMIC, function);
            walker.holds_secret();
        }
        Known::SetsSetting => {
            for name in settings_named(call, walker) {
                let name = name.as_deref();
                let value = argument(1, walker);
                session::sets(walker, name, value);
                session::sets_now(walker, name, value);
                // It gives back what it has set.
                walker.marks.reveals |= !name.is_some_and(is_harmless);
            }
        }
        Known::ShowsSetting => {
            for name in settings_named(call, walker) {
                walker.marks.reveals |= !name.as_deref().is_some_and(is_harmless);
                walker.effect(actions::SHOW, Some(session::setting(name.as_deref())));
            }
        }
        Known::Notifies => {
            let channel = argument(0, walker).map(str::to_owned);
            let channel = Object::new("channel", [channel]);
            walker.effect(actions::NOTIFY, Some(channel));
        }
        Known::MovesSequence => {
            let sequence = written(argument(0, walker));
            walker.effect(actions::SEQUENCE, Some(sequence));
        }
        Known::TakesSecret => walker.holds_secret(),
    }
}

/// The settings that the first argument of a call names; `None` is any.
fn settings_named(call: &pg::FuncCall, walker: &mut Walker) -> Vec<Option<String>> {
    let first = call.args.first();
    match (walker.constant(first), walker.settings()) {
        (Some(name), _) => vec![Some(name.to_owned())],
        (None, Some(picked)) if first.is_some_and(is_setting_name) => {
            picked.iter().cloned().map(Some).collect()
        }
        _ => vec![None],
    }
}

/// The table that a string names by the rules of `regclass`: digits are a number that only the
/// server knows.
fn written(text: Option<&str>) -> Object {
    let named = text.filter(|text| !is_number(text));
    Object::new("table", named.map_or_else(|| vec![None], qualified))
}

fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// The parts of a qualified name: unquoted ones in lower case, quoted ones as they are.
fn qualified(text: &str) -> Vec<Option<String>> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut quoted, mut chars) = (false, text.trim_ascii().chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.next_if_eq(&'"').is_some() => part.push('"'),
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(Some(std::mem::take(&mut part))),
            c if quoted => part.push(c),
            c => part.push(c.to_ascii_lowercase()),
        }
    }
    parts.push(Some(part));
    parts
}
