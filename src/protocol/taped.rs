//! What wire replay of every protocol has in common: how a recording is opened for it, and how much
//! of one is kept in memory.

use std::path::{Path, PathBuf};

use crate::names::{Protocol, SessionId, TargetName};
use crate::recording::{Keyring, Opened, ReadError, Reader};

/// Texts, values and descriptions that are kept of one recording, in bytes.
const MOST_KEPT: usize = 512 << 20;
/// What one entry costs beside its texts.
const ENTRY: usize = 256;

/// Why a recording cannot answer.
#[derive(Debug, thiserror::Error)]
pub enum TapeError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is of something else.
    #[error("it is a recording of {0}, not of {1}")]
    OtherProtocol(Protocol, &'static str),
    /// It holds no session.
    #[error("it is no session's recording")]
    NoSession,
    /// What it has to answer does not fit into memory.
    #[error("its {0} take more than {most} MiB", most = MOST_KEPT >> 20)]
    TooMuch(&'static str),
}

/// A session whose recording answers.
#[derive(Debug)]
pub(super) struct Taped {
    path: PathBuf,
    keyring: Keyring,
    pub(super) session: SessionId,
    pub(super) target: TargetName,
    username: String,
}

impl Taped {
    /// Opens a recording of this protocol, with what opens it where it is encrypted, and reads its
    /// first event. Blocks on the file system.
    pub(super) fn open(
        (path, keyring): (&Path, &Keyring),
        (protocol, name): (Protocol, &'static str),
    ) -> Result<(Self, Reader), TapeError> {
        let mut reader = Reader::open_with(path, keyring)?;
        let first = reader.next().transpose()?.ok_or(TapeError::NoSession)?;
        let opened: Opened =
            serde_json::from_slice(&first.payload).map_err(|_| TapeError::NoSession)?;
        if opened.protocol != protocol {
            return Err(TapeError::OtherProtocol(opened.protocol, name));
        }
        let taped = Self {
            path: path.to_owned(),
            keyring: keyring.clone(),
            session: opened.session,
            target: opened.target,
            username: opened.identity.username,
        };
        Ok((taped, reader))
    }

    /// The recording from its beginning on, again. Blocks on the file system.
    pub(super) fn reader(&self) -> Result<Reader, ReadError> {
        Reader::open_with(&self.path, &self.keyring)
    }

    /// Whose session it was, and of what.
    pub(super) fn title(&self) -> (&str, &TargetName, SessionId) {
        (&self.username, &self.target, self.session)
    }
}

/// How much is kept of a recording.
#[derive(Debug)]
pub(super) struct Kept {
    what: &'static str,
    bytes: usize,
}

impl Kept {
    /// None yet of what is named.
    pub(super) fn of(what: &'static str) -> Self {
        Self { what, bytes: 0 }
    }

    /// One entry more, with so many bytes of text.
    pub(super) fn entry(&mut self, bytes: usize) -> Result<(), TapeError> {
        self.more(bytes.saturating_add(ENTRY))
    }

    /// So many bytes more.
    pub(super) fn more(&mut self, bytes: usize) -> Result<(), TapeError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes <= MOST_KEPT { Ok(()) } else { Err(self.too_much()) }
    }

    /// That it is too much, for whoever counts something else too.
    pub(super) fn too_much(&self) -> TapeError {
        TapeError::TooMuch(self.what)
    }
}
