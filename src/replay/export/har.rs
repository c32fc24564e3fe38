//! The requests of an HTTP session as a file for browsers and other tools: HAR, version 1.2.
//!
//! What is not there: whatever was not stored (cookies, credentials, masked values), the address of
//! the target (the host of each URL is the target's name), trailers, and bodies beyond what memory
//! is given to them. Entries stand in the order in which they ended.
//!
//! Source: <http://www.softwareishard.com/blog/har-12-spec/>; WebSocket messages stand where
//! Chromium puts them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Map, Value, json};

use super::super::{ReplayError, text};
use super::ExportError;
use crate::decode::http::head::Head;
use crate::names::Protocol;
use crate::percent;
use crate::policy::Verdict;
use crate::recording::{
    ApprovalStep, Direction, Event, Kind, Opened, Outcome, Reader, RecordedCommand, Sequence,
    rfc3339,
};

/// What is kept of one direction of one exchange, and of all that are open at once, in bytes.
const KEPT: usize = 4 << 20;
const ALL_KEPT: usize = 64 << 20;
/// All but what a URL may have in its path and query (RFC 3986 section 3.4).
const NOT_IN_URLS: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/')
    .remove(b'?')
    .remove(b'@')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=');
/// Pieces of this size may go on in the next event: messages are stored in such.
const PIECE: usize = 64 << 10;

/// Writes the exchanges of a recording.
///
/// # Errors
/// When it is of no session or another protocol, is damaged (after what stands before the damage was written), or
/// the file cannot be written.
pub fn har(mut reader: Reader, out: &mut dyn Write) -> Result<(), ExportError> {
    let first = reader.next().transpose().map_err(ReplayError::from)?;
    let opened = first.as_ref().and_then(read::<Opened>).ok_or(ExportError::NoSession)?;
    if opened.protocol != Protocol::Http {
        return Err(ExportError::OtherProtocol(opened.protocol));
    }
    let creator = json!({ "name": "Portcullis", "version": env!("CARGO_PKG_VERSION") });
    let (who, target) = (&opened.identity.username, &opened.target);
    let comment = format!("session {} of {who} on {target}", opened.session);
    write!(out, "{{\"log\":{{\"version\":\"1.2\",\"creator\":{creator},\"comment\":")?;
    print(out, &comment)?;
    write!(out, ",\"entries\":[")?;
    let mut file =
        File { out, host: target.to_string(), open: BTreeMap::new(), kept: 0, entries: 0 };
    let mut damage = None;
    for event in reader {
        match event {
            Ok(event) => file.take(&event)?,
            Err(error) => damage = Some(error),
        }
    }
    while let Some((sequence, exchange)) = file.open.pop_first() {
        file.entry(sequence, exchange, None)?;
    }
    writeln!(file.out, "]}}}}")?;
    damage.map_or(Ok(()), |error| Err(ReplayError::from(error).into()))
}

struct File<'o> {
    out: &'o mut dyn Write,
    /// What stands for the target's address.
    host: String,
    /// Those that have not ended, by their command.
    open: BTreeMap<Sequence, Exchange>,
    /// Bytes that they hold.
    kept: usize,
    entries: u64,
}

/// One request and its answer, as far as they were read.
struct Exchange {
    wall_us: i64,
    /// Microseconds since the session opened.
    began: u64,
    released: Option<u64>,
    sent: Option<u64>,
    answered: Option<u64>,
    /// Method and target, when there is no head.
    text: String,
    /// What was decided, unless it was simply allowed.
    comment: Option<String>,
    up: Kept,
    down: Kept,
    /// Once it went over to WebSocket.
    messages: Option<Vec<Message>>,
    /// Events are missing.
    lost: bool,
}

/// The beginning of what passed in one direction, and how much it was.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    total: u64,
}

impl Kept {
    fn push(&mut self, bytes: &[u8], all: &mut usize) {
        self.total = self.total.saturating_add(bytes.len() as u64);
        let room = KEPT.saturating_sub(self.bytes.len()).min(ALL_KEPT.saturating_sub(*all));
        let part = bytes.get(..room).unwrap_or(bytes);
        self.bytes.extend_from_slice(part);
        *all = all.saturating_add(part.len());
    }
}

