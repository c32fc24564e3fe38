//! Masks of what passes over HTTP: which body is masked how, and what of a head would show past them.
//!
//! A body is what its bytes are, whatever its content type: JSON is masked as JSON under every type, and
//! what is in no known format does not pass. Fields are found in JSON, JSON Lines, forms, server-sent
//! events and WebSocket messages; other text passes where it holds no name of a masked field.
//!
//! Honest limits: base64 within a text is searched as it is; pictures, sound and fonts are not searched
//! at all. A value that is cut into two messages is two, and into two events unless they are pieces of
//! one text.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::header::{self, HeaderMap, HeaderValue};
use serde_json::Value;

use super::media;
use crate::config::ContentTypes;
use crate::mask::{
    Documents, Events, Form, MaskPlan, Masked, NotMasked, PlainText, REDACTED, Texts, document,
};
use crate::policy::{Command, Object};

/// Fields of a request that ask for a part of an answer, for none, for another form of it, or for
/// its digest: a mask could not be applied, or would show.
const ASKING: &[&str] = &[
    "a-im",
    "accept-charset",
    "accept-encoding",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    "want-content-digest",
    "want-digest",
    "want-repr-digest",
];

/// Fields of an answer that speak of its bytes as they were, or offer parts of them.
const TELLING: &[&str] = &[
    "accept-ranges",
    "content-digest",
    "content-length",
    "content-md5",
    "content-range",
    "digest",
    "etag",
    "last-modified",
    "repr-digest",
    "signature",
    "signature-input",
];

/// Fields in which nobody's values stand, and in which a mask would break something.
const HARMLESS: &[&str] = &[
    "age",
    "allow",
    "cache-control",
    "content-encoding",
    "content-language",
    "content-type",
    "date",
    "expires",
    "retry-after",
    "strict-transport-security",
    "vary",
];

/// A text that may be JSON is held to find out, up to so many bytes: then it must be.
const MAX_HELD: usize = 64 << 10;

/// Whether masks act on HTTP at all.
pub(super) fn acts(plan: &MaskPlan) -> bool {
    plan.masks_fields() || plan.has_patterns()
}

/// Whether a field of a request stays here where masks act.
pub(super) fn stays(name: &str) -> bool {
    ASKING.contains(&name)
}

/// Whether a field of an answer stays here where masks act.
pub(super) fn tells_of_bytes(name: &str) -> bool {
    TELLING.contains(&name)
}

/// The value of a header field. Addresses are looked at without their escapes, too.
pub(super) fn field(plan: &Arc<MaskPlan>, name: &str, value: &[u8]) -> Masked {
    let value = Bytes::copy_from_slice(value);
    if HARMLESS.contains(&name) {
        return Masked::by_value(value.clone(), value);
    }
    let masked = address(plan, &plan.text(&value));
    let found = u64::from(*masked.stored() != value);
    masked.found(found)
}

/// Whether the name of a header field holds what is masked: for the client, and in what is stored. Such a
/// field is left out. Names come here in lower case, whatever they were, so they are looked at in upper
/// case as well.
pub(super) fn hidden_name(plan: &Arc<MaskPlan>, name: &str) -> (bool, bool) {
    let names = Bytes::from(format!("{name}\n{}", name.to_ascii_uppercase()));
    let masked = address(plan, &plan.text(&names));
    (*masked.shown() != names, *masked.stored() != names)
}

/// Fields behind an answer's body, as the client may see them.
pub(super) fn fields(plan: &Arc<MaskPlan>, headers: &HeaderMap) -> HeaderMap {
    let mut seen = HeaderMap::with_capacity(headers.len());
    let passes = |name: &str| !tells_of_bytes(name) && !hidden_name(plan, name).0;
    for (name, value) in headers.iter().filter(|(name, _)| passes(name.as_str())) {
        let masked = field(plan, name.as_str(), value.as_bytes());
        seen.append(name.clone(), header_value(masked.shown()));
    }
    seen
}

/// What is left of a value as a header field has it.
pub(super) fn header_value(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static(REDACTED))
}

/// Path and query, or anything that has both: what stands in them behind escapes is masked.
pub(super) fn target(plan: &Arc<MaskPlan>, target: &str) -> Masked {
    address(plan, &plan.text(&Bytes::copy_from_slice(target.as_bytes())))
}

