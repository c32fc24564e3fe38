//! Masks on the way downstream, and what they mean for what is asked and stored.
//!
//! Two sources tell what a column of a result is. `RowDescription` names the table's column that
//! it is, where it is one; the catalog ([`shapes`]) tells which columns show masked ones. And the
//! statement's text ([`judge`]) tells whether masked values can be in what is not known to be a
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

mod bodies;
mod copies;
mod exposed;
mod judge;
mod load;
mod pool;
mod reports;
mod rows;
mod shapes;
mod values;

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::decode::postgres::Malformed;
use crate::decode::postgres::backend::Column;
use crate::decode::sql::{Reading, Source, Statement, StatementKind};
use crate::gate::{Against, Gate};
use crate::mask::{Action, Applied, MaskPlan, Masked};
use crate::policy::{Object, Unprovable};

pub(super) use copies::CopyMasks;
pub(super) use exposed::Exposed;
use judge::Judged;
pub(super) use pool::{Catalogs, TargetCatalog};
use reports::Seen;
use rows::{Cell, Cells, Whole};
pub(super) use rows::{RowMasks, hide};
use shapes::{ColumnMasks, MaskSet, Origin, Shapes};
use values::Holds;

/// How many tables of its own making a session may know.
const MOST_MADE: usize = 10_000;

/// The masks of one session.
#[derive(Debug)]
pub(super) struct Masking {
    gate: Arc<Gate>,
    catalog: Arc<TargetCatalog>,
    known: Mutex<Known>,
}

/// What a session knows of itself.
#[derive(Debug, Default)]
struct Known {
    plan: Option<(Arc<MaskPlan>, Arc<ColumnMasks>)>,
    /// Names of tables that it made itself, empty: nothing masked is written into them.
    made: Arc<HashSet<String>>,
    /// It changed the catalog, and the transaction is open.
    changing: bool,
}

/// The masks as of now.
#[derive(Debug, Clone)]
pub(super) struct MasksNow {
    plan: Arc<MaskPlan>,
    columns: Arc<ColumnMasks>,
    /// `None` when the catalog cannot be read.
    shapes: Option<Arc<Shapes>>,
    made: Arc<HashSet<String>>,
    views_hold: bool,
    unprovable: Unprovable,
}

impl Masking {
    pub(super) fn new(gate: Arc<Gate>, catalog: Arc<TargetCatalog>) -> Self {
        Self { gate, catalog, known: Mutex::default() }
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
            made: Arc::clone(&known.made),
            views_hold: !known.changing,
            unprovable: self.gate.unprovable(),
        }
    }

    /// A statement is on its way that may change the catalog.
    pub(super) fn passes(&self, statement: &Statement, judged: &Judgement) {
        if !judged.0.changing {
            return;
        }
        let mut known = self.known.lock();
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

    /// Whether the session changed the catalog in the transaction that is open.
    pub(super) fn is_changing(&self) -> bool {
        self.known.lock().changing
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

    fn judge_statement(&self, statement: &Statement, shapes: &Shapes) -> Judged {
        let made = |table: &Object| table.name().is_some_and(|name| self.made.contains(name));
        Judged::of(statement, shapes, self.views_hold, made)
    }

    /// The same once something was forwarded that may change views.
    pub(super) fn unsettled(&self) -> Self {
        Self { views_hold: false, ..self.clone() }
    }

    /// Whether literals of a statement may be shown and kept nowhere.
    pub(super) fn withhold(&self, judged: &Judgement) -> bool {
        !judged.0.literals.is_empty()
    }

    /// What is stored of a text of the client's own.
    pub(super) fn plan(&self) -> &MaskPlan {
        &self.plan
    }

    /// Why a statement must not run, if so.
    pub(super) fn objection(&self, source: Option<&Source>, judged: &Judgement) -> Option<Against> {
        let judged = &judged.0;
        let against = |masks: &MaskSet, reason| {
            let masks: Vec<Arc<str>> = self.acting(masks).map(|m| Arc::clone(&m.name)).collect();
            (!masks.is_empty()).then_some(Against { masks, reason })
        };
        if self.shapes.is_none() {
            return against(
                &self.columns.all(),
                "masks cannot be applied: the target's catalog cannot be read",
            );
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
        let mut both: [Vec<Cell>; 2] = [Vec::new(), Vec::new()];
        for (at, column) in columns.iter().enumerate() {
            let holds = Holds::of(column.type_oid, column.format, shapes.is_text(column.type_oid));
            let made = Some((judged.0.output(at, columns.len()), false));
            let masked = match shapes.origin(column, self.views_hold) {
                Origin::Clear => None,
                Origin::Masked(lineage) => Some((&lineage.masks, lineage.itself)),
                Origin::Row | Origin::Unknown => made,
            };
            let wholes = match masked {
                Some((masks, itself)) if !masks.is_empty() => self.wholes(masks, itself),
                Some(_) if explains => self.stored_alone(&judged.0.literals),
                _ => self.stored_alone(&judged.0.written),
            };
            for (cells, masked) in both.iter_mut().zip(wholes) {
                cells.push(Cell { holds, masked });
            }
        }
        let (shown, stored) = self.both_cells(both);
        Some(RowMasks::new(shown, stored))
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
        let names = |lifted_too: bool| -> Arc<[Arc<str>]> {
            let acting = self.applied(masks).filter(|applied| lifted_too || !applied.lifted);
            acting.map(|applied| Arc::clone(&applied.mask.name)).collect()
        };
        let whole = |action: Option<Action>, lifted_too| {
            action.map(|action| Whole {
                action: (itself || action == Action::Null).then_some(action),
                masks: names(lifted_too),
            })
        };
        let [shown, stored] = actions;
        [whole(shown, false), whole(stored, true)]
    }

    /// An error or a notice, masked; `None` when it passes as it is. `judged` is what it may be
    /// about; `None` when the server speaks by itself.
    pub(super) fn report(
        &self,
        message: &[u8],
        judged: Option<&Judgement>,
    ) -> Result<Option<Masked>, Malformed> {
        let maskers = self.plan.maskers();
        let errors = judged.map(|judged| &judged.0.errors);
        let [shown, stored] =
            errors.map_or([None, None], |errors| self.plan.strictest(self.applied(errors)));
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

    /// A parameter of the session, masked.
    pub(super) fn parameter(&self, message: &[u8]) -> Result<Option<Masked>, Malformed> {
        let maskers = self.plan.maskers();
        reports::for_both(message, |eyes| {
            reports::parameter(message, maskers.get(eyes).copied().flatten())
        })
    }
}
