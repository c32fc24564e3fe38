//! Where the bytes of a `.rec` come from: a file here, or wherever sealed recordings were moved to.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::files;
use crate::names::SessionId;

/// Where recordings are that are not here any more. Asking may take time: it blocks.
pub trait Elsewhere: std::fmt::Debug + Send + Sync {
    /// The recording of a session; none when there is none.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn open(&self, session: SessionId) -> io::Result<Option<Box<dyn Remote>>>;
}

/// A recording that is elsewhere. Sealed: it does not change.
pub trait Remote: std::fmt::Debug + Send + Sync {
    /// Its length in bytes.
    fn length(&self) -> u64;

    /// Fills the buffer with what stands there.
    ///
    /// # Errors
    /// When there is less, or it cannot be read.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;
}

/// The bytes of one `.rec`, and the session that its name promises.
#[derive(Debug)]
pub struct Source {
    bytes: Bytes,
    named: Option<SessionId>,
}

#[derive(Debug)]
enum Bytes {
    /// A file here, which may grow.
    File(File),
    /// Elsewhere.
    Remote(Box<dyn Remote>),
}

impl Source {
    /// Opens a recording by the path that it has, or had, here; one that is not here, elsewhere.
    pub(in crate::recording) fn open(
        path: &Path,
        elsewhere: Option<&dyn Elsewhere>,
    ) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".rec"));
        let named: Option<SessionId> = name.and_then(|id| id.parse().ok());
        let missing = match files::open(path) {
            Ok(file) => return Ok(Self { bytes: Bytes::File(file), named }),
            Err(error) if error.kind() == io::ErrorKind::Other => {
                return Err(io::Error::other(format!("{} is not a file", path.display())));
            }
            Err(error) => error,
        };
        if missing.kind() != io::ErrorKind::NotFound {
            return Err(missing);
        }
        let Some((elsewhere, session)) = elsewhere.zip(named) else { return Err(missing) };
        let remote = elsewhere.open(session)?.ok_or(missing)?;
        Ok(Self { bytes: Bytes::Remote(remote), named })
    }

    /// A file that is open already, whosever it is.
    pub(in crate::recording) fn of_file(file: File) -> Self {
        Self { bytes: Bytes::File(file), named: None }
    }

    /// A file that is open already and must be this session's recording.
    pub(in crate::recording) fn of_session(file: File, session: SessionId) -> Self {
        Self { bytes: Bytes::File(file), named: Some(session) }
    }

    /// The session that the name promises; none when the name is no session's.
    pub(in crate::recording) fn named(&self) -> Option<SessionId> {
        self.named
    }

    /// Its length in bytes, now.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn length(&self) -> io::Result<u64> {
        match &self.bytes {
            Bytes::File(file) => Ok(file.metadata()?.len()),
            Bytes::Remote(remote) => Ok(remote.length()),
        }
    }

    /// Fills the buffer with what stands there.
    ///
    /// # Errors
    /// When there is less, or it cannot be read.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match &self.bytes {
            Bytes::File(file) => file.read_exact_at(buffer, at),
            Bytes::Remote(remote) => remote.read_at(buffer, at),
        }
    }
}
