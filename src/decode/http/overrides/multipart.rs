//! The names of parts of a form of several parts, read line by line.
//!
//! Programs differ in where a boundary stands, so every line that begins as the field of a part's head
//! that names it counts, wherever it stands.

use super::super::query::percent_decoded;
use super::asks;

/// How such a line begins.
const DISPOSITION: &[u8] = b"content-disposition";
/// The longest such line; a longer one asks for anything.
const MAX_LINE: usize = 8 << 10;

/// What a line asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// The method that the part holds.
    Method,
    /// It cannot be known.
    Anything,
}

/// A body that is being read.
#[derive(Debug, Default)]
pub(super) struct Heads(Line);

#[derive(Debug)]
enum Line {
    /// So many of the first letters were there, behind spaces.
    Begins(usize),
    Other,
    Head(Vec<u8>),
    /// Behind its end; what begins with a space continues it. With the byte that ended it.
    Ended(Vec<u8>, u8),
}

impl Default for Line {
    fn default() -> Self {
        Self::Begins(0)
    }
}

impl Heads {
    /// Goes on to what stands behind the next line that asks; to the end where there is none.
    pub(super) fn next(&mut self, rest: &mut &[u8]) -> Option<Asks> {
        while let Some((byte, behind)) = rest.split_first() {
            let ends = matches!(byte, b'\r' | b'\n');
            match &mut self.0 {
                Line::Other => {
                    let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else { break };
                    *rest = rest.get(end + 1..).unwrap_or_default();
                    self.0 = Line::Begins(0);
                    continue;
                }
                Line::Ended(line, by) => match byte {
                    b' ' | b'\t' => {
                        let mut line = std::mem::take(line);
                        line.push(b' ');
                        self.0 = Line::Head(line);
                    }
                    b'\n' if *by == b'\r' => *by = b'\n',
                    _ => {
                        let asks = of_line(line);
                        self.0 = Line::Begins(0);
                        if asks.is_some() {
                            return asks;
                        }
                        continue;
                    }
                },
                Line::Head(line) if ends => self.0 = Line::Ended(std::mem::take(line), *byte),
                // One byte more tells that it is too long.
                Line::Head(line) if line.len() <= MAX_LINE => line.push(*byte),
                Line::Head(_) => {}
                Line::Begins(_) if ends => self.0 = Line::Begins(0),
                Line::Begins(0) if byte.is_ascii_whitespace() => {}
                Line::Begins(letters) => {
                    let next = DISPOSITION.get(*letters);
                    self.0 = match next == Some(&byte.to_ascii_lowercase()) {
                        true if *letters + 1 == DISPOSITION.len() => Line::Head(Vec::new()),
                        true => Line::Begins(*letters + 1),
                        false => Line::Other,
                    };
                }
            }
            *rest = behind;
        }
        *rest = &[];
        None
    }

    /// What the last line asks for, where nothing follows.
    pub(super) fn end(&self) -> Option<Asks> {
        match &self.0 {
            Line::Head(line) | Line::Ended(line, _) => of_line(line),
            Line::Begins(_) | Line::Other => None,
        }
    }
}

/// What a part holds, where its head goes on here; none where its end is not there.
pub(super) fn value(body: &[u8]) -> Option<String> {
    let mut lines = body.split_inclusive(|byte| *byte == b'\n');
    lines.find(|line| line.trim_ascii().is_empty() && line.ends_with(b"\n"))?;
    let mut value = Vec::new();
    for line in lines {
        if line.starts_with(b"--") {
            return Some(String::from_utf8_lossy(&value).into_owned());
        }
        value.extend_from_slice(line);
    }
    None
}

/// What a line asks for, from behind the name of its field.
fn of_line(line: &[u8]) -> Option<Asks> {
    if line.len() > MAX_LINE {
        return Some(Asks::Anything);
    }
    let lower = line.to_ascii_lowercase();
    let mut found = None;
    for at in memchr::memmem::find_iter(&lower, NAME) {
        let before = at.checked_sub(1).and_then(|at| line.get(at));
        // As of `filename`.
        if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            continue;
        }
        let behind = line.get(at + NAME.len()..).unwrap_or_default().trim_ascii_start();
        match of_parameter(behind) {
            Some(Asks::Anything) => return Some(Asks::Anything),
            asks => found = found.or(asks),
        }
    }
    found
}

const NAME: &[u8] = b"name";

/// What a name asks for, from behind the word `name`.
fn of_parameter(behind: &[u8]) -> Option<Asks> {
    let value = match behind.split_first()? {
        (b'=', value) => value.trim_ascii_start(),
        // RFC 2231: `name*=utf-8''…`, or one in pieces.
        (b'*', extended) => match extended.trim_ascii_start().strip_prefix(b"=") {
            Some(value) => value.rsplit(|byte| *byte == b'\'').next()?,
            None => return Some(Asks::Anything),
        },
        _ => return None,
    };
    let mut readings: Vec<Vec<u8>> = Vec::new();
    let parameter = value.split(|byte| *byte == b';').next().unwrap_or_default();
    readings.push(parameter.to_vec());
    readings.push(parameter.iter().filter(|byte| !b"\"\\".contains(byte)).copied().collect());
    readings.extend(parameter.split(u8::is_ascii_whitespace).next().map(<[u8]>::to_vec));
    if let Some((quote @ (b'"' | b'\''), quoted)) = value.split_first() {
        readings.extend(quoted.split(|byte| byte == quote).next().map(<[u8]>::to_vec));
        readings.push(unquoted(quoted, *quote));
    }
    // An encoded word of MIME.
    if readings.iter().any(|name| memchr::memmem::find(name, b"=?").is_some()) {
        return Some(Asks::Anything);
    }
    let asking = readings.iter().any(|name| asks(name) || asks(&percent_decoded(name)));
    asking.then_some(Asks::Method)
}

/// A text up to the quotation mark that ends it, with the backslashes taken away that escape.
fn unquoted(text: &[u8], quote: u8) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            byte if byte == quote => break,
            b'\\' => plain.extend(bytes.next()),
            byte => plain.push(byte),
        }
    }
    plain
}
