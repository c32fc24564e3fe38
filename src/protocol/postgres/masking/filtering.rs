//! Row filters on statements: which rows of a relation there are, what is beyond a filter, and the
//! nets behind the rewritten text.

use std::borrow::Cow;
use std::sync::Arc;

use super::MasksNow;
use super::catalog_snapshot::{Candidate, Hiding, MaskSet, Shapes};
use super::column_lineage::Judged;
use super::filtered::{Filtered, Way};
use super::source::{Key, SourceNames};
use super::views::FilteredView;
use crate::decode::postgres::backend::Column;
use crate::decode::sql::rewrite::{BoundCondition, Given, Refusal, Rows, rewrite};
use crate::decode::sql::{LexerSettings, Source, Statement, StatementKind};
use crate::gate::Against;
use crate::mask::CLOSED;
use crate::policy::{Effect, Object};

/// How deep views over filtered tables are replaced by their queries.
const MOST_VIEWS: usize = 16;
/// The longest query that stands for a view.
const LONGEST_VIEW: usize = 256 << 10;

const STORED: Refusal = Refusal::of(
    "a materialized view over a table with a row filter holds rows outside of it: it needs one of its own",
);
const VIEW: Refusal =
    Refusal::of("a view over a table with a row filter is too complex to be replaced by its query");
/// Why a view of `policy harden` cannot be read whose columns the role may read.
const NOT_IN_ITS_PLACE: &str = "the view's query cannot stand in its place";
const WRITTEN: Refusal =
    Refusal::of("a view over a table with a row filter is written: write the table itself");
const DEFINED: Refusal = Refusal::of(
    "a table with a row filter may be read, inserted into, updated and deleted from, and no more",
);
const CASCADING: Refusal = Refusal::of(
    "rows outside of a row filter could go with what is dropped or emptied: leave CASCADE out",
);
const RETYPED: Refusal =
    Refusal::of("a type is changed that a column which a row filter names could have");

/// A filter's condition with the caller's values, or those that the caller lacks.
pub(super) type Bound = Result<BoundCondition, Vec<Given>>;

impl MasksNow {
    /// The row filters that act, by their places in the plan.
    pub(super) fn acting_filters(&self) -> MaskSet {
        let mut acting = MaskSet::default();
        for (at, applied) in (0..).zip(self.plan.rows()) {
            if applied.acts {
                acting.insert(at);
            }
        }
        acting
    }

    pub(super) fn bound_filters(&self) -> Vec<(u16, Bound)> {
        let all = (0..).zip(self.plan.rows()).filter(|(_, applied)| applied.acts);
        all.map(|(at, applied)| (at, applied.bound.clone())).collect()
    }

    /// What is against a statement: these masks and row filters, so far as they act.
    pub(super) fn against_all(
        &self,
        hiding: &Hiding,
        reason: impl Into<Cow<'static, str>>,
    ) -> Option<Against> {
        let masks = self.acting(&hiding.masks).map(|mask| Arc::clone(&mask.name));
        let filters = hiding.filters.iter().filter_map(|at| self.plan.rows().get(at));
        let filters = filters.filter(|applied| applied.acts);
        let names = masks.chain(filters.map(|applied| Arc::clone(&applied.filter.name)));
        let masks: Vec<Arc<str>> = names.collect();
        (!masks.is_empty()).then(|| Against { masks, reason: reason.into() })
    }

