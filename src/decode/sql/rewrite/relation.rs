//! A relation with masked columns or filtered rows, and the subquery that stands for it.

use std::collections::BTreeSet;

use pg_query::NodeEnum;
use pg_query::protobuf as pg;

use super::super::{LexerSettings, grammar};
use super::Refusal;
use super::condition::{BoundCondition, quoted_text};
use super::facts::Facts;

/// Types whose comparisons fail on no value, as the catalog writes them.
const COMPARED: &[&str] = &["bigint", "character varying", "integer", "smallint", "text", "uuid"];

/// Columns that every table has beside its own.
pub(super) const SYSTEM: &[&str] = &["ctid", "tableoid", "xmin", "xmax", "cmin", "cmax"];

/// A column of a relation with masked columns.
#[derive(Debug, Clone)]
pub struct MaskedColumn {
    /// Its name.
    pub name: String,
    /// NULL of its type, as an expression.
    pub null: String,
    /// What is seen of it.
    pub shown: Shown,
    /// Whether the role may read it.
    pub readable: bool,
    /// It is computed from others: COPY leaves it out.
    pub generated: bool,
    /// It is of the primary key.
    pub key: bool,
    /// Rows can be grouped by it.
    pub groupable: bool,
}

/// What is seen of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Its values.
    Clear,
    /// This expression, of the column's type.
    Masked(String),
    /// Its values where they go straight to the client, for they are masked there; no more. So is what
    /// `hash` and `tokenize` leave, where the server does not have the functions for them.
    AtOutput,
}

/// Which rows of a relation there are.
#[derive(Debug, Default)]
pub enum Rows {
    /// All of them.
    #[default]
    All,
    /// Those that meet each of these.
    Where(Vec<BoundCondition>),
    /// Those of a query: what a view is made of, with the filters of its tables in it.
    Query {
        /// The query.
        text: String,
        /// Why the view may not be written.
        written: Refusal,
    },
    /// None, and nothing may be done with the relation.
    Refused(Refusal),
}

/// A relation with masked columns or filtered rows.
#[derive(Debug)]
pub struct MaskedRelation {
    columns: Vec<Column>,
    has_system_columns: bool,
    rows: Rows,
    /// The query of [`Rows::Query`].
    query: Option<Box<pg::SelectStmt>>,
}

/// What stands behind FROM in the subquery.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail {
    pub(super) text: String,
    pub(super) condition: Option<Box<pg::Node>>,
    pub(super) offset: Option<Box<pg::Node>>,
    pub(super) option: i32,
}

#[derive(Debug)]
struct Column {
    name: String,
    shown: Shown,
    readable: bool,
    generated: bool,
    key: bool,
    groupable: bool,
    null: String,
    itself: Written,
    masked: Written,
    nothing: Written,
}

/// An entry in a list of what is selected, as text and as a node.
#[derive(Debug, Clone)]
struct Written {
    text: String,
    node: pg::Node,
}

impl MaskedRelation {
    /// A relation with its columns in order; `None` when an expression of theirs is none.
    pub fn new(columns: &[MaskedColumn], has_system_columns: bool) -> Option<Self> {
        let mut list = Vec::with_capacity(3 * columns.len());
        for MaskedColumn { name, null, shown, .. } in columns {
            let name = quoted(name);
            let masked = match shown {
                Shown::Masked(expression) => expression,
                Shown::Clear | Shown::AtOutput => null,
            };
            list.push(name.clone());
            list.push(format!("{masked} AS {name}"));
            list.push(format!("{null} AS {name}"));
        }
        let nodes = targets(&format!("SELECT {}", list.join(", ")))?;
        if nodes.len() != list.len() {
            return None;
        }
        let mut targets = list.into_iter().zip(nodes).map(|(text, node)| Written { text, node });
        let columns = columns.iter().map(|column| {
            Some(Column {
                name: column.name.clone(),
                shown: column.shown.clone(),
                readable: column.readable,
                generated: column.generated,
                key: column.key,
                groupable: column.groupable,
                null: column.null.clone(),
                itself: targets.next()?,
                masked: targets.next()?,
                nothing: targets.next()?,
            })
        });
        let columns = columns.collect::<Option<Vec<_>>>()?;
        let relation = Self { columns, has_system_columns, rows: Rows::All, query: None };
        Some(relation).filter(|_| targets.next().is_none())
    }