struct Message {
    up: bool,
    wall_us: i64,
    monotonic_us: u64,
    content: Kept,
}

impl Message {
    /// Whether a piece belongs to it: those of one message have one time.
    fn goes_on(&self, event: &Event) -> bool {
        self.up == (event.direction == Direction::Up)
            && self.monotonic_us == event.monotonic_us
            && self.content.total > 0
            && self.content.total.is_multiple_of(PIECE as u64)
    }

    fn to_json(&self) -> Value {
        let body = Body::of(&self.content.bytes, self.content.total);
        json!({
            "type": if self.up { "send" } else { "receive" },
            "time": seconds(self.wall_us),
            "opcode": if body.base64 { 2 } else { 1 },
            "data": body.text,
        })
    }
}

impl File<'_> {
    fn take(&mut self, event: &Event) -> io::Result<()> {
        match event.kind {
            Kind::Command => {
                if let Some(command) = read::<RecordedCommand<'_>>(event) {
                    self.open.insert(event.sequence, Exchange::new(event, &command));
                }
            }
            Kind::Gap => self.open.values_mut().for_each(|exchange| exchange.lost = true),
            _ => {
                let Some(sequence) = event.of else { return Ok(()) };
                let Some(exchange) = self.open.get_mut(&sequence) else { return Ok(()) };
                match event.kind {
                    Kind::Data => exchange.data(event, &mut self.kept),
                    Kind::Approval => exchange.step(event),
                    Kind::Outcome => {
                        let outcome = read::<Outcome>(event).unwrap_or_default();
                        let ended = Some((event.monotonic_us, outcome));
                        if let Some(exchange) = self.open.remove(&sequence) {
                            self.entry(sequence, exchange, ended)?;
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        sequence: Sequence,
        exchange: Exchange,
        ended: Option<(u64, Outcome)>,
    ) -> io::Result<()> {
        self.kept = self.kept.saturating_sub(exchange.kept());
        let separator = if self.entries == 0 { "\n" } else { ",\n" };
        self.entries += 1;
        self.out.write_all(separator.as_bytes())?;
        print(self.out, &exchange.into_entry(sequence, &self.host, ended))
    }
}

impl Exchange {
    fn new(event: &Event, recorded: &RecordedCommand<'_>) -> Self {
        let decision = &recorded.decision;
        let comment = (decision.verdict() != Verdict::Allow).then(|| {
            let rules: Vec<&str> = decision.rules().iter().map(|rule| &**rule).collect();
            let reason = decision.reason().map(|reason| format!(": {reason}"));
            let rules = rules.join(", ");
            format!("{} by {rules}{}", decision.verdict(), reason.unwrap_or_default())
        });
        Self {
            wall_us: event.wall_us,
            began: event.monotonic_us,
            released: None,
            sent: None,
            answered: None,
            text: recorded.command.text.clone(),
            comment,
            up: Kept::default(),
            down: Kept::default(),
            messages: None,
            lost: false,
        }
    }

    fn kept(&self) -> usize {
        let messages = self.messages.iter().flatten().map(|message| message.content.bytes.len());
        self.up.bytes.len() + self.down.bytes.len() + messages.sum::<usize>()
    }

    fn step(&mut self, event: &Event) {
        if read::<ApprovalStep>(event).is_some_and(|step| step.step == ApprovalStep::RELEASED) {
            self.released = Some(event.monotonic_us);
        }
    }

    fn data(&mut self, event: &Event, all: &mut usize) {
        let up = event.direction == Direction::Up;
        if let Some(messages) = &mut self.messages {
            if !messages.last().is_some_and(|last| last.goes_on(event)) {
                let Event { wall_us, monotonic_us, .. } = *event;
                messages.push(Message { up, wall_us, monotonic_us, content: Kept::default() });
                // So many empty ones take memory, too.
                *all = all.saturating_add(size_of::<Message>());
            }
            if let Some(message) = messages.last_mut() {
                message.content.push(&event.payload, all);
            }
        } else if up {
            self.sent = Some(event.monotonic_us);
            self.up.push(&event.payload, all);
        } else {
            if self.answered.is_none() {
                self.answered = Some(event.monotonic_us);
                let head = Head::parse(&event.payload);
                if head.is_some_and(|head| head.status() == Some(101)) {
                    self.messages = Some(Vec::new());
                }
            }
            self.down.push(&event.payload, all);
        }
    }

    fn into_entry(self, sequence: Sequence, host: &str, ended: Option<(u64, Outcome)>) -> Value {
        let (end, outcome) = match ended {
            Some((end, outcome)) => (Some(end), Some(outcome)),
            None => (None, None),
        };
        let mut entry = Map::new();
        let mut put = |name: &str, value: Value| entry.insert(name.to_owned(), value);
        let (time, timings) = self.timings(end);
        put("startedDateTime", json!(rfc3339(self.wall_us)));
        put("time", json!(time));
        put("timings", timings);
        put("cache", json!({}));
        put("request", self.request(host));
        put("response", self.response(outcome.as_ref()));
        put("_sequence", json!(sequence));
        let error = match &outcome {
            None => Some("the recording ends before the answer did".to_owned()),
            Some(outcome) => outcome.error.as_ref().map(|e| format!("{}: {}", e.code, e.message)),
        };
        if let Some(error) = error {
            put("_error", json!(error));
        }
        let lost = self.lost.then(|| "events are missing here".to_owned());
        let comments: Vec<String> = self.comment.into_iter().chain(lost).collect();
        if !comments.is_empty() {
            put("comment", json!(comments.join("; ")));
        }
        if let Some(messages) = &self.messages {
            let messages: Vec<Value> = messages.iter().map(Message::to_json).collect();
            put("_resourceType", json!("websocket"));
            put("_webSocketMessages", json!(messages));
        }
        Value::Object(entry)
    }

    /// Milliseconds, and the parts that they are the sum of. Waiting for people is `blocked`.
    fn timings(&self, end: Option<u64>) -> (f64, Value) {
        let start = self.released.unwrap_or(self.began).max(self.began);
        let sent = self.sent.unwrap_or(start).max(start);
        let answered = self.answered.or(end).unwrap_or(sent).max(sent);
        let end = end.unwrap_or(answered).max(answered);
        let between = |from, to: u64| milliseconds(to.saturating_sub(from));
        let blocked = self.released.map_or(-1.0, |_| between(self.began, start));
        let timings = json!({
            "blocked": blocked,
            "dns": -1,
            "connect": -1,
            "ssl": -1,
            "send": between(start, sent),
            "wait": between(sent, answered),
            "receive": between(answered, end),
        });
        (between(self.began, end), timings)
    }

    fn request(&self, host: &str) -> Value {
        let head = Head::parse(&self.up.bytes);
        let line = head.as_ref().and_then(Head::request);
        let (method, target) = line.or_else(|| self.text.split_once(' ')).unwrap_or_default();
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let mut request = json!({
            "method": method,
            "url": url(host, target),
            "httpVersion": "HTTP/1.1",
            "cookies": [],
            "headers": fields(head.as_ref()),
            "queryString": parameters(query),
            "headersSize": head.as_ref().map_or(json!(-1), |head| json!(head.length)),
            "bodySize": self.up.total.saturating_sub(length(head.as_ref())),
        });
        let body = Body::behind(head.as_ref(), &self.up);
        if !body.text.is_empty() {
            let mut data = json!({ "mimeType": kind(head.as_ref()), "text": body.text });
            body.tell(&mut data, "_encoding");
            put(&mut request, "postData", data);
        }
        request
    }

    fn response(&self, outcome: Option<&Outcome>) -> Value {
        let head = Head::parse(&self.down.bytes).filter(|head| head.status().is_some());
        let body = Body::behind(head.as_ref(), &self.down);
        // Where the target said nothing, the gateway answers by itself.
        let own = head.is_none() && !body.text.is_empty();
        let told = || outcome?.status.as_ref()?.parse().ok();
        let status = head.as_ref().and_then(Head::status).or_else(told).unwrap_or(0);
        let reason = head.as_ref().and_then(|head| head.first.splitn(3, ' ').nth(2));
        let kind = if own { "application/problem+json".to_owned() } else { kind(head.as_ref()) };
        let size = self.down.total.saturating_sub(length(head.as_ref()));
        let mut content = json!({ "size": size, "mimeType": kind });
        if !body.text.is_empty() {
            put(&mut content, "text", json!(body.text));
        }
        body.tell(&mut content, "encoding");
        let location = head.as_ref().and_then(|head| head.field("location"));
        json!({
            "status": status,
            "statusText": reason.unwrap_or_default(),
            "httpVersion": if status == 0 { "" } else { "HTTP/1.1" },
            "cookies": [],
            "headers": fields(head.as_ref()),
            "content": content,
            "redirectURL": location.map(latin).unwrap_or_default(),
            "headersSize": head.as_ref().map_or(json!(-1), |head| json!(head.length)),
            "bodySize": if status == 0 { json!(-1) } else { json!(size) },
        })
    }
}

/// A body as JSON can hold it.
#[derive(Default)]
struct Body {
    text: String,
    base64: bool,
    comment: Option<String>,
}

impl Body {
    fn behind(head: Option<&Head<'_>>, kept: &Kept) -> Self {
        let from = head.map_or(0, |head| head.length);
        Self::of(
            kept.bytes.get(from..).unwrap_or_default(),
            kept.total.saturating_sub(length(head)),
        )
    }

    fn of(bytes: &[u8], total: u64) -> Self {
        let cut = (bytes.len() as u64) < total;
        let comment = cut.then(|| format!("the first {} of {total} bytes", bytes.len()));
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Some(text),
            // Only the last character is not whole.
            Err(error) if cut && error.error_len().is_none() => {
                bytes.get(..error.valid_up_to()).and_then(|text| std::str::from_utf8(text).ok())
            }
            Err(_) => None,
        };
        match text {
            Some(text) => Self { text: text.to_owned(), base64: false, comment },
            None => Self { text: STANDARD.encode(bytes), base64: true, comment },
        }
    }

    fn tell(&self, of: &mut Value, encoding: &str) {
        if self.base64 {
            put(of, encoding, json!("base64"));
        }
        if let Some(comment) = &self.comment {
            put(of, "comment", json!(comment));
        }
    }
}

fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

fn length(head: Option<&Head<'_>>) -> u64 {
    head.map_or(0, |head| head.length as u64)
}

fn kind(head: Option<&Head<'_>>) -> String {
    head.and_then(|head| head.field("content-type")).map(latin).unwrap_or_default()
}

fn fields(head: Option<&Head<'_>>) -> Vec<Value> {
    let fields = head.iter().flat_map(|head| &head.fields);
    fields.map(|(name, value)| json!({ "name": name, "value": latin(value) })).collect()
}

/// A field's value is bytes (RFC 9110 section 5.5): UTF-8 where it is that, else Latin-1.
fn latin(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) => text.to_owned(),
        Err(_) => value.iter().copied().map(char::from).collect(),
    }
}

