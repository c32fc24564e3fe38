//! The data of a `COPY … TO STDOUT`: rows cut out of a stream, and the fields of a row.
//!
//! Source: PostgreSQL documentation, SQL COPY, "File Formats". The three formats with their default
//! options alone: text (tab, `\N`), CSV (comma, double quotes, nothing for NULL), binary. Lines may
//! stand first that are no rows (HEADER). How the stream is cut into messages means nothing: a
//! server sends a row in each, something between may not.

use std::borrow::Cow;

use bytes::{Buf as _, Bytes, BytesMut};

use super::Malformed;

/// The largest row that is taken, in bytes: it is kept until it is whole.
const MAX_ROW: usize = 64 << 20;
/// What binary data begin with: signature, flags, and the length of what extends them.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const BINARY_HEADER: usize = 19;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyFormat {
    /// Lines, fields between tabs, backslashes.
    Text,
    /// Lines, fields between commas, double quotes.
    Csv,
    /// Counted fields.
    Binary,
}

/// A part of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyPart {
    /// A row, whole; of a line format with its end.
    Row(Bytes),
    /// What belongs to no row: a line of names, or what binary data begin and end with.
    Around(Bytes),
}

/// Cuts data into rows. It keeps no more than one row that is not whole.
#[derive(Debug)]
pub struct CopyRows {
    format: CopyFormat,
    /// The next line is one of names; of binary data, the beginning comes.
    first: bool,
    /// Nothing may follow.
    ended: bool,
    buffer: BytesMut,
    /// How far the buffer was looked at, in vain.
    scanned: usize,
    /// There: within quotes (CSV), or behind a backslash (text).
    within: bool,
}

impl CopyRows {
    /// At the beginning of the data; `header` says that a line of names comes first.
    pub fn new(format: CopyFormat, header: bool) -> Self {
        let first = header || format == CopyFormat::Binary;
        let buffer = BytesMut::new();
        Self { format, first, ended: false, buffer, scanned: 0, within: false }
    }

    /// The format.
    pub fn format(&self) -> CopyFormat {
        self.format
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if self.buffer.len().saturating_add(bytes.len()) > 2 * MAX_ROW {
            return Err(TOO_LARGE);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next part that is whole.
    pub fn next_part(&mut self) -> Result<Option<CopyPart>, Malformed> {
        if self.ended {
            let nothing = self.buffer.is_empty();
            return if nothing {
                Ok(None)
            } else {
                Err(Malformed("COPY data go on behind their end"))
            };
        }
        let found = match self.format {
            CopyFormat::Text | CopyFormat::Csv => self.line(),
            CopyFormat::Binary => self.tuple()?,
        };
        let Some(length) = found else {
            let small = self.buffer.len() <= MAX_ROW;
            return if small { Ok(None) } else { Err(TOO_LARGE) };
        };
        if length > MAX_ROW {
            return Err(TOO_LARGE);
        }
        let part = self.buffer.split_to(length).freeze();
        (self.scanned, self.within) = (0, false);
        let around = std::mem::take(&mut self.first) || self.ended;
        Ok(Some(if around { CopyPart::Around(part) } else { CopyPart::Row(part) }))
    }

    /// Says that the data are at their end: nothing may be left.
    pub fn finish(&self) -> Result<(), Malformed> {
        let whole = self.buffer.is_empty() && (self.format != CopyFormat::Binary || self.ended);
        if whole { Ok(()) } else { Err(Malformed("COPY data end within a row")) }
    }

    /// The length of the line in front, with its end.
    fn line(&mut self) -> Option<usize> {
        let new = self.buffer.get(self.scanned..).unwrap_or_default();
        for (at, byte) in new.iter().enumerate() {
            match (self.format, byte) {
                (CopyFormat::Csv, b'"') => self.within = !self.within,
                (CopyFormat::Text, _) if self.within => self.within = false,
                (CopyFormat::Text, b'\\') => self.within = true,
                (_, b'\n') if !self.within => return Some(self.scanned + at + 1),
                _ => {}
            }
        }
        self.scanned = self.buffer.len();
        None
    }

    /// The length of the tuple in front, of the beginning or of the end.
    fn tuple(&mut self) -> Result<Option<usize>, Malformed> {
        let mut bytes: &[u8] = &self.buffer;
        if self.first {
            let start = bytes.get(..bytes.len().min(SIGNATURE.len())).unwrap_or_default();
            if !SIGNATURE.starts_with(start) {
                return Err(Malformed("binary COPY data begin otherwise"));
            }
            let Some(extension) = bytes.get(BINARY_HEADER - 4..) else { return Ok(None) };
            let Ok(length) = (&mut &*extension).try_get_u32() else { return Ok(None) };
            let length =
                usize::try_from(length).unwrap_or(usize::MAX).saturating_add(BINARY_HEADER);
            return if length > MAX_ROW { Err(TOO_LARGE) } else { Ok(whole(bytes, length)) };
        }
        let Ok(count) = bytes.try_get_i16() else { return Ok(None) };
        if count == -1 {
            self.ended = true;
            return Ok(Some(2));
        }
        let mut length = 2_usize;
        for _ in 0..u16::try_from(count).map_err(|_| Malformed("a COPY row has no fields"))? {
            let Ok(field) = bytes.try_get_i32() else { return Ok(None) };
            let field = field_length(field)?.unwrap_or(0);
            length = length.saturating_add(4).saturating_add(field);
            if length > MAX_ROW {
                return Err(TOO_LARGE);
            }
            let Some(rest) = bytes.get(field..) else { return Ok(None) };
            bytes = rest;
        }
        Ok(Some(length))
    }
}

const TOO_LARGE: Malformed = super::TOO_LARGE_TO_MASK;

fn whole(bytes: &[u8], length: usize) -> Option<usize> {
    (bytes.len() >= length).then_some(length)
}

/// -1 is NULL.
fn field_length(length: i32) -> Result<Option<usize>, Malformed> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| Malformed("a field has no length")),
    }
}

