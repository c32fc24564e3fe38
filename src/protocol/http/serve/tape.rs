//! What a recording of HTTP has to answer with: each request, and where its answer is.
//!
//! The recording is read once, from its first event to its last. Kept are first lines and what tells
//! bodies apart; answers stay in the file until somebody asks for them.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

use crate::decode::http::head::Head;
use crate::names::{Protocol, SessionId, TargetName};
use crate::protocol::taped::{Kept, TapeError, Taped};
use crate::recording::{Direction, Event, Keyring, Kind, Note, RecordedCommand, Sequence};

/// The largest JSON body that is compared by what it means; larger ones are by their bytes.
pub(super) const MAX_JSON: usize = 64 << 10;
/// The largest head that is looked for.
const MAX_HEAD: usize = 256 << 10;
/// A request that was made.
#[derive(Debug)]
pub(super) struct Asked {
    /// The command's sequence.
    pub(super) sequence: Sequence,
    /// Where its answer begins, if it has one.
    pub(super) answer: Option<Sequence>,
    body: Body,
}

/// A body, as far as it tells requests apart.
#[derive(Debug)]
pub(super) enum Body {
    /// What it means.
    Json(Value),
    /// The hash of its bytes; that of none when there is no body.
    Bytes(blake3::Hash),
    /// It is not recorded.
    Withheld,
}

impl Body {
    /// That of a request.
    pub(super) fn of(bytes: &[u8]) -> Self {
        let json = (bytes.len() <= MAX_JSON).then(|| serde_json::from_slice(bytes).ok()).flatten();
        json.map_or_else(|| Self::Bytes(blake3::hash(bytes)), Self::Json)
    }

    /// Whether a request with the other body is this one: exactly, or as far as is recorded.
    fn fits(&self, other: &Self, exactly: bool) -> bool {
        match (self, other) {
            (Self::Withheld, _) => !exactly,
            (Self::Json(shown), Self::Json(sent)) if exactly => shown == sent,
            (Self::Json(shown), Self::Json(sent)) => covers(shown, sent),
            (Self::Bytes(shown), Self::Bytes(sent)) => shown == sent,
            _ => false,
        }
    }
}

/// Whether a recorded document, in which values may be masked, can be one that is sent.
fn covers(shown: &Value, sent: &Value) -> bool {
    match (shown, sent) {
        (Value::Object(shown), Value::Object(sent)) => {
            shown.len() == sent.len()
                && shown
                    .iter()
                    .all(|(name, value)| sent.get(name).is_some_and(|other| covers(value, other)))
        }
        (Value::Array(shown), Value::Array(sent)) => {
            shown.len() == sent.len() && shown.iter().zip(sent).all(|(a, b)| covers(a, b))
        }
        (Value::String(text), _) if text.contains("**") || text.contains('[') => true,
        (Value::Null, _) => true,
        _ => shown == sent,
    }
}

/// A recording of HTTP that answers.
#[derive(Debug)]
pub struct Tape {
    pub(super) of: Taped,
    asked: Vec<Asked>,
    /// Requests by method, path and query.
    lines: HashMap<Box<str>, Vec<usize>>,
}

/// Why nothing fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Request,
    Body,
}

impl Tape {
    /// Reads a recording from its beginning to its end, with what opens it where it is encrypted.
    /// Blocks on the file system.
    ///
    /// # Errors
    /// When it is none of HTTP, cannot be read, or is too large.
    pub fn read(path: &Path, keyring: &Keyring) -> Result<Self, TapeError> {
        let (of, reader) = Taped::open((path, keyring), (Protocol::Http, "HTTP"))?;
        let mut tape = Self { of, asked: Vec::new(), lines: HashMap::new() };
        let (mut open, mut kept) = (BTreeMap::new(), Kept::of("requests"));
        for event in reader {
            tape.take(&event?, &mut open, &mut kept)?;
        }
        for (_, request) in open {
            tape.end(request);
        }
        Ok(tape)
    }

    /// Whose session it was, and of what.
    pub fn title(&self) -> (&str, &TargetName, SessionId) {
        self.of.title()
    }

    /// How many requests it can answer.
    pub fn requests(&self) -> usize {
        self.asked.len()
    }

