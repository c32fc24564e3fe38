//! Which columns the literals and parameters of a statement belong to: what each is compared with, or
//! assigned to.
//!
//! Only what the text proves is told: a literal beside a column in a condition of the statement itself,
//! in a row of an INSERT or an assignment of an UPDATE, and the numbers of LIMIT and OFFSET. Of any
//! other literal nothing is known. The query must be over plain tables; what stands in a subquery or a
//! common table expression is not told.

use pg_query::NodeEnum;
use pg_query::protobuf::{self as pg, AExprKind, RawStmt};

use super::functions::takes_whole_row;
use super::object::table;
use super::walker::name;
use crate::policy::Object;

/// Literals and parameters of one text that are told of, most: rows of a large INSERT are not.
const MOST: usize = 512;

/// A literal or a parameter, and the columns that it may belong to.
#[derive(Debug, Clone, PartialEq)]
pub struct Belonging {
    /// The byte at which it begins.
    pub at: usize,
    /// Tables with the column's name: all that could be meant. None for a number of rows.
    pub columns: Vec<(Object, Box<str>)>,
}

/// What belongs to which columns, in the order of the text.
pub(super) fn of(statements: &[RawStmt]) -> Vec<Belonging> {
    let mut told = Told::default();
    for raw in statements {
        told.statement(raw.stmt.as_deref());
    }
    told.0.sort_by_key(|belonging| belonging.at);
    told.0.dedup_by_key(|belonging| belonging.at);
    told.0
}

/// A table under a name that columns may bear.
struct Named<'a> {
    alias: &'a str,
    schema: Option<&'a str>,
    table: Object,
    renamed: bool,
}

#[derive(Default)]
struct Told(Vec<Belonging>);

impl Told {
    fn statement(&mut self, node: Option<&pg::Node>) {
        match node.and_then(|node| node.node.as_ref()) {
            Some(NodeEnum::SelectStmt(select)) => self.select(select),
            Some(NodeEnum::InsertStmt(insert)) => self.insert(insert),
            Some(NodeEnum::UpdateStmt(update)) if update.with_clause.is_none() => {
                let Some(target) = &update.relation else { return };
                let mut tables = vec![named(target)];
                if !collect(&update.from_clause, &mut tables) {
                    return;
                }
                for item in &update.target_list {
                    if let Some(NodeEnum::ResTarget(item)) = &item.node
                        && item.indirection.is_empty()
                    {
                        let column = (table(target), item.name.as_str().into());
                        self.belong(item.val.as_deref(), &[column]);
                    }
                }
                self.joins(&update.from_clause, &tables);
                self.condition(update.where_clause.as_deref(), &tables);
            }
            Some(NodeEnum::DeleteStmt(delete)) if delete.with_clause.is_none() => {
                let Some(target) = &delete.relation else { return };
                let mut tables = vec![named(target)];
                if collect(&delete.using_clause, &mut tables) {
                    self.joins(&delete.using_clause, &tables);
                    self.condition(delete.where_clause.as_deref(), &tables);
                }
            }
            Some(NodeEnum::ExplainStmt(explain)) => self.statement(explain.query.as_deref()),
            Some(NodeEnum::PrepareStmt(prepare)) => self.statement(prepare.query.as_deref()),
            Some(NodeEnum::DeclareCursorStmt(cursor)) => self.statement(cursor.query.as_deref()),
            _ => {}
        }
    }

    fn select(&mut self, select: &pg::SelectStmt) {
        let mut tables = Vec::new();
        let simple = select.larg.is_none()
            && select.rarg.is_none()
            && select.with_clause.is_none()
            && select.into_clause.is_none()
            && select.values_lists.is_empty()
            && collect(&select.from_clause, &mut tables);
        if simple {
            self.joins(&select.from_clause, &tables);
            self.condition(select.where_clause.as_deref(), &tables);
            self.belong(select.limit_count.as_deref(), &[]);
            self.belong(select.limit_offset.as_deref(), &[]);
        }
    }

    fn insert(&mut self, insert: &pg::InsertStmt) {
        let (Some(target), None) = (&insert.relation, &insert.with_clause) else { return };
        let Some(NodeEnum::SelectStmt(rows)) =
            insert.select_stmt.as_deref().and_then(|node| node.node.as_ref())
        else {
            return;
        };
        for row in &rows.values_lists {
            let Some(NodeEnum::List(row)) = &row.node else { continue };
            for (column, value) in insert.cols.iter().zip(&row.items) {
                if let Some(NodeEnum::ResTarget(column)) = &column.node
                    && column.indirection.is_empty()
                {
                    self.belong(Some(value), &[(table(target), column.name.as_str().into())]);
                }
            }
        }
    }

