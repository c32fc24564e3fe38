//! What happened since a time, in sums: the most active users, targets and rules.

use serde::Deserialize;
use sqlx::types::Json;

use super::limits::QueryError;
use crate::database::Database;
use crate::database::rows::Timestamp;

/// Names of each kind that are shown.
const MOST: i64 = 8;

/// Sums since a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    /// Users with the most commands.
    pub users: Vec<Sum>,
    /// Targets with the most commands.
    pub targets: Vec<Sum>,
    /// Rules that blocked or held the most commands.
    pub rules: Vec<Sum>,
    /// Values that were masked, by mask, the most first.
    pub masked: Vec<Sum>,
    /// Events that could not be recorded.
    pub missing_events: i64,
}

/// A name, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Sum {
    /// Whose.
    pub name: String,
    /// Commands; of masks, values.
    pub count: i64,
    /// Of commands, those that were blocked.
    pub blocked: i64,
}

const USERS: &str = "select row_to_json(t) from (select username as name, \
    sum(commands)::bigint as count, sum(blocked)::bigint as blocked from sessions \
    where opened_at >= $1::timestamptz group by 1 order by 2 desc, 1 limit $2) t";
const TARGETS: &str = "select row_to_json(t) from (select target as name, \
    sum(commands)::bigint as count, sum(blocked)::bigint as blocked from sessions \
    where opened_at >= $1::timestamptz group by 1 order by 2 desc, 1 limit $2) t";
const RULES: &str = "select row_to_json(t) from (select rule as name, count(*) as count, \
    count(*) filter (where verdict = 'block') as blocked from commands, unnest(rules) rule \
    where verdict <> 'allow' and at >= $1::timestamptz group by 1 order by 2 desc, 1 limit $2) t";
const MASKED: &str = "select row_to_json(t) from (select key as name, \
    sum(value::bigint)::bigint as count, 0::bigint as blocked \
    from commands, jsonb_each_text(masked) where masked <> '{}' and at >= $1::timestamptz \
    group by 1 order by 2 desc, 1 limit $2) t";

impl Database {
    /// Sums over what happened since a time.
    ///
    /// # Errors
    /// When the database fails, or there is too much of it to be summed in its time.
    pub async fn overview(&self, since: Timestamp) -> Result<Overview, QueryError> {
        let since = since.storable().to_string();
        let sums = async |query: &'static str| -> Result<Vec<Sum>, QueryError> {
            let rows: Vec<Json<Sum>> =
                sqlx::query_scalar(query).bind(&since).bind(MOST).fetch_all(&self.pool).await?;
            Ok(rows.into_iter().map(|row| row.0).collect())
        };
        let missing_events = sqlx::query_scalar(
            "select coalesce(sum(missing_events), 0)::bigint from sessions \
             where opened_at >= $1::timestamptz",
        )
        .bind(&since)
        .fetch_one(&self.pool)
        .await?;
        Ok(Overview {
            users: sums(USERS).await?,
            targets: sums(TARGETS).await?,
            rules: sums(RULES).await?,
            masked: sums(MASKED).await?,
            missing_events,
        })
    }
}
