//! Server-sent events, masked one by one: the data of an event is JSON or text, over however many
//! lines it comes. Pieces of one text in several events are masked joined ([`Deltas`]).
//!
//! Source: WHATWG HTML, section "Server-sent events". An event goes on once its empty line came.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::deltas::Deltas;
use super::json::{NotMasked, document};
use super::plain_text::plain_text;
use super::plan::{MaskPlan, Masked};

/// The largest event, in bytes: it is looked at whole.
const MAX_EVENT: usize = 1 << 20;

/// Masks events that come in chunks.
#[derive(Debug)]
pub struct Events {
    plan: Arc<MaskPlan>,
    deltas: Deltas,
    /// The lines of an event that has not ended, and how far ends of lines were looked for.
    buffer: BytesMut,
    looked: usize,
    line_began: usize,
}

impl Events {
    /// At the beginning of a stream.
    pub fn new(plan: &Arc<MaskPlan>) -> Self {
        let (plan, deltas) = (Arc::clone(plan), Deltas::new(plan));
        Self { plan, deltas, buffer: BytesMut::new(), looked: 0, line_began: 0 }
    }

    /// Takes the next chunk, and gives the events that are whole.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Masked, NotMasked> {
        let mut passed = Masked::default();
        self.buffer.extend_from_slice(chunk);
        while let Some(end) = self.end_of_event(false) {
            let event = self.buffer.split_to(end).freeze();
            (self.looked, self.line_began) = (0, 0);
            passed = passed.joined(&self.masked(&event)?);
        }
        match self.buffer.len() <= MAX_EVENT {
            true => Ok(passed),
            false => Err(NotMasked::TooLarge),
        }
    }

    /// Gives what is left: clients drop an event that has not ended, but not all of them.
    pub fn finish(&mut self) -> Result<Masked, NotMasked> {
        let mut passed = Masked::default();
        if let Some(end) = self.end_of_event(true) {
            let event = self.buffer.split_to(end).freeze();
            passed = self.masked(&event)?;
        }
        let rest = std::mem::take(&mut self.buffer).freeze();
        (self.looked, self.line_began) = (0, 0);
        if !rest.is_empty() {
            passed = passed.joined(&self.masked(&rest)?);
        }
        Ok(passed.joined(&self.deltas.finish()))
    }

    /// Where the event in front ends, behind its empty line. A carriage return at the end of what
    /// is there may belong to a line feed that comes, unless it is the `last` byte.
    fn end_of_event(&mut self, last: bool) -> Option<usize> {
        while let Some(byte) = self.buffer.get(self.looked).copied() {
            let next = self.buffer.get(self.looked + 1).copied();
            let end = match (byte, next) {
                (b'\r', Some(b'\n')) => self.looked + 2,
                (b'\r', None) if !last => return None,
                (b'\r' | b'\n', _) => self.looked + 1,
                _ => {
                    self.looked += 1;
                    continue;
                }
            };
            let empty = self.looked == self.line_began;
            (self.looked, self.line_began) = (end, end);
            if empty {
                return Some(end);
            }
        }
        None
    }

    /// Masks one event, and gives those that need not wait for what follows.
    fn masked(&mut self, event: &Bytes) -> Result<Masked, NotMasked> {
        let mut lines = Vec::new();
        let mut rest = event.clone();
        while !rest.is_empty() {
            lines.push(line(&mut rest));
        }
        let data: Vec<&Bytes> = lines.iter().filter_map(|(line, _)| data_of(line)).collect();
        let whole: Vec<Bytes> = data.iter().map(|line| value_of(line)).collect();
        let whole = Bytes::from(whole.join(&b'\n'));
        let (plan, has_data) = (&self.plan, !data.is_empty());
        self.deltas.push(&whole, |whole| with_data(plan, &lines, has_data.then_some(whole)))
    }
}

/// An event of these lines, masked. Its data are in the place of the first line of them.
fn with_data(plan: &Arc<MaskPlan>, lines: &[(Bytes, Bytes)], data: Option<&Bytes>) -> Masked {
    let mut data = data.map(|data| document(plan, data));
    let mut passed = Masked::default();
    for (line, end) in lines {
        let masked = if data_of(line).is_none() {
            other_line(plan, line)
        } else if let Some(masked) = data.take() {
            let lines = |text: &Bytes| data_lines(text, end);
            let counts = masked.counts();
            Masked::by_value(lines(masked.shown()), lines(masked.stored())).counted(counts)
        } else {
            continue;
        };
        passed = passed.joined(&masked).joined(&Masked::by_value(end.clone(), end.clone()));
    }
    passed
}

