//! People who may nothing: whatever they present is refused on every gateway of the database, and
//! what they have open ends.

use serde::{Deserialize, Serialize};
use sqlx::types::Json;

use super::super::queries::audit;
use super::super::rows::{AuditEntry, Timestamp};
use super::super::{Database, DatabaseError};
use super::withdrawals::{WithdrawnKind, user_key, withdraw};

/// How many are listed at most.
const MOST: i64 = 1000;

/// A user who was revoked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedUser {
    /// The issuer's URL.
    pub issuer: String,
    /// What the issuer calls them.
    pub subject: String,
    /// When that was.
    pub revoked_at: Timestamp,
    /// Who did it.
    pub revoked_by: String,
    /// Until when.
    pub until: Timestamp,
}

impl Database {
    /// Revokes a user until some time, and says so in the audit log at the same time; when this
    /// returns every gateway will know.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_user(
        &self,
        issuer: &str,
        subject: &str,
        until: Timestamp,
        entry: &AuditEntry,
    ) -> Result<(), DatabaseError> {
        let mut transaction = self.pool.begin().await?;
        let (key, until) = (user_key(issuer, subject), until.storable().to_string());
        let kind = WithdrawnKind::User;
        withdraw(&mut transaction, kind, &key, &until, &entry.username).await?;
        audit(&mut transaction, entry).await?;
        Ok(transaction.commit().await?)
    }

    /// Lets a user in again, and says so in the audit log at the same time; whether they were
    /// revoked.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn restore_user(
        &self,
        issuer: &str,
        subject: &str,
        entry: &AuditEntry,
    ) -> Result<bool, DatabaseError> {
        let mut transaction = self.pool.begin().await?;
        let done = sqlx::query(
            "update withdrawals set until = clock_timestamp(), at = clock_timestamp() \
             where kind = 'user' and key = $1 and until > now()",
        )
        .bind(user_key(issuer, subject))
        .execute(&mut *transaction)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// The users who are revoked now, the latest first, a thousand at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoked_users(&self) -> Result<Vec<RevokedUser>, DatabaseError> {
        let rows: Vec<Json<RevokedUser>> = sqlx::query_scalar(
            "select json_build_object('issuer', split_part(key, ' ', 1), \
             'subject', substr(key, strpos(key, ' ') + 1), 'revoked_at', at, \
             'revoked_by', username, 'until', until) \
             from withdrawals where kind = 'user' and until > now() order by at desc limit $1",
        )
        .bind(MOST)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }
}
