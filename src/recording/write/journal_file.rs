//! The file of a journal.
//!
//! Once its events are in blocks a journal begins anew at the file's start. So nearly every record
//! goes where the file has room already, which costs half of what adding to a file's end does, and
//! a full disk is noticed when room is made, not by a record that is cut. Room that a session does
//! not need any more is given back.
//!
//! An encrypted journal is cut instead: its records are hashed without a salt, because blocks that
//! a repair makes take them over as they are.

use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;

use rustix::io::Errno;

use crate::names::SessionId;
use crate::recording::format::append_file::{Unsynced, Usage};
use crate::recording::format::cipher::Sealing;
use crate::recording::format::header::Span;
use crate::recording::format::journal::{self, Salt};
use crate::recording::format::layout;

/// What an idle session keeps, in bytes: a block of most file systems.
const KEPT: u64 = 4 << 10;
/// Room is made in steps of at most this; smaller ones double it.
const STEP: u64 = 256 << 10;

/// A journal that is written.
#[derive(Debug)]
pub(in crate::recording) struct JournalFile {
    file: Arc<File>,
    session: SessionId,
    /// None where records are sealed.
    salt: Option<Salt>,
    /// Where the next record goes; 0 where the next turn begins with it.
    end: u64,
    /// How long the file is.
    room: u64,
    /// How much of this turn is known to be on the disk.
    synced: u64,
    turn: u64,
    usage: Arc<Usage>,
}

impl JournalFile {
    /// Begins a journal in an empty file.
    pub(in crate::recording) fn create(
        file: File,
        session: SessionId,
        encrypted: bool,
        usage: Arc<Usage>,
    ) -> io::Result<Self> {
        let salt = if encrypted { None } else { Some(Salt::random()?) };
        let (file, end, room) = (Arc::new(file), 0, 0);
        Ok(Self { file, session, salt, end, room, synced: 0, turn: 0, usage })
    }

    /// Bytes of this turn.
    pub(in crate::recording) fn len(&self) -> u64 {
        self.end
    }

    /// Writes encoded events as one record, or leaves the journal as it was.
    pub(in crate::recording) fn append(
        &mut self,
        cipher: Option<&mut Sealing>,
        (span, events): (&Span, &[u8]),
    ) -> io::Result<()> {
        let session = &self.session;
        match (self.salt, cipher) {
            (Some(salt), None) => {
                let head = journal::record_of(salt, events)?;
                let header = (self.end == 0).then(|| journal::header(session, salt));
                self.write(&[header.as_deref().unwrap_or_default(), &head, events])
            }
            (None, Some(cipher)) => {
                let record = journal::sealed_record(session, cipher, (span, events))?;
                let header = (self.end == 0).then(|| journal::sealed_header(session));
                self.write(&[header.as_deref().unwrap_or_default(), &record])
            }
            _ => Err(io::Error::other("a journal is encrypted as its recording is")),
        }
    }

    fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let end = self.end + parts.iter().map(|part| part.len() as u64).sum::<u64>();
        self.make_room(end)?;
        let mut slices = [IoSlice::new(&[]); 3];
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        // What a failed write leaves is behind the end, and written over.
        write_all_at(&self.file, &mut slices, self.end)?;
        self.end = end;
        Ok(())
    }

    /// Begins the next turn: nothing needs the records any more.
    pub(in crate::recording) fn begin_anew(&mut self) {
        (self.end, self.synced) = (0, 0);
        self.turn += 1;
        match &mut self.salt {
            Some(salt) => *salt = salt.next(),
            // Its records are still right; a repair passes over what blocks have.
            None => self.cut(0),
        }
    }

    /// Gives back the room that a quiet session does not need.
    pub(in crate::recording) fn rest(&mut self) {
        if !self.rests() {
            self.cut(KEPT);
        }
    }

    /// Whether there is no room to give back.
    pub(in crate::recording) fn rests(&self) -> bool {
        self.end > 0 || self.room <= KEPT
    }

    /// What of it is not on the disk.
    pub(in crate::recording) fn unsynced(&self) -> Option<Unsynced> {
        (self.synced < self.end).then(|| Unsynced::new(&self.file, self.end, self.turn))
    }

    /// Notes that what was unsynced then is on the disk now.
    pub(in crate::recording) fn synced(&mut self, then: &Unsynced) {
        if then.is_of(&self.file, self.turn) {
            self.synced = self.synced.max(then.len());
        }
    }

    /// Takes the file out of the count, when it is removed.
    pub(in crate::recording) fn forget(&mut self) {
        self.set_room(0);
    }

    fn make_room(&mut self, end: u64) -> io::Result<()> {
        if end <= self.room {
            return Ok(());
        }
        let room = match self.salt {
            Some(_) => end.max(self.room + self.room.clamp(KEPT, STEP)).next_multiple_of(KEPT),
            None => end,
        };
        if self.salt.is_some() {
            // Where the file system cannot, each write makes its own.
            let _made = layout::allocate(&self.file, self.room, room - self.room)?;
        }
        self.set_room(room);
        Ok(())
    }

    fn cut(&mut self, room: u64) {
        // What stays longer than it should is used again, or goes with the file.
        if self.file.set_len(room).is_ok() {
            self.set_room(room);
        }
    }

    fn set_room(&mut self, room: u64) {
        self.usage.change(self.room, room);
        self.room = room;
    }
}

