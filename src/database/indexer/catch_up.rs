//! Which recordings are ahead of the index, and taking some of them further: one round, one
//! transaction.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use sqlx::{Connection as _, Executor as _};
use time::Date;
use uuid::Uuid;

use super::advance::read_on;
use super::batch::{self, Batch, Position};
use super::lag::LagWatch;
use super::reading::Reading;
use super::undecryptable::forget_locked;
use crate::database::DatabaseError;
use crate::database::rows::{Session, storable_json};
use crate::names::SessionId;
use crate::recording::{Changed, Keyring, LedgerFollower, LedgerNews, ReadError};

/// Recordings that are taken further in one round.
const MAX_RECORDINGS: usize = 64;
/// Recordings kept in mind: open ones, and those to catch up with. The ledger is read no further
/// while there are more.
const MAX_UNSEALED: usize = 1 << 16;
/// Lines of the ledger that are read in one round.
const MAX_NEWS: usize = 4096;
/// Recordings whose reading is kept for the next block; with what each remembers, at most 64 MiB.
const MAX_READINGS: usize = 1024;

/// Where the recordings of one gateway are, and how their rows are made.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) data_dir: PathBuf,
    pub(super) gateway: String,
    pub(super) index_text: bool,
    pub(super) keyring: Keyring,
}

/// Why a round was not written.
#[derive(Debug)]
pub(super) enum RoundError {
    /// The database failed.
    Database(DatabaseError),
    /// The database is not as this gateway left it: restored, or replaced.
    Stale,
}

impl<E: Into<DatabaseError>> From<E> for RoundError {
    fn from(error: E) -> Self {
        Self::Database(error.into())
    }
}

/// What is known of the recordings since the index was last loaded.
#[derive(Debug)]
pub(super) struct Following {
    place: Place,
    ledger: LedgerFollower,
    /// Recordings that retention took away, read ahead in the ledger when one is missing.
    buried: HashSet<SessionId>,
    ahead: Option<LedgerFollower>,
    /// Not sealed, as far as the index knows.
    unsealed: HashSet<SessionId>,
    /// Of these, those to look at, in turn; and until when each is in the index, where that is
    /// known.
    queue: VecDeque<SessionId>,
    queued: HashMap<SessionId, Option<Instant>>,
    /// When news were last looked for.
    looked: Option<Instant>,
    readings: HashMap<SessionId, Reading>,
    partitions: BTreeSet<Date>,
    /// Those of the round under way.
    turn: Vec<SessionId>,
    /// Whether each recording is written alone, to find the one that the database refuses.
    one_by_one: bool,
    lag: LagWatch,
}

/// What a round did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) rows: u64,
    /// Recordings still to look at.
    pub(super) left: u64,
    pub(super) ledger_bytes: u64,
    /// What was recorded until then is in the index; none while that is not known.
    pub(super) whole_until: Option<Instant>,
}

impl Following {
    /// Begins where the index says that it is.
    pub(super) async fn load(
        connection: &mut PgConnection,
        place: Place,
        lag: LagWatch,
    ) -> Result<Self, RoundError> {
        let offset = ledger_offset(connection, &place.gateway).await?.unwrap_or(0);
        let ledger = LedgerFollower::open(&place.data_dir, offset)
            .or_else(|_| LedgerFollower::open(&place.data_dir, 0))
            .map_err(|error| sqlx::Error::Io(io::Error::other(format!("the ledger: {error}"))))?;
        if place.keyring.has_identities() {
            forget_locked(connection, &place.gateway).await?;
        }
        let open: Vec<Uuid> = sqlx::query_scalar(
            "select session from recordings where gateway = $1 and not sealed and failed is null",
        )
        .bind(&place.gateway)
        .fetch_all(connection)
        .await?;
        let open = open.into_iter().filter_map(|id| id.to_string().parse().ok());
        let mut following = Self {
            place,
            ledger,
            buried: HashSet::new(),
            ahead: None,
            unsealed: open.collect(),
            queue: VecDeque::new(),
            queued: HashMap::new(),
            looked: None,
            readings: HashMap::new(),
            partitions: BTreeSet::new(),
            turn: Vec::new(),
            one_by_one: false,
            lag,
        };
        following.look_at_all();
        Ok(following)
    }

