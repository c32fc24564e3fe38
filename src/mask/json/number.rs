//! Numbers as JSON writes them.

/// The most digits that a number is written out with: no pattern looks for longer ones.
const MOST_DIGITS: i32 = 64;

/// RFC 8259 section 6.
pub(super) fn is_number(word: &[u8]) -> bool {
    fn digits(text: &[u8]) -> (bool, &[u8]) {
        let end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        (end > 0, text.get(end..).unwrap_or_default())
    }
    let word = word.strip_prefix(b"-").unwrap_or(word);
    let (some, rest) = digits(word);
    if !some || (word.starts_with(b"0") && word.get(1).is_some_and(u8::is_ascii_digit)) {
        return false;
    }
    let rest = match rest.strip_prefix(b".") {
        None => rest,
        Some(fraction) => match digits(fraction) {
            (true, rest) => rest,
            (false, _) => return false,
        },
    };
    match rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        None => rest.is_empty(),
        Some(exponent) => {
            let sign = exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-"));
            matches!(digits(sign.unwrap_or(exponent)), (true, []))
        }
    }
}

/// A number that has a fraction or an exponent without the exponent, as programs may show it:
/// `4.111e3` is 4111. `None` for all others, and for those that are too long so.
pub(super) fn plain(number: &[u8]) -> Option<Vec<u8>> {
    let at = |found: fn(&u8) -> bool| number.iter().position(found);
    let exponent_at = at(|byte| matches!(byte, b'e' | b'E'));
    let end = exponent_at.unwrap_or(number.len());
    let point = number.iter().position(|byte| *byte == b'.').unwrap_or(end);
    if point == number.len() {
        return None;
    }
    let exponent: i32 = match exponent_at {
        Some(at) => std::str::from_utf8(number.get(at + 1..)?).ok()?.parse().ok()?,
        None => 0,
    };
    let digits = number.get(..end)?.iter().copied().filter(u8::is_ascii_digit);
    let mut digits: Vec<u8> = digits.collect();
    let before = number.get(..point)?.iter().filter(|byte| byte.is_ascii_digit()).count();
    let whole = i32::try_from(before).ok()?.checked_add(exponent)?;
    if !(1..=MOST_DIGITS).contains(&whole) {
        return None;
    }
    let whole = usize::try_from(whole).ok()?;
    digits.resize(digits.len().max(whole), b'0');
    let fraction = digits.split_off(whole);
    let zeros = fraction.iter().rev().take_while(|digit| **digit == b'0').count();
    let fraction = fraction.get(..fraction.len() - zeros).unwrap_or_default();
    if !fraction.is_empty() {
        digits.push(b'.');
        digits.extend_from_slice(fraction);
    }
    Some(digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_written_without_exponents() {
        for (number, expected) in [
            ("4.111e3", Some("4111")),
            ("4.111111111111111E+15", Some("4111111111111111")),
            ("-41111e-1", Some("4111.1")),
            ("41110e-1", Some("4111")),
            ("4111.0", Some("4111")),
            ("4111.50", Some("4111.5")),
            ("4111", None),
            ("1e-9", None),
            ("1e99", None),
            ("1e99999999999", None),
            ("true", None),
        ] {
            let plain = plain(number.as_bytes()).map(|plain| String::from_utf8(plain).unwrap());
            assert_eq!(plain.as_deref(), expected, "{number}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(number in "[-0-9.eE+]{0,80}") {
            let _ = plain(number.as_bytes());
        }
    }
}
