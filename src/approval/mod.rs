//! The desk where one gateway meets people's decisions: commands that wait for approval, access
//! that is asked for, and what administrators withdrew.
//!
//! The decisions stand in the database, which any gateway may write. [`Desk::run`] is told when
//! something is new, and looks every second whatever it was told; it then wakes who waits
//! ([`Waiting`]) and lets every session look whether it still may ([`Desk::news`]).
//!
//! Limits: while the database cannot be reached nothing can be asked for, and what was decided or
//! withdrawn meanwhile counts when it is back; a wait ends at its time all the same.

mod again;
mod visible;
mod waiting;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{AskedAccess, NotifyEvent, Target};
use crate::database::{
    Database, DatabaseError, Need, NewRequest, RequestState, StateNews, Timestamp, Withdrawal,
    Withdrawn, WithdrawnKind,
};
use crate::identity::Identity;
use crate::names::{RequestId, SessionId};
use crate::notify::{News, Notifier};

pub use again::Status;
pub use visible::{Visible, visible};
pub(crate) use waiting::told;
pub use waiting::{Asking, Outcome, Reminders, Waiting};

/// How often the desk looks, whatever it is told: a revocation takes effect within two seconds.
const POLL: Duration = Duration::from_secs(1);
/// How long it waits after the database failed.
const RETRY: Duration = Duration::from_millis(500);
/// How often old state is put away.
const TIDY: Duration = Duration::from_secs(60);
/// How long one look may take before the connection counts as lost.
const LOOK_TIME: Duration = Duration::from_secs(15);
/// How long people have to grant access that was asked for.
const ACCESS_WAIT: Duration = Duration::from_secs(24 * 60 * 60);
/// What a request says that nobody decided.
const NOT_IN_TIME: &str = "nobody decided in time";
/// Notes for the database that are kept while it is away; requests expire by themselves too.
const MAX_NOTES: usize = 100_000;

/// One gateway's desk.
#[derive(Debug)]
pub struct Desk {
    database: Database,
    notifier: Arc<Notifier>,
    /// A gateway that starts anew holds nothing of what it held before.
    process: Uuid,
    public_url: Option<String>,
    withdrawn: Arc<Withdrawn>,
    news: watch::Sender<u64>,
    stirred: watch::Sender<u64>,
    sessions: Mutex<HashMap<SessionId, Credential>>,
    waiting: Mutex<HashMap<RequestId, watch::Sender<crate::database::Standing>>>,
    notes: Mutex<Notes>,
    wake: Notify,
    reachable: AtomicBool,
}

/// What opened a session.
#[derive(Debug, Clone)]
struct Credential {
    id: String,
    expires: SystemTime,
}

/// What the database is still to be told.
#[derive(Debug, Default)]
struct Notes {
    given_up: Vec<(RequestId, &'static str)>,
    ended: Vec<SessionId>,
}

/// A request for access that waits for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its id.
    pub id: RequestId,
    /// Where people decide it.
    pub link: String,
    /// Whether they said no, not long ago.
    pub denied: bool,
}

/// A session that is open; it is not any more when this is dropped.
#[derive(Debug)]
pub struct Present {
    desk: Arc<Desk>,
    session: SessionId,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.desk.sessions.lock().remove(&self.session);
        if self.desk.is_killed(self.session).is_some() {
            self.desk.note(|notes| notes.ended.push(self.session));
        }
    }
}

impl Desk {
    /// The desk of a gateway; links begin with `public_url`.
    pub fn new(
        database: Database,
        notifier: Arc<Notifier>,
        public_url: Option<String>,
    ) -> Arc<Self> {
        Arc::new(Self {
            database,
            notifier,
            process: Uuid::now_v7(),
            public_url,
            withdrawn: Arc::default(),
            news: watch::Sender::new(0),
            stirred: watch::Sender::new(0),
            sessions: Mutex::default(),
            waiting: Mutex::default(),
            notes: Mutex::default(),
            wake: Notify::new(),
            reachable: AtomicBool::new(false),
        })
    }

    /// Where state is kept.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Tells those who want to be told.
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// What counts no more before its time.
    pub fn withdrawn(&self) -> &Arc<Withdrawn> {
        &self.withdrawn
    }

