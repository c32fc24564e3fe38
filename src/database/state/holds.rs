//! Legal holds: what must stay, who said so, and since when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::super::queries::{audit, found_among, found_without_file};
use super::super::rows::{AuditEntry, Timestamp, storable_json};
use super::super::{Database, DatabaseError, Filter};
use crate::names::{HoldId, SessionId};

/// Holds in force at most: each is looked at before anything is deleted.
const MOST: i64 = 10_000;
/// Holds that are listed at most.
const LISTED: i64 = 1000;

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Its id.
    pub id: HoldId,
    /// Why.
    pub reason: String,
    /// What it covers.
    pub filter: HoldFilter,
    /// Since when.
    pub set_at: Timestamp,
    /// Who set it.
    pub set_by: String,
    /// When it was lifted, if it was.
    pub lifted_at: Option<Timestamp>,
    /// Who lifted it.
    pub lifted_by: Option<String>,
    /// Why it was lifted.
    pub lift_reason: Option<String>,
}

/// What came of setting a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldSet {
    /// It is in force.
    Set,
    /// The one session that it is for has been deleted; there is no such hold.
    Deleted,
}

/// What a hold covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HoldFilter {
    /// One session.
    Session(OneSession),
    /// Every session that a filter finds, whenever it comes.
    Query(Box<Filter>),
}

/// A session by its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneSession {
    /// Its id.
    pub session: SessionId,
}

impl HoldFilter {
    /// Which of these sessions it covers.
    pub(in crate::database) async fn among(
        &self,
        connection: &mut PgConnection,
        sessions: &[Uuid],
    ) -> Result<Vec<SessionId>, DatabaseError> {
        match self {
            Self::Session(OneSession { session }) => {
                Ok(sessions.contains(&session.as_uuid()).then_some(*session).into_iter().collect())
            }
            Self::Query(filter) => Ok(found_among(connection, filter, sessions).await?),
        }
    }
}

impl Database {
    /// Sets a hold. It waits for a deletion that is under way; when this returns, nothing that it
    /// covers is deleted any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_hold(&self, hold: &Hold) -> Result<(), DatabaseError> {
        let json = storable_json(hold).map_err(|e| DatabaseError::Refused(e.to_string()))?;
        sqlx::query(
            "insert into holds select * from json_populate_record(null::holds, $1::json) \
             on conflict (id) do nothing",
        )
        .bind(json)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Sets a hold that somebody asks for, and says so in the audit log at the same time. It waits
    /// for a deletion that is under way, and then looks whether what it is for is still there.
    ///
    /// # Errors
    /// When the database fails, or the deletion takes too long; then there is no such hold.
    pub async fn set_hold_for(
        &self,
        hold: &Hold,
        entry: &AuditEntry,
    ) -> Result<HoldSet, DatabaseError> {
        let json = storable_json(hold).map_err(|e| DatabaseError::Refused(e.to_string()))?;
        let mut transaction = self.pool.begin().await?;
        sqlx::query("insert into holds select * from json_populate_record(null::holds, $1::json)")
            .bind(json)
            .execute(&mut *transaction)
            .await?;
        // A deletion holds the table's lock while it deletes: what it did is seen from here on.
        if let HoldFilter::Session(OneSession { session }) = &hold.filter {
            let there: bool = sqlx::query_scalar(
                "select exists (select from sessions where id = $1) and not exists \
                 (select from retained where session = $1 and state = 'gone')",
            )
            .bind(session.as_uuid())
            .fetch_one(&mut *transaction)
            .await?;
            if !there {
                return Ok(HoldSet::Deleted);
            }
        }
        audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(HoldSet::Set)
    }

