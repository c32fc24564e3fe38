//! A command that waits for people.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};

use super::{Desk, NOT_IN_TIME};
use crate::config::NotifyEvent;
use crate::database::{
    CommandRequest, DatabaseError, NewRequest, RequestLimits, RequestState, Standing, Vote,
    VoteVerdict,
};
use crate::names::{RequestId, SessionId};
use crate::notify::News;
use crate::policy::Command;

/// Commands that wait at one gateway at a time; more are refused.
const MAX_WAITING: usize = 20_000;
/// How often a client is told that its command waits: below what balancers and firewalls take for
/// a dead connection.
const REMIND: Duration = Duration::from_secs(15);
/// How long the database may take to keep a request, or to let one be used.
pub(super) const ASK_TIME: Duration = Duration::from_secs(10);

/// What is asked.
#[derive(Debug)]
pub struct Asking {
    /// Who asks for what, and whom.
    pub request: NewRequest,
    /// The session that waits.
    pub session: SessionId,
    /// The place of the command in its recording.
    pub sequence: u64,
    /// The command in its request view.
    pub command: Command,
    /// A keyed hash of all that would run.
    pub exact: String,
    /// How long it waits.
    pub patience: Duration,
    /// How many may wait at a time.
    pub limits: RequestLimits,
}

/// What came of waiting.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Enough people said yes; with what they said.
    Approved(Vec<Vote>),
    /// Somebody said no.
    Denied(Vec<Vote>),
    /// Nobody decided in time, or the request ended otherwise.
    Expired,
}

/// A command that waits. When this is dropped before it is used, the request ends.
#[derive(Debug)]
pub struct Waiting {
    desk: Arc<Desk>,
    id: RequestId,
    session: SessionId,
    exact: String,
    deadline: Instant,
    standing: watch::Receiver<Standing>,
    /// What the request says when nobody uses it.
    note: &'static str,
    over: bool,
}

impl Desk {
    /// Opens a request and waits for nothing yet.
    ///
    /// # Errors
    /// When the request cannot be kept, or too many wait.
    pub async fn ask(self: &Arc<Self>, asking: Asking) -> Result<Waiting, DatabaseError> {
        let (id, session) = (asking.request.id, asking.session);
        let (exact, patience, limits) = (asking.exact.clone(), asking.patience, asking.limits);
        let pending = Standing { id, state: RequestState::Pending, note: None, votes: Vec::new() };
        let (sender, standing) = watch::channel(pending);
        {
            let mut waiting = self.waiting.lock();
            if waiting.len() >= MAX_WAITING {
                let text =
                    format!("{MAX_WAITING} commands wait at this gateway, the most that may");
                return Err(DatabaseError::Limit(text));
            }
            waiting.insert(id, sender);
        }
        // From here on a drop leaves nothing behind.
        let mut waiting = Waiting {
            desk: Arc::clone(self),
            id,
            session,
            exact,
            deadline: Instant::now() + patience,
            standing,
            note: "the session ended",
            over: false,
        };
        let (request, command, news, seconds) = self.asked(asking);
        let kept = self.database.open_command_request(&request, &command, seconds, limits);
        timeout(ASK_TIME, kept).await.map_err(|_| DatabaseError::TooSlow)??;
        waiting.deadline = Instant::now() + patience;
        self.notifier.tell(NotifyEvent::Approval, || news);
        Ok(waiting)
    }

    /// What is kept, what is told, and for how many seconds it waits.
    pub(super) fn asked(&self, asking: Asking) -> (NewRequest, CommandRequest, News, u64) {
        let Asking { request, session, sequence, command, exact, patience, limits: _ } = asking;
        let news = News {
            username: request.username.clone(),
            target: request.target.clone(),
            session: Some(session),
            request: Some(request.id),
            link: Some(self.link(request.id)),
            rules: request.needs.iter().map(|need| need.rule.clone()).collect(),
            reason: request.reason.clone(),
            text: command.text.clone(),
        };
        let command = CommandRequest {
            gateway: self.notifier.gateway().to_owned(),
            process: Some(self.process),
            session,
            sequence: i64::try_from(sequence).unwrap_or(i64::MAX),
            command,
            exact,
            again_seconds: None,
        };
        (request, command, news, patience.as_secs().max(1))
    }
}

impl Waiting {
    /// The request's id.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Where people decide it.
    pub fn link(&self) -> String {
        self.desk.link(self.id)
    }

    /// When its time is over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Waits until people have decided, or its time is over. Cancel safe: asking again goes on.
    pub async fn decided(&mut self) -> Outcome {
        loop {
            {
                let standing = self.standing.borrow_and_update();
                match standing.state {
                    RequestState::Pending => {}
                    RequestState::Approved => return Outcome::Approved(standing.votes.clone()),
                    RequestState::Denied => return Outcome::Denied(standing.votes.clone()),
                    RequestState::Expired | RequestState::Consumed => return Outcome::Expired,
                }
            }
            tokio::select! {
                changed = self.standing.changed() => {
                    if changed.is_err() {
                        return Outcome::Expired;
                    }
                }
                () = sleep_until(self.deadline) => {
                    self.note = NOT_IN_TIME;
                    return Outcome::Expired;
                }
            }
        }
    }

