//! Opening requests.

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::super::super::rows::storable_json;
use super::super::super::{Database, DatabaseError};
use super::super::tickets::seconds_of;
use super::{Command, NewRequest, Request, RequestState, one};
use crate::names::RequestId;

/// How long a no to a request for access counts: who asks in a loop does not ring every time.
const ASK_AGAIN: &str = "10 minutes";
/// For how long after its end a client that asks again is told of a request.
const TOLD_FOR: &str = "1 hour";

/// How many commands may wait for people, or are approved and not used yet. People are told of each,
/// so one caller must not be able to pile them up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// Of one identity, at a time.
    pub per_identity: usize,
    /// Of one session, at a time.
    pub per_session: usize,
    /// For one target, at a time.
    pub per_target: usize,
    /// Of one identity, opened within a minute.
    pub per_minute: usize,
}

impl Database {
    /// Opens a request for one command, which waits so many seconds.
    ///
    /// # Errors
    /// When the database fails, or there are too many; then nothing may be waited for.
    pub async fn open_command_request(
        &self,
        request: &NewRequest,
        command: &Command,
        seconds: u64,
        limits: RequestLimits,
    ) -> Result<(), DatabaseError> {
        let mut transaction = self.pool.begin().await?;
        within(&mut transaction, request, command, limits).await?;
        insert_command(&mut transaction, request, command, seconds).await?;
        Ok(transaction.commit().await?)
    }

    /// The request of this identity for the very same command, from a client that asks again: one
    /// that waits, or that was approved and not used yet; or one that ended, when that was not
    /// told yet, for which this tells it; a new one, which waits so many seconds for people, when
    /// there is none. Whether it is new is told too.
    ///
    /// # Errors
    /// When the database fails; then nothing may run.
    pub async fn ask_again(
        &self,
        request: &NewRequest,
        command: &Command,
        seconds: u64,
        limits: RequestLimits,
    ) -> Result<(Request, bool), DatabaseError> {
        let mut transaction = self.pool.begin().await?;
        alone(&mut transaction, &command.exact).await?;
        let there: Option<Uuid> = sqlx::query_scalar(
            "select id from requests where exact = $1 and again_seconds is not null and not told \
             and state <> 'consumed' and issuer = $2 and subject = $3 and target = $4 \
             and expires_at > clock_timestamp() - $5::interval order by id desc limit 1",
        )
        .bind(&command.exact)
        .bind(&request.issuer)
        .bind(&request.subject)
        .bind(&request.target)
        .bind(TOLD_FOR)
        .fetch_optional(&mut *transaction)
        .await?;
        if there.is_none() {
            within(&mut transaction, request, command, limits).await?;
            insert_command(&mut transaction, request, command, seconds).await?;
        }
        let id = there.map_or(request.id, RequestId::from);
        let found = one(&mut transaction, id).await?.ok_or_else(gone)?;
        if matches!(found.state, RequestState::Denied | RequestState::Expired) {
            sqlx::query("update requests set told = true where id = $1")
                .bind(id.as_uuid())
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
        Ok((found, there.is_none()))
    }

    /// The pending request of this identity for access to this target, or one that was denied not
    /// long ago; a new one, which waits so many seconds for people, when there is none. Whether it
    /// is new is told too.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn open_access_request(
        &self,
        request: &NewRequest,
        duration_seconds: u64,
        wait_seconds: u64,
    ) -> Result<(Request, bool), DatabaseError> {
        let row = storable_json(request).map_err(|e| DatabaseError::Refused(e.to_string()))?;
        let mut transaction = self.pool.begin().await?;
        let whose = format!("{}\n{}\n{}", request.issuer, request.subject, request.target);
        alone(&mut transaction, &whose).await?;
        let there: Option<Uuid> = sqlx::query_scalar(
            "select id from requests where kind = 'access' and issuer = $1 and subject = $2 \
             and target = $3 and (state = 'pending' and expires_at > clock_timestamp() \
             or state = 'denied' and decided_at > clock_timestamp() - $4::interval) \
             order by state = 'pending' desc, decided_at desc limit 1",
        )
        .bind(&request.issuer)
        .bind(&request.subject)
        .bind(&request.target)
        .bind(ASK_AGAIN)
        .fetch_optional(&mut *transaction)
        .await?;
        if there.is_none() {
            sqlx::query(
                "insert into requests (id, kind, state, issuer, subject, username, email, target, \
                 protocol, workflow, run, needs, cautions, reason, comment, seconds, expires_at) \
                 select n.id, 'access', 'pending', n.issuer, n.subject, n.username, n.email, n.target, \
                 n.protocol, n.workflow, n.run, n.needs, n.cautions, n.reason, n.comment, $2, \
                 clock_timestamp() + make_interval(secs => $3) \
                 from json_populate_record(null::requests, $1::json) n",
            )
            .bind(row)
            .bind(i64::try_from(duration_seconds).unwrap_or(i64::MAX))
            .bind(seconds_of(wait_seconds))
            .execute(&mut *transaction)
            .await?;
        }
        let id = there.map_or(request.id, RequestId::from);
        let found = one(&mut transaction, id).await?.ok_or_else(gone)?;
        transaction.commit().await?;
        Ok((found, there.is_none()))
    }
}

