//! The bytes of an HTTP/1 connection, held against the grammar before anything else reads them.
//!
//! Where one request ends and the next begins must be beyond doubt (RFC 9112 section 11.2), so
//! this takes less than HTTP allows: lines end with CRLF alone, a body has one length, the only
//! transfer coding is `chunked`, chunks have no extensions, a request names its target by a path.
//!
//! A [`Framer`] is told the bytes that are there and says how many may go on. However they are cut
//! into pieces, the same ones go on.

use super::{Refused, action_of, is_token};

/// The largest head of a request, in bytes: tokens are up to 32 KiB.
pub const MAX_HEAD: usize = 64 << 10;
/// The most header fields of a request.
const MAX_FIELDS: usize = 100;
/// The largest section of trailer fields, in bytes.
const MAX_TRAILERS: usize = 8 << 10;
/// The digits of a chunk's size: 2^60 bytes are enough for one.
const MAX_SIZE_DIGITS: usize = 15;

const HEAD_TOO_LARGE: Refused = Refused { status: 431, what: "the head is too large" };

/// Where one direction of a connection is.
#[derive(Debug)]
pub struct Framer {
    state: State,
    /// How much of a head or a trailer section was searched for its end.
    searched: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes of a body of known length that are still to come.
    Body(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// A head that asks for WebSocket went on; what comes behind it depends on the answer.
    Upgrading,
    /// No HTTP any more.
    Raw,
}

impl Default for Framer {
    fn default() -> Self {
        Self { state: State::Head, searched: 0 }
    }
}

impl Framer {
    /// How many of the bytes may go on; none: more are needed. At most one request ends in them.
    pub fn next(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        let mut passed = 0;
        while let Some(rest) = bytes.get(passed..).filter(|rest| !rest.is_empty()) {
            let began = self.state;
            match self.step(rest) {
                Ok(0) => break,
                Ok(length) => {
                    passed += length;
                    if self.state == State::Head || self.state == State::Upgrading {
                        break;
                    }
                }
                // What is right before it goes on first; the state is such that this comes again.
                Err(_) if passed > 0 => {
                    self.state = began;
                    break;
                }
                Err(refused) => return Err(refused),
            }
        }
        Ok(passed)
    }

    /// Between two requests, where a connection may end.
    pub fn at_rest(&self) -> bool {
        matches!(self.state, State::Head | State::Raw)
    }

    /// Whether a head has begun, or is awaited.
    pub fn in_head(&self) -> bool {
        self.state == State::Head
    }

    /// Whether what comes now depends on the answer to a request for WebSocket.
    pub fn is_upgrading(&self) -> bool {
        self.state == State::Upgrading
    }

    /// How the request for WebSocket was answered.
    pub fn upgraded(&mut self, yes: bool) {
        if self.state == State::Upgrading {
            self.state = if yes { State::Raw } else { State::Head };
        }
    }

    /// How many bytes may go on whatever they are.
    pub fn unlooked(&self) -> u64 {
        match self.state {
            State::Body(left) | State::ChunkData(left) => left,
            State::Raw => u64::MAX,
            _ => 0,
        }
    }

