//! Masks what patterns find, in a text that is whole or comes in chunks.
//!
//! However a text is cut into chunks, what comes out is the same. A scanner holds back only what
//! could be the beginning of something that it would mask: the end of a chunk from the first byte
//! on from which a pattern could match on past the end, and no more than the longest match.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::action::Action;
use super::pattern::{BEHIND, Candidate, Partial, Pattern};

/// The key of hashes, known to the gateway alone.
#[derive(Clone)]
pub struct HashKey(Zeroizing<[u8; 32]>);

impl HashKey {
    /// Takes over a key.
    pub fn new(key: [u8; 32]) -> Self {
        Self(Zeroizing::new(key))
    }

    /// The keyed hash of a value.
    pub(super) fn hash(&self, value: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, value)
    }

    /// The key of tokens.
    pub(super) fn of_tokens(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.0.as_slice())
    }

    /// The form that a hash takes: letters only, so no pattern finds something in it.
    pub(super) fn form(hash: &blake3::Hash) -> impl Iterator<Item = u8> {
        let bytes = hash.as_bytes().iter().take(HASH_LETTERS / 2);
        bytes.flat_map(|byte| [b'a' + (byte >> 4), b'a' + (byte & 15)])
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// 96 bits: two values of one mask share a hash only by a chance that nobody meets.
const HASH_LETTERS: usize = 24;
/// How far the expressions look around a match: one character.
const CONTEXT: usize = 4;
/// What later matches see in place of a secret: the end of its mask.
pub(super) const MASK_END: u8 = b']';

/// Whether a text is one that masking wrote.
pub(super) fn is_mask(text: &[u8]) -> bool {
    let inner = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(&[MASK_END]));
    let Some(inner) = inner else { return false };
    let mut parts = inner.split(|byte| *byte == b':');
    let named = |name: &[u8]| Pattern::names().any(|known| known.as_bytes() == name);
    let hash = |hash: &[u8]| {
        hash.len() == HASH_LETTERS && hash.iter().all(|letter| (b'a'..=b'p').contains(letter))
    };
    parts.next().is_some_and(named) && parts.next().is_none_or(hash) && parts.next().is_none()
}

/// Patterns, and what to put in place of what each finds.
#[derive(Debug)]
pub struct Masker {
    patterns: Vec<Pattern>,
    /// What is done with what each of them finds.
    actions: Vec<Action>,
    key: HashKey,
}

impl Masker {
    /// Masks what any of the patterns finds.
    pub fn new(patterns: Vec<Pattern>, action: Action, key: HashKey) -> Self {
        Self { actions: vec![action; patterns.len()], patterns, key }
    }

    /// Masks what any of the patterns finds, each in its own way.
    pub fn of_each(patterns: impl IntoIterator<Item = (Pattern, Action)>, key: HashKey) -> Self {
        let (patterns, actions) = patterns.into_iter().unzip();
        Self { patterns, actions, key }
    }

    /// Whether all patterns are built in: none of them looks for the ends of a text.
    pub(super) fn is_built_in(&self) -> bool {
        self.patterns.iter().all(|pattern| !pattern.own)
    }

    fn action(&self, pattern: usize) -> Action {
        self.actions.get(pattern).copied().unwrap_or(Action::Redact)
    }

    /// Masks a whole text; `None` when nothing is found.
    pub fn mask(self: &Arc<Self>, text: &[u8]) -> Option<Vec<u8>> {
        self.find(text).map(|(masked, _)| masked)
    }

    /// The same, with how many secrets were found.
    pub(super) fn find(self: &Arc<Self>, text: &[u8]) -> Option<(Vec<u8>, u64)> {
        // Most texts hold nothing, and need no copy.
        if self.patterns.iter().all(|pattern| Found::next(pattern, 0, text, 0).is_none()) {
            return None;
        }
        let mut masked = Vec::new();
        let mut scanner = self.scanner();
        scanner.buffer.extend_from_slice(text);
        let found = scanner.finish(&mut masked);
        (found > 0).then_some((masked, found))
    }

    /// Masks a text that comes in chunks.
    pub fn scanner(self: &Arc<Self>) -> Scanner {
        Scanner { masker: Arc::clone(self), buffer: Vec::new(), passed: 0, open: None, found: 0 }
    }

    /// Where to hold back: no match that begins before can become another. Up to `passed` nothing
    /// is held any more.
    fn settled(&self, text: &[u8], passed: usize) -> usize {
        let held = self.patterns.iter().map(|pattern| {
            let most = text.len().saturating_sub(pattern.longest + CONTEXT);
            let run = text.iter().rposition(|byte| !(pattern.inner)(*byte)).map_or(0, |at| at + 1);
            let from = run.max(most).max(passed);
            let grows = pattern.growing.first(text, from, pattern.first);
            grows.unwrap_or(text.len())
        });
        held.min().unwrap_or(text.len())
    }

