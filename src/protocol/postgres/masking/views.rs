//! Views over tables with row filters: which table one shows, whether the gateway's role may run its
//! query, and what an operator writes where it may not.
//!
//! The role of `policy harden` finds a view under the name of each table with masked columns. A filter
//! on the table does not name that view, so statements get the view's query with the filter inside: they
//! would read the columns that are masked, which the role may not, and they could not write.

use std::collections::BTreeSet;

use super::catalog_snapshot::{MaskSet, Relation, Shapes};
use super::filtered::Way;
use crate::decode::sql::{self, LexerSettings};

/// How deep views over views are followed to a table.
const DEEPEST: usize = 16;

/// A view that shows rows of a table with a row filter, and that no filter names.
#[derive(Debug)]
pub(super) struct FilteredView<'s> {
    view: &'s Relation,
    /// The table with the filter.
    table: &'s Relation,
    /// A column of the table that the view's query reads and the gateway's role may not.
    unreadable: Option<String>,
    /// `policy harden` made it, in the place of a relation of its name.
    hardened: bool,
    /// It reads the table itself, and has its name.
    stands_for_table: bool,
    /// Other relations have the same name, so that a filter on all of that name would be theirs, too.
    shares_name: bool,
    /// Columns that the filter names and the view does not have.
    lacking: Vec<String>,
}

impl Shapes {
    /// What is to be said of a relation that is replaced by its query, where it is over a table with a
    /// row filter. `picked` are the columns that the filters name.
    pub(super) fn filtered_view(&self, oid: u32, picked: &[&str]) -> Option<FilteredView<'_>> {
        let view = self.relations.get(&oid)?;
        let (table, unreadable) = self.table_below(oid, 0)?;
        let hardened = self.is_hardened(oid);
        let read: Vec<u32> = self.read_by(oid).into_iter().map(|(read, _)| read).collect();
        let named = self.candidates(None, &view.name, false);
        let known = |other: u32| other == oid || hardened && read.contains(&other);
        let shares_name = named.iter().any(|other| !known(other.oid));
        let has = |name: &str| self.columns_of(oid).iter().any(|column| column.name == name);
        let lacking = picked.iter().filter(|name| !has(name)).map(|name| (*name).to_owned());
        Some(FilteredView {
            view,
            table: self.relations.get(&table)?,
            unreadable,
            hardened,
            stands_for_table: hardened && read == [table],
            shares_name,
            lacking: lacking.collect(),
        })
    }

    /// The views of `policy harden` that a filter on their table does not name, each with its filters.
    pub(super) fn unnamed_views<'s>(
        &'s self,
        picked: &dyn Fn(&MaskSet) -> Vec<&'s str>,
    ) -> Vec<(FilteredView<'s>, &'s MaskSet)> {
        let found = self.filtered.iter().filter(|(oid, _)| self.is_hardened(**oid));
        let views = found.filter_map(|(oid, found)| {
            Some((self.filtered_view(*oid, &picked(&found.filters))?, &found.filters))
        });
        let mut views: Vec<_> = views.collect();
        views.sort_by_key(|(view, _)| view.name());
        views
    }

    /// The table with a filter whose rows a view shows, and a column of it that the view's query reads
    /// and the gateway's role may not; of several tables one with such a column.
    fn table_below(&self, view: u32, depth: usize) -> Option<(u32, Option<String>)> {
        let mut found: Option<(u32, Option<String>)> = None;
        for (oid, reads) in self.read_by(view) {
            let below = match self.filtered.get(&oid)?.way {
                Way::Own => {
                    let reads = |name: &str| reads.contains(name) || reads.contains("*");
                    let mut columns = self.columns_of(oid).iter();
                    let closed = columns.find(|column| !column.readable && reads(&column.name));
                    Some((oid, closed.map(|column| column.name.clone())))
                }
                Way::Query if depth < DEEPEST => self.table_below(oid, depth + 1),
                Way::Query | Way::Stored | Way::Shown => None,
            };
            let closed = |found: &Option<(u32, Option<String>)>| {
                found.as_ref().is_some_and(|(_, unreadable)| unreadable.is_some())
            };
            if found.is_none() || closed(&below) && !closed(&found) {
                found = below;
            }
        }
        found
    }

    /// What a view's query reads of relations that show rows of filtered tables: each with the names of
    /// the columns.
    fn read_by(&self, view: u32) -> Vec<(u32, BTreeSet<String>)> {
        let found = self.filtered.get(&view).filter(|found| found.way == Way::Query);
        let analysis =
            found.and_then(|found| sql::analyze(&found.query, LexerSettings::default()).ok());
        let mut read: Vec<(u32, BTreeSet<String>)> = Vec::new();
        for effect in analysis.iter().flat_map(|found| &found.statements).flat_map(|s| &s.effects) {
            let Some(object) = effect.object.as_ref().filter(|object| object.kind() == "table")
            else {
                continue;
            };
            for oid in self.could_be(object).filter(|oid| self.filtered.contains_key(*oid)) {
                match read.iter_mut().find(|(known, _)| known == oid) {
                    Some((_, columns)) => columns.extend(effect.columns.iter().cloned()),
                    None => read.push((*oid, effect.columns.clone())),
                }
            }
        }
        read
    }
}

