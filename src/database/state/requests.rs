//! Requests: what waits for people to decide, and what they decided.
//!
//! ```text
//! pending -> approved -> consumed      (a command that ran, or access that was granted)
//! pending -> denied | expired
//! approved -> expired                  (approved and not used in time, or given up)
//! ```
//!
//! Each step is one update that names the state it goes from, so of two that race one happens.

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::super::queries::{Page, Place, QueryError, Wanted};
use super::super::rows::{Timestamp, storable_json};
use super::super::{Database, DatabaseError};
use super::grants::{NewGrant, add_grant};
use super::tickets::seconds_of;
use crate::names::{Protocol, RequestId, SessionId};
use crate::policy;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestKind {
    /// That one command may run, once.
    Command,
    /// To open sessions on a target for some time.
    Access,
}

impl RequestKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Access => "access",
        }
    }
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// It waits for people.
    Pending,
    /// Enough people said yes, and it was not used yet.
    Approved,
    /// Somebody said no.
    Denied,
    /// Its time was over, or who asked gave it up.
    Expired,
    /// It was used: the command was let go, or the access granted.
    Consumed,
}

impl RequestState {
    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Consumed => "consumed",
        }
    }
}

/// Who has to say yes, because of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The rule that asks for it.
    pub rule: String,
    /// The groups whose members may.
    pub approvers: Vec<String>,
    /// How many of them must.
    pub approvals: u32,
}

impl Need {
    /// Whether a member of these groups may decide.
    pub fn names(&self, groups: &[String]) -> bool {
        groups.iter().any(|group| self.approvers.contains(group))
    }

    /// Whether enough of these votes are of people that it names.
    pub fn is_met(&self, votes: &[Vote]) -> bool {
        let yes = votes.iter().filter(|vote| vote.verdict == VoteVerdict::Approve);
        let count = yes.filter(|vote| self.names(&vote.groups)).count();
        count >= usize::try_from(self.approvals.max(1)).unwrap_or(usize::MAX)
    }
}

impl From<&policy::Approval> for Need {
    fn from(approval: &policy::Approval) -> Self {
        Self {
            rule: approval.rule.to_string(),
            approvers: approval.approvers.clone(),
            approvals: approval.approvals,
        }
    }
}

/// What one person said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VoteVerdict {
    /// Yes.
    Approve,
    /// No.
    Deny,
}

/// One person's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The issuer of who said it.
    pub issuer: String,
    /// The subject of who said it.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// The groups at that time.
    pub groups: Vec<String>,
    /// What.
    pub verdict: VoteVerdict,
    /// Why.
    pub comment: Option<String>,
    /// When.
    pub at: Timestamp,
}

/// A request, as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// What is asked for.
    pub kind: RequestKind,
    /// How it stands.
    pub state: RequestState,
    /// The issuer of who asks.
    pub issuer: String,
    /// The subject of who asks.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// The target.
    pub target: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The session that waits.
    pub session: Option<SessionId>,
    /// The place of the command in the session's recording.
    pub sequence: Option<i64>,
    /// The workflow.
    pub workflow: Option<String>,
    /// The run.
    pub run: Option<String>,
    /// The command in its request view.
    pub command: Option<policy::Command>,
    /// A keyed hash of the exact bytes that would run.
    pub exact: Option<String>,
    /// Who has to say yes; all of these.
    pub needs: Vec<Need>,
    /// What to look out for.
    pub cautions: Vec<String>,
    /// The reason of the rules.
    pub reason: Option<String>,
    /// What who asks said of it.
    pub comment: Option<String>,
    /// For how many seconds access is asked for.
    pub seconds: Option<i64>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its time is over.
    pub expires_at: Timestamp,
    /// When it was decided.
    pub decided_at: Option<Timestamp>,
    /// Why it ended, where its state does not say it.
    pub note: Option<String>,
    /// What people said, in their order.
    pub votes: Vec<Vote>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewRequest {
    /// Its id.
    pub id: RequestId,
    /// The issuer of who asks.
    pub issuer: String,
    /// The subject of who asks.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// The address that the issuer has verified; another account with it is the same person.
    pub email: Option<String>,
    /// The target.
    pub target: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The workflow.
    pub workflow: Option<String>,
    /// The run.
    pub run: Option<String>,
    /// Who has to say yes.
    pub needs: Vec<Need>,
    /// What to look out for.
    pub cautions: Vec<String>,
    /// The reason of the rules.
    pub reason: Option<String>,
    /// What who asks says of it.
    pub comment: Option<String>,
}