    /// The second net of row filters: what reads a table of theirs goes up with the filter in it, and
    /// rows that nobody looked at are not copied.
    pub(super) fn unfiltered(
        &self,
        source: Option<&Source>,
        judged: &Judged,
        shapes: &Shapes,
    ) -> Option<Against> {
        let acting = self.acting_filters();
        let statement = source.and_then(Source::statement).filter(|_| !acting.is_empty())?;
        let of_read = |effect: &Effect| match (&*effect.action, &effect.object) {
            ("sql.select" | "sql.copy-to", Some(table)) => {
                Some(shapes.filters_of(table).common(&acting)).filter(|found| !found.is_empty())
            }
            _ => None,
        };
        let mut effects = statement.effects.iter().filter(|_| statement.remaining.is_none());
        let read = effects.find_map(of_read);
        let copies = matches!(statement.kind, StatementKind::CopyTo(_));
        let unseen = copies && (judged.opaque || judged.unknown);
        // A partition of a moment ago, for example.
        let writes = |effect: &Effect| {
            ["sql.delete", "sql.truncate", "sql.update"].contains(&&*effect.action)
        };
        let unknown = judged.unknown && statement.effects.iter().any(writes);
        let reason = match unknown {
            true => "a table is written that is not known: it may have a row filter",
            false => "a table with a row filter is read in a way that is not known",
        };
        if read.is_none() && !unseen && !unknown {
            return None;
        }
        // What is not known may be a table of any of them.
        let filters = read.filter(|_| !unknown).unwrap_or(acting);
        self.against_all(&Hiding { masks: MaskSet::default(), filters }, reason)
    }

    /// Why a statement may not be explained: estimates are made from all rows.
    pub(in super::super) fn counts_others(&self, source: &Source) -> Option<Against> {
        let (shapes, acting) = (self.shapes.as_ref()?, self.acting_filters());
        let tables = source.statement()?.effects.iter().filter_map(|e| e.object.as_ref());
        let mut filters = MaskSet::default();
        for table in tables.filter(|object| object.kind() == "table") {
            filters.add(&shapes.filters_of(table).common(&acting));
        }
        let reason = "EXPLAIN of a table with a row filter tells of rows outside of it";
        self.against_all(&Hiding { masks: MaskSet::default(), filters }, reason)
    }

    /// Whether a column of a result may hold values of rows that are not there for the caller.
    pub(super) fn may_be_of_others(
        &self,
        column: &Column,
        statement: Option<&Statement>,
        judged: &Judged,
        shapes: &Shapes,
    ) -> bool {
        let acting = self.acting_filters();
        if acting.is_empty() {
            return false;
        }
        let filtered = shapes.filters_at(column.table).is_some_and(|found| found.meets(&acting));
        let is_rewritten = statement.is_some_and(|statement| statement.remaining.is_some());
        let known = shapes.has(column.table) && !shapes.may_change(column.table);
        (filtered && !is_rewritten) || ((judged.opaque || judged.unknown) && (filtered || !known))
    }

    /// The names of the row filters that act.
    pub(super) fn filter_names(&self) -> Arc<[Arc<str>]> {
        let acting = self.plan.rows().iter().filter(|applied| applied.acts);
        acting.map(|applied| Arc::clone(&applied.filter.name)).collect()
    }
}

/// Why an effect cannot be kept within these row filters, whatever it is written as, and within which
/// of them.
pub(super) fn beyond(
    effect: &Effect,
    shapes: &Shapes,
    filters: &MaskSet,
) -> Option<(Refusal, MaskSet)> {
    let action = &*effect.action;
    let object = effect.object.as_ref().filter(|_| !filters.is_empty())?;
    let is_on = |attribute| effect.attributes.get(attribute).is_some_and(|value| value == true);
    let takes = ["sql.drop", "sql.truncate"].contains(&action);
    if takes && (is_on("cascade") || is_on("owned")) {
        return Some((CASCADING, filters.clone()));
    }
    let rows = effect.attributes.get("mode").is_some_and(|mode| mode == "rows");
    if !CLOSED.contains(&action) || rows {
        return None;
    }
    if (action, object.kind()) == ("sql.alter", "type") {
        return Some((RETYPED, filters.clone()));
    }
    let touched = match object.kind() {
        "table" | "column" | "constraint" | "policy" | "rule" | "trigger" => {
            let parts: Vec<Option<String>> =
                object.parts().take(2).map(|part| part.map(str::to_owned)).collect();
            shapes.filters_of(&Object::new("table", parts)).common(filters)
        }
        "schema" => object
            .name()
            .map_or_else(|| filters.clone(), |schema| shapes.filters_in(schema).common(filters)),
        _ => return None,
    };
    (!touched.is_empty()).then_some((DEFINED, touched))
}

/// The caller lacks values that the row filter of a table needs.
fn lacks(values: &[Given]) -> Refusal {
    let values: Vec<String> = values.iter().map(ToString::to_string).collect();
    let values = values.join(" and ");
    Refusal(
        format!(
            "the row filter of the table needs {values}, which the token does not have, or not in \
             a form that it takes"
        )
        .into(),
    )
}