/// Looks behind the escapes of both texts of an address, each for its own eyes.
fn address(plan: &Arc<MaskPlan>, masked: &Masked) -> Masked {
    let shown = unescaped(plan, masked.shown(), |masked| masked.shown().clone());
    let stored = unescaped(plan, masked.stored(), |masked| masked.stored().clone());
    Masked::by_value(shown, stored)
}

fn unescaped(plan: &Arc<MaskPlan>, text: &Bytes, eyes: impl Fn(&Masked) -> Bytes) -> Bytes {
    if !text.contains(&b'%') && !text.contains(&b'?') {
        return text.clone();
    }
    let (path, query) = match text.iter().position(|byte| *byte == b'?') {
        Some(at) => (text.slice(..at), Some(text.slice(at + 1..))),
        None => (text.clone(), None),
    };
    // Segments are escaped as the names of a form are, but for a plus, which stays one.
    let segments: Vec<Bytes> = path
        .split(|byte| *byte == b'/')
        .map(|segment| {
            let plain = path.slice_ref(segment);
            if segment.contains(&b'%') { form(plan, &plain, &eyes) } else { plain }
        })
        .collect();
    let mut text = segments.join(&b'/');
    if let Some(query) = query {
        text.push(b'?');
        text.extend_from_slice(&form(plan, &query, &eyes));
    }
    Bytes::from(text)
}

fn form(plan: &Arc<MaskPlan>, text: &Bytes, eyes: &impl Fn(&Masked) -> Bytes) -> Bytes {
    let mut form = Form::new(plan);
    match form.push(text) {
        Ok(first) => eyes(&first.joined(&form.finish())),
        // A head has no such pair.
        Err(_) => Bytes::new(),
    }
}

/// What is stored of a command; `None` where that is the command itself.
pub(super) fn command(plan: &Arc<MaskPlan>, command: &Command) -> Option<Command> {
    if !acts(plan) {
        return None;
    }
    let mut seen = command.clone();
    let text = target(plan, &command.text);
    seen.text = String::from_utf8_lossy(text.stored()).into_owned();
    for effect in &mut seen.effects {
        if let Some(path) = effect.object.as_ref().and_then(Object::name) {
            effect.object = Some(Object::named("path", plan.view(path)));
        }
        for (name, value) in &mut effect.attributes {
            *value = attribute(plan, name, value);
        }
    }
    Some(seen)
}

/// What is stored of an attribute: a document of its own, but that addresses have escapes.
fn attribute(plan: &Arc<MaskPlan>, name: &str, value: &Value) -> Value {
    if let ("headers", Value::Object(fields)) = (name, value) {
        let masked = |(name, value): (&String, &Value)| {
            let text = value.as_str().unwrap_or_default();
            let masked = field(plan, name, text.as_bytes());
            (name.clone(), Value::from(String::from_utf8_lossy(masked.stored())))
        };
        let named = fields.iter().filter(|(name, _)| !hidden_name(plan, name).1);
        return Value::Object(named.map(masked).collect());
    }
    let masked = document(plan, &Bytes::from(value.to_string()));
    serde_json::from_slice(masked.stored()).unwrap_or(Value::Null)
}

/// Why a body is not masked, and so does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) &'static str);

/// How one body is masked as it passes.
#[derive(Debug)]
pub(super) enum BodyMask {
    /// Nothing in it is: there are no masks, or it is a picture, a sound or a font.
    Open,
    Text(Box<PlainText>),
    /// The operator lets it pass although masks cannot read it; it is searched as it is.
    Listed(Box<Texts>),
    Json(Box<Documents>),
    Events(Events),
    Form(Form),
    /// What it is shows in its first bytes.
    Unknown(Box<Sniffed>),
}

impl BodyMask {
    /// For a body with these header fields. `listed` are content types whose bodies may pass although
    /// masks cannot read them.
    pub(super) fn of(
        plan: &Arc<MaskPlan>,
        headers: &HeaderMap,
        listed: &[ContentTypes],
    ) -> Result<Self, Unreadable> {
        if is_coded(headers) {
            return Err(Unreadable("it is encoded, so nothing in it can be masked"));
        }
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let content_type = match (types.next(), types.next()) {
            (content_type, None) => content_type.map_or(Ok(""), HeaderValue::to_str),
            (_, Some(_)) => return Err(Unreadable("it has several content types")),
        };
        let content_type = content_type
            .map_err(|_| Unreadable("its content type is malformed"))?
            .to_ascii_lowercase();
        let single_byte = check_charset(&content_type)?;
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let (kind, form) = essence.split_once('/').unwrap_or((essence, ""));
        let listed = listed.iter().any(|types| types.names(essence));
        if kind == "multipart" && !listed {
            return Err(Unreadable("it has several parts, in which nothing can be masked"));
        }
        let otherwise = match (kind, form) {
            _ if listed => Otherwise::Listed,
            ("text", "event-stream") => return Ok(Self::Events(Events::new(plan))),
            ("application", "x-www-form-urlencoded") => Otherwise::Form,
            ("image" | "audio" | "video" | "font", _) => Otherwise::Media,
            _ => Otherwise::Text,
        };
        let begun = match is_json(form) && !listed {
            true => Begun::Json(Box::new(Documents::new(plan))),
            false => Begun::Nothing,
        };
        let plan = Arc::clone(plan);
        let held = BytesMut::new();
        Ok(Self::Unknown(Box::new(Sniffed { plan, otherwise, single_byte, held, begun })))
    }

