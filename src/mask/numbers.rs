//! Numbers that carry a check: what tells a card from any sixteen digits.

use std::ops::Range;

/// Payment cards by issuer: first and last prefix of that many digits, and the lengths they have.
const CARDS: &[(u32, u32, u32, Range<usize>)] = &[
    (1, 4, 4, 13..20),
    (2, 51, 55, 16..17),
    (4, 2221, 2720, 16..17),
    (2, 34, 34, 15..16),
    (2, 37, 37, 15..16),
    (4, 6011, 6011, 16..20),
    (3, 644, 649, 16..20),
    (2, 65, 65, 16..20),
    (3, 300, 305, 14..20),
    (2, 36, 36, 14..20),
    (2, 38, 39, 14..20),
    (4, 3528, 3589, 16..20),
    (2, 62, 62, 16..20),
    (2, 50, 50, 13..20),
    (2, 56, 58, 13..20),
    (2, 63, 63, 13..20),
    (2, 67, 69, 13..20),
];

/// Countries with the length of their IBANs (ISO 13616).
const IBANS: &str = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18\
FR27GB22GE22GI23GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22\
MK19MR27MT31MU30NL18NO15PK24PL28PS29PT25QA29RO24RS22SA24SC31SD18SE24SI19SK24SM27ST25SV28TL23TN24TR26UA29VA22\
VG24XK20";

/// The longest start of the candidate that is a card's number: IIN, length and Luhn's sum hold.
pub(super) fn credit_card(
    before: Option<u8>,
    found: &[u8],
    after: Option<u8>,
) -> Option<Range<usize>> {
    if is_digit(before) {
        return None;
    }
    longest(found, after, u8::is_ascii_digit, |digits| {
        let prefix = |count: u32| {
            let leading = digits.iter().take(count as usize);
            leading.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
        };
        let issued = CARDS.iter().any(|(count, from, to, lengths)| {
            (*from..=*to).contains(&prefix(*count)) && lengths.contains(&digits.len())
        });
        issued && luhn(digits)
    })
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

/// The start of the candidate that is an IBAN: the country's length and the check digits hold.
pub(super) fn iban(before: Option<u8>, found: &[u8], after: Option<u8>) -> Option<Range<usize>> {
    if before.is_some_and(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    longest(found, after, u8::is_ascii_alphanumeric, |letters| {
        let country: Vec<u8> = letters.iter().take(2).map(u8::to_ascii_uppercase).collect();
        let length = IBANS.as_bytes().chunks(4).find_map(|entry| match entry {
            [a, b, tens, ones] if [*a, *b] == *country => {
                Some(usize::from(tens - b'0') * 10 + usize::from(ones - b'0'))
            }
            _ => None,
        });
        let (head, body) = letters.split_at(letters.len().min(4));
        let remainder = body.iter().chain(head).fold(0, |rest, letter| match letter {
            b'0'..=b'9' => (rest * 10 + u32::from(letter - b'0')) % 97,
            letter => (rest * 100 + u32::from(letter.to_ascii_uppercase() - b'A') + 10) % 97,
        });
        length == Some(letters.len()) && remainder == 1
    })
}

/// A social security number as the Social Security Administration gives them out.
pub(super) fn us_ssn(before: Option<u8>, found: &[u8], after: Option<u8>) -> Option<Range<usize>> {
    let joined = |byte: Option<u8>| is_digit(byte) || byte == Some(b'-');
    let [a, b, c, first, d, e, second, rest @ ..] = found else { return None };
    let area = [*a, *b, *c];
    let fits = first == second
        && area != *b"000"
        && area != *b"666"
        && *a != b'9'
        && [*d, *e] != *b"00"
        && rest != b"0000"
        && !joined(before)
        && !is_digit(after);
    fits.then_some(0..found.len())
}

/// A phone number with its country, or one of North America: 7 to 15 digits (E.164).
pub(super) fn phone(before: Option<u8>, found: &[u8], after: Option<u8>) -> Option<Range<usize>> {
    if is_digit(before) {
        return None;
    }
    longest(found, after, u8::is_ascii_digit, |digits| (7..=15).contains(&digits.len()))
}

fn is_digit(byte: Option<u8>) -> bool {
    byte.is_some_and(|byte| byte.is_ascii_digit())
}

/// The longest start of the candidate that ends with a whole number and holds up. Separators do
/// not count.
fn longest(
    found: &[u8],
    after: Option<u8>,
    counts: fn(&u8) -> bool,
    holds: impl Fn(&[u8]) -> bool,
) -> Option<Range<usize>> {
    let bare: Vec<u8> = found.iter().copied().filter(&counts).collect();
    let mut left = bare.len();
    for end in (1..=found.len()).rev() {
        let last = found.get(end - 1).filter(|byte| counts(byte));
        let next = found.get(end).copied().or(after.filter(|_| end == found.len()));
        if last.is_none() {
            continue;
        }
        if !next.is_some_and(|byte| counts(&byte)) && bare.get(..left).is_some_and(&holds) {
            return Some(0..end);
        }
        left -= 1;
    }
    None
}
