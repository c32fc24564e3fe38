//! Values of PostgreSQL's types taken apart, in both formats: numbers, arrays, ranges, composites.
//!
//! Source: the `*_send` and `*_out` functions of PostgreSQL (`numeric.c`, `arrayfuncs.c`,
//! `rangetypes.c`, `multirangetypes.c`, `rowtypes.c`). What is counted in a value is held against
//! its length before anything is allocated.

use std::borrow::Cow;

use bytes::{Buf as _, BufMut as _};

use super::Malformed;

/// An array in the binary format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinaryArray<'v> {
    /// The OID of the elements' type.
    pub element: u32,
    /// The elements in order, of all dimensions.
    pub elements: Vec<Option<&'v [u8]>>,
    /// Dimensions with their lower bounds, as they are written.
    dimensions: &'v [u8],
}

const ARRAY: Malformed = Malformed("an array is not one");
const RANGE: Malformed = Malformed("a range is not one");
const COMPOSITE: Malformed = Malformed("a composite value is not one");
/// `MAXDIM` in PostgreSQL.
const MOST_DIMENSIONS: usize = 6;

impl<'v> BinaryArray<'v> {
    /// Takes one apart.
    pub fn parse(value: &'v [u8]) -> Result<Self, Malformed> {
        let mut rest = value;
        let dimensions = rest.try_get_i32().map_err(|_| ARRAY)?;
        let _flags = rest.try_get_i32().map_err(|_| ARRAY)?;
        let element = rest.try_get_u32().map_err(|_| ARRAY)?;
        let dimensions = usize::try_from(dimensions).map_err(|_| ARRAY)?;
        if dimensions > MOST_DIMENSIONS {
            return Err(ARRAY);
        }
        let (sizes, mut rest) = rest.split_at_checked(dimensions * 8).ok_or(ARRAY)?;
        let mut count = usize::from(dimensions > 0);
        for dimension in sizes.chunks(8) {
            let mut dimension = dimension;
            let size = usize::try_from(dimension.try_get_i32().map_err(|_| ARRAY)?);
            count = count.checked_mul(size.map_err(|_| ARRAY)?).ok_or(ARRAY)?;
        }
        // Each has a length at least.
        if count > rest.len() / 4 {
            return Err(ARRAY);
        }
        let mut elements = Vec::with_capacity(count);
        for _ in 0..count {
            elements.push(counted(&mut rest).ok_or(ARRAY)?);
        }
        if rest.is_empty() { Ok(Self { element, elements, dimensions: sizes }) } else { Err(ARRAY) }
    }

    /// The array with other elements in the places of these; `None` is NULL.
    pub fn with(&self, elements: &[Option<Cow<'_, [u8]>>]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        out.put_i32(i32::try_from(self.dimensions.len() / 8).map_err(|_| ARRAY)?);
        out.put_i32(elements.iter().any(Option::is_none).into());
        out.put_u32(self.element);
        out.put_slice(self.dimensions);
        for element in elements {
            put_counted(element.as_deref(), &mut out).ok_or(ARRAY)?;
        }
        Ok(out)
    }
}

/// The fields of a composite value in the binary format: the OID of each one's type, and the value.
#[expect(clippy::type_complexity, reason = "the parts are named in the documentation")]
pub fn binary_composite(value: &[u8]) -> Result<Vec<(u32, Option<&[u8]>)>, Malformed> {
    let mut rest = value;
    let count = usize::try_from(rest.try_get_i32().map_err(|_| COMPOSITE)?);
    let count = count.map_err(|_| COMPOSITE)?;
    if count > rest.len() / 8 {
        return Err(COMPOSITE);
    }
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        let type_oid = rest.try_get_u32().map_err(|_| COMPOSITE)?;
        fields.push((type_oid, counted(&mut rest).ok_or(COMPOSITE)?));
    }
    if rest.is_empty() { Ok(fields) } else { Err(COMPOSITE) }
}