/// A field of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyField<'a> {
    /// As it stands in the row; of binary data with its length.
    pub raw: &'a [u8],
    /// Its value; `None` is NULL.
    pub value: Option<Cow<'a, [u8]>>,
}

/// The fields of a whole row.
pub fn fields(format: CopyFormat, row: &[u8]) -> Result<Vec<CopyField<'_>>, Malformed> {
    match format {
        CopyFormat::Binary => binary_fields(row),
        CopyFormat::Text | CopyFormat::Csv => {
            let line = row.strip_suffix(b"\n").ok_or(Malformed("a COPY row has no end"))?;
            let text = format == CopyFormat::Text;
            let raws = if text {
                split(line, b'\t', Some(b'\\'), None)
            } else {
                split(line, b',', None, Some(b'"'))
            };
            let field =
                |raw| CopyField { raw, value: if text { text_value(raw) } else { csv_value(raw) } };
            Ok(raws.into_iter().map(field).collect())
        }
    }
}

fn binary_fields(row: &[u8]) -> Result<Vec<CopyField<'_>>, Malformed> {
    const SHORT: Malformed = Malformed("a COPY row ends too early");
    let mut rest = row;
    let count = rest.try_get_u16().map_err(|_| SHORT)?;
    let mut fields = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let start = rest;
        let length = field_length(rest.try_get_i32().map_err(|_| SHORT)?)?;
        let (value, behind) = rest.split_at_checked(length.unwrap_or(0)).ok_or(SHORT)?;
        rest = behind;
        let raw = start.get(..4 + value.len()).ok_or(SHORT)?;
        fields.push(CopyField { raw, value: length.map(|_| value.into()) });
    }
    if rest.is_empty() { Ok(fields) } else { Err(Malformed("a COPY row has bytes left over")) }
}

/// Cuts a line at a delimiter, but not behind an escape or within quotes.
fn split(line: &[u8], delimiter: u8, escape: Option<u8>, quote: Option<u8>) -> Vec<&[u8]> {
    let (mut fields, mut start, mut escaped, mut quoted) = (Vec::new(), 0, false, false);
    for (at, byte) in line.iter().enumerate() {
        if escaped {
            escaped = false;
        } else if Some(*byte) == escape {
            escaped = true;
        } else if Some(*byte) == quote {
            quoted = !quoted;
        } else if *byte == delimiter && !quoted {
            fields.push(line.get(start..at).unwrap_or_default());
            start = at + 1;
        }
    }
    fields.push(line.get(start..).unwrap_or_default());
    fields
}