    /// Takes the next bytes, and gives what can be given of them.
    pub(super) fn push(&mut self, bytes: &Bytes) -> Result<Masked, NotMasked> {
        match self {
            // In these it is half of a character of UTF-16, which some programs find out by themselves.
            Self::Json(_) | Self::Events(_) | Self::Form(_) if bytes.contains(&0) => {
                Err(NotMasked::Malformed)
            }
            Self::Open => Ok(Masked::by_value(bytes.clone(), bytes.clone())),
            Self::Text(text) => text.push(bytes),
            Self::Listed(texts) => Ok(texts.push(bytes)),
            Self::Json(documents) => documents.push(bytes),
            Self::Events(events) => events.push(bytes),
            Self::Form(form) => form.push(bytes),
            Self::Unknown(sniffed) => match sniffed.push(bytes)? {
                None => Ok(Masked::default()),
                Some((masked, rest, mask)) => {
                    *self = mask;
                    Ok(masked.joined(&self.push(&rest)?))
                }
            },
        }
    }

    /// Gives the rest.
    pub(super) fn finish(self) -> Result<Masked, NotMasked> {
        match self {
            Self::Open => Ok(Masked::default()),
            Self::Text(text) => text.finish(),
            Self::Listed(texts) => Ok(texts.finish()),
            Self::Json(mut documents) => documents.finish(),
            Self::Events(mut events) => events.finish(),
            Self::Form(mut form) => Ok(form.finish()),
            Self::Unknown(sniffed) => {
                let (masked, rest, mut mask) = sniffed.finish()?;
                let rest = mask.push(&rest)?;
                Ok(masked.joined(&rest).joined(&mask.finish()?))
            }
        }
    }

    /// Whether its bytes come when something happens, and not at once.
    pub(super) fn is_of_events(&self) -> bool {
        matches!(self, Self::Events(_))
    }
}

/// A body of which only its first bytes say what it is.
#[derive(Debug)]
pub(super) struct Sniffed {
    plan: Arc<MaskPlan>,
    otherwise: Otherwise,
    /// It says that it is in a charset of the Latin family.
    single_byte: bool,
    /// What came, as far as it is needed to find out.
    held: BytesMut,
    begun: Begun,
}

/// What a body is if it is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Otherwise {
    Text,
    Form,
    /// A picture, a sound or a font if it begins as one, else text.
    Media,
    Listed,
}

#[derive(Debug)]
enum Begun {
    Nothing,
    /// It says that it is JSON.
    Json(Box<Documents>),
    /// It may be JSON: what it would be, masked.
    Perhaps(Box<Documents>, Masked),
}

/// What was masked so far, bytes that are still to be, and how.
type Found = (Masked, Bytes, BodyMask);

impl Sniffed {
    fn push(&mut self, bytes: &Bytes) -> Result<Option<Found>, NotMasked> {
        if let Begun::Perhaps(documents, so_far) = &mut self.begun {
            self.held.extend_from_slice(bytes);
            return match documents.push(bytes) {
                Ok(masked) => {
                    *so_far = std::mem::take(so_far).joined(&masked);
                    Ok(if self.held.len() > MAX_HELD { self.json() } else { None })
                }
                Err(NotMasked::Malformed) => Ok(Some(self.no_json())),
                Err(not_masked) => Err(not_masked),
            };
        }
        self.held.extend_from_slice(bytes);
        if self.held.len() > MAX_HELD {
            return Err(NotMasked::TooLarge);
        }
        if self.otherwise == Otherwise::Media && self.held.len() < media::LONGEST_MARK {
            return Ok(None);
        }
        self.look()
    }

