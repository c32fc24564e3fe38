//! One view of each target's catalog, shared by the sessions that mask there.
//!
//! It is read over a connection of its own with the target's credential, which stays open for as
//! long as a session needs it. What was read counts for some seconds, unless a session changed
//! the catalog. A catalog that cannot be read is an error, and whoever asked masks by nothing then:
//! nothing passes.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::{PostgresTarget, SecretError, Target, TargetKind};
use crate::names::TargetName;
use crate::protocol::postgres::upstream::{Connector, ProtocolVersion, Questions, UpstreamError};

use super::load::{self, Described};
use super::shapes::{ColumnMasks, Shapes};

/// How long what was read counts: until then a view that somebody changed elsewhere is masked as
/// it was.
const FRESH: Duration = Duration::from_secs(10);
/// How long after it was read again because of a name that it did not have, it is not again.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(1);

/// The catalogs of all targets that sessions mask on.
#[derive(Debug, Default)]
pub(in super::super) struct Catalogs(Mutex<HashMap<(TargetName, String), Weak<TargetCatalog>>>);

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
        let known = catalogs.get(&key).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| Arc::ptr_eq(&known.target, target)) {
            return known;
        }
        let catalog = Arc::new(TargetCatalog {
            target: Arc::clone(target),
            connector: connector.clone(),
            database: database.to_owned(),
            current: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        });
        catalogs.retain(|_, catalog| catalog.strong_count() > 0);
        catalogs.insert(key, Arc::downgrade(&catalog));
        catalog
    }
}

/// Why a catalog could not be read; for operators alone.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum NotRead {
    #[error("the credential cannot be read: {0}")]
    Credential(#[from] SecretError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// One database's catalog.
#[derive(Debug)]
pub(in super::super) struct TargetCatalog {
    target: Arc<Target>,
    connector: Connector,
    database: String,
    current: Mutex<Current>,
    /// Held by the one that reads.
    reading: tokio::sync::Mutex<Reading>,
}

#[derive(Debug, Default)]
struct Current {
    shapes: Option<Arc<Shapes>>,
    read_at: Option<Instant>,
    /// When it was last read because of a name that it did not have.
    missed_at: Option<Instant>,
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

    /// What the catalog says. Cancel safe: a question that is left costs its connection.
    pub(in super::super) async fn shapes(
        &self,
        masks: &ColumnMasks,
    ) -> Result<Arc<Shapes>, NotRead> {
        if let Some(known) = self.known(masks, FRESH) {
            return Ok(known);
        }
        let mut reading = self.reading.lock().await;
        if let Some(known) = self.known(masks, FRESH) {
            return Ok(known);
        }
        self.read(&mut reading, masks).await
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
        self.read(&mut reading, masks).await
    }

    fn known(&self, masks: &ColumnMasks, fresh: Duration) -> Option<Arc<Shapes>> {
        let current = self.current.lock();
        let young = current.read_at.is_some_and(|at| at.elapsed() < fresh);
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
        Ok(shapes)
    }

    async fn read_anew(
        &self,
        reading: &mut Reading,
        masks: &ColumnMasks,
    ) -> Result<(Instant, super::shapes::Read), NotRead> {
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
