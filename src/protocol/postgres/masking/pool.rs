//! One view of each target's catalog, shared by the sessions that mask there.
//!
//! It is read over a connection of its own with the target's credential, which stays open for as
//! long as a session needs it. What was read counts for some seconds, unless a session changed
//! the catalog. While the catalog cannot be read (somebody locks a table of it), what was read last
//! serves for up to a minute; after that whoever asks gets the error at once and masks by nothing:
//! nothing passes. One session at a time tries again; the others do not wait for it as long as
//! what was read last serves.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::{PostgresTarget, SecretError, Target, TargetKind};
use crate::names::TargetName;
use crate::protocol::postgres::upstream::{
    Connector, ProtocolVersion, Questions, Row, UpstreamError,
};

use super::catalog_snapshot::{ColumnMasks, Shapes};
use super::load::{self, Described};
use super::types::{self, Types};

/// How long what was read counts: until then a view that somebody changed elsewhere is masked as
/// it was.
const FRESH: Duration = Duration::from_secs(10);
/// How long what was read serves while the catalog cannot be read again.
const LAST_GOOD: Duration = Duration::from_secs(60);
/// How long nobody tries again after a failure that took [`SLOW`]: whoever tries waits as long. What
/// fails at once is tried again at once.
const RETRY_PAUSE: Duration = Duration::from_secs(5);
const SLOW: Duration = Duration::from_millis(500);
/// How long after it was read again because of a name that it did not have, it is not again.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(1);
/// Types that may be asked for within that time.
const MOST_ASKED: usize = 1_000;

/// The catalogs of all targets that sessions mask on.
#[derive(Debug, Default)]
pub(in super::super) struct Catalogs(Mutex<HashMap<(TargetName, String), Kept>>);

/// A catalog, and what was read last of it, which outlives the sessions.
#[derive(Debug)]
struct Kept {
    catalog: Weak<TargetCatalog>,
    target: Arc<Target>,
    current: Arc<Mutex<Current>>,
}

impl Catalogs {
    /// The catalog of a target's database.
    pub(in super::super) fn of(
        &self,
        target: &Arc<Target>,
        connector: &Connector,
        database: &str,
    ) -> Arc<TargetCatalog> {
        let mut catalogs = self.0.lock();
        let key = (target.name.clone(), database.to_owned());
        let known = catalogs.get(&key).filter(|known| Arc::ptr_eq(&known.target, target));
        if let Some(known) = known.and_then(|known| known.catalog.upgrade()) {
            return known;
        }
        let current = known.map(|known| Arc::clone(&known.current)).unwrap_or_default();
        current.lock().stale = true;
        let catalog = Arc::new(TargetCatalog {
            target: Arc::clone(target),
            connector: connector.clone(),
            database: database.to_owned(),
            current: Arc::clone(&current),
            types: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        });
        let serves = |current: &Current| current.read_at.is_some_and(|at| at.elapsed() < LAST_GOOD);
        catalogs.retain(|_, kept| kept.catalog.strong_count() > 0 || serves(&kept.current.lock()));
        let (weak, target) = (Arc::downgrade(&catalog), Arc::clone(target));
        catalogs.insert(key, Kept { catalog: weak, target, current });
        catalog
    }

    /// What was read last of a target's database, and how long ago. Asks nobody.
    pub(super) fn last_read(
        &self,
        target: &Arc<Target>,
        database: &str,
    ) -> Option<(Arc<Shapes>, Duration)> {
        let catalogs = self.0.lock();
        let kept = catalogs.get(&(target.name.clone(), database.to_owned()))?;
        let current = Arc::ptr_eq(&kept.target, target).then(|| kept.current.lock())?;
        Some((current.shapes.clone()?, current.read_at?.elapsed()))
    }
}

/// Why a catalog could not be read; for operators alone.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum NotRead {
    #[error("the credential cannot be read: {0}")]
    Credential(#[from] SecretError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("it could not be read a moment ago: {0}")]
    Lately(Arc<str>),
}

/// One database's catalog.
#[derive(Debug)]
pub(in super::super) struct TargetCatalog {
    target: Arc<Target>,
    connector: Connector,
    database: String,
    current: Arc<Mutex<Current>>,
    /// What was read of types, and when those that are still unknown were asked for. A type stays what
    /// it is.
    types: Mutex<(Arc<Types>, HashMap<u32, Instant>)>,
    /// Pending by the one that reads.
    reading: tokio::sync::Mutex<Reading>,
}