    /// Takes note of bytes that went on unlooked at.
    pub fn skip(&mut self, length: u64) {
        self.state = match self.state {
            State::Body(left) if left > length => State::Body(left - length),
            State::Body(_) => State::Head,
            State::ChunkData(left) if left > length => State::ChunkData(left - length),
            State::ChunkData(_) => State::ChunkEnd,
            other => other,
        };
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        match self.state {
            State::Head => self.head(bytes),
            State::Body(_) | State::ChunkData(_) | State::Raw => {
                let most = usize::try_from(self.unlooked()).unwrap_or(usize::MAX);
                let length = bytes.len().min(most);
                self.skip(length as u64);
                Ok(length)
            }
            State::ChunkSize => self.chunk_size(bytes),
            State::ChunkEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.state = State::ChunkSize;
                    Ok(2)
                }
                [b'\r'] => Ok(0),
                _ => Err(Refused::bad("a chunk does not end where it says")),
            },
            State::Trailers => self.trailers(bytes),
            State::Upgrading => Ok(0),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        let Some(length) = self.section(bytes, MAX_HEAD, HEAD_TOO_LARGE)? else { return Ok(0) };
        let head = Head::read(bytes.get(..length).unwrap_or_default())?;
        self.state = match head.body {
            Body::None if head.upgrade => State::Upgrading,
            _ if head.upgrade => {
                return Err(Refused::bad("a request for WebSocket has a body"));
            }
            Body::None | Body::Length(0) => State::Head,
            Body::Length(length) => State::Body(length),
            Body::Chunked => State::ChunkSize,
        };
        Ok(length)
    }

    /// The length of a section of lines with the empty line that ends it, once that is there.
    fn section(
        &mut self,
        bytes: &[u8],
        most: usize,
        too_large: Refused,
    ) -> Result<Option<usize>, Refused> {
        const END: &[u8] = b"\r\n\r\n";
        let from = self.searched.saturating_sub(END.len() - 1);
        let unseen = bytes.get(from..).unwrap_or_default();
        let found = unseen.windows(END.len()).position(|window| window == END);
        let length = found.map(|at| from + at + END.len());
        if length.unwrap_or(bytes.len()) > most {
            return Err(too_large);
        }
        // So that a line that never ends as it should does not wait for the bound.
        let fresh = bytes.get(self.searched..length.unwrap_or(bytes.len())).unwrap_or_default();
        if length.is_none() && fresh.contains(&0) {
            return Err(Refused::bad("the head has a character that cannot be"));
        }
        self.searched = if length.is_some() { 0 } else { bytes.len() };
        Ok(length)
    }

    fn chunk_size(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        let bad = Err(Refused::bad("a chunk's size is not a hexadecimal number and CRLF"));
        let digits = bytes.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > MAX_SIZE_DIGITS {
            return bad;
        }
        let (number, rest) = bytes.split_at_checked(digits).unwrap_or_default();
        match rest {
            [] | [b'\r'] if digits > 0 || rest.is_empty() => return Ok(0),
            [b'\r', b'\n', ..] if digits > 0 => {}
            _ => return bad,
        }
        let text = std::str::from_utf8(number).unwrap_or_default();
        let Ok(size) = u64::from_str_radix(text, 16) else { return bad };
        if size == 0 {
            self.state = State::Trailers;
            // The line's own end is the first half of the section's end when there is nothing.
            return Ok(digits + 2);
        }
        self.state = State::ChunkData(size);
        Ok(digits + 2)
    }

    fn trailers(&mut self, bytes: &[u8]) -> Result<usize, Refused> {
        let length = match bytes {
            [b'\r', b'\n', ..] => 2,
            [b'\r'] => return Ok(0),
            _ => {
                let too_large = Refused { status: 431, what: "the trailers are too large" };
                let Some(length) = self.section(bytes, MAX_TRAILERS, too_large)? else {
                    return Ok(0);
                };
                let section = bytes.get(..length).unwrap_or_default();
                for line in lines(section)? {
                    let (name, _) = field(line)?;
                    if !may_trail(name) {
                        return Err(Refused::bad("a trailer field is one that cannot trail"));
                    }
                }
                length
            }
        };
        self.searched = 0;
        self.state = State::Head;
        Ok(length)
    }
}

/// Whether a field may come behind a body: not what frames, routes or proves (RFC 9110 section
/// 6.5.1).
pub fn may_trail(name: &[u8]) -> bool {
    const NEVER: &[&str] = &[
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    !NEVER.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes()))
        && !name.to_ascii_lowercase().starts_with(b"x-portcullis-")
}

/// What the framing needs of a head.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    body: Body,
    upgrade: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Length(u64),
    Chunked,
}

