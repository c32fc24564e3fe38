//! Statements that change rows: INSERT, UPDATE, DELETE, MERGE, TRUNCATE, COPY.

use pg_query::NodeEnum;
use pg_query::protobuf::{self as pg, CmdType};
use serde_json::json;

use super::actions;
use super::object::table;
use super::query::{comes_out, named, relations_in};
use super::reading::CopyOut;
use super::session;
use super::tree::Walk;
use super::walker::{Relation, TableId, Walker, name, names};
use crate::decode::postgres::copy::CopyFormat;
use crate::policy::Object;

/// The columns that a list of targets names.
fn targets(list: &[pg::Node]) -> impl Iterator<Item = &str> {
    list.iter().filter_map(|target| match &target.node {
        Some(NodeEnum::ResTarget(target)) => Some(target.name.as_str()),
        _ => None,
    })
}

/// The columns of an INSERT: those listed, or else all.
fn inserted(list: &[pg::Node]) -> Vec<&str> {
    if list.is_empty() { vec!["*"] } else { targets(list).collect() }
}

/// Whether the rows of an INSERT are written out in the statement, one by one.
fn rows_are_written_out(source: Option<&pg::Node>) -> bool {
    match source.and_then(|source| source.node.as_ref()) {
        None => true,
        Some(NodeEnum::SelectStmt(select)) => !select.values_lists.is_empty(),
        Some(_) => false,
    }
}

impl Walk for pg::InsertStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self {
            relation,
            cols,
            select_stmt,
            on_conflict_clause,
            returning_clause,
            with_clause,
            r#override: _,
        } = self;
        let Some(relation) = relation else { return walker.does_not_understand() };
        walker.with_common_tables(|walker| {
            with_clause.walk(walker);
            let place = walker.effect(actions::INSERT, Some(table(relation)));
            walker.columns(place, inserted(cols));
            cols.walk(walker);
            walker.writing(|walker| select_stmt.walk(walker));
            let target = walker.written(table(relation));
            let excluded = Relation {
                alias: "excluded".to_owned(),
                schema: None,
                tables: Vec::new(),
                renamed: false,
            };
            walker.in_scope(vec![named(relation, vec![target]), excluded], |walker| {
                if let Some(conflict) = on_conflict_clause {
                    let written_out = rows_are_written_out(select_stmt.as_deref());
                    conflicts(conflict, relation, target, written_out, walker);
                }
                returned(returning_clause, walker);
            });
        });
    }
}

/// ON CONFLICT: with DO UPDATE, rows that are there change.
fn conflicts(
    clause: &pg::OnConflictClause,
    relation: &pg::RangeVar,
    target: TableId,
    written_out: bool,
    walker: &mut Walker,
) {
    let pg::OnConflictClause { action, infer, target_list, where_clause, location: _ } = clause;
    walker.filtering(|walker| {
        if let Some(infer) = infer {
            for element in &infer.index_elems {
                if let Some(NodeEnum::IndexElem(element)) = &element.node
                    && !element.name.is_empty()
                {
                    walker.unqualified(&element.name);
                }
            }
        }
        infer.walk(walker);
    });
    walker.writing(|walker| target_list.walk(walker));
    let column = names_column_of(target, where_clause, walker);
    if *action == pg::OnConflictAction::OnconflictUpdate as i32 {
        let place = walker.effect_with(
            actions::UPDATE,
            Some(table(relation)),
            [
                ("on_conflict", json!(true)),
                ("has_where", json!(where_clause.is_some() || written_out)),
                ("where_names_column", json!(column || written_out)),
            ],
        );
        walker.columns(place, targets(target_list));
        sets_settings(relation, walker);
    }
}

impl Walk for pg::UpdateStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self {
            relation,
            target_list,
            where_clause,
            from_clause,
            returning_clause,
            with_clause,
        } = self;
        let Some(relation) = relation else { return walker.does_not_understand() };
        walker.with_common_tables(|walker| {
            with_clause.walk(walker);
            let target = walker.written(table(relation));
            let relations = relations_in(from_clause, walker);
            walker.in_scope(relations, |walker| {
                walker.writing(|walker| from_clause.walk(walker));
                // FROM does not see it (`transformUpdateStmt`).
                walker.sees(named(relation, vec![target]));
                let column = names_column_of(target, where_clause, walker);
                let place = walker.effect_with(
                    actions::UPDATE,
                    Some(table(relation)),
                    [
                        ("has_where", json!(where_clause.is_some())),
                        ("where_names_column", json!(column)),
                    ],
                );
                walker.columns(place, targets(target_list));
                sets_settings(relation, walker);
                walker.writing(|walker| target_list.walk(walker));
                returned(returning_clause, walker);
            });
        });
    }
}