/// The command that a request is about, and who holds it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Command {
    /// The gateway that holds it.
    pub gateway: String,
    /// Its process: one that starts anew holds nothing of the one before.
    pub process: Uuid,
    /// The session.
    pub session: SessionId,
    /// The place in its recording.
    pub sequence: i64,
    /// The request view.
    pub command: policy::Command,
    /// A keyed hash of all that would run.
    pub exact: String,
}

/// How a request stands, for who waits for it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Standing {
    /// Which.
    pub id: RequestId,
    /// How it stands.
    pub state: RequestState,
    /// Why.
    pub note: Option<String>,
    /// What people said.
    pub votes: Vec<Vote>,
}

/// Who decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// The issuer.
    pub issuer: String,
    /// The subject.
    pub subject: String,
    /// The name shown to people.
    pub username: String,
    /// The address that the issuer has verified.
    pub email: Option<String>,
    /// The groups.
    pub groups: Vec<String>,
}

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Yes or no.
    pub verdict: VoteVerdict,
    /// Why.
    pub comment: Option<String>,
}

/// What came of a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// The request as it stands now.
    pub request: Request,
    /// The access that it gave.
    pub grant: Option<crate::names::GrantId>,
}

/// Why a person's word does not count.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// There is no such request.
    #[error("there is no such request")]
    NotFound,
    /// It was decided, or its time is over.
    #[error("the request is {} already", .0.as_str())]
    Over(RequestState),
    /// Who asked does not decide.
    #[error("nobody decides a request of their own")]
    Requester,
    /// None of the rule's groups.
    #[error("none of your groups may decide this request")]
    NotAnApprover,
    /// Once is enough.
    #[error("you have decided this request already")]
    Again,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<sqlx::Error> for DecideError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

/// How long a no to a request for access counts: who asks in a loop does not ring every time.
const ASK_AGAIN: &str = "10 minutes";

/// The columns that are shown, with the votes; out of `requests r`.
const SHOWN: &str = "select row_to_json(s) from (select r.id, r.kind, \
    case when r.state in ('pending', 'approved') and r.expires_at <= clock_timestamp() \
    then 'expired' else r.state end as state, r.issuer, r.subject, r.username, r.target, \
    r.protocol, r.session, r.sequence, r.workflow, r.run, r.command, r.exact, r.needs, r.cautions, \
    r.reason, r.comment, r.seconds, r.created_at, r.expires_at, r.decided_at, r.note, \
    coalesce((select json_agg(v order by v.at) from (select issuer, subject, username, groups, \
    verdict, comment, at from votes where request = r.id) v), '[]') as votes from requests r ";