    /// What stands in a secret's place.
    fn instead(&self, found: &Found, pattern: &Pattern, secret: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let partial = if found.alone { pattern.partial } else { Partial::Nothing };
        match (self.action(found.pattern), partial) {
            (Action::Hash, _) => hashed(pattern, &self.key.hash(secret), &mut out),
            (Action::Partial, Partial::LastFour) => keep(secret, 0, 4, &mut out),
            (Action::Partial, Partial::Ends) => keep(secret, 4, 4, &mut out),
            (Action::Partial, Partial::Domain) => domain(secret, &mut out),
            (Action::Partial, Partial::Nothing)
            | (Action::Redact | Action::Null | Action::Tokenize | Action::Bucket(_), _) => {
                redact(pattern, &mut out);
            }
        }
        out
    }
}

fn redact(pattern: &Pattern, out: &mut Vec<u8>) {
    out.push(b'[');
    out.extend(pattern.name.as_bytes());
    out.push(MASK_END);
}

fn hashed(pattern: &Pattern, hash: &blake3::Hash, out: &mut Vec<u8>) {
    out.push(b'[');
    out.extend(pattern.name.as_bytes());
    out.push(b':');
    out.extend(HashKey::form(hash));
    out.push(MASK_END);
}

/// Leaves the first character of an address, and its domain.
pub(super) fn domain(address: &[u8], out: &mut Vec<u8>) {
    let at = address.iter().rposition(|byte| *byte == b'@').unwrap_or_default();
    let (local, domain) = address.split_at(at);
    out.extend(local.iter().take(1).filter(|byte| byte.is_ascii() && local.len() > 1));
    out.extend(b"***");
    out.extend(domain);
}

/// Leaves some letters and digits at both ends, and whatever separates them.
pub(super) fn keep(secret: &[u8], head: usize, tail: usize, out: &mut Vec<u8>) {
    let count = secret.iter().filter(|byte| byte.is_ascii_alphanumeric()).count();
    let mut at = 0;
    out.extend(secret.iter().map(|byte| {
        if !byte.is_ascii_alphanumeric() {
            return *byte;
        }
        at += 1;
        if at <= head || at > count.saturating_sub(tail) { *byte } else { b'*' }
    }));
}

/// Lets what follows a secret see its mask and nothing of the secret, not half of its last character
/// either.
fn mark_end(buffer: &mut [u8], at: usize) {
    for there in buffer.get_mut(..at).unwrap_or_default().iter_mut().rev() {
        let goes_on = *there & 0xc0 == 0x80;
        *there = MASK_END;
        if !goes_on {
            break;
        }
    }
}

/// A secret that was found.
#[derive(Debug, Clone)]
struct Found {
    pattern: usize,
    /// Where what tells the secret begins: before it, for a password in a URL.
    start: usize,
    secret: Range<usize>,
    /// Nothing that another pattern found is part of it.
    alone: bool,
}

impl Found {
    /// The first of a pattern from `from` on.
    fn next(pattern: &Pattern, index: usize, text: &[u8], from: usize) -> Option<Self> {
        let Some(least) = pattern.digits else { return Self::within(pattern, index, text, from) };
        let mut runs = DigitRuns { text, at: from, least };
        runs.find_map(|run| {
            let part = text.get(..run.end)?;
            let mut at = run.start;
            // No match begins behind a digit.
            while let Some(found) = pattern.regex.find_at(part, at) {
                if let Some(found) = Self::checked(pattern, index, text, found.range()) {
                    return Some(found);
                }
                let digits = part.get(found.start()..)?.iter().skip(1);
                at = found.start() + 1 + digits.take_while(|byte| byte.is_ascii_digit()).count();
            }
            None
        })
    }

    fn within(pattern: &Pattern, index: usize, text: &[u8], from: usize) -> Option<Self> {
        let mut at = from;
        while let Some(found) = text.get(at..).and_then(|_| pattern.regex.find_at(text, at)) {
            if let Some(found) = Self::checked(pattern, index, text, found.range()) {
                return Some(found);
            }
            at = found.start() + 1;
        }
        None
    }

    fn checked(pattern: &Pattern, index: usize, text: &[u8], found: Range<usize>) -> Option<Self> {
        let start = found.start;
        let part = (pattern.check)(&Candidate::of(text, found))?;
        let secret = start + part.start..start + part.end;
        Some(Self { pattern: index, start, secret, alone: true })
    }
}

