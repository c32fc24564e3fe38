//! Sessions: the requests of one caller to one target in one run, whatever connections they come
//! on, until none came for a while.
//!
//! Every request proves its caller anew. It joins the open session of the same caller, target,
//! workflow and run, if there is one; a token with other groups or claims is another caller.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OnceCell};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Context;
use super::refusal::Refusal;
use super::upstream::{NotReached, Upstream};
use crate::access::{Ends, NoAccess};
use crate::admission::{Admitted, Knock, Proofs, Said};
use crate::config::TargetKind;
use crate::gate::{Fault, Gate, How, SessionEnd};
use crate::identity::Identity;
use crate::names::{Protocol, SessionId, TargetName};
use crate::recording::{RecordingFailure, Told};

/// Sessions that one caller may have open at once: runs and targets.
const MAX_PER_CALLER: usize = 64;
/// Requests that may run in one session at once.
const MAX_REQUESTS: usize = 1_024;
/// How long what runs gets to end when its session was cut.
const CUT_TIME: Duration = Duration::from_secs(5);

/// What makes requests belong together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    issuer: String,
    subject: String,
    /// Everything else that a rule may know of the caller.
    likeness: blake3::Hash,
    target: TargetName,
    workflow: Option<String>,
    run: Option<String>,
    /// What was presented, where that opens one session or is for one target.
    credential: Option<String>,
    /// Tells apart what belongs to no run yet.
    kickoff: Option<SessionId>,
}

impl Key {
    fn new(caller: &Caller) -> Self {
        let identity = &caller.identity;
        let by_itself = caller.once || identity.bound().is_some();
        Self {
            issuer: identity.issuer().to_owned(),
            subject: identity.subject().to_owned(),
            likeness: *identity.likeness(),
            target: caller.target.clone(),
            workflow: caller.workflow.as_ref().map(|told| told.name.clone()),
            run: caller.run.as_ref().map(|told| told.name.clone()),
            credential: by_itself.then(|| identity.token_id().to_owned()),
            kickoff: caller.begins_run.then(SessionId::generate),
        }
    }

    fn is_of(&self, other: &Self) -> bool {
        self.issuer == other.issuer && self.subject == other.subject
    }
}

/// The sessions that are open.
#[derive(Debug)]
pub(super) struct Sessions {
    open: Mutex<HashMap<Key, Arc<Slot>>>,
    tasks: TaskTracker,
}

/// The place of a session, from the first request for it to its end.
#[derive(Debug)]
struct Slot {
    key: Key,
    session: OnceCell<Arc<Session>>,
    /// The run that it turned out to be of.
    run: OnceCell<Key>,
    usage: Mutex<Usage>,
    /// Told when a request ended, and when the session should; its keeper alone waits.
    changed: Notify,
    /// What runs must end.
    cut: CancellationToken,
}

#[derive(Debug)]
struct Usage {
    requests: usize,
    /// When the last of them ended.
    idle_since: Instant,
    /// Why the session takes no more of them.
    closing: Option<Closing>,
}

#[derive(Debug, Clone)]
struct Closing {
    end: SessionEnd,
    /// Whether what runs is cut off.
    cut: bool,
}

impl Closing {
    fn gently(how: How, fault: Fault, text: &str) -> Self {
        Self { end: SessionEnd::new(how, fault, text), cut: false }
    }

    fn at_once(end: SessionEnd) -> Self {
        Self { end, cut: true }
    }
}

#[derive(Debug)]
struct Session {
    gate: Gate,
    upstream: Upstream,
    admitted: Admitted,
}

/// A session in use by a request.
#[derive(Debug)]
pub(super) struct InUse {
    held: Held,
    session: Arc<Session>,
}

/// A place in use by a request.
#[derive(Debug)]
struct Held {
    sessions: Arc<Sessions>,
    slot: Arc<Slot>,
}

/// Who asks, and what for.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) identity: Arc<Identity>,
    pub(super) target: TargetName,
    /// Until when, as the rules say.
    pub(super) ends: Ends,
    /// Whether what was presented opens one session and never another.
    pub(super) once: bool,
    pub(super) client: SocketAddr,
    pub(super) workflow: Option<Told>,
    pub(super) run: Option<Told>,
    /// The request begins a run whose name only its answer tells.
    pub(super) begins_run: bool,
    pub(super) user_agent: Option<String>,
}

