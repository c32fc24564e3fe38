//! Statements that write a relation whose rows are filtered: they reach no other rows, and make
//! none.
//!
//! UPDATE and DELETE get the filter's condition, and their own is computed on rows that meet it
//! alone. A new row, or a new value of a column that the filter names, must be proven to meet the
//! filter: the filter compares columns with one value each, and the statement gives each of them that
//! value as a constant, or as a parameter, which the server then checks. All else is refused.

use pg_query::NodeEnum;
use pg_query::protobuf as pg;
use pg_query::protobuf::a_const::Val;

use super::narrow::{Narrowed, conjuncts};
use super::relation::{MaskedRelation, selected};
use super::walk::Rewriter;
use super::writes::Written;
use super::{Refusal, string};

const NOT_WRITTEN: Refusal = Refusal::of("a row filter cannot be written into the statement");
const CURSOR: Refusal =
    Refusal::of("WHERE CURRENT OF on a table with a row filter: name the rows by their key");
const MERGED: Refusal =
    Refusal::of("MERGE into a table with a row filter: write INSERT, UPDATE or DELETE");
const CONFLICT: Refusal = Refusal::of(
    "ON CONFLICT on a table with a row filter, where rows outside of it could conflict",
);
const OUTSIDE: Refusal = Refusal::of("the new row would be outside of the row filter");
const UNPROVEN: Refusal = Refusal::of(
    "it is not certain that the new row is inside of the row filter: give the columns that the filter \
     names as constants or parameters",
);
const COMPLEX: Refusal = Refusal::of(
    "the row filter is more than columns with one value each: new rows, and new values of its \
     columns, cannot be proven to be inside of it",
);

/// Types that a cast to changes no value of, but for making it fail.
const HARMLESS_CASTS: &[&str] = &["int4", "int8", "text", "uuid", "varchar"];

impl Rewriter<'_, '_> {
    /// Puts the filter in front of the condition of an UPDATE or DELETE.
    pub(super) fn confine(
        &mut self,
        written: &Written,
        table: Option<&pg::RangeVar>,
        condition: &mut Option<Box<pg::Node>>,
        alone: bool,
    ) {
        let (relation, Some(table)) = (&written.relation, table) else { return };
        if !self.is_written_itself(relation) {
            return;
        }
        if matches!(condition.as_deref(), Some(pg::Node { node: Some(NodeEnum::CurrentOfExpr(_)) }))
        {
            return self.refuse(CURSOR);
        }
        self.change();
        let Some(splices) = &mut self.splices else { return };
        let Some(filter) = relation.condition(&written.alias) else {
            return self.refuse(NOT_WRITTEN);
        };
        let (alias, inner) = (&*written.alias, &*written.alias);
        let narrowing =
            Narrowed { relation, alias, alone, inner }.text(&conjuncts(condition.as_deref()));
        let before = format!(" {filter}{narrowing} AND CASE WHEN {filter} THEN (");
        let (behind, alone) = (") ELSE false END", format!(" WHERE {filter}"));
        splices.around_condition(table, [&before, behind, &alone]);
        let text = match condition {
            Some(_) => format!("SELECT WHERE{before}NULL{behind}"),
            None => format!("SELECT{alone}"),
        };
        let Some(mut confined) = selected(&text).and_then(|select| select.where_clause) else {
            return self.refuse(NOT_WRITTEN);
        };
        if let Some(own) = condition.take() {
            match last_result(&mut confined) {
                Some(place) => *place = own,
                None => return self.refuse(NOT_WRITTEN),
            }
        }
        *condition = Some(confined);
    }

    /// Looks at what an UPDATE assigns.
    pub(super) fn confine_values(&mut self, written: &Written, assigned: &mut [pg::Node]) {
        let relation = &written.relation;
        if !self.is_written_itself(relation) {
            return;
        }
        let picked = relation.picked_by();
        for node in assigned {
            let Some(NodeEnum::ResTarget(target)) = &mut node.node else {
                self.refuse(UNPROVEN);
                continue;
            };
            if picked.iter().any(|column| relation.is_generated(column)) {
                self.refuse(COMPLEX);
            }
            if !picked.contains(target.name.as_str()) {
                continue;
            }
            match target.val.as_deref_mut().filter(|_| target.indirection.is_empty()) {
                Some(value) => self.confine_value(relation, &target.name, value),
                None => self.refuse(UNPROVEN),
            }
        }
    }

    /// Looks at the rows of an INSERT.
    pub(super) fn confine_rows(&mut self, written: &Written, insert: &mut pg::InsertStmt) {
        let relation = &written.relation;
        if !self.is_written_itself(relation) {
            return;
        }
        self.change();
        if insert.on_conflict_clause.is_some() {
            return self.refuse(CONFLICT);
        }
        let listed: Vec<&str> = match insert.cols.as_slice() {
            [] => relation.names().collect(),
            listed => {
                let name = |node: &pg::Node| match &node.node {
                    Some(NodeEnum::ResTarget(of)) if of.indirection.is_empty() => {
                        Some(of.name.clone())
                    }
                    _ => None,
                };
                let names: Option<Vec<String>> = listed.iter().map(name).collect();
                let Some(names) = names else { return self.refuse(UNPROVEN) };
                return self.confine_listed(relation, &names, &mut insert.select_stmt);
            }
        };
        let names: Vec<String> = listed.into_iter().map(str::to_owned).collect();
        self.confine_listed(relation, &names, &mut insert.select_stmt);
    }

