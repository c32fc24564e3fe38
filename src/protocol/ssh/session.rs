//! A session: one client's connection, once it is known who that is.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use russh::Disconnect;
use russh::server::RunningSession;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Grant;
use crate::config::{SshTarget, TargetKind};
use crate::gate::{Gate, SessionEnd, recorded_identity};
use crate::names::{Protocol, SessionId};
use crate::recording::{Opened, RecordingFailure, Told};

use super::end::End;
use super::handler::Connection;
use super::kept::Kept;
use super::{Context, GOODBYE};

/// How long channels get to end when the session does.
const CHANNELS_END: Duration = Duration::from_secs(5);
/// sshd drops connections at random when more than ten have not logged in yet (`MaxStartups`).
const MAX_ENTERING: usize = 6;
/// The longest name of a workflow or run that is taken.
const MAX_NAME: usize = 256;

/// One client's connection. Its handler, its channels and [`Session::run`] share it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) context: Arc<Context>,
    id: SessionId,
    grant: Grant,
    client: SocketAddr,
    client_version: String,
    since: Instant,
    recording: Mutex<Recorded>,
    /// Channels that run something.
    running: watch::Sender<usize>,
    /// Set when nothing new may start, with the words why.
    closing: Mutex<Option<&'static str>>,
    /// The first thing that went wrong.
    failed: watch::Sender<Option<End>>,
    /// Told to the channels.
    ended: CancellationToken,
    pub(super) tasks: TaskTracker,
    activity: AtomicU64,
    /// Channels that connect to the target at a time.
    pub(super) entering: Semaphore,
    pub(super) kept: Kept,
    _slot: OwnedSemaphorePermit,
}

/// The recording begins with the first command, so that its first event has what the client says
/// of itself before.
#[derive(Debug, Default)]
struct Recorded {
    workflow: Option<String>,
    run: Option<String>,
    gate: Option<Arc<Gate>>,
}

/// One channel that runs something, for as long as this lives.
pub(super) struct Running(Arc<Session>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running = running.saturating_sub(1));
    }
}

