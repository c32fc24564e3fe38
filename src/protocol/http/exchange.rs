//! One request that was permitted, until its answer ended: what passes is recorded as its.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::body::BodyError;
use super::masking;
use super::session::InUse;
use crate::clock::Now;
use crate::gate::NotAdmitted;
use crate::mask::{Counts, MaskPlan, Masked, count};
use crate::recording::{CommandError, Outcome, RecordingFailure, Sequence};

/// How bytes on their way up may be seen.
#[derive(Debug, Clone, Copy)]
pub(super) enum Seen<'a> {
    /// As they are.
    Whole,
    /// As this.
    As(&'a [u8]),
    /// Not at all: their number and a keyed hash are recorded.
    Nothing,
}

/// One request and its answer.
#[derive(Debug)]
pub(super) struct Exchange {
    session: InUse,
    /// The command.
    of: Sequence,
    began: Instant,
    /// When the caller's time is over.
    due: Option<Instant>,
    answer: Mutex<Answer>,
    ended: AtomicBool,
}

/// What is known of the answer so far.
#[derive(Debug, Default)]
struct Answer {
    status: Option<StatusCode>,
    /// What was masked in it.
    masked: Counts,
}

impl Exchange {
    /// Begins with the command. `due` is when the proof of who asked it, and the grace after it,
    /// end.
    pub(super) fn new(session: InUse, of: Sequence, due: Option<SystemTime>) -> Arc<Self> {
        let began = Instant::now();
        let left = due.map(|due| due.duration_since(SystemTime::now()).unwrap_or_default());
        Arc::new(Self {
            session,
            of,
            began,
            due: left.and_then(|left| began.checked_add(left)),
            answer: Mutex::default(),
            ended: AtomicBool::new(false),
        })
    }

    /// The session that it belongs to.
    pub(super) fn session(&self) -> &InUse {
        &self.session
    }

    /// Waits until it may not go on, and says why. Cancel safe.
    pub(super) async fn cut(&self) -> &'static str {
        let due = async {
            match self.due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.session.ended() => "it was closed",
            () = due => "the token's time is over",
        }
    }

    /// Records bytes on their way up, as they may be seen. Cancel safe: what was recorded stays
    /// recorded.
    pub(super) async fn up(&self, bytes: Bytes, seen: Seen<'_>) -> Result<Bytes, BodyError> {
        let length = bytes.len();
        let of = Some(self.of);
        let admitted = self
            .session
            .gate()
            .admit(bytes, |plan| match seen {
                Seen::Whole => plan.data(0..length, of),
                Seen::As(view) => plan.data_as(0..length, of, view),
                Seen::Nothing => plan.withheld(0..length, "a body that cannot be masked"),
            })
            .await;
        match admitted {
            Ok((permitted, ())) => Ok(permitted.into_bytes()),
            Err(NotAdmitted::NotRecorded(failure)) => Err(self.not_recorded(&failure)),
            Err(NotAdmitted::Lapsed(_)) => Err(BodyError::Ended("the access was withdrawn")),
        }
    }

    /// Records the head of the answer as it may be seen, in which so much was masked, and with
    /// `ended` that nothing follows.
    pub(super) fn answered(
        &self,
        status: StatusCode,
        head: Vec<u8>,
        masked: &Counts,
        ended: bool,
    ) -> Result<(), BodyError> {
        self.answer.lock().status = Some(status);
        let head = Masked::by_value(Bytes::new(), Bytes::from(head)).counted(masked);
        self.release(head, ended.then_some(None)).map(drop)
    }

    /// The masks that hold for what passes now; `None` where there are none.
    pub(super) fn masks(&self) -> Option<Arc<MaskPlan>> {
        Some(self.session.gate().masks()).filter(|plan| masking::acts(plan))
    }

    /// Records masked bytes on their way down, and with `ended` that they are the last.
    pub(super) fn down(&self, bytes: Masked, ended: bool) -> Result<Bytes, BodyError> {
        self.release(bytes, ended.then_some(None))
    }

    /// Records how it failed, where the client is told by the gateway.
    pub(super) fn failed(&self, status: StatusCode, code: &str, message: String, body: &Bytes) {
        self.answer.lock().status = Some(status);
        let error = CommandError { code: code.to_owned(), message };
        // What cannot be recorded ended the session already.
        let body = self.session.gate().mask(body.clone());
        let _recorded = self.release(body, Some(Some(error)));
    }

    /// Records that it is over, and how it failed if it did.
    pub(super) fn over(&self, failed: Option<String>) {
        let error = failed.map(|message| CommandError { code: "aborted".to_owned(), message });
        let _recorded = self.release(Masked::default(), Some(error));
    }

    /// Records that it broke off.
    pub(super) fn broke(&self, error: &BodyError) {
        let session = self.session.gate().session();
        tracing::warn!(%session, command = %self.of, %error, "answer broken off");
        self.over(Some(error.to_string()));
    }

    /// Records trailer fields, which stand in no body.
    pub(super) fn note_trailers(&self, what: &'static str, trailers: &HeaderMap) {
        if !trailers.is_empty() {
            let masks = self.session.gate().masks();
            let named =
                trailers.iter().filter(|(name, _)| !masking::hidden_name(&masks, name.as_str()).1);
            let text = named.map(|(name, value)| {
                let value = masking::field(&masks, name.as_str(), value.as_bytes());
                format!("{name}: {}", String::from_utf8_lossy(value.stored()))
            });
            self.session.gate().note(what, text.collect::<Vec<_>>().join("\n"));
        }
    }

    /// Records masked bytes, and with `end` that they are the last, and how it failed if it did.
    fn release(
        &self,
        bytes: Masked,
        end: Option<Option<CommandError>>,
    ) -> Result<Bytes, BodyError> {
        let gate = self.session.gate();
        for (name, more) in bytes.counts() {
            count(&mut self.answer.lock().masked, name, *more);
        }
        let end = end.filter(|_| !self.ended.swap(true, Ordering::AcqRel));
        let outcome = end.map(|error| self.outcome(error));
        let released = gate.release(Now::read(), bytes, |release, bytes| {
            release.data(bytes, Some(self.of));
            if let Some(outcome) = &outcome {
                release.outcome(self.of, outcome);
            }
        });
        match released {
            Ok(released) => Ok(released.into_bytes()),
            Err(failure) => Err(self.not_recorded(&failure)),
        }
    }

    fn outcome(&self, error: Option<CommandError>) -> Outcome {
        let Answer { status, masked } = std::mem::take(&mut *self.answer.lock());
        let told = status.filter(|status| status.as_u16() >= 400).map(|status| CommandError {
            code: status.as_u16().to_string(),
            message: status.canonical_reason().unwrap_or_default().to_owned(),
        });
        Outcome {
            status: status.map(|status| status.as_u16().to_string()),
            error: error.or(told),
            masked: masked.iter().map(|(name, count)| (name.to_string(), *count)).collect(),
            duration_us: u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            ..Outcome::default()
        }
    }

    fn not_recorded(&self, failure: &RecordingFailure) -> BodyError {
        self.session.fail(failure);
        BodyError::NotRecorded
    }
}

impl Drop for Exchange {
    /// A client that left, or a connection that broke.
    fn drop(&mut self) {
        if !*self.ended.get_mut() {
            self.over(Some("the client left before the end".to_owned()));
        }
    }
}
