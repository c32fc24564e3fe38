//! How people are reached: phone numbers and e-mail addresses, told from what looks like them.

use std::ops::Range;

use super::numbers::{digits, goes_on, is_first_of_listing, longest, stands_alone};
use super::pattern::Candidate;

/// Country calling codes of two digits (E.164); those of three begin with one of [`LONG_CODES`].
const CODES: &[u8] = &[
    20, 27, 30, 31, 32, 33, 34, 36, 39, 40, 41, 43, 44, 45, 46, 47, 48, 49, 51, 52, 53, 54, 55, 56,
    57, 58, 60, 61, 62, 63, 64, 65, 66, 81, 82, 84, 86, 90, 91, 92, 93, 94, 95, 98,
];
const LONG_CODES: &[u8] =
    &[21, 22, 23, 24, 25, 26, 29, 35, 37, 38, 42, 50, 59, 67, 68, 69, 80, 85, 87, 88, 96, 97, 99];

/// The shortest international number, and the longest (E.164).
const DIGITS: Range<usize> = 9..16;
/// The shortest number that a word announces.
const ANNOUNCED: Range<usize> = 7..16;

/// What announces a phone number, in any case.
const WORDS: &[&str] = &[
    "phone",
    "telephone",
    "telefono",
    "telefon",
    "tel",
    "mobile",
    "mobil",
    "handy",
    "cell",
    "fax",
    "whatsapp",
    "t\u{e9}l\u{e9}phone",
    "tel\u{e9}fono",
    "m\u{f3}vil",
    "\u{96fb}\u{8a71}",
];

/// A phone number: with its country's code, one of North America, or one that a word announces.
pub(super) fn phone(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let Candidate { before, found, .. } = candidate;
    if before.last().is_some_and(u8::is_ascii_digit) {
        return None;
    }
    let known = match found {
        [b'+', ..] => international(candidate, 0),
        [b'0', b'0', ..] => international(candidate, 2).filter(|range| {
            let listed = matches!(before, [.., d, b' ' | b'-' | b'.'] if d.is_ascii_digit());
            // Other digits that begin with zeros are any number. Groups of four are characters, or a
            // dump.
            let number = found.get(range.clone()).unwrap_or_default();
            let mut groups = number.split(|byte| !byte.is_ascii_digit());
            let country = groups.next().is_some_and(|group| (3..=5).contains(&group.len()));
            !listed && country && groups.any(|group| group.len() != 4)
        }),
        _ => north_american(candidate),
    };
    known.or_else(|| announced(candidate))
}

fn international(candidate: &Candidate<'_>, prefix: usize) -> Option<Range<usize>> {
    let joined = candidate.begins_in_word()
        || candidate.before.last().is_some_and(|byte| b"+_".contains(byte));
    if joined {
        return None;
    }
    longest(candidate, u8::is_ascii_digit, joins, |_, digits| {
        digits.get(prefix..).is_some_and(is_international)
    })
}

/// Whether a number goes on with a byte. An extension (`x12`, `ext. 12`) is none of it.
fn joins(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() && !matches!(byte, b'x' | b'e')
}

fn is_international(digits: &[u8]) -> bool {
    let [a, b, c, ..] = digits else { return false };
    let two = (a - b'0') * 10 + (b - b'0');
    match a {
        b'0' => false,
        b'1' => digits.len() == 11 && *b >= b'2' && digits.get(4).is_some_and(|d| *d >= b'2'),
        b'7' => digits.len() == 11,
        _ if CODES.contains(&two) => DIGITS.contains(&digits.len()),
        _ => LONG_CODES.contains(&two) && c.is_ascii_digit() && DIGITS.contains(&digits.len()),
    }
}