    /// Lifts a hold; what it was if it was in force.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lift_hold(
        &self,
        id: HoldId,
        by: &str,
        reason: Option<&str>,
    ) -> Result<Option<Hold>, DatabaseError> {
        self.lift(id, (by, reason), None).await
    }

    /// The same when somebody asks for it; the audit log says so at the same time.
    ///
    /// # Errors
    /// When the database fails; then nothing changed.
    pub async fn lift_hold_for(
        &self,
        id: HoldId,
        reason: Option<&str>,
        entry: &AuditEntry,
    ) -> Result<Option<Hold>, DatabaseError> {
        self.lift(id, (&entry.username, reason), Some(entry)).await
    }

    async fn lift(
        &self,
        id: HoldId,
        (by, reason): (&str, Option<&str>),
        entry: Option<&AuditEntry>,
    ) -> Result<Option<Hold>, DatabaseError> {
        let mut connection = self.connect().await?;
        let mut write = connection.begin().await?;
        let lifted: Option<Json<Hold>> = sqlx::query_scalar(
            "update holds h set lifted_at = clock_timestamp(), lifted_by = $2, lift_reason = $3 \
             where id = $1 and lifted_at is null returning row_to_json(h)",
        )
        .bind(id.as_uuid())
        .bind(by)
        .bind(reason)
        .fetch_optional(&mut *write)
        .await?;
        // What others hold is found again before it is deleted.
        sqlx::query("update retained set state = 'kept' where state = 'held'")
            .execute(&mut *write)
            .await?;
        if let (Some(entry), true) = (entry, lifted.is_some()) {
            audit(&mut write, entry).await?;
        }
        write.commit().await?;
        Ok(lifted.map(|hold| hold.0))
    }

    /// Holds, the latest first, a thousand at most: those in force, or all.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn holds(&self, all: bool) -> Result<Vec<Hold>, DatabaseError> {
        let rows: Vec<Json<Hold>> = sqlx::query_scalar(
            "select row_to_json(h) from (select * from holds where $1 or lifted_at is null \
             order by set_at desc limit $2) h",
        )
        .bind(all)
        .bind(LISTED)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// One hold.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn hold(&self, id: HoldId) -> Result<Option<Hold>, DatabaseError> {
        let row: Option<Json<Hold>> =
            sqlx::query_scalar("select row_to_json(h) from holds h where id = $1")
                .bind(id.as_uuid())
                .fetch_optional(&self.pool)
                .await?;
        Ok(row.map(|row| row.0))
    }

    /// Sessions of a gateway that a hold covers and beside which its file does not stand yet.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn held_without_file(
        &self,
        hold: &Hold,
        gateway: &str,
        limit: i64,
    ) -> Result<Vec<SessionId>, DatabaseError> {
        let mut connection = self.pool.acquire().await?;
        let id = hold.id.as_uuid();
        let found = match &hold.filter {
            HoldFilter::Query(filter) => {
                found_without_file(&mut connection, (filter, id), gateway, limit).await?
            }
            HoldFilter::Session(OneSession { session }) => {
                let wanted: bool = sqlx::query_scalar(
                    "select exists (select from sessions where id = $1 and gateway = $2) and not \
                     exists (select from hold_files where session = $1 and hold = $3)",
                )
                .bind(session.as_uuid())
                .bind(gateway)
                .bind(id)
                .fetch_one(&mut *connection)
                .await?;
                wanted.then_some(*session).into_iter().collect()
            }
        };
        Ok(found)
    }

    /// Sessions of a gateway beside which the file of a hold stands that was lifted.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lifted_with_file(
        &self,
        gateway: &str,
        limit: i64,
    ) -> Result<Vec<(HoldId, SessionId)>, DatabaseError> {
        let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
            "select f.hold, f.session from hold_files f join holds h on h.id = f.hold \
             where h.lifted_at is not null and f.gateway = $1 limit $2",
        )
        .bind(gateway)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        let pair = |(hold, session)| Some((HoldId::from(hold), SessionId::of(session)?));
        Ok(rows.into_iter().filter_map(pair).collect())
    }

    /// The holds in force whose files stand beside these sessions.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn holds_beside(
        &self,
        sessions: &[SessionId],
    ) -> Result<BTreeMap<SessionId, Vec<Hold>>, DatabaseError> {
        let ids: Vec<Uuid> = sessions.iter().map(SessionId::as_uuid).collect();
        let rows: Vec<(Uuid, Json<Hold>)> = sqlx::query_as(
            "select f.session, row_to_json(h) from hold_files f join holds h on h.id = f.hold \
             where f.session = any($1) and h.lifted_at is null order by h.set_at, h.id",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        let mut beside: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (session, Json(hold)) in rows {
            if let Some(session) = SessionId::of(session) {
                beside.entry(session).or_default().push(hold);
            }
        }
        Ok(beside)
    }

    /// Notes that the file of a hold stands beside sessions.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_hold_files(
        &self,
        hold: HoldId,
        sessions: &[SessionId],
        gateway: &str,
    ) -> Result<(), DatabaseError> {
        let ids: Vec<Uuid> = sessions.iter().map(SessionId::as_uuid).collect();
        sqlx::query(
            "insert into hold_files (hold, session, gateway) select $1, s, $3 \
             from unnest($2::uuid[]) s on conflict do nothing",
        )
        .bind(hold.as_uuid())
        .bind(ids)
        .bind(gateway)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Notes that the file of a hold stands beside a session no more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_hold_file(
        &self,
        hold: HoldId,
        session: SessionId,
    ) -> Result<(), DatabaseError> {
        sqlx::query("delete from hold_files where hold = $1 and session = $2")
            .bind(hold.as_uuid())
            .bind(session.as_uuid())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// All holds in force.
pub(in crate::database) async fn in_force(
    connection: &mut PgConnection,
) -> Result<Vec<Hold>, DatabaseError> {
    let query = "select row_to_json(h) from holds h where lifted_at is null limit $1";
    let rows: Vec<Json<Hold>> = sqlx::query_scalar(query).bind(MOST).fetch_all(connection).await?;
    if i64::try_from(rows.len()).is_ok_and(|rows| rows == MOST) {
        return Err(DatabaseError::Refused("there are too many holds in force".to_owned()));
    }
    Ok(rows.into_iter().map(|row| row.0).collect())
}