/// A composite value in the binary format.
pub fn put_composite(fields: &[(u32, Option<Cow<'_, [u8]>>)]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::new();
    out.put_i32(i32::try_from(fields.len()).map_err(|_| COMPOSITE)?);
    for (type_oid, value) in fields {
        out.put_u32(*type_oid);
        put_counted(value.as_deref(), &mut out).ok_or(COMPOSITE)?;
    }
    Ok(out)
}

/// The bounds of a range in the binary format.
pub fn binary_range(value: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    // RANGE_EMPTY, RANGE_LB_INF, RANGE_UB_INF
    const EMPTY: u8 = 0x01;
    const INFINITE: [u8; 2] = [0x08, 0x10];
    let (flags, mut rest) = value.split_first().ok_or(RANGE)?;
    let mut bounds = Vec::new();
    for infinite in INFINITE {
        if flags & (EMPTY | infinite) == 0 {
            bounds.push(counted(&mut rest).flatten().ok_or(RANGE)?);
        }
    }
    if rest.is_empty() { Ok(bounds) } else { Err(RANGE) }
}

/// The bounds of the ranges of a multirange in the binary format.
pub fn binary_multirange(value: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut rest = value;
    let count = usize::try_from(rest.try_get_i32().map_err(|_| RANGE)?).map_err(|_| RANGE)?;
    if count > rest.len() / 5 {
        return Err(RANGE);
    }
    let mut bounds = Vec::new();
    for _ in 0..count {
        bounds.extend(binary_range(counted(&mut rest).flatten().ok_or(RANGE)?)?);
    }
    if rest.is_empty() { Ok(bounds) } else { Err(RANGE) }
}

fn counted<'v>(rest: &mut &'v [u8]) -> Option<Option<&'v [u8]>> {
    let length = rest.try_get_i32().ok()?;
    if length == -1 {
        return Some(None);
    }
    let (value, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = behind;
    Some(Some(value))
}

fn put_counted(value: Option<&[u8]>, out: &mut Vec<u8>) -> Option<()> {
    out.put_i32(value.map_or(Ok(-1), |value| i32::try_from(value.len())).ok()?);
    out.put_slice(value.unwrap_or_default());
    Some(())
}

/// The most digits before the point, and after it, that a number is written out with.
const MOST_DIGITS: usize = 1_100;

/// A `numeric` of the binary format as text; zeros past `MOST_DIGITS` are left out.
pub fn numeric(value: &[u8]) -> Result<String, Malformed> {
    const NUMERIC: Malformed = Malformed("a numeric is not one");
    const GROUP: usize = 4;
    let mut rest = value;
    let mut next = || rest.try_get_u16().map_err(|_| NUMERIC);
    let (count, weight, sign, scale) = (next()?, next()?, next()?, next()?);
    match sign {
        0x0000 | 0x4000 => {}
        0xc000 => return Ok("NaN".to_owned()),
        0xd000 => return Ok("Infinity".to_owned()),
        0xf000 => return Ok("-Infinity".to_owned()),
        _ => return Err(NUMERIC),
    }
    if rest.len() != usize::from(count) * 2 {
        return Err(NUMERIC);
    }
    let groups: Vec<u16> =
        rest.chunks(2).filter_map(|two| Some(u16::from_be_bytes(two.try_into().ok()?))).collect();
    if groups.iter().any(|group| *group > 9_999) {
        return Err(NUMERIC);
    }
    // The first group's place, counted in groups before the point.
    let weight = i32::from(i16::from_be_bytes(weight.to_be_bytes()));
    let whole = usize::try_from(weight + 1).unwrap_or(0);
    let mut text = String::new();
    for at in 0..whole.min(groups.len().max(MOST_DIGITS / GROUP)) {
        let group = groups.get(at).copied().unwrap_or(0);
        text += &format!("{group:04}");
    }
    let zeros = text.len() - text.trim_start_matches('0').len();
    text.drain(..zeros);
    if text.is_empty() {
        text.push('0');
    }
    if sign == 0x4000 {
        text.insert(0, '-');
    }
    if scale > 0 {
        text.push('.');
        let start = text.len();
        let leading = usize::try_from(-(weight + 1)).unwrap_or(0).min(MOST_DIGITS / GROUP);
        text.extend(std::iter::repeat_n('0', leading * GROUP));
        for group in groups.get(whole.min(groups.len())..).unwrap_or_default() {
            text += &format!("{group:04}");
        }
        let places = usize::from(scale).min(MOST_DIGITS.max(text.len() - start));
        let written = text.len() - start;
        text.extend(std::iter::repeat_n('0', places.saturating_sub(written)));
        text.truncate(start + places);
    }
    Ok(text)
}

/// A piece of a value in the text format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece<'v> {
    /// Punctuation, as it is written.
    Around(&'v [u8]),
    /// An element: as it is written, and its value. `None` is NULL.
    Element(&'v [u8], Option<Cow<'v, [u8]>>),
}

/// An array of the text format in pieces: they give the value, joined. `None` for what is none.
pub fn text_array(value: &[u8], delimiter: u8) -> Option<Vec<Piece<'_>>> {
    let begin = value.iter().position(|byte| *byte == b'{')?;
    // `[0:1]={…}` has its bounds first.
    let bounds = value.get(..begin)?;
    if !bounds.is_empty() && (!bounds.starts_with(b"[") || !bounds.ends_with(b"]=")) {
        return None;
    }
    let mut pieces = vec![Piece::Around(bounds)];
    let (mut rest, mut depth) = (value.get(begin..)?, 0_usize);
    while let Some(byte) = rest.first() {
        let around = match byte {
            b'{' => {
                depth += 1;
                true
            }
            b'}' => {
                depth = depth.checked_sub(1)?;
                true
            }
            byte => *byte == delimiter,
        };
        if around {
            let (piece, behind) = rest.split_at(1);
            pieces.push(Piece::Around(piece));
            rest = behind;
            if depth == 0 && !rest.is_empty() {
                return None;
            }
            continue;
        }
        let ends = |byte: u8| byte == delimiter || matches!(byte, b'{' | b'}');
        let (raw, text, behind) = element(rest, ends, false)?;
        let null = !raw.starts_with(b"\"") && raw.eq_ignore_ascii_case(b"null");
        pieces.push(Piece::Element(raw, (!null).then_some(text)));
        rest = behind;
    }
    (depth == 0).then_some(pieces)
}