fn text_value(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    if raw == b"\\N" {
        return None;
    }
    if !raw.contains(&b'\\') {
        return Some(raw.into());
    }
    let mut value = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        let (b'\\', Some((escaped, behind))) = (byte, rest.split_first()) else {
            value.push(*byte);
            continue;
        };
        rest = behind;
        value.push(match escaped {
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'0'..=b'7' => digits(escaped - b'0', &mut rest, 8, 2),
            b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => digits(0, &mut rest, 16, 2),
            other => *other,
        });
    }
    Some(value.into())
}

/// A byte by its number: up to so many more digits of a base.
fn digits(first: u8, rest: &mut &[u8], base: u8, most: usize) -> u8 {
    let mut number = first;
    for _ in 0..most {
        let digit = rest.first().and_then(|c| char::from(*c).to_digit(u32::from(base)));
        let Some(digit) = digit.and_then(|digit| u8::try_from(digit).ok()) else { break };
        number = number.wrapping_mul(base).wrapping_add(digit);
        *rest = rest.get(1..).unwrap_or_default();
    }
    number
}

fn csv_value(raw: &[u8]) -> Option<Cow<'_, [u8]>> {
    if raw.is_empty() {
        return None;
    }
    if !raw.contains(&b'"') {
        return Some(raw.into());
    }
    let mut value = Vec::with_capacity(raw.len());
    let (mut quoted, mut rest) = (false, raw);
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match (byte, rest.split_first()) {
            (b'"', Some((b'"', behind))) if quoted => {
                value.push(b'"');
                rest = behind;
            }
            (b'"', _) => quoted = !quoted,
            (other, _) => value.push(*other),
        }
    }
    Some(value.into())
}

/// Writes a field with another value in its place.
pub fn put_field(
    format: CopyFormat,
    value: Option<&[u8]>,
    out: &mut BytesMut,
) -> Result<(), Malformed> {
    match (format, value) {
        (CopyFormat::Text, None) => out.extend_from_slice(b"\\N"),
        (CopyFormat::Text, Some(value)) => {
            for byte in value {
                match byte {
                    b'\\' => out.extend_from_slice(b"\\\\"),
                    8 => out.extend_from_slice(b"\\b"),
                    12 => out.extend_from_slice(b"\\f"),
                    b'\n' => out.extend_from_slice(b"\\n"),
                    b'\r' => out.extend_from_slice(b"\\r"),
                    b'\t' => out.extend_from_slice(b"\\t"),
                    11 => out.extend_from_slice(b"\\v"),
                    other => out.extend_from_slice(&[*other]),
                }
            }
        }
        (CopyFormat::Csv, None) => {}
        (CopyFormat::Csv, Some(value)) => {
            let special = |byte: &u8| matches!(byte, b'"' | b',' | b'\n' | b'\r' | b'\\');
            let plain = !value.is_empty()
                && !value.iter().any(special)
                && !value.starts_with(b" ")
                && !value.ends_with(b" ");
            if plain {
                out.extend_from_slice(value);
                return Ok(());
            }
            out.extend_from_slice(b"\"");
            for byte in value {
                out.extend_from_slice(if *byte == b'"' {
                    b"\"\""
                } else {
                    std::slice::from_ref(byte)
                });
            }
            out.extend_from_slice(b"\"");
        }
        (CopyFormat::Binary, None) => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        (CopyFormat::Binary, Some(value)) => {
            let length = i32::try_from(value.len()).map_err(|_| TOO_LARGE)?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(value);
        }
    }
    Ok(())
}

/// What stands between two fields.
pub fn delimiter(format: CopyFormat) -> &'static [u8] {
    match format {
        CopyFormat::Text => b"\t",
        CopyFormat::Csv => b",",
        CopyFormat::Binary => b"",
    }
}

/// What stands before the first field of a row, and behind the last one.
pub fn ends(format: CopyFormat, count: usize) -> Result<(Vec<u8>, &'static [u8]), Malformed> {
    match format {
        CopyFormat::Text | CopyFormat::Csv => Ok((Vec::new(), b"\n")),
        CopyFormat::Binary => {
            let count =
                i16::try_from(count).map_err(|_| Malformed("a COPY row has too many fields"))?;
            Ok((count.to_be_bytes().to_vec(), b""))
        }
    }
}

#[cfg(test)]
mod tests;
