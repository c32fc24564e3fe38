//! The server's messages on their way down: sorted by the command that they answer, and rewritten
//! where the client, or what is stored, must not have them as they are.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::mask::Masked;
use crate::recording::{Outcome, Sequence};

use super::replies::Answered;

/// What is recorded of the server's messages; ranges are of the bytes that are stored.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Data(Range<usize>, Option<Sequence>),
    Ended(Sequence, Outcome),
}

/// Messages sorted and rewritten, in their order.
#[derive(Debug)]
pub(super) struct Answers {
    events: Vec<Answer>,
    rewriting: Rewriting,
    /// Where the run of messages that answer one command began, in what is stored.
    run: usize,
    of: Option<Sequence>,
}

impl Answers {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { events: Vec::new(), rewriting: Rewriting::new(bytes), run: 0, of: None }
    }

    /// Bytes that answer a command, or none, as they are.
    pub(super) fn data(&mut self, range: Range<usize>, of: Option<Sequence>) {
        self.belongs(of);
        self.rewriting.keep(range);
    }

    /// The same with something else in their place.
    pub(super) fn data_instead(
        &mut self,
        range: Range<usize>,
        of: Option<Sequence>,
        masked: &Masked,
    ) {
        self.belongs(of);
        self.rewriting.replace(range, masked);
    }

    /// The same with something else in their place, written at once.
    pub(super) fn data_written<E>(
        &mut self,
        range: Range<usize>,
        of: Option<Sequence>,
        shown: impl FnMut(&[u8], &mut BytesMut) -> Result<(), E>,
        stored: Option<impl FnMut(&[u8], &mut BytesMut) -> Result<(), E>>,
    ) -> Result<(), E> {
        self.belongs(of);
        self.rewriting.write(range, shown, stored)
    }

    /// A whole message that was held against the queue.
    pub(super) fn message(
        &mut self,
        range: Range<usize>,
        answered: Answered,
        masked: Option<&Masked>,
    ) {
        let Answered { of, ended, instead } = answered;
        self.belongs(of);
        match (&instead, masked) {
            (Some(words), _) => {
                let (shown, stored) = (words.as_bytes().clone(), words.stored().clone());
                self.rewriting.replace(range, &Masked::by_value(shown, stored));
            }
            (None, Some(masked)) => self.rewriting.replace(range, masked),
            (None, None) => self.rewriting.keep(range),
        }
        if !ended.is_empty() {
            self.end_run();
            self.events.extend(ended.into_iter().map(|(of, outcome)| Answer::Ended(of, outcome)));
        }
    }

    /// The bytes for both pairs of eyes, and the events that tell of them.
    pub(super) fn finish(mut self) -> (Masked, Vec<Answer>) {
        self.end_run();
        (self.rewriting.finish(), self.events)
    }

    fn belongs(&mut self, of: Option<Sequence>) {
        if of.is_some() && self.of.is_some() && of != self.of {
            self.end_run();
        }
        self.of = of.or(self.of);
    }

    fn end_run(&mut self) {
        let end = self.rewriting.stored();
        let run = std::mem::replace(&mut self.run, end)..end;
        let of = self.of.take();
        if !run.is_empty() {
            self.events.push(Answer::Data(run, of));
        }
    }
}

/// Bytes that mostly pass as they are: they are copied from the first change on, and twice from
/// where what is stored is not what is shown.
#[derive(Debug)]
struct Rewriting {
    source: Bytes,
    /// Up to where the source was copied, and up to where it is kept.
    copied: usize,
    kept: usize,
    shown: BytesMut,
    stored: Option<BytesMut>,
    changed: bool,
}

impl Rewriting {
    fn new(source: Bytes) -> Self {
        let (shown, stored) = (BytesMut::new(), None);
        Self { source, copied: 0, kept: 0, shown, stored, changed: false }
    }

    /// How many bytes are stored so far.
    fn stored(&self) -> usize {
        self.stored.as_ref().unwrap_or(&self.shown).len() + self.kept - self.copied
    }

    fn keep(&mut self, range: Range<usize>) {
        self.kept = range.end;
    }

    fn replace(&mut self, range: Range<usize>, masked: &Masked) {
        self.begin(&range);
        let same = masked.shown().as_ptr() == masked.stored().as_ptr()
            && masked.shown().len() == masked.stored().len();
        if !same {
            self.part();
        }
        self.shown.extend_from_slice(masked.shown());
        if let Some(stored) = &mut self.stored {
            stored.extend_from_slice(masked.stored());
        }
    }

    fn write<E>(
        &mut self,
        range: Range<usize>,
        mut shown: impl FnMut(&[u8], &mut BytesMut) -> Result<(), E>,
        stored: Option<impl FnMut(&[u8], &mut BytesMut) -> Result<(), E>>,
    ) -> Result<(), E> {
        self.begin(&range);
        if stored.is_some() {
            self.part();
        }
        let source = self.source.clone();
        let bytes = source.get(range).unwrap_or_default();
        let start = self.shown.len();
        shown(bytes, &mut self.shown)?;
        match (&mut self.stored, stored) {
            (Some(out), Some(mut stored)) => stored(bytes, out)?,
            (Some(out), None) => {
                out.extend_from_slice(self.shown.get(start..).unwrap_or_default());
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// Copies what stands before a change.
    fn begin(&mut self, range: &Range<usize>) {
        self.changed = true;
        let before = self.source.get(self.copied..self.kept).unwrap_or_default();
        self.shown.extend_from_slice(before);
        if let Some(stored) = &mut self.stored {
            stored.extend_from_slice(before);
        }
        (self.copied, self.kept) = (range.end, range.end);
    }

    /// From here on what is stored goes its own way.
    fn part(&mut self) {
        if self.stored.is_none() {
            self.stored = Some(self.shown.clone());
        }
    }

    fn finish(mut self) -> Masked {
        if !self.changed {
            let kept = self.source.slice(..self.kept);
            return Masked::by_value(kept.clone(), kept);
        }
        let end = self.kept..self.kept;
        self.begin(&end);
        let shown = self.shown.freeze();
        let stored = self.stored.map_or_else(|| shown.clone(), BytesMut::freeze);
        Masked::by_value(shown, stored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(shown: &'static str, stored: &'static str) -> Masked {
        Masked::by_value(shown.into(), stored.into())
    }

    #[test]
    fn what_is_not_changed_is_not_copied() {
        let source = Bytes::from_static(b"aabbcc");
        let mut answers = Answers::new(source.clone());
        answers.data(0..2, Some(1));
        answers.data(2..6, Some(2));
        let (passed, events) = answers.finish();
        assert_eq!(passed.shown().as_ptr(), source.as_ptr());
        assert_eq!(events, [Answer::Data(0..2, Some(1)), Answer::Data(2..6, Some(2))]);
    }

    #[test]
    fn both_pairs_of_eyes_get_their_own() {
        let mut answers = Answers::new(Bytes::from_static(b"aabbccdd"));
        answers.data(0..2, Some(1));
        let same = Bytes::from_static(b"x");
        answers.data_instead(2..4, Some(1), &Masked::by_value(same.clone(), same));
        answers.data_instead(4..6, Some(2), &masked("cc", "masked"));
        answers.data(6..8, None);
        let (passed, events) = answers.finish();
        assert_eq!(
            (&passed.shown()[..], &passed.stored()[..]),
            (&b"aaxccdd"[..], &b"aaxmaskeddd"[..])
        );
        assert_eq!(events, [Answer::Data(0..3, Some(1)), Answer::Data(3..11, Some(2))]);
    }
}
