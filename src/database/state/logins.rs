//! Logins in a browser: who somebody is, until when. The cookie itself is never here, only its
//! hash.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::types::Json;

use super::super::rows::{Timestamp, storable_json};
use super::super::{Database, DatabaseError};

/// A login; the fields are columns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Login {
    /// The hash of the cookie's secret.
    pub hash: String,
    /// Whose: the issuer.
    pub issuer: String,
    /// Whose: the subject.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// The groups at the time of the login; they stay these.
    pub groups: Vec<String>,
    /// All claims of the token that proved it.
    pub claims: Map<String, Value>,
    /// The workflow that a claim names.
    pub workflow: Option<String>,
    /// The run that a claim names.
    pub run: Option<String>,
    /// That token, as revocation knows it.
    pub credential: String,
    /// When it is over: with that token.
    pub expires_at: Timestamp,
}

impl Database {
    /// Keeps a login, and forgets those whose time is over.
    ///
    /// # Errors
    /// When the database fails; then nobody is logged in.
    pub async fn add_login(&self, login: &Login) -> Result<(), DatabaseError> {
        let row = storable_json(login).map_err(|e| DatabaseError::Refused(e.to_string()))?;
        sqlx::query("delete from logins where expires_at <= clock_timestamp()")
            .execute(&self.pool)
            .await?;
        sqlx::query(
            "insert into logins (hash, issuer, subject, username, groups, claims, workflow, run, \
             credential, expires_at) \
             select hash, issuer, subject, username, groups, claims, workflow, run, credential, \
             expires_at from json_populate_record(null::logins, $1::json)",
        )
        .bind(row)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The login whose cookie has this hash, while its time is not over.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn login(&self, hash: &str) -> Result<Option<Login>, DatabaseError> {
        let row: Option<Json<Login>> = sqlx::query_scalar(
            "select row_to_json(l) from logins l where hash = $1 \
             and expires_at > clock_timestamp()",
        )
        .bind(hash)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| row.0))
    }

    /// Ends a login.
    ///
    /// # Errors
    /// When the database fails; then it goes on.
    pub async fn remove_login(&self, hash: &str) -> Result<(), DatabaseError> {
        sqlx::query("delete from logins where hash = $1").bind(hash).execute(&self.pool).await?;
        Ok(())
    }
}