/// RETURNING: what comes out of a statement that writes.
fn returned(clause: &Option<pg::ReturningClause>, walker: &mut Walker) {
    let Some(pg::ReturningClause { options, exprs }) = clause else { return };
    walker.returning(|walker| {
        options.walk(walker);
        exprs.iter().for_each(|target| comes_out(target, walker));
    });
}

/// Walks over a condition, and says whether it names a column that may be the table's.
fn names_column_of(target: TableId, condition: &impl Walk, walker: &mut Walker) -> bool {
    walker.filtering(|walker| walker.names_column_of(target, |walker| condition.walk(walker)))
}

/// An UPDATE of the view `pg_settings` sets whatever its rows name.
fn sets_settings(relation: &pg::RangeVar, walker: &mut Walker) {
    if relation.relname == "pg_settings" {
        session::sets(walker, None, None);
    }
}

impl Walk for pg::DeleteStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { relation, using_clause, where_clause, returning_clause, with_clause } = self;
        let Some(relation) = relation else { return walker.does_not_understand() };
        walker.with_common_tables(|walker| {
            with_clause.walk(walker);
            let target = walker.written(table(relation));
            let relations = relations_in(using_clause, walker);
            walker.in_scope(relations, |walker| {
                using_clause.walk(walker);
                // USING does not see it (`transformDeleteStmt`).
                walker.sees(named(relation, vec![target]));
                let column = names_column_of(target, where_clause, walker);
                walker.effect_with(
                    actions::DELETE,
                    Some(table(relation)),
                    [
                        ("has_where", json!(where_clause.is_some())),
                        ("where_names_column", json!(column)),
                    ],
                );
                returned(returning_clause, walker);
            });
        });
    }
}

impl Walk for pg::MergeStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self {
            relation,
            source_relation,
            join_condition,
            merge_when_clauses,
            returning_clause,
            with_clause,
        } = self;
        let Some(relation) = relation else { return walker.does_not_understand() };
        walker.with_common_tables(|walker| {
            with_clause.walk(walker);
            // Joined, its rows are read whatever comes of them.
            let target = walker.read(table(relation));
            let source = source_relation.as_deref();
            let relations =
                relations_in(source.map(std::slice::from_ref).unwrap_or_default(), walker);
            walker.in_scope(relations, |walker| {
                walker.writing(|walker| source_relation.walk(walker));
                // USING does not see it (`transformMergeStmt`).
                walker.sees(named(relation, vec![target]));
                let joined = names_column_of(target, join_condition, walker);
                for clause in merge_when_clauses {
                    match &clause.node {
                        Some(NodeEnum::MergeWhenClause(clause)) => {
                            merges(clause, relation, target, joined, walker);
                        }
                        _ => walker.does_not_understand(),
                    }
                }
                returned(returning_clause, walker);
            });
        });
    }
}

/// One WHEN of a MERGE. Its WHERE is the join's condition with its own.
fn merges(
    clause: &pg::MergeWhenClause,
    relation: &pg::RangeVar,
    target: TableId,
    joined: bool,
    walker: &mut Walker,
) {
    let pg::MergeWhenClause {
        match_kind: _,
        command_type: _,
        r#override: _,
        condition,
        target_list,
        values,
    } = clause;
    let column = names_column_of(target, condition, walker) || joined;
    let limited = [("has_where", json!(column)), ("where_names_column", json!(column))];
    let object = Some(table(relation));
    match clause.command_type() {
        CmdType::CmdInsert => {
            let place = walker.effect(actions::INSERT, object);
            walker.columns(place, inserted(target_list));
        }
        CmdType::CmdUpdate => {
            let place = walker.effect_with(actions::UPDATE, object, limited);
            walker.columns(place, targets(target_list));
            sets_settings(relation, walker);
        }
        CmdType::CmdDelete => {
            walker.effect_with(actions::DELETE, object, limited);
        }
        CmdType::CmdNothing => {}
        _ => walker.does_not_understand(),
    }
    walker.writing(|walker| {
        target_list.walk(walker);
        values.walk(walker);
    });
}