    /// Ends the request unused, and says why.
    pub fn give_up(mut self, note: &'static str) {
        self.note = note;
    }

    /// Uses the approval, once and for what was approved alone; false when it is not there to be
    /// used. Whatever goes wrong, nothing may run.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn consume(mut self) -> Result<bool, DatabaseError> {
        let used = self.desk.database.consume(self.id, self.session, &self.exact);
        let used = timeout(ASK_TIME, used).await.map_err(|_| DatabaseError::TooSlow)??;
        self.over = used;
        Ok(used)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.desk.waiting.lock().remove(&self.id);
        let decided = matches!(
            self.standing.borrow().state,
            RequestState::Denied | RequestState::Expired | RequestState::Consumed
        );
        if !self.over && !decided {
            let (id, note) = (self.id, self.note);
            self.desk.note(|notes| notes.given_up.push((id, note)));
        }
    }
}

/// When a client is told that its command waits: at once, and then so often that nothing between
/// takes its connection for dead.
#[derive(Debug)]
pub struct Reminders {
    times: Interval,
    deadline: Instant,
}

impl Reminders {
    /// For what waits until then, from now on.
    pub fn until(deadline: Instant) -> Self {
        let mut times = interval(REMIND);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { times, deadline }
    }

    /// Waits for the next time; gives how much longer the command may wait. Cancel safe.
    pub async fn next(&mut self) -> Duration {
        let now = self.times.tick().await;
        self.deadline.saturating_duration_since(now)
    }
}

/// Who said yes or no, for people: `anna, bob: "looks right"`.
pub(crate) fn told(votes: &[Vote], verdict: VoteVerdict) -> String {
    let words = votes.iter().filter(|vote| vote.verdict == verdict).map(|vote| {
        match vote.comment.as_deref().filter(|comment| !comment.is_empty()) {
            Some(comment) => format!("{}: {comment}", vote.username),
            None => vote.username.clone(),
        }
    });
    words.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;
    use crate::notify::Notifier;

    /// A command that waits ten minutes at a desk whose database is away.
    fn waiting() -> (Arc<Desk>, watch::Sender<Standing>, Waiting) {
        let database = Database::from_url("postgres://nobody@127.0.0.1:1/none").unwrap();
        let desk = Desk::new(database, Notifier::new(&[], "g".to_owned(), Arc::default()), None);
        let id = RequestId::generate();
        let (sender, standing) = watch::channel(Standing {
            id,
            state: RequestState::Pending,
            note: None,
            votes: Vec::new(),
        });
        let waiting = Waiting {
            desk: Arc::clone(&desk),
            id,
            session: SessionId::generate(),
            exact: String::new(),
            deadline: Instant::now() + Duration::from_secs(600),
            standing,
            note: "the session ended",
            over: false,
        };
        (desk, sender, waiting)
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_of_ten_minutes_ends_with_them_and_not_before() {
        let (desk, _sender, mut waiting) = waiting();
        let began = Instant::now();
        assert_eq!(waiting.decided().await, Outcome::Expired);
        // Timers count in milliseconds.
        assert_eq!(began.elapsed().as_secs(), 600);
        let id = waiting.id();
        drop(waiting);
        assert_eq!(desk.notes.lock().given_up, [(id, "nobody decided in time")]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_is_told_at_once_and_every_fifteen_seconds_for_ten_minutes() {
        let (_desk, _sender, mut waiting) = waiting();
        let mut reminders = Reminders::until(waiting.deadline());
        let mut told = Vec::new();
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = waiting.decided() => break outcome,
                left = reminders.next() => told.push(left.as_secs()),
            }
        };
        assert_eq!(outcome, Outcome::Expired);
        assert_eq!(told, (1..=40).rev().map(|n| n * 15).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_yes_at_the_last_second_counts_and_dropping_the_wait_goes_on_later() {
        let (_desk, sender, mut waiting) = waiting();
        let patience = timeout(Duration::from_secs(599), waiting.decided()).await;
        assert!(patience.is_err(), "nobody has decided");
        sender.send_modify(|standing| standing.state = RequestState::Approved);
        assert_eq!(waiting.decided().await, Outcome::Approved(Vec::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn an_approval_is_not_used_while_the_database_is_away_and_is_given_up() {
        let (desk, sender, waiting) = waiting();
        sender.send_modify(|standing| standing.state = RequestState::Approved);
        assert!(waiting.consume().await.is_err());
        assert_eq!(desk.notes.lock().given_up.len(), 1);
    }
}
