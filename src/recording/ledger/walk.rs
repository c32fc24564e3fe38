//! Reading a ledger from its first line to its last, and proving that it is what was written.
//!
//! Every line names the hash of the line before, so a signature on one line stands for all before
//! it. Looked at are the signatures of the last line that each key signed; the chain does the rest.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use super::line::{Entry, Line, MAX_LINE, NO_LINE_BEFORE};
use crate::recording::format::signing::{PublicKey, Purpose};

const NOT_ITS_KEYS: &str = "its signature is not its key's";
/// How lines end that were written before lines were signed.
const UNSIGNED: &[u8] = b",\"signature\":null}";

/// A ledger could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(in crate::recording) enum LedgerError {
    /// The operating system could not read or write it.
    #[error("cannot use the ledger: {0}")]
    Io(#[from] io::Error),
    /// A line is not what was written.
    #[error("the ledger's line {0} was changed, or one before it was taken out: {1}")]
    Line(u64, &'static str),
    /// The key that should sign is not the ledger's.
    #[error("[recording] signing_key: {0}")]
    Key(String),
}

/// A key that signed lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recording) struct Reign {
    pub(in crate::recording) key: PublicKey,
    /// Whether the key before it signed for it; false of the first key, and where the one before
    /// was lost.
    pub(in crate::recording) handed_over: bool,
}

/// Where a ledger ends.
#[derive(Debug, Default)]
pub(in crate::recording) struct End {
    /// Whole lines.
    pub(in crate::recording) lines: u64,
    /// The hash of the last one.
    pub(in crate::recording) head: String,
    /// Their bytes.
    pub(super) len: u64,
    /// Bytes behind them that are no whole line.
    pub(in crate::recording) torn: u64,
    /// The keys that signed, in their order.
    pub(in crate::recording) reigns: Vec<Reign>,
}

/// Walks over the lines and gives each with its hash to `see`.
///
/// # Errors
/// Names the first line that is not what was written. A last line without its newline is what a
/// crash leaves, and not looked at.
pub(in crate::recording) fn walk(
    file: &File,
    mut see: impl FnMut(&Line, &str),
) -> Result<End, LedgerError> {
    let mut reader = BufReader::new(file);
    let mut end = End { head: NO_LINE_BEFORE.to_owned(), ..End::default() };
    let (mut bytes, mut last) = (Vec::new(), Vec::new());
    loop {
        std::mem::swap(&mut bytes, &mut last);
        bytes.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)? as u64;
        let Some(text) = bytes.strip_suffix(b"\n") else {
            if read == MAX_LINE {
                return Err(LedgerError::Line(end.lines, "it is too long"));
            }
            end.torn = read;
            end.is_signed(&last)?;
            return Ok(end);
        };
        let line: Line = serde_json::from_slice(text)
            .map_err(|_| LedgerError::Line(end.lines, "it is not a ledger's line"))?;
        if line.n != end.lines {
            return Err(LedgerError::Line(end.lines, "its number is another"));
        }
        if line.prev != end.head {
            return Err(LedgerError::Line(end.lines, "it does not follow the line before"));
        }
        end.take_key(&line, text, &last)?;
        end.head = blake3::hash(text).to_hex().to_string();
        see(&line, &end.head);
        end.lines += 1;
        end.len += read;
    }
}

impl End {
    /// Holds the last line that the current key signed against that key.
    fn is_signed(&self, last: &[u8]) -> Result<(), LedgerError> {
        let Some(reign) = self.reigns.last() else { return Ok(()) };
        let text = last.strip_suffix(b"\n").unwrap_or(last);
        // A line that names a key was looked at when it was read.
        if is_key(text) || reign.key.signed(Purpose::LedgerLine, text) {
            return Ok(());
        }
        Err(LedgerError::Line(self.lines.saturating_sub(1), NOT_ITS_KEYS))
    }

    fn take_key(&mut self, line: &Line, text: &[u8], last: &[u8]) -> Result<(), LedgerError> {
        let wrong = |what| Err(LedgerError::Line(line.n, what));
        let signed_by = |key: &PublicKey| key.signed(Purpose::LedgerLine, text);
        let begins = matches!(line.entry, Entry::Ledger { format: 1, .. });
        if begins != (line.n == 0) {
            return wrong("a ledger begins once, with its first line");
        }
        match (&line.entry, self.reigns.last()) {
            (Entry::Ledger { key: Some(key), .. } | Entry::Key { key }, None) => {
                if !signed_by(key) {
                    return wrong(NOT_ITS_KEYS);
                }
                self.reigns.push(Reign { key: *key, handed_over: false });
            }
            (Entry::Key { key }, Some(before)) => {
                let handed_over = signed_by(&before.key);
                if !handed_over && !signed_by(key) {
                    return wrong(NOT_ITS_KEYS);
                }
                self.is_signed(last)?;
                self.reigns.push(Reign { key: *key, handed_over });
            }
            (_, None) if !text.ends_with(UNSIGNED) => {
                return wrong("it is signed, and no key was named");
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether the last line's key is one of these, or came from one of these hand to hand; then
    /// the whole ledger is what that key's owner wrote.
    pub(in crate::recording) fn trusted(&self, keys: &[PublicKey]) -> bool {
        let mut trusted = false;
        for reign in &self.reigns {
            trusted = keys.contains(&reign.key) || trusted && reign.handed_over;
        }
        trusted
    }
}

fn is_key(text: &[u8]) -> bool {
    serde_json::from_slice::<Line>(text).is_ok_and(|line| matches!(line.entry, Entry::Key { .. }))
}
