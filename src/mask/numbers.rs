//! Numbers that carry a check: what tells a card from any sixteen digits, and where in a text
//! digits are no number of their own.

use std::ops::Range;

use super::pattern::{Candidate, Pattern};

/// Payment cards by issuer: first and last prefix of that many digits, and the lengths they have.
/// Source: ISO/IEC 7812, and the ranges that the networks publish.
const CARDS: &[(u32, u32, u32, &[usize])] = &[
    // Visa
    (1, 4, 4, &[16, 19]),
    // Mastercard
    (2, 51, 55, &[16]),
    (4, 2221, 2720, &[16]),
    // American Express
    (2, 34, 34, &[15]),
    (2, 37, 37, &[15]),
    // Discover
    (4, 6011, 6011, &[16]),
    (3, 644, 649, &[16]),
    (2, 65, 65, &[16]),
    // Diners Club
    (3, 300, 305, &[14, 16]),
    (4, 3095, 3095, &[14, 16]),
    (2, 36, 36, &[14]),
    (2, 38, 39, &[14, 16]),
    // JCB
    (4, 3528, 3589, &[16, 19]),
    // UnionPay
    (2, 62, 62, &[16, 17, 18, 19]),
    (2, 81, 81, &[16]),
    // Maestro
    (4, 5018, 5018, &[16, 18, 19]),
    (4, 5020, 5020, &[16, 18, 19]),
    (4, 5038, 5038, &[16, 18, 19]),
    (4, 5893, 5893, &[16, 18, 19]),
    (4, 6304, 6304, &[16, 18, 19]),
    (4, 6759, 6763, &[16, 18, 19]),
    // Mir, RuPay, Troy
    (4, 2200, 2204, &[16, 19]),
    (2, 60, 60, &[16]),
    (4, 9792, 9792, &[16]),
];

/// Countries with the parts of their IBANs behind the check digits: how many letters (`a`), digits
/// (`n`) or either (`c`). Source: the SWIFT IBAN registry, ISO 13616.
const IBANS: &str = "\
AD n8c12 AE n19 AL n8c16 AT n16 AZ a4c20 BA n16 BE n12 BG a4n6c8 BH a4c14 BI n23 BR n23a1c1 BY c4n4c16 \
CH n5c12 CR n18 CY n8c16 CZ n20 DE n18 DJ n23 DK n14 DO c4n20 EE n16 EG n25 ES n20 FI n14 FK a2n12 FO n14 \
FR n10c11n2 GB a4n14 GE a2n16 GI a4c15 GL n14 GR n7c16 GT c20 HR n17 HU n24 IE a4n14 IL n19 IQ a4n15 IS n22 \
IT a1n10c12 JO a4n4c18 KW a4c22 KZ n3c13 LB n4c20 LC a4c24 LI n5c12 LT n16 LU n3c13 LV a4c13 LY n21 \
MC n10c11n2 MD c20 ME n18 MK n3c10n2 MN n16 MR n23 MT a4n5c18 MU a4n19a3 NI a4n20 NL a4n10 NO n11 OM n3c16 \
PK a4c16 PL n24 PS a4c21 PT n21 QA a4c21 RO a4c16 RS n18 RU n14c15 SA n2c18 SC a4n20a3 SD n14 SE n20 SI n15 \
SK n20 SM a1n10c12 SO n19 ST n21 SV a4n20 TL n19 TN n20 TR n6c16 UA n6c19 VA n18 VG a4n16 XK n16 YE a4n4c18";

/// How long a run of hexadecimal digits is in which decimal ones are no number.
const HEX_RUN: usize = 24;

/// A card's number: issuer, length, grouping and Luhn's sum hold, and it is no part of a longer or a
/// decimal number, of a hexadecimal one, or of a list of numbers.
pub(super) fn credit_card(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    if is_digit(candidate.before.last()) || is_fraction(candidate.before) {
        return None;
    }
    let groups = Groups::of(candidate.found)?;
    match groups.separator {
        None => bare_card(candidate),
        Some(separator) => grouped_card(candidate, &groups, separator),
    }
}

/// Digits alone. Nineteen of them are any 64-bit number; of the cards that long, only those are found
/// so that are widely issued.
fn bare_card(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let Candidate { before, found, after, .. } = candidate;
    let kept = is_digit(after.first())
        || goes_on_after_point(after)
        || matches!(before, [.., b'0', b'x' | b'X'])
        || is_in_hex(candidate)
        || ends_in_hex_and_hyphen(before)
        || (found.len() == 19 && !matches!(found, [b'5' | b'6', ..]))
        || !is_card(found);
    (!kept).then_some(0..found.len())
}

