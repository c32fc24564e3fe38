//! Being told that state changed, and putting away what is old.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::super::{Database, DatabaseError};

/// Where triggers tell.
const CHANNEL: &str = "portcullis_state";
/// How long what is over stays to be looked at.
const KEPT: &str = "90 days";
/// Rows that are deleted at once.
const BATCH: i64 = 1000;

/// Waits for changes of state. Whoever missed one must look anyway: a database behind a pooler
/// tells nothing, and what is told while the connection is down is lost.
#[derive(Debug)]
pub struct StateNews(PgListener);

impl StateNews {
    /// Waits until something changed, or the connection was lost and made again. Cancel safe.
    ///
    /// # Errors
    /// When the connection cannot be made again.
    pub async fn changed(&mut self) -> Result<(), DatabaseError> {
        self.0.try_recv().await?;
        while self.0.next_buffered().is_some() {}
        Ok(())
    }
}

impl Database {
    /// Listens from now on, over a connection of its own.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn state_news(&self) -> Result<StateNews, DatabaseError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(StateNews(listener))
    }

    /// Expires requests whose time is over, and deletes what has been over for long, some at a
    /// time.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn tidy_state(&self) -> Result<(), DatabaseError> {
        sqlx::query(
            "update requests set state = 'expired', decided_at = expires_at, \
             note = coalesce(note, case state when 'approved' then 'it was not used in time' \
             else 'nobody decided in time' end) \
             where state in ('pending', 'approved') and expires_at < clock_timestamp()",
        )
        .execute(&self.pool)
        .await?;
        for statement in [
            "delete from used_credentials where credential in (select credential from \
             used_credentials where expires_at < now() - interval '1 hour' limit $1)",
            "delete from withdrawals where (kind, key) in (select kind, key from withdrawals \
             where until < now() - interval '1 hour' limit $1)",
        ] {
            sqlx::query(statement).bind(BATCH).execute(&self.pool).await?;
        }
        for statement in [
            "delete from tickets where id in (select id from tickets \
             where expires_at < now() - $2::interval limit $1)",
            "delete from grants where id in (select id from grants \
             where ends_at < now() - $2::interval limit $1)",
            "delete from requests where id in (select r.id from requests r \
             where r.created_at < now() - $2::interval and r.expires_at < now() \
             and not exists (select from grants g where g.request = r.id) limit $1)",
        ] {
            sqlx::query(statement).bind(BATCH).bind(KEPT).execute(&self.pool).await?;
        }
        Ok(())
    }
}