    /// Puts every recording that is not sealed into the queue: whatever was missed is found.
    pub(super) fn look_at_all(&mut self) {
        let all: Vec<_> = self.unsealed.iter().copied().collect();
        all.into_iter().for_each(|session| self.enqueue(session, self.looked));
    }

    /// Whether the index is as this left it.
    pub(super) async fn check(&self, connection: &mut PgConnection) -> Result<(), RoundError> {
        match ledger_offset(connection, &self.place.gateway).await? {
            Some(offset) if offset == self.ledger.offset() => Ok(()),
            _ => Err(RoundError::Stale),
        }
    }

    /// Takes some recordings further. When this fails, what is in memory is ahead of the database:
    /// load it anew.
    pub(super) async fn round(
        &mut self,
        connection: &mut PgConnection,
        changed: Changed,
    ) -> Result<Round, RoundError> {
        let (began_at, began) = (self.ledger.offset(), Instant::now());
        let announced = self.read_ledger();
        if changed.and_others {
            self.look_at_all();
        }
        for session in changed.sessions {
            if self.unsealed.contains(&session) {
                self.enqueue(session, self.looked);
            }
        }
        let ledger_bytes = self.ledger.behind().unwrap_or(0);
        // Behind an unread part of the ledger anything may stand.
        self.looked = (ledger_bytes == 0).then_some(began);
        let count = if self.one_by_one { 1 } else { MAX_RECORDINGS.min(self.queue.len()) };
        let turn: Vec<_> = self.queue.drain(..count.min(self.queue.len())).collect();
        let until: Vec<_> = turn.iter().map(|id| self.queued.remove(id).flatten()).collect();
        self.one_by_one &= !self.queue.is_empty();
        self.turn.clone_from(&turn);

        let before = self.take_up(connection, &turn).await?;
        let mut batch = Batch::default();
        let (mut restarted, mut unfinished, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (session, until) in turn.iter().zip(until) {
            match self.read_on(*session, &mut batch) {
                Read::Whole => {}
                Read::More => {
                    let read =
                        self.readings.get(session).and_then(|r| r.last_us).and_then(instant_of);
                    unfinished.push((*session, until.max(read)));
                }
                Read::Again => {
                    restarted.push(*session);
                    unfinished.push((*session, None));
                }
                Read::Gone => gone.push(*session),
            }
        }
        let touched: Vec<_> = turn
            .iter()
            .filter_map(|session| self.readings.get(session))
            .filter(|r| before.get(&r.id) != Some(&Position::of(r, &self.place.gateway)))
            .collect();
        let rows = batch.rows() as u64;
        if !touched.is_empty()
            || !gone.is_empty()
            || !announced.is_empty()
            || self.ledger.offset() != began_at
        {
            let mut write = connection.begin().await?;
            // What a crash of the database takes is indexed again: the position goes with it.
            write.execute("set local synchronous_commit = off").await?;
            compare(&mut write, &before).await?;
            let (stale, announced) = without(&gone, restarted, announced);
            if !stale.is_empty() {
                batch::delete(&mut write, &stale).await?;
            }
            batch::make_partitions(&mut write, touched.iter().map(|r| r.id), &mut self.partitions)
                .await?;
            let touched = touched.iter().copied();
            batch::write(&mut write, &self.place.gateway, &batch, touched).await?;
            announce(&mut write, &self.place.gateway, &announced, self.ledger.offset()).await?;
            write.commit().await?;
        }
        self.put_down(&turn, unfinished);
        let known = self.queued.values().copied().chain([self.looked]);
        let whole_until = known.min().flatten();
        Ok(Round { rows, left: self.queue.len() as u64, ledger_bytes, whole_until })
    }

    /// After the database refused a batch: tries its recordings one by one, or, when it was one
    /// alone, leaves that one out.
    pub(super) async fn isolate(
        self,
        connection: &mut PgConnection,
        error: &DatabaseError,
    ) -> Result<Self, RoundError> {
        if let [session] = *self.turn {
            tracing::error!(%session, %error, "the index takes no more of this recording");
            let mut reading = Reading::new(session);
            reading.failed = Some(error.to_string());
            let mut write = connection.begin().await?;
            batch::delete(&mut write, &[session]).await?;
            let readings = std::iter::once(&reading);
            batch::write(&mut write, &self.place.gateway, &Batch::default(), readings).await?;
            write.commit().await?;
            self.lag.recording_failed();
        }
        let mut again = Self::load(connection, self.place, self.lag).await?;
        again.one_by_one = true;
        Ok(again)
    }

    /// Puts a recording, which is in the index until then, into the queue.
    fn enqueue(&mut self, session: SessionId, until: Option<Instant>) {
        if let Entry::Vacant(entry) = self.queued.entry(session) {
            entry.insert(until);
            self.queue.push_back(session);
        }
    }

    /// Reads what is new in the ledger; gives the recordings that were opened.
    fn read_ledger(&mut self) -> Vec<SessionId> {
        let mut opened = Vec::new();
        for _ in 0..MAX_NEWS {
            if self.unsealed.len() >= MAX_UNSEALED {
                break;
            }
            match self.ledger.next_line() {
                Ok(Some(LedgerNews::Opened(session))) => {
                    self.unsealed.insert(session);
                    self.enqueue(session, self.looked);
                    opened.push(session);
                }
                Ok(Some(LedgerNews::Sealed(session) | LedgerNews::Damaged(session))) => {
                    if self.unsealed.contains(&session) {
                        self.enqueue(session, self.looked);
                    }
                }
                // Its rows go with it, or, when they come after it, with the first look at it.
                Ok(Some(LedgerNews::Gateway(_) | LedgerNews::Buried(_) | LedgerNews::Other)) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::error!(%error, "the index cannot read the ledger");
                    break;
                }
            }
        }
        opened
    }