fn grouped_card(candidate: &Candidate<'_>, groups: &Groups, separator: u8) -> Option<Range<usize>> {
    let Candidate { before, found, .. } = candidate;
    if separator == b'-' && before.last() == Some(&b'-') && !is_word_and_hyphen(before) {
        return None;
    }
    let holds = |end: usize| {
        let rest = candidate.behind(end);
        let digits: Vec<u8> = digits(found.get(..end).unwrap_or_default()).collect();
        let goes_on = match rest {
            [b'-', next, ..] if next.is_ascii_digit() => true,
            [b'-', next, ..] if separator == b'-' => next.is_ascii_alphabetic() || is_mask(rest),
            [b'.', next, ..] => next.is_ascii_digit() || is_mask(rest),
            [byte, ..] => byte.is_ascii_digit(),
            [] => false,
        };
        let hex = separator == b'-' && rest.first().is_some_and(u8::is_ascii_hexdigit);
        let listed = separator == b' ' && is_listed(before, rest);
        !goes_on && !hex && !listed && is_card(&digits)
    };
    let end = match groups.lengths() {
        [4, 4, 4, 4, 3] if groups.uniform == 5 && holds(23) => 23,
        [4, 4, 4, 4, ..] if groups.uniform >= 4 && holds(19) => 19,
        [4, 6, 4 | 5] if groups.uniform == 3 && holds(found.len()) => found.len(),
        [4, 6, 5] if groups.uniform == 3 && holds(found.len() - 1) => found.len() - 1,
        _ => return None,
    };
    Some(0..end)
}

/// How digits are grouped.
struct Groups {
    separator: Option<u8>,
    lengths: [usize; 5],
    count: usize,
    /// How many groups have the first separator between them.
    uniform: usize,
}

impl Groups {
    fn of(found: &[u8]) -> Option<Self> {
        let separator = found.iter().copied().find(|byte| !byte.is_ascii_digit());
        let mut groups = Self { separator, lengths: [0; 5], count: 1, uniform: 1 };
        let mut even = true;
        for byte in found {
            if byte.is_ascii_digit() {
                *groups.lengths.get_mut(groups.count - 1)? += 1;
                continue;
            }
            even &= Some(*byte) == separator;
            groups.count += 1;
            groups.uniform += usize::from(even);
        }
        Some(groups)
    }

    fn lengths(&self) -> &[usize] {
        self.lengths.get(..self.count).unwrap_or_default()
    }
}

/// Whether groups of four are part of a row of such groups that are no cards: process numbers, dumps.
/// A year or a card's expiry may be beside it, or another card.
fn is_listed(before: &[u8], after: &[u8]) -> bool {
    let is_group = |group: &[u8]| group.len() == 4 && group.iter().all(u8::is_ascii_digit);
    let is_date = |group: &[u8]| match group {
        [b'1', b'9' | b'0'..=b'2', ..] | [b'2', b'0', ..] => true,
        [b'0', month, ..] => *month != b'0',
        _ => false,
    };
    let mut earlier = before.rsplit(|byte| *byte == b' ').skip(1).take_while(|g| is_group(g));
    let earlier = (earlier.next(), earlier.next());
    let mut later = after.split(|byte| *byte == b' ').skip(1).take_while(|g| is_group(g));
    let later = [later.next(), later.next(), later.next(), later.next()];
    let alone =
        |first: Option<&[u8]>, second: Option<&[u8]>| second.is_none() && first.is_none_or(is_date);
    let next: Vec<u8> = later.iter().flatten().copied().flatten().copied().collect();
    let listed_after = !alone(later[0], later[1]) && !is_card(&next);
    (before.ends_with(b" ") && !alone(earlier.0, earlier.1))
        || (after.starts_with(b" ") && listed_after)
}

fn is_card(digits: &[u8]) -> bool {
    let prefix = |count: u32| {
        let leading = digits.iter().take(count as usize);
        leading.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
    };
    let issued = CARDS.iter().any(|(count, from, to, lengths)| {
        lengths.contains(&digits.len()) && (*from..=*to).contains(&prefix(*count))
    });
    issued && luhn(digits)
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, u32::from(digit - b'0')) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => 2 * digit - 9,
            (_, digit) => 2 * digit,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// The start of the candidate that is an IBAN: the country's form and the check digits hold.