/// A line that is no data. One that cannot be masked becomes a comment, and so does one of unknown kind
/// where fields are masked: it may be a part of what is no event stream at all, with the name of its
/// field in another line. Clients drop such lines, so nothing is lost.
fn other_line(plan: &Arc<MaskPlan>, line: &Bytes) -> Masked {
    let comment = Bytes::from_static(b": [masked]");
    let left_out = || Masked::by_value(comment.clone(), comment.clone());
    if plan.masks_fields() && !is_of_events(line) {
        return left_out();
    }
    plain_text(plan, line).unwrap_or_else(|_| left_out())
}

/// Whether a line is one that an event stream has beside its data: an empty one, a comment, or a field.
fn is_of_events(line: &[u8]) -> bool {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    [&b""[..], b"event", b"id", b"retry"].contains(&name)
}

/// The line in front without its end, and the end.
fn line(rest: &mut Bytes) -> (Bytes, Bytes) {
    let length = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
    let line = rest.split_to(length);
    let end = if rest.starts_with(b"\r\n") { 2 } else { rest.len().min(1) };
    (line, rest.split_to(end))
}

/// A line of data, itself.
fn data_of(line: &Bytes) -> Option<&Bytes> {
    let name = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    (name == b"data" || name.starts_with(b"data:")).then_some(line)
}

fn value_of(line: &Bytes) -> Bytes {
    let colon = line.iter().position(|byte| *byte == b':').map_or(line.len(), |at| at + 1);
    let space = usize::from(line.get(colon) == Some(&b' '));
    line.slice(colon + space..)
}

/// A text as lines of data, without the end of the last.
fn data_lines(text: &[u8], end: &[u8]) -> Bytes {
    let end = if end.is_empty() { b"\n" } else { end };
    let lines = text.split(|byte| matches!(byte, b'\n' | b'\r'));
    let lines: Vec<Vec<u8>> = lines.map(|line| [b"data: ", line].concat()).collect();
    Bytes::from(lines.join(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Pattern;
    use super::super::action::Action;
    use super::super::plan::{Enforce, Mask, Masks};
    use super::super::scanner::HashKey;
    use super::*;

    fn plan() -> Arc<MaskPlan> {
        let mask = Mask {
            name: "m".into(),
            targets: None,
            columns: Vec::new(),
            fields: vec!["**.ssn".parse().unwrap()],
            patterns: vec![Pattern::built_in("email").unwrap()],
            with: Action::Redact,
            unless_groups: Vec::new(),
            enforce: Enforce::default(),
        };
        Arc::new(Masks::new(vec![mask]).for_session("crew", &[], &HashKey::new([7; 32])))
    }

    fn passed(pieces: &[&[u8]]) -> String {
        let mut events = Events::new(&plan());
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(events.push(piece).unwrap().shown());
        }
        out.extend_from_slice(events.finish().unwrap().shown());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_data_of_an_event_is_one_text() {
        for (events, masked) in [
            (": hello\nid: 1\n\n", ": hello\nid: 1\n\n"),
            ("data: to a@b.cc\n\n", "data: to [email]\n\n"),
            ("event: a@b.cc\ndata:x\n\n", "event: [email]\ndata: x\n\n"),
            (
                "data: {\"ssn\":\ndata: \"1\"}\nid: 2\n\n",
                "data: {\"ssn\":\ndata: \"[masked]\"}\nid: 2\n\n",
            ),
            (
                "data: {\"a\":1}\r\n\r\ndata: [DONE]\r\n\r\n",
                "data: {\"a\":1}\r\n\r\ndata: [DONE]\r\n\r\n",
            ),
            ("data: {\"ssn\":\"1\"", "data: [masked]"),
            ("data\n\n", "data: \n\n"),
            ("id: 1\nretry\n:\n\n", "id: 1\nretry\n:\n\n"),
            ("[\n\"1\"\n]\n", ": [masked]\n: [masked]\n: [masked]\n"),
        ] {
            assert_eq!(passed(&[events.as_bytes()]), masked, "{events}");
        }
    }

    #[test]
    fn an_event_that_does_not_end_is_bounded() {
        let mut events = Events::new(&plan());
        let line = [&b"data: "[..], &b"x".repeat(1 << 19), b"\n"].concat();
        assert!(events.push(&line).is_ok());
        assert_eq!(events.push(&line).unwrap_err(), NotMasked::TooLarge);
    }

    proptest! {
        #[test]
        fn no_cut_changes_what_comes_out(
            text in "((data|id|data:|: )(: ?)?(\\{\"ssn\":\"[0-9]\"\\}|a@b\\.cc|x)?(\r\n|\n|\r){1,2}){0,5}",
            at in any::<prop::sample::Index>(),
        ) {
            let whole = passed(&[text.as_bytes()]);
            prop_assert!(!whole.contains("a@b.cc"), "{}", whole);
            let (first, second) = text.as_bytes().split_at(at.index(text.len() + 1));
            prop_assert_eq!(&passed(&[first, second]), &whole);
            let bytewise: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            prop_assert_eq!(&passed(&bytewise), &whole);
        }
    }
}
