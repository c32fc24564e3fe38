//! What was found for the statements of a session, kept for when they run again.
//!
//! Drivers run the same few statements over and over, and a Bind, its Execute and the answer ask the
//! same of one statement. All that is found depends on the masks, the catalog and what the session did
//! to the meaning of names: as soon as one of them is another, nothing is remembered any more.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::catalog_snapshot::Shapes;
use super::source::AtSource;
use super::types::Types;
use super::{Judgement, Masking, MasksNow, RowMasks};
use crate::decode::postgres::{Malformed, backend};
use crate::decode::sql::{Reading, Source};
use crate::gate::Against;
use crate::mask::MaskPlan;
use crate::policy::Unprovable;

/// How many texts are remembered for one session.
const MOST_TEXTS: usize = 128;
/// Bytes of the longest text, and the most statements in it.
const LONGEST: usize = 8 << 10;
const MOST_STATEMENTS: usize = 16;
/// Bytes of the longest description of rows.
const LONGEST_DESCRIPTION: usize = 4 << 10;

/// What was found for texts.
#[derive(Debug, Default)]
pub(super) struct Recall {
    under: Option<Conditions>,
    /// By the address of the reading, which is kept with what was found.
    texts: HashMap<usize, Text>,
}

/// All that findings depend on, besides the statement.
#[derive(Debug)]
struct Conditions {
    plan: Arc<MaskPlan>,
    shapes: Option<Arc<Shapes>>,
    made: Arc<HashSet<String>>,
    views_hold: bool,
    unprovable: Unprovable,
    moved: (bool, bool),
}

#[derive(Debug)]
struct Text {
    reading: Arc<Reading>,
    names_unknown: Option<bool>,
    at_source: Option<AtSource>,
    statements: Vec<(Source, Arc<Standing>)>,
}

/// What masks and row filters mean for one statement.
#[derive(Debug)]
pub(in super::super) struct Standing {
    pub(in super::super) judged: Judgement,
    /// Its literals may be shown and kept nowhere.
    pub(in super::super) withhold: bool,
    /// Why it must not run.
    pub(in super::super) objection: Option<Against>,
    /// What names mean in the session, as it was when this was found.
    moved: (bool, bool),
    /// Why it must not run by a name that it was given before.
    outdated: OnceLock<Option<Against>>,
    /// What is done with its rows, as they were described last.
    rows: Mutex<Option<Described>>,
}

#[derive(Debug)]
struct Described {
    by: Box<[u8]>,
    types: Arc<Types>,
    rows: Option<Arc<RowMasks>>,
}

impl Conditions {
    fn of(masks: &MasksNow, moved: (bool, bool)) -> Self {
        Self {
            plan: Arc::clone(&masks.plan),
            shapes: masks.shapes.clone(),
            made: Arc::clone(&masks.made),
            views_hold: masks.views_hold,
            unprovable: masks.unprovable,
            moved,
        }
    }

    fn are(&self, masks: &MasksNow, moved: (bool, bool)) -> bool {
        let shapes = match (&self.shapes, &masks.shapes) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        shapes
            && Arc::ptr_eq(&self.plan, &masks.plan)
            && Arc::ptr_eq(&self.made, &masks.made)
            && self.views_hold == masks.views_hold
            && self.unprovable == masks.unprovable
            && self.moved == moved
    }
}

impl Recall {
    /// What is remembered of a text; `None` where nothing is to be.
    fn text(
        &mut self,
        masks: &MasksNow,
        moved: (bool, bool),
        reading: &Arc<Reading>,
    ) -> Option<&mut Text> {
        if reading.text().len() > LONGEST || reading.statements().len() > MOST_STATEMENTS {
            return None;
        }
        if !self.under.as_ref().is_some_and(|under| under.are(masks, moved)) {
            self.under = Some(Conditions::of(masks, moved));
            self.texts.clear();
        }
        let key = Arc::as_ptr(reading).addr();
        if self.texts.len() >= MOST_TEXTS && !self.texts.contains_key(&key) {
            self.texts.clear();
        }
        let new = || Text {
            reading: Arc::clone(reading),
            names_unknown: None,
            at_source: None,
            statements: Vec::new(),
        };
        let text = self.texts.entry(key).or_insert_with(new);
        debug_assert_eq!(Arc::as_ptr(&text.reading).addr(), key, "a reading stays where it is");
        Some(text)
    }
}

