//! One channel, from the moment that its command was decided to its end.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Pty};
use serde_json::Value;
use tokio::time::timeout;

use crate::clock::Now;
use crate::config::SshTarget;
use crate::decode::ssh::lines::TypedLines;
use crate::decode::ssh::message::{self, Size};
use crate::gate::{Gate, NotAdmitted, NotReleased, Pending, Permitted, Released};
use crate::mask::Masked;
use crate::policy::Command;
use crate::recording::{CommandError, Outcome, RecordingFailure, Sequence};

use super::inbox::Inbox;
use super::masking::Masking;
use super::messages::Refusal;
use super::relay::Relay;
use super::session::{Running, Session};
use super::upstream::{self, Connection, Way};

/// How long a target may take to read what a client sent before it closed the channel.
const CLOSING: Duration = Duration::from_secs(10);

/// A terminal that a client asked for.
#[derive(Debug, Clone)]
pub(super) struct Terminal {
    /// Its kind, as in TERM.
    pub(super) term: String,
    /// Its size in characters.
    pub(super) size: Size,
    /// Its size in pixels.
    pub(super) pixels: (u32, u32),
    /// How it treats input and output.
    pub(super) modes: Vec<(Pty, u32)>,
}

impl Terminal {
    /// It as a recording has it.
    pub(super) fn recorded(&self, number: u32) -> Vec<u8> {
        let mut recorded = Vec::new();
        message::put_pty(&mut recorded, number, &self.term, self.size);
        recorded
    }
}

/// What a channel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Exec,
    Shell,
    Subsystem,
}

/// What was decided to run.
pub(super) struct Start {
    pub(super) what: What,
    /// The command line, or the subsystem's name.
    pub(super) permitted: Permitted,
    pub(super) terminal: Option<Terminal>,
    pub(super) variables: Vec<(String, String)>,
}

/// Adds to a command what its channel says of it.
pub(super) fn describe(
    command: &mut Command,
    number: u32,
    terminal: Option<&Terminal>,
    variables: &[(String, String)],
) {
    let mut add = |name: &'static str, value: Value| {
        command.attributes.insert(Cow::Borrowed(name), value);
    };
    add("channel", number.into());
    add("pty", terminal.is_some().into());
    if !variables.is_empty() {
        let named = |(name, value): &(String, String)| (name.clone(), value.clone().into());
        add("env", Value::Object(variables.iter().map(named).collect()));
    }
}

/// A channel of a client.
pub(super) struct Channel {
    pub(super) session: Arc<Session>,
    pub(super) gate: Arc<Gate>,
    pub(super) masking: Masking,
    /// Of a terminal.
    pub(super) lines: Option<Mutex<TypedLines>>,
    pub(super) inbox: Arc<Inbox>,
    pub(super) down: ChannelWriteHalf<Msg>,
    pub(super) handle: Handle,
    /// The command that it runs.
    pub(super) of: Sequence,
}

/// Why a channel ended before its command did.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client closed it, or is gone.
    Client,
    /// The session ends.
    Session,
    /// The target cannot be reached, or does not do what was asked.
    Refused { refusal: Refusal, error: CommandError },
    /// Something could not be recorded.
    NotRecorded(RecordingFailure),
}

/// Something could not be recorded, which ends the session.
pub(super) struct Unrecorded;

impl From<NotAdmitted> for Broken {
    fn from(not_admitted: NotAdmitted) -> Self {
        match not_admitted {
            NotAdmitted::NotRecorded(failure) => Self::NotRecorded(failure),
            // Who watches the session ends it.
            NotAdmitted::Lapsed(_) => Self::Session,
        }
    }
}

impl From<RecordingFailure> for Broken {
    fn from(failure: RecordingFailure) -> Self {
        Self::NotRecorded(failure)
    }
}

impl Channel {
    /// Runs the command to its end.
    pub(super) async fn run(self, start: Start, _running: Running) {
        let began = Instant::now();
        let mut carry = pin!(self.carry(start, began));
        let ended = tokio::select! {
            ended = &mut carry => ended,
            () = self.session.ended() => Err(Broken::Session),
            // What the client sent before it closed the channel still goes to the target.
            () = self.inbox.closed() => tokio::select! {
                ended = timeout(CLOSING, &mut carry) => ended.unwrap_or(Err(Broken::Client)),
                () = self.session.ended() => Err(Broken::Client),
            },
        };
        match ended {
            Err(broken) => self.broke(broken, began).await,
            Ok(()) => {
                if let Err(failure) = self.rest().await {
                    self.session.fail(failure.into());
                }
            }
        }
        self.inbox.close();
    }

