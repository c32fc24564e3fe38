//! What a statement does with masked columns, as far as its text and the catalog tell.

use crate::decode::sql::{How, Statement, Use};
use crate::policy::{Effect, Object};

use super::catalog_snapshot::{MaskSet, Named, Shapes};

/// What could show or move masked values without naming their columns.
pub(super) const OPAQUE: &[&str] = &[
    "sql.call",
    "sql.copy-program",
    "sql.do",
    "sql.dynamic",
    "sql.file",
    "sql.inspect",
    "sql.remote",
    "sql.unparsed",
];

/// What may make or drop prepared statements and cursors out of sight.
const NAMING: &[&str] = &["sql.call", "sql.do", "sql.dynamic", "sql.unparsed"];

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

/// What looks at every row of a table, and says in an error what it found there.
const LOOKING_AT_ALL: &[&str] = &[
    "sql.alter",
    "sql.analyze",
    "sql.cluster",
    "sql.create",
    "sql.references",
    "sql.refresh",
    "sql.reindex",
    "sql.vacuum",
];

/// Functions that give texts of statements and definitions, literals and all.
const QUOTING: &[&str] = &[
    "current_query",
    "pg_cursor",
    "pg_get_constraintdef",
    "pg_get_expr",
    "pg_get_function_sqlbody",
    "pg_get_functiondef",
    "pg_get_indexdef",
    "pg_get_partition_constraintdef",
    "pg_get_ruledef",
    "pg_get_statisticsobjdef",
    "pg_get_statisticsobjdef_expressions",
    "pg_get_triggerdef",
    "pg_get_viewdef",
    "pg_prepared_statement",
    "pg_stat_get_backend_activity",
];

