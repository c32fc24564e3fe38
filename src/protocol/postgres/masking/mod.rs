//! Masks on the way downstream, and what they mean for what is asked and stored.
//!
//! Two sources tell what a column of a result is. `RowDescription` names the table's column that
//! it is, where it is one; the catalog ([`catalog_snapshot`]) tells which columns show masked ones. And the
//! statement's text ([`column_lineage`]) tells whether masked values can be in what is not known to be a
//! column. A value passes when its column is proven to be another, or when the statement reads no
//! masked column's value; else it is masked whole.
//!
//! What cannot be masked is refused: masked values on their way into a table, a setting or a
//! notification, COPY of masked columns with other than its default options, everything while the
//! catalog cannot be read.
//!
//! Honest limits: what code inside the database does (functions, triggers, operators and casts of
//! one's own) is not seen; functions that are called by name count as reading whatever their code
//! names, and anything where that does not tell. Rows that
//! a condition picks, their number and their order tell of the values that it looked at, unless
//! `unprovable = "block"`. A view that is changed by somebody else, past the gateway, is masked as
//! it was for up to ten seconds.

mod analysis_cache;
mod bodies;
mod catalog_snapshot;
mod column_lineage;
mod copies;
mod effects;
mod exposed;
mod expression;
mod filtered;
mod filtering;
mod load;
mod pool;
pub(super) mod preview;
mod reports;
mod rows;
mod source;
mod statistics;
mod types;
mod values;
mod views;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::decode::postgres::Malformed;
use crate::decode::postgres::backend::{self, Column};
use crate::decode::sql::{Belonging, Reading, Source, Statement, StatementKind};
use crate::gate::{Against, Gate};
use crate::mask::{Action, Applied, MaskPlan, Masked};
use crate::policy::{Object, Unprovable};

use analysis_cache::Recall;
pub(super) use analysis_cache::Standing;
use catalog_snapshot::{ColumnMasks, Hiding, MaskSet, Origin, Shapes};
use column_lineage::Judged;
pub(super) use copies::CopyMasks;
pub(super) use exposed::{Exposed, exist};
pub(super) use expression::OfType;
pub(super) use pool::{Catalogs, TargetCatalog};
use reports::Seen;
pub(super) use reports::placed;
use rows::{Cell, Cells, Whole};
pub(super) use rows::{RowMasks, hide};
pub(super) use source::AtSource;
use types::Types;
use values::Holds;

/// How many tables of its own making a session may know.
const MOST_MADE: usize = 10_000;

/// The masks of one session.
#[derive(Debug)]
pub(super) struct Masking {
    gate: Arc<Gate>,
    catalog: Arc<TargetCatalog>,
    /// The search path that the session was opened with; `None` where nobody asked for it.
    search_path: Option<Arc<str>>,
    known: Mutex<Known>,
    recall: Mutex<Recall>,
}

/// What a session knows of itself.
#[derive(Debug, Default)]
struct Known {
    plan: Option<(Arc<MaskPlan>, Arc<ColumnMasks>)>,
    /// Names of tables that it made itself, empty: nothing masked is written into them.
    made: Arc<HashSet<String>>,
    /// It changed the catalog, and the transaction is open.
    changing: bool,
    /// It may find relations in other schemas than a new session does.
    path_moved: bool,
    /// It may have made temporary relations.
    temporary: bool,
}

/// The masks as of now.
#[derive(Debug, Clone)]
pub(super) struct MasksNow {
    plan: Arc<MaskPlan>,
    columns: Arc<ColumnMasks>,
    /// `None` when the catalog cannot be read.
    shapes: Option<Arc<Shapes>>,
    /// What values are made of, as far as it was asked.
    types: Arc<Types>,
    made: Arc<HashSet<String>>,
    /// The search path that the session was opened with.
    search_path: Option<Arc<str>>,
    views_hold: bool,
    unprovable: Unprovable,
}

impl Masking {
    /// `search_path` is the one that the session was opened with, where it was asked for.
    pub(super) fn new(
        gate: Arc<Gate>,
        catalog: Arc<TargetCatalog>,
        search_path: Option<Arc<str>>,
    ) -> Self {
        let (known, recall) = (Mutex::default(), Mutex::default());
        Self { gate, catalog, search_path, known, recall }
    }

    /// Whether anything is masked.
    pub(super) fn is_on(&self) -> bool {
        !self.gate.masks().is_empty()
    }