    /// The place of a recorded request that this one is, the `times`th that fits or the last;
    /// whether it is so only as far as is recorded.
    pub(super) fn find(
        &self,
        line: &str,
        body: &Body,
        times: usize,
    ) -> Result<(&Asked, bool), Missing> {
        let found = self.lines.get(line).ok_or(Missing::Request)?;
        let fitting = |exactly: bool| -> Vec<&Asked> {
            let asked = found.iter().filter_map(|at| self.asked.get(*at));
            asked.filter(|asked| asked.body.fits(body, exactly)).collect()
        };
        let exact = fitting(true);
        let (fitting, withheld) =
            if exact.is_empty() { (fitting(false), true) } else { (exact, false) };
        let asked = fitting.get(times).or(fitting.last()).ok_or(Missing::Body)?;
        Ok((asked, withheld))
    }

    fn take(
        &mut self,
        event: &Event,
        open: &mut BTreeMap<Sequence, Request>,
        kept: &mut Kept,
    ) -> Result<(), TapeError> {
        let command = match event.kind {
            Kind::Command => serde_json::from_slice::<RecordedCommand<'_>>(&event.payload).ok(),
            _ => None,
        };
        if let Some(recorded) = command {
            let line: Box<str> = recorded.command.text.as_str().into();
            kept.entry(line.len())?;
            let request = Request::new(event.sequence, line);
            open.insert(event.sequence, request);
        }
        // A note stands behind the request that it is about.
        let of = match event.kind {
            Kind::Note => open.last_key_value().map(|(of, _)| *of),
            _ => event.of,
        };
        let Some(request) = of.and_then(|of| open.get_mut(&of)) else { return Ok(()) };
        match (event.kind, event.direction) {
            (Kind::Data, Direction::Up) => kept.more(request.sent(&event.payload))?,
            (Kind::Data, _) => {
                request.answer.get_or_insert(event.sequence);
            }
            (Kind::Note, _) => {
                let note = serde_json::from_slice::<Note>(&event.payload).ok();
                request.withheld |= note.is_some_and(|note| note.what == "withheld");
            }
            (Kind::Outcome, _) => {
                if let Some(request) = of.and_then(|of| open.remove(&of)) {
                    self.end(request);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, request: Request) {
        let body = request.body();
        let Request { sequence, line, answer, .. } = request;
        self.lines.entry(line).or_default().push(self.asked.len());
        self.asked.push(Asked { sequence, answer, body });
    }
}

/// A request whose recording goes on.
#[derive(Debug)]
struct Request {
    sequence: Sequence,
    line: Box<str>,
    answer: Option<Sequence>,
    /// The head until it is whole, then the first of the body.
    first: Vec<u8>,
    head: bool,
    hash: blake3::Hasher,
    long: bool,
    withheld: bool,
}

impl Request {
    fn new(sequence: Sequence, line: Box<str>) -> Self {
        let (first, hash) = (Vec::new(), blake3::Hasher::new());
        Self { sequence, line, answer: None, first, head: true, hash, long: false, withheld: false }
    }

    /// Takes bytes that went up; gives how many more are kept.
    fn sent(&mut self, bytes: &Bytes) -> usize {
        let before = self.first.len();
        let mut body = &bytes[..];
        let whole;
        if self.head {
            self.first.extend_from_slice(bytes);
            let Some(head) = Head::parse(&self.first) else {
                if self.first.len() > MAX_HEAD {
                    (self.head, self.withheld) = (false, true);
                    self.first.clear();
                }
                return self.first.len().saturating_sub(before);
            };
            whole = self.first.split_off(head.length);
            self.first.clear();
            self.head = false;
            body = &whole;
        }
        self.hash.update(body);
        if self.first.len() + body.len() <= MAX_JSON {
            self.first.extend_from_slice(body);
        } else {
            self.long = true;
            self.first = Vec::new();
        }
        self.first.len().saturating_sub(before)
    }

    fn body(&self) -> Body {
        match () {
            () if self.withheld => Body::Withheld,
            () if self.long => Body::Bytes(self.hash.finalize()),
            () => Body::of(&self.first),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_fits_exactly_or_as_far_as_masks_let_it_be_told() {
        let shown = Body::of(br#"{"n": 1, "mail": "a***@x.com", "list": [null]}"#);
        let sent = Body::of(br#"{"mail":"anna@x.com","n":1,"list":["x"]}"#);
        assert!(!shown.fits(&sent, true) && shown.fits(&sent, false));
        assert!(shown.fits(&shown, true));
        assert!(!shown.fits(&Body::of(br#"{"mail":"anna@x.com","n":2,"list":["x"]}"#), false));
        assert!(!shown.fits(&Body::of(b""), false));
        assert!(Body::of(b"").fits(&Body::of(b""), true));
        assert!(!Body::of(b"a=1").fits(&Body::of(b"a=2"), false));
        assert!(Body::Withheld.fits(&sent, false));
    }
}