impl Head {
    fn read(section: &[u8]) -> Result<Self, Refused> {
        let mut lines = lines(section)?;
        let latest = request_line(lines.next().unwrap_or_default())?;
        let mut head = Self { body: Body::None, upgrade: false };
        let (mut hosts, mut fields) = (0, 0);
        let mut framed = false;
        for line in lines {
            fields += 1;
            if fields > MAX_FIELDS {
                return Err(Refused { status: 431, what: "the head has too many fields" });
            }
            let (name, value) = field(line)?;
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
            if is("host") {
                hosts += 1;
            } else if is("content-length") || is("transfer-encoding") {
                // A second one, of the same or the other kind, equal or not.
                if std::mem::replace(&mut framed, true) {
                    return Err(Refused::bad("the body's length is given twice"));
                }
                head.body = match is("content-length") {
                    true => content_length(value)?,
                    false if latest && value.eq_ignore_ascii_case(b"chunked") => Body::Chunked,
                    false => {
                        return Err(Refused::bad("the transfer coding is not chunked alone"));
                    }
                };
            } else if is("upgrade") {
                let words = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                head.upgrade |= latest && words.into_iter().any(is_websocket);
            }
        }
        if hosts > 1 || (hosts == 0 && latest) {
            return Err(Refused::bad("a request has exactly one Host"));
        }
        Ok(head)
    }
}

fn is_websocket(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"websocket")
}

fn content_length(value: &[u8]) -> Result<Body, Refused> {
    let bad = Refused::bad("Content-Length is not a number");
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(bad);
    }
    let text = std::str::from_utf8(value).map_err(|_| bad)?;
    match text.parse::<u64>() {
        Ok(length) if length <= i64::MAX.unsigned_abs() => Ok(Body::Length(length)),
        _ => Err(Refused { status: 413, what: "the body is too large" }),
    }
}

/// The lines of a section, without the empty one at its end. A CR or LF by itself is in none.
fn lines(section: &[u8]) -> Result<impl Iterator<Item = &[u8]>, Refused> {
    let inner = section.strip_suffix(b"\r\n\r\n").unwrap_or_default();
    let mut before = 0;
    for (at, byte) in inner.iter().enumerate() {
        let after = inner.get(at + 1).copied();
        let fine = match byte {
            b'\r' => after == Some(b'\n'),
            b'\n' => before == b'\r',
            b'\t' => true,
            0..=0x1f | 0x7f => false,
            _ => true,
        };
        if !fine {
            return Err(Refused::bad("a line does not end with CRLF, or has a control character"));
        }
        before = *byte;
    }
    Ok(inner.split(|byte| *byte == b'\r').map(|line| line.strip_prefix(b"\n").unwrap_or(line)))
}

/// Takes a request line; says whether it is of HTTP/1.1.
fn request_line(line: &[u8]) -> Result<bool, Refused> {
    let bad = Refused::bad("the request line is not METHOD /path HTTP/1.1");
    let mut words = line.split(|byte| *byte == b' ');
    let three = (words.next(), words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = three else { return Err(bad) };
    let latest = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(Refused { status: 505, what: "the version of HTTP is not spoken" }),
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(bad);
    }
    action_of(std::str::from_utf8(method).unwrap_or_default())?;
    if target.first() != Some(&b'/') {
        return Err(Refused::bad("the request's target is not a path"));
    }
    if !target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#') {
        return Err(Refused::bad("the request's target has a character that must be escaped"));
    }
    Ok(latest)
}

/// Takes a field line apart; the value without the white space around it.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refused> {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
    let (name, value) = line.split_at_checked(colon).unwrap_or_default();
    // Also a folded line: it begins with white space.
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(Refused::bad("a header field is not NAME: value"));
    }
    Ok((name, value.strip_prefix(b":").unwrap_or_default().trim_ascii()))
}

#[cfg(test)]
mod tests;