impl Database {
    /// Opens a request for one command, which waits so many seconds.
    ///
    /// # Errors
    /// When the database fails; then nothing may be waited for.
    pub async fn open_command_request(
        &self,
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
             sequence, command, exact, expires_at) \
             select n.id, 'command', 'pending', n.issuer, n.subject, n.username, n.email, n.target, \
             n.protocol, n.workflow, n.run, n.needs, n.cautions, n.reason, n.comment, c.gateway, \
             c.process, c.session, c.sequence, c.command, c.exact, \
             clock_timestamp() + make_interval(secs => $3) \
             from json_populate_record(null::requests, $1::json) n, \
             json_populate_record(null::requests, $2::json) c",
        )
        .bind(request)
        .bind(command)
        .bind(seconds_of(seconds))
        .execute(&self.pool)
        .await?;
        Ok(())
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
        // Of several that ask at once one makes it.
        sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(format!("{}\n{}\n{}", request.issuer, request.subject, request.target))
            .execute(&mut *transaction)
            .await?;
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
        let found = one(&mut transaction, id).await?;
        transaction.commit().await?;
        match found {
            Some(found) => Ok((found, there.is_none())),
            None => Err(DatabaseError::Refused("the request went away".to_owned())),
        }
    }

    /// One request.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn request(&self, id: RequestId) -> Result<Option<Request>, DatabaseError> {
        let mut connection = self.pool.acquire().await?;
        Ok(one(&mut connection, id).await?)
    }

    /// Requests of a kind, the latest first: all, or those that a person made or may decide.
    ///
    /// # Errors
    /// [`QueryError::Bad`] when the cursor is not one.
    pub async fn requests(
        &self,
        kind: RequestKind,
        state: Option<RequestState>,
        person: Option<&Voter>,
        wanted: &Wanted,
    ) -> Result<Page<Request>, QueryError> {
        let (limit, after) = (wanted.limit()?, wanted.cursor.as_deref());
        let after = after.map(Place::id).transpose()?;
        let query = format!(
            "{SHOWN} where r.kind = $1 and ($2::uuid is null or r.id < $2) \
             and ($3::text is null or r.issuer = $3 and r.subject = $4 or exists \
             (select from jsonb_array_elements(r.needs) n where n->'approvers' ?| $5)) \
             and ($6::text is null or $6 = case when r.state in ('pending', 'approved') \
             and r.expires_at <= clock_timestamp() then 'expired' else r.state end) \
             order by r.id desc limit $7) s"
        );
        let rows: Vec<Json<Request>> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
            .bind(kind.as_str())
            .bind(after)
            .bind(person.map(|person| person.issuer.as_str()))
            .bind(person.map(|person| person.subject.as_str()))
            .bind(person.map(|person| person.groups.as_slice()).unwrap_or_default())
            .bind(state.map(RequestState::as_str))
            .bind(i64::from(limit) + 1)
            .fetch_all(&self.pool)
            .await?;
        let rows = rows.into_iter().map(|row| row.0).collect();
        Ok(Page::of(rows, limit, |last: &Request| Place::of_id(last.id.as_uuid())))
    }

    /// Takes a person's word on a request. The one that makes it enough approves it; one no denies
    /// it. Access is granted within the same transaction.
    ///
    /// # Errors
    /// When the word does not count, with why; then nothing changed.
    pub async fn decide(
        &self,
        id: RequestId,
        kind: RequestKind,
        voter: &Voter,
        answer: &Answer,
    ) -> Result<Decided, DecideError> {
        let mut transaction = self.pool.begin().await?;
        let locked: Option<(String, Option<String>)> =
            sqlx::query_as("select kind, lower(email) from requests where id = $1 for update")
                .bind(id.as_uuid())
                .fetch_optional(&mut *transaction)
                .await?;
        let Some((_, email)) = locked.filter(|(found, _)| found == kind.as_str()) else {
            return Err(DecideError::NotFound);
        };
        // The clock counts from behind the lock: who waited for it may have come too late.
        let request = one(&mut transaction, id).await?.ok_or(DecideError::NotFound)?;
        may_decide(&request, email.as_deref(), voter)?;
        let voted = sqlx::query(
            "insert into votes (request, issuer, subject, username, groups, verdict, comment) \
             values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing",
        )
        .bind(id.as_uuid())
        .bind(&voter.issuer)
        .bind(&voter.subject)
        .bind(&voter.username)
        .bind(&voter.groups)
        .bind(match answer.verdict {
            VoteVerdict::Approve => "approve",
            VoteVerdict::Deny => "deny",
        })
        .bind(answer.comment.as_deref())
        .execute(&mut *transaction)
        .await?;
        if voted.rows_affected() == 0 {
            return Err(DecideError::Again);
        }
        let mut request = one(&mut transaction, id).await?.ok_or(DecideError::NotFound)?;
        let enough = request.needs.iter().all(|need| need.is_met(&request.votes));
        let (next, grant) = match (answer.verdict, kind) {
            (VoteVerdict::Deny, _) => (RequestState::Denied, None),
            (VoteVerdict::Approve, _) if !enough => (RequestState::Pending, None),
            (VoteVerdict::Approve, RequestKind::Command) => (RequestState::Approved, None),
            (VoteVerdict::Approve, RequestKind::Access) => {
                let grant = NewGrant::of(&request);
                add_grant(&mut transaction, &grant).await?;
                (RequestState::Consumed, Some(grant.id))
            }
        };
        // Also when the state stays: who waits is told of each word.
        sqlx::query(
            "update requests set state = $2, decided_at = case when $2 = 'pending' then null \
             else clock_timestamp() end where id = $1",
        )
        .bind(id.as_uuid())
        .bind(next.as_str())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        request.state = next;
        Ok(Decided { request, grant })
    }

    /// Uses an approval, once: true for the one that does, before the command goes upstream.
    ///
    /// # Errors
    /// When the database fails. Then it may be used up all the same, and nothing may run.
    pub async fn consume(
        &self,
        id: RequestId,
        session: SessionId,
        exact: &str,
    ) -> Result<bool, DatabaseError> {
        let consumed = sqlx::query(
            "update requests set state = 'consumed' where id = $1 and state = 'approved' \
             and session = $2 and exact = $3 and expires_at > clock_timestamp()",
        )
        .bind(id.as_uuid())
        .bind(session.as_uuid())
        .bind(exact)
        .execute(&self.pool)
        .await?;
        Ok(consumed.rows_affected() == 1)
    }

    /// Gives up requests whose command will never run, and says why.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn give_up(&self, ids: &[RequestId], note: &str) -> Result<(), DatabaseError> {
        let ids: Vec<Uuid> = ids.iter().map(RequestId::as_uuid).collect();
        sqlx::query(
            "update requests set state = 'expired', note = $2, decided_at = clock_timestamp() \
             where id = any($1) and state in ('pending', 'approved')",
        )
        .bind(ids)
        .bind(note)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Expires what earlier processes of a gateway held: nobody waits for it any more.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire_left(&self, gateway: &str, process: Uuid) -> Result<u64, DatabaseError> {
        let expired = sqlx::query(
            "update requests set state = 'expired', note = 'the gateway was restarted', \
             decided_at = clock_timestamp() where gateway = $1 and process <> $2 \
             and kind = 'command' and state in ('pending', 'approved')",
        )
        .bind(gateway)
        .bind(process)
        .execute(&self.pool)
        .await?;
        Ok(expired.rows_affected())
    }

    /// How these requests stand.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn standings(&self, ids: &[RequestId]) -> Result<Vec<Standing>, DatabaseError> {
        let ids: Vec<Uuid> = ids.iter().map(RequestId::as_uuid).collect();
        let query = format!("{SHOWN} where r.id = any($1)) s");
        let rows: Vec<Json<Standing>> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query)).bind(ids).fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }
}

