//! A command whose client does not wait for people but asks again later, with the same command:
//! the request outlives the connection, the session and the gateway.

use serde::Serialize;
use tokio::time::timeout;

use super::waiting::{ASK_TIME, Asking, told};
use super::{Desk, NOT_IN_TIME};
use crate::config::NotifyEvent;
use crate::database::{DatabaseError, Request, RequestKind, RequestState, Timestamp, VoteVerdict};
use crate::identity::Identity;
use crate::names::{RequestId, SessionId};

/// How a request stands, as who asked may know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its id.
    pub id: RequestId,
    /// How it stands.
    pub state: RequestState,
    /// The same in words.
    pub detail: String,
    /// Where people decide it.
    pub link: String,
    /// When its time is over.
    pub expires_at: Timestamp,
}

impl Status {
    /// Whether people are still asked.
    pub fn is_pending(&self) -> bool {
        self.state == RequestState::Pending
    }
}

impl Desk {
    /// Asks people about a command, or finds that they were asked about the very same one: what it
    /// is bound to is equal. Whether it is new is told too.
    ///
    /// # Errors
    /// When the request cannot be kept.
    pub async fn ask_again(&self, asking: Asking) -> Result<(Request, bool), DatabaseError> {
        let limits = asking.limits;
        let (request, mut command, news, seconds) = self.asked(asking);
        command.process = None;
        command.again_seconds = i64::try_from(seconds).ok();
        let kept = self.database().ask_again(&request, &command, seconds, limits);
        let (request, new) =
            timeout(ASK_TIME, kept).await.map_err(|_| DatabaseError::TooSlow)??;
        if new {
            self.notifier().tell(NotifyEvent::Approval, || news);
        }
        Ok((request, new))
    }

    /// Uses the approval of what was asked again, once over all gateways.
    ///
    /// # Errors
    /// When the database cannot be asked. Whatever goes wrong, nothing may run.
    pub async fn use_again(
        &self,
        request: &Request,
        session: SessionId,
    ) -> Result<bool, DatabaseError> {
        let exact = request.exact.as_deref().unwrap_or_default();
        let used = self.database().consume(request.id, session, exact);
        timeout(ASK_TIME, used).await.map_err(|_| DatabaseError::TooSlow)?
    }

    /// How a command's request stands, for who asked and nobody else.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn status(
        &self,
        identity: &Identity,
        id: RequestId,
    ) -> Result<Option<Status>, DatabaseError> {
        let own = |request: &Request| {
            request.kind == RequestKind::Command
                && (identity.issuer(), identity.subject()) == (&*request.issuer, &*request.subject)
                && identity.bound().is_none_or(|bound| bound.target.as_str() == request.target)
        };
        let request = self.database().request(id).await?.filter(own);
        Ok(request.map(|request| self.status_of(&request)))
    }

    /// The same of a request at hand.
    pub fn status_of(&self, request: &Request) -> Status {
        let by = |verdict| told(&request.votes, verdict);
        Status {
            id: request.id,
            state: request.state,
            detail: match request.state {
                RequestState::Pending => "it waits for approval".to_owned(),
                RequestState::Approved => format!("approved by {}", by(VoteVerdict::Approve)),
                RequestState::Denied => format!("denied by {}", by(VoteVerdict::Deny)),
                RequestState::Expired => request.note.as_deref().unwrap_or(NOT_IN_TIME).to_owned(),
                RequestState::Consumed => "its approval was used".to_owned(),
            },
            link: self.link(request.id),
            expires_at: request.expires_at,
        }
    }
}