    /// Tells when sessions should look whether they still may.
    pub fn news(&self) -> &watch::Sender<u64> {
        &self.news
    }

    /// Tells that something may be new of what people ask and decide, for who looks at it.
    pub fn stirred(&self) -> watch::Receiver<u64> {
        self.stirred.subscribe()
    }

    /// Whether state could be read when it was last looked at.
    pub fn is_reachable(&self) -> bool {
        self.reachable.load(Ordering::Relaxed)
    }

    /// Has the desk look now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// How many commands wait for people here.
    pub fn waiting(&self) -> usize {
        self.waiting.lock().len()
    }

    /// Notes that a session is open.
    pub fn enter(self: &Arc<Self>, session: SessionId, identity: &Identity) -> Present {
        let credential =
            Credential { id: identity.token_id().to_owned(), expires: identity.expires() };
        self.sessions.lock().insert(session, credential);
        Present { desk: Arc::clone(self), session }
    }

    /// Who ended this session, if somebody did.
    pub fn is_killed(&self, session: SessionId) -> Option<String> {
        self.withdrawn.by(WithdrawnKind::Session, &session.to_string())
    }

    /// Where people decide a request: a page, or the command where no pages are.
    pub fn link(&self, id: RequestId) -> String {
        match &self.public_url {
            Some(url) => format!("{url}/approvals/{id}"),
            None => format!("portcullis approval show {id}"),
        }
    }

    /// Where people decide a request for access.
    pub fn access_link(&self, id: RequestId) -> String {
        match &self.public_url {
            Some(url) => format!("{url}/access-requests/{id}"),
            None => format!("portcullis access show {id}"),
        }
    }

