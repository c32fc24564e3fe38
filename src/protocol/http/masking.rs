//! Masks of what passes over HTTP: which body is masked how, and what of a head would show past them.
//!
//! Honest limits: what is compressed, encrypted or encoded within a body (a PDF, a ZIP, base64) is
//! searched as it stands; pictures, sound and fonts are not searched at all. Fields are found in
//! JSON, JSON Lines, forms, server-sent events and WebSocket messages, and in text that is JSON
//! all the same; not in XML or HTML. A value that is cut into two events or messages is two.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::header::{self, HeaderMap, HeaderValue};
use serde_json::Value;

use crate::mask::{
    Documents, Events, Form, MaskPlan, Masked, NotMasked, REDACTED, Texts, document,
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

/// A text that may be JSON is held whole to find out, up to so many bytes.
const MAX_HELD: usize = 1 << 20;

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

/// Fields behind an answer's body, as the client may see them.
pub(super) fn fields(plan: &Arc<MaskPlan>, headers: &HeaderMap) -> HeaderMap {
    let mut seen = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !tells_of_bytes(name.as_str())) {
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
        return Value::Object(fields.iter().map(masked).collect());
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
    /// Nothing in it is.
    Open,
    Text(Box<Texts>),
    /// It is something else, and searched as it stands.
    Bytes(Box<Texts>),
    Json(Box<Documents>),
    Events(Events),
    Form(Form),
    /// It may be JSON that says it is text: then its fields are masked.
    Held(Arc<MaskPlan>, BytesMut),
    /// It says it is text, and nothing of it came that is no space.
    Unknown(Arc<MaskPlan>, BytesMut),
}

impl BodyMask {
    /// For a body with these header fields.
    pub(super) fn of(plan: &Arc<MaskPlan>, headers: &HeaderMap) -> Result<Self, Unreadable> {
        if is_coded(headers) {
            return Err(Unreadable("it is encoded, so nothing in it can be masked"));
        }
        let mut types = headers.get_all(header::CONTENT_TYPE).iter();
        let content_type = match (types.next(), types.next()) {
            (None, _) => return Ok(Self::perhaps_json(plan)),
            (Some(content_type), None) => content_type,
            (Some(_), Some(_)) => return Err(Unreadable("it has several content types")),
        };
        let content_type = content_type
            .to_str()
            .map_err(|_| Unreadable("its content type is malformed"))?
            .to_ascii_lowercase();
        let essence = content_type.split(';').next().unwrap_or_default().trim();
        let (kind, form) = essence.split_once('/').unwrap_or((essence, ""));
        let of_text = form.ends_with("+xml") || form.ends_with("+json");
        if matches!(kind, "image" | "audio" | "video" | "font") && !of_text {
            return Ok(Self::Open);
        }
        check_charset(&content_type)?;
        Ok(match (kind, form) {
            _ if is_json(form) => Self::Json(Box::new(Documents::new(plan))),
            ("text", "event-stream") => Self::Events(Events::new(plan)),
            ("application", "x-www-form-urlencoded") => Self::Form(Form::new(plan)),
            ("multipart", _) if plan.masks_fields() => {
                return Err(Unreadable("it has several parts, in which fields cannot be masked"));
            }
            ("text", "html" | "css" | "csv") => Self::text(plan),
            _ if form == "xml" || form.ends_with("+xml") => Self::text(plan),
            ("text", _) => Self::perhaps_json(plan),
            _ => Self::Bytes(Box::new(plan.texts())),
        })
    }

    fn text(plan: &MaskPlan) -> Self {
        Self::Text(Box::new(plan.texts()))
    }

    fn perhaps_json(plan: &Arc<MaskPlan>) -> Self {
        match plan.masks_fields() {
            true => Self::Unknown(Arc::clone(plan), BytesMut::new()),
            false => Self::text(plan),
        }
    }

    /// Takes the next bytes, and gives what can be given of them.
    pub(super) fn push(&mut self, bytes: &Bytes) -> Result<Masked, NotMasked> {
        // In text it is half of a character of UTF-16, which some programs find out by themselves.
        let other_charset = bytes.contains(&0) && !matches!(self, Self::Open | Self::Bytes(_));
        match self {
            _ if other_charset => Err(NotMasked::Malformed),
            Self::Open => Ok(Masked::by_value(bytes.clone(), bytes.clone())),
            Self::Text(texts) | Self::Bytes(texts) => Ok(texts.push(bytes)),
            Self::Json(documents) => documents.push(bytes),
            Self::Events(events) => events.push(bytes),
            Self::Form(form) => form.push(bytes),
            Self::Held(_, held) => {
                hold(held, bytes)?;
                Ok(Masked::default())
            }
            Self::Unknown(plan, held) => {
                hold(held, bytes)?;
                let first = held.iter().find(|byte| !before_json(**byte));
                match first {
                    None => Ok(Masked::default()),
                    Some(b'{' | b'[' | b'"') => {
                        *self = Self::Held(Arc::clone(plan), std::mem::take(held));
                        Ok(Masked::default())
                    }
                    Some(_) => {
                        let held = std::mem::take(held).freeze();
                        *self = Self::text(plan);
                        self.push(&held)
                    }
                }
            }
        }
    }

    /// Gives the rest.
    pub(super) fn finish(self) -> Result<Masked, NotMasked> {
        match self {
            Self::Open => Ok(Masked::default()),
            Self::Text(texts) | Self::Bytes(texts) => Ok(texts.finish()),
            Self::Json(mut documents) => documents.finish(),
            Self::Events(mut events) => events.finish(),
            Self::Form(mut form) => Ok(form.finish()),
            Self::Held(plan, held) | Self::Unknown(plan, held) => {
                Ok(document(&plan, &held.freeze()))
            }
        }
    }
}

/// What readers of JSON pass over in front of it: a byte order mark, and what begins a text sequence.
fn before_json(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, 0x1e | 0xef | 0xbb | 0xbf)
}

fn hold(held: &mut BytesMut, bytes: &[u8]) -> Result<(), NotMasked> {
    if held.len() + bytes.len() > MAX_HELD {
        return Err(NotMasked::TooLarge);
    }
    held.extend_from_slice(bytes);
    Ok(())
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
        || matches!(form, "json" | "json-lines" | "json-seq" | "jsonl" | "jsonlines" | "ndjson")
}

/// Patterns and grammars are of ASCII: other charsets hide what is written in it.
fn check_charset(content_type: &str) -> Result<(), Unreadable> {
    const KNOWN: &[&str] =
        &["utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "iso-8859-15", "windows-1252"];
    for parameter in content_type.split(';').skip(1) {
        let Some((name, value)) = parameter.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        if name.trim() == "charset" && !KNOWN.contains(&value) {
            return Err(Unreadable("its charset is not one in which anything can be masked"));
        }
    }
    Ok(())
}
