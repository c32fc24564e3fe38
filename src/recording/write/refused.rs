//! The gateway's own recording, of callers who got no session. They are not authenticated, so
//! what they can make the gateway write is bounded in rate; the rest is counted.

use std::sync::Arc;
use std::time::Instant;

use crate::config::OnRecordingFailure;
use crate::names::SessionId;
use crate::recording::RecordingFailure;
use crate::recording::format::event::{
    Closed, Direction, GatewayOpened, Kind, Note, RefusedCaller,
};
use crate::recording::write::appender::Recording;
use crate::recording::write::store::Shared;

/// Refused callers noted a second; at about 400 bytes each that is 1.7 GB of events a day, a
/// tenth of it on the disk.
const RATE: f64 = 50.0;
/// How many may come at once.
const BURST: f64 = 200.0;
/// Refused callers that are logged one by one, a second, and how many at once.
const LOG_RATE: f64 = 2.0;
const LOG_BURST: f64 = 100.0;
/// A recording of this size is sealed and another begun, so that what is sealed is never old.
const ROLL_OVER: u64 = 8 << 20;

/// Whom the gateway refused, since it started.
#[derive(Debug)]
pub(in crate::recording) struct Refusals {
    recording: Option<Recording>,
    noted: Rate,
    logged: Rate,
    /// Callers not noted since the last one that was.
    left_out: u64,
    /// Callers not logged since the last one that was.
    not_logged: u64,
}

/// So many at once, and so many a second.
#[derive(Debug)]
struct Rate {
    burst: f64,
    each_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Rate {
    fn new(burst: f64, each_second: f64) -> Self {
        Self { burst, each_second, tokens: burst, filled: Instant::now() }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let seconds = now.duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + seconds * self.each_second).min(self.burst);
        self.filled = now;
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            recording: None,
            noted: Rate::new(BURST, RATE),
            logged: Rate::new(LOG_BURST, LOG_RATE),
            left_out: 0,
            not_logged: 0,
        }
    }
}

impl Refusals {
    /// Logs a caller and notes it, or counts it: whoever knocks is not authenticated.
    pub(in crate::recording) fn note(&mut self, shared: &Arc<Shared>, caller: &RefusedCaller) {
        if self.logged.take() {
            let left_out = std::mem::take(&mut self.not_logged);
            tracing::warn!(
                protocol = %caller.protocol,
                client = %caller.client,
                target = ?caller.target,
                username = caller.identity.as_ref().map(|identity| identity.username.as_str()),
                reason = %caller.reason,
                not_logged_before = (left_out > 0).then_some(left_out),
                "access denied"
            );
        } else {
            self.not_logged += 1;
        }
        if !self.noted.take() {
            self.left_out += 1;
            return;
        }
        if let Err(failure) = self.write(shared, Some(caller)) {
            self.left_out += 1;
            if self.logged.take() {
                tracing::warn!(%failure, "cannot record a refused caller");
            }
        }
    }

    /// Tells of callers who were only counted, once the rate allows.
    pub(in crate::recording) fn look(&mut self, shared: &Arc<Shared>) {
        if self.left_out > 0 && self.noted.take() {
            // A failure leaves the count for the next time.
            let _later = self.write(shared, None);
        }
    }

    /// Seals the recording, if there is one.
    pub(in crate::recording) fn end(&mut self) {
        self.close("shutdown");
    }

    fn write(
        &mut self,
        shared: &Arc<Shared>,
        caller: Option<&RefusedCaller>,
    ) -> Result<(), RecordingFailure> {
        if self.recording.as_ref().is_some_and(|recording| recording.raw_bytes() > ROLL_OVER) {
            self.close("limit");
        }
        let recording = match &self.recording {
            Some(recording) => recording,
            None => self.recording.insert(begin(shared)?),
        };
        let left_out = self.left_out;
        recording.append(|batch| {
            if left_out > 0 {
                let note = Note {
                    what: "left-out".into(),
                    text: format!("{left_out} more callers were refused and not noted one by one"),
                };
                batch.json(Kind::Note, Direction::None, None, &note);
            }
            if let Some(caller) = caller {
                batch.json(Kind::Refused, Direction::None, None, caller);
            }
        })?;
        self.left_out = 0;
        Ok(())
    }

    fn close(&mut self, how: &'static str) {
        if let Some(recording) = self.recording.take() {
            // The store logs a failure and tries again.
            let _later = recording.close(&Closed { how: how.into(), text: String::new() });
        }
    }
}

fn begin(shared: &Arc<Shared>) -> Result<Recording, RecordingFailure> {
    let opened = GatewayOpened {
        session: SessionId::generate(),
        gateway: shared.gateway.clone(),
        gateway_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    Recording::create(shared, opened.session, OnRecordingFailure::Refuse, |batch| {
        batch.json(Kind::Gateway, Direction::None, None, &opened);
    })
}