#[derive(Debug, Default)]
struct Current {
    shapes: Option<Arc<Shapes>>,
    read_at: Option<Instant>,
    /// There was no session since, so that nobody looked after it.
    stale: bool,
    /// When it was last read because of a name that it did not have.
    missed_at: Option<Instant>,
    /// Until when nobody tries again, and why, where it could not be read.
    failed: Option<(Instant, Arc<str>)>,
    /// How often it changed, as far as is known, and how often when it was read.
    changed: u64,
    read_after: u64,
}

#[derive(Debug, Default)]
struct Reading {
    connection: Option<Questions>,
    described: Described,
}

impl TargetCatalog {
    /// A session changed the catalog: what was read counts no more.
    pub(in super::super) fn changed(&self) {
        self.current.lock().changed += 1;
    }

    /// What is known of types without asking.
    pub(in super::super) fn known_types(&self) -> Arc<Types> {
        Arc::clone(&self.types.lock().0)
    }

    /// What is known of these types. Each is asked for once a second at most; one that cannot be
    /// read stays unknown. Cancel safe: a question that is left costs its connection.
    pub(in super::super) async fn types(&self, wanted: &[u32]) -> Arc<Types> {
        let has_all = |types: &Types| !types.is_empty() && wanted.iter().all(|oid| types.has(*oid));
        let known = self.known_types();
        if has_all(&known) {
            return known;
        }
        let mut reading = self.reading.lock().await;
        let known = self.known_types();
        if has_all(&known) || !self.is_time_to_ask(&known, wanted) {
            return known;
        }
        match self.read_types(&mut reading, wanted).await {
            Ok(rows) => {
                let types = Arc::new(known.with(rows.iter().filter_map(types::read).collect()));
                self.types.lock().0 = Arc::clone(&types);
                types
            }
            Err(error) => {
                tracing::warn!(target = %self.target.name, %error, "types not read: their values become NULL");
                known
            }
        }
    }

    /// Whether one of these types is unknown and was not asked for just now. Notes that it is.
    fn is_time_to_ask(&self, known: &Types, wanted: &[u32]) -> bool {
        let asked = &mut self.types.lock().1;
        asked.retain(|_, at| at.elapsed() < UNKNOWN_PAUSE);
        let mut new = false;
        for oid in wanted.iter().filter(|oid| known.is_empty() || !known.has(**oid)) {
            if asked.len() < MOST_ASKED && !asked.contains_key(oid) {
                asked.insert(*oid, Instant::now());
                new = true;
            }
        }
        new
    }

    async fn read_types(&self, reading: &mut Reading, wanted: &[u32]) -> Result<Vec<Row>, NotRead> {
        let question = types::question(wanted);
        if let Some(mut connection) = reading.connection.take() {
            let asked = connection.rows(&question).await;
            // One that is broken by now is tried once more, with a new connection.
            if matches!(asked, Ok(_) | Err(UpstreamError::Server(_))) {
                reading.connection = Some(connection);
                return Ok(asked?.into_iter().next().unwrap_or_default());
            }
        }
        let TargetKind::Postgres(target) = &self.target.kind else {
            let what = "the target has no catalog".to_owned();
            return Err(UpstreamError::Configuration(what).into());
        };
        let mut connection = self.connect(target).await?;
        let asked = connection.rows(&question).await?;
        reading.connection = Some(connection);
        Ok(asked.into_iter().next().unwrap_or_default())
    }

    /// What the catalog says. Cancel safe: a question that is left costs its connection.
    pub(in super::super) async fn shapes(
        &self,
        masks: &ColumnMasks,
    ) -> Result<Arc<Shapes>, NotRead> {
        if let Some(known) = self.known(masks, FRESH) {
            return Ok(known);
        }
        let mut reading = match (self.reading.try_lock(), self.known(masks, LAST_GOOD)) {
            (Ok(reading), _) => reading,
            // It is being read, and what was read last still serves.
            (Err(_), Some(last)) => return Ok(last),
            (Err(_), None) => self.reading.lock().await,
        };
        if let Some(known) = self.known(masks, FRESH) {
            return Ok(known);
        }
        let read = self.read_unless_failed(&mut reading, masks).await;
        read.or_else(|error| self.known(masks, LAST_GOOD).ok_or(error))
    }

