//! Texts that come in pieces over several events, as models write them: the pieces of one text are
//! masked joined, so a secret that is cut into two events is found.
//!
//! Known are the events of `OpenAI`'s (`choices[].delta`, `choices[].text`, `response.….delta`),
//! Anthropic's (`content_block_delta`) and Google's (`candidates[].content.parts[].text`) interfaces,
//! and of those that are made after them: a string `delta`, and texts in an object `delta`.
//!
//! An event whose text could be the beginning of a secret waits for the next piece of that text, or
//! for its end, and all events behind it wait too, in their order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use serde_json::value::RawValue;

use super::json::NotMasked;
use super::plan::{MaskPlan, Masked, Texts};

/// How many events wait, and how many bytes of them.
const MAX_WAITING: usize = 1024;
const MAX_WAITING_BYTES: usize = 1 << 20;
/// How many texts one stream of events may have at a time.
const MAX_TEXTS: usize = 1024;
/// The deepest nesting in which texts are looked for.
const MAX_DEPTH: usize = 16;

/// Names of what holds pieces of a text within a `delta`.
const PIECES: &[&str] = &[
    "arguments",
    "content",
    "input",
    "output",
    "partial_json",
    "reasoning",
    "reasoning_content",
    "refusal",
    "summary",
    "text",
    "thinking",
    "transcript",
];
/// Names at the top of an event that tell which text it is about.
const NAMES: &[&str] = &["content_index", "index", "item_id", "output_index", "summary_index"];
/// Ends of the `type` of events that end a text.
const ENDS: &[&str] = &["_stop", "_done", ".done", ".completed", ".failed", ".incomplete", "-end"];

/// A piece of a text in an event: the text's name, and where the string is.
#[derive(Debug, PartialEq, Eq)]
struct Piece {
    name: String,
    at: Range<usize>,
    text: String,
}

/// What an event's data have of texts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parts {
    pieces: Vec<Piece>,
    /// Beginnings of the names of texts that end with this event.
    ended: Vec<String>,
}

type Object<'d> = BTreeMap<String, &'d RawValue>;

impl Parts {
    /// Of the data of an event; `None` for one that has nothing to do with texts.
    fn of(data: &str) -> Option<Self> {
        let root: Object<'_> = serde_json::from_str(data).ok()?;
        let mut name = String::new();
        for key in NAMES {
            if let Some(value) = root.get(*key) {
                name += &format!("{key}={}/", value.get());
            }
        }
        let mut parts = Self::default();
        let within = Within { depth: 0, delta: false, above: ["", ""] };
        parts.look(data, data, &name, within);
        let kind: Option<String> =
            root.get("type").and_then(|k| serde_json::from_str(k.get()).ok());
        if kind.is_some_and(|kind| ENDS.iter().any(|end| kind.ends_with(end))) {
            parts.ended.push(name);
        }
        (parts != Self::default()).then_some(parts)
    }

    fn look(&mut self, data: &str, value: &str, name: &str, within: Within<'_>) {
        if within.depth > MAX_DEPTH {
            return;
        }
        match value.as_bytes().first() {
            Some(b'{') => {
                let object: Object<'_> = serde_json::from_str(value).unwrap_or_default();
                for (key, value) in &object {
                    let below = within.below(key);
                    self.look(data, value.get(), &format!("{name}{key}/"), below);
                }
                let ended =
                    |key: &str| object.get(key).is_some_and(|why| why.get().starts_with('"'));
                if ended("finish_reason") || ended("finishReason") {
                    self.ended.push(name.to_owned());
                }
            }
            Some(b'[') => {
                let list: Vec<&RawValue> = serde_json::from_str(value).unwrap_or_default();
                for (at, value) in list.iter().enumerate() {
                    let object: Object<'_> = serde_json::from_str(value.get()).unwrap_or_default();
                    let place = at.to_string();
                    let at = object.get("index").map_or(&*place, |index| index.get());
                    let below = Within { depth: within.depth + 1, ..within };
                    self.look(data, value.get(), &format!("{name}{at}/"), below);
                }
            }
            Some(b'"') if within.is_piece() => {
                let start = (value.as_ptr() as usize).checked_sub(data.as_ptr() as usize);
                let text = serde_json::from_str(value).ok();
                if let (Some(start), Some(text)) = (start, text) {
                    let at = start..start + value.len();
                    self.pieces.push(Piece { name: name.to_owned(), at, text });
                }
            }
            _ => {}
        }
    }
}