/// A composite value of the text format in pieces. `None` for what is none.
pub fn text_composite(value: &[u8]) -> Option<Vec<Piece<'_>>> {
    let inner = value.strip_prefix(b"(")?.strip_suffix(b")")?;
    let mut pieces = vec![Piece::Around(value.get(..1)?)];
    let mut rest = inner;
    loop {
        let (raw, text, behind) = element(rest, |byte| byte == b',', true)?;
        pieces.push(Piece::Element(raw, (!raw.is_empty()).then_some(text)));
        let Some((comma, behind)) = behind.split_at_checked(1) else { break };
        pieces.push(Piece::Around(comma));
        rest = behind;
    }
    pieces.push(Piece::Around(value.get(value.len() - 1..)?));
    Some(pieces)
}

/// The bounds of a range, or of a multirange, of the text format. `None` for what is none.
pub fn text_ranges(value: &[u8]) -> Option<Vec<Cow<'_, [u8]>>> {
    if value == b"empty" {
        return Some(Vec::new());
    }
    let multi = value.strip_prefix(b"{").and_then(|value| value.strip_suffix(b"}"));
    let mut rest = multi.unwrap_or(value);
    let mut bounds = Vec::new();
    while !rest.is_empty() {
        rest = rest.strip_prefix(b"[").or_else(|| rest.strip_prefix(b"("))?;
        let ends = |byte: u8| matches!(byte, b',' | b']' | b')');
        let (raw, lower, behind) = element(rest, ends, true)?;
        bounds.extend((!raw.is_empty()).then_some(lower));
        let (raw, upper, behind) = element(behind.strip_prefix(b",")?, ends, true)?;
        bounds.extend((!raw.is_empty()).then_some(upper));
        rest = behind.strip_prefix(b"]").or_else(|| behind.strip_prefix(b")"))?;
        if !rest.is_empty() {
            rest = rest.strip_prefix(b",").filter(|_| multi.is_some())?;
        }
    }
    Some(bounds)
}

/// The element in front: as it is written, its text, and what is behind it. Quotes are doubled, or
/// behind a backslash.
#[expect(clippy::type_complexity, reason = "the parts are named in the documentation")]
fn element(
    text: &[u8],
    ends: impl Fn(u8) -> bool,
    doubled: bool,
) -> Option<(&[u8], Cow<'_, [u8]>, &[u8])> {
    let (mut quoted, mut at, mut plain) = (false, 0, true);
    let mut value = Vec::new();
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => {
                value.push(*text.get(at + 1)?);
                (at, plain) = (at + 1, false);
            }
            b'"' if quoted && doubled && text.get(at + 1) == Some(&b'"') => {
                value.push(b'"');
                at += 1;
            }
            b'"' => (quoted, plain) = (!quoted, false),
            byte if !quoted && ends(*byte) => break,
            byte => value.push(*byte),
        }
        at += 1;
    }
    if quoted {
        return None;
    }
    let (raw, behind) = text.split_at_checked(at)?;
    Some((raw, if plain { raw.into() } else { value.into() }, behind))
}