/// `(415) 555-2671`, `1-415-555-2671`, `415.555.2671`: separators are one kind.
#[expect(clippy::match_same_arms, reason = "each arm has its own reason")]
fn north_american(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let Candidate { before, found, .. } = candidate;
    let mut count = 0;
    let end = found.iter().position(|byte| {
        count += usize::from(byte.is_ascii_digit());
        let country = found.first() == Some(&b'1');
        count == if country { 11 } else { 10 }
    })? + 1;
    let (number, after) = (found.get(..end)?, candidate.behind(end));
    let shape: Vec<u8> =
        number.iter().map(|byte| if byte.is_ascii_digit() { b'0' } else { *byte }).collect();
    let shape = match shape.as_slice() {
        [b'0', b' ' | b'.' | b'-', rest @ ..] if number.first() == Some(&b'1') => rest,
        whole => whole,
    };
    let separator = match shape {
        [b'0', b'0', b'0', a, b'0', b'0', b'0', b, b'0', b'0', b'0', b'0'] if a == b => Some(*a),
        [b'(', b'0', b'0', b'0', b')', rest @ ..] => match rest {
            [b'0', b'0', b'0', _, b'0', b'0', b'0', b'0'] => None,
            [_, b'0', b'0', b'0', _, b'0', b'0', b'0', b'0'] => None,
            _ => return None,
        },
        _ => return None,
    };
    if separator.is_some_and(|separator| !b" .-".contains(&separator)) {
        return None;
    }
    let joined = candidate.begins_in_word()
        || before.last().is_some_and(|byte| b"-.+/_".contains(byte))
        || after.first().is_some_and(joins);
    // In parentheses it is in no list of numbers.
    let listed = match separator {
        None => goes_on(after, None),
        separator => {
            !stands_alone(before, after, separator)
                || is_first_of_listing(candidate, after, separator)
        }
    };
    let digits: Vec<u8> = digits(number).collect();
    let [area, b, c, exchange, ..] = digits.get(digits.len().checked_sub(10)?..)? else {
        return None;
    };
    let served = *area >= b'2' && *exchange >= b'2' && (*b, *c) != (b'1', b'1');
    (!joined && !listed && served).then_some(0..end)
}

/// The number after `phone: `.
fn announced(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let Candidate { found, .. } = candidate;
    const YEAR: usize = 4;
    let dated = |text: &[u8]| {
        let separated = |at: usize| text.get(at).is_some_and(|byte| b"-./".contains(byte));
        (separated(YEAR) && separated(YEAR + 3))
            || (separated(2)
                && separated(5)
                && text.get(6..10).is_some_and(|year| year.iter().all(u8::is_ascii_digit)))
    };
    if dated(found) || !candidate.is_announced(WORDS) {
        return None;
    }
    longest(candidate, u8::is_ascii_digit, joins, |_, digits| ANNOUNCED.contains(&digits.len()))
}

/// Ends of names of files and of systemd's units, which no address has.
const NO_DOMAINS: &[&str] = &[
    "automount",
    "bmp",
    "cfg",
    "cjs",
    "class",
    "conf",
    "css",
    "csv",
    "device",
    "diff",
    "dll",
    "exe",
    "gif",
    "gz",
    "htm",
    "html",
    "ico",
    "ini",
    "jar",
    "jpeg",
    "jpg",
    "js",
    "json",
    "jsx",
    "lock",
    "log",
    "map",
    "mjs",
    "mount",
    "mp4",
    "patch",
    "path",
    "pdf",
    "png",
    "scope",
    "scss",
    "service",
    "slice",
    "socket",
    "svg",
    "swap",
    "target",
    "tgz",
    "timer",
    "toml",
    "ts",
    "tsx",
    "txt",
    "webm",
    "webp",
    "whl",
    "xml",
    "yaml",
    "yml",
];
/// Domains after which a parenthesis calls no function.
const COMMON: &[&str] = &["com", "org", "net", "edu", "gov", "mil", "int", "info", "biz"];

/// Addresses of so many bytes are found among bytes that are no text: shorter ones come about by
/// chance.
const SURE: usize = 12;
/// So many bytes before a shorter one must be text.
const TEXT_BEFORE: usize = 4;

