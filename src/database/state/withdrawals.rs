//! What counts no more before its time: sessions that are to end, credentials that open nothing,
//! grants that were taken back, people who may nothing. Every gateway of the database holds the list in memory, so that
//! looking needs no database.

use std::collections::HashMap;
use std::time::SystemTime;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use super::super::queries::{Page, Place, QueryError, Wanted, audit};
use super::super::rows::{AuditEntry, Timestamp};
use super::super::{Database, DatabaseError};
use super::sight::Sight;
use crate::clock::Moment;
use crate::names::SessionId;

/// How many are read at once. All are read, however many there are: who was revoked must not
/// depend on how many others were.
const PAGE: i64 = 2_000;
/// A row that is written late may have an earlier time than one that was seen: a statement takes
/// ten seconds at most.
const OVERLAP: &str = "30 seconds";

/// The number of the first transaction that has not begun.
const NEXT_TRANSACTION: &str =
    "(select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as next) transactions";
/// Whether a row was committed after the snapshot `$7`. The time alone would have all that is as
/// young as [`OVERLAP`] read with each look, and a hundred thousand rows take longer to read than
/// an answer may be old. A row has the lower half of its transaction's number, which is less than
/// `next`. A server that knows of fewer transactions than the snapshot is another one: all that it
/// wrote is new.
const IS_NEW: &str = "(pg_snapshot_xmax($7::pg_snapshot)::text::bigint > next \
    or not pg_visible_in_snapshot(\
    (next - (next - withdrawals.xmin::text::bigint) % 4294967296)::text::xid8, $7::pg_snapshot))";

/// Tokens that were withdrawn with a session.
const TOKENS: &str = "select row_to_json(t) from (select w.key as id, w.session, s.issuer, \
    s.subject, s.username, w.at as withdrawn_at, w.username as withdrawn_by, w.until \
    from withdrawals w left join sessions s on s.id = w.session \
    where w.kind = 'credential' and w.session is not null and w.until > now()";

/// What is withdrawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WithdrawnKind {
    /// A session, by its id.
    Session,
    /// A token or ticket, by what revocation keys on.
    Credential,
    /// Access that was granted, by its id.
    Grant,
    /// Whoever an issuer calls by a subject, whatever they present, by issuer and subject.
    User,
}

impl WithdrawnKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Credential => "credential",
            Self::Grant => "grant",
            Self::User => "user",
        }
    }
}

/// One thing that was withdrawn.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Withdrawal {
    /// What it is.
    pub kind: WithdrawnKind,
    /// Which one.
    pub key: String,
    /// Until when it has to be remembered.
    pub until: Timestamp,
    /// Who withdrew it.
    pub username: String,
    /// When the gateway of a session ended it.
    pub ended_at: Option<Timestamp>,
    /// Of a session: what opened it goes on to count.
    #[serde(default)]
    pub keep_credential: bool,
}

/// A token that was withdrawn with a session that it opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawnToken {
    /// What revocation knows it by; not the token.
    pub id: String,
    /// The session.
    pub session: SessionId,
    /// Whose: the issuer, where the index knows the session.
    pub issuer: Option<String>,
    /// Whose: the subject.
    pub subject: Option<String>,
    /// The name shown to people.
    pub username: Option<String>,
    /// When that was.
    pub withdrawn_at: Timestamp,
    /// Who did it.
    pub withdrawn_by: String,
    /// Until when: the token's own end.
    pub until: Timestamp,
}

/// How far the list has been read.
#[derive(Debug, Clone)]
pub struct ReadTo {
    /// The time by the database's clock.
    at: Timestamp,
    /// What was committed then, as `pg_current_snapshot()` says it.
    snapshot: String,
}

/// Some of them.
#[derive(Debug)]
pub struct WithdrawalPage {
    /// What was withdrawn or given back.
    pub items: Vec<Withdrawal>,
    /// All that was committed when this page was read, or comes on later pages.
    pub read_to: ReadTo,
    /// Where the next page begins; none behind the last one.
    pub next: Option<WithdrawalPlace>,
}

/// A place among them.
#[derive(Debug)]
pub struct WithdrawalPlace {
    at: Timestamp,
    kind: WithdrawnKind,
    key: String,
}

/// One of them, with its place among the others.
#[derive(Debug, Deserialize)]
struct Row {
    at: Timestamp,
    #[serde(flatten)]
    withdrawal: Withdrawal,
}

/// The list in memory, with until when each has to be remembered, and who withdrew it. It is asked
/// by way of [`Known`], so that nobody asks it without deciding how old the answer may be.
#[derive(Debug, Default)]
pub struct Withdrawn {
    list: RwLock<HashMap<(WithdrawnKind, String), (SystemTime, String)>>,
    sight: Sight,
}

/// The list, to be asked now.
#[derive(Debug, Clone, Copy)]
pub struct Known<'w>(&'w Withdrawn);