/// An element of an array or a composite value of the text format, in quotes.
pub fn put_quoted(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in value {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn elements(pieces: Vec<Piece<'_>>) -> Vec<Option<String>> {
        let element = |piece| match piece {
            Piece::Around(_) => None,
            Piece::Element(_, value) => {
                Some(value.map(|value| String::from_utf8(value.into_owned()).unwrap()))
            }
        };
        pieces.into_iter().filter_map(element).collect()
    }

    #[test]
    fn numbers_are_written_as_the_server_writes_them() {
        let binary = |count: u16, weight: i16, sign: u16, scale: u16, groups: &[u16]| {
            let head = [count, weight.cast_unsigned(), sign, scale];
            head.iter().chain(groups).flat_map(|two| two.to_be_bytes()).collect::<Vec<u8>>()
        };
        for (value, text) in [
            (binary(4, 3, 0, 0, &[4111, 1111, 1111, 1111]), "4111111111111111"),
            (binary(2, 3, 0, 2, &[4111, 1111]), "4111111100000000.00"),
            (binary(1, -1, 0x4000, 4, &[5]), "-0.0005"),
            (binary(2, 0, 0, 5, &[7, 5000]), "7.50000"),
            (binary(1, -2, 0, 6, &[1200]), "0.000012"),
            (binary(0, 0, 0, 0, &[]), "0"),
            (binary(0, 0, 0xc000, 0, &[]), "NaN"),
        ] {
            assert_eq!(numeric(&value).unwrap(), text);
        }
        assert!(numeric(&binary(2, 0, 0, 0, &[1])).is_err());
        assert!(numeric(&binary(1, i16::MAX, 0, u16::MAX, &[1])).unwrap().len() < 3_000);
    }

    #[test]
    fn text_is_taken_apart_as_the_server_puts_it_together() {
        let array = |text: &'static str| text_array(text.as_bytes(), b',').map(elements);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            array("{a,NULL,\"b \\\"c\\\\\",\"NULL\"}").unwrap(),
            [some("a"), None, some("b \"c\\"), some("NULL")]
        );
        assert_eq!(array("[0:1]={{1,2},{3,4}}").unwrap().len(), 4);
        assert_eq!(array("{}").unwrap().len(), 0);
        for none in ["", "{", "}", "{a}}", "{\"a}", "a{}", "{a}b"] {
            assert_eq!(array(none), None, "{none}");
        }
        let composite = |text: &'static str| text_composite(text.as_bytes()).map(elements);
        assert_eq!(
            composite("(1,\"a \"\"b\"\", \\\\c\",,\"\")").unwrap(),
            [some("1"), some("a \"b\", \\c"), None, some("")]
        );
        assert_eq!(composite("(a"), None);
        let bounds = |text: &'static str| text_ranges(text.as_bytes()).map(|bounds| bounds.len());
        for (text, count) in
            [("empty", 0), ("[1,2)", 2), ("(,\"a,b\"]", 1), ("{[1,2),[3,)}", 3), ("{}", 0)]
        {
            assert_eq!(bounds(text), Some(count), "{text}");
        }
        assert_eq!(bounds("[1,2),[3,4)"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_pieces_are_the_whole(
            value in prop::collection::vec(any::<u8>(), 0..64), text in "[{}()\\[\\],\"\\\\a:= ]{0,16}",
        ) {
            for value in [&value, text.as_bytes()] {
                let _ = (numeric(value), binary_range(value), binary_multirange(value), text_ranges(value));
                if let Ok(array) = BinaryArray::parse(value) {
                    let same: Vec<_> =
                        array.elements.iter().map(|element| element.map(Cow::Borrowed)).collect();
                    let written = array.with(&same).unwrap();
                    prop_assert_eq!(BinaryArray::parse(&written).unwrap().elements, array.elements);
                }
                if let Ok(fields) = binary_composite(value) {
                    let same: Vec<_> =
                        fields.iter().map(|(oid, value)| (*oid, value.map(Cow::Borrowed))).collect();
                    prop_assert_eq!(&put_composite(&same).unwrap(), value);
                }
                for pieces in [text_array(value, b','), text_composite(value)].into_iter().flatten() {
                    let raw = pieces.iter().flat_map(|piece| match piece {
                        Piece::Around(raw) | Piece::Element(raw, _) => raw.iter().copied(),
                    });
                    prop_assert_eq!(raw.collect::<Vec<u8>>(), value);
                }
            }
        }

        #[test]
        fn what_is_quoted_is_read_again(value in prop::collection::vec(any::<u8>(), 0..16)) {
            for (open, close) in [(b'{', b'}'), (b'(', b')')] {
                let mut text = vec![open];
                put_quoted(&value, &mut text);
                text.push(close);
                let pieces = if open == b'{' { text_array(&text, b',') } else { text_composite(&text) };
                let read = pieces.unwrap().into_iter().find_map(|piece| match piece {
                    Piece::Element(_, Some(value)) => Some(value.into_owned()),
                    _ => None,
                });
                prop_assert_eq!(read, Some(value.clone()));
            }
        }
    }
}
