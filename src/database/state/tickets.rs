//! Tickets: who they are for, where, until when. The secret itself is never here, only its hash.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::types::Json;

use super::super::queries::{Page, Place, QueryError, Wanted, audit};
use super::super::rows::{AuditEntry, Timestamp, storable_json};
use super::super::{Database, DatabaseError};
use super::withdrawals::{WithdrawnKind, user_key};
use crate::names::TicketId;

/// How many tickets one identity may have: an agent that asks in a loop fills no table, and no list
/// that gateways hold in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TicketLimits {
    /// At a time.
    pub live: usize,
    /// Made within an hour, revoked ones too.
    pub per_hour: usize,
}

/// What came of asking for a ticket.
#[derive(Debug)]
pub enum TicketMade {
    /// There it is.
    Made(Box<Ticket>),
    /// Its owner has too many.
    TooMany,
    /// Its owner made too many within an hour.
    TooFast,
}

/// A ticket, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// Its id; not what is presented.
    pub id: TicketId,
    /// Whose: the issuer.
    pub issuer: String,
    /// Whose: the subject.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// The groups at the time it was made; they stay these.
    pub groups: Vec<String>,
    /// The workflow that a claim named.
    pub workflow: Option<String>,
    /// The run that a claim named.
    pub run: Option<String>,
    /// The one target that it is for.
    pub target: String,
    /// Whether it opens one session and never another.
    pub single_use: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its time is over.
    pub expires_at: Timestamp,
    /// When it opened the one session that it may open.
    pub used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// By whom.
    pub revoked_by: Option<String>,
}

/// A ticket with all that an identity is made of.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct StoredTicket {
    /// What is shown of it.
    #[serde(flatten)]
    pub ticket: Ticket,
    /// The claims of the token that it was made with.
    pub claims: Map<String, Value>,
    /// That token.
    pub made_with: String,
    /// Whether its time is not over, and it was not revoked.
    pub live: bool,
}

/// A ticket to be made; the fields are columns.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NewTicket {
    /// Its id.
    pub id: TicketId,
    /// The hash of its secret.
    pub hash: String,
    /// Whose: the issuer.
    pub issuer: String,
    /// Whose: the subject.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// The groups.
    pub groups: Vec<String>,
    /// All claims.
    pub claims: Map<String, Value>,
    /// The workflow that a claim names.
    pub workflow: Option<String>,
    /// The run that a claim names.
    pub run: Option<String>,
    /// The credential that it is made with.
    pub made_with: String,
    /// The one target.
    pub target: String,
    /// Whether it opens one session and never another.
    pub single_use: bool,
}

/// What is shown of a ticket, as JSON, out of `tickets t`.
const SHOWN: &str = "select row_to_json(s) from (select t.id, t.issuer, t.subject, t.username, \
    t.groups, t.workflow, t.run, t.target, t.single_use, t.created_at, t.expires_at, u.used_at, \
    t.revoked_at, t.revoked_by from tickets t left join used_credentials u on u.credential = t.hash ";