    /// Makes sure of a reading for each recording; gives how far the index has those it knows.
    async fn take_up(
        &mut self,
        connection: &mut PgConnection,
        turn: &[SessionId],
    ) -> Result<HashMap<SessionId, Position>, RoundError> {
        if self.readings.len() > MAX_READINGS {
            self.readings.clear();
        }
        let fresh = |id: &&SessionId| !self.readings.contains_key(*id);
        let ids: Vec<Uuid> = turn.iter().filter(fresh).map(SessionId::as_uuid).collect();
        if !ids.is_empty() {
            let rows: Vec<(Json<Position>, Option<Json<Session>>)> = sqlx::query_as(
                "select row_to_json(r), row_to_json(s) from recordings r \
                 left join sessions s on s.id = r.session where r.session = any($1)",
            )
            .bind(ids)
            .fetch_all(connection)
            .await?;
            for (Json(position), row) in rows {
                let reading = position.resume(row.map(|row| row.0));
                self.readings.insert(reading.id, reading);
            }
        }
        let known = turn.iter().filter_map(|session| self.readings.get(session));
        let known = known.map(|r| (r.id, Position::of(r, &self.place.gateway))).collect();
        for session in turn {
            self.readings.entry(*session).or_insert_with(|| Reading::new(*session));
        }
        Ok(known)
    }

    /// Reads one recording on until its end or a full batch.
    fn read_on(&mut self, session: SessionId, batch: &mut Batch) -> Read {
        let Some(reading) = self.readings.get_mut(&session) else { return Read::Whole };
        if batch.is_full() {
            return Read::More;
        }
        let resumed = reading.position.offset > 0;
        match read_on(&self.place, reading, batch) {
            Ok(true) => {
                if reading.failed.is_some() {
                    tracing::warn!(
                        %session,
                        "the index lacks what is encrypted of a recording; with [recording] \
                         identity it catches up"
                    );
                    self.lag.recording_failed();
                }
                Read::Whole
            }
            Ok(false) => Read::More,
            Err(ReadError::Damage(damage)) if resumed => {
                // What was indexed may be of blocks that a failed write took back.
                tracing::warn!(%session, %damage, "indexing a recording again from its beginning");
                batch.forget(session);
                *reading = Reading::new(session);
                Read::Again
            }
            Err(ReadError::Io(error)) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%session, %error, "cannot read a recording for the index");
                Read::Whole
            }
            Err(ReadError::Io(_)) if self.is_buried(session) => {
                self.readings.remove(&session);
                self.unsealed.remove(&session);
                Read::Gone
            }
            Err(error) => {
                let Some(reading) = self.readings.get_mut(&session) else { return Read::Whole };
                tracing::error!(%session, %error, "the index has no more of this recording");
                self.lag.recording_failed();
                reading.failed = Some(error.to_string());
                Read::Whole
            }
        }
    }

    /// Whether the ledger has a tombstone of a recording whose file is not there.
    fn is_buried(&mut self, session: SessionId) -> bool {
        if !self.buried.contains(&session) {
            if self.ahead.is_none() {
                self.ahead = LedgerFollower::open(&self.place.data_dir, 0).ok();
            }
            while let Some(Ok(Some(news))) = self.ahead.as_mut().map(LedgerFollower::next_line) {
                if let LedgerNews::Buried(session) = news {
                    self.buried.insert(session);
                }
            }
        }
        self.buried.contains(&session)
    }

    /// Forgets what is finished and puts the rest back into the queue.
    fn put_down(&mut self, turn: &[SessionId], unfinished: Vec<(SessionId, Option<Instant>)>) {
        for session in turn {
            let done = |r: &Reading| r.sealed || r.failed.is_some();
            if self.readings.get(session).is_some_and(done) {
                self.readings.remove(session);
                self.unsealed.remove(session);
                self.place.keyring.release(session);
            }
        }
        unfinished.into_iter().for_each(|(session, until)| self.enqueue(session, until));
    }
}