    /// Asks people first, and tells the client so. An interrupt ends the wait, and so does the end of
    /// the channel or session; the command never runs then.
    pub(super) async fn run_once_approved(self, held: Pending, start: Start, running: Running) {
        let settled = {
            let wait = async {
                let hold = match self.gate.ask_people(held, None, &[]).await {
                    Ok(hold) => hold,
                    Err(settled) => return Some(settled),
                };
                let (link, mut reminders) = (hold.link().to_owned(), hold.reminders());
                let interrupted = async {
                    self.inbox.interrupted(start.terminal.is_some()).await;
                    NotReleased::Cancelled
                };
                let mut waited = pin!(hold.wait(interrupted, &[]));
                loop {
                    let left = tokio::select! {
                        settled = &mut waited => return Some(settled),
                        left = reminders.next() => left.as_secs().div_ceil(60),
                    };
                    let words = format!(
                        "portcullis: this waits for approval, {left} min at most: {link}\r\n"
                    );
                    self.say(&words).await.ok()?;
                }
            };
            tokio::select! {
                settled = wait => settled,
                () = self.inbox.closed() => None,
                () = self.session.ended() => None,
            }
        };
        match settled {
            Some((permitted, None)) => self.run(Start { permitted, ..start }, running).await,
            Some((_, Some(why))) => {
                let session = self.gate.session();
                self.refuse(&Refusal::NotReleased { why: why.to_string(), session }).await;
            }
            None => self.inbox.close(),
        }
    }

    /// Tells that nothing runs here, and closes the channel.
    pub(super) async fn refuse(&self, refusal: &Refusal) {
        let said = async {
            self.say(&refusal.text()).await.ok()?;
            if let Some(status) = refusal.exit_status() {
                self.down.exit_status(status).await.ok()?;
            }
            self.down.eof().await.ok()?;
            self.down.close().await.ok()
        };
        tokio::select! {
            _said = said => {}
            () = self.inbox.closed() => {}
            () = self.session.ended() => {}
        }
        self.inbox.close();
    }

    async fn carry(&self, start: Start, began: Instant) -> Result<(), Broken> {
        let Some(target) = self.session.target() else { return Err(Broken::Session) };
        let (channel, connection) = match self.enter_again().await {
            Some(entered) => entered,
            None => self.enter(target, &Way::Session).await?,
        };
        let withhold = start.terminal.is_some() && !target.record_input;
        let relay = Relay::new(self, channel, withhold, began);
        let carried = relay.carry(start).await;
        let (done, closed) = match carried {
            // Kept before the client hears of the end, so that its next command finds it.
            Ok(()) => (self.session.keep(connection), self.close().await),
            Err(broken) => (Some(connection), Err(broken)),
        };
        if let Some(connection) = done {
            connection.end().await;
        }
        closed
    }

    /// Closes the channel, of which all is said.
    pub(super) async fn close(&self) -> Result<(), Broken> {
        self.down.close().await.map_err(|_| Broken::Client)
    }

    /// Opens a session on a connection that an earlier command left; none where there is none that
    /// still stands.
    async fn enter_again(&self) -> Option<(russh::Channel<russh::client::Msg>, Connection)> {
        let kept = self.session.kept.take()?;
        match upstream::again(&self.gate, kept).await {
            Ok(upstream) => Some(upstream.split()),
            Err(error) => {
                tracing::debug!(session = %self.gate.session(), %error, "a kept connection was lost");
                None
            }
        }
    }

    /// Opens something at the target, on a connection of its own.
    pub(super) async fn enter(
        &self,
        target: &SshTarget,
        way: &Way,
    ) -> Result<(russh::Channel<russh::client::Msg>, Connection), Broken> {
        let entering = self.session.entering.acquire().await;
        let name = self.session.grant().target().name.clone();
        let address = (target.host.as_str(), target.port);
        let connecting = upstream::connect(&self.gate, target, way);
        let backoff = &self.session.context.backoff;
        let connected = backoff.attempt(&name, address, connecting).await;
        drop(entering);
        match connected {
            Ok(upstream) => {
                self.gate.grant().opens();
                Ok(upstream.split())
            }
            Err(error) => {
                let cause = error.cause();
                tracing::warn!(session = %self.gate.session(), target = %name, cause, %error, "target not reached");
                self.gate.metrics().not_connected();
                self.gate.metrics().upstream_refused(cause);
                let error =
                    CommandError { code: error.code().to_owned(), message: error.to_string() };
                Err(Broken::Refused { refusal: Refusal::Unreachable(name), error })
            }
        }
    }