    /// Conditions of joins.
    fn joins(&mut self, items: &[pg::Node], tables: &[Named<'_>]) {
        for item in items {
            if let Some(NodeEnum::JoinExpr(join)) = &item.node {
                for side in [&join.larg, &join.rarg].into_iter().flatten() {
                    self.joins(std::slice::from_ref(side), tables);
                }
                self.condition(join.quals.as_deref(), tables);
            }
        }
    }

    fn condition(&mut self, node: Option<&pg::Node>, tables: &[Named<'_>]) {
        match node.and_then(|node| node.node.as_ref()) {
            Some(NodeEnum::BoolExpr(all)) => {
                all.args.iter().for_each(|arg| self.condition(Some(arg), tables));
            }
            Some(NodeEnum::AExpr(comparison)) => {
                let (left, right) = (comparison.lexpr.as_deref(), comparison.rexpr.as_deref());
                if let Some(columns) = columns(left, tables) {
                    let list = match comparison.kind() {
                        AExprKind::AexprIn
                        | AExprKind::AexprBetween
                        | AExprKind::AexprNotBetween
                        | AExprKind::AexprBetweenSym
                        | AExprKind::AexprNotBetweenSym
                        | AExprKind::AexprOpAny
                        | AExprKind::AexprOpAll => items(right),
                        _ => None,
                    };
                    match list {
                        Some(list) => list.iter().for_each(|one| self.belong(Some(one), &columns)),
                        None => self.belong(right, &columns),
                    }
                } else if let Some(columns) = columns(right, tables) {
                    self.belong(left, &columns);
                }
            }
            _ => {}
        }
    }

    /// Notes where a literal stands, if the node is one.
    fn belong(&mut self, node: Option<&pg::Node>, columns: &[(Object, Box<str>)]) {
        if self.0.len() < MOST
            && let Some(at) = literal(node).and_then(|at| usize::try_from(at).ok())
        {
            self.0.push(Belonging { at, columns: columns.to_vec() });
        }
    }
}

/// The tables of FROM; false when there is anything else.
fn collect<'a>(items: &'a [pg::Node], into: &mut Vec<Named<'a>>) -> bool {
    items.iter().all(|item| match &item.node {
        Some(NodeEnum::RangeVar(relation)) => {
            into.push(named(relation));
            true
        }
        // The alias of a join renames what is in it.
        Some(NodeEnum::JoinExpr(join))
            if join.alias.is_none() && join.join_using_alias.is_none() =>
        {
            [&join.larg, &join.rarg]
                .into_iter()
                .flatten()
                .all(|side| collect(std::slice::from_ref(&**side), into))
        }
        _ => false,
    })
}

fn named(relation: &pg::RangeVar) -> Named<'_> {
    let alias = relation.alias.as_ref();
    Named {
        alias: alias.map_or(relation.relname.as_str(), |alias| alias.aliasname.as_str()),
        schema: Some(relation.schemaname.as_str()).filter(|s| !s.is_empty() && alias.is_none()),
        table: table(relation),
        renamed: alias.is_some_and(|alias| !alias.colnames.is_empty()),
    }
}

/// The columns that a node may name, if it names one.
fn columns(node: Option<&pg::Node>, tables: &[Named<'_>]) -> Option<Vec<(Object, Box<str>)>> {
    let Some(NodeEnum::ColumnRef(column)) = node?.node.as_ref() else { return None };
    let names: Option<Vec<&str>> = column.fields.iter().map(name).collect();
    let (schema, relation, column) = match *names?.as_slice() {
        [column] => (None, None, column),
        [relation, column] => (None, Some(relation), column),
        [schema, relation, column] => (Some(schema), Some(relation), column),
        _ => return None,
    };
    let meant = |named: &&Named<'_>| {
        relation.is_none_or(|relation| named.alias == relation)
            && schema.is_none_or(|schema| named.schema.is_none_or(|own| own == schema))
    };
    let meant: Vec<&Named<'_>> = tables.iter().filter(meant).collect();
    // By the name of a table its whole row is meant, and `c.f` may call f with it.
    let row = tables.iter().any(|named| named.alias == column) || takes_whole_row(column);
    if meant.is_empty() || row || meant.iter().any(|named| named.renamed) {
        return None;
    }
    Some(meant.iter().map(|named| (named.table.clone(), Box::from(column))).collect())
}

/// Where a literal or a parameter stands, maybe cast or with a sign.
fn literal(node: Option<&pg::Node>) -> Option<i32> {
    match node?.node.as_ref()? {
        NodeEnum::AConst(constant) => Some(constant.location),
        NodeEnum::ParamRef(parameter) => Some(parameter.location),
        NodeEnum::TypeCast(cast) => literal(cast.arg.as_deref()),
        NodeEnum::AExpr(sign) if sign.lexpr.is_none() => literal(sign.rexpr.as_deref()),
        _ => None,
    }
}

/// The items of a list: `IN (…)`, `BETWEEN … AND …`, `ANY (ARRAY[…])`.
fn items(node: Option<&pg::Node>) -> Option<&[pg::Node]> {
    match node?.node.as_ref()? {
        NodeEnum::List(list) => Some(&list.items),
        NodeEnum::AArrayExpr(array) => Some(&array.elements),
        _ => None,
    }
}
