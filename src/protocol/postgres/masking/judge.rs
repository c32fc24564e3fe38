//! What a statement does with masked columns, as far as its text and the catalog tell.

use crate::decode::sql::{How, Statement, Use};
use crate::policy::{Effect, Object};

use super::shapes::{MaskSet, Shapes};

/// What could show or move masked values without naming their columns.
const OPAQUE: &[&str] = &[
    "sql.call",
    "sql.copy-program",
    "sql.do",
    "sql.dynamic",
    "sql.file",
    "sql.inspect",
    "sql.remote",
    "sql.unparsed",
];

/// What changes the catalog, or could.
const CHANGING: &[&str] = &[
    "sql.alter",
    "sql.call",
    "sql.create",
    "sql.do",
    "sql.drop",
    "sql.dynamic",
    "sql.import",
    "sql.two-phase",
    "sql.unparsed",
];

/// What a statement does with masked columns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Judged {
    /// Masks whose columns' values may be in what comes out, where that is not known to be
    /// something else.
    pub(in super::super) value: MaskSet,
    /// The same for each column that comes out, where that is told.
    outputs: Option<Vec<MaskSet>>,
    /// Masks whose columns' values could be among the literals.
    pub(in super::super) literals: MaskSet,
    /// Masks whose columns' values could be in errors and notices.
    pub(in super::super) errors: MaskSet,
    /// Masks whose columns' values are written somewhere.
    pub(in super::super) written: MaskSet,
    /// Masks whose columns' values are computed with, or pick rows.
    pub(in super::super) inferred: MaskSet,
    /// It runs what nobody looks into.
    pub(in super::super) opaque: bool,
    /// It names what the catalog did not have.
    pub(in super::super) unknown: bool,
    /// It changes the catalog, or could.
    pub(in super::super) changing: bool,
}

impl Judged {
    /// Looks at one statement. `made` says of a table that the session made it itself, empty;
    /// `views_hold`, whether views are what they were when the catalog was read.
    pub(in super::super) fn of(
        statement: &Statement,
        shapes: &Shapes,
        views_hold: bool,
        made: impl Fn(&Object) -> bool,
    ) -> Self {
        let names = Names { shapes, views_hold, made };
        let mut judged = Self::default();
        for effect in &statement.effects {
            judged.effect(effect, &names);
        }
        for used in &statement.uses {
            let masks = names.masks(used);
            if masks.is_empty() {
                continue;
            }
            judged.literals.add(&masks);
            judged.errors.add(&masks);
            if used.how.has(How::OUTPUT) {
                judged.value.add(&masks);
            }
            if used.how.has(How::WRITTEN) {
                judged.written.add(&masks);
            }
            if used.how.has(How::COMPUTED) || used.how.has(How::FILTER) {
                judged.inferred.add(&masks);
            }
        }
        if keeps_masked(statement, shapes, &judged.written) {
            judged.written = MaskSet::default();
        }
        judged.outputs = statement.outputs.as_ref().map(|outputs| {
            let masks = |output: &Vec<Use>| {
                let mut masks = MaskSet::default();
                for used in output.iter().filter(|used| used.how.has(How::OUTPUT)) {
                    masks.add(&names.masks(used));
                }
                masks
            };
            outputs.iter().map(masks).collect()
        });
        if judged.opaque || judged.unknown {
            judged.outputs = None;
            let all = shapes.every_mask();
            (judged.value, judged.literals, judged.errors) = (all.clone(), all.clone(), all);
        }
        judged
    }

    /// One of which nothing is known, where all of these masks are.
    pub(in super::super) fn unknown(all: MaskSet) -> Self {
        Self {
            value: all.clone(),
            literals: all.clone(),
            errors: all,
            opaque: true,
            ..Self::default()
        }
    }

    /// Masks whose columns' values may be in a column that comes out, of so many.
    pub(in super::super) fn output(&self, at: usize, of: usize) -> &MaskSet {
        let told = self.outputs.as_ref().filter(|outputs| outputs.len() == of);
        told.and_then(|outputs| outputs.get(at)).unwrap_or(&self.value)
    }

    fn effect(&mut self, effect: &Effect, names: &Names<'_, impl Fn(&Object) -> bool>) {
        let shapes = names.shapes;
        let action = &*effect.action;
        self.opaque |= OPAQUE.contains(&action);
        self.changing |= CHANGING.contains(&action);
        let Some(object) = &effect.object else { return };
        let writes = matches!(action, "sql.insert" | "sql.update" | "sql.delete" | "sql.copy-from");
        match action {
            "sql.function" => {
                self.opaque |= shapes.is_opaque(object);
                self.unknown |= !shapes.has_function(object) && !self.changing;
            }
            _ if writes || action == "sql.select" || action == "sql.copy-to" => {
                self.unknown |= names.unknown(object);
            }
            _ => {}
        }
        if writes {
            // What a constraint or a trigger says of a row may hold all of it.
            self.errors.add(&shapes.named(object, "*", true).masks);
            for column in &effect.columns {
                self.literals.add(&shapes.named(object, column, true).masks);
            }
        }
    }
}

/// Whether values of masked columns are written only where the same masks are: an UPDATE of such
/// columns alone, as `SET email = lower(email)`.
fn keeps_masked(statement: &Statement, shapes: &Shapes, written: &MaskSet) -> bool {
    let keeps = |effect: &Effect| match (&*effect.action, &effect.object) {
        ("sql.select", _) => true,
        ("sql.function", Some(function)) => {
            let name = function.name().unwrap_or_default();
            !name.starts_with("pg_advisory") && !name.starts_with("pg_try_advisory")
        }
        ("sql.update", Some(table)) => {
            effect.columns.iter().all(|column| shapes.certainly(table, column).holds(written))
        }
        _ => false,
    };
    !written.is_empty() && statement.effects.iter().all(keeps)
}

/// What names mean.
struct Names<'s, M> {
    shapes: &'s Shapes,
    views_hold: bool,
    made: M,
}

impl<M: Fn(&Object) -> bool> Names<'_, M> {
    fn unknown(&self, table: &Object) -> bool {
        self.shapes.named(table, "", self.views_hold).unknown && !(self.made)(table)
    }

    /// The masks of a column that is read; all of them, when nobody knows the table.
    fn masks(&self, used: &Use) -> MaskSet {
        let named = self.shapes.named(&used.table, &used.column, self.views_hold);
        match named.unknown && !(self.made)(&used.table) {
            true => self.shapes.every_mask(),
            false => named.masks,
        }
    }
}