    async fn broke(&self, broken: Broken, began: Instant) {
        match self.over(broken, began).await {
            Ok(Some(refusal)) => self.refuse(&refusal).await,
            // A client whose only channel is closed leaves before it hears why the session ends.
            Ok(None) if self.session.has_ended() => {}
            Ok(None) => {
                let _gone = self.down.close().await;
            }
            // The session ends, and its last words are about this.
            Err(Unrecorded) => {}
        }
    }

    /// Records how a command ended before its time. Gives what may be said of it, if there is
    /// something.
    pub(super) async fn over(
        &self,
        broken: Broken,
        began: Instant,
    ) -> Result<Option<Refusal>, Unrecorded> {
        let (status, error, refusal) = match broken {
            Broken::Client => (Some("closed by the client"), None, None),
            Broken::Session => (Some("cut"), None, None),
            Broken::Refused { refusal, error } => (None, Some(error), Some(refusal)),
            Broken::NotRecorded(failure) => {
                self.session.fail(failure.into());
                return Err(Unrecorded);
            }
        };
        let status = status.map(str::to_owned);
        let outcome = Outcome { status, error, duration_us: micros(began), ..Outcome::default() };
        let recorded = async {
            self.rest().await?;
            self.outcome(outcome)
        };
        match recorded.await {
            Ok(()) => Ok(refusal),
            Err(failure) => {
                self.session.fail(failure.into());
                Err(Unrecorded)
            }
        }
    }

    /// Records what masks still hold back.
    pub(super) async fn rest(&self) -> Result<(), RecordingFailure> {
        for (code, masked) in self.masking.rest() {
            let stored = Masked::by_value(Bytes::new(), masked.stored().clone());
            self.release(code, stored, self.of)?;
        }
        self.rest_of_input().await
    }

    /// Records what masks still hold back of the input.
    pub(super) async fn rest_of_input(&self) -> Result<(), RecordingFailure> {
        let rest = self.masking.rest_of_input();
        if rest.is_empty() {
            return Ok(());
        }
        let (number, of) = (self.down.id().number(), Some(self.of));
        let recorded = self.gate.record(|plan| {
            message::each_data(number, None, &rest, |data| plan.data_as(0..0, of, data));
        });
        recorded.await
    }

    /// Records what goes down.
    pub(super) fn release(
        &self,
        code: Option<u32>,
        masked: Masked,
        of: Sequence,
    ) -> Result<Released, RecordingFailure> {
        let (number, length) = (self.down.id().number(), masked.shown().len());
        self.gate.release(Now::read(), masked, |release, stored| {
            if self.masking.keeps_lengths() {
                let mut recorded = Vec::new();
                message::put_withheld(&mut recorded, number, length);
                release.data(&recorded, Some(of));
            } else if !stored.is_empty() {
                message::each_data(number, code, stored, |data| release.data(data, Some(of)));
            } else {
                return;
            }
            let mut lines = self.lines.as_ref().map(Mutex::lock);
            let typed = lines.as_mut().map(|lines| lines.shown(stored)).unwrap_or_default();
            typed.into_iter().for_each(|line| release.note(of, "typed", line));
        })
    }

    /// Records the end of the command.
    pub(super) fn outcome(&self, mut outcome: Outcome) -> Result<(), RecordingFailure> {
        outcome.masked = self.masking.counts();
        self.outcome_of(self.of, &outcome)
    }

    /// Records the end of a command within the command.
    pub(super) fn outcome_of(
        &self,
        of: Sequence,
        outcome: &Outcome,
    ) -> Result<(), RecordingFailure> {
        let nothing = self.gate.mask(Bytes::new());
        self.gate
            .release(Now::read(), nothing, |release, _| release.outcome(of, outcome))
            .map(|_| ())
    }

    /// Says words of the gateway's own on standard error, recorded first.
    pub(super) async fn say(&self, words: &str) -> Result<(), Broken> {
        let mut recorded = Vec::new();
        message::put_data(&mut recorded, self.down.id().number(), Some(1), words.as_bytes());
        self.gate.announce(&recorded)?;
        let words = Bytes::copy_from_slice(words.as_bytes());
        self.down.extended_data_bytes(1, words).await.map_err(|_| Broken::Client)
    }
}

/// Microseconds since then.
pub(super) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
