//! HTTP: what bytes a request may be made of, and what it would do.
//!
//! [`framing`] looks at the bytes of an HTTP/1 connection before anything else does, [`path`] and
//! [`query`] take a request's target apart, [`command`] makes of it what policy decides about, and
//! [`head`] is the form in which heads are decided, recorded and forwarded. [`fields`] knows names of
//! header fields, [`overrides`] finds what asks for another method, [`http2`] counts frames. [`websocket`]
//! reads the frames of WebSocket, [`dialects`] knows APIs of which more is known.
//!
//! One rule holds throughout: what two readers could read in two ways is refused, never guessed.

pub mod command;
pub mod dialects;
pub mod fields;
pub mod framing;
pub mod head;
pub mod http2;
pub mod json;
pub mod overrides;
pub mod path;
pub mod query;
pub mod websocket;

/// A request that is not taken, in words for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Refused {
    /// The status of the answer.
    pub status: u16,
    /// What is wrong.
    pub what: &'static str,
}

impl Refused {
    /// A malformed request: status 400.
    pub const fn bad(what: &'static str) -> Self {
        Self { status: 400, what }
    }
}

/// The methods that are known; names of methods are exact (RFC 9110 section 9.1). Beside those of
/// RFC 9110 and PATCH they are WebDAV's (RFC 4918, RFC 3253, RFC 5323).
pub const METHODS: &[(&str, &str)] = &[
    ("GET", "http.get"),
    // What may be got may be asked about: HEAD is judged as GET.
    ("HEAD", "http.get"),
    ("POST", "http.post"),
    ("PUT", "http.put"),
    ("PATCH", "http.patch"),
    ("DELETE", "http.delete"),
    ("OPTIONS", "http.options"),
    ("PROPFIND", "http.propfind"),
    ("PROPPATCH", "http.proppatch"),
    ("MKCOL", "http.mkcol"),
    ("COPY", "http.copy"),
    ("MOVE", "http.move"),
    ("LOCK", "http.lock"),
    ("UNLOCK", "http.unlock"),
    ("REPORT", "http.report"),
    ("SEARCH", "http.search"),
];

/// The action that policy knows a method by.
pub fn action_of(method: &str) -> Result<&'static str, Refused> {
    if let Some((_, action)) = METHODS.iter().find(|(name, _)| *name == method) {
        return Ok(action);
    }
    Err(match method {
        // A tunnel would carry what nobody reads; TRACE sends back what it should not show.
        "CONNECT" | "TRACE" => Refused { status: 405, what: "this method is not passed on" },
        _ => Refused { status: 501, what: "the method is not known; its name counts exactly" },
    })
}

/// The value of one hexadecimal digit.
fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