impl Database {
    /// Keeps a new ticket for so many seconds, unless its owner has too many.
    ///
    /// # Errors
    /// When the database fails; then there is no ticket.
    pub async fn add_ticket(
        &self,
        ticket: &NewTicket,
        seconds: u64,
        limits: TicketLimits,
    ) -> Result<TicketMade, DatabaseError> {
        let row = storable_json(ticket).map_err(|e| DatabaseError::Refused(e.to_string()))?;
        let mut transaction = self.pool.begin().await?;
        // One at a time for one owner, so that many who ask at once do not get past the limits.
        let owner = user_key(&ticket.issuer, &ticket.subject);
        sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 1))")
            .bind(&owner)
            .execute(&mut *transaction)
            .await?;
        let (live, made): (i64, i64) = sqlx::query_as(
            "select count(*) filter (where expires_at > clock_timestamp() and revoked_at is null), \
             count(*) filter (where created_at > clock_timestamp() - interval '1 hour') \
             from tickets where issuer = $1 and subject = $2 \
             and (expires_at > clock_timestamp() \
             or created_at > clock_timestamp() - interval '1 hour')",
        )
        .bind(&ticket.issuer)
        .bind(&ticket.subject)
        .fetch_one(&mut *transaction)
        .await?;
        let reached = |count: i64, most: usize| usize::try_from(count).is_ok_and(|n| n >= most);
        if reached(live, limits.live) {
            return Ok(TicketMade::TooMany);
        }
        if reached(made, limits.per_hour) {
            return Ok(TicketMade::TooFast);
        }
        sqlx::query(
            "insert into tickets (id, hash, issuer, subject, username, groups, claims, workflow, \
             run, made_with, target, single_use, expires_at) \
             select n.id, n.hash, n.issuer, n.subject, n.username, n.groups, n.claims, n.workflow, \
             n.run, n.made_with, n.target, n.single_use, clock_timestamp() + make_interval(secs => $2) \
             from json_populate_record(null::tickets, $1::json) n",
        )
        .bind(row)
        .bind(seconds_of(seconds))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        let made = self.ticket(ticket.id).await?;
        made.map(|ticket| TicketMade::Made(Box::new(ticket)))
            .ok_or_else(|| DatabaseError::Refused("the ticket went away".to_owned()))
    }

    /// One ticket.
    async fn ticket(&self, id: TicketId) -> Result<Option<Ticket>, DatabaseError> {
        let query = format!("{SHOWN} where t.id = $1) s");
        let row: Option<Json<Ticket>> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .bind(id.as_uuid())
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.0))
    }

    /// The ticket whose secret has this hash.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ticket_by_hash(&self, hash: &str) -> Result<Option<StoredTicket>, DatabaseError> {
        let row: Option<Json<StoredTicket>> = sqlx::query_scalar(
            "select row_to_json(s) from (select t.*, u.used_at, \
             t.expires_at > clock_timestamp() and t.revoked_at is null as live from tickets t \
             left join used_credentials u on u.credential = t.hash where t.hash = $1) s",
        )
        .bind(hash)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| row.0))
    }

    /// Tickets, the latest first: all, or those of one issuer and subject.
    ///
    /// # Errors
    /// [`QueryError::Bad`] when the cursor is not one.
    pub async fn tickets(
        &self,
        owner: Option<(&str, &str)>,
        wanted: &Wanted,
    ) -> Result<Page<Ticket>, QueryError> {
        let (limit, after) = (wanted.limit()?, wanted.cursor.as_deref());
        let after = after.map(Place::id).transpose()?;
        let query = format!(
            "{SHOWN} where ($1::text is null or t.issuer = $1 and t.subject = $2) \
             and ($3::uuid is null or t.id < $3) order by t.id desc limit $4) s"
        );
        let rows: Vec<Json<Ticket>> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .bind(owner.map(|(issuer, _)| issuer))
            .bind(owner.map(|(_, subject)| subject))
            .bind(after)
            .bind(i64::from(limit) + 1)
            .fetch_all(&self.pool)
            .await?;
        let rows = rows.into_iter().map(|row| row.0).collect();
        Ok(Page::of(rows, limit, |last: &Ticket| Place::of_id(last.id.as_uuid())))
    }

    /// Revokes a ticket, of this owner where one is given, and says so in the audit log at the same
    /// time: it opens nothing from now on, and what
    /// it opened ends. None when there is no such ticket.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_ticket(
        &self,
        id: TicketId,
        owner: Option<(&str, &str)>,
        entry: &AuditEntry,
    ) -> Result<Option<Ticket>, DatabaseError> {
        let by = entry.username.as_str();
        let mut transaction = self.pool.begin().await?;
        let revoked: Option<(String, String)> = sqlx::query_as(
            "update tickets set revoked_at = coalesce(revoked_at, clock_timestamp()), \
             revoked_by = coalesce(revoked_by, $2) where id = $1 \
             and ($3::text is null or issuer = $3 and subject = $4) \
             returning hash, to_json(expires_at)#>>'{}'",
        )
        .bind(id.as_uuid())
        .bind(by)
        .bind(owner.map(|(issuer, _)| issuer))
        .bind(owner.map(|(_, subject)| subject))
        .fetch_optional(&mut *transaction)
        .await?;
        let Some((hash, expires_at)) = revoked else { return Ok(None) };
        super::withdrawals::withdraw(
            &mut transaction,
            WithdrawnKind::Credential,
            &hash,
            &expires_at,
            by,
        )
        .await?;
        audit(&mut transaction, entry).await?;
        transaction.commit().await?;
        self.ticket(id).await
    }

    /// Lets a credential open this session, when it opened no other: false when it did. It is
    /// remembered until the credential expires by itself.
    ///
    /// # Errors
    /// When the database fails; then the session must not open.
    pub async fn use_credential(
        &self,
        credential: &str,
        session: crate::names::SessionId,
        expires_at: Timestamp,
    ) -> Result<bool, DatabaseError> {
        let used = sqlx::query(
            "insert into used_credentials (credential, session, expires_at) \
             values ($1, $2, $3::timestamptz) on conflict (credential) do nothing",
        )
        .bind(credential)
        .bind(session.as_uuid())
        .bind(expires_at.storable().to_string())
        .execute(&self.pool)
        .await?;
        Ok(used.rows_affected() == 1)
    }

    /// Gives a credential back that was used for a session that did not open.
    ///
    /// # Errors
    /// When the database fails; then it stays used.
    pub async fn give_back_credential(
        &self,
        credential: &str,
        session: crate::names::SessionId,
    ) -> Result<(), DatabaseError> {
        sqlx::query("delete from used_credentials where credential = $1 and session = $2")
            .bind(credential)
            .bind(session.as_uuid())
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// Seconds as `make_interval` takes them.
#[expect(clippy::cast_precision_loss, reason = "whole seconds up to ten years are exact")]
pub(super) fn seconds_of(seconds: u64) -> f64 {
    seconds as f64
}
