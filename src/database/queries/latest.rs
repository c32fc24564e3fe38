//! What open sessions do: the latest command of each.

use serde::Deserialize;
use sqlx::types::Json;
use uuid::Uuid;

use super::limits::QueryError;
use crate::database::Database;
use crate::names::SessionId;
use crate::policy::Verdict;

/// The latest command of a session, as far as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Latest {
    /// Its session.
    pub session: SessionId,
    /// Which one it is there.
    pub sequence: i64,
    /// What kind it is.
    pub form: String,
    /// The beginning of its text, in the request view.
    pub text: Option<String>,
    /// How it was decided.
    pub verdict: Verdict,
    /// Whether it has ended.
    pub ended: bool,
}

// One look at the end of each session's commands, which lie together.
const LATEST: &str = "select row_to_json(c) from unnest($1::uuid[]) as s(id), lateral (\
    select session, sequence, form, left(text, 400) as text, verdict, \
    duration_us is not null as ended from commands where session = s.id \
    order by sequence desc limit 1) c";

impl Database {
    /// The latest command of each of these sessions that has one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn latest_commands(&self, sessions: &[SessionId]) -> Result<Vec<Latest>, QueryError> {
        let ids: Vec<Uuid> = sessions.iter().map(SessionId::as_uuid).collect();
        let rows: Vec<Json<Latest>> =
            sqlx::query_scalar(LATEST).bind(ids).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }
}
