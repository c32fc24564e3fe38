//! The desk where one gateway meets people's decisions: commands that wait for approval, access
//! that is asked for, and what administrators withdrew.
//!
//! The decisions stand in the database, which any gateway may write. [`Desk::run`] is told when
//! something is new, and looks every second whatever it was told; it then wakes who waits
//! ([`Waiting`]) and lets every session look whether it still may ([`Desk::news`]).
//!
//! What was withdrawn counts within [`crate::database::PROMISE`]: [`Withdrawn`] knows how old the last look is, and
//! whoever needs a newer one has the desk look at once. A process that was stopped for a while looks
//! before it forwards anything.
//!
//! Limits: while the database cannot be reached nothing can be asked for, and what was decided or
//! withdrawn meanwhile counts when it is back; a wait ends at its time all the same. That state is
//! announced ([`Desk::is_reachable`]), and sessions go on.

mod resubmit;
mod unicode_spoofing;
mod waiting;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Moment;
use crate::config::{AskedAccess, NotifyEvent, Target};
use crate::database::{
    Database, DatabaseError, Need, NewRequest, ReadTo, RequestState, StateNews, Timestamp,
    Withdrawal, Withdrawn, WithdrawnKind,
};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::names::{RequestId, SessionId};
use crate::notify::{News, Notifier};

pub use resubmit::Status;
pub use unicode_spoofing::{Visible, visible};
pub(crate) use waiting::told;
pub use waiting::{Asking, Outcome, Reminders, Waiting};

/// How often the desk looks, whatever it is told: a revocation takes effect within two seconds.
const POLL: Duration = Duration::from_secs(1);
/// How long it waits after the database failed.
const RETRY: Duration = Duration::from_millis(500);
/// How often old state is put away.
const TIDY: Duration = Duration::from_secs(60);
/// How often the desk notes that this process runs; while the database is out of reach, that this is
/// still known.
const BEAT: Duration = Duration::from_millis(250);
/// How long this process may have stood still without its clocks being doubted.
const GAP: Duration = Duration::from_secs(1);
/// How long one answer of the database may take before the connection counts as lost. Sessions wait
/// for a look that takes longer than [`crate::database::PROMISE`]; a long list is many answers.
const ANSWER_TIME: Duration = Duration::from_secs(4);
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
    /// Credentials of sessions that were ended, with the session.
    withdrawn: Vec<(Withdrawal, SessionId)>,
    /// Credentials that were spent on sessions that did not open.
    given_back: Vec<(String, SessionId)>,
}

impl Notes {
    fn len(&self) -> usize {
        self.given_up.len() + self.ended.len() + self.withdrawn.len() + self.given_back.len()
    }
}

/// Why the desk does not attend any more.
struct Ended {
    why: DatabaseError,
    /// This process ran all the time, so that what took too long did.
    unbroken: bool,
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

