//! The gate that everything passes: a command is decided and recorded before it goes upstream, a
//! response is masked and recorded before it goes downstream.
//!
//! [`Permitted`] and [`Released`] have private fields and are made here alone; the writers of
//! every protocol take nothing else. The gate knows no protocol.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::access::{self, Grant, NoAccess};
use crate::catalog::Catalog;
use crate::identity::Identity;
use crate::mask::{MaskPlan, Masked};
use crate::names::SessionId;
use crate::policy::{Command, Decision, Policy, Verdict};
use crate::recording::{
    Batch, Closed, Direction, Kind, Note, Opened, Outcome, RecordedCommand, RecordedIdentity,
    Recording, RecordingFailure, Sequence, Store,
};

/// The exact bytes that were decided and recorded; what may go upstream.
#[derive(Debug)]
pub struct Permitted(Bytes);

impl Permitted {
    /// Gives the bytes up to the writer.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Masked bytes that were recorded; what may go downstream.
#[derive(Debug)]
pub struct Released(Bytes);

impl Released {
    /// Gives the bytes up to the writer.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

/// Why something did not pass.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotPassed {
    /// Policy refused a command; the decision stands in the recording.
    #[error("refused by policy")]
    Refused(Decision),
    /// It could not be recorded, so it did not pass.
    #[error(transparent)]
    NotRecorded(#[from] RecordingFailure),
}

/// One session's gate: who, where, under which rules, recorded where.
#[derive(Debug)]
pub struct Gate {
    grant: Grant,
    catalog: Arc<Catalog>,
    store: Store,
    recording: Recording,
    masks: MaskPlan,
    opened: Instant,
}

impl Gate {
    /// Opens the session's recording: only now may the target be reached.
    pub fn open(
        grant: Grant,
        catalog: Arc<Catalog>,
        store: &Store,
        opened: &Opened,
    ) -> Result<Self, RecordingFailure> {
        let recording = store.create(opened, grant.target().on_recording_failure)?;
        let (store, masks) = (store.clone(), MaskPlan::default());
        Ok(Self { grant, catalog, store, recording, masks, opened: Instant::now() })
    }

    /// The right that the session stands on.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.recording.session()
    }

    /// When the session opened, by the clock that never goes back.
    pub fn opened(&self) -> Instant {
        self.opened
    }

    /// Decides and records what `bytes` hold, as `describe` tells it, and lets them pass when
    /// every command in them may. With `durability = "disk"` this waits for the disk.
    ///
    /// Cancel safe: what was recorded stays recorded, and nothing passed.
    pub async fn admit<T>(
        &self,
        bytes: Bytes,
        describe: impl FnOnce(&mut Admission<'_, '_>) -> T,
    ) -> Result<(Permitted, T), NotPassed> {
        let rules = self.catalog.current();
        let (described, refused, decided) = self.recording.append(|batch| {
            let mut admission = Admission {
                gate: self,
                policy: rules.policy(),
                batch,
                refused: None,
                decided: false,
            };
            let described = describe(&mut admission);
            (described, admission.refused, admission.decided)
        })?;
        if let Some(decision) = refused {
            return Err(NotPassed::Refused(decision));
        }
        if decided {
            self.recording.committed().await?;
        }
        Ok((Permitted(bytes), described))
    }

    /// Masks a response.
    pub fn mask(&self, response: Bytes) -> Masked {
        self.masks.apply(response)
    }

    /// Records a masked response, as `describe` tells it, and lets it pass.
    pub fn release(
        &self,
        response: Masked,
        describe: impl FnOnce(&mut Release<'_, '_>, &Bytes),
    ) -> Result<Released, RecordingFailure> {
        self.recording.append(|batch| describe(&mut Release { batch }, response.as_bytes()))?;
        Ok(Released(response.into_bytes()))
    }

    /// Records words of the gateway's own to the client.
    pub fn announce(&self, words: &[u8]) -> Result<(), RecordingFailure> {
        self.recording.append(|batch| batch.data(Direction::None, None, words)).map(|_| ())
    }

    /// Records something worth knowing; a failure shows with the next command.
    pub fn note(&self, what: &'static str, text: String) {
        let note = Note { what: Cow::Borrowed(what), text };
        if let Err(failure) =
            self.recording.append(|batch| batch.json(Kind::Note, Direction::None, None, &note))
        {
            tracing::warn!(session = %self.recording.session(), %failure, what, "note not recorded");
        }
    }

    /// Whether the rules in force now still give the access that the session stands on.
    pub fn still_granted(&self) -> Result<(), NoAccess> {
        let rules = self.catalog.current();
        let target = self.grant.target();
        access::grant(&rules, self.grant.identity(), &target.name).map(|_| ())
    }

    /// Ends the recording.
    pub fn close(&self, how: &'static str, text: String) {
        let closed = Closed { how: Cow::Borrowed(how), text };
        if let Err(failure) = self.recording.close(&closed) {
            tracing::error!(session = %self.recording.session(), %failure, "recording not sealed yet");
        }
    }
}

/// Tells the recording, under one append, what some upstream-bound bytes hold.
#[derive(Debug)]
pub struct Admission<'g, 'b> {
    gate: &'g Gate,
    policy: &'g Policy,
    batch: &'g mut Batch<'b>,
    refused: Option<Decision>,
    decided: bool,
}

impl Admission<'_, '_> {
    /// Decides and records a command. `withheld` are its exact bytes, when the command's view
    /// does not hold them all: their keyed hash is recorded.
    pub fn command(
        &mut self,
        command: &Command,
        of: Option<Sequence>,
        withheld: Option<&[u8]>,
    ) -> Sequence {
        let grant = &self.gate.grant;
        let decision = self.policy.decide(grant.identity(), &grant.target().name, command);
        let recorded = RecordedCommand {
            command: Cow::Borrowed(command),
            decision: Cow::Borrowed(&decision),
            exact: withheld.map(|bytes| self.gate.store.keyed_hash(bytes)),
        };
        let sequence = self.batch.json(Kind::Command, Direction::Up, of, &recorded);
        self.decided = true;
        if decision.verdict() != Verdict::Allow && self.refused.is_none() {
            self.refused = Some(decision);
        }
        sequence
    }

    /// Records bytes that belong to commands decided before.
    pub fn data(&mut self, bytes: &[u8], of: Option<Sequence>) {
        self.batch.data(Direction::Up, of, bytes);
    }
}

/// Tells the recording, under one append, what some downstream-bound bytes hold.
#[derive(Debug)]
pub struct Release<'g, 'b> {
    batch: &'g mut Batch<'b>,
}

impl Release<'_, '_> {
    /// Records bytes that answer a command, or none.
    pub fn data(&mut self, bytes: &[u8], of: Option<Sequence>) {
        self.batch.data(Direction::Down, of, bytes);
    }

    /// Records the end of a command.
    pub fn outcome(&mut self, of: Sequence, outcome: &Outcome) {
        self.batch.json(Kind::Outcome, Direction::Down, Some(of), outcome);
    }
}

/// The public part of an identity, for recordings.
pub fn recorded_identity(identity: &Identity) -> RecordedIdentity {
    RecordedIdentity {
        issuer: identity.issuer().to_owned(),
        subject: identity.subject().to_owned(),
        username: identity.username().to_owned(),
        groups: identity.groups().to_vec(),
    }
}
