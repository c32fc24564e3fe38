//! What the ledger says of recordings, read once.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Against, Failed, Report, SealOf, Wrong, wrong};
use crate::files;
use crate::names::SessionId;
use crate::recording::format::documents::Sealed;
use crate::recording::format::signing::PublicKey;
use crate::recording::ledger::{self, Entry, Head, LedgerError, Reign};

/// A ledger that holds together.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) gateway: String,
    pub(super) head: Head,
    /// Bytes behind the last whole line.
    pub(super) torn: u64,
    pub(super) keys: Vec<PublicKey>,
    /// Whether one of the keys given stands behind all of it.
    pub(super) trusted: bool,
    /// Whether it was held against heads that were noted elsewhere.
    pub(super) anchored: bool,
    pub(super) recordings: BTreeMap<SessionId, Noted>,
}

/// What the ledger says of one recording.
#[derive(Debug, Default)]
pub(super) struct Noted {
    opened: bool,
    sealed: Option<Sealed>,
    /// It has two seals that differ.
    contradicted: bool,
    damaged: Option<String>,
    /// Retention took it away, or is about to; whether its file was there then.
    buried: Option<Buried>,
}

/// What a tombstone says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buried {
    /// It was there.
    Found,
    /// It was gone already.
    Missing,
}

impl Book {
    /// Reads a ledger; with `only`, what it says of one recording.
    pub(super) fn read(
        path: &Path,
        only: Option<SessionId>,
        against: &Against,
    ) -> Result<Self, Failed> {
        let mut recordings: BTreeMap<SessionId, Noted> = BTreeMap::new();
        let mut gateway = String::new();
        // By length: a witness has millions of them.
        let mut unmet: BTreeMap<u64, Vec<&Head>> = BTreeMap::new();
        for head in against.heads.iter().filter(|head| head.lines > 0) {
            unmet.entry(head.lines).or_default().push(head);
        }
        let walked = ledger::walk(&files::open(path).map_err(Failed::Io)?, |line, hash| {
            if let Some(heads) = unmet.get_mut(&(line.n + 1)) {
                heads.retain(|head| head.hash != hash);
            }
            let mut note = |session: &SessionId, add: &dyn Fn(&mut Noted)| {
                if only.is_none_or(|only| only == *session) {
                    add(recordings.entry(*session).or_default());
                }
            };
            match &line.entry {
                Entry::Ledger { gateway: id, .. } => gateway.clone_from(id),
                Entry::Key { .. } | Entry::Checkpoint => {}
                Entry::Opened { session } => note(session, &|noted| noted.opened = true),
                Entry::Sealed { session, sealed } => note(session, &|noted| noted.seal(sealed)),
                Entry::Damaged { session, what } => {
                    note(session, &|noted| noted.damaged = Some(what.clone()));
                }
                Entry::Tombstone { session, missing, .. } => note(session, &|noted| {
                    // What a crash left half done is done again, and not found then.
                    let said = if *missing { Buried::Missing } else { Buried::Found };
                    noted.buried.get_or_insert(said);
                }),
            }
        });
        let end = walked.map_err(|error| match error {
            LedgerError::Io(error) => Failed::Io(error),
            error => wrong(error.to_string()),
        })?;
        if let Some(head) = unmet.values().flatten().next() {
            return Err(wrong(other_head(head, end.lines)));
        }
        if !against.keys.is_empty() && !end.trusted(&against.keys) {
            return Err(wrong(match end.reigns.last() {
                Some(Reign { key, .. }) => {
                    format!("the ledger is signed with {key}, which is none of the keys given")
                }
                None => "the ledger is not signed".to_owned(),
            }));
        }
        Ok(Self {
            gateway,
            trusted: end.trusted(&against.keys),
            anchored: !against.heads.is_empty(),
            keys: end.reigns.iter().map(|reign| reign.key).collect(),
            torn: end.torn,
            head: Head { lines: end.lines, hash: end.head },
            recordings,
        })
    }

    /// Holds what a file says against the ledger.
    pub(super) fn hold(
        &self,
        session: SessionId,
        file: Option<&SealOf>,
        (path, report): (&Path, &Report),
    ) -> Result<(), Failed> {
        let Some(noted) = self.recordings.get(&session).filter(|noted| noted.opened) else {
            return Err(wrong("the ledger does not have it as opened"));
        };
        if noted.contradicted {
            return Err(wrong("the ledger has two seals of it that differ"));
        }
        if let Some(SealOf { key: Some(key), .. }) = file
            && !self.keys.contains(key)
        {
            return Err(wrong(format!("its seal is signed with {key}, no key of the ledger")));
        }
        match (file, &noted.sealed) {
            (Some(file), Some(noted)) if file.sealed != *noted => {
                Err(wrong("the ledger has another seal"))
            }
            // The ledger gets the seal after the file, and the journal goes after that.
            (Some(_), None) if !path.with_extension("journal").is_file() => {
                Err(wrong("the ledger does not have it as sealed"))
            }
            (None, Some(_)) => Err(Failed::Wrong(Wrong {
                block: Some(report.blocks),
                offset: Some(report.file_bytes),
                what: "the ledger has it as sealed, and no whole block follows here".to_owned(),
            })),
            (None, None) => match &noted.damaged {
                Some(what) => Err(wrong(format!("the ledger has it as damaged: {what}"))),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Whether a file is one that is being made: there is a journal and no event in a block, and
    /// the ledger does not know it. Nothing was forwarded then.
    pub(super) fn is_half_made(
        &self,
        session: SessionId,
        (path, report): (&Path, &Report),
    ) -> bool {
        !self.recordings.contains_key(&session)
            && report.blocks <= 1
            && path.with_extension("journal").is_file()
    }

    /// What the ledger's tombstone of a recording says, if it has one.
    pub(super) fn buried(&self, session: SessionId) -> Option<Buried> {
        self.recordings.get(&session)?.buried
    }

    /// Whether the ledger has a recording's seal.
    pub(super) fn has_seal(&self, session: SessionId) -> bool {
        self.recordings.get(&session).is_some_and(|noted| noted.sealed.is_some())
    }
}

impl Noted {
    fn seal(&mut self, sealed: &Sealed) {
        self.contradicted |= self.sealed.as_ref().is_some_and(|before| before != sealed);
        self.sealed = Some(sealed.clone());
    }
}

fn other_head(head: &Head, lines: u64) -> String {
    if head.lines > lines {
        format!(
            "the ledger has {lines} lines, and had {} when its head was noted elsewhere: its end \
             was cut, or an older copy was put back",
            head.lines
        )
    } else {
        format!(
            "the ledger's line {} is another than the head that was noted elsewhere: its history \
             was written anew",
            head.lines.saturating_sub(1)
        )
    }
}
