//! Access that people granted for some time.

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::types::Json;

use super::super::queries::{Page, Place, QueryError, Wanted, audit};
use super::super::rows::{AuditEntry, Timestamp, storable_json};
use super::super::{Database, DatabaseError};
use super::requests::Request;
use super::tickets::seconds_of;
use super::withdrawals::{WithdrawnKind, withdraw};
use crate::names::{GrantId, RequestId};

/// Access that was granted, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessGrant {
    /// Its id.
    pub id: GrantId,
    /// The request that it came of.
    pub request: RequestId,
    /// Whose: the issuer.
    pub issuer: String,
    /// Whose: the subject.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// The target.
    pub target: String,
    /// From when.
    pub starts_at: Timestamp,
    /// Until when.
    pub ends_at: Timestamp,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
    /// By whom.
    pub revoked_by: Option<String>,
}

/// Access to be granted; it counts from the moment it is written.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct NewGrant {
    pub(super) id: GrantId,
    request: RequestId,
    issuer: String,
    subject: String,
    username: String,
    target: String,
    #[serde(skip)]
    seconds: u64,
}

impl NewGrant {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            id: GrantId::generate(),
            request: request.id,
            issuer: request.issuer.clone(),
            subject: request.subject.clone(),
            username: request.username.clone(),
            target: request.target.clone(),
            seconds: request.seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0),
        }
    }
}

pub(super) async fn add_grant(
    connection: &mut PgConnection,
    grant: &NewGrant,
) -> Result<(), DatabaseError> {
    let row = storable_json(grant).map_err(|e| DatabaseError::Refused(e.to_string()))?;
    sqlx::query(
        "insert into grants (id, request, issuer, subject, username, target, ends_at) \
         select id, request, issuer, subject, username, target, \
         clock_timestamp() + make_interval(secs => $2) \
         from json_populate_record(null::grants, $1::json)",
    )
    .bind(row)
    .bind(seconds_of(grant.seconds))
    .execute(connection)
    .await?;
    Ok(())
}

impl Database {
    /// The grant of this identity on this target that ends last, if one counts now.
    ///
    /// # Errors
    /// When the database fails; then there is no access by grant.
    pub async fn live_grant(
        &self,
        issuer: &str,
        subject: &str,
        target: &str,
    ) -> Result<Option<AccessGrant>, DatabaseError> {
        let row: Option<Json<AccessGrant>> = sqlx::query_scalar(
            "select row_to_json(g) from grants g where issuer = $1 and subject = $2 \
             and target = $3 and ends_at > clock_timestamp() and revoked_at is null \
             order by ends_at desc limit 1",
        )
        .bind(issuer)
        .bind(subject)
        .bind(target)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| row.0))
    }

    /// Grants, the latest first: all, or those of one issuer and subject.
    ///
    /// # Errors
    /// [`QueryError::Bad`] when the cursor is not one.
    pub async fn grants(
        &self,
        owner: Option<(&str, &str)>,
        wanted: &Wanted,
    ) -> Result<Page<AccessGrant>, QueryError> {
        let (limit, after) = (wanted.limit()?, wanted.cursor.as_deref());
        let after = after.map(Place::id).transpose()?;
        let rows: Vec<Json<AccessGrant>> = sqlx::query_scalar(
            "select row_to_json(g) from grants g \
             where ($1::text is null or issuer = $1 and subject = $2) \
             and ($3::uuid is null or id < $3) order by id desc limit $4",
        )
        .bind(owner.map(|(issuer, _)| issuer))
        .bind(owner.map(|(_, subject)| subject))
        .bind(after)
        .bind(i64::from(limit) + 1)
        .fetch_all(&self.pool)
        .await?;
        let rows = rows.into_iter().map(|row| row.0).collect();
        Ok(Page::of(rows, limit, |last: &AccessGrant| Place::of_id(last.id.as_uuid())))
    }

    /// Takes a grant back, of this owner where one is given; what it opened ends. None when there
    /// is no such grant.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_grant(
        &self,
        id: GrantId,
        owner: Option<(&str, &str)>,
        entry: &AuditEntry,
    ) -> Result<Option<AccessGrant>, DatabaseError> {
        let by = entry.username.as_str();
        let mut transaction = self.pool.begin().await?;
        let revoked: Option<Json<AccessGrant>> = sqlx::query_scalar(
            "update grants g set revoked_at = coalesce(revoked_at, clock_timestamp()), \
             revoked_by = coalesce(revoked_by, $2) where id = $1 \
             and ($3::text is null or issuer = $3 and subject = $4) returning row_to_json(g)",
        )
        .bind(id.as_uuid())
        .bind(by)
        .bind(owner.map(|(issuer, _)| issuer))
        .bind(owner.map(|(_, subject)| subject))
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(Json(grant)) = revoked else { return Ok(None) };
        let (key, until) = (id.to_string(), grant.ends_at.storable().to_string());
        withdraw(&mut transaction, WithdrawnKind::Grant, &key, &until, by).await?;
        audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        Ok(Some(grant))
    }
}