/// Where in an event a value is.
#[derive(Debug, Clone, Copy)]
struct Within<'k> {
    depth: usize,
    /// In a `delta`.
    delta: bool,
    /// The last two keys, the last first.
    above: [&'k str; 2],
}

impl<'k> Within<'k> {
    fn below(self, key: &'k str) -> Self {
        let [last, _] = self.above;
        let delta = self.delta || last == "delta";
        Self { depth: self.depth + 1, delta, above: [key, last] }
    }

    fn is_piece(self) -> bool {
        match self.above {
            [key, _] if self.delta => PIECES.contains(&key),
            ["delta", _] | ["text", "choices" | "parts" | "token"] => true,
            ["completion", ""] => self.depth == 1,
            _ => false,
        }
    }
}

/// Events that wait, and the texts that they are pieces of.
#[derive(Debug)]
pub(super) struct Deltas {
    plan: Arc<MaskPlan>,
    texts: HashMap<String, Text>,
    waiting: VecDeque<Event>,
    bytes: usize,
    /// How many events went, and what stood for pieces so far.
    gone: usize,
    placed: u64,
}

/// A text that comes in pieces.
#[derive(Debug)]
struct Text {
    texts: Texts,
    /// The event with its last piece, counted from the first, and which of its pieces that is.
    last: (usize, usize),
    /// Beginnings of characters whose rest comes later, for the client and for storage.
    begun: [Vec<u8>; 2],
}

/// An event that is masked but for pieces of texts.
#[derive(Debug)]
struct Event {
    masked: Masked,
    pieces: Vec<Placed>,
}

/// A piece in its event: what stands for it there, and what it is for both pairs of eyes.
#[derive(Debug)]
struct Placed {
    stands: String,
    is: [Vec<u8>; 2],
    waits: bool,
}

impl Deltas {
    pub(super) fn new(plan: &Arc<MaskPlan>) -> Self {
        Self {
            plan: Arc::clone(plan),
            texts: HashMap::new(),
            waiting: VecDeque::new(),
            bytes: 0,
            gone: 0,
            placed: 0,
        }
    }

    /// Takes the data of an event. `masked` masks the event with other data in their place. Gives the
    /// events that need not wait.
    pub(super) fn push(
        &mut self,
        data: &Bytes,
        masked: impl FnOnce(&Bytes) -> Masked,
    ) -> Result<Masked, NotMasked> {
        let parts = match self.plan.has_patterns() {
            true => std::str::from_utf8(data).ok().and_then(Parts::of).unwrap_or_default(),
            false => Parts::default(),
        };
        let mut pieces = Vec::new();
        let mut counts = Masked::default();
        let (mut rest, mut without) = (0, Vec::new());
        let mut found: Vec<Piece> = parts.pieces;
        found.sort_by_key(|piece| piece.at.start);
        for piece in found {
            without.extend_from_slice(data.get(rest..piece.at.start).unwrap_or_default());
            rest = piece.at.end;
            let stands = self.stands_for(data);
            without.extend_from_slice(stands.as_bytes());
            let is = self.piece(&piece, pieces.len(), &mut counts)?;
            pieces.push(Placed { stands, is, waits: true });
        }
        without.extend_from_slice(data.get(rest..).unwrap_or_default());
        let masked = masked(&Bytes::from(without)).joined(&counts);
        self.bytes += masked.shown().len() + masked.stored().len();
        self.waiting.push_back(Event { masked, pieces });
        let whole = data.starts_with(b"{") || data.starts_with(b"[") && data.ends_with(b"]");
        let all = !data.is_empty() && (!whole || &data[..] == b"[DONE]");
        for ended in parts.ended {
            self.end(|name| name.starts_with(&ended));
        }
        if all {
            self.end(|_| true);
        }
        self.settle();
        let passed = self.pass();
        let few = self.waiting.len() <= MAX_WAITING && self.bytes <= MAX_WAITING_BYTES;
        if few && self.texts.len() <= MAX_TEXTS { Ok(passed) } else { Err(NotMasked::TooLarge) }
    }

    /// Gives what waits: nothing follows.
    pub(super) fn finish(&mut self) -> Masked {
        self.end(|_| true);
        self.settle();
        self.pass()
    }

    /// A string that stands nowhere in the data.
    fn stands_for(&mut self, data: &[u8]) -> String {
        loop {
            self.placed += 1;
            // A character for private use.
            let stands = format!("\"\u{f8ff}{}\u{f8ff}\"", self.placed);
            if memmem::find(data, stands.as_bytes()).is_none() {
                return stands;
            }
        }
    }