    /// The masks in force; `None` where there are none. Cancel safe.
    pub(super) async fn now(&self) -> Option<MasksNow> {
        let plan = self.gate.masks();
        if plan.is_empty() {
            return None;
        }
        let columns = self.columns_of(&plan);
        let shapes = match plan.masks_columns() {
            false => Some(Arc::default()),
            true => self.told(self.catalog.shapes(&columns).await),
        };
        Some(self.with(plan, columns, shapes))
    }

    /// The same, looked up again because something is named that the catalog did not have.
    pub(super) async fn newer_than(&self, now: MasksNow) -> MasksNow {
        let Some(known) = now.shapes.filter(|_| now.plan.masks_columns()) else {
            return self.with(now.plan, now.columns, None);
        };
        let shapes = self.told(self.catalog.newer_than(&known, &now.columns).await);
        self.with(now.plan, now.columns, shapes)
    }

    /// The same with what values of these types are made of. What cannot be read is not known.
    pub(super) async fn with_types(&self, now: MasksNow, wanted: &[u32]) -> MasksNow {
        MasksNow { types: self.catalog.types(wanted).await, ..now }
    }

    fn told(&self, read: Result<Arc<Shapes>, pool::NotRead>) -> Option<Arc<Shapes>> {
        read.inspect_err(|error| {
            let target = &self.gate.grant().target().name;
            tracing::error!(%target, session = %self.gate.session(), %error, "catalog not read: nothing can be masked");
        })
        .ok()
    }

    fn columns_of(&self, plan: &Arc<MaskPlan>) -> Arc<ColumnMasks> {
        let mut known = self.known.lock();
        match &known.plan {
            Some((of, columns)) if Arc::ptr_eq(of, plan) => Arc::clone(columns),
            _ => {
                let columns = Arc::new(ColumnMasks::of(plan));
                known.plan = Some((Arc::clone(plan), Arc::clone(&columns)));
                columns
            }
        }
    }

    fn with(
        &self,
        plan: Arc<MaskPlan>,
        columns: Arc<ColumnMasks>,
        shapes: Option<Arc<Shapes>>,
    ) -> MasksNow {
        let known = self.known.lock();
        MasksNow {
            plan,
            columns,
            shapes,
            types: self.catalog.known_types(),
            made: Arc::clone(&known.made),
            search_path: self.search_path.clone(),
            views_hold: !known.changing,
            unprovable: self.gate.unprovable(),
        }
    }

    /// A statement is on its way that may change the catalog.
    pub(super) fn passes(&self, statement: &Statement, judged: &Judgement) {
        let (moves, temporary) = effects::unsettles(statement, judged.0.opaque);
        let mut known = self.known.lock();
        known.path_moved |= moves;
        known.temporary |= temporary;
        if !judged.0.changing {
            return;
        }
        known.changing = true;
        for effect in &statement.effects {
            let (Some(object), "sql.create") = (&effect.object, &*effect.action) else { continue };
            let Some(name) = object.name().filter(|_| object.kind() == "table") else { continue };
            let empty = effect.attributes.get("type").is_some_and(|kind| kind == "table")
                && judged.0.written.is_empty()
                && !judged.0.opaque;
            if empty && known.made.len() < MOST_MADE {
                Arc::make_mut(&mut known.made).insert(name.to_owned());
            } else if known.made.contains(name) {
                Arc::make_mut(&mut known.made).remove(name);
            }
        }
    }

    /// What of the session makes names mean other relations than in a new one: another search path,
    /// temporary relations.
    pub(super) fn names_moved(&self) -> (bool, bool) {
        let known = self.known.lock();
        (known.path_moved || known.changing, known.temporary)
    }

    /// Whether the session changed the catalog in the transaction that is open.
    pub(super) fn is_changing(&self) -> bool {
        self.known.lock().changing
    }

    /// Whether what a statement runs may make or drop prepared statements and cursors out of sight.
    pub(super) fn makes_names(judged: &Judgement) -> bool {
        judged.0.makes_names
    }

    /// Whether a statement may change the catalog.
    pub(super) fn may_change(judged: &Judgement) -> bool {
        judged.0.changing
    }

    /// The server has done everything that it was asked to, and holds no transaction open.
    pub(super) fn at_rest(&self) {
        let mut known = self.known.lock();
        if std::mem::take(&mut known.changing) {
            self.catalog.changed();
        }
    }
}

/// What a statement does with masked columns.
#[derive(Debug, Clone)]
pub(super) struct Judgement(Judged);

impl MasksNow {
    /// Whether a text names tables that the catalog did not have.
    pub(super) fn name_unknown(&self, reading: &Reading) -> bool {
        let Some(shapes) = &self.shapes else { return false };
        reading.statements().iter().any(|s| self.judge_statement(s, shapes).unknown)
    }