/// Uses of columns, and those of each output.
type Reads<'s> = (&'s [Use], Option<&'s Vec<Vec<Use>>>);

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
    /// Masks whose columns' values could be in errors and notices, for storage: they repeat
    /// literals, too.
    pub(in super::super) errors: MaskSet,
    /// The same for the client, who wrote the literals.
    pub(in super::super) reported: MaskSet,
    /// Masks whose columns' values are written somewhere.
    pub(in super::super) written: MaskSet,
    /// Masks whose columns' values are computed with, or pick rows.
    pub(in super::super) inferred: MaskSet,
    /// It runs what nobody looks into.
    pub(in super::super) opaque: bool,
    /// What it runs may make or drop prepared statements and cursors.
    pub(in super::super) makes_names: bool,
    /// A function of it may give what a cursor of the session's gives.
    fetches: bool,
    /// It names what the catalog did not have.
    pub(in super::super) unknown: bool,
    /// It changes the catalog, or could.
    pub(in super::super) changing: bool,
    /// What it computes may repeat literals of other statements: definitions, texts of queries.
    pub(in super::super) quotes: bool,
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
        // What goes to the server may read less than what the client wrote.
        let left = statement.remaining.as_deref();
        let reads = left.map(|remaining| (&*remaining.uses, remaining.outputs.as_ref()));
        Self::with(statement, reads, shapes, views_hold, made)
    }

    /// The same of the statement as the client wrote it, whatever goes to the server.
    pub(in super::super) fn as_written(
        statement: &Statement,
        shapes: &Shapes,
        views_hold: bool,
        made: impl Fn(&Object) -> bool,
    ) -> Self {
        Self::with(statement, None, shapes, views_hold, made)
    }

    fn with(
        statement: &Statement,
        reads: Option<Reads<'_>>,
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
            if used.how.has(How::COMPUTED) || used.how.has(How::FILTER) {
                judged.inferred.add(&names.values(used));
            }
        }
        let (uses, outputs) = reads.unwrap_or((&statement.uses, statement.outputs.as_ref()));
        for used in uses {
            judged.reported.add(&names.masks(used));
            let masks = names.values(used);
            if used.how.has(How::OUTPUT) {
                judged.value.add(&masks);
            }
            if used.how.has(How::WRITTEN) {
                judged.written.add(&masks);
            }
        }
        if keeps_masked(statement, shapes, &judged.written) {
            judged.written = MaskSet::default();
        }
        judged.outputs = outputs.map(|outputs| {
            let masks = |output: &Vec<Use>| {
                let mut masks = MaskSet::default();
                for used in output.iter().filter(|used| used.how.has(How::OUTPUT)) {
                    masks.add(&names.values(used));
                }
                masks
            };
            outputs.iter().map(masks).collect()
        });
        if judged.opaque || judged.unknown {
            judged.outputs = None;
            let all = shapes.every_mask();
            (judged.value, judged.literals) = (all.clone(), all.clone());
            (judged.errors, judged.reported) = (all.clone(), all);
        }
        judged
    }

    /// The same where these masks hold at the output alone: cursors have their columns' own values.
    pub(in super::super) fn with_cursors(mut self, at_output: impl FnOnce() -> MaskSet) -> Self {
        if self.fetches {
            let at_output = at_output();
            self.outputs = None;
            for masks in [&mut self.value, &mut self.errors, &mut self.reported] {
                masks.add(&at_output);
            }
        }
        self
    }

    /// One of which nothing is known, where all of these masks are.
    pub(in super::super) fn unknown(all: MaskSet) -> Self {
        Self {
            value: all.clone(),
            literals: all.clone(),
            errors: all.clone(),
            reported: all,
            opaque: true,
            makes_names: true,
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
        self.makes_names |= NAMING.contains(&action);
        self.changing |= CHANGING.contains(&action);
        self.errors_of(effect, shapes);
        let Some(object) = &effect.object else { return };
        if action == "sql.alter" && effect.opaque.is_some() {
            // Its values would come out by a name, or in a table, that no mask has.
            self.written.add(&shapes.named(object, "*", true).masks);
        }
        let writes = matches!(action, "sql.insert" | "sql.update" | "sql.delete" | "sql.copy-from");
        match action {
            "sql.function" => {
                self.quotes |= object.name().is_some_and(|name| QUOTING.contains(&name));
                self.opaque |= shapes.is_opaque(object);
                self.makes_names |= shapes.makes_names(object);
                self.fetches |= shapes.fetches(object);
                self.unknown |= !shapes.has_function(object) && !self.changing;
            }
            _ if writes || action == "sql.select" || action == "sql.copy-to" => {
                self.unknown |= names.unknown(object);
            }
            _ => {}
        }
        if writes {
            // What a constraint or a trigger says of a row may hold all of it.
            self.may_say(&shapes.named(object, "*", true).masks);
            // What a rule of the target's gives as RETURNING is not told by the statement.
            self.opaque |= shapes.has_rules(object);
            for column in &effect.columns {
                self.literals.add(&shapes.named(object, column, true).masks);
            }
        }
    }

    /// Errors may hold values of these columns, whoever sees them.
    fn may_say(&mut self, masks: &MaskSet) {
        self.errors.add(masks);
        self.reported.add(masks);
    }

    /// What is looked at beside the rows that a statement names: those of before, by what checks
    /// them later, and all rows of a table, by what changes it.
    fn errors_of(&mut self, effect: &Effect, shapes: &Shapes) {
        let table = effect.object.as_ref().filter(|object| object.kind() == "table");
        match (&*effect.action, table) {
            ("sql.set-constraints" | "sql.two-phase", _) => self.may_say(&shapes.every_mask()),
            ("sql.transaction", _) if ends_well(effect) => self.may_say(&shapes.every_mask()),
            (action, Some(table)) if LOOKING_AT_ALL.contains(&action) => {
                self.may_say(&shapes.named(table, "*", true).masks);
            }
            // Any table may have columns of the type.
            ("sql.alter", None) if is_type(effect) => self.may_say(&shapes.every_mask()),
            // An index, a schema, a database: its tables are not named.
            ("sql.cluster" | "sql.reindex" | "sql.vacuum", None) => {
                self.may_say(&shapes.every_mask());
            }
            _ => {}
        }
    }
}

fn is_type(effect: &Effect) -> bool {
    effect.object.as_ref().is_some_and(|object| object.kind() == "type")
}

/// COMMIT, which checks what was deferred.
fn ends_well(effect: &Effect) -> bool {
    effect.attributes.get("kind").is_some_and(|kind| kind == "commit")
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
        self.of(used, |named| named.masks)
    }

    /// The same, where its values are not masked yet.
    fn values(&self, used: &Use) -> MaskSet {
        self.of(used, |named| named.values)
    }

    fn of(&self, used: &Use, which: impl FnOnce(Named) -> MaskSet) -> MaskSet {
        let named = self.shapes.named(&used.table, &used.column, self.views_hold);
        match named.unknown && !(self.made)(&used.table) {
            true => self.shapes.every_mask(),
            false => which(named),
        }
    }
}
