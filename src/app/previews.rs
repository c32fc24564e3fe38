//! What masks and row filters of a configuration do with many statements: each target's catalog is
//! asked once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt, join_all};
use quick_cache::unsync::Cache;
use serde_json::{Map, Value};

use crate::catalog::{Preview, Rules};
use crate::config::TargetKind;
use crate::mask::{HashKey, MaskPlan, Viewer};
use crate::names::TargetName;
use crate::protocol::postgres::hardening::{CatalogRead, Previews};
use crate::replay::backtest::{self, Masked, Statement, Unreachable};

/// Callers, and statements of one, whose previews are remembered: sessions repeat themselves.
const MOST_CALLERS: usize = 1_000;
const MOST_STATEMENTS: usize = 10_000;

type Read = Result<CatalogRead, String>;

/// Catalogs of targets, and what they mean for statements.
#[derive(Debug)]
pub struct Catalogs {
    rules: Arc<Rules>,
    /// The claims of every caller.
    claims: Map<String, Value>,
    read: BTreeMap<(TargetName, String), Read>,
    callers: HashMap<(TargetName, String, String, Vec<String>), CallerPreviews>,
}

/// The previews of one caller.
#[derive(Debug)]
struct CallerPreviews {
    previews: Previews,
    /// The same without the row filters that need a claim which is not known, where there are such.
    without: Option<Previews>,
    /// Those filters, each with what it needs.
    lacking: Vec<(String, String)>,
    remembered: Cache<String, Result<Preview, String>>,
}

impl Catalogs {
    /// Asks each of these databases once, where it is of a Postgres target with masks or row filters.
    /// `claims` count for every caller.
    pub async fn read(
        rules: Arc<Rules>,
        claims: Map<String, Value>,
        mut wanted: BTreeSet<(TargetName, String)>,
    ) -> Self {
        wanted.retain(|(target, _)| rules.masks().hide(target.as_str()));
        let asked = wanted.into_iter().map(async |(name, database)| {
            let target = rules.target(&name)?;
            let TargetKind::Postgres(postgres) = &target.kind else { return None };
            let viewer = Viewer { username: "", groups: &[], claims: &Map::new() };
            let plan = plan(&rules, &name, &viewer);
            let read = CatalogRead::of(postgres, &database, &plan).await;
            Some(((name, database), read.map_err(|error| error.to_string())))
        });
        let read = join_all(asked).await.into_iter().flatten().collect();
        Self { rules, claims, read, callers: HashMap::new() }
    }

    /// The same for the web, without claims.
    pub fn for_web(
        rules: Arc<Rules>,
        wanted: BTreeSet<(TargetName, String)>,
    ) -> BoxFuture<'static, Box<dyn backtest::Catalogs>> {
        let read = Self::read(rules, Map::new(), wanted);
        read.map(|read| Box::new(read) as Box<dyn backtest::Catalogs>).boxed()
    }

    /// What goes to the server in the place of a caller's statement, or why nobody can tell.
    fn preview(
        &mut self,
        (target, database): (&TargetName, &str),
        (username, groups): (&str, &[String]),
        text: &str,
    ) -> Result<Preview, String> {
        let Self { rules, claims, read, callers } = self;
        let read = read.get(&(target.clone(), database.to_owned()));
        let read = read.and_then(|read| read.as_ref().ok()).ok_or_else(|| {
            format!("the catalog of {target}, database {database}, could not be read")
        })?;
        let caller = (target.clone(), database.to_owned(), username.to_owned(), groups.to_vec());
        if callers.len() >= MOST_CALLERS && !callers.contains_key(&caller) {
            callers.clear();
        }
        let caller = callers.entry(caller).or_insert_with(|| {
            let viewer = Viewer { username, groups, claims };
            let plan = plan(rules, target, &viewer);
            let unprovable = rules.policy().settings().unprovable;
            let lacking = plan
                .rows()
                .iter()
                .filter_map(|rows| Some((rows.filter.name.to_string(), rows.lacking()?)));
            let lacking: Vec<_> = lacking.collect();
            let without = (!lacking.is_empty()).then(|| without_lacking(rules, target, &viewer));
            CallerPreviews {
                lacking,
                previews: read.previews(plan, unprovable),
                without: without.map(|plan| read.previews(plan, unprovable)),
                remembered: Cache::new(MOST_STATEMENTS),
            }
        });
        caller.preview(text)
    }
}

impl backtest::Catalogs for Catalogs {
    fn masked(&mut self, statement: &Statement<'_>) -> Masked {
        let Statement { target, database, caller, text } = statement;
        let Some(database) = database else {
            return Masked::Undecidable("the recording does not name the database".to_owned());
        };
        let viewer = (caller.username.as_str(), caller.groups.as_slice());
        match self.preview((target, database), viewer, text) {
            Ok(Preview::Same) => Masked::Same,
            Ok(Preview::Instead(sent)) => Masked::Instead(sent),
            Ok(Preview::Refused { by, reason }) => Masked::Refused { by, reason },
            Err(reason) => Masked::Undecidable(reason),
        }
    }

    fn unreachable(&self) -> Vec<Unreachable> {
        let told = self.read.iter().filter_map(|((target, database), read)| {
            let error = read.as_ref().err()?.clone();
            Some(Unreachable { target: target.clone(), database: database.clone(), error })
        });
        told.collect()
    }
}

impl CallerPreviews {
    fn preview(&mut self, text: &str) -> Result<Preview, String> {
        if let Some(known) = self.remembered.get(text) {
            return known.clone();
        }
        let preview = match (self.previews.of(text), &self.without) {
            // Perhaps for the claim that is not known: certain is what others refuse, too.
            (Preview::Refused { by, .. }, Some(without)) => match without.of(text) {
                refused @ Preview::Refused { .. } => Ok(refused),
                Preview::Same | Preview::Instead(_) => Err(self.needed(&by)),
            },
            (preview, _) => Ok(preview),
        };
        self.remembered.insert(text.to_owned(), preview.clone());
        preview
    }

    /// What the row filters need that are against a statement, in words.
    fn needed(&self, by: &[String]) -> String {
        let needed = self.lacking.iter().find(|(name, _)| by.contains(name));
        let (name, needed) = match needed.or(self.lacking.first()) {
            Some((name, needed)) => (name.as_str(), needed.as_str()),
            None => ("of the table", "a claim"),
        };
        format!(
            "the row filter {name} needs {needed}, which recordings do not hold; `policy backtest \
             --claim` gives it to all callers"
        )
    }
}

/// The plan of a caller with the row filters out of force that need an unknown claim. They keep their
/// places, by which the catalog was read.
fn without_lacking(rules: &Rules, target: &TargetName, viewer: &Viewer<'_>) -> MaskPlan {
    let mut rows = rules.masks().rows_of(target.as_str(), viewer);
    for applied in &mut rows {
        applied.acts &= applied.bound.is_ok();
    }
    plan(rules, target, viewer).with_rows(rows)
}

fn plan(rules: &Rules, target: &TargetName, viewer: &Viewer<'_>) -> MaskPlan {
    let name = target.as_str();
    // Nothing is hashed by it.
    let plan = rules.masks().for_session(name, viewer.groups, &HashKey::new([0; 32]));
    plan.with_rows(rules.masks().rows_of(name, viewer))
}
