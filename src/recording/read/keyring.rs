//! What reading recordings takes: keys of encrypted ones, and where those are that were moved away.
//!
//! This process can read those that it writes, until the index has them, and whoever has an identity
//! of one of their recipients.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::age::{self, Identity, Recipient};
use crate::files;
use crate::names::SessionId;
use crate::recording::format::cipher::RecordingKey;
use crate::recording::format::documents::Start;
use crate::recording::format::layout::wrapped_anew;
use crate::recording::read::blocks::{Blocks, ReadError};
use crate::recording::read::source::{Elsewhere, Source};

/// Keys of sealed recordings that are kept for the index; of older ones the index says that it
/// could not read them.
const MAX_SEALED: usize = 1 << 14;

/// Keys of recordings, and where those are that are not here any more. Clones share what this process
/// holds.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    held: Arc<Mutex<Held>>,
    identities: Arc<[Identity]>,
    elsewhere: Option<Arc<dyn Elsewhere>>,
}

#[derive(Debug, Default)]
struct Held {
    keys: HashMap<SessionId, RecordingKey>,
    /// Those of sealed recordings, oldest first.
    sealed: VecDeque<SessionId>,
}

impl Keyring {
    /// What these identities open, and nothing else.
    pub fn of(identities: Vec<Identity>) -> Self {
        Self { identities: identities.into(), ..Self::default() }
    }

    /// The same, and what these identities open.
    pub(in crate::recording) fn with(&self, identities: &Arc<[Identity]>) -> Self {
        Self { identities: Arc::clone(identities), ..self.clone() }
    }

    /// The same, with which recordings are found elsewhere that are not here.
    #[must_use]
    pub fn with_elsewhere(self, elsewhere: Option<Arc<dyn Elsewhere>>) -> Self {
        Self { elsewhere, ..self }
    }

    /// Opens a recording by the path that it has, or had, here.
    ///
    /// # Errors
    /// When it is nowhere, no file, or cannot be read.
    pub fn source(&self, path: &Path) -> io::Result<Source> {
        Source::open(path, self.elsewhere.as_deref())
    }

    /// Whether it opens recordings of other processes at all.
    pub fn has_identities(&self) -> bool {
        !self.identities.is_empty()
    }

    /// Lets go of a recording that nobody here has to read any more.
    pub fn release(&self, session: &SessionId) {
        self.held.lock().keys.remove(session);
    }

    pub(in crate::recording) fn hold(&self, session: SessionId, key: RecordingKey) {
        self.held.lock().keys.insert(session, key);
    }

    /// Notes that a recording was sealed: from now on only the index wants its key.
    pub(in crate::recording) fn sealed(&self, session: SessionId) {
        let mut held = self.held.lock();
        if held.keys.contains_key(&session) {
            held.sealed.push_back(session);
        }
        if held.sealed.len() > MAX_SEALED
            && let Some(oldest) = held.sealed.pop_front()
        {
            held.keys.remove(&oldest);
        }
    }

    /// The key of the recording at `path` that starts so; none for one that is not encrypted.
    pub(in crate::recording) fn key(
        &self,
        start: &Start,
        path: &Path,
    ) -> Result<Option<RecordingKey>, NoKey> {
        let Some(wrapped) = &start.key else { return Ok(None) };
        if let Some(key) = self.held.lock().keys.get(&start.session) {
            return Ok(Some(key.clone()));
        }
        let secret = self.unwrap(wrapped, path);
        let key = secret.and_then(|secret| RecordingKey::of(&secret));
        key.map(Some).ok_or_else(|| self.no_key(start))
    }

    fn no_key(&self, start: &Start) -> NoKey {
        NoKey { recipients: start.recipients.join(", "), tried: self.identities.len() }
    }

    fn unwrap(&self, wrapped: &str, path: &Path) -> Option<Zeroizing<Vec<u8>>> {
        if self.identities.is_empty() {
            return None;
        }
        let anew = || age::unwrap(&self.identities, &rewrapped(path).ok()??);
        let first = STANDARD.decode(wrapped).ok();
        first.and_then(|file| age::unwrap(&self.identities, &file)).or_else(anew)
    }
}

/// An encrypted recording, and nothing to open it with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the recording is encrypted to {recipients}; {}", match tried {
    0 => "an identity of one of them is needed",
    _ => "none of the identities given is one of theirs",
})]
pub struct NoKey {
    recipients: String,
    tried: usize,
}

/// The key of the recording at `path` as [`rewrap`] wrapped it, if that was done.
///
/// # Errors
/// When it cannot be read.
pub fn rewrapped(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match files::open(&wrapped_anew(path)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(age::MAX_FILE as u64).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Wraps the key of the recording at `path` for other recipients too, in a file beside it, in the
/// place of one that was there; false when the recording is not encrypted. Nothing of the recording
/// changes: whoever could open it before still can.
///
/// # Errors
/// When the recording cannot be read or opened, or the file cannot be written.
pub fn rewrap(path: &Path, keyring: &Keyring, recipients: &[Recipient]) -> Result<bool, ReadError> {
    let (start, _) = Blocks::open(keyring.source(path)?)?;
    let Some(wrapped) = &start.key else { return Ok(false) };
    let secret = keyring.unwrap(wrapped, path).ok_or_else(|| keyring.no_key(&start))?;
    let file = age::wrap(recipients, &secret).map_err(io::Error::other)?;
    let (place, new) = (wrapped_anew(path), path.with_extension("age-new"));
    std::fs::write(&new, file)?;
    std::fs::rename(new, place)?;
    Ok(true)
}