/// The target of a request at a host that stands for its own, with escapes where a URL needs them:
/// masks leave brackets in queries.
fn url(host: &str, target: &str) -> String {
    let mut url = format!("http://{host}");
    for (at, part) in target.split('%').enumerate() {
        if at > 0 {
            url.push_str(if percent::makes_escape(part) { "%" } else { "%25" });
        }
        url.extend(utf8_percent_encode(part, NOT_IN_URLS));
    }
    url
}

fn parameters(query: &str) -> Vec<Value> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let decoded =
        |raw: &str| crate::decode::http::query::decode(raw).unwrap_or_else(|_| raw.to_owned());
    pairs.map(|(name, value)| json!({ "name": decoded(name), "value": decoded(value) })).collect()
}

fn milliseconds(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64() * 1e3
}

fn seconds(wall_us: i64) -> f64 {
    Duration::from_micros(u64::try_from(wall_us).unwrap_or_default()).as_secs_f64()
}

fn read<T: DeserializeOwned>(event: &Event) -> Option<T> {
    serde_json::from_slice(&event.payload).ok()
}

fn print(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Harmless)).map_err(io::Error::from)
}

/// Escapes, besides what JSON asks for, what acts on a terminal or is not seen: whoever looks into
/// the file sees what is there.
struct Harmless;

impl Formatter for Harmless {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| text::is_hidden(*c)) {
            let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
            out.write_all(before.as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = from.get(c.len_utf8()..).unwrap_or_default();
        }
        out.write_all(rest.as_bytes())
    }
}