    /// What it says now that something is named which `known` does not have. Soon after it was
    /// read, that is `known` again.
    pub(in super::super) async fn newer_than(
        &self,
        known: &Arc<Shapes>,
        masks: &ColumnMasks,
    ) -> Result<Arc<Shapes>, NotRead> {
        let newer = |shapes: Arc<Shapes>| (!Arc::ptr_eq(&shapes, known)).then_some(shapes);
        let mut reading = self.reading.lock().await;
        if let Some(newer) = self.known(masks, FRESH).and_then(newer) {
            return Ok(newer);
        }
        let missed = self.current.lock().missed_at;
        if missed.is_some_and(|at| at.elapsed() < UNKNOWN_PAUSE)
            && let Some(same) = self.known(masks, FRESH)
        {
            return Ok(same);
        }
        self.current.lock().missed_at = Some(Instant::now());
        let read = self.read_unless_failed(&mut reading, masks).await;
        read.or_else(|error| self.known(masks, LAST_GOOD).ok_or(error))
    }

    /// Reads it, but not soon after that failed.
    async fn read_unless_failed(
        &self,
        reading: &mut Reading,
        masks: &ColumnMasks,
    ) -> Result<Arc<Shapes>, NotRead> {
        if let Some((until, why)) = self.current.lock().failed.clone()
            && Instant::now() < until
        {
            return Err(NotRead::Lately(why));
        }
        let begun = Instant::now();
        let read = self.read(reading, masks).await;
        let failed = read.as_ref().err().map(|error| {
            let now = Instant::now();
            let until = if begun.elapsed() < SLOW { now } else { now + RETRY_PAUSE };
            (until, Arc::from(error.to_string()))
        });
        if let Some((_, error)) = &failed {
            tracing::warn!(target = %self.target.name, %error, "catalog not read");
        }
        self.current.lock().failed = failed;
        read
    }

    /// What was read at most so long ago, if nobody changed the catalog since.
    fn known(&self, masks: &ColumnMasks, fresh: Duration) -> Option<Arc<Shapes>> {
        let current = self.current.lock();
        let young = current.read_at.is_some_and(|at| at.elapsed() < fresh)
            && !(current.stale && fresh == FRESH);
        let valid = young && current.changed == current.read_after;
        current.shapes.as_ref().filter(|shapes| valid && shapes.of() == masks).cloned()
    }

    async fn read(
        &self,
        reading: &mut Reading,
        masks: &ColumnMasks,
    ) -> Result<Arc<Shapes>, NotRead> {
        let changed = self.current.lock().changed;
        let (read_at, read) = match reading.connection.take() {
            // One that is broken by now is tried once more, with a new connection.
            Some(mut connection) => {
                let at = Instant::now();
                match load::read(&mut connection, masks, &mut reading.described).await {
                    Ok(read) => {
                        reading.connection = Some(connection);
                        (at, read)
                    }
                    // The server answers: another connection would wait for the same.
                    Err(error @ UpstreamError::Server(_)) => {
                        connection.rows("ROLLBACK").await?;
                        reading.connection = Some(connection);
                        return Err(error.into());
                    }
                    Err(error) => {
                        tracing::debug!(target = %self.target.name, %error, "catalog asked anew");
                        self.read_anew(reading, masks).await?
                    }
                }
            }
            None => self.read_anew(reading, masks).await?,
        };
        let shapes = Arc::new(Shapes::new(masks, read));
        let mut current = self.current.lock();
        current.shapes = Some(Arc::clone(&shapes));
        (current.read_at, current.read_after) = (Some(read_at), changed);
        current.stale = false;
        Ok(shapes)
    }

    async fn read_anew(
        &self,
        reading: &mut Reading,
        masks: &ColumnMasks,
    ) -> Result<(Instant, super::catalog_snapshot::Read), NotRead> {
        let TargetKind::Postgres(target) = &self.target.kind else {
            let what = "the target has no catalog".to_owned();
            return Err(UpstreamError::Configuration(what).into());
        };
        let mut connection = self.connect(target).await?;
        let at = Instant::now();
        let read = load::read(&mut connection, masks, &mut reading.described).await?;
        reading.connection = Some(connection);
        Ok((at, read))
    }

    async fn connect(&self, target: &PostgresTarget) -> Result<Questions, NotRead> {
        let password = target.password.read().await?;
        let version = ProtocolVersion::V3_0;
        let upstream = self.connector.connect(&self.database, version, &[], &password).await?;
        let mut questions = Questions::from(upstream);
        questions.rows(load::SETTINGS).await?;
        Ok(questions)
    }
}