impl Withdrawn {
    /// The list as it is in the database, or was [`PROMISE`](super::PROMISE) ago at most; while
    /// the database is known to be out of reach, as it was last. Waits for the database when the
    /// last look is older. Cancel safe.
    pub async fn current(&self) -> Known<'_> {
        self.sight.current().await;
        Known(self)
    }

    /// The list as it was last looked at, however long ago: for who is told of each change anyway,
    /// and only ends what goes on.
    pub fn last_known(&self) -> Known<'_> {
        Known(self)
    }

    /// Whether the last look at the database is young enough at that moment.
    pub fn is_current(&self, now: Moment) -> bool {
        self.sight.is_current(now)
    }

    /// From now on somebody watches the database, and tells of each look.
    pub fn is_watched(&self) {
        self.sight.is_watched();
    }

    /// A look that began then has been taken in, or has shown that the database is out of reach.
    pub fn looked(&self, began: Moment) {
        self.sight.looked(began);
    }

    /// Waits until somebody needs a newer look. Cancel safe.
    pub async fn wanted(&self) {
        self.sight.wanted().await;
    }

    /// Adds one, or takes it from the list when its time is over; whether it is new.
    pub fn add(&self, withdrawal: &Withdrawal) -> bool {
        let until = withdrawal.until.to_system_time();
        let key = (withdrawal.kind, withdrawal.key.clone());
        let mut list = self.list.write();
        if until <= SystemTime::now() {
            list.remove(&key);
            return false;
        }
        list.insert(key, (until, withdrawal.username.clone())).is_none()
    }

    /// Forgets those whose time is over.
    pub fn forget_old(&self, now: SystemTime) {
        self.list.write().retain(|_, (until, _)| *until > now);
    }
}

impl Known<'_> {
    /// Who withdrew it, if it was.
    pub fn by(self, kind: WithdrawnKind, key: &str) -> Option<String> {
        let list = self.0.list.read();
        if list.is_empty() {
            return None;
        }
        let (until, by) = list.get(&(kind, key.to_owned()))?;
        (*until > SystemTime::now()).then(|| by.clone())
    }

    /// Who withdrew a user, if somebody did.
    pub fn by_user(self, issuer: &str, subject: &str) -> Option<String> {
        if self.0.list.read().is_empty() {
            return None;
        }
        self.by(WithdrawnKind::User, &user_key(issuer, subject))
    }
}

