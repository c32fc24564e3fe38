//! What masks and row filters would do, for those who look at a policy and open no session.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::{BoxFuture, FutureExt as _};

use super::MasksNow;
use super::catalog_snapshot::{ColumnMasks, MaskSet, Shapes};
use super::load::{self, Described};
use super::pool::{Catalogs, NotRead};
use super::source::AtSource;

pub use crate::catalog::Mode;
use crate::catalog::{Held, HeldModes, Preview, Rules};
use crate::config::{PostgresTarget, Target, TargetKind};
use crate::decode::sql::{LexerSettings, Reading, analyze};
use crate::mask::{Applied, Enforce, HashKey, MaskPlan, Masks, Viewer};
use crate::policy::{Caller, Unprovable};
use crate::protocol::postgres::hardening::{HardenError, ask};
use crate::protocol::postgres::upstream::Connector;

/// The catalog of a target's database as it was read once, for any number of statements.
#[derive(Debug)]
pub struct CatalogRead(Arc<Shapes>);

impl CatalogRead {
    /// Asks the catalog what masks and row filters must know. `plan` is that of any caller: all have the
    /// same masks and filters. Where there are none nobody is asked.
    ///
    /// # Errors
    /// When the target or its catalog cannot be reached.
    pub async fn of(
        target: &PostgresTarget,
        database: &str,
        plan: &MaskPlan,
    ) -> Result<Self, HardenError> {
        let columns = ColumnMasks::of(plan);
        if columns == ColumnMasks::default() {
            return Ok(Self(Arc::default()));
        }
        Ok(Self(Arc::new(shapes(target, database, &columns).await?)))
    }

    /// By this catalog, for the caller of a plan.
    pub fn previews(&self, plan: MaskPlan, unprovable: Unprovable) -> Previews {
        Previews(MasksNow::of_new_session(plan, Arc::clone(&self.0), unprovable))
    }
}

/// What goes up in the place of a caller's statements.
#[derive(Debug)]
pub struct Previews(MasksNow);

impl Previews {
    /// What goes up in the place of a text that a new session sends first.
    pub fn of(&self, text: &str) -> Preview {
        self.of_read(&read(text))
    }

    fn of_read(&self, reading: &Arc<Reading>) -> Preview {
        match self.0.at_source(reading, (false, false)) {
            AtSource::Same => Preview::Same,
            AtSource::Instead(reading) => {
                Preview::Instead(reading.sent().map(|sent| sent.text.clone()).unwrap_or_default())
            }
            AtSource::Refused(against) => Preview::Refused {
                by: against.masks.iter().map(ToString::to_string).collect(),
                reason: against.reason.into_owned(),
            },
        }
    }
}

/// A text as a new session's.
fn read(text: &str) -> Arc<Reading> {
    let settings = LexerSettings::default();
    Arc::new(Reading::new(text, settings, analyze(text, settings)))
}

/// Asks a target's catalog what goes up in the place of a statement. `plan` is that of the caller.
///
/// # Errors
/// When the target or its catalog cannot be reached.
pub async fn preview(
    target: &PostgresTarget,
    plan: MaskPlan,
    unprovable: Unprovable,
    text: &str,
) -> Result<Preview, HardenError> {
    let read = CatalogRead::of(target, &target.database, &plan).await?;
    Ok(read.previews(plan, unprovable).of(text))
}

/// Asks a target's catalog where each mask with columns holds that names some there.
///
/// # Errors
/// When the target or its catalog cannot be reached.
pub async fn modes(target: &PostgresTarget, plan: &MaskPlan) -> Result<Vec<Mode>, HardenError> {
    if plan.masks().iter().all(|applied| applied.mask.columns.is_empty()) {
        return Ok(Vec::new());
    }
    let shapes = shapes(target, &target.database, &ColumnMasks::of(plan)).await?;
    Ok(modes_by(&shapes, plan))
}

/// Asks a target's catalog for views of `policy harden` that stand in the place of tables with row
/// filters and that the filters do not name: for each a line for operators, with the filter's name.
///
/// # Errors
/// When the target or its catalog cannot be reached.
pub async fn unnamed_views(
    target: &PostgresTarget,
    plan: &MaskPlan,
) -> Result<Vec<(String, String)>, HardenError> {
    let masks = plan.masks().iter().any(|applied| !applied.mask.columns.is_empty());
    // Without masked columns `policy harden` makes no views.
    if !masks || plan.rows().is_empty() {
        return Ok(Vec::new());
    }
    let shapes = shapes(target, &target.database, &ColumnMasks::of(plan)).await?;
    let picked = |filters: &MaskSet| {
        let filters = filters.iter().filter_map(|at| plan.rows().get(at));
        filters.flat_map(|applied| applied.filter.condition.columns()).collect::<Vec<&str>>()
    };
    let mut told = Vec::new();
    for (view, filters) in shapes.unnamed_views(&picked) {
        let named = filters.iter().filter_map(|at| plan.rows().get(at));
        told.extend(named.map(|applied| (applied.filter.name.to_string(), view.warning())));
    }
    Ok(told)
}

