//! Row filters: which relations show rows that not everybody has.
//!
//! A filter of a table is one of its partitions, children and parents, too, for they show the same
//! rows. A view that reads such a relation, in whichever way (a count of its rows tells of them), is
//! replaced by its query, unless a filter names the view itself. What keeps rows of others apart
//! from their table (a materialized view, statistics) cannot be filtered.

use super::catalog_snapshot::{AnalysedView, MaskSet, Shapes};
use super::column_lineage::Judged;
use super::statistics::{LOCKS, Tells, tells};
use crate::policy::Object;

/// How a relation comes to rows of a filtered table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// They are its own.
    Own,
    /// By its query, each time.
    Query,
    /// By what its query gave.
    Stored,
    /// Some of its columns tell of the rows of any table.
    Shown,
}

/// A relation that shows rows of filtered tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Filtered {
    /// The filters, by their places in the plan.
    pub(super) filters: MaskSet,
    pub(super) way: Way,
    /// The query of a view.
    pub(super) query: Box<str>,
}

impl Shapes {
    /// What filters name, its partitions, children and parents, and what tells of the rows of any table.
    pub(super) fn filter_named(&mut self, inherits: &[(u32, u32)]) {
        let (all, mut found) = (self.of.filters(), Vec::new());
        if all.is_empty() {
            return;
        }
        for (oid, relation) in &self.relations {
            let filters = self.of.filtering(&relation.schema, &relation.name);
            if !filters.is_empty() {
                found.push((*oid, filters, Way::Own, ""));
                continue;
            }
            match tells(&relation.name) {
                Some(Tells::Columns) => found.push((*oid, all.clone(), Way::Shown, "")),
                Some(Tells::Locks) => found.push((*oid, all.clone(), Way::Query, LOCKS)),
                None => {}
            }
        }
        for (oid, filters, way, query) in found {
            self.filter(oid, &filters, way, query);
        }
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for (from, to) in inherits.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]) {
                if let Some(filters) = self.filtered.get(&from).map(|f| f.filters.clone()) {
                    changed |= self.filter(to, &filters, Way::Own, "");
                }
            }
        }
    }

    /// Views over such relations. Says whether there is one more, or one shows more.
    pub(super) fn filter_views(&mut self, views: &[AnalysedView<'_>], stored: &[u32]) -> bool {
        let (all, mut changed) = (self.of.filters(), false);
        if all.is_empty() {
            return false;
        }
        for view in views {
            if self.filtered.get(&view.view).is_some_and(|known| known.way == Way::Own) {
                continue;
            }
            let filters = match view.statement() {
                Some(statement) => {
                    let judged = Judged::of(statement, self, true, |_| false);
                    if judged.opaque || judged.unknown {
                        all.clone()
                    } else {
                        let mut filters = MaskSet::default();
                        let read = statement.effects.iter().filter_map(|e| e.object.as_ref());
                        for object in read.filter(|object| object.kind() == "table") {
                            filters.add(&self.filters_of(object));
                        }
                        filters
                    }
                }
                None => all.clone(),
            };
            let way = if stored.contains(&view.view) { Way::Stored } else { Way::Query };
            if !filters.is_empty() {
                changed |= self.filter(view.view, &filters, way, view.definition);
            }
        }
        changed
    }

    /// The filters of whatever a name could mean.
    pub(super) fn filters_of(&self, table: &Object) -> MaskSet {
        let mut filters = MaskSet::default();
        for found in self.could_be(table).filter_map(|oid| self.filtered.get(oid)) {
            filters.add(&found.filters);
        }
        filters
    }

    /// The filters of a relation's own rows.
    pub(super) fn filters_at(&self, oid: u32) -> Option<&MaskSet> {
        self.filtered.get(&oid).map(|found| &found.filters)
    }

    /// The filters of the rows that relations of a schema show.
    pub(super) fn filters_in(&self, schema: &str) -> MaskSet {
        let within = |oid: &u32| self.relations.get(oid).is_some_and(|r| *r.schema == *schema);
        let mut filters = MaskSet::default();
        for (_, found) in self.filtered.iter().filter(|(oid, _)| within(oid)) {
            filters.add(&found.filters);
        }
        filters
    }

    fn filter(&mut self, oid: u32, filters: &MaskSet, way: Way, query: &str) -> bool {
        let query = query.trim_end().trim_end_matches(';').trim_end();
        let known = self.filtered.entry(oid).or_insert_with(|| Filtered {
            filters: MaskSet::default(),
            way,
            query: query.into(),
        });
        let before = known.filters.clone();
        known.filters.add(filters);
        known.filters != before
    }
}