/// Until the transaction ends nobody else asks for the same: of several that do at once one makes
/// the request, and the others find it.
async fn alone(transaction: &mut PgConnection, what: &str) -> Result<(), sqlx::Error> {
    let lock = sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))").bind(what);
    lock.execute(transaction).await.map(drop)
}

/// Makes sure that there is room for one more request of this identity, session and target, until
/// the transaction ends.
async fn within(
    transaction: &mut PgConnection,
    request: &NewRequest,
    command: &Command,
    limits: RequestLimits,
) -> Result<(), DatabaseError> {
    // Always in this order, so that no two wait for each other.
    alone(transaction, &format!("requests of {}\n{}", request.issuer, request.subject)).await?;
    alone(transaction, &format!("requests for {}", request.target)).await?;
    let open = "state in ('pending', 'approved') and expires_at > clock_timestamp() \
                and kind = 'command'";
    let query = format!(
        "select (select count(*) from requests where issuer = $1 and subject = $2 and {open}), \
         (select count(*) from requests where session = $3 and {open}), \
         (select count(*) from requests where target = $4 and {open}), \
         (select count(*) from requests where issuer = $1 and subject = $2 and kind = 'command' \
         and created_at > clock_timestamp() - interval '1 minute')"
    );
    let counts: (i64, i64, i64, i64) = sqlx::query_as(sqlx::AssertSqlSafe(query))
        .bind(&request.issuer)
        .bind(&request.subject)
        .bind(command.session.as_uuid())
        .bind(&request.target)
        .fetch_one(transaction)
        .await?;
    let RequestLimits { per_identity, per_session, per_target, per_minute } = limits;
    for (count, most, what) in [
        (counts.0, per_identity, "commands of yours wait for approval"),
        (counts.1, per_session, "commands of this session wait for approval"),
        (counts.2, per_target, "commands for this target wait for approval"),
        (counts.3, per_minute, "approvals were asked for by you within a minute"),
    ] {
        if usize::try_from(count).is_ok_and(|count| count >= most) {
            return Err(DatabaseError::Limit(format!("{count} {what}, the most that may")));
        }
    }
    Ok(())
}

async fn insert_command(
    connection: &mut PgConnection,
    request: &NewRequest,
    command: &Command,
    seconds: u64,
) -> Result<(), DatabaseError> {
    let failed = |error: serde_json::Error| DatabaseError::Refused(error.to_string());
    let (request, command) =
        (storable_json(request).map_err(failed)?, storable_json(command).map_err(failed)?);
    sqlx::query(
        "insert into requests (id, kind, state, issuer, subject, username, email, target, \
         protocol, workflow, run, needs, cautions, reason, comment, gateway, process, session, \
         sequence, command, exact, again_seconds, expires_at) \
         select n.id, 'command', 'pending', n.issuer, n.subject, n.username, n.email, n.target, \
         n.protocol, n.workflow, n.run, n.needs, n.cautions, n.reason, n.comment, c.gateway, \
         c.process, c.session, c.sequence, c.command, c.exact, c.again_seconds, \
         clock_timestamp() + make_interval(secs => $3) \
         from json_populate_record(null::requests, $1::json) n, \
         json_populate_record(null::requests, $2::json) c",
    )
    .bind(request)
    .bind(command)
    .bind(seconds_of(seconds))
    .execute(connection)
    .await?;
    Ok(())
}

fn gone() -> DatabaseError {
    DatabaseError::Refused("the request went away".to_owned())
}
