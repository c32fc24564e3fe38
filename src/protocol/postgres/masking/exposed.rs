//! Which columns show masked ones, for those who do not mask a session but give rights.

use super::load::{self, Described};
use super::shapes::{ColumnMasks, Shapes};
use crate::mask::{Action, MaskPlan};
use crate::protocol::postgres::upstream::{Questions, UpstreamError};

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
