//! Proving a whole `data_dir`: every recording, and that none is missing.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::book::{Book, Buried};
use super::{Against, Claim, Failed, Report, SealOf, State, Wrong, check, wrong};
use crate::names::SessionId;
use crate::recording::format::layout::{self, LEDGER, recording_path};
use crate::recording::format::signing::PublicKey;
use crate::recording::ledger::Head;

/// Findings that are listed; more are counted.
const MOST_FINDINGS: usize = 1000;

/// What was found about all recordings of a `data_dir`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Audit {
    /// The gateway's id, as its ledger has it.
    pub gateway: Option<String>,
    /// How far the ledger is; kept elsewhere, it proves the history up to here another time.
    pub head: Option<Head>,
    /// Bytes of a last line that is not whole, as a crash leaves it.
    pub torn_ledger: u64,
    /// The keys that signed the ledger, in their order.
    pub keys: Vec<PublicKey>,
    /// Recordings that are there.
    pub recordings: u64,
    /// Those that are whole.
    pub whole: u64,
    /// Those that are not sealed.
    pub open: u64,
    /// Those of a gateway that died.
    pub interrupted: u64,
    /// Recordings that retention took away, as signed tombstones say.
    pub deleted: u64,
    /// Of these, those whose files were gone before it came to them.
    pub deleted_missing: u64,
    /// Bytes of their files that hold.
    pub file_bytes: u64,
    /// Events that recordings themselves say are missing, as far as they were read.
    pub missing_events: u64,
    /// Recordings whose events were not all looked at because they are encrypted.
    pub unread: u64,
    /// What was proved of all of them.
    pub proved: Vec<Claim>,
    /// What is wrong, by session.
    pub wrong: Vec<Finding>,
    /// How much more is wrong than is listed.
    pub more_wrong: u64,
}

/// One thing that is not what was written.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Whose recording it is about.
    pub session: Option<SessionId>,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    #[serde(flatten)]
    pub wrong: Wrong,
}

/// Verifies every recording in `data_dir`, against its ledger, which is read once, and where
/// something seems wrong twice more: a gateway may be writing. It opens and it seals a recording,
/// so the third look at one is of one that stays as it is. What is wrong with one does not keep the
/// others from being looked at.
///
/// # Errors
/// When the directory cannot be listed.
pub fn verify_all(data_dir: &Path, against: &Against) -> io::Result<Audit> {
    verify_all_with(data_dir, against, |_, _| ())
}

/// The same; `progress` is told before each recording how many were looked at, and of how many.
///
/// # Errors
/// When the directory cannot be listed.
pub fn verify_all_with(
    data_dir: &Path,
    against: &Against,
    mut progress: impl FnMut(u64, u64),
) -> io::Result<Audit> {
    let mut audit = Audit::default();
    // Before the ledger: what is listed is in it then.
    let survey = layout::survey(data_dir)?;
    let ledger = against.ledger.clone().unwrap_or_else(|| data_dir.join(LEDGER));
    let book = match Book::read(&ledger, None, against) {
        Ok(book) => Some(book),
        Err(failed) => {
            audit.add(None, &ledger, failed.into_wrong());
            None
        }
    };
    for path in &survey.strangers {
        audit.add(None, path, Wrong::from("it is no file of a recording".to_owned()));
    }
    let known = book.iter().flat_map(|book| book.recordings.keys().copied());
    let sessions: BTreeSet<SessionId> = survey.sessions.into_iter().chain(known).collect();
    let of = sessions.len() as u64;
    let sessions = (0..).zip(sessions).map(|(looked_at, session)| {
        progress(looked_at, of);
        session
    });
    let mut suspects = audit.look(data_dir, sessions, book.as_ref(), against, true);
    let mut book = book;
    for patient in [true, false] {
        let torn = book.as_ref().is_some_and(|book| book.torn > 0);
        if book.is_none() || suspects.is_empty() && !torn {
            break;
        }
        match Book::read(&ledger, None, against) {
            Ok(later) => book = Some(later),
            Err(failed) => audit.add(None, &ledger, failed.into_wrong()),
        }
        suspects = audit.look(data_dir, suspects, book.as_ref(), against, patient);
    }
    audit.conclude(book);
    Ok(audit)
}