impl Database {
    /// Withdraws something; when this returns every gateway will know.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn withdraw(
        &self,
        kind: WithdrawnKind,
        key: &str,
        until: Timestamp,
        by: &str,
    ) -> Result<(), DatabaseError> {
        let mut connection = self.pool.acquire().await?;
        withdraw(&mut connection, kind, key, &until.storable().to_string(), by).await
    }

    /// Has a session ended, wherever it is, and says so in the audit log at the same time; with
    /// `keep_credential` what opened it goes on to count.
    ///
    /// # Errors
    /// When the database fails; then nothing is ended, and nothing said.
    pub async fn end_session(
        &self,
        session: SessionId,
        until: Timestamp,
        keep_credential: bool,
        entry: &AuditEntry,
    ) -> Result<(), DatabaseError> {
        let mut transaction = self.pool.begin().await?;
        let (kind, key) = (WithdrawnKind::Session, session.to_string());
        let until = until.storable().to_string();
        withdraw(&mut transaction, kind, &key, &until, &entry.username).await?;
        sqlx::query(
            "update withdrawals set keep_credential = $2 where kind = 'session' and key = $1",
        )
        .bind(&key)
        .bind(keep_credential)
        .execute(&mut *transaction)
        .await?;
        audit(&mut transaction, entry).await?;
        Ok(transaction.commit().await?)
    }

    /// Withdraws what opened a session that was ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn withdraw_credential(
        &self,
        withdrawal: &Withdrawal,
        session: SessionId,
    ) -> Result<(), DatabaseError> {
        let Withdrawal { kind, key, until, username, .. } = withdrawal;
        let mut transaction = self.pool.begin().await?;
        let until = until.storable().to_string();
        withdraw(&mut transaction, *kind, key, &until, username).await?;
        sqlx::query("update withdrawals set session = $3 where kind = $1 and key = $2")
            .bind(kind.as_str())
            .bind(key)
            .bind(session.as_uuid())
            .execute(&mut *transaction)
            .await?;
        Ok(transaction.commit().await?)
    }

    /// Tokens that were withdrawn with a session and still are, the latest first.
    ///
    /// # Errors
    /// [`QueryError::Bad`] when the cursor is not one.
    pub async fn withdrawn_tokens(
        &self,
        wanted: &Wanted,
    ) -> Result<Page<WithdrawnToken>, QueryError> {
        let (limit, after) = (wanted.limit()?, wanted.cursor.as_deref());
        let after = after.map(Place::id).transpose()?;
        let query = format!(
            "{TOKENS} and ($1::uuid is null or w.session < $1) order by w.session desc limit $2) t"
        );
        let rows: Vec<Json<WithdrawnToken>> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .bind(after)
            .bind(i64::from(limit) + 1)
            .fetch_all(&self.pool)
            .await?;
        let rows = rows.into_iter().map(|row| row.0).collect();
        Ok(Page::of(rows, limit, |last: &WithdrawnToken| Place::of_id(last.session.as_uuid())))
    }

    /// The token that was withdrawn with a session, while it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token_of_session(
        &self,
        session: SessionId,
    ) -> Result<Option<WithdrawnToken>, DatabaseError> {
        let query = format!("{TOKENS} and w.session = $1) t");
        let row: Option<Json<WithdrawnToken>> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .bind(session.as_uuid())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.0))
    }

    /// Lets a token count again that was withdrawn with a session, and says so in the audit log at
    /// the same time; whether it was withdrawn.
    ///
    /// # Errors
    /// When the database fails; then nothing changed.
    pub async fn lift_token(&self, id: &str, entry: &AuditEntry) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool.begin().await?;
        let lifted = sqlx::query(
            "update withdrawals set until = clock_timestamp(), at = clock_timestamp() \
             where kind = 'credential' and key = $1 and session is not null and until > now()",
        )
        .bind(id)
        .execute(&mut *transaction)
        .await?;
        if lifted.rows_affected() == 0 {
            return Ok(false);
        }
        audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Notes that this gateway ended a session that was withdrawn.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session_was_ended(&self, session: &str) -> Result<(), DatabaseError> {
        sqlx::query(
            "update withdrawals set ended_at = clock_timestamp() \
             where kind = 'session' and key = $1 and ended_at is null",
        )
        .bind(session)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What was withdrawn or given back since an earlier read, or all that still counts: the page
    /// behind a place. Read to the last page, whatever was there when the first one was read is
    /// read.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn withdrawals(
        &self,
        since: Option<&ReadTo>,
        behind: Option<&WithdrawalPlace>,
    ) -> Result<WithdrawalPage, DatabaseError> {
        let query = format!(
            "select coalesce((select json_agg(w) from (select kind, key, until, username, \
             ended_at, keep_credential, at from withdrawals, {NEXT_TRANSACTION} where \
             case when $1::timestamptz is null then until > now() \
             else at > $1::timestamptz - $2::interval and {IS_NEW} end \
             and at >= coalesce($3::timestamptz, '-infinity') \
             and ($3::timestamptz is null or (at, kind, key) > ($3::timestamptz, $4, $5)) \
             order by at, kind, key limit $6) w), '[]'), to_json(clock_timestamp()), \
             pg_current_snapshot()::text"
        );
        let (Json(rows), Json(at), snapshot): (Json<Vec<Row>>, Json<Timestamp>, String) =
            sqlx::query_as(sqlx::AssertSqlSafe(query))
                .bind(since.map(|since| since.at.to_string()))
                .bind(OVERLAP)
                .bind(behind.map(|place| place.at.to_string()))
                .bind(behind.map(|place| place.kind.as_str()))
                .bind(behind.map(|place| place.key.as_str()))
                .bind(PAGE)
                .bind(since.map(|since| since.snapshot.as_str()))
                .fetch_one(&self.pool)
                .await?;
        let is_full = i64::try_from(rows.len()).unwrap_or(i64::MAX) >= PAGE;
        let next = rows.last().filter(|_| is_full).map(|last| WithdrawalPlace {
            at: last.at,
            kind: last.withdrawal.kind,
            key: last.withdrawal.key.clone(),
        });
        Ok(WithdrawalPage {
            items: rows.into_iter().map(|row| row.withdrawal).collect(),
            read_to: ReadTo { at, snapshot },
            next,
        })
    }

    /// The withdrawal of one session.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session_withdrawal(
        &self,
        session: &str,
    ) -> Result<Option<Withdrawal>, DatabaseError> {
        let row: Option<Json<Withdrawal>> = sqlx::query_scalar(
            "select row_to_json(w) from withdrawals w where kind = 'session' and key = $1",
        )
        .bind(session)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| row.0))
    }
}

/// A user's key: an issuer's URL holds no space.
pub(super) fn user_key(issuer: &str, subject: &str) -> String {
    format!("{issuer} {subject}")
}

/// Withdraws within a transaction.
pub(super) async fn withdraw(
    connection: &mut PgConnection,
    kind: WithdrawnKind,
    key: &str,
    until: &str,
    by: &str,
) -> Result<(), DatabaseError> {
    // Of a user the last word counts, which may shorten; what opened something stays refused until
    // it is worth nothing by itself.
    sqlx::query(
        "insert into withdrawals (kind, key, until, username) values ($1, $2, $3::timestamptz, $4) \
         on conflict (kind, key) do update set at = clock_timestamp(), \
         until = case excluded.kind when 'user' then excluded.until \
         else greatest(withdrawals.until, excluded.until) end, \
         username = case excluded.kind when 'user' then excluded.username \
         else withdrawals.username end",
    )
    .bind(kind.as_str())
    .bind(key)
    .bind(until)
    .bind(by)
    .execute(connection)
    .await?;
    Ok(())
}