async fn one(connection: &mut PgConnection, id: RequestId) -> Result<Option<Request>, sqlx::Error> {
    let query = format!("{SHOWN} where r.id = $1) s");
    let row: Option<Json<Request>> = sqlx::query_scalar(sqlx::AssertSqlSafe(query))
        .bind(id.as_uuid())
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.0))
}

/// Whether this person's word counts. The requester is known by issuer and subject, and under
/// another account by the name that people see and by the verified address.
fn may_decide(request: &Request, email: Option<&str>, voter: &Voter) -> Result<(), DecideError> {
    let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
    let requester = (request.issuer == voter.issuer && request.subject == voter.subject)
        || same(&request.username, &voter.username)
        || email.zip(voter.email.as_deref()).is_some_and(|(a, b)| same(a, b));
    if !request.needs.iter().any(|need| need.names(&voter.groups)) {
        return Err(DecideError::NotAnApprover);
    }
    if requester {
        return Err(DecideError::Requester);
    }
    match request.state {
        RequestState::Pending => Ok(()),
        over => Err(DecideError::Over(over)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(username: &str, group: &str, verdict: VoteVerdict) -> Vote {
        Vote {
            issuer: "i".to_owned(),
            subject: username.to_owned(),
            username: username.to_owned(),
            groups: vec![group.to_owned()],
            verdict,
            comment: None,
            at: Timestamp(0),
        }
    }

    #[test]
    fn a_need_counts_the_people_that_it_names() {
        let need = Need { rule: "r".to_owned(), approvers: vec!["dba".to_owned()], approvals: 2 };
        let one =
            vec![vote("a", "dba", VoteVerdict::Approve), vote("b", "x", VoteVerdict::Approve)];
        assert!(!need.is_met(&one));
        assert!(!need.is_met(&[
            vote("a", "dba", VoteVerdict::Approve),
            vote("b", "dba", VoteVerdict::Deny)
        ]));
        assert!(need.is_met(&[one[0].clone(), vote("c", "dba", VoteVerdict::Approve)]));
        let none = Need { approvals: 0, ..need };
        assert!(!none.is_met(&[]), "no need is met by nobody");
    }
}