impl FilteredView<'_> {
    /// Its name with its schema.
    pub(super) fn name(&self) -> String {
        written(&self.view.schema, &self.view.name)
    }

    /// The table's name with its schema.
    pub(super) fn table(&self) -> String {
        written(&self.table.schema, &self.table.name)
    }

    /// Whether statements that read it are refused.
    pub(super) fn cannot_be_read(&self) -> bool {
        self.unreadable.is_some()
    }

    /// Whether `policy harden` made it.
    pub(super) fn is_hardened(&self) -> bool {
        self.hardened
    }

    /// What is said to operators, behind the name of the filter.
    pub(super) fn warning(&self) -> String {
        let (view, table, cure) = (self.name(), self.table(), self.cure());
        let what = if self.cannot_be_read() { "read or write" } else { "write" };
        format!(
            "it does not name the view {view} of `policy harden`, which shows rows of {table}: \
             statements that {what} {} are refused; write {cure}",
            part(&self.view.name)
        )
    }

    /// Why it cannot be read, for the client; `otherwise` where the role may read all that it shows.
    pub(super) fn not_read(&self, otherwise: &str) -> String {
        let (view, table, cure) = (self.name(), self.table(), self.cure());
        let because = match &self.unreadable {
            Some(column) => {
                format!("the gateway's role may not read the column {column} of {table}")
            }
            None => otherwise.to_owned(),
        };
        format!(
            "{}the view {view} shows rows of {table}, which has a row filter, and {because}: the \
             gateway's operator writes {cure}",
            self.beginning()
        )
    }

    /// Why it cannot be written, for the client.
    pub(super) fn not_written(&self) -> String {
        let (view, table) = (self.name(), self.table());
        let or = match self.hardened {
            true => format!(", or the gateway's operator writes {}", self.cure()),
            false => String::new(),
        };
        format!(
            "{}the view {view} over {table}, which has a row filter, is written: write {table} \
             itself{or}",
            self.beginning()
        )
    }

    /// What an operator writes, so that a filter names the view.
    pub(super) fn cure(&self) -> String {
        let all = self.hardened && !self.shares_name;
        let name = if all { format!("*.{}", part(&self.view.name)) } else { self.name() };
        let writes = match all && self.stands_for_table {
            true => format!("table = {} in the row filter", in_toml(&name)),
            false => format!("the row filter again with table = {}", in_toml(&name)),
        };
        match self.lacking.as_slice() {
            [] => writes,
            lacking => format!("{writes}, once the view shows {}", lacking.join(" and ")),
        }
    }

    /// What the client's name means, where it is the name of what the view stands for.
    fn beginning(&self) -> String {
        match self.hardened {
            true => format!("{} means a view of `policy harden` here: ", part(&self.view.name)),
            false => String::new(),
        }
    }
}

/// A name with its schema, as the configuration takes it.
fn written(schema: &str, name: &str) -> String {
    format!("{}.{}", part(schema), part(name))
}

fn part(name: &str) -> String {
    match name.contains(['.', '"']) {
        true => format!("\"{}\"", name.replace('"', "\"\"")),
        false => name.to_owned(),
    }
}

fn in_toml(text: &str) -> String {
    match text.contains('"') {
        true => format!("'{text}'"),
        false => format!("\"{text}\""),
    }
}
