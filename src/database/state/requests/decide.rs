//! What ends a request: people's words, its use, and giving it up.

use uuid::Uuid;

use super::super::super::{Database, DatabaseError};
use super::super::grants::{NewGrant, add_grant};
use super::{Person, Request, RequestKind, RequestState, VoteVerdict, one};
use crate::names::{GrantId, RequestId, SessionId};

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

impl Voter {
    /// Who that is.
    pub fn person(&self) -> Person<'_> {
        Person {
            issuer: &self.issuer,
            subject: &self.subject,
            username: &self.username,
            email: self.email.as_deref(),
        }
    }
}

/// What a person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Yes or no.
    pub verdict: VoteVerdict,
    /// Why.
    pub comment: Option<String>,
    /// The keyed hash of what they looked at, where that is said.
    pub exact: Option<String>,
}

/// What came of a decision.
#[derive(Debug, Clone, PartialEq)]
pub struct Decided {
    /// The request as it stands now.
    pub request: Request,
    /// The access that it gave.
    pub grant: Option<GrantId>,
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
    /// What they looked at is something else.
    #[error("the request is for other bytes than those of this hash")]
    OtherBytes,
    /// Once is enough.
    #[error("you have decided this request already, under this account or another one")]
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
impl Database {
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
            sqlx::query_as("select kind, email from requests where id = $1 for update")
                .bind(id.as_uuid())
                .fetch_optional(&mut *transaction)
                .await?;
        let Some((_, email)) = locked.filter(|(found, _)| found == kind.as_str()) else {
            return Err(DecideError::NotFound);
        };
        // The clock counts from behind the lock: who waited for it may have come too late.
        let request = one(&mut transaction, id).await?.ok_or(DecideError::NotFound)?;
        may_decide(&request, email.as_deref(), voter)?;
        if request.votes.iter().any(|vote| vote.person().is(&voter.person())) {
            return Err(DecideError::Again);
        }
        if answer.exact.is_some() && answer.exact != request.exact {
            return Err(DecideError::OtherBytes);
        }
        let voted = sqlx::query(
            "insert into votes (request, issuer, subject, username, groups, verdict, comment, email) \
             values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict do nothing",
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
        .bind(voter.email.as_deref())
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
        // Also when the state stays: who waits is told of each word. Who asks again has time to.
        sqlx::query(
            "update requests set state = $2, decided_at = case when $2 = 'pending' then null \
             else clock_timestamp() end, expires_at = case when $2 = 'approved' \
             and again_seconds is not null \
             then clock_timestamp() + make_interval(secs => again_seconds) else expires_at end \
             where id = $1",
        )
        .bind(id.as_uuid())
        .bind(next.as_str())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        request.state = next;
        Ok(Decided { request, grant })
    }

    /// Uses an approval, once: true for the one that does, before the command goes upstream. Where
    /// the client waits that is its own session.
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
             and (session = $2 or again_seconds is not null) and exact = $3 \
             and expires_at > clock_timestamp()",
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

    /// Ends a request whose client asked again and was told why nothing runs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn refuse_again(&self, id: RequestId, note: &str) -> Result<(), DatabaseError> {
        sqlx::query(
            "update requests set state = 'expired', note = $2, told = true, \
             decided_at = clock_timestamp() where id = $1 and state in ('pending', 'approved')",
        )
        .bind(id.as_uuid())
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
}

/// Whether this person's word counts. The requester is known by issuer and subject, and under
/// another account by the name that people see and by the verified address.
fn may_decide(request: &Request, email: Option<&str>, voter: &Voter) -> Result<(), DecideError> {
    let (issuer, subject) = (&request.issuer, &request.subject);
    let asked = Person { issuer, subject, username: &request.username, email };
    let requester = asked.is(&voter.person());
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
    use serde_json::json;

    use super::*;

    #[test]
    fn nobody_decides_their_own_under_whatever_name() {
        let request: Request = serde_json::from_value(json!({
            "id": "019aa0c2-7f11-7d9e-a3c1-2b6f0e5d4c3b", "kind": "command", "state": "pending",
            "issuer": "corp", "subject": "7", "username": "Anna@example.com", "target": "orders",
            "protocol": "postgres", "session": null, "sequence": null, "workflow": null,
            "run": null, "command": null, "exact": null,
            "needs": [{ "rule": "r", "approvers": ["dba"], "approvals": 1 }],
            "cautions": [], "reason": null, "comment": null, "seconds": null,
            "created_at": "2026-11-21T10:00:00.000000Z", "expires_at": "2026-11-21T10:10:00.000000Z",
            "decided_at": null, "note": null, "votes": [],
        }))
        .unwrap();
        let may = |issuer: &str, subject: &str, username: &str, email: Option<&str>| {
            let voter = Voter {
                issuer: issuer.to_owned(),
                subject: subject.to_owned(),
                username: username.to_owned(),
                email: email.map(str::to_owned),
                groups: vec!["dba".to_owned()],
            };
            may_decide(&request, Some("anna@home.example"), &voter)
        };
        for own in [
            may("corp", "7", "somebody", None),
            may("other", "x", "anna@example.COM", None),
            may("other", "x", "somebody", Some("Anna@Home.example")),
        ] {
            assert!(matches!(own, Err(DecideError::Requester)), "{own:?}");
        }
        assert!(may("other", "7", "bert", Some("bert@home.example")).is_ok());
        assert!(may("corp", "8", "bert", None).is_ok());
    }
}
