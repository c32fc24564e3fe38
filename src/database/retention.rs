//! What is due to be deleted, and deleting the rows of what was.
//!
//! Sealed recordings are in classes, one for each target and set of groups; of each class those
//! that ended before some time are found by an index, so what stays is never looked at.

use std::collections::BTreeSet;

use serde::Deserialize;
use sqlx::types::Json;
use sqlx::{Connection as _, Postgres, Transaction};
use uuid::Uuid;

use super::indexer::delete_rows_of;
use super::rows::{AuditEntry, Timestamp};
use super::state::in_force;
use super::{Database, DatabaseError};
use crate::names::SessionId;

/// Rows of commands that are deleted at once.
const BATCH: i64 = 5000;

/// Sessions that are kept equally long.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RetentionClass {
    /// Its number.
    pub id: i64,
    /// The target; empty for what gateways recorded of themselves.
    pub target: String,
    /// The groups of the callers.
    pub groups: BTreeSet<String>,
}

/// Sessions of a class that ended before a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cutoff {
    /// The class.
    pub class: i64,
    /// The time.
    pub before: Timestamp,
}

/// A recording that is due.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DueRecording {
    /// Which.
    pub session: SessionId,
    /// Its class.
    pub class: i64,
    /// When its session ended.
    pub ended_at: Timestamp,
}

/// The times that retention has to agree with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionTimes {
    /// What the database's clock says.
    pub database: Timestamp,
    /// The time that was gone by last.
    pub noted: Option<Timestamp>,
}

const DUE: &str = "select json_build_object('session', r.session, 'class', c.class, \
    'ended_at', r.ended_at) \
    from unnest($2::bigint[], $3::timestamptz[]) c (class, before) cross join lateral \
    (select session, ended_at from retained where gateway = $1 and class = c.class \
    and ended_at < c.before and state = 'kept' and session <> all($4) \
    order by ended_at limit $5) r order by r.ended_at limit $5";

impl Database {
    /// All classes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retention_classes(&self) -> Result<Vec<RetentionClass>, DatabaseError> {
        let rows: Vec<Json<RetentionClass>> = sqlx::query_scalar(
            "select json_build_object('id', id, 'target', target, 'groups', groups) \
             from retention_classes",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// Recordings of a gateway that are due, those that ended first first; without those named.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn due_recordings(
        &self,
        gateway: &str,
        cutoffs: &[Cutoff],
        without: &[SessionId],
        limit: i64,
    ) -> Result<Vec<DueRecording>, DatabaseError> {
        let (classes, before) = columns(cutoffs);
        let without: Vec<Uuid> = without.iter().map(SessionId::as_uuid).collect();
        let rows: Vec<Json<DueRecording>> = sqlx::query_scalar(DUE)
            .bind(gateway)
            .bind(classes)
            .bind(before)
            .bind(without)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// How the database would find [`Database::due_recordings`], with times: for measuring.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn explain_due(
        &self,
        gateway: &str,
        cutoffs: &[Cutoff],
        limit: i64,
    ) -> Result<String, DatabaseError> {
        let (classes, before) = columns(cutoffs);
        let query = format!("explain (analyze, buffers) {DUE}");
        let lines: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .bind(gateway)
            .bind(classes)
            .bind(before)
            .bind(Vec::<Uuid>::new())
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        Ok(lines.join("\n"))
    }