enum Read {
    /// All that there is now.
    Whole,
    /// There is more.
    More,
    /// It has to be read from the beginning.
    Again,
    /// Retention took it away.
    Gone,
}

/// When the clock on the wall said this, in microseconds since 1970.
fn instant_of(wall_us: i64) -> Option<Instant> {
    let then = UNIX_EPOCH + Duration::from_micros(wall_us.try_into().ok()?);
    Instant::now().checked_sub(SystemTime::now().duration_since(then).unwrap_or_default())
}

/// The sessions whose rows go, and those opened that are not gone.
fn without(
    gone: &[SessionId],
    mut restarted: Vec<SessionId>,
    mut announced: Vec<SessionId>,
) -> (Vec<SessionId>, Vec<SessionId>) {
    restarted.extend(gone);
    announced.retain(|session| !gone.contains(session));
    (restarted, announced)
}

pub(super) async fn ledger_offset(
    connection: &mut PgConnection,
    gateway: &str,
) -> Result<Option<u64>, DatabaseError> {
    let offset: Option<i64> =
        sqlx::query_scalar("select file_offset from ledgers where gateway = $1")
            .bind(gateway)
            .fetch_optional(connection)
            .await?;
    Ok(offset.and_then(|offset| offset.try_into().ok()))
}

/// Holds the positions that rows are added to against those in the database.
async fn compare(
    connection: &mut PgConnection,
    before: &HashMap<SessionId, Position>,
) -> Result<(), RoundError> {
    let ids: Vec<Uuid> = before.keys().map(SessionId::as_uuid).collect();
    let rows: Vec<Json<Position>> = sqlx::query_scalar(
        "select row_to_json(r) from recordings r where session = any($1) for update",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let same = |position: &Position| before.get(&position.session) == Some(position);
    if rows.len() == before.len() && rows.iter().all(|row| same(&row.0)) {
        Ok(())
    } else {
        Err(RoundError::Stale)
    }
}

/// Notes how far the ledger was read, and the recordings that it named, so that none is forgotten
/// when the gateway ends before their turn.
pub(super) async fn announce(
    connection: &mut PgConnection,
    gateway: &str,
    opened: &[SessionId],
    ledger_offset: u64,
) -> Result<(), DatabaseError> {
    if !opened.is_empty() {
        let readings = opened.iter().map(|session| Reading::new(*session));
        let positions: Vec<_> = readings.map(|r| Position::of(&r, gateway)).collect();
        let json = storable_json(&positions).map_err(|e| DatabaseError::Refused(e.to_string()))?;
        sqlx::query(
            "insert into recordings select * from json_populate_recordset(null::recordings, \
             $1::json) on conflict (session) do nothing",
        )
        .bind(json)
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query(
        "insert into ledgers (gateway, file_offset) values ($1, $2) \
         on conflict (gateway) do update set file_offset = excluded.file_offset",
    )
    .bind(gateway)
    .bind(i64::try_from(ledger_offset).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(())
}
