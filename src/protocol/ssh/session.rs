//! A session: one client's connection, once it is known who that is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use russh::Disconnect;
use russh::server::RunningSession;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Grant;
use crate::admission::{Admitted, Said, told};
use crate::config::{SshTarget, TargetKind};
use crate::gate::{Gate, How, SessionEnd};
use crate::recording::RecordingFailure;

use super::connection_pool::Kept;
use super::end::End;
use super::handler::Connection;
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
    admitted: Admitted,
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
        admitted: Admitted,
        (client, client_version): (SocketAddr, String),
    ) -> Self {
        Self {
            context,
            admitted,
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
        }
    }

    /// The target; the login made sure that it is an SSH host.
    pub(super) fn target(&self) -> Option<&SshTarget> {
        match &self.grant().target().kind {
            TargetKind::Ssh(target) => Some(target),
            TargetKind::Postgres(_) | TargetKind::Http(_) => None,
        }
    }

    pub(super) fn grant(&self) -> &Grant {
        self.admitted.grant()
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
        let identity = self.grant().identity();
        let said = Said {
            database: None,
            workflow: told(identity.workflow(), recording.workflow.as_deref()),
            run: told(identity.run(), recording.run.as_deref()),
            parameters: [("version".to_owned(), self.client_version.clone())].into(),
        };
        let gate = self.admitted.record(&self.context.gateway, self.client, said)?;
        let gate = Arc::new(gate);
        recording.gate = Some(Arc::clone(&gate));
        Ok(gate)
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
            End::Client | End::Broken(_) => {
                self.admitted.lost(&self.context.gateway).map_or(end, End::Cut)
            }
            end => end,
        };
        if let Some(words) = end.words() {
            *self.closing.lock() = Some(words);
            if end.of_session().how() == How::Expired {
                let gate = self.recording.lock().gate.clone();
                let grace =
                    gate.map_or(self.context.gateway.expiry_grace, |gate| gate.grace_left());
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

    /// Waits for whatever ends a session but its client: also for what a channel or the handler met.
    /// Cancel safe.
    async fn watch(&self) -> End {
        let mut failed = self.failed.subscribe();
        tokio::select! {
            end = self.admitted.ended(&self.context.gateway, self.since, || self.at_rest()) => End::Cut(end),
            // The sender is this session's own, so there is no error.
            Ok(end) = failed.wait_for(Option::is_some) => {
                (*end).clone().unwrap_or_else(|| End::Cut(SessionEnd::shutdown()))
            }
        }
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