pub(super) fn iban(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    if candidate.begins_in_word() {
        return None;
    }
    let separator = candidate.found.iter().find(|byte| !byte.is_ascii_alphanumeric()).copied();
    let one = |part: &[u8]| {
        part.iter().all(|byte| byte.is_ascii_alphanumeric() || Some(*byte) == separator)
    };
    let counts = u8::is_ascii_alphanumeric;
    longest(candidate, counts, counts, |part, letters| one(part) && is_iban(letters))
}

fn is_iban(letters: &[u8]) -> bool {
    let [a, b, _, _, body @ ..] = letters else { return false };
    let country = [a.to_ascii_uppercase(), b.to_ascii_uppercase()];
    let mut words = IBANS.split(' ');
    let mut forms = std::iter::from_fn(|| Some((words.next()?, words.next()?)));
    let Some((_, form)) = forms.find(|(name, _)| name.as_bytes() == country) else { return false };
    let head = letters.get(..4).unwrap_or_default();
    let remainder = body.iter().chain(head).fold(0, |rest, letter| match letter {
        b'0'..=b'9' => (rest * 10 + u32::from(letter - b'0')) % 97,
        letter => (rest * 100 + u32::from(letter.to_ascii_uppercase() - b'A') + 10) % 97,
    });
    has_form(body, form.as_bytes()) && remainder == 1
}

/// Whether letters and digits are as a form (`a4n14`) says.
fn has_form(mut body: &[u8], mut form: &[u8]) -> bool {
    while let Some((kind, rest)) = form.split_first() {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (count, rest) = rest.split_at(digits);
        let count = count.iter().fold(0, |count, digit| count * 10 + usize::from(digit - b'0'));
        let Some((part, behind)) = body.split_at_checked(count) else { return false };
        let fits = part.iter().all(|byte| match kind {
            b'n' => byte.is_ascii_digit(),
            b'a' => byte.is_ascii_alphabetic(),
            _ => byte.is_ascii_alphanumeric(),
        });
        if !fits {
            return false;
        }
        (body, form) = (behind, rest);
    }
    body.is_empty()
}

/// A social security number as the Social Security Administration gives them out, or a taxpayer's
/// as the Internal Revenue Service does; after a word that announces one, any that has their form.
pub(super) fn us_ssn(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    const WORDS: &[&str] =
        &["ssn", "itin", "social security", "social_security", "social-security"];
    let Candidate { before, found, after, .. } = candidate;
    let digits: Vec<u8> = digits(found).collect();
    let mut separators = found.iter().copied().filter(|byte| !byte.is_ascii_digit());
    let (first, second) = (separators.next(), separators.next());
    if first != second || !is_numbered(&digits) || is_digit(before.last()) {
        return None;
    }
    let own = first.is_some()
        && stands_alone(before, after, first)
        && !is_first_of_listing(candidate, after, first)
        && is_issued(&digits);
    let holds = own || (!goes_on(after, None) && candidate.is_announced(WORDS));
    holds.then_some(0..found.len())
}

/// Whether no part of a number is empty.
fn is_numbered(digits: &[u8]) -> bool {
    let part = |range: Range<usize>| digits.get(range).unwrap_or_default();
    part(0..3) != b"000" && part(3..5) != b"00" && part(5..9) != b"0000"
}

fn is_issued(digits: &[u8]) -> bool {
    let [a, b, c, d, e, ..] = digits else { return false };
    let group = (d - b'0') * 10 + (e - b'0');
    let area = [*a, *b, *c] != *b"666" && *a != b'9';
    // Areas from 900 on are taxpayers' numbers (ITIN), which have these groups.
    let taxpayer = *a == b'9' && matches!(group, 50..=65 | 70..=88 | 90..=92 | 94..=99);
    is_numbered(digits) && (area || taxpayer)
}

/// Whether a number with these separators is one of its own, and no part of a longer one, of a
/// decimal one, or of a list of numbers.
pub(super) fn stands_alone(before: &[u8], after: &[u8], separator: Option<u8>) -> bool {
    let joined = match before {
        [.., byte] if byte.is_ascii_digit() => true,
        [.., b'-'] => separator == Some(b'-'),
        [.., byte, b'.'] => byte.is_ascii_digit(),
        [.., byte, b' '] => separator == Some(b' ') && byte.is_ascii_digit(),
        _ => false,
    };
    !joined && !goes_on(after, separator)
}