impl Session {
    pub(super) fn new(
        context: Arc<Context>,
        id: SessionId,
        grant: Grant,
        (client, client_version): (SocketAddr, String),
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            context,
            id,
            grant,
            client,
            client_version,
            since: Instant::now(),
            recording: Mutex::default(),
            running: watch::Sender::new(0),
            closing: Mutex::new(None),
            failed: watch::Sender::new(None),
            ended: CancellationToken::new(),
            tasks: TaskTracker::new(),
            activity: AtomicU64::new(0),
            entering: Semaphore::new(MAX_ENTERING),
            kept: Kept::default(),
            _slot: slot,
        }
    }

    /// The target; the login made sure that it is an SSH host.
    pub(super) fn target(&self) -> Option<&SshTarget> {
        match &self.grant.target().kind {
            TargetKind::Ssh(target) => Some(target),
            TargetKind::Postgres(_) | TargetKind::Http(_) => None,
        }
    }

    pub(super) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Takes a name of a workflow or run that the client tells, unless the recording has begun.
    pub(super) fn tell(&self, variable: &str, name: &str) {
        if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            return;
        }
        let mut recording = self.recording.lock();
        if recording.gate.is_some() {
            return;
        }
        match variable {
            "PORTCULLIS_WORKFLOW" => recording.workflow = Some(name.to_owned()),
            _ => recording.run = Some(name.to_owned()),
        }
    }

    /// The session's gate; the first call opens the recording.
    pub(super) fn gate(&self) -> Result<Arc<Gate>, RecordingFailure> {
        let mut recording = self.recording.lock();
        if let Some(gate) = &recording.gate {
            return Ok(Arc::clone(gate));
        }
        let opened = self.opened(&recording);
        let catalog = Arc::clone(&self.context.catalog);
        let gate = Gate::open(self.grant.clone(), catalog, &self.context.store, &opened)?;
        let gate = Arc::new(gate.with_grace(self.context.expiry_grace));
        recording.gate = Some(Arc::clone(&gate));
        drop(recording);
        let username = self.grant.identity().username();
        tracing::info!(session = %opened.session, target = %opened.target, username, "session opened");
        Ok(gate)
    }

    fn opened(&self, recording: &Recorded) -> Opened {
        let told = |claim: Option<&str>, client: Option<&String>| match (claim, client) {
            (Some(name), _) => Some(Told { name: name.to_owned(), proved: true }),
            (None, Some(name)) => Some(Told { name: name.clone(), proved: false }),
            (None, None) => None,
        };
        let identity = self.grant.identity();
        Opened {
            session: self.id,
            protocol: Protocol::Ssh,
            target: self.grant.target().name.clone(),
            database: None,
            client: self.client.to_string(),
            identity: recorded_identity(identity),
            workflow: told(identity.workflow(), recording.workflow.as_ref()),
            run: told(identity.run(), recording.run.as_ref()),
            client_parameters: BTreeMap::from([(
                "version".to_owned(),
                self.client_version.clone(),
            )]),
            policy: self.context.catalog.current().policy().hash().to_owned(),
            gateway_version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Notes that a channel runs something; none, with the words why, when nothing new may.
    pub(super) fn begin(self: &Arc<Self>) -> Result<Running, &'static str> {
        let closing = self.closing.lock();
        if let Some(words) = *closing {
            return Err(words);
        }
        self.running.send_modify(|running| *running += 1);
        Ok(Running(Arc::clone(self)))
    }

    /// Ends the session because of something that a channel or the handler met.
    pub(super) fn fail(&self, end: End) {
        self.failed.send_if_modified(|failed| {
            let first = failed.is_none();
            failed.get_or_insert(end);
            first
        });
    }

    /// Waits until channels must end. Cancel safe.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Whether channels must end.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Something passed on some channel.
    pub(super) fn active(&self) {
        self.activity.fetch_add(1, Ordering::Relaxed);
    }

    /// How much passed so far.
    pub(super) fn activity(&self) -> u64 {
        self.activity.load(Ordering::Relaxed)
    }

    /// Runs the session to its end, and says and records how it ended.
    pub(super) async fn run(
        self: Arc<Self>,
        mut running: RunningSession<Connection>,
        cut: CancellationToken,
    ) {
        let handle = running.handle();
        let end = tokio::select! {
            ended = &mut running => match ended {
                Ok(()) => End::Client,
                Err(error) if is_gone(&error) => End::Client,
                Err(error) => End::Broken(error.to_string()),
            },
            end = self.watch() => end,
        };
        // What the gateway cut is not said to have been the client's leaving.
        let end = match end {
            End::Client | End::Broken(_) => self.lost().map_or(end, End::Lost),
            end => end,
        };
        if let Some(words) = end.words() {
            *self.closing.lock() = Some(words);
            if matches!(end, End::Expired) {
                let gate = self.recording.lock().gate.clone();
                let grace = gate.map_or(self.context.expiry_grace, |gate| gate.grace_left());
                let _still_running = timeout(grace, self.at_rest()).await;
            }
            let goodbye = async {
                self.end_channels().await;
                let reason = Disconnect::ByApplication;
                let told = handle.disconnect(reason, words.to_owned(), String::new()).await;
                if told.is_ok() {
                    // Nothing is left to be told to a client that does not go.
                    let _gone = timeout(GOODBYE, &mut running).await;
                }
            };
            let _unheard = timeout(CHANNELS_END + GOODBYE * 2, goodbye).await;
            cut.cancel();
        } else {
            self.end_channels().await;
        }
        match self.gate() {
            Ok(gate) => {
                gate.close(&end.of_session());
            }
            Err(failure) => tracing::error!(%failure, "a login is not recorded"),
        }
    }

    async fn end_channels(&self) {
        self.ended.cancel();
        self.tasks.close();
        let _left_to_themselves = timeout(CHANNELS_END, self.tasks.wait()).await;
    }

    /// Waits until no channel runs anything. Cancel safe.
    async fn at_rest(&self) {
        let mut running = self.running.subscribe();
        // The sender is this session's own, so there is no error.
        let _closed = running.wait_for(|running| *running == 0).await;
    }

    /// Waits for whatever ends a session from outside: its time, a reload, the gateway's stop, a
    /// recording that fails. Cancel safe.
    async fn watch(&self) -> End {
        let mut changes = self.context.catalog.changes();
        let mut failed = self.failed.subscribe();
        loop {
            tokio::select! {
                () = self.grant.ends().over(self.since) => return End::Expired,
                changed = changes.changed() => {
                    if changed.is_err() {
                        return End::Shutdown;
                    }
                    if let Some(end) = self.lost() {
                        return End::Lost(end);
                    }
                }
                Ok(end) = failed.wait_for(Option::is_some) => {
                    return (*end).clone().unwrap_or(End::Shutdown);
                }
                () = async {
                    self.context.shutdown.draining().await;
                    self.at_rest().await;
                } => return End::Shutdown,
                () = self.context.shutdown.cutting() => return End::Shutdown,
            }
        }
    }
}

impl Session {
    /// How the session must end because somebody ended it, or because its right holds no more.
    fn lost(&self) -> Option<SessionEnd> {
        if let Some(gate) = &self.recording.lock().gate {
            return gate.lost();
        }
        let desk = self.context.catalog.desk();
        if let Some(by) = desk.is_killed(self.id) {
            return Some(SessionEnd::killed(&by));
        }
        let rules = self.context.catalog.current();
        let lost = self.grant.still_holds(&rules, desk.withdrawn().last_known()).err();
        lost.map(|why| SessionEnd::lost(&why))
    }
}

/// Whether the error is how a client that leaves without a word looks.
fn is_gone(error: &russh::Error) -> bool {
    match error {
        russh::Error::HUP | russh::Error::Disconnect => true,
        russh::Error::IO(error) => matches!(
            error.kind(),
            std::io::ErrorKind::UnexpectedEof
                | std::io::ErrorKind::ConnectionReset
                | std::io::ErrorKind::BrokenPipe
        ),
        _ => false,
    }
}
