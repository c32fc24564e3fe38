//! Which columns show masked ones, for those who do not mask a session but give rights.

use super::catalog_snapshot::{ColumnMasks, Shapes};
use super::load::{self, Described, like};
use crate::mask::{Action, MaskPlan};
use crate::policy::Pattern;
use crate::protocol::postgres::upstream::{Questions, Row, UpstreamError};

/// The columns of a database that show masked ones, whatever they are called there.
#[derive(Debug)]
pub(in super::super) struct Exposed<'p> {
    shapes: Shapes,
    plan: &'p MaskPlan,
}

impl<'p> Exposed<'p> {
    /// Asks the catalog; the connection's settings are changed.
    pub(in super::super) async fn read(
        questions: &mut Questions,
        plan: &'p MaskPlan,
    ) -> Result<Self, UpstreamError> {
        let columns = ColumnMasks::of(plan);
        questions.rows(load::SETTINGS).await?;
        let shapes = if plan.masks_columns() {
            let read = load::read(questions, &columns, &mut Described::default()).await?;
            Shapes::new(&columns, read)
        } else {
            Shapes::default()
        };
        Ok(Self { shapes, plan })
    }

    /// What masks do with the values of a column, by its table's OID and its number; `None` where
    /// clients see them.
    pub(in super::super) fn action(&self, table: u32, number: i16) -> Option<Action> {
        let masks = self.shapes.masks_of(table, number)?;
        let [shown, _] =
            self.plan.strictest(masks.iter().filter_map(|at| self.plan.masks().get(at)));
        shown
    }
}

/// Whether a database has an object that a pattern names, pattern by pattern; `true` for kinds that
/// are not looked for.
pub(in super::super) async fn exist(
    questions: &mut Questions,
    patterns: &[&Pattern],
) -> Result<Vec<bool>, UpstreamError> {
    let mut asked: Vec<Vec<Row>> = Vec::new();
    for some in patterns.chunks(PATTERNS_AT_ONCE) {
        let questions_of: Vec<String> = some.iter().map(|pattern| question(pattern)).collect();
        let text = format!("SET search_path = ''; {}", questions_of.join("; "));
        asked.extend(questions.rows(&text).await?);
    }
    let is_there = |rows: &Vec<Row>| {
        let answer = rows.first().and_then(|row| row.first()).cloned().flatten();
        answer.is_some_and(|answer| answer == "t")
    };
    match asked.len() == patterns.len() {
        true => Ok(asked.iter().map(is_there).collect()),
        false => Err(UpstreamError::Protocol("the catalog gave other results".to_owned())),
    }
}

/// How many patterns one message asks for: a rule may have many.
const PATTERNS_AT_ONCE: usize = 100;

fn question(pattern: &Pattern) -> String {
    let parts: Vec<String> = pattern.parts().iter().map(like).collect();
    let relations = "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c \
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace";
    match (pattern.kind(), parts.as_slice()) {
        (Some("table"), [schema, table]) => format!(
            "{relations} WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p', 'S') \
             AND n.nspname LIKE {schema} AND c.relname LIKE {table})"
        ),
        (Some("column"), [schema, table, column]) => format!(
            "{relations} JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped \
             WHERE n.nspname LIKE {schema} AND c.relname LIKE {table} AND a.attname LIKE {column})"
        ),
        (Some("function"), [schema, function]) => format!(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p \
             JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
             WHERE n.nspname LIKE {schema} AND p.proname LIKE {function})"
        ),
        _ => "SELECT true".to_owned(),
    }
}