/// Whether a number with spaces in it begins a line that goes on: the numbers of a listing do.
pub(super) fn is_first_of_listing(
    candidate: &Candidate<'_>,
    after: &[u8],
    separator: Option<u8>,
) -> bool {
    separator == Some(b' ') && after.starts_with(b" ") && candidate.begins_line()
}

/// Whether more of a number follows. In a list that may be a number's mask.
pub(super) fn goes_on(after: &[u8], separator: Option<u8>) -> bool {
    match after {
        [byte, ..] if byte.is_ascii_digit() => true,
        [b'-' | b'.', byte, ..] if byte.is_ascii_digit() => true,
        [b' ', byte, ..] if byte.is_ascii_digit() => separator == Some(b' '),
        [b' ', ..] => separator == Some(b' ') && is_mask(after),
        _ => is_mask(after),
    }
}

/// Whether a separator and a mask follow.
fn is_mask(after: &[u8]) -> bool {
    let [b' ' | b'-' | b'.', b'[', rest @ ..] = after else { return false };
    Pattern::names().any(|name| rest.starts_with(name.as_bytes()))
}

fn is_digit(byte: Option<&u8>) -> bool {
    byte.is_some_and(u8::is_ascii_digit)
}

pub(super) fn digits(text: &[u8]) -> impl Iterator<Item = u8> {
    text.iter().copied().filter(u8::is_ascii_digit)
}

/// What a text ends with that is a decimal number's, up to its point.
fn is_fraction(before: &[u8]) -> bool {
    matches!(before, [.., digit, b'.'] if digit.is_ascii_digit())
}

/// Whether digits behind a point follow that are more than zeros, as programs write them that take
/// numbers for floating ones.
fn goes_on_after_point(after: &[u8]) -> bool {
    const ZEROS: usize = 6;
    let Some(fraction) = after.strip_prefix(b".") else { return false };
    let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let zeros = fraction.iter().take_while(|byte| **byte == b'0').count();
    digits > 0 && (zeros < digits || zeros > ZEROS)
}

/// Whether digits are within a long run of hexadecimal ones.
fn is_in_hex(candidate: &Candidate<'_>) -> bool {
    let word = |byte: &&u8| byte.is_ascii_alphanumeric();
    let run = candidate.before.iter().rev().take_while(word);
    let run: Vec<u8> = run.chain(candidate.after.iter().take_while(word)).copied().collect();
    run.len() + candidate.found.len() >= HEX_RUN
        && run.iter().all(u8::is_ascii_hexdigit)
        && run.iter().any(u8::is_ascii_alphabetic)
}

/// Whether a word of hexadecimal digits with a letter and a digit, and a hyphen, are before: the
/// rest of a UUID.
fn ends_in_hex_and_hyphen(before: &[u8]) -> bool {
    let Some(before) = before.strip_suffix(b"-") else { return false };
    let length = before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let word = before.get(before.len() - length..).unwrap_or_default();
    word.iter().all(u8::is_ascii_hexdigit)
        && word.iter().any(u8::is_ascii_digit)
        && word.iter().any(u8::is_ascii_alphabetic)
}

/// Whether letters that are no hexadecimal digits, and a hyphen, are before: `card-`.
fn is_word_and_hyphen(before: &[u8]) -> bool {
    let before = before.strip_suffix(b"-").unwrap_or_default();
    let word = before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric());
    let mut word = word.peekable();
    word.peek().is_none() || word.any(|byte| !byte.is_ascii_hexdigit())
}

/// The longest start of the candidate that ends with a whole number (nothing that `joins` follows) and
/// holds up: given as it is written, and without separators.
pub(super) fn longest(
    candidate: &Candidate<'_>,
    counts: fn(&u8) -> bool,
    joins: fn(&u8) -> bool,
    holds: impl Fn(&[u8], &[u8]) -> bool,
) -> Option<Range<usize>> {
    let found = candidate.found;
    let bare: Vec<u8> = found.iter().copied().filter(&counts).collect();
    let mut left = bare.len();
    for end in (1..=found.len()).rev() {
        if found.get(end - 1).filter(|byte| counts(byte)).is_none() {
            continue;
        }
        let next = candidate.behind(end).first();
        let (part, letters) = (found.get(..end), bare.get(..left));
        if !next.is_some_and(joins)
            && part.zip(letters).is_some_and(|(part, letters)| holds(part, letters))
        {
            return Some(0..end);
        }
        left -= 1;
    }
    None
}