impl Walk for pg::TruncateStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { relations, restart_seqs: _, behavior } = self;
        let cascade = *behavior == pg::DropBehavior::DropCascade as i32;
        for relation in relations {
            walker.effect_with(
                actions::TRUNCATE,
                Some(table(relation)),
                [("cascade", json!(cascade))],
            );
        }
        if cascade {
            // Tables with foreign keys to these.
            let others = Some(Object::new("table", []));
            walker.effect_with(actions::TRUNCATE, others, [("cascade", json!(true))]);
        }
    }
}

impl Walk for pg::CopyStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { relation, query, attlist, is_from, is_program, filename, options, where_clause } =
            self;
        // What goes to a file or a program of the server is out of reach.
        let stays = *is_program || !filename.is_empty();
        let copied = |walker: &mut Walker, part: &mut dyn FnMut(&mut Walker)| {
            if stays { walker.writing(part) } else { part(walker) }
        };
        copied(walker, &mut |walker| query.walk(walker));
        let named_columns = names(attlist);
        let listed = named_columns.len();
        let columns = if listed == 0 { vec!["*"] } else { named_columns };
        let object = relation.as_ref().map(table);
        let copy = if *is_from { actions::COPY_FROM } else { actions::COPY_TO };
        let (format, others) = copy_options(options);
        let place = walker.effect_with(
            copy,
            object.clone(),
            [("format", json!(format)), ("options", json!(others))],
        );
        if let Some(relation) = relation {
            walker.columns(place, columns.iter().copied());
            let rows = if *is_from { actions::INSERT } else { actions::SELECT };
            let place = walker.effect(rows, object.clone());
            if *is_from {
                walker.columns(place, columns);
            } else {
                copied(walker, &mut |walker| walker.read_columns(place, columns.iter().copied()));
                if listed > 0 && !stays {
                    walker.lists_outputs(place, &columns);
                }
            }
            // WHERE sees the rows that come in, by the table's columns.
            let incoming = named(relation, Vec::new());
            walker.in_scope(vec![incoming], |walker| where_clause.walk(walker));
        }
        if *is_program {
            // A command line holds what it likes.
            walker.holds_secret();
            walker.effect(actions::COPY_PROGRAM, None);
        } else if !filename.is_empty() {
            walker.effect(actions::COPY_FILE, None);
        }
        options.walk(walker);
    }
}

/// The format, and the names of the options besides it and HEADER.
fn copy_options(options: &[pg::Node]) -> (String, Vec<&str>) {
    let mut format = "text".to_owned();
    let mut others = Vec::new();
    for option in options {
        if let Some(NodeEnum::DefElem(option)) = &option.node {
            match option.defname.as_str() {
                "format" => {
                    let value = option.arg.as_deref().and_then(name);
                    format = value.unwrap_or("unknown").to_ascii_lowercase();
                }
                "header" => {}
                other => others.push(other),
            }
        }
    }
    (format, others)
}

/// How the rows of a COPY to the client are written, where that is by default options.
pub(super) fn copy_out(copy: &pg::CopyStmt) -> Option<CopyOut> {
    if copy.is_program || !copy.filename.is_empty() {
        return None;
    }
    let (format, others) = copy_options(&copy.options);
    let format = match format.as_str() {
        "text" => CopyFormat::Text,
        "csv" => CopyFormat::Csv,
        "binary" => CopyFormat::Binary,
        _ => return None,
    };
    let options = copy.options.iter().filter_map(|option| match &option.node {
        Some(NodeEnum::DefElem(option)) => Some(option),
        _ => None,
    });
    let named = |name: &'static str| options.clone().filter(move |option| option.defname == name);
    // What is said twice the server refuses, too.
    let once = others.is_empty() && named("format").count() <= 1 && named("header").count() <= 1;
    let header = match named("header").next() {
        None => false,
        Some(option) => is_on(option.arg.as_deref())?,
    };
    once.then_some(CopyOut { format, header })
}

/// What an option that is on or off says; `None` when it says something else.
fn is_on(value: Option<&pg::Node>) -> Option<bool> {
    let Some(node) = value.and_then(|value| value.node.as_ref()) else { return Some(true) };
    match node {
        NodeEnum::Boolean(boolean) => Some(boolean.boolval),
        NodeEnum::Integer(number) => match number.ival {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        },
        NodeEnum::String(text) => match text.sval.to_ascii_lowercase().as_str() {
            "true" | "on" => Some(true),
            "false" | "off" => Some(false),
            _ => None,
        },
        _ => None,
    }
}
