//! Server-sent events, masked one by one: the data of an event is JSON or text, over however many
//! lines it comes.
//!
//! Source: WHATWG HTML, section "Server-sent events". An event goes on once its empty line came.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::json::{NotMasked, document};
use super::plan::{MaskPlan, Masked};

/// The largest event, in bytes: it is looked at whole.
const MAX_EVENT: usize = 1 << 20;

/// Masks events that come in chunks.
#[derive(Debug)]
pub struct Events {
    plan: Arc<MaskPlan>,
    /// The lines of an event that has not ended, and how far ends of lines were looked for.
    buffer: BytesMut,
    looked: usize,
    line_began: usize,
}

impl Events {
    /// At the beginning of a stream.
    pub fn new(plan: &Arc<MaskPlan>) -> Self {
        Self { plan: Arc::clone(plan), buffer: BytesMut::new(), looked: 0, line_began: 0 }
    }

    /// Takes the next chunk, and gives the events that are whole.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Masked, NotMasked> {
        let mut passed = Masked::default();
        self.buffer.extend_from_slice(chunk);
        while let Some(end) = self.end_of_event(false) {
            let event = self.buffer.split_to(end).freeze();
            (self.looked, self.line_began) = (0, 0);
            passed = passed.joined(&self.masked(&event));
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
            passed = self.masked(&event);
        }
        let rest = std::mem::take(&mut self.buffer).freeze();
        (self.looked, self.line_began) = (0, 0);
        Ok(if rest.is_empty() { passed } else { passed.joined(&self.masked(&rest)) })
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

    /// One event. Its data stand where the first line of them stood.
    fn masked(&self, event: &Bytes) -> Masked {
        let mut lines = Vec::new();
        let mut rest = event.clone();
        while !rest.is_empty() {
            lines.push(line(&mut rest));
        }
        let data: Vec<&Bytes> = lines.iter().filter_map(|(line, _)| data_of(line)).collect();
        let whole: Vec<Bytes> = data.iter().map(|line| value_of(line)).collect();
        let whole = Bytes::from(whole.join(&b'\n'));
        let mut data = (!data.is_empty()).then(|| document(&self.plan, &whole));
        let mut passed = Masked::default();
        for (line, end) in &lines {
            let masked = if data_of(line).is_none() {
                self.plan.text(line)
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
    use super::super::plan::{Mask, Masks};
    use super::super::scanner::{Action, HashKey};
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