    /// How many columns it has.
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// The same with these rows alone; `None` when what they come from is no query.
    pub fn with_rows(self, rows: Rows) -> Option<Self> {
        let query = match &rows {
            Rows::Query { text, .. } => Some(Box::new(selected(text)?)),
            _ => None,
        };
        Some(Self { rows, query, ..self })
    }

    /// Whether it can be replaced: it has columns that are masked at the source, or not all rows.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_filtered()
            || self.columns.iter().any(|column| matches!(column.shown, Shown::Masked(_)))
    }

    /// Whether not all of its rows are there.
    pub(super) fn is_filtered(&self) -> bool {
        !matches!(self.rows, Rows::All)
    }

    /// Why nothing may be done with it.
    pub(super) fn refused(&self) -> Option<Refusal> {
        match &self.rows {
            Rows::Refused(refusal) => Some(refusal.clone()),
            Rows::All | Rows::Where(_) | Rows::Query { .. } => None,
        }
    }

    /// Why it may not be written, where it is a view that is replaced by its query.
    pub(super) fn not_written(&self) -> Option<Refusal> {
        match &self.rows {
            Rows::Query { written, .. } => Some(written.clone()),
            Rows::All | Rows::Where(_) | Rows::Refused(_) => None,
        }
    }

    /// What stands in its place in FROM: a view's query.
    pub(super) fn query(&self) -> Option<(&str, &pg::SelectStmt)> {
        match (&self.rows, &self.query) {
            (Rows::Query { text, .. }, Some(query)) => Some((text, query)),
            _ => None,
        }
    }

    /// Its rows by a condition on the columns of what goes by a name; `None` where the condition
    /// would not be read as it is meant.
    pub(super) fn condition(&self, alias: &str) -> Option<String> {
        let Rows::Where(conditions) = &self.rows else { return None };
        let mut all = Vec::with_capacity(conditions.len());
        for condition in conditions {
            let text = condition.written(alias);
            let read = selected(&format!("SELECT WHERE {text}"))?.where_clause?;
            if !condition.is(&read, alias) {
                return None;
            }
            all.push(format!("({text})"));
        }
        Some(all.join(" AND "))
    }

    /// Whether comparing a column fails on none of its values.
    pub(super) fn compares(&self, name: &str) -> bool {
        let column = self.columns.iter().find(|column| column.name == name);
        let of_type = column.and_then(|column| column.null.strip_prefix("NULL::"));
        let plain = of_type.and_then(|of_type| of_type.split('(').next());
        plain.is_some_and(|plain| COMPARED.contains(&plain.trim_start_matches("pg_catalog.")))
    }

    /// What stands behind FROM: the condition, and what keeps the server from computing anything
    /// of the statement's own before it (a subquery with OFFSET is not pulled up, and no condition
    /// is pushed into it: `is_simple_subquery` in `prepjointree.c`, `subquery_is_pushdown_safe`
    /// in `allpaths.c`). `narrowing` stands beside the condition.
    pub(super) fn tail(&self, alias: &str, narrowing: &str) -> Option<Tail> {
        let text = match &self.rows {
            Rows::Where(_) => format!(" WHERE {}{narrowing} OFFSET 0", self.condition(alias)?),
            // A view may keep such computing off its rows, too (`security_barrier`).
            Rows::Query { .. } => " OFFSET 0".to_owned(),
            Rows::All | Rows::Refused(_) => {
                return Some(Tail { option: pg::LimitOption::Default.into(), ..Tail::default() });
            }
        };
        let read = selected(&format!("SELECT{text}"))?;
        Some(Tail {
            text,
            condition: read.where_clause,
            offset: read.limit_offset,
            option: read.limit_option,
        })
    }

    /// The columns that its rows are picked by, each once.
    pub(super) fn picked_by(&self) -> BTreeSet<&str> {
        match &self.rows {
            Rows::Where(conditions) => {
                conditions.iter().flat_map(BoundCondition::columns).collect()
            }
            Rows::All | Rows::Query { .. } | Rows::Refused(_) => BTreeSet::new(),
        }
    }

    /// The values that columns of each row have, where the conditions say no more than that.
    pub(super) fn pinned(&self) -> Option<Vec<(&str, Vec<&str>)>> {
        let Rows::Where(conditions) = &self.rows else { return None };
        let pinned = conditions.iter().map(BoundCondition::pinned);
        let pinned: Vec<Vec<_>> = pinned.collect::<Option<_>>()?;
        Some(pinned.into_iter().flatten().collect())
    }

    /// Whether a column is computed from others.
    pub(super) fn is_generated(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name && column.generated)
    }

    /// A parameter that is one of a column's values, or makes the statement fail.
    pub(super) fn checked_parameter(
        &self,
        column: &str,
        number: i32,
        values: &[&str],
    ) -> Option<(String, pg::Node)> {
        let column = self.columns.iter().find(|known| known.name == column)?;
        let of_type = column.null.strip_prefix("NULL::")?;
        let said = quoted_text(OUTSIDE);
        let is = |value: &&str| {
            let value = quoted_text(value);
            format!("${number}::{of_type} OPERATOR(pg_catalog.=) {value}::{of_type}")
        };
        let within: Vec<String> = values.iter().map(is).collect();
        let within = within.join(" OR ");
        let text = format!(
            "(CASE WHEN {within} \
             THEN ${number}::{of_type} ELSE pg_catalog.concat({said}, ${number}::{of_type})\
             ::pg_catalog.int4::pg_catalog.text::{of_type} END)"
        );
        let [target] = <[pg::Node; 1]>::try_from(targets(&format!("SELECT {text}"))?).ok()?;
        let Some(NodeEnum::ResTarget(target)) = target.node else { return None };
        Some((text, *target.val?))
    }

    /// Whether a column's values may not be seen.
    pub(super) fn hides(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name && column.shown != Shown::Clear)
    }

    /// Columns that are masked at the output alone.
    pub(super) fn at_output(&self) -> impl Iterator<Item = &str> {
        let at_output = |column: &&Column| column.shown == Shown::AtOutput;
        self.columns.iter().filter(at_output).map(|column| &*column.name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|column| column.name == name)
            || (self.has_system_columns && SYSTEM.contains(&name))
    }

    pub(super) fn has_system_columns(&self) -> bool {
        self.has_system_columns
    }

    /// The columns that COPY gives where none are listed.
    pub(super) fn copied(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter(|column| !column.generated).map(|column| &*column.name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| &*column.name)
    }

    /// The columns of the primary key.
    pub(super) fn key(&self) -> Vec<&str> {
        self.columns.iter().filter(|column| column.key).map(|column| &*column.name).collect()
    }

    /// The columns that the primary key determines and rows can be grouped by.
    pub(super) fn determined(&self) -> impl Iterator<Item = &str> {
        let other = |column: &&Column| column.groupable && !column.key;
        self.columns.iter().filter(other).map(|column| &*column.name)
    }

    /// What stands for a column in a list of what is returned; `None` where the column itself does.
    pub(super) fn instead(&self, name: &str, shadow: bool) -> Option<(String, pg::Node)> {
        let column = self.columns.iter().find(|column| column.name == name)?;
        let Written { text, node } = match (&column.shown, shadow) {
            (Shown::Clear, _) => return None,
            (_, true) => &column.nothing,
            (_, false) => &column.masked,
        };
        Some((text.clone(), node.clone()))
    }

    /// The list that the query in its place selects, as text and as nodes. `system` are the system
    /// columns that it shows, too.
    pub(super) fn listed(
        &self,
        facts: &Facts,
        alias: &str,
        system: &[&'static str],
        shadow: bool,
        only: Option<&[String]>,
    ) -> (String, Vec<pg::Node>) {
        let all = facts.takes_all(alias);
        let shown = |column: &Column| {
            let mentioned = all || facts.mentions(&column.name);
            let written = match &column.shown {
                Shown::Clear if column.readable || mentioned => &column.itself,
                Shown::AtOutput if mentioned => &column.itself,
                Shown::Clear | Shown::AtOutput => &column.nothing,
                // What a role may not read is no part of a statement that does not ask for it.
                Shown::Masked(_) if shadow || !(column.readable || mentioned) => &column.nothing,
                Shown::Masked(_) => &column.masked,
            };
            written.clone()
        };
        let plain = |name: &str| Written { text: quoted(name), node: target(name) };
        let mut list: Vec<Written> = match only {
            None => self.columns.iter().map(shown).collect(),
            Some(only) => {
                let find = |name: &String| {
                    let found = self.columns.iter().find(|column| column.name == *name);
                    found.map_or_else(|| plain(name), shown)
                };
                only.iter().map(find).collect()
            }
        };
        if self.has_system_columns {
            list.extend(system.iter().map(|name| plain(name)));
        }
        let texts: Vec<&str> = list.iter().map(|written| &*written.text).collect();
        let text = texts.join(", ");
        (text, list.into_iter().map(|written| written.node).collect())
    }
}

