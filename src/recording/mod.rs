//! The session store: one appender and one reader; everybody else sees [`Event`]s.

mod event;

use std::path::Path;

use serde::Serialize;

use crate::config;
use crate::names::SessionId;

pub use event::{
    Closed, CommandError, Direction, Event, Gap, Kind, Note, Opened, Outcome, RecordedCommand,
    RecordedIdentity, RefusedCaller, Sequence, Told,
};

/// Why something could not be recorded. For operators; clients are told only that it could not.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordingFailure {
    /// The operating system refused a write.
    #[error("cannot write the recording: {0}")]
    Io(String),
    /// The recording reached `[recording] max_session`.
    #[error("the recording reached max_session")]
    TooLarge,
    /// The directory reached `[recording] max_local`.
    #[error("the recordings reached max_local")]
    StoreFull,
    /// The recording was closed before.
    #[error("the recording is closed")]
    Closed,
}

/// The recordings of one gateway. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {}

impl Store {
    /// Takes the lock on `data_dir`, opens the ledger, and seals what a crash left.
    pub fn open(
        _data_dir: &Path,
        _settings: &config::Recording,
        _mask_key: &[u8; 32],
    ) -> anyhow::Result<Self> {
        todo!()
    }

    /// Starts a recording: the ledger has `opened` and the recording its first event when this returns.
    pub fn create(
        &self,
        _opened: &Opened,
        _on_failure: config::OnRecordingFailure,
    ) -> Result<Recording, RecordingFailure> {
        todo!()
    }

    /// Notes a caller who got no session, in the gateway's own recording; bounded in rate.
    pub fn refused(&self, _caller: &RefusedCaller) {
        todo!()
    }

    /// Keyed hash of bytes that are not stored themselves, in hexadecimal.
    pub fn keyed_hash(&self, _bytes: &[u8]) -> String {
        todo!()
    }

    /// Frames what waits in journals every 100 ms and retries what could not be sealed, until
    /// cancelled; then frames all that is left.
    pub async fn run(self, _cancel: tokio_util::sync::CancellationToken) {
        todo!()
    }
}

/// One open recording. Clones share it; dropping the last without [`Recording::close`] seals it
/// as interrupted.
#[derive(Clone, Debug)]
pub struct Recording {}

impl Recording {
    /// The session that it records.
    pub fn session(&self) -> SessionId {
        todo!()
    }

    /// Appends events as one unit: all of them are with the operating system when this returns,
    /// or none is stored and the sequence is as before. Never waits for anything but the write.
    pub fn append<T>(
        &self,
        _write: impl FnOnce(&mut Batch<'_>) -> T,
    ) -> Result<T, RecordingFailure> {
        todo!()
    }

    /// With `durability = "disk"`, waits until all that was appended before is on the disk; one
    /// fsync may serve many sessions. Returns at once with `"process"`. Cancel safe.
    pub async fn committed(&self) -> Result<(), RecordingFailure> {
        todo!()
    }

    /// Writes the last event and the seal, and closes the files.
    pub fn close(&self, _closed: &Closed) -> Result<(), RecordingFailure> {
        todo!()
    }
}

/// Events being appended as one unit.
#[derive(Debug)]
pub struct Batch<'a> {
    _of: std::marker::PhantomData<&'a mut ()>,
}

impl Batch<'_> {
    /// Adds bytes that passed.
    pub fn data(
        &mut self,
        _direction: Direction,
        _of: Option<Sequence>,
        _payload: &[u8],
    ) -> Sequence {
        todo!()
    }

    /// Adds an event whose payload is JSON.
    pub fn json<T: Serialize>(
        &mut self,
        _kind: Kind,
        _direction: Direction,
        _of: Option<Sequence>,
        _payload: &T,
    ) -> Sequence {
        todo!()
    }
}