fn modes_by(shapes: &Shapes, plan: &MaskPlan) -> Vec<Mode> {
    let masks = (0..).zip(plan.masks());
    masks.filter_map(|(at, applied)| mode(shapes, at, applied)).collect()
}

fn mode(shapes: &Shapes, at: u16, applied: &Applied) -> Option<Mode> {
    let mask = &applied.mask;
    let readable = shapes.readable_by_role(at)?;
    let because = match mask.enforce {
        Enforce::Output => Some("enforce = \"output\""),
        Enforce::Source { .. } if mask.with.is_keyed() && !shapes.keyed() => {
            Some("the server lacks the functions of policy harden --functions")
        }
        Enforce::Source { .. } => None,
    };
    Some(Mode { mask: mask.name.to_string(), source: because.is_none(), because, role: !readable })
}

impl HeldModes for Catalogs {
    fn held(&self, target: &Arc<Target>, masks: &Masks) -> Option<Held> {
        let TargetKind::Postgres(postgres) = &target.kind else { return None };
        let (name, claims) = (target.name.as_str(), serde_json::Map::new());
        let nobody = Viewer { username: "", groups: &[], claims: &claims };
        // Nothing is hashed by it.
        let plan = masks.for_session(name, &[], &HashKey::new([0; 32]));
        let plan = plan.with_rows(masks.rows_of(name, &nobody));
        let (shapes, age) = self.last_read(target, &postgres.database)?;
        let read_at = SystemTime::now().checked_sub(age)?;
        // Masks that were reloaded since have other places in a plan.
        let same = *shapes.of() == ColumnMasks::of(&plan);
        same.then(|| Held { modes: modes_by(&shapes, &plan), read_at })
    }

    fn preview<'a>(
        &'a self,
        rules: &'a Rules,
        target: &'a Arc<Target>,
        (caller, text): (&'a Caller, &'a str),
    ) -> BoxFuture<'a, Result<Preview, String>> {
        let previewed = async move {
            let (masks, name) = (rules.masks(), target.name.as_str());
            let viewer = Viewer {
                username: &caller.username,
                groups: &caller.groups,
                claims: &caller.claims,
            };
            // Nothing is hashed by it.
            let plan = masks.for_session(name, &caller.groups, &HashKey::new([0; 32]));
            let plan = plan.with_rows(masks.rows_of(name, &viewer));
            let TargetKind::Postgres(postgres) = &target.kind else { return Ok(Preview::Same) };
            if !plan.masks_columns() {
                return Ok(Preview::Same);
            }
            let connector = Connector::new(postgres).map_err(|error| error.to_string())?;
            let catalog = self.of(target, &connector, &postgres.database);
            let (columns, reading) = (ColumnMasks::of(&plan), read(text));
            let unprovable = rules.policy().settings().unprovable;
            let told = |error: NotRead| error.to_string();
            let shapes = catalog.shapes(&columns).await.map_err(told)?;
            let mut now = MasksNow::of_new_session(plan, Arc::clone(&shapes), unprovable);
            // A table that was made since the catalog was read.
            if now.name_unknown(&reading) {
                let newer = catalog.newer_than(&shapes, &columns).await.map_err(told)?;
                now = now.by(newer);
            }
            Ok(Previews(now).of_read(&reading))
        };
        previewed.boxed()
    }
}

async fn shapes(
    target: &PostgresTarget,
    database: &str,
    columns: &ColumnMasks,
) -> Result<Shapes, HardenError> {
    let mut questions = ask(target, database).await?;
    questions.rows(load::SETTINGS).await?;
    let read = load::read(&mut questions, columns, &mut Described::default()).await?;
    Ok(Shapes::new(columns, read))
}

impl MasksNow {
    fn of_new_session(plan: MaskPlan, shapes: Arc<Shapes>, unprovable: Unprovable) -> Self {
        Self {
            columns: Arc::new(ColumnMasks::of(&plan)),
            plan: Arc::new(plan),
            search_path: shapes.path_setting().map(Arc::from),
            shapes: Some(shapes),
            types: Arc::default(),
            made: Arc::default(),
            views_hold: true,
            unprovable,
        }
    }

    /// The same by another state of the catalog.
    fn by(self, shapes: Arc<Shapes>) -> Self {
        let search_path = shapes.path_setting().map(Arc::from);
        Self { search_path, shapes: Some(shapes), ..self }
    }
}