    /// Whether columns are of tables that the catalog did not have.
    pub(super) fn lack(&self, columns: &[Column]) -> bool {
        let Some(shapes) = self.shapes.as_ref().filter(|_| self.plan.masks_columns()) else {
            return false;
        };
        columns.iter().any(|column| column.table != 0 && !shapes.has(column.table))
    }

    /// The types of columns that patterns look into, of which it is not known what their values are
    /// made of.
    pub(super) fn unknown_types(&self, columns: &[Column]) -> Vec<u32> {
        let oids = columns.iter().map(|column| column.type_oid);
        let unknown = |oid: &u32| !self.types.has(*oid);
        oids.filter(|oid| self.plan.has_patterns() && unknown(oid)).collect()
    }

    /// Whether values may be of types that were not asked for, and patterns look into them.
    pub(super) fn lack_types(&self) -> bool {
        self.plan.has_patterns() && self.types.is_empty()
    }

    /// Whether the catalog had to be read and could not be.
    pub(super) fn are_blind(&self) -> bool {
        self.shapes.is_none()
    }

    /// What a statement does with masked columns; one that is not known does anything.
    pub(super) fn judge(&self, source: Option<&Source>) -> Judgement {
        let Some(shapes) = &self.shapes else {
            return Judgement(Judged::unknown(self.columns.all()));
        };
        Judgement(match source.and_then(Source::statement) {
            Some(statement) => self.judge_statement(statement, shapes),
            None => Judged::unknown(shapes.every_mask()),
        })
    }

    /// What the statement would do as the client wrote it.
    fn judge_as_written(&self, statement: &Statement, shapes: &Shapes) -> Judged {
        let made = |table: &Object| table.name().is_some_and(|name| self.made.contains(name));
        Judged::as_written(statement, shapes, self.views_hold, made)
    }

    /// The same, of whose errors may be about other statements of its text: the last one commits
    /// them all, and what they deferred is checked then.
    pub(super) fn judge_with_text(&self, source: &Source) -> Judgement {
        let mut judgement = self.judge(Some(source));
        if let Some(shapes) = &self.shapes
            && source.reading().statements().len() > 1
        {
            for other in source.reading().statements() {
                let other = self.judge_statement(other, shapes);
                judgement.0.errors.add(&other.errors);
                judgement.0.reported.add(&other.reported);
            }
        }
        judgement
    }

    fn judge_statement(&self, statement: &Statement, shapes: &Shapes) -> Judged {
        let made = |table: &Object| table.name().is_some_and(|name| self.made.contains(name));
        let judged = Judged::of(statement, shapes, self.views_hold, made);
        judged.with_cursors(|| self.at_output_masks())
    }

    /// The same once something was forwarded that may change views.
    pub(super) fn unsettled(&self) -> Self {
        Self { views_hold: false, ..self.clone() }
    }

    /// Whether masked values may be among what a statement gives.
    pub(super) fn gives_masked(&self, judged: &Judgement) -> Option<Against> {
        self.against(&judged.0.value, "masked columns would be written where no mask is")
    }

    fn against(&self, masks: &MaskSet, reason: &'static str) -> Option<Against> {
        let masks: Vec<Arc<str>> = self.acting(masks).map(|m| Arc::clone(&m.name)).collect();
        (!masks.is_empty()).then_some(Against { masks, reason: reason.into() })
    }

    /// Whether literals of a statement may be shown and kept nowhere.
    pub(super) fn withhold(&self, judged: &Judgement) -> bool {
        !judged.0.literals.is_empty()
    }

    /// Whether a literal belongs to columns that show nothing masked, or to none.
    pub(super) fn is_clear(&self, belonging: &Belonging) -> bool {
        let shapes = self.shapes.as_ref().filter(|_| self.views_hold);
        shapes.is_some_and(|shapes| shapes.are_clear(&belonging.columns))
    }

    /// What is stored of a text of the client's own.
    pub(super) fn plan(&self) -> &MaskPlan {
        &self.plan
    }