/// Runs of digits, and of what separates the digits of a number, with so many digits at least: most
/// texts have none, and need no expression then.
struct DigitRuns<'t> {
    text: &'t [u8],
    at: usize,
    least: usize,
}

impl Iterator for DigitRuns<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            let digit = self.at + first_digit(self.text.get(self.at..)?)?;
            let before = self.text.get(self.at..digit)?.iter().rev();
            let start = digit - before.take_while(|byte| matches!(byte, b'+' | b'(')).count();
            let mut digits = 0;
            let run = self.text.get(start..)?.iter().take_while(|byte| {
                digits += usize::from(byte.is_ascii_digit());
                matches!(byte, b'0'..=b'9' | b' ' | b'.' | b'-' | b'(' | b')' | b'/' | b'+')
            });
            self.at = start + run.count();
            if digits >= self.least {
                return Some(start..self.at);
            }
        }
    }
}

/// Where the first digit is. Looks at many bytes at once, as long as none of them is one.
fn first_digit(text: &[u8]) -> Option<usize> {
    const AT_ONCE: usize = 32;
    let holds = |chunk: &&[u8]| chunk.iter().fold(false, |any, byte| any | byte.is_ascii_digit());
    let (at, chunk) = (0..).step_by(AT_ONCE).zip(text.chunks(AT_ONCE)).find(|(_, c)| holds(c))?;
    Some(at + chunk.iter().position(u8::is_ascii_digit)?)
}

/// The next secret of each pattern; looked for again only once it is passed.
struct Upcoming<'m> {
    patterns: &'m [Pattern],
    found: Vec<Option<Found>>,
}

impl<'m> Upcoming<'m> {
    fn new(patterns: &'m [Pattern], text: &[u8], from: usize) -> Self {
        let look = |(index, pattern)| Found::next(pattern, index, text, from);
        Self { patterns, found: patterns.iter().enumerate().map(look).collect() }
    }

    /// Looks again at the places before which something else is now, as far as patterns look.
    fn again(&mut self, text: &[u8], at: usize) {
        for (index, (pattern, known)) in self.patterns.iter().zip(&mut self.found).enumerate() {
            let last = at + pattern.behind;
            let near = text.get(..text.len().min(last + pattern.longest + CONTEXT));
            let found = near.and_then(|near| Found::next(pattern, index, near, at));
            if let Some(found) = found.filter(|found| found.start <= last) {
                *known = Some(found);
            } else if known.as_ref().is_some_and(|known| (at..=last).contains(&known.start)) {
                *known = Found::next(pattern, index, text, last + 1);
            }
        }
    }

    /// The first from `from` on, with all that overlap it: each pattern's secrets are masked,
    /// whatever another finds at the same place.
    fn first(&mut self, text: &[u8], from: usize) -> Option<Found> {
        self.look(text, from);
        let found = self.found.iter().flatten();
        let order = |found: &&Found| (found.secret.start, usize::MAX - found.secret.end);
        let mut first = found.min_by_key(order).cloned()?;
        loop {
            let Found { secret, .. } = &first;
            let overlaps = |f: &&Found| f.secret.start < secret.end && f.secret.end > secret.end;
            let Some(other) = self.found.iter().flatten().find(overlaps).cloned() else {
                return Some(first);
            };
            first.secret.end = other.secret.end;
            first.alone = false;
            if self.patterns.get(other.pattern).is_some_and(|pattern| pattern.tail.is_some()) {
                first.pattern = other.pattern;
            }
        }
    }

    fn look(&mut self, text: &[u8], from: usize) {
        for (index, (pattern, found)) in self.patterns.iter().zip(&mut self.found).enumerate() {
            if found.as_ref().is_some_and(|found| found.secret.start < from) {
                *found = Found::next(pattern, index, text, from);
            }
        }
    }
}

/// Where a scanner gives what it is done with, in order.
pub(super) trait Sink {
    /// Bytes of the text.
    fn pass(&mut self, text: &[u8]);
    /// So many bytes of the text do not pass.
    fn skip(&mut self, length: usize);
    /// This stands in their place.
    fn put(&mut self, mask: &[u8]);
}

impl Sink for Vec<u8> {
    fn pass(&mut self, text: &[u8]) {
        self.extend_from_slice(text);
    }

    fn skip(&mut self, _length: usize) {}

    fn put(&mut self, mask: &[u8]) {
        self.extend_from_slice(mask);
    }
}

/// Masks a text that comes in chunks.
#[derive(Debug)]
pub struct Scanner {
    masker: Arc<Masker>,
    /// The last bytes that passed, for what stands before a match, and the bytes held back.
    buffer: Vec<u8>,
    /// How many of the buffer have passed.
    passed: usize,
    /// A secret that goes on for as long as its bytes do.
    open: Option<Open>,
    found: u64,
}