    /// What is counted in the gateway.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.notifier.metrics()
    }

    /// What counts no more before its time.
    pub fn withdrawn(&self) -> &Arc<Withdrawn> {
        &self.withdrawn
    }

    /// Tells when sessions should look whether they still may.
    pub fn news(&self) -> &watch::Sender<u64> {
        &self.news
    }

    /// How many times rules were replaced and something was withdrawn.
    pub fn generation(&self) -> u64 {
        *self.news.borrow()
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
        self.withdrawn.last_known().by(WithdrawnKind::Session, &session.to_string())
    }

    /// Gives a credential back that was spent on a session that did not open.
    pub fn give_back(&self, credential: String, session: SessionId) {
        self.note(|notes| notes.given_back.push((credential, session)));
    }

    /// Where people decide a request: a page, or the command where no pages are.
    pub fn link(&self, id: RequestId) -> String {
        match &self.public_url {
            Some(url) => format!("{url}/approvals/{id}"),
            None => format!("portcullis approval approve {id} (or deny; elsewhere with --server)"),
        }
    }

    /// Where people decide a request for access.
    pub fn access_link(&self, id: RequestId) -> String {
        match &self.public_url {
            Some(url) => format!("{url}/access-requests/{id}"),
            None => format!("portcullis access approve {id} (or deny; elsewhere with --server)"),
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

    /// Looks for what is new until cancelled. From this call on, before the future is polled, nobody
    /// is let in by a list that was never read.
    pub fn run(self: Arc<Self>, cancel: CancellationToken) -> impl Future<Output = ()> {
        self.withdrawn.is_watched();
        self.watch(cancel)
    }

    async fn watch(self: Arc<Self>, cancel: CancellationToken) {
        loop {
            let ended = cancel.run_until_cancelled(self.attend_unbroken()).await;
            let Some(Ended { why, unbroken }) = ended else { break };
            if !unbroken {
                // A time that ran out while this process stood still says nothing of the database:
                // it is asked anew, and sessions wait for what comes of that.
                tracing::debug!(error = %why, "a look was interrupted");
                continue;
            }
            if self.reachable.swap(false, Ordering::Relaxed) {
                tracing::warn!(error = %why, "state cannot be read; revocations are late");
            }
            // The outage is known now, and announced: sessions go on.
            self.withdrawn.looked(Moment::now());
            if cancel.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                break;
            }
        }
        // What was given up last; the requests expire by themselves otherwise.
        let _late = tokio::time::timeout(POLL, self.tell_database()).await;
    }

    /// Attends until that fails, and says whether this process ran all the time. While the database
    /// is out of reach, and this process runs, the outage stays known however long an attempt takes.
    async fn attend_unbroken(&self) -> Ended {
        let mut attending = std::pin::pin!(self.attend());
        let mut announced = self.withdrawn.is_current(Moment::now()) && !self.is_reachable();
        let (mut last, mut unbroken) = (Moment::now(), true);
        loop {
            let ended = tokio::select! {
                ended = &mut attending => Some(ended),
                () = tokio::time::sleep(BEAT) => None,
            };
            unbroken &= last.elapsed() < GAP;
            last = Moment::now();
            match ended {
                Some(Err(why)) => return Ended { why, unbroken },
                Some(Ok(never)) => match never {},
                None => {}
            }
            announced &= unbroken && !self.is_reachable();
            if announced {
                self.withdrawn.looked(Moment::now());
            } else if self.is_reachable() && self.withdrawn.is_current(Moment::now()) {
                // A look came to its end since.
                unbroken = true;
            }
        }
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
            since = Some(self.look(since.as_ref()).await?);
            if !self.reachable.swap(true, Ordering::Relaxed) {
                tracing::info!("state is read: tickets, approvals and grants count");
            }
            if tidied.is_none_or(|at| at.elapsed() > TIDY) {
                tidied = Some(tokio::time::Instant::now());
                self.withdrawn.forget_old(SystemTime::now());
                self.database.tidy_state().await?;
                // Now and then everything is read: a gateway that was stopped in the middle of a
                // statement may write a time that is long over.
                since = None;
            }
            self.until_due(&mut news).await?;
        }
    }

    async fn until_due(&self, news: &mut StateNews) -> Result<(), DatabaseError> {
        tokio::select! {
            changed = news.changed() => changed?,
            () = self.wake.notified() => {}
            () = self.withdrawn.wanted() => return Ok(()),
            () = tokio::time::sleep(POLL) => return Ok(()),
        }
        self.stirred.send_modify(|generation| *generation += 1);
        Ok(())
    }

    /// Looks once; gives what to look from next.
    async fn look(&self, since: Option<&ReadTo>) -> Result<ReadTo, DatabaseError> {
        let began = Moment::now();
        let (mut first, mut behind) = (None, None);
        loop {
            let page = in_time(self.database.withdrawals(since, behind.as_ref())).await?;
            let mut new = false;
            for withdrawal in &page.items {
                if self.withdrawn.add(withdrawal) {
                    new = true;
                    self.withdraw_credential_of(withdrawal);
                }
            }
            // Sessions are told before anybody who waits for this look goes on.
            if new {
                self.news.send_modify(|generation| *generation += 1);
            }
            // What is written while pages are read is read with the next look.
            first.get_or_insert(page.read_to);
            behind = page.next;
            if behind.is_none() {
                break;
            }
        }
        self.withdrawn.looked(began);
        self.tell_database().await?;
        let ids: Vec<RequestId> = self.waiting.lock().keys().copied().collect();
        if !ids.is_empty() {
            for standing in in_time(self.database.standings(&ids)).await? {
                if let Some(waiter) = self.waiting.lock().get(&standing.id) {
                    waiter.send_if_modified(|known| {
                        let changed = *known != standing;
                        *known = standing;
                        changed
                    });
                }
            }
        }
        first.ok_or(DatabaseError::TooSlow)
    }

    /// Whoever ends a session does not want it to come back, unless they say so: what opened it is
    /// refused until it expires. The gateway that has the session knows what that is.
    fn withdraw_credential_of(&self, withdrawal: &Withdrawal) {
        if withdrawal.kind != WithdrawnKind::Session || withdrawal.keep_credential {
            return;
        }
        let Ok(session) = withdrawal.key.parse::<SessionId>() else { return };
        let credential = self.sessions.lock().get(&session).cloned();
        let Some(Credential { id, expires }) = credential else { return };
        let credential = Withdrawal {
            kind: WithdrawnKind::Credential,
            key: id,
            until: Timestamp::from(expires),
            username: withdrawal.username.clone(),
            ended_at: None,
            keep_credential: false,
        };
        // First here, so that it counts whatever becomes of the database.
        self.withdrawn.add(&credential);
        self.note(|notes| notes.withdrawn.push((credential, session)));
    }

    fn note(&self, add: impl FnOnce(&mut Notes)) {
        let mut notes = self.notes.lock();
        if notes.len() < MAX_NOTES {
            add(&mut notes);
        }
        drop(notes);
        self.wake.notify_one();
    }

    /// Tells the database what was noted. What it was not told, whatever the reason, is noted again.
    async fn tell_database(&self) -> Result<(), DatabaseError> {
        let notes = std::mem::take(&mut *self.notes.lock());
        let mut taken = Taken { desk: self, notes };
        let Notes { given_up, ended, withdrawn, given_back } = &taken.notes;
        let mut by_note: HashMap<&'static str, Vec<RequestId>> = HashMap::new();
        for (id, note) in given_up {
            by_note.entry(note).or_default().push(*id);
        }
        for (note, ids) in by_note {
            in_time(self.database.give_up(&ids, note)).await?;
        }
        for (credential, session) in given_back {
            in_time(self.database.give_back_credential(credential, *session)).await?;
        }
        for (withdrawal, session) in withdrawn {
            in_time(self.database.withdraw_credential(withdrawal, *session)).await?;
        }
        for session in ended {
            in_time(self.database.session_was_ended(&session.to_string())).await?;
        }
        taken.notes = Notes::default();
        Ok(())
    }
}

/// Notes that are being told. Dropped before that is done, they are there again: telling twice does
/// no harm.
struct Taken<'d> {
    desk: &'d Desk,
    notes: Notes,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let Notes { given_up, ended, withdrawn, given_back } = std::mem::take(&mut self.notes);
        let mut notes = self.desk.notes.lock();
        notes.given_up.extend(given_up);
        notes.ended.extend(ended);
        notes.withdrawn.extend(withdrawn);
        notes.given_back.extend(given_back);
    }
}

/// An answer of the database, or that it took too long. What is dropped then is asked again.
async fn in_time<T>(
    asked: impl Future<Output = Result<T, DatabaseError>>,
) -> Result<T, DatabaseError> {
    tokio::time::timeout(ANSWER_TIME, asked).await.map_err(|_| DatabaseError::TooSlow)?
}
