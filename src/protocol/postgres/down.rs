//! One run of the server's messages, held against the queue of expected replies and masked.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::clock::Moment;
use crate::decode::postgres::frame::Piece;
use crate::decode::postgres::{Malformed, TOO_LARGE_TO_MASK, backend};
use crate::decode::sql::is_utf8;
use crate::mask::{Counts, Masked};
use crate::recording::Sequence;

use super::backend_reader::Answers;
use super::end::End;
use super::masking::{Judgement, Masking, MasksNow, RowMasks, hide, placed};
use super::replies::{Producer, Replies};

/// Tag and length of a message, in bytes.
const HEADER: usize = 5;

/// What the server's messages are held against.
pub(super) struct Down<'d> {
    pub(super) replies: &'d mut Replies,
    pub(super) answers: &'d mut Answers,
    pub(super) masking: &'d Masking,
    /// `None` where nothing is masked.
    pub(super) masks: Option<&'d MasksNow>,
    pub(super) now: Moment,
}

impl Down<'_> {
    /// Takes a message, or a piece of one.
    pub(super) fn piece(
        &mut self,
        piece: &Piece,
        range: Range<usize>,
        bytes: &[u8],
    ) -> Result<(), End> {
        if matches!(piece.tag, b'D' | b'd') {
            if piece.first {
                self.replies.takes_data(piece.tag).map_err(End::of)?;
            }
            let of = if piece.first { self.replies.front() } else { None };
            if piece.tag == b'd' && self.copied_rows(piece, range.clone(), bytes)? {
                return Ok(());
            }
            return match self.masks {
                None if self.replies.reveals() => self.unstored(piece, range, of),
                None => {
                    self.answers.data(range, of);
                    Ok(())
                }
                Some(_) if !piece.is_whole() => Err(End::TargetMalformed(TOO_LARGE_TO_MASK)),
                Some(_) if piece.tag == b'D' => self.row(range),
                Some(masks) => self.copied(masks, range, bytes),
            };
        }
        check(piece.tag, bytes)?;
        self.replies.fits_now(bytes).map_err(End::of)?;
        let masked = match (self.masks, piece.tag) {
            (Some(masks), b'E' | b'N') => {
                let judged = self.judged(masks);
                let masked = masks.report(bytes, judged.as_ref()).map_err(End::TargetMalformed)?;
                self.placed(bytes, masked).map_err(End::TargetMalformed)?
            }
            (Some(masks), b'A') => masks.notification(bytes).map_err(End::TargetMalformed)?,
            (Some(masks), b'S') => {
                let at_start = |name: &str| self.replies.told_at_start(name);
                masks.parameter(bytes, at_start).map_err(End::TargetMalformed)?
            }
            (Some(masks), b'T' | b'n') => {
                self.described(masks, piece.tag, bytes)?;
                None
            }
            (Some(masks), b'H') => {
                self.copy_began(masks, bytes)?;
                None
            }
            (_, b'c') => {
                let whole = self.replies.copy().map_or(Ok(()), |copy| copy.finish());
                whole.map_err(End::TargetMalformed)?;
                None
            }
            _ => None,
        };
        // What is remembered of an error is what is stored of it.
        let stored = masked.as_ref().map_or(bytes, |masked| masked.stored());
        let answered = self.replies.answer(bytes, stored, self.now).map_err(End::of)?;
        self.answers.message(range, answered, masked.as_ref());
        Ok(())
    }

    /// A row, or a piece of one, that only the client gets.
    fn unstored(
        &mut self,
        piece: &Piece,
        range: Range<usize>,
        of: Option<Sequence>,
    ) -> Result<(), End> {
        let is_row = piece.tag == b'D' && piece.is_whole();
        let shown = |bytes: &[u8], out: &mut BytesMut| {
            out.extend_from_slice(bytes);
            Ok(())
        };
        let stored =
            |bytes: &[u8], out: &mut BytesMut| if is_row { hide(bytes, out) } else { Ok(()) };
        self.answers.data_written(range, of, shown, Some(stored)).map_err(End::TargetMalformed)
    }

    /// What is masked, to be stored or not.
    fn kept(&self, masked: Masked) -> Masked {
        match self.replies.reveals() {
            true => Masked::by_value(masked.into_shown(), Bytes::new()),
            false => masked,
        }
    }

    /// A row, value by value.
    fn row(&mut self, range: Range<usize>) -> Result<(), End> {
        let of = self.replies.front();
        let reveals = self.replies.reveals();
        let Some(rows) = self.replies.result() else {
            let hidden = |row: &[u8], out: &mut BytesMut| hide(row, out);
            let stored = None::<fn(&[u8], &mut BytesMut) -> Result<(), Malformed>>;
            return self
                .answers
                .data_written(range, of, hidden, stored)
                .map_err(End::TargetMalformed);
        };
        if rows.is_plain() && !reveals {
            self.answers.data(range, of);
            return Ok(());
        }
        let (mut counts, mut unseen) = (Counts::new(), Counts::new());
        let same = rows.same() && !reveals;
        let shown = |row: &[u8], out: &mut BytesMut| {
            rows.show(row, out, if same { &mut counts } else { &mut unseen })
        };
        let mut stored_counts = Counts::new();
        let stored = (!same).then_some(|row: &[u8], out: &mut BytesMut| match reveals {
            true => hide(row, out),
            false => rows.store(row, out, &mut stored_counts),
        });
        let written = self.answers.data_written(range, of, shown, stored);
        written.map_err(End::TargetMalformed)?;
        self.replies.masked(if same { counts } else { stored_counts });
        Ok(())
    }

    /// COPY data whose rows are masked; says whether they are. They go on so to their end, however
    /// they are cut and whatever becomes of the masks meanwhile.
    fn copied_rows(
        &mut self,
        piece: &Piece,
        range: Range<usize>,
        bytes: &[u8],
    ) -> Result<bool, End> {
        let of = self.replies.front();
        let Some(copy) = self.replies.copy() else { return Ok(false) };
        let data = if piece.first { bytes.get(HEADER..).unwrap_or_default() } else { bytes };
        let mut counts = Counts::new();
        let masked = copy.take(data, &mut counts).map_err(End::TargetMalformed)?;
        let masked = self.kept(masked);
        self.answers.data_instead(range, of, &masked);
        self.replies.masked(counts);
        Ok(true)
    }

    /// The server says that COPY data come.
    fn copy_began(&mut self, masks: &MasksNow, bytes: &[u8]) -> Result<(), End> {
        let response = backend::copy_out_response(bytes).map_err(End::TargetMalformed)?;
        let producer = self.replies.producer();
        let source = match &producer {
            Producer::Statement(source, _) => Some(source),
            Producer::Nobody | Producer::Unknown => None,
        };
        let copy = masks.copies(&response, source, &masks.judge(source));
        self.replies.copies(copy.map_err(End::TargetMalformed)?);
        Ok(())
    }

    fn copied(&mut self, masks: &MasksNow, range: Range<usize>, bytes: &[u8]) -> Result<(), End> {
        let of = self.replies.front();
        let judged = self.judged(masks).unwrap_or_else(|| masks.judge(None));
        let masked = masks.copied(bytes, &judged).map_err(End::TargetMalformed)?;
        let reveals = || {
            let whole = Bytes::copy_from_slice(bytes);
            self.replies.reveals().then(|| Masked::by_value(whole.clone(), whole))
        };
        match masked.or_else(reveals).map(|masked| self.kept(masked)) {
            Some(masked) => self.answers.data_instead(range, of, &masked),
            None => self.answers.data(range, of),
        }
        Ok(())
    }

    /// The server says which columns come, or that none do.
    fn described(&mut self, masks: &MasksNow, tag: u8, bytes: &[u8]) -> Result<(), End> {
        let rows = match tag {
            b'T' => {
                let producer = self.replies.producer();
                let source = match &producer {
                    Producer::Statement(source, _) => Some(source),
                    Producer::Nobody | Producer::Unknown => None,
                };
                self.masking.rows(masks, bytes, source).map_err(End::TargetMalformed)?
            }
            _ => Some(Arc::new(RowMasks::undescribed())),
        };
        self.replies.describe(rows);
        Ok(())
    }

    /// An error or a notice whose position is in the client's text, where another went up.
    fn placed(&self, bytes: &[u8], masked: Option<Masked>) -> Result<Option<Masked>, Malformed> {
        let Producer::Statement(source, _) = self.replies.producer() else { return Ok(masked) };
        let reading = source.reading();
        let Some(sent) = reading.sent() else { return Ok(masked) };
        let position = |at| sent.position(reading.text(), at);
        let (shown, stored) = match &masked {
            Some(masked) => (masked.shown(), masked.stored()),
            None => {
                let whole = placed(bytes, position)?;
                return Ok(Some(Masked::by_value(whole.clone(), whole)));
            }
        };
        Ok(Some(Masked::by_value(placed(shown, position)?, placed(stored, position)?)))
    }

    /// What an error, a notice or a row may be about; `None` when the server speaks by itself.
    fn judged(&self, masks: &MasksNow) -> Option<Judgement> {
        match self.replies.producer() {
            Producer::Nobody => None,
            Producer::Unknown => Some(masks.judge(None)),
            Producer::Statement(source, _) => Some(masks.judge_with_text(&source)),
        }
    }
}

/// Refuses messages of unknown kind, and an encoding that the request view could not read.
fn check(tag: u8, message: &[u8]) -> Result<(), End> {
    if !backend::is_known(tag) {
        return Err(End::TargetMalformed(Malformed("a message is of unknown kind")));
    }
    if tag == b'S' {
        let (name, value) = backend::parameter_status(message).map_err(End::TargetMalformed)?;
        // A client that sets UNICODE is told UNICODE.
        if name == "client_encoding" && !is_utf8(value) {
            return Err(End::Encoding(value.chars().take(63).collect()));
        }
    }
    Ok(())
}