#[derive(Debug)]
struct Open {
    pattern: usize,
    goes_on: fn(u8) -> bool,
    hasher: blake3::Hasher,
}

impl Scanner {
    /// Takes the next chunk, and gives what can be given of it.
    pub fn push(&mut self, chunk: &[u8], out: &mut Vec<u8>) {
        self.push_into(chunk, out);
    }

    pub(super) fn push_into(&mut self, chunk: &[u8], out: &mut impl Sink) {
        self.buffer.extend_from_slice(chunk);
        let settled = self.masker.settled(&self.buffer, self.passed);
        self.pass(settled, false, out);
    }

    /// Gives what is held back, whatever it could have become; the text goes on.
    pub(super) fn give_up(&mut self, out: &mut impl Sink) {
        self.pass(self.buffer.len(), false, out);
    }

    /// Gives the rest, and how many secrets were found.
    pub fn finish(mut self, out: &mut Vec<u8>) -> u64 {
        self.finish_into(out)
    }

    /// How many secrets were found so far.
    pub(super) fn found(&self) -> u64 {
        self.found
    }

    /// Gives the rest, and how many secrets were found since the beginning or since this was last
    /// called. Another text may follow.
    pub(super) fn finish_into(&mut self, out: &mut impl Sink) -> u64 {
        self.pass(self.buffer.len(), true, out);
        self.buffer.clear();
        self.passed = 0;
        std::mem::take(&mut self.found)
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.buffer.len() - self.passed
    }

    fn pass(&mut self, mut settled: usize, last: bool, out: &mut impl Sink) {
        let masker = Arc::clone(&self.masker);
        let mut buffer = std::mem::take(&mut self.buffer);
        let was_open = self.open.is_some();
        let mut at = self.end_open(&buffer, self.passed, last, out);
        if self.open.is_none() {
            if was_open {
                mark_end(&mut buffer, at);
            }
            let mut upcoming = Upcoming::new(&masker.patterns, &buffer, at);
            while let Some(found) = upcoming.first(&buffer, at).filter(|f| f.start < settled) {
                if found.secret.end > settled {
                    // More could turn up that overlaps it.
                    settled = found.start;
                    break;
                }
                at = self.take(&masker, &found, &buffer, at, out);
                at = self.end_open(&buffer, at, last, out);
                if self.open.is_some() {
                    break;
                }
                mark_end(&mut buffer, at);
                upcoming.again(&buffer, at);
            }
        }
        if self.open.is_none() && settled > at {
            out.pass(buffer.get(at..settled).unwrap_or_default());
            at = settled;
        }
        let kept = at.saturating_sub(BEHIND);
        self.passed = at - kept;
        self.buffer = buffer;
        self.buffer.drain(..kept);
    }

    /// Gives what stands before a secret and masks it; says how far that went.
    fn take(
        &mut self,
        masker: &Masker,
        found: &Found,
        buffer: &[u8],
        at: usize,
        out: &mut impl Sink,
    ) -> usize {
        out.pass(buffer.get(at..found.secret.start).unwrap_or_default());
        let secret = buffer.get(found.secret.clone()).unwrap_or_default();
        out.skip(secret.len());
        self.found += 1;
        if let Some(pattern) = masker.patterns.get(found.pattern) {
            match pattern.tail {
                None => out.put(&masker.instead(found, pattern, secret)),
                Some(goes_on) => {
                    let mut hasher = blake3::Hasher::new_keyed(&masker.key.0);
                    hasher.update(secret);
                    self.open = Some(Open { pattern: found.pattern, goes_on, hasher });
                }
            }
        }
        found.secret.end
    }

    /// Swallows what goes on of an open secret, and puts its mask where it ends.
    fn end_open(&mut self, buffer: &[u8], at: usize, last: bool, out: &mut impl Sink) -> usize {
        let Some(mut open) = self.open.take() else { return at };
        let rest = buffer.get(at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !(open.goes_on)(*byte)).unwrap_or(rest.len());
        open.hasher.update(rest.get(..length).unwrap_or_default());
        out.skip(length);
        if length == rest.len() && !last {
            self.open = Some(open);
        } else if let Some(pattern) = self.masker.patterns.get(open.pattern) {
            let mut mask = Vec::new();
            match self.masker.action(open.pattern) {
                Action::Hash => hashed(pattern, &open.hasher.finalize(), &mut mask),
                _ => redact(pattern, &mut mask),
            }
            out.put(&mask);
        }
        at + length
    }
}

#[cfg(test)]
mod tests;