/// A table lacks a column that its row filter names.
fn without(column: &str) -> Refusal {
    Refusal(
        format!(
            "the row filter of the table names the column \"{column}\", which the table does not \
             have: ask the gateway's operator"
        )
        .into(),
    )
}

/// The row filters of the relations that a name could mean.
impl SourceNames<'_> {
    pub(super) fn filters<'c>(&self, candidate: &Candidate<'c>) -> Option<&'c Filtered> {
        let acts = |found: &&Filtered| {
            found.filters.iter().any(|at| self.key.rows.iter().any(|(n, _)| usize::from(*n) == at))
        };
        candidate.filtered.filter(acts)
    }

    /// The rows that there are of a relation.
    pub(super) fn rows(&self, meant: &[Candidate<'_>]) -> Rows {
        let Some(first) = meant.first() else { return Rows::All };
        let Some(found) = self.filters(first) else { return Rows::All };
        match found.way {
            Way::Shown => Rows::All,
            Way::Stored => Rows::Refused(STORED),
            Way::Query => self.query(first, found),
            Way::Own => {
                let mut conditions = Vec::new();
                for (at, bound) in &self.key.rows {
                    if !found.filters.iter().any(|filter| filter == usize::from(*at)) {
                        continue;
                    }
                    let bound = match bound {
                        Ok(bound) => bound,
                        Err(lacking) => return Rows::Refused(lacks(lacking)),
                    };
                    let has = |name: &str| first.columns.iter().any(|column| column.name == *name);
                    if let Some(column) = bound.columns().into_iter().find(|name| !has(name)) {
                        self.log_without(*at, first, column);
                        return Rows::Refused(without(column));
                    }
                    conditions.push(bound.clone());
                }
                Rows::Where(conditions)
            }
        }
    }

    /// Tells the operator of a filter that names a column which a table of its does not have.
    fn log_without(&self, filter: u16, table: &Candidate<'_>, column: &str) {
        let Some(applied) = self.masks.plan.rows().get(usize::from(filter)) else { return };
        tracing::warn!(
            filter = &*applied.filter.name,
            table = format!("{}.{}", table.schema, table.name),
            column,
            "a row filter names a column that the table does not have: its statements are refused"
        );
    }

    /// A view's query, with the filters of its tables in it. Its masks are the view's own.
    fn query(&self, view: &Candidate<'_>, found: &Filtered) -> Rows {
        if self.depth >= MOST_VIEWS {
            return Rows::Refused(VIEW);
        }
        let rows = self.masks.plan.rows();
        let filters = found.filters.iter().filter_map(|at| rows.get(at)).filter(|rows| rows.acts);
        let picked: Vec<&str> =
            filters.flat_map(|applied| applied.filter.condition.columns()).collect();
        let known = self.shapes.filtered_view(view.oid, &picked);
        if let Some(known) = known.as_ref().filter(|known| known.cannot_be_read()) {
            return Rows::Refused(Refusal(known.not_read("").into()));
        }
        let key = Key {
            text: found.query.clone(),
            settings: LexerSettings::default(),
            acting: MaskSet::default(),
            lifted: MaskSet::default(),
            rows: self.key.rows.clone(),
            path_moved: false,
            temporary: true,
        };
        let names = SourceNames { key: &key, depth: self.depth + 1, ..*self };
        let text = match rewrite(&key.text, key.settings, &names) {
            Ok(Some(sent)) => sent.text,
            Ok(None) => found.query.to_string(),
            Err(refusal) => {
                let known = known.filter(FilteredView::is_hardened);
                let said = known.map(|known| Refusal(known.not_read(NOT_IN_ITS_PLACE).into()));
                return Rows::Refused(said.unwrap_or(refusal));
            }
        };
        let written = known.map(|known| Refusal(known.not_written().into()));
        match text.len() {
            ..=LONGEST_VIEW => Rows::Query { text, written: written.unwrap_or(WRITTEN) },
            _ => Rows::Refused(VIEW),
        }
    }
}
