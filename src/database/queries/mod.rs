//! Looking things up: sessions, commands, the audit log. Every page is bounded, and the next one
//! starts behind the last row of the one before, however many rows come meanwhile.

mod conditions;
mod cursor;
mod held;
mod histogram;
mod latest;
mod limits;
mod overview;

use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use sqlx::{Postgres, QueryBuilder};

use super::rows::{AuditEntry, AuditRecord, Command, Session, storable_json};
use super::{Database, DatabaseError};
use crate::names::SessionId;

use conditions::Select;
pub(super) use conditions::first_id_at;
pub(super) use cursor::Place;
pub(super) use held::{found_among, found_without_file};
pub use histogram::{Column, Counts, Histogram};
pub use latest::Latest;
pub use limits::{Filter, Page, QueryError, Wanted};
pub use overview::{Overview, Sum};

impl Database {
    /// Sessions, the latest first.
    ///
    /// # Errors
    /// [`QueryError::Bad`] when the filter or the cursor is not one.
    pub async fn sessions(
        &self,
        filter: &Filter,
        wanted: &Wanted,
    ) -> Result<Page<Session>, QueryError> {
        let (limit, after) = (wanted.limit()?, wanted.cursor.as_deref());
        filter.check()?;
        let mut select = Select::new("sessions");
        select.filter_sessions(filter);
        select.after_session(after.map(Place::session).transpose()?);
        let rows = self.page(select.latest("opened_at, id", limit), limit).await?;
        Ok(Page::of(rows, limit, |last: &Session| Place::of_session(last.opened_at, last.id)))
    }

    /// One session.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn session(&self, id: SessionId) -> Result<Option<Session>, QueryError> {
        let query = "select row_to_json(s) from sessions s where id = $1";
        let row: Option<Json<Session>> =
            sqlx::query_scalar(query).bind(id.as_uuid()).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.0))
    }

    /// Commands of all sessions, the latest first.
    ///
    /// # Errors
    /// [`QueryError::Bad`] when the filter or the cursor is not one.
    pub async fn commands(
        &self,
        filter: &Filter,
        wanted: &Wanted,
    ) -> Result<Page<Command>, QueryError> {
        let (limit, after) = (wanted.limit()?, wanted.cursor.as_deref());
        filter.check()?;
        let mut select = Select::new("commands");
        select.filter_commands(filter);
        select.after_command(after.map(Place::command).transpose()?);
        let rows = self.page(select.latest("at, session, sequence", limit), limit).await?;
        let place = |last: &Command| Place::of_command(last.at, last.session, last.sequence);
        Ok(Page::of(rows, limit, place))
    }

    /// How the database would find [`Database::commands`], with times: for measuring.
    ///
    /// # Errors
    /// [`QueryError::Bad`] when the filter is not one.
    pub async fn explain_commands(&self, filter: &Filter) -> Result<String, QueryError> {
        filter.check()?;
        let mut select = Select::explained("commands");
        select.filter_commands(filter);
        let mut query = select.latest("at, session, sequence", 50);
        let lines = query.build_query_scalar::<String>().fetch_all(&self.pool).await?;
        Ok(lines.join("\n"))
    }

    /// Commands of one session, in their order.
    ///
    /// # Errors
    /// [`QueryError::Bad`] when the filter or the cursor is not one.
    pub async fn session_commands(
        &self,
        session: SessionId,
        filter: &Filter,
        wanted: &Wanted,
    ) -> Result<Page<Command>, QueryError> {
        let (limit, after) = (wanted.limit()?, wanted.cursor.as_deref());
        filter.check()?;
        let mut select = Select::new("commands");
        select.of_session(session, after.map(Place::number).transpose()?);
        select.filter_commands(filter);
        let rows = self.page(select.earliest("sequence", limit), limit).await?;
        Ok(Page::of(rows, limit, |last: &Command| Place::of_number(last.sequence)))
    }

    /// One command of a session.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn command(
        &self,
        session: SessionId,
        sequence: i64,
    ) -> Result<Option<Command>, QueryError> {
        let query = "select row_to_json(c) from commands c where session = $1 and sequence = $2";
        let row: Option<Json<Command>> = sqlx::query_scalar(query)
            .bind(session.as_uuid())
            .bind(sequence)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.0))
    }

    /// Sessions that are open, the latest first, so many at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open_sessions(&self, most: u32) -> Result<Vec<Session>, QueryError> {
        let query = "select row_to_json(s) from (select * from sessions where closed_at is null \
            order by opened_at desc limit $1) s";
        let rows: Vec<Json<Session>> =
            sqlx::query_scalar(query).bind(i64::from(most)).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// What the audit log has of one thing by its id, the latest first, so many at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit_of(&self, object: &str, most: u32) -> Result<Vec<AuditRecord>, QueryError> {
        let query = "select row_to_json(a) from (select * from audit_log where object = $1 \
            order by id desc limit $2) a";
        let rows: Vec<Json<AuditRecord>> = sqlx::query_scalar(query)
            .bind(object)
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// Adds to the audit log; when this returns, the entry is kept.
    ///
    /// # Errors
    /// When the database fails; what was to be audited should then not be done.
    pub async fn audit(&self, entry: &AuditEntry) -> Result<(), DatabaseError> {
        audit(&mut *self.pool.acquire().await?, entry).await
    }

    /// The audit log, the latest first. Of the filter, user, from, to and text (a part of action
    /// or object) count.
    ///
    /// # Errors
    /// [`QueryError::Bad`] when the filter or the cursor is not one.
    pub async fn audit_log(
        &self,
        filter: &Filter,
        wanted: &Wanted,
    ) -> Result<Page<AuditRecord>, QueryError> {
        let (limit, after) = (wanted.limit()?, wanted.cursor.as_deref());
        filter.check()?;
        let mut select = Select::new("audit_log");
        select.filter_audit(filter, after.map(Place::number).transpose()?);
        let rows = self.page(select.latest("id", limit), limit).await?;
        Ok(Page::of(rows, limit, |last: &AuditRecord| Place::of_number(last.id)))
    }

    /// One row more than the page holds, so that it is known whether there is another.
    async fn page<T>(
        &self,
        mut query: QueryBuilder<Postgres>,
        limit: u32,
    ) -> Result<Vec<T>, QueryError>
    where
        T: serde::de::DeserializeOwned + Send + Unpin + 'static,
    {
        let rows = query.build_query_scalar::<Json<T>>().fetch_all(&self.pool).await?;
        debug_assert!(rows.len() <= limit as usize + 1);
        Ok(rows.into_iter().map(|row| row.0).collect())
    }
}

/// Adds to the audit log within a transaction.
pub(super) async fn audit(
    connection: &mut PgConnection,
    entry: &AuditEntry,
) -> Result<(), DatabaseError> {
    let row = storable_json(entry).map_err(|error| DatabaseError::Refused(error.to_string()))?;
    sqlx::query(
        "insert into audit_log (issuer, subject, username, client, action, object, outcome, detail) \
         select issuer, subject, username, client, action, object, outcome, detail \
         from json_populate_record(null::audit_log, $1::json)",
    )
    .bind(row)
    .execute(connection)
    .await?;
    Ok(())
}
