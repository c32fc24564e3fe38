//! The session store: one appender and one reader; everybody else sees [`Event`]s.
//!
//! An event is in the session's journal, handed to the operating system, before
//! [`Recording::append`] returns; soon after it is in a compressed block of the recording, whose
//! headers chain by hash over the stored bytes. The gateway's ledger says which recordings were
//! opened and how each was sealed; both are signed. `docs/recording-format.md` has every byte.
//!
//! Limits: whoever has the key and can write the files can write both anew, and only a copy of the
//! ledger's head that stands elsewhere shows it; and with `durability = "process"` the death of the machine may take what it had not written
//! to the disk by itself.

mod format;
mod ledger;
mod read;
#[cfg(test)]
pub(crate) mod tests;
mod write;

pub use format::clock::rfc3339;
pub use format::documents::{Seal, Sealed, Start};
pub use format::event::{
    ApprovalStep, Closed, CommandError, Direction, Event, Gap, GatewayOpened, Kind, NewCommand,
    Note, Opened, Outcome, RecordedCommand, RecordedIdentity, RecordedVote, RefusedCaller,
    Sequence, Told,
};
pub use format::layout::{Locked, day_of, recording_path, wrapped_anew};
pub use format::signing::PublicKey;
pub use ledger::{Burial, Head, Rotated, rotate_key};
pub use read::blocks::{Damage, ReadError};
pub use read::keyring::{Keyring, NoKey, rewrap, rewrapped};
pub use read::reader::{End, Reader, source};
pub use read::source::{Elsewhere, Remote, Source};
pub use read::tail_reader::{
    Bookmark, Changed, Follower, LedgerFollower, LedgerNews, all_recordings, recordings,
};
pub use read::verify::{
    Against, Audit, Claim, Finding, Report, State, Wrong, verify, verify_all, verify_all_with,
};
pub use write::appender::Recording;
pub use write::batch::Batch;
pub use write::deletion::Due;
pub use write::draft::{Draft, Renumbered};
pub use write::store::Store;

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

impl From<std::io::Error> for RecordingFailure {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.to_string())
    }
}