    /// Why a statement must not run, if so.
    pub(super) fn objection(&self, source: Option<&Source>, judged: &Judgement) -> Option<Against> {
        let judged = &judged.0;
        let against = |masks: &MaskSet, reason| self.against(masks, reason);
        let Some(shapes) = &self.shapes else {
            let reason = "masks cannot be applied: the target's catalog cannot be read";
            let all = Hiding { masks: self.columns.all(), filters: self.acting_filters() };
            return self.against_all(&all, reason);
        };
        if let Some(against) = self.unfiltered(source, judged, shapes) {
            return Some(against);
        }
        let kind = source.and_then(Source::statement).map(|statement| &statement.kind);
        let copies = matches!(kind, Some(StatementKind::CopyTo(None)));
        let strict = self.unprovable == Unprovable::Block;
        let inferred = if judged.opaque { &judged.value } else { &judged.inferred };
        against(&judged.written, "masked columns would be written where no mask is")
            .or_else(|| {
                let copied = if copies { &judged.value } else { return None };
                against(copied, "masked columns can be copied with default options only")
            })
            .or_else(|| {
                let inferred = if strict { inferred } else { return None };
                against(inferred, "masked columns may be selected as they are, and no more")
            })
    }

    /// The masks that act on the client.
    fn acting<'s>(
        &'s self,
        masks: &'s MaskSet,
    ) -> impl Iterator<Item = &'s Arc<crate::mask::Mask>> {
        self.applied(masks).filter(|applied| !applied.lifted).map(|applied| &applied.mask)
    }

    fn applied<'s>(&'s self, masks: &'s MaskSet) -> impl Iterator<Item = &'s Applied> {
        masks.iter().filter_map(|at| self.plan.masks().get(at))
    }

    /// What is done with the rows of a result; `None` when nothing is known of them.
    pub(super) fn rows(
        &self,
        columns: &[Column],
        source: Option<&Source>,
        judged: &Judgement,
    ) -> Option<RowMasks> {
        let shapes = self.shapes.as_ref()?;
        let kind = source.and_then(Source::statement).map(|statement| &statement.kind);
        // A plan repeats the literals of the statement.
        let explains = matches!(kind, Some(StatementKind::Explain));
        // It asked for no rows: rules of the target's made them, of whatever they like.
        let unasked = source.and_then(Source::statement).is_some_and(|s| !s.returns);
        let every = shapes.every_mask();
        let statement = source.and_then(Source::statement);
        let hidden = statement.filter(|statement| statement.remaining.is_some());
        let hidden = hidden.map(|statement| self.judge_as_written(statement, shapes));
        let mut noted = Vec::new();
        let mut both: [Vec<Cell>; 2] = [Vec::new(), Vec::new()];
        for (at, column) in columns.iter().enumerate() {
            let holds = Holds::of(column.type_oid, column.format, shapes.is_text(column.type_oid));
            let made = Some((judged.0.output(at, columns.len()), false));
            let masked = match shapes.origin(column, self.views_hold) {
                _ if unasked => Some((&every, false)),
                Origin::Clear => None,
                Origin::Masked(lineage) => Some((&lineage.masks, lineage.itself)),
                Origin::Row | Origin::Unknown => made,
            };
            let done = match shapes.origin(column, self.views_hold) {
                Origin::Masked(lineage) => lineage.masked && !unasked,
                _ => false,
            };
            let wholes = match masked {
                Some(_) if done => [None, None],
                Some((masks, itself)) if !masks.is_empty() => self.wholes(masks, itself),
                Some(_) if explains => self.stored_alone(&judged.0.literals),
                Some(_) if judged.0.quotes => self.stored_alone(&every),
                _ if shapes.shows_definitions(column.table) && holds != Holds::Harmless => {
                    self.stored_alone(&every)
                }
                _ => self.stored_alone(&judged.0.written),
            };
            // What was masked at the source is counted all the same.
            let of_source = match (&hidden, masked) {
                (Some(hidden), Some((masks, false))) if masks.is_empty() => {
                    self.names(hidden.output(at, columns.len()), true)
                }
                (_, Some((masks, _))) if done => self.names(masks, true),
                _ => Arc::default(),
            };
            noted.push(of_source);
            let wholes = match self.may_be_of_others(column, statement, &judged.0, shapes) {
                true => [(); 2].map(|()| Some(Whole { action: None, masks: self.filter_names() })),
                false => wholes,
            };
            for (cells, masked) in both.iter_mut().zip(wholes) {
                cells.push(Cell { holds, masked });
            }
        }
        let (shown, stored) = self.both_cells(both);
        Some(RowMasks::new(shown, stored).noting(noted))
    }

    /// Cells for both pairs of eyes; for storage only where it sees something else.
    fn both_cells(&self, [shown, stored]: [Vec<Cell>; 2]) -> (Cells, Option<Cells>) {
        let [shown_patterns, stored_patterns] = self.plan.maskers();
        let key = self.plan.key();
        let same_patterns = match (shown_patterns, stored_patterns) {
            (Some(shown), Some(stored)) => Arc::ptr_eq(shown, stored),
            (shown, stored) => shown.is_none() && stored.is_none(),
        };
        let cells = |cells, masker: Option<&Arc<_>>| Cells {
            cells,
            masker: masker.cloned(),
            key: key.cloned(),
            types: Arc::clone(&self.types),
        };
        let other = (!same_patterns || shown != stored).then(|| cells(stored, stored_patterns));
        (cells(shown, shown_patterns), other)
    }

    /// What is stored of a column that may show what the statement holds or writes.
    fn stored_alone(&self, masks: &MaskSet) -> [Option<Whole>; 2] {
        let [_, stored] = self.wholes(masks, false);
        [None, stored]
    }

    /// What is done with a column that shows masked ones, for both pairs of eyes.
    fn wholes(&self, masks: &MaskSet, itself: bool) -> [Option<Whole>; 2] {
        let actions = self.plan.strictest(self.applied(masks));
        let names = |lifted_too| self.names(masks, lifted_too);
        let whole = |action: Option<Action>, lifted_too| {
            action.map(|action| Whole {
                action: (itself || action == Action::Null).then_some(action),
                masks: names(lifted_too),
            })
        };
        let [shown, stored] = actions;
        [whole(shown, false), whole(stored, true)]
    }

    /// The names of masks, of those that are lifted for the client too or not.
    fn names(&self, masks: &MaskSet, lifted_too: bool) -> Arc<[Arc<str>]> {
        let acting = self.applied(masks).filter(|applied| lifted_too || !applied.lifted);
        acting.map(|applied| Arc::clone(&applied.mask.name)).collect()
    }

    /// An error or a notice, masked; `None` when it passes as it is. `judged` is what it may be
    /// about; `None` when the server speaks by itself.
    pub(super) fn report(
        &self,
        message: &[u8],
        judged: Option<&Judgement>,
    ) -> Result<Option<Masked>, Malformed> {
        let maskers = self.plan.maskers();
        let about = |masks: Option<&MaskSet>| {
            masks.map_or([None, None], |masks| self.plan.strictest(self.applied(masks)))
        };
        let [shown, _] = about(judged.map(|judged| &judged.0.reported));
        // Plans and rewritten statements, and what a command over all rows says of them.
        let of_workings = match reports::severity(message)? {
            Some(b"LOG" | b"DEBUG") => self.plan.masks_columns(),
            Some(b"INFO") => self.plan.filters_rows(),
            _ => false,
        };
        if of_workings {
            return reports::for_both(message, |eyes| {
                reports::report(message, Seen::Kind, maskers.get(eyes).copied().flatten())
            });
        }
        let names_others = self.plan.filters_rows()
            && (judged.is_none_or(|judged| judged.0.opaque || judged.0.unknown)
                || reports::names_other_rows(message)?);
        let shown = shown.or(names_others.then_some(Action::Redact));
        let [_, stored] = about(judged.map(|judged| &judged.0.errors));
        let seen = [
            if shown.is_some() { Seen::OfText } else { Seen::All },
            if stored.is_some() { Seen::Kind } else { Seen::All },
        ];
        reports::for_both(message, |eyes| {
            let seen = seen.get(eyes).copied().unwrap_or(Seen::Kind);
            reports::report(message, seen, maskers.get(eyes).copied().flatten())
        })
    }

    /// A notification, masked.
    pub(super) fn notification(&self, message: &[u8]) -> Result<Option<Masked>, Malformed> {
        let all = self.columns.all();
        let withheld = self.plan.strictest(self.applied(&all)).map(|action| action.is_some());
        let maskers = self.plan.maskers();
        reports::for_both(message, |eyes| {
            let withheld = withheld.get(eyes).copied().unwrap_or(true);
            reports::notification(message, withheld, maskers.get(eyes).copied().flatten())
        })
    }

    /// A parameter of the session, masked. `at_start` is what the server told of it when it let
    /// the gateway in.
    pub(super) fn parameter<'a>(
        &self,
        message: &[u8],
        at_start: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Option<Masked>, Malformed> {
        let (name, value) = backend::parameter_status(message)?;
        let settled = at_start(name) == Some(value) || reports::is_of_vocabulary(name, value);
        let all = self.columns.all();
        let withheld = self.plan.strictest(self.applied(&all)).map(|action| action.is_some());
        let maskers = self.plan.maskers();
        reports::for_both(message, |eyes| {
            let withheld = !settled && withheld.get(eyes).copied().unwrap_or(true);
            reports::parameter(message, withheld, maskers.get(eyes).copied().flatten())
        })
    }
}