    /// The same, with the names of the columns that get the values.
    fn confine_listed(
        &mut self,
        relation: &MaskedRelation,
        names: &[String],
        source: &mut Option<Box<pg::Node>>,
    ) {
        let Some(NodeEnum::SelectStmt(select)) =
            source.as_deref_mut().and_then(|s| s.node.as_mut())
        else {
            return self.refuse(UNPROVEN);
        };
        if select.larg.is_some() {
            return self.refuse(UNPROVEN);
        }
        for column in relation.picked_by() {
            let Some(at) = names.iter().position(|name| name == column) else {
                return self.refuse(UNPROVEN);
            };
            if select.values_lists.is_empty() {
                let before = select.target_list.iter().take(at);
                if before.into_iter().any(is_star) {
                    return self.refuse(UNPROVEN);
                }
                let target = select.target_list.get_mut(at).and_then(|node| node.node.as_mut());
                match target {
                    Some(NodeEnum::ResTarget(target)) => match target.val.as_deref_mut() {
                        Some(value) => self.confine_value(relation, column, value),
                        None => self.refuse(UNPROVEN),
                    },
                    _ => self.refuse(UNPROVEN),
                }
            }
            for row in &mut select.values_lists {
                let value = match &mut row.node {
                    Some(NodeEnum::List(row)) => row.items.get_mut(at),
                    _ => None,
                };
                match value {
                    Some(value) => self.confine_value(relation, column, value),
                    None => self.refuse(UNPROVEN),
                }
            }
        }
    }

    /// A value of a column that the filter names.
    fn confine_value(&mut self, relation: &MaskedRelation, column: &str, value: &mut pg::Node) {
        let Some(pinned) = relation.pinned() else { return self.refuse(COMPLEX) };
        let mut all = pinned.into_iter().filter(|(name, _)| *name == column);
        let Some((_, mut pins)) = all.next() else { return self.refuse(COMPLEX) };
        // Of several conditions each must be met.
        all.for_each(|(_, others)| pins.retain(|pin| others.contains(pin)));
        if pins.is_empty() {
            return self.refuse(OUTSIDE);
        }
        self.confine_to(relation, column, &pins, value);
    }

    fn confine_to(
        &mut self,
        relation: &MaskedRelation,
        column: &str,
        pins: &[&str],
        value: &mut pg::Node,
    ) {
        match &mut value.node {
            Some(NodeEnum::AConst(constant)) => match constant_text(constant) {
                Some(text) if pins.contains(&&*text) => {}
                Some(_) => self.refuse(OUTSIDE),
                None => self.refuse(UNPROVEN),
            },
            Some(NodeEnum::TypeCast(cast)) => {
                let harmless = cast.type_name.as_ref().and_then(harmless_type).is_some();
                match cast.arg.as_deref_mut().filter(|_| harmless) {
                    Some(value) => self.confine_to(relation, column, pins, value),
                    None => self.refuse(UNPROVEN),
                }
            }
            Some(NodeEnum::ParamRef(parameter)) => {
                let Some(splices) = &mut self.splices else { return };
                let checked = relation.checked_parameter(column, parameter.number, pins);
                let Some((text, node)) = checked else { return self.refuse(NOT_WRITTEN) };
                splices.instead_of_parameter(parameter, text);
                *value = node;
            }
            _ => self.refuse(UNPROVEN),
        }
    }

    /// MERGE may insert, change and remove rows of its target by conditions on all of them.
    pub(super) fn confine_merge(&mut self, written: &Written) {
        if self.is_written_itself(&written.relation) {
            self.refuse(MERGED);
        }
    }

    /// Whether the rows of what is written are filtered, and by itself: not as a view.
    fn is_written_itself(&mut self, relation: &MaskedRelation) -> bool {
        if let Some(refusal) = relation.not_written() {
            self.refuse(refusal);
        }
        relation.is_filtered() && relation.query().is_none() && relation.refused().is_none()
    }
}

/// The place of the result of the CASE that a condition ends with.
fn last_result(condition: &mut pg::Node) -> Option<&mut Box<pg::Node>> {
    let Some(NodeEnum::BoolExpr(all)) = &mut condition.node else { return None };
    let Some(NodeEnum::CaseExpr(case)) = all.args.last_mut().and_then(|last| last.node.as_mut())
    else {
        return None;
    };
    match case.args.first_mut().and_then(|when| when.node.as_mut()) {
        Some(NodeEnum::CaseWhen(when)) => when.result.as_mut(),
        _ => None,
    }
}

fn constant_text(constant: &pg::AConst) -> Option<String> {
    match constant.val.as_ref()? {
        Val::Sval(text) => Some(text.sval.clone()),
        Val::Ival(number) => Some(number.ival.to_string()),
        Val::Fval(number) => Some(number.fval.clone()),
        Val::Boolval(flag) => Some(flag.boolval.to_string()),
        Val::Bsval(_) => None,
    }
}

/// A plain type that takes each value as it is, or not.
pub(super) fn harmless_type(of: &pg::TypeName) -> Option<&'static str> {
    let name = match of.names.as_slice() {
        [name] => string(name),
        [schema, name] if string(schema) == Some("pg_catalog") => string(name),
        _ => None,
    };
    let plain = of.typmods.is_empty() && of.array_bounds.is_empty() && !of.setof && !of.pct_type;
    HARMLESS_CASTS.iter().find(|known| plain && name == Some(**known)).copied()
}

fn is_star(target: &pg::Node) -> bool {
    let Some(NodeEnum::ResTarget(target)) = &target.node else { return true };
    match target.val.as_deref().map(|value| &value.node) {
        Some(Some(NodeEnum::ColumnRef(column))) => {
            column.fields.last().is_none_or(|last| string(last).is_none())
        }
        Some(Some(NodeEnum::AIndirection(fields))) => {
            fields.indirection.last().is_none_or(|last| string(last).is_none())
        }
        _ => false,
    }
}