    /// Asks people for access, or finds that they are asked already; whether it is new is told
    /// too. `duration` may shorten what the rule gives.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn ask_for_access(
        &self,
        identity: &Identity,
        target: &Target,
        whom: &AskedAccess,
        duration: Option<Duration>,
        comment: Option<String>,
    ) -> Result<(Asked, bool), DatabaseError> {
        let request = NewRequest {
            id: RequestId::generate(),
            issuer: identity.issuer().to_owned(),
            subject: identity.subject().to_owned(),
            username: identity.username().to_owned(),
            email: identity.email().map(str::to_owned),
            target: target.name.to_string(),
            protocol: target.protocol(),
            workflow: identity.workflow().map(str::to_owned),
            run: identity.run().map(str::to_owned),
            needs: vec![Need {
                rule: "access".to_owned(),
                approvers: whom.approvers.clone(),
                approvals: whom.approvals,
            }],
            cautions: Vec::new(),
            reason: None,
            comment,
        };
        let duration = duration.map_or(whom.duration, |wanted| wanted.min(whom.duration));
        let (request, new) = self
            .database
            .open_access_request(&request, duration.as_secs().max(1), ACCESS_WAIT.as_secs())
            .await?;
        if new {
            let (request, username) = (request.id, identity.username());
            tracing::info!(%request, username, target = %target.name, "access asked for");
            self.notifier.tell(NotifyEvent::Approval, || News {
                username: username.to_owned(),
                target: target.name.to_string(),
                request: Some(request),
                link: Some(self.access_link(request)),
                text: format!("access to {} for {} s", target.name, duration.as_secs()),
                ..News::default()
            });
        }
        let denied = request.state == RequestState::Denied;
        Ok((Asked { link: self.access_link(request.id), id: request.id, denied }, new))
    }

    /// Looks for what is new until cancelled.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            let failed = match cancel.run_until_cancelled(self.attend()).await {
                None => break,
                Some(Err(error)) => error,
                Some(Ok(never)) => match never {},
            };
            if self.reachable.swap(false, Ordering::Relaxed) {
                tracing::warn!(error = %failed, "state cannot be read; revocations are late");
            }
            if cancel.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                break;
            }
        }
        // What was given up last; the requests expire by themselves otherwise.
        let _late = tokio::time::timeout(POLL, self.tell_database()).await;
    }

    async fn attend(&self) -> Result<std::convert::Infallible, DatabaseError> {
        // While tables are still being made some of them are there already.
        self.database.check_version().await?;
        let mut news = self.database.state_news().await?;
        let left = self.database.expire_left(self.notifier.gateway(), self.process).await?;
        if left > 0 {
            tracing::info!(left, "commands that an earlier process held are given up");
        }
        let mut since = None;
        let mut tidied = None::<tokio::time::Instant>;
        loop {
            let look = tokio::time::timeout(LOOK_TIME, self.look(since));
            let slow = |_| DatabaseError::TooSlow;
            since = Some(look.await.map_err(slow)??);
            if !self.reachable.swap(true, Ordering::Relaxed) {
                tracing::info!("state is read: tickets, approvals and grants count");
            }
            if tidied.is_none_or(|at| at.elapsed() > TIDY) {
                tidied = Some(tokio::time::Instant::now());
                self.withdrawn.forget_old(SystemTime::now());
                self.database.tidy_state().await?;
            }
            self.until_due(&mut news).await?;
        }
    }

    async fn until_due(&self, news: &mut StateNews) -> Result<(), DatabaseError> {
        tokio::select! {
            changed = news.changed() => changed?,
            () = self.wake.notified() => {}
            () = tokio::time::sleep(POLL) => return Ok(()),
        }
        self.stirred.send_modify(|generation| *generation += 1);
        Ok(())
    }

    /// Looks once; gives the time to look from next.
    async fn look(&self, since: Option<Timestamp>) -> Result<Timestamp, DatabaseError> {
        self.tell_database().await?;
        let (withdrawals, now) = self.database.withdrawals(since).await?;
        let mut new = false;
        for withdrawal in &withdrawals {
            if self.withdrawn.add(withdrawal) {
                new = true;
                self.withdraw_credential_of(withdrawal).await?;
            }
        }
        if new {
            self.news.send_modify(|generation| *generation += 1);
        }
        let ids: Vec<RequestId> = self.waiting.lock().keys().copied().collect();
        if !ids.is_empty() {
            for standing in self.database.standings(&ids).await? {
                if let Some(waiter) = self.waiting.lock().get(&standing.id) {
                    waiter.send_if_modified(|known| {
                        let changed = *known != standing;
                        *known = standing;
                        changed
                    });
                }
            }
        }
        Ok(now)
    }

    /// Whoever ends a session does not want it to come back: what opened it is refused until it
    /// expires. The gateway that has the session knows what that is.
    async fn withdraw_credential_of(&self, withdrawal: &Withdrawal) -> Result<(), DatabaseError> {
        if withdrawal.kind != WithdrawnKind::Session {
            return Ok(());
        }
        let session = withdrawal.key.parse::<SessionId>().ok();
        let credential = session.and_then(|session| self.sessions.lock().get(&session).cloned());
        let Some(Credential { id, expires }) = credential else { return Ok(()) };
        let (until, by) = (Timestamp::from(expires), &withdrawal.username);
        // First here, so that it counts whatever becomes of the database.
        self.withdrawn.add(&Withdrawal {
            kind: WithdrawnKind::Credential,
            key: id.clone(),
            until,
            username: by.clone(),
            ended_at: None,
        });
        self.database.withdraw(WithdrawnKind::Credential, &id, until, by).await
    }

    fn note(&self, add: impl FnOnce(&mut Notes)) {
        let mut notes = self.notes.lock();
        if notes.given_up.len() + notes.ended.len() < MAX_NOTES {
            add(&mut notes);
        }
        drop(notes);
        self.wake.notify_one();
    }

    async fn tell_database(&self) -> Result<(), DatabaseError> {
        let Notes { given_up, ended } = std::mem::take(&mut *self.notes.lock());
        let mut by_note: HashMap<&'static str, Vec<RequestId>> = HashMap::new();
        for (id, note) in &given_up {
            by_note.entry(note).or_default().push(*id);
        }
        let told = async {
            for (note, ids) in by_note {
                self.database.give_up(&ids, note).await?;
            }
            for session in &ended {
                self.database.session_was_ended(&session.to_string()).await?;
            }
            Ok(())
        };
        let told = told.await;
        if told.is_err() {
            let mut notes = self.notes.lock();
            notes.given_up.extend(given_up);
            notes.ended.extend(ended);
        }
        told
    }
}