    fn finish(mut self) -> Result<Found, NotMasked> {
        if !matches!(self.begun, Begun::Perhaps(..))
            && let Some(found) = self.look()?
        {
            return Ok(found);
        }
        match std::mem::replace(&mut self.begun, Begun::Nothing) {
            Begun::Json(documents) => {
                Ok((Masked::default(), self.rest(), BodyMask::Json(documents)))
            }
            Begun::Perhaps(mut documents, so_far) => match documents.finish() {
                Ok(last) => Ok((so_far.joined(&last), Bytes::new(), BodyMask::Open)),
                Err(NotMasked::Malformed) => Ok(self.no_json()),
                Err(not_masked) => Err(not_masked),
            },
            Begun::Nothing => Ok(self.no_json()),
        }
    }

    /// Looks at the first bytes that say something.
    fn look(&mut self) -> Result<Option<Found>, NotMasked> {
        if self.otherwise == Otherwise::Media && media::is_any(&self.held) {
            return Ok(Some((Masked::default(), self.rest(), BodyMask::Open)));
        }
        // A byte order mark that has not ended is none yet.
        let Some(text) = without_mark(&self.held) else { return Ok(None) };
        let Some(at) = text.iter().position(|byte| !is_before_json(*byte)) else { return Ok(None) };
        let looks_so = matches!(text.get(at), Some(b'{' | b'[' | b'"'));
        let marked = self.held.len() - text.len();
        match std::mem::replace(&mut self.begun, Begun::Nothing) {
            Begun::Json(documents) => {
                let rest = self.rest().slice(marked..);
                Ok(Some((Masked::default(), rest, BodyMask::Json(documents))))
            }
            _ if !looks_so => Ok(Some(self.no_json())),
            _ => {
                let held = self.held.split().freeze();
                let documents = Box::new(Documents::new(&self.plan));
                self.begun = Begun::Perhaps(documents, Masked::default());
                self.push(&held.slice(marked..))
            }
        }
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }

    /// So much of it was JSON that the rest must be.
    fn json(&mut self) -> Option<Found> {
        match std::mem::replace(&mut self.begun, Begun::Nothing) {
            Begun::Perhaps(documents, so_far) => {
                Some((so_far, Bytes::new(), BodyMask::Json(documents)))
            }
            _ => None,
        }
    }

    fn no_json(&mut self) -> Found {
        let mask = match self.otherwise {
            Otherwise::Form => BodyMask::Form(Form::new(&self.plan)),
            Otherwise::Listed => BodyMask::Listed(Box::new(self.plan.texts())),
            Otherwise::Text | Otherwise::Media => {
                BodyMask::Text(Box::new(PlainText::new(&self.plan, self.single_byte)))
            }
        };
        (Masked::default(), self.rest(), mask)
    }
}

/// A text behind its byte order mark; `None` where that may be coming still.
fn without_mark(text: &[u8]) -> Option<&[u8]> {
    const MARK: &[u8] = b"\xef\xbb\xbf";
    match text.strip_prefix(MARK) {
        Some(text) => Some(text),
        None if text.len() < MARK.len() && MARK.starts_with(text) => None,
        None => Some(text),
    }
}

/// What readers of JSON pass over in front of it: blanks, and what begins a text sequence.
fn is_before_json(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x1e
}

/// Whether a body is in a coding that hides what stands in it.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
}

/// JSON, or several documents of it.
fn is_json(form: &str) -> bool {
    let form = form.strip_prefix("x-").unwrap_or(form);
    form.ends_with("+json")
        || form.starts_with("amz-json-")
        || matches!(form, "json" | "json-lines" | "json-seq" | "jsonl" | "jsonlines" | "ndjson")
}

/// Patterns and grammars are of ASCII: other charsets hide what is written in it. Says whether it is
/// one whose every byte is a character.
fn check_charset(content_type: &str) -> Result<bool, Unreadable> {
    const UTF_8: &[&str] = &["utf-8", "utf8", "us-ascii", "ascii"];
    const LATIN: &[&str] = &["iso-8859-1", "iso-8859-15", "windows-1252"];
    let mut single_byte = false;
    for parameter in content_type.split(';').skip(1) {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        if name.trim() != "charset" || UTF_8.contains(&value) {
            continue;
        }
        if !LATIN.contains(&value) {
            return Err(Unreadable("its charset is not one in which anything can be masked"));
        }
        single_byte = true;
    }
    Ok(single_byte)
}