    /// How many recordings of a gateway are due, and how many would be but for a hold.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_due(
        &self,
        gateway: &str,
        cutoffs: &[Cutoff],
    ) -> Result<(u64, u64), DatabaseError> {
        let (classes, before) = columns(cutoffs);
        let (due, held): (i64, i64) = sqlx::query_as(
            "with c as (select * from unnest($2::bigint[], $3::timestamptz[]) c (class, before)) \
             select (select count(*) from c join retained r on r.gateway = $1 \
             and r.class = c.class and r.ended_at < c.before and r.state = 'kept'), \
             (select count(*) from c join retained r on r.gateway = $1 \
             and r.class = c.class and r.ended_at < c.before and r.state = 'held')",
        )
        .bind(gateway)
        .bind(classes)
        .bind(before)
        .fetch_one(&self.pool)
        .await?;
        Ok((u64::try_from(due).unwrap_or(0), u64::try_from(held).unwrap_or(0)))
    }

    /// The times that a gateway's retention has to agree with.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn retention_times(&self, gateway: &str) -> Result<RetentionTimes, DatabaseError> {
        let (database, noted): (Json<Timestamp>, Option<Json<Timestamp>>) = sqlx::query_as(
            "select to_json(clock_timestamp()), \
             (select to_json(at) from retention_clocks where gateway = $1)",
        )
        .bind(gateway)
        .fetch_one(&self.pool)
        .await?;
        Ok(RetentionTimes { database: database.0, noted: noted.map(|noted| noted.0) })
    }

    /// Notes the time that a gateway's retention went by.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_retention_time(
        &self,
        gateway: &str,
        at: Timestamp,
    ) -> Result<(), DatabaseError> {
        sqlx::query(
            "insert into retention_clocks (gateway, at) values ($1, $2::timestamptz) \
             on conflict (gateway) do update set at = excluded.at",
        )
        .bind(gateway)
        .bind(at.to_string())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Begins to delete: no hold is set or lifted until this ends.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn begin_pruning(&self) -> Result<Pruning, DatabaseError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("lock table holds in share mode").execute(&mut *transaction).await?;
        Ok(Pruning { transaction })
    }

    /// Deletes the rows of recordings that are gone, some at a time; how many sessions that were.
    ///
    /// # Errors
    /// When the database fails; what is left is found again.
    pub async fn sweep(&self, gateway: &str, limit: i64) -> Result<u64, DatabaseError> {
        let gone: Vec<Uuid> = sqlx::query_scalar(
            "select session from retained where gateway = $1 and state = 'gone' limit $2",
        )
        .bind(gateway)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        if gone.is_empty() {
            return Ok(0);
        }
        let mut connection = self.connect().await?;
        loop {
            let deleted = sqlx::query(
                "delete from commands where (session, sequence) in \
                 (select session, sequence from commands where session = any($1) limit $2)",
            )
            .bind(&gone)
            .bind(BATCH)
            .execute(&mut connection)
            .await?;
            if deleted.rows_affected() < u64::try_from(BATCH).unwrap_or(0) {
                break;
            }
        }
        let mut write = connection.begin().await?;
        delete_rows_of(&mut write, &gone).await?;
        sqlx::query("delete from hold_files where session = any($1)")
            .bind(&gone)
            .execute(&mut *write)
            .await?;
        write.commit().await?;
        Ok(gone.len() as u64)
    }
}

/// A deletion under way. Dropped, it leaves the rows as they were.
#[derive(Debug)]
pub struct Pruning {
    transaction: Transaction<'static, Postgres>,
}

impl Pruning {
    /// Which of these sessions a hold covers.
    ///
    /// # Errors
    /// When the database fails, or a hold is not understood.
    pub async fn held(
        &mut self,
        sessions: &[SessionId],
    ) -> Result<BTreeSet<SessionId>, DatabaseError> {
        let ids: Vec<Uuid> = sessions.iter().map(SessionId::as_uuid).collect();
        let mut held = BTreeSet::new();
        for hold in in_force(&mut self.transaction).await? {
            held.extend(hold.filter.among(&mut self.transaction, &ids).await?);
        }
        Ok(held)
    }

    /// Notes what became of them, with a line of the audit log.
    ///
    /// # Errors
    /// When the database fails; what is gone is found gone the next time.
    pub async fn finish(
        mut self,
        gone: &[SessionId],
        held: &BTreeSet<SessionId>,
        entry: Option<&AuditEntry>,
    ) -> Result<(), DatabaseError> {
        for (state, sessions) in [
            ("gone", gone.iter().map(SessionId::as_uuid).collect::<Vec<Uuid>>()),
            ("held", held.iter().map(SessionId::as_uuid).collect()),
        ] {
            sqlx::query("update retained set state = $1 where session = any($2)")
                .bind(state)
                .bind(sessions)
                .execute(&mut *self.transaction)
                .await?;
        }
        if let Some(entry) = entry {
            super::queries::audit(&mut self.transaction, entry).await?;
        }
        Ok(self.transaction.commit().await?)
    }
}

fn columns(cutoffs: &[Cutoff]) -> (Vec<i64>, Vec<String>) {
    cutoffs.iter().map(|cutoff| (cutoff.class, cutoff.before.storable().to_string())).unzip()
}
