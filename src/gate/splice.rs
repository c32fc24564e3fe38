//! Which of the bytes of a batch pass.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// The bytes that will pass: a piece of the source while that is enough, a copy when not.
#[derive(Debug)]
pub(super) struct Passing {
    pub(super) source: Bytes,
    piece: Range<usize>,
    copy: Option<BytesMut>,
    /// How much of it passes whatever is held behind it.
    step: usize,
}

impl Passing {
    pub(super) fn of(source: Bytes) -> Self {
        Self { source, piece: 0..0, copy: None, step: 0 }
    }

    pub(super) fn step(&mut self) {
        self.step = self.copy.as_ref().map_or(self.piece.len(), BytesMut::len);
    }

    /// Takes back what was told since the last step.
    pub(super) fn take_step(&mut self) -> Bytes {
        match &mut self.copy {
            Some(copy) => copy.split_off(self.step.min(copy.len())).freeze(),
            None => {
                let at = self.piece.start + self.step.min(self.piece.len());
                let taken = self.source.slice(at..self.piece.end);
                self.piece.end = at;
                taken
            }
        }
    }

    /// The exact bytes of a command.
    pub(super) fn exact(&self, range: Range<usize>) -> Bytes {
        let there = self.source.get(range.clone()).is_some();
        if there { self.source.slice(range) } else { Bytes::new() }
    }

    pub(super) fn pass(&mut self, range: Range<usize>) {
        if self.copy.is_none() && (self.piece.is_empty() || self.piece.end == range.start) {
            let start = if self.piece.is_empty() { range.start } else { self.piece.start };
            self.piece = start..range.end;
        } else {
            let source = self.source.clone();
            self.push(source.get(range).unwrap_or_default());
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let piece = self.source.get(self.piece.clone()).unwrap_or_default();
        self.copy.get_or_insert_with(|| BytesMut::from(piece)).extend_from_slice(bytes);
    }

    pub(super) fn finish(self) -> Bytes {
        match self.copy {
            Some(copy) => copy.freeze(),
            None if self.piece.len() == self.source.len() => self.source,
            None => self.source.slice(self.piece),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_piece_by_piece() {
        let source = Bytes::from_static(b"aabbcc");
        let mut whole = Passing::of(source.clone());
        whole.pass(0..2);
        whole.pass(2..6);
        assert_eq!(whole.finish().as_ptr(), source.as_ptr(), "nothing is copied");

        let mut refused = Passing::of(source.clone());
        refused.pass(0..2);
        refused.push(b"XX");
        refused.pass(4..6);
        assert_eq!(refused.finish(), "aaXXcc");

        let mut gap = Passing::of(source.clone());
        gap.pass(0..2);
        gap.pass(4..6);
        assert_eq!(gap.finish(), "aacc");
        assert_eq!(Passing::of(source).finish(), "", "what is not told does not pass");
    }

    #[test]
    fn what_is_told_behind_a_step_waits_with_the_command_that_is_held() {
        let source = Bytes::from_static(b"aabbcc");
        for copied in [false, true] {
            let mut passing = Passing::of(source.clone());
            passing.pass(0..2);
            if copied {
                passing.push(b"XX");
            }
            passing.step();
            passing.pass(2..4);
            assert_eq!(passing.take_step(), "bb");
            assert_eq!(passing.exact(4..6), "cc");
            assert_eq!(passing.finish(), if copied { "aaXX" } else { "aa" });
        }
        let mut all = Passing::of(source);
        all.pass(0..4);
        assert_eq!(all.take_step(), "aabb");
        assert_eq!(all.finish(), "");
    }
}
