//! What a statement does with masked columns, as far as its text and the catalog tell.

use crate::decode::sql::{How, Statement};
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
    /// Looks at one statement. `made` says of a table that the session made it itself, empty.
    pub(in super::super) fn of(
        statement: &Statement,
        shapes: &Shapes,
        made: impl Fn(&Object) -> bool,
    ) -> Self {
        let mut judged = Self::default();
        for effect in &statement.effects {
            judged.effect(effect, shapes, &made);
        }
        for used in &statement.uses {
            let masks = shapes.named(&used.table, &used.column).masks;
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
        if judged.opaque || judged.unknown {
            let all = shapes.every_mask();
            (judged.value, judged.literals, judged.errors) = (all.clone(), all.clone(), all);
        }
        judged
    }

    /// One of which nothing is known.
    pub(in super::super) fn unknown(shapes: &Shapes) -> Self {
        let all = shapes.every_mask();
        Self {
            value: all.clone(),
            literals: all.clone(),
            errors: all,
            opaque: true,
            ..Self::default()
        }
    }

    fn effect(&mut self, effect: &Effect, shapes: &Shapes, made: &impl Fn(&Object) -> bool) {
        let action = &*effect.action;
        self.opaque |= OPAQUE.contains(&action);
        self.changing |= CHANGING.contains(&action);
        let Some(object) = &effect.object else { return };
        let writes = matches!(action, "sql.insert" | "sql.update" | "sql.delete" | "sql.copy-from");
        match action {
            "sql.function" => self.opaque |= shapes.is_opaque(object),
            _ if writes || action == "sql.select" || action == "sql.copy-to" => {
                self.unknown |= shapes.named(object, "").unknown && !made(object);
            }
            _ => {}
        }
        if writes {
            // What a constraint or a trigger says of a row may hold all of it.
            self.errors.add(&shapes.named(object, "*").masks);
            for column in &effect.columns {
                self.literals.add(&shapes.named(object, column).masks);
            }
        }
    }
}
