//! Which names a statement uses, wherever they stand in it.

use std::collections::HashSet;

use pg_query::NodeEnum;
use pg_query::protobuf as pg;

use super::super::tree::{Edit, Editor};
use super::relation::SYSTEM;
use super::string;

/// Names that a statement uses.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The last parts of columns' names, and names that joins and functions could mean columns by.
    columns: HashSet<String>,
    /// Names that stand alone: columns, or whole rows.
    alone: HashSet<String>,
    /// Names before a `*`.
    stars: HashSet<String>,
    /// A `*` that stands alone.
    star: bool,
    natural: bool,
    /// Names that FROM gives to something other than a table under its own name.
    pub(super) aliases: HashSet<String>,
}

impl Facts {
    pub(super) fn of(tree: &mut impl Edit) -> Self {
        let mut facts = Self::default();
        tree.edit("", &mut facts);
        facts
    }

    /// Of a list of columns.
    pub(super) fn naming(columns: &[String]) -> Self {
        Self { columns: columns.iter().cloned().collect(), ..Self::default() }
    }

    /// Whether all columns of what goes by a name may be meant at once.
    pub(super) fn takes_all(&self, alias: &str) -> bool {
        self.star || self.natural || self.stars.contains(alias) || self.alone.contains(alias)
    }

    /// Whether a column of this name may be meant.
    pub(super) fn mentions(&self, column: &str) -> bool {
        self.columns.contains(column)
    }

    /// The system columns that are meant.
    pub(super) fn system(&self) -> Vec<&'static str> {
        SYSTEM.iter().copied().filter(|name| self.columns.contains(*name)).collect()
    }
}

impl Editor for Facts {
    fn node(&mut self, node: &mut pg::Node) -> bool {
        match &node.node {
            Some(NodeEnum::ColumnRef(column)) => self.column(&column.fields),
            Some(NodeEnum::RangeVar(table)) => self.alias(table.alias.as_ref()),
            Some(NodeEnum::RangeSubselect(query)) => self.alias(query.alias.as_ref()),
            Some(NodeEnum::RangeFunction(function)) => self.alias(function.alias.as_ref()),
            Some(NodeEnum::RangeTableFunc(function)) => self.alias(function.alias.as_ref()),
            Some(NodeEnum::JsonTable(function)) => self.alias(function.alias.as_ref()),
            Some(NodeEnum::JoinExpr(join)) => {
                self.natural |= join.is_natural;
                self.columns.extend(join.using_clause.iter().filter_map(string).map(str::to_owned));
                self.alias(join.alias.as_ref());
                self.alias(join.join_using_alias.as_ref());
            }
            Some(NodeEnum::CommonTableExpr(common)) => {
                self.aliases.insert(common.ctename.clone());
            }
            // `email(c)` is `c.email`, and so is `(c).email`.
            Some(NodeEnum::FuncCall(call)) => {
                self.columns.extend(call.funcname.last().and_then(string).map(str::to_owned));
            }
            Some(NodeEnum::AIndirection(fields)) => {
                self.columns
                    .extend(fields.indirection.iter().filter_map(string).map(str::to_owned));
            }
            _ => {}
        }
        true
    }
}

impl Facts {
    fn column(&mut self, fields: &[pg::Node]) {
        let Some((last, before)) = fields.split_last() else { return };
        match (string(last), before.last().and_then(string)) {
            (Some(name), None) => {
                self.alone.insert(name.to_owned());
                self.columns.insert(name.to_owned());
            }
            (Some(name), Some(_)) => {
                self.columns.insert(name.to_owned());
            }
            (None, Some(of)) => {
                self.stars.insert(of.to_owned());
            }
            (None, None) => self.star = true,
        }
    }

    fn alias(&mut self, alias: Option<&pg::Alias>) {
        if let Some(alias) = alias {
            self.aliases.insert(alias.aliasname.clone());
        }
    }
}
