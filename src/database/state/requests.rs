//! Requests: what waits for people to decide, and what they decided.
//!
//! ```text
//! pending -> approved -> consumed      (a command that ran, or access that was granted)
//! pending -> denied | expired
//! approved -> expired                  (approved and not used in time, or given up)
//! ```
//!
//! Each step is one update that names the state it goes from, so of two that race one happens.

mod decide;
mod open;

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::super::queries::{Page, Place, QueryError, Wanted};
use super::super::rows::Timestamp;
use super::super::{Database, DatabaseError};
use crate::names::{Protocol, RequestId, SessionId};
use crate::policy;

pub use decide::{Answer, DecideError, Decided, Voter};
pub use open::RequestLimits;

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
        let mut people: Vec<Person<'_>> = Vec::new();
        for person in yes.filter(|vote| self.names(&vote.groups)).map(Vote::person) {
            if !people.iter().any(|other| other.is(&person)) {
                people.push(person);
            }
        }
        people.len() >= usize::try_from(self.approvals.max(1)).unwrap_or(usize::MAX)
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

/// Who somebody is, under whatever account: the account itself, the name that people see, or the
/// address that an issuer verified. What is the same in one of them is one person.
#[derive(Debug, Clone, Copy)]
pub struct Person<'a> {
    /// The issuer.
    pub issuer: &'a str,
    /// The subject.
    pub subject: &'a str,
    /// The name shown to people.
    pub username: &'a str,
    /// The verified address.
    pub email: Option<&'a str>,
}

impl Person<'_> {
    /// Whether the two are one person, as far as issuers tell.
    pub fn is(&self, other: &Person<'_>) -> bool {
        let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        (self.issuer, self.subject) == (other.issuer, other.subject)
            || same(self.username, other.username)
            || self.email.zip(other.email).is_some_and(|(a, b)| same(a, b))
    }
}

impl Vote {
    /// Whose it is.
    pub fn person(&self) -> Person<'_> {
        Person {
            issuer: &self.issuer,
            subject: &self.subject,
            username: &self.username,
            email: self.email.as_deref(),
        }
    }
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
    /// The address that the issuer has verified; shown to nobody.
    #[serde(default, skip_serializing)]
    pub email: Option<String>,
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
    /// Its process, where the client waits: one that starts anew holds nothing of the one before.
    pub process: Option<Uuid>,
    /// The session.
    pub session: SessionId,
    /// The place in its recording.
    pub sequence: i64,
    /// The request view.
    pub command: policy::Command,
    /// A keyed hash of all that would run.
    pub exact: String,
    /// Where the client does not wait but asks again: for how many seconds a yes counts.
    pub again_seconds: Option<i64>,
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

/// The columns that are shown, with the votes; out of `requests r`.
const SHOWN: &str = "select row_to_json(s) from (select r.id, r.kind, \
    case when r.state in ('pending', 'approved') and r.expires_at <= clock_timestamp() \
    then 'expired' else r.state end as state, r.issuer, r.subject, r.username, r.target, \
    r.protocol, r.session, r.sequence, r.workflow, r.run, r.command, r.exact, r.needs, r.cautions, \
    r.reason, r.comment, r.seconds, r.created_at, r.expires_at, r.decided_at, r.note, \
    coalesce((select json_agg(v order by v.at) from (select issuer, subject, username, email, groups, \
    verdict, comment, at from votes where request = r.id) v), '[]') as votes from requests r ";

impl Database {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(username: &str, group: &str, verdict: VoteVerdict) -> Vote {
        Vote {
            issuer: "i".to_owned(),
            subject: username.to_owned(),
            username: username.to_owned(),
            email: None,
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
        let at = |username: &str, email: &str| Vote {
            email: Some(email.to_owned()),
            ..vote(username, "dba", VoteVerdict::Approve)
        };
        let twice = [at("a", "Anna@home.example"), at("b", "anna@HOME.example")];
        assert!(!need.is_met(&twice), "one address is one person");
        assert!(need.is_met(&[at("a", "anna@home.example"), at("b", "bert@home.example")]));
        let none = Need { approvals: 0, ..need };
        assert!(!none.is_met(&[]), "no need is met by nobody");
    }
}