/// A plain column in a list of what is selected.
fn target(name: &str) -> pg::Node {
    let name = pg::Node { node: Some(NodeEnum::String(pg::String { sval: name.to_owned() })) };
    let column = pg::ColumnRef { fields: vec![name], location: -1 };
    let value = pg::Node { node: Some(NodeEnum::ColumnRef(column)) };
    let target = pg::ResTarget { val: Some(Box::new(value)), location: -1, ..Default::default() };
    pg::Node { node: Some(NodeEnum::ResTarget(Box::new(target))) }
}

/// What a statement fails with, as the text of a number that is none, when a parameter would put a
/// row outside of a row filter.
const OUTSIDE: &str = "the row would be outside of the row filter: ";

/// The list of what a query selects, its places in the text left out.
fn targets(sql: &str) -> Option<Vec<pg::Node>> {
    Some(selected(sql)?.target_list)
}

/// A query, its places in the text left out.
pub(super) fn selected(sql: &str) -> Option<pg::SelectStmt> {
    let statements = grammar::parse_here(sql, LexerSettings::default()).ok()?;
    let [raw] = <[pg::RawStmt; 1]>::try_from(statements).ok()?;
    let mut stmt = *raw.stmt?;
    super::splice::forget_places(&mut stmt);
    match stmt.node {
        Some(NodeEnum::SelectStmt(select)) => Some(*select),
        _ => None,
    }
}

/// A type as SQL writes it, found whatever the search path: one of the server's own that has no
/// schema there gets it. `None` when it is no type.
pub fn qualified_type(name: &str) -> Option<String> {
    let [target] = <[pg::Node; 1]>::try_from(targets(&format!("SELECT NULL::{name}"))?).ok()?;
    let Some(NodeEnum::ResTarget(target)) = target.node else { return None };
    let Some(NodeEnum::TypeCast(cast)) = target.val?.node else { return None };
    Some(match cast.type_name?.names.as_slice() {
        [_] => format!("pg_catalog.{name}"),
        _ => name.to_owned(),
    })
}

/// A name as SQL takes any name.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
