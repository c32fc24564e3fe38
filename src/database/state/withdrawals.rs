//! What counts no more before its time: sessions that are to end, credentials that open nothing,
//! grants that were taken back, people who may nothing. Every gateway of the database holds the list in memory, so that
//! looking needs no database.

use std::collections::HashMap;
use std::time::SystemTime;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use super::super::rows::Timestamp;
use super::super::{Database, DatabaseError};

/// How many are held at most; later ones than that are a day's work of many people.
const MOST: i64 = 100_000;
/// A row that is written late may have an earlier time than one that was seen: a statement takes
/// ten seconds at most.
const OVERLAP: &str = "30 seconds";

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
}

/// The list in memory, with until when each has to be remembered, and who withdrew it.
#[derive(Debug, Default)]
pub struct Withdrawn(RwLock<HashMap<(WithdrawnKind, String), (SystemTime, String)>>);

impl Withdrawn {
    /// Who withdrew it, if it was.
    pub fn by(&self, kind: WithdrawnKind, key: &str) -> Option<String> {
        let list = self.0.read();
        if list.is_empty() {
            return None;
        }
        let (until, by) = list.get(&(kind, key.to_owned()))?;
        (*until > SystemTime::now()).then(|| by.clone())
    }

    /// Who withdrew a user, if somebody did.
    pub fn by_user(&self, issuer: &str, subject: &str) -> Option<String> {
        if self.0.read().is_empty() {
            return None;
        }
        self.by(WithdrawnKind::User, &user_key(issuer, subject))
    }

    /// Adds one, or takes it from the list when its time is over; whether it is new.
    pub fn add(&self, withdrawal: &Withdrawal) -> bool {
        let until = withdrawal.until.to_system_time();
        let key = (withdrawal.kind, withdrawal.key.clone());
        let mut list = self.0.write();
        if until <= SystemTime::now() {
            list.remove(&key);
            return false;
        }
        list.insert(key, (until, withdrawal.username.clone())).is_none()
    }

    /// Forgets those whose time is over.
    pub fn forget_old(&self, now: SystemTime) {
        self.0.write().retain(|_, (until, _)| *until > now);
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

    /// What was withdrawn or given back since a time, or all that still counts; and the time to ask
    /// with next.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn withdrawals(
        &self,
        since: Option<Timestamp>,
    ) -> Result<(Vec<Withdrawal>, Timestamp), DatabaseError> {
        let (rows, now): (Json<Vec<Withdrawal>>, Json<Timestamp>) = sqlx::query_as(
            "select coalesce((select json_agg(w) from (select kind, key, until, username, ended_at \
             from withdrawals where case when $1::timestamptz is null then until > now() \
             else at > $1::timestamptz - $2::interval end \
             order by at desc limit $3) w), '[]'), to_json(clock_timestamp())",
        )
        .bind(since.map(|since| since.to_string()))
        .bind(OVERLAP)
        .bind(MOST)
        .fetch_one(&self.pool)
        .await?;
        Ok((rows.0, now.0))
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