fn write_all_at(file: &File, mut parts: &mut [IoSlice<'_>], mut at: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut parts, 0);
    while !parts.is_empty() {
        match rustix::io::pwritev(file, parts, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                IoSlice::advance_slices(&mut parts, written);
                at += written as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use bytes::Bytes;

    use super::*;
    use crate::recording::format::clock::Stamp;
    use crate::recording::format::event::Direction;
    use crate::recording::write::write_buffer::Pending;

    fn bytes(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn sealing() -> Sealing {
        let recipient = "age1gfr9v9fwjlj3729l5yq54lmgw7vvznw8584esrfvldf0pd7pcptqlhukv7";
        Sealing::make(&[recipient.parse().unwrap()]).unwrap().0
    }

    /// Appends events of one batch, the first with this sequence.
    fn append(journal: &mut JournalFile, cipher: &mut Option<Sealing>, first: u64, length: usize) {
        let mut pending = Pending::starting_at(first);
        let stamp = Stamp { monotonic_us: 0, wall_us: 0 };
        pending.data(stamp, Direction::Up, None, &vec![b'x'; length]);
        pending.data(stamp, Direction::Up, None, b"y");
        let mark = Pending::starting_at(first).mark();
        let events = (&pending.span_since(&mark), pending.since(&mark));
        journal.append(cipher.as_mut(), events).unwrap();
    }

    fn read(session: &SessionId, bytes: Vec<u8>, cipher: Option<&Sealing>) -> Vec<u64> {
        let mut contents = journal::parse(session, &Bytes::from(bytes));
        if let Some(cipher) = cipher {
            assert!(contents.open(session, &cipher.key()));
        }
        contents.events.iter().map(|journaled| journaled.event.sequence).collect()
    }

    #[test]
    fn a_journal_cut_anywhere_in_any_turn_gives_its_whole_records() {
        for mut cipher in [None, Some(sealing())] {
            let session = SessionId::generate();
            let file = tempfile::tempfile().unwrap();
            let usage = Arc::<Usage>::default();
            let copy = file.try_clone().unwrap();
            let encrypted = cipher.is_some();
            let mut journal =
                JournalFile::create(copy, session, encrypted, Arc::clone(&usage)).unwrap();
            let mut first = 0;
            // Each turn writes over what stands there, up to other places.
            for lengths in [[900, 40, 7], [40, 900, 7], [5, 5, 5]] {
                let began = first;
                let mut ends = vec![];
                for length in lengths {
                    append(&mut journal, &mut cipher, first, length);
                    first += 2;
                    ends.push(journal.len());
                }
                let bytes = bytes(&file);
                assert_eq!(usage.bytes(), bytes.len() as u64);
                for cut in 0..=bytes.len() {
                    let whole = ends.iter().filter(|end| **end <= cut as u64).count() as u64;
                    let found = read(&session, bytes[..cut].to_vec(), cipher.as_ref());
                    let written: Vec<_> = (began..began + 2 * whole).collect();
                    assert_eq!(found, written, "cut at {cut}");
                }
                assert!(read(&SessionId::generate(), bytes, None).is_empty());
                journal.begin_anew();
            }
        }
    }

    #[test]
    fn a_quiet_session_gives_its_room_back() {
        let file = tempfile::tempfile().unwrap();
        let usage = Arc::<Usage>::default();
        let copy = file.try_clone().unwrap();
        let session = SessionId::generate();
        let mut journal = JournalFile::create(copy, session, false, Arc::clone(&usage)).unwrap();
        let mut cipher = None;
        for first in 0..10 {
            append(&mut journal, &mut cipher, 2 * first, 40_000);
        }
        assert!(journal.len() > 400_000 && usage.bytes() >= journal.len());
        assert!(journal.rests(), "records are needed");
        journal.begin_anew();
        let room = usage.bytes();
        for first in 10..20 {
            append(&mut journal, &mut cipher, 2 * first, 40_000);
        }
        assert_eq!(usage.bytes(), room, "it is used again");
        journal.begin_anew();
        journal.rest();
        assert_eq!((usage.bytes(), file.metadata().unwrap().len()), (KEPT, KEPT));
        append(&mut journal, &mut cipher, 40, 10);
        assert_eq!(read(&session, bytes(&file), None), [40, 41]);
        journal.forget();
        assert_eq!(usage.bytes(), 0);
    }

    #[test]
    fn a_sync_of_another_turn_or_file_does_not_count() {
        let file = tempfile::tempfile().unwrap();
        let session = SessionId::generate();
        let mut journal = JournalFile::create(file, session, false, Arc::default()).unwrap();
        append(&mut journal, &mut None, 0, 10);
        let begun = journal.unsynced().unwrap();
        journal.begin_anew();
        assert!(journal.unsynced().is_none());
        append(&mut journal, &mut None, 2, 10);
        journal.synced(&begun);
        let other = Arc::new(tempfile::tempfile().unwrap());
        journal.synced(&Unsynced::new(&other, 1 << 20, 1));
        let now = journal.unsynced().unwrap();
        journal.synced(&now);
        assert!(journal.unsynced().is_none());
    }
}