/// The caller's session on the target, which is opened where it is not.
pub(super) async fn enter(context: &Arc<Context>, caller: &Caller) -> Result<InUse, NotOpen> {
    let key = Key::new(caller);
    let held = Sessions::hold(&context.sessions, key)?;
    let slot = Arc::clone(&held.slot);
    let session = slot.session.get_or_try_init(|| open(context, &held, caller)).await?;
    let session = InUse { session: Arc::clone(session), held };
    session.gate().still_granted().map_err(NotOpen::NoAccess)?;
    Ok(session)
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum NotOpen {
    /// For the client to know.
    Refused(Refusal),
    /// For log and recording; the client is told one thing whatever it is.
    NoAccess(NoAccess),
}

impl From<Refusal> for NotOpen {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

async fn open(
    context: &Arc<Context>,
    held: &Held,
    caller: &Caller,
) -> Result<Arc<Session>, NotOpen> {
    let (gateway, identity) = (&context.gateway, &caller.identity);
    let target = caller.target.clone();
    let Some(place) = gateway.place() else {
        let named = target.as_str();
        let knock = Knock { protocol: Protocol::Http, client: caller.client, named };
        gateway.turned_away(&knock, Some(identity), "no room for another session");
        return Err(Refusal::Busy.into());
    };
    let session = SessionId::generate();
    let admitted = gateway.admit(identity, &target, session, place, Proofs::Many).await;
    let admitted = admitted.map_err(NotOpen::NoAccess)?;
    let agent = caller.user_agent.iter().map(|agent| ("user-agent".to_owned(), agent.clone()));
    let said = Said {
        database: None,
        workflow: caller.workflow.clone(),
        run: caller.run.clone(),
        parameters: agent.collect(),
    };
    let gate = admitted.record(gateway, caller.client, said).map_err(|_| Refusal::NotRecorded)?;
    let upstream = match upstream(context, &gate).await {
        Ok(upstream) => upstream,
        Err(error) => {
            // All of it is configuration: nothing was sent yet.
            gate.not_reached(Fault::Operator, &error).await;
            return Err(Refusal::Unreachable(target).into());
        }
    };
    let session = Arc::new(Session { gate, upstream, admitted });
    let keeping = keep(Arc::clone(context), Arc::clone(&held.slot), Arc::clone(&session));
    context.gateway.shutdown.sessions().spawn(keeping);
    Ok(session)
}

/// An open gate is the proof that the caller may, and that the session is being recorded.
async fn upstream(context: &Context, gate: &Gate) -> Result<Upstream, NotReached> {
    let target = gate.grant().target();
    let TargetKind::Http(http) = &target.kind else { return Err(NotReached::Other) };
    Upstream::open(&target.name, http, &context.tls_upstream, context.gateway.shutdown.sessions())
        .await
}

impl Sessions {
    /// None yet; their tasks are spawned there.
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { open: Mutex::default(), tasks }
    }

    /// Takes a place for one more request, a new one where there is none.
    fn hold(sessions: &Arc<Self>, key: Key) -> Result<Held, Refusal> {
        let mut open = sessions.open.lock();
        if let Some(slot) = open.get(&key) {
            let mut usage = slot.usage.lock();
            if usage.requests >= MAX_REQUESTS {
                return Err(Refusal::Busy);
            }
            usage.requests += 1;
            return Ok(Held { sessions: Arc::clone(sessions), slot: Arc::clone(slot) });
        }
        if open.keys().filter(|other| other.is_of(&key)).count() >= MAX_PER_CALLER {
            Self::make_room(&mut open, &key)?;
        }
        let usage = Usage { requests: 1, idle_since: Instant::now(), closing: None };
        let slot = Arc::new(Slot {
            key: key.clone(),
            session: OnceCell::new(),
            run: OnceCell::new(),
            usage: Mutex::new(usage),
            changed: Notify::new(),
            cut: CancellationToken::new(),
        });
        open.insert(key, Arc::clone(&slot));
        Ok(Held { sessions: Arc::clone(sessions), slot })
    }

    /// Closes the caller's session that has been idle the longest.
    fn make_room(open: &mut HashMap<Key, Arc<Slot>>, key: &Key) -> Result<(), Refusal> {
        let idle = open.values().filter(|slot| slot.key.is_of(key)).filter_map(|slot| {
            let usage = slot.usage.lock();
            (usage.requests == 0).then(|| (usage.idle_since, Arc::clone(slot)))
        });
        let (_, slot) = idle.min_by_key(|(since, _)| *since).ok_or(Refusal::Busy)?;
        for key in std::iter::once(&slot.key).chain(slot.run.get()) {
            open.remove(key);
        }
        slot.close(Closing::gently(How::Idle, Fault::Client, "its caller opened many others"));
        Ok(())
    }

    /// Takes the slot out, so that the next request opens another session. With `idle` only when
    /// no request uses it, and none has since then.
    fn remove(&self, slot: &Arc<Slot>, idle: Option<Instant>, closing: Closing) -> bool {
        let mut open = self.open.lock();
        if let Some(since) = idle {
            let usage = slot.usage.lock();
            if usage.requests > 0 || usage.idle_since > since {
                return false;
            }
        }
        for key in std::iter::once(&slot.key).chain(slot.run.get()) {
            if open.get(key).is_some_and(|other| Arc::ptr_eq(other, slot)) {
                open.remove(key);
            }
        }
        slot.close(closing);
        true
    }
}

impl Slot {
    /// The first reason counts.
    fn close(&self, closing: Closing) {
        if closing.cut {
            self.cut.cancel();
        }
        self.usage.lock().closing.get_or_insert(closing);
        self.changed.notify_one();
    }

    /// Waits until no request uses it.
    async fn unused(&self) {
        while self.usage.lock().requests > 0 {
            self.changed.notified().await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let unused = {
            let mut usage = self.slot.usage.lock();
            usage.requests = usage.requests.saturating_sub(1);
            usage.idle_since = Instant::now();
            usage.requests == 0
        };
        self.slot.changed.notify_one();
        if unused && !self.slot.session.initialized() {
            // Nobody keeps what could not be opened.
            let closing = Closing::gently(How::Idle, Fault::Client, "it was never open");
            self.sessions.remove(&self.slot, Some(Instant::now()), closing);
        }
    }
}

impl InUse {
    /// The session's gate.
    pub(super) fn gate(&self) -> &Gate {
        &self.session.gate
    }

    /// The way to its target.
    pub(super) fn upstream(&self) -> &Upstream {
        &self.session.upstream
    }

    /// Spawns what outlives the request that began it, where a stop waits for it.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.held.sessions.tasks.spawn(task);
    }

    /// Waits until what runs must end. Cancel safe.
    pub(super) async fn ended(&self) {
        self.held.slot.cut.cancelled().await;
    }

    /// Notes the run that a request of this session began: others of that run belong here too.
    pub(super) fn begins(&self, run: &str) {
        self.gate().note("run", run.to_owned());
        let slot = &self.held.slot;
        let key = Key { run: Some(run.to_owned()), kickoff: None, ..slot.key.clone() };
        if slot.run.set(key.clone()).is_ok() {
            self.held.sessions.open.lock().entry(key).or_insert_with(|| Arc::clone(slot));
        }
    }

    /// Ends a session that nobody could use, because its target was not reached: what opens one
    /// session only is given back then.
    pub(super) fn unreached(&self) {
        if self.gate().grant().is_provisional() {
            let end = SessionEnd::new(How::Target, Fault::Target, "the target was not reached");
            let closing = Closing::at_once(end);
            self.held.sessions.remove(&self.held.slot, None, closing);
        }
    }

    /// Ends the session, because it cannot be recorded.
    pub(super) fn fail(&self, failure: &RecordingFailure) {
        let closing = Closing::at_once(SessionEnd::not_recorded(failure));
        self.held.sessions.remove(&self.held.slot, None, closing);
    }
}

/// Keeps an open session until its end, and seals its recording.
async fn keep(context: Arc<Context>, slot: Arc<Slot>, session: Arc<Session>) {
    let closing = until_closing(&context, &slot, &session).await;
    tokio::select! {
        () = slot.unused() => {}
        () = slot.cut.cancelled() => {}
        () = context.gateway.shutdown.cutting() => {}
        () = access_lost(&context, &session.gate) => {}
        () = sleep(context.gateway.expiry_grace), if closing.end.how() == How::Expired => {}
    }
    slot.cut.cancel();
    let _still_running = timeout(CUT_TIME, slot.unused()).await;
    // It may have been ended while what ran was waited for.
    session.gate.close(&session.gate.lost().unwrap_or(closing.end));
}

/// Waits until the session takes no more requests.
async fn until_closing(context: &Context, slot: &Arc<Slot>, session: &Session) -> Closing {
    let Session { gate, admitted, .. } = session;
    let sessions = &context.sessions;
    let mut changes = context.gateway.catalog.changes();
    let mut ended =
        pin!(admitted.ended(&context.gateway, gate.opened(), || std::future::ready(())));
    loop {
        let idle_since = {
            let usage = slot.usage.lock();
            if let Some(closing) = &usage.closing {
                return closing.clone();
            }
            (usage.requests == 0).then_some(usage.idle_since)
        };
        tokio::select! {
            () = slot.changed.notified() => {}
            () = idle_for(idle_since, context.settings.session_idle) => {
                sessions.remove(slot, idle_since, Closing::gently(How::Idle, Fault::Client, "no request came"));
            }
            // Once: the slot is closed then.
            end = &mut ended => {
                let cut = matches!(end.how(), How::Access | How::Killed);
                sessions.remove(slot, None, Closing { end, cut });
            }
            Ok(()) = changes.changed() => {
                // What takes the right away is seen above.
                if gate.lost().is_none() && target_changed(context, gate) {
                    let closing = Closing::gently(How::Target, Fault::Operator, "the target was configured anew");
                    sessions.remove(slot, None, closing);
                }
            }
        }
    }
}

async fn access_lost(context: &Context, gate: &Gate) {
    let mut changes = context.gateway.catalog.changes();
    while gate.still_granted().is_ok() {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Whether a reload changed what the session was opened with.
fn target_changed(context: &Context, gate: &Gate) -> bool {
    let mine = gate.grant().target();
    let rules = context.gateway.catalog.current();
    match (rules.target(&mine.name).map(|target| &target.kind), &mine.kind) {
        (Some(TargetKind::Http(now)), TargetKind::Http(mine)) => now != mine,
        _ => true,
    }
}

async fn idle_for(since: Option<Instant>, idle: Duration) {
    match since.and_then(|since| since.checked_add(idle)) {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