impl Audit {
    /// Looks at some recordings. With `patient`, gives back those with which something is wrong
    /// instead of reporting them: they may be being written just now.
    fn look(
        &mut self,
        data_dir: &Path,
        sessions: impl IntoIterator<Item = SessionId>,
        book: Option<&Book>,
        against: &Against,
        patient: bool,
    ) -> BTreeSet<SessionId> {
        let mut suspects = BTreeSet::new();
        for session in sessions {
            let path = recording_path(data_dir, &session);
            let mut report = Report::default();
            match judge(&path, session, book, against, &mut report) {
                Ok(()) => self.count(&report),
                Err(_) if book.is_some_and(|book| book.is_half_made(session, (&path, &report))) => {
                }
                Err(Failed::Io(error)) if is_gone(&error, session, book) => {
                    let buried = book.and_then(|book| book.buried(session));
                    self.deleted += 1;
                    self.deleted_missing += u64::from(buried == Some(Buried::Missing));
                }
                Err(_) if patient && book.is_some() => {
                    suspects.insert(session);
                }
                Err(Failed::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    // What nobody knows was given up before anything was forwarded.
                    if book.is_some_and(|book| book.recordings.contains_key(&session)) {
                        let what = "the ledger has it, and its file is missing".to_owned();
                        self.add(Some(session), &path, Wrong::from(what));
                    }
                }
                Err(failed) => {
                    self.recordings += 1;
                    self.add(Some(session), &path, failed.into_wrong());
                }
            }
        }
        suspects
    }

    fn count(&mut self, report: &Report) {
        self.recordings += 1;
        match report.state {
            State::Whole => self.whole += 1,
            State::Open | State::Wrong => self.open += 1,
        }
        self.interrupted += u64::from(report.interrupted);
        self.unread += u64::from(report.unread_events > 0);
        self.file_bytes += report.file_bytes;
        self.missing_events = self.missing_events.saturating_add(report.missing_events);
    }

    fn add(&mut self, session: Option<SessionId>, path: &Path, wrong: Wrong) {
        if self.wrong.len() < MOST_FINDINGS {
            self.wrong.push(Finding { session, path: path.to_owned(), wrong });
        } else {
            self.more_wrong += 1;
        }
    }

    fn conclude(&mut self, book: Option<Book>) {
        let Some(book) = book else { return };
        if self.wrong.is_empty() && self.open == 0 && book.torn == 0 {
            self.proved = vec![Claim::Whole];
            self.proved.extend(book.trusted.then_some(Claim::Signed));
            self.proved.push(Claim::Complete);
            self.proved.extend(book.anchored.then_some(Claim::Anchored));
        }
        self.gateway = Some(book.gateway);
        self.head = Some(book.head);
        self.torn_ledger = book.torn;
        self.keys = book.keys;
    }
}

/// Whether a file is missing that a tombstone stands for.
fn is_gone(error: &io::Error, session: SessionId, book: Option<&Book>) -> bool {
    error.kind() == io::ErrorKind::NotFound && book.is_some_and(|b| b.buried(session).is_some())
}

fn judge(
    path: &Path,
    session: SessionId,
    book: Option<&Book>,
    against: &Against,
    report: &mut Report,
) -> Result<(), Failed> {
    let mut seal = look_at(path, session, against, report)?;
    // It may have been sealed since, and then the ledger knew it first.
    if seal.is_none() && book.is_some_and(|book| book.has_seal(session)) {
        *report = Report::default();
        seal = look_at(path, session, against, report)?;
    }
    if let Some(book) = book {
        book.hold(session, seal.as_ref(), (path, report))?;
        report.ledger = true;
        if seal.is_some() && !book.has_seal(session) {
            report.state = State::Open;
        }
    }
    report.conclude(seal.as_ref(), book, &against.keys)
}

fn look_at(
    path: &Path,
    session: SessionId,
    against: &Against,
    report: &mut Report,
) -> Result<Option<SealOf>, Failed> {
    let seal = check(path, &against.keyring, report)?;
    if report.session == Some(session) {
        Ok(seal)
    } else {
        Err(wrong("it is another session's recording"))
    }
}

impl Failed {
    fn into_wrong(self) -> Wrong {
        match self {
            Self::Io(error) => Wrong::from(format!("it cannot be read: {error}")),
            Self::Wrong(wrong) => wrong,
        }
    }
}
