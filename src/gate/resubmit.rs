//! Commands that wait for people while their client does not: it asks again, with the same command.
//!
//! The first time people are asked, and the client is told where it stands. Once they said yes the
//! next one runs, under everything that holds for a command that waited ([`super::pending`]): decided
//! again by the rules in force, its approval used up in one step. What ended otherwise is told
//! once; who asks after that asks anew.

use super::pending::{NotReleased, Pending};
use super::{Gate, Permitted};
use crate::approval::Status;
use crate::database::{Request, RequestState, VoteVerdict};
use crate::names::RequestId;

/// What becomes of a held command whose client asks again.
#[derive(Debug)]
pub enum Again {
    /// People are asked.
    Waits(Status),
    /// They said yes: the very bytes, once.
    Released(Permitted),
    /// It does not run, and the client is told why.
    Refused(NotReleased),
}

impl Gate {
    /// Asks people about a command, or finds what they said to the same one: that of the same
    /// identity and target that is bound to the same ([`Pending::bind`]; its bytes are not looked at).
    ///
    /// Cancel safe: dropped at any point, nothing passed. An approval may be used up then.
    pub async fn ask_again(&self, held: Pending) -> Again {
        let identity = self.grant.identity();
        let whose = (identity.issuer(), identity.subject(), &self.grant.target().name);
        let bound = serde_json::to_vec(&("asked again", whose, held.basis()));
        let asking = self.asking(&held, held.patience(), &bound.unwrap_or_default());
        let id = asking.request.id;
        if held.is_too_large() {
            return self.refused_again(&held, id, NotReleased::TooLarge);
        }
        let request = match self.catalog.desk().ask_again(asking).await {
            Ok((request, _)) => request,
            Err(error) => {
                let why = self.nobody_asked(error);
                return self.refused_again(&held, id, why);
            }
        };
        let why = match request.state {
            RequestState::Pending => return self.waits(&held, &request),
            RequestState::Approved => match self.use_again(&held, &request).await {
                Ok(()) => return Again::Released(held.permitted()),
                Err(why) => why,
            },
            RequestState::Denied => {
                NotReleased::Denied(crate::approval::told(&request.votes, VoteVerdict::Deny))
            }
            RequestState::Expired | RequestState::Consumed => NotReleased::Expired,
        };
        self.refused_again(&held, request.id, why)
    }

    fn waits(&self, held: &Pending, request: &Request) -> Again {
        let status = self.catalog.desk().status_of(request);
        let text = format!("people are asked, and the client asks again: {}", status.link);
        match self.step(held, request.id, "asked", &[], text) {
            Ok(()) => Again::Waits(status),
            Err(why) => Again::Refused(why),
        }
    }

    async fn use_again(&self, held: &Pending, request: &Request) -> Result<(), NotReleased> {
        let desk = self.catalog.desk();
        let used = match self.still_may(held, &request.votes) {
            true => {
                let using = desk.use_again(request, self.session());
                self.use_up(held, request.id, &request.votes, using).await
            }
            false => Err(NotReleased::Stricter),
        };
        if let Err(why @ NotReleased::Stricter) = &used
            && let Err(error) = desk.database().refuse_again(request.id, why.note()).await
        {
            tracing::warn!(request = %request.id, %error, "a request is not ended");
        }
        used
    }

    fn refused_again(&self, held: &Pending, request: RequestId, why: NotReleased) -> Again {
        let recorded = self.step(held, request, why.step(), &[], why.to_string());
        Again::Refused(recorded.err().unwrap_or(why))
    }
}