impl Masking {
    /// Whether a text names tables that the catalog did not have.
    pub(in super::super) fn names_unknown(&self, masks: &MasksNow, reading: &Arc<Reading>) -> bool {
        let moved = self.names_moved();
        let known = self.recall.lock().text(masks, moved, reading).and_then(|t| t.names_unknown);
        known.unwrap_or_else(|| {
            let found = masks.name_unknown(reading);
            if let Some(text) = self.recall.lock().text(masks, moved, reading) {
                text.names_unknown = Some(found);
            }
            found
        })
    }

    /// What goes to the server in place of a text.
    pub(in super::super) fn at_source(&self, masks: &MasksNow, reading: &Arc<Reading>) -> AtSource {
        let moved = self.names_moved();
        let known =
            self.recall.lock().text(masks, moved, reading).and_then(|t| t.at_source.clone());
        known.unwrap_or_else(|| {
            let found = masks.at_source(reading, moved);
            if let Some(text) = self.recall.lock().text(masks, moved, reading) {
                text.at_source = Some(found.clone());
            }
            found
        })
    }

    /// What masks and row filters mean for a statement.
    pub(in super::super) fn standing(&self, masks: &MasksNow, source: &Source) -> Arc<Standing> {
        let moved = self.names_moved();
        let known = self.recall.lock().text(masks, moved, source.reading()).and_then(|text| {
            let (_, found) = text.statements.iter().find(|(known, _)| known.is(source))?;
            Some(Arc::clone(found))
        });
        known.unwrap_or_else(|| {
            let found = Arc::new(Standing::of(masks, moved, source));
            if let Some(text) = self.recall.lock().text(masks, moved, source.reading())
                && text.statements.len() < MOST_STATEMENTS
            {
                text.statements.push((source.clone(), Arc::clone(&found)));
            }
            found
        })
    }

    /// What is done with the rows that a `RowDescription` describes; `None` where nothing is known
    /// of them.
    pub(in super::super) fn rows(
        &self,
        masks: &MasksNow,
        description: &[u8],
        source: Option<&Source>,
    ) -> Result<Option<Arc<RowMasks>>, Malformed> {
        let Some(source) = source else {
            let columns = backend::row_description(description)?;
            return Ok(masks.rows(&columns, None, &masks.judge(None)).map(Arc::new));
        };
        self.standing(masks, source).rows(masks, description, source)
    }
}

impl Standing {
    fn of(masks: &MasksNow, moved: (bool, bool), source: &Source) -> Self {
        let judged = masks.judge(Some(source));
        Self {
            withhold: masks.withhold(&judged),
            objection: masks.objection(Some(source), &judged),
            judged,
            moved,
            outdated: OnceLock::new(),
            rows: Mutex::default(),
        }
    }

    /// Why the statement must not run by a name that it was given before.
    pub(in super::super) fn outdated(&self, masks: &MasksNow, source: &Source) -> Option<Against> {
        // By what was found beside it: the server's answers may settle names meanwhile.
        let outdated = || masks.outdated(source.reading(), self.moved);
        self.outdated.get_or_init(outdated).clone()
    }

    fn rows(
        &self,
        masks: &MasksNow,
        description: &[u8],
        source: &Source,
    ) -> Result<Option<Arc<RowMasks>>, Malformed> {
        let fits = |described: &&Described| {
            *described.by == *description && Arc::ptr_eq(&described.types, &masks.types)
        };
        let known = self.rows.lock().as_ref().filter(fits).map(|known| known.rows.clone());
        if let Some(rows) = known {
            return Ok(rows);
        }
        let columns = backend::row_description(description)?;
        let rows = masks.rows(&columns, Some(source), &self.judged).map(Arc::new);
        if description.len() <= LONGEST_DESCRIPTION {
            let (by, types) = (description.into(), Arc::clone(&masks.types));
            *self.rows.lock() = Some(Described { by, types, rows: rows.clone() });
        }
        Ok(rows)
    }
}