    /// What can be given of a text with its next piece.
    fn piece(
        &mut self,
        piece: &Piece,
        at: usize,
        counts: &mut Masked,
    ) -> Result<[Vec<u8>; 2], NotMasked> {
        let here = (self.gone + self.waiting.len(), at);
        let new =
            || Text { texts: self.plan.texts(), last: here, begun: <[Vec<u8>; 2]>::default() };
        let text = self.texts.entry(piece.name.clone()).or_insert_with(new);
        text.last = here;
        let masked = text.texts.push(&Bytes::copy_from_slice(piece.text.as_bytes()));
        *counts = std::mem::take(counts).joined(&Masked::default().counted(masked.counts()));
        let both = [masked.shown(), masked.stored()];
        let mut begun = text.begun.iter_mut().zip(both);
        Ok([(); 2].map(|()| {
            begun.next().map(|(begun, text)| characters(begun, text)).unwrap_or_default()
        }))
    }

    /// Ends the texts of these names.
    fn end(&mut self, ended: impl Fn(&str) -> bool) {
        let names: Vec<String> = self.texts.keys().filter(|name| ended(name)).cloned().collect();
        for name in names {
            let Some(Text { texts, last: (event, piece), mut begun }) = self.texts.remove(&name)
            else {
                continue;
            };
            let rest = texts.finish();
            let Some(event) = event.checked_sub(self.gone).and_then(|at| self.waiting.get_mut(at))
            else {
                continue;
            };
            event.masked =
                std::mem::take(&mut event.masked).joined(&Masked::default().counted(rest.counts()));
            let Some(piece) = event.pieces.get_mut(piece) else { continue };
            for ((is, begun), rest) in
                piece.is.iter_mut().zip(&mut begun).zip([rest.shown(), rest.stored()])
            {
                is.append(begun);
                is.extend_from_slice(rest);
            }
        }
    }

    /// Says which pieces wait: the last of a text that holds something back.
    fn settle(&mut self) {
        for piece in self.waiting.iter_mut().flat_map(|event| &mut event.pieces) {
            piece.waits = false;
        }
        for text in self.texts.values() {
            let holds = text.texts.held() > 0 || text.begun.iter().any(|begun| !begun.is_empty());
            let (event, piece) = text.last;
            let event = event.checked_sub(self.gone).and_then(|at| self.waiting.get_mut(at));
            if let Some(piece) = event.and_then(|event| event.pieces.get_mut(piece)) {
                piece.waits = holds;
            }
        }
    }

    /// The events in front that wait for nothing.
    fn pass(&mut self) -> Masked {
        let mut passed = Masked::default();
        let waits = |event: &Event| event.pieces.iter().any(|piece| piece.waits);
        while let Some(event) = self.waiting.pop_front_if(|event| !waits(event)) {
            self.gone += 1;
            self.bytes =
                self.bytes.saturating_sub(event.masked.shown().len() + event.masked.stored().len());
            passed = passed.joined(&event.whole());
        }
        passed
    }
}

impl Event {
    /// The event with its pieces.
    fn whole(self) -> Masked {
        if self.pieces.is_empty() {
            return self.masked;
        }
        let whole = |text: &Bytes, eyes: usize| {
            let mut text = text.to_vec();
            for piece in &self.pieces {
                let Some(at) = memmem::find(&text, piece.stands.as_bytes()) else { continue };
                let is = piece.is.get(eyes).map(Vec::as_slice).unwrap_or_default();
                let is = serde_json::Value::from(String::from_utf8_lossy(is)).to_string();
                text.splice(at..at + piece.stands.len(), is.into_bytes());
            }
            Bytes::from(text)
        };
        let (shown, stored) = (whole(self.masked.shown(), 0), whole(self.masked.stored(), 1));
        Masked::by_value(shown, stored).counted(self.masked.counts())
    }
}

/// The whole characters of a text with what was begun before; keeps the beginning of the last.
fn characters(begun: &mut Vec<u8>, text: &[u8]) -> Vec<u8> {
    let mut whole = std::mem::take(begun);
    whole.extend_from_slice(text);
    if let Err(error) = std::str::from_utf8(&whole)
        && error.error_len().is_none()
    {
        *begun = whole.split_off(error.valid_up_to());
    }
    whole
}

#[cfg(test)]
mod tests;