/// An e-mail address, of UTF-8 alone.
pub(super) fn email(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let found = candidate.found;
    let at = found.iter().position(|byte| *byte == b'@')?;
    let (local, domain) = (found.get(..at)?, found.get(at + 1..)?);
    // The letter of an escape (`\n`) is none of the name's.
    let escape =
        matches!((candidate.before.last(), local.first()), (Some(b'\\'), Some(b'n' | b'r' | b't')));
    let local = last_name(local.get(usize::from(escape)..)?)?;
    let end = at + 1 + longest_domain(valid(domain))?.len();
    let domain = std::str::from_utf8(found.get(at + 1..end)?).ok()?;
    let (names, top) = domain.rsplit_once('.')?;
    let after = candidate.found.get(end..).filter(|rest| !rest.is_empty());
    let next = after.unwrap_or(candidate.after).first();
    let is_top = top.chars().count() >= 2
        && (top.starts_with("xn--") || top.chars().all(char::is_alphabetic))
        && !NO_DOMAINS.iter().any(|end| top.eq_ignore_ascii_case(end));
    let calls = next == Some(&b'(') && top.len() > 2 && !COMMON.contains(&top);
    let mut labels = names.split('.');
    let numeric = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit());
    let version = labels.next().is_some_and(numeric)
        && labels.next().is_some_and(|label| label.starts_with(|c: char| c.is_ascii_digit()));
    let sound = names.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.chars().all(|c| c == '-' || c.is_alphanumeric())
    });
    // The account that serves repositories is nobody's address.
    let name = candidate.before.iter().chain(local).rev().take_while(|b| b.is_ascii_alphanumeric());
    let repository = matches!(next, Some(b':' | b'/')) && name.eq(b"git".iter().rev());
    if !is_top || !sound || calls || version || repository {
        return None;
    }
    let range = at - local.len()..end;
    let sure = range.len() >= SURE || is_in_text(candidate, range.start, next);
    sure.then_some(range)
}

/// The end of a text that is an address's name: of UTF-8, and beginning with a letter or a digit.
fn last_name(text: &[u8]) -> Option<&[u8]> {
    let sound = |text: &str| {
        text.chars().all(|c| c.is_ascii() || c.is_alphanumeric()) && text.starts_with(begins_name)
    };
    (0..text.len()).filter_map(|from| text.get(from..)).find(|text| {
        let first = text.first().is_some_and(|byte| byte & 0xc0 != 0x80);
        first && std::str::from_utf8(text).is_ok_and(sound)
    })
}

fn begins_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The start of a domain that is one: of UTF-8, and ending with a letter or a digit.
fn valid(domain: &[u8]) -> &[u8] {
    let text = match std::str::from_utf8(domain) {
        Ok(text) => text,
        Err(error) => {
            let valid = domain.get(..error.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(valid).unwrap_or_default()
        }
    };
    let foreign = |c: char| !c.is_ascii() && !c.is_alphanumeric();
    let text = text.split(foreign).next().unwrap_or_default();
    text.trim_end_matches(|c: char| !c.is_alphanumeric()).as_bytes()
}

/// The longest start of a text that ends with a top-level domain: what the expression would have found,
/// had the text ended there.
fn longest_domain(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    let mut end = text.len();
    loop {
        let (names, label) = text.get(..end)?.rsplit_once('.')?;
        let letters = match label.starts_with("xn--") {
            true => label.len(),
            false => label.find(|c: char| !c.is_alphabetic()).unwrap_or(label.len()),
        };
        if label.get(..letters).is_some_and(|top| top.chars().count() >= 2) {
            return text.get(..names.len() + 1 + letters);
        }
        end = names.len();
    }
}

/// Whether what is around an address is text.
fn is_in_text(candidate: &Candidate<'_>, start: usize, next: Option<&u8>) -> bool {
    let skipped = candidate.found.get(..start).unwrap_or_default();
    let before: Vec<u8> = candidate.before.iter().chain(skipped).copied().collect();
    let near = before.get(before.len().saturating_sub(TEXT_BEFORE)..).unwrap_or_default();
    let shows = |byte: u8| !byte.is_ascii_control() || byte.is_ascii_whitespace() || byte == 0x1b;
    // The first may be in the middle of a character.
    let whole = (0..near.len().min(4)).any(|from| {
        let cut = near.get(..from).unwrap_or_default();
        let rest = near.get(from..).unwrap_or_default();
        cut.iter().all(|byte| byte & 0xc0 == 0x80) && std::str::from_utf8(rest).is_ok()
    });
    (near.is_empty() || whole)
        && near.iter().all(|byte| shows(*byte))
        && next.is_none_or(|byte| shows(*byte))
}
