//! Whole values that a mask names: what stands in their place.

use super::action::Action;
use super::scanner::{HashKey, domain, keep};
use super::token::token;

/// How many letters and digits `partial` leaves, and from how many on it leaves any.
const KEPT: usize = 4;
const KEPT_FROM: usize = 8;
/// Longer values are no addresses.
const LONGEST_ADDRESS: usize = 320;

/// What stands in the place of a value that is masked whole; `None` is NULL.
///
/// `redact` gives `[masked]`, `hash` a keyed hash, the same for the same value. `partial` leaves
/// the last four letters and digits of eight or more, and of an e-mail address the first character
/// and the domain; how long the value is shows, too. `tokenize` gives a text of the same form.
pub fn whole_value(action: Action, value: &[u8], key: &HashKey) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len().clamp(8, 64));
    match action {
        // Numbers and times are masked so where the server computes; here there is no text for it.
        Action::Null | Action::Bucket(_) => return None,
        Action::Tokenize => return Some(token(value, key)),
        Action::Hash => return Some(hash(value, key)),
        Action::Redact => out.extend(REDACTED.as_bytes()),
        Action::Partial if is_address(value) => domain(value, &mut out),
        Action::Partial => {
            let count = value.iter().filter(|byte| byte.is_ascii_alphanumeric()).count();
            if value.is_ascii() && count >= KEPT_FROM {
                keep(value, 0, KEPT, &mut out);
            } else {
                out.extend(value.iter().filter(|byte| starts_character(**byte)).map(|_| b'*'));
            }
        }
    }
    Some(out)
}

pub(super) fn hash(value: &[u8], key: &HashKey) -> Vec<u8> {
    let mut out = b"[masked:".to_vec();
    out.extend(HashKey::form(&key.hash(value)));
    out.push(b']');
    out
}

/// What stands in the place of a value of which nothing may be seen.
pub const REDACTED: &str = "[masked]";

fn is_address(value: &[u8]) -> bool {
    let at = value.iter().position(|byte| *byte == b'@');
    let domain = at.and_then(|at| value.get(at + 1..));
    value.len() <= LONGEST_ADDRESS
        && at.is_some_and(|at| at > 0)
        && domain.is_some_and(|domain| {
            domain.contains(&b'.')
                && domain.iter().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-') || *byte > 0x7f
                })
        })
}

/// Whether a byte is not within a character of UTF-8.
fn starts_character(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masked(action: Action, value: &str) -> String {
        let masked = whole_value(action, value.as_bytes(), &HashKey::new([7; 32]));
        masked.map_or("NULL".to_owned(), |masked| String::from_utf8(masked).unwrap())
    }

    #[test]
    fn values_are_masked_whole() {
        for (action, value, expected) in [
            (Action::Null, "alice", "NULL"),
            (Action::Redact, "alice", "[masked]"),
            (Action::Partial, "alice.secret@example.com", "a***@example.com"),
            (Action::Partial, "a@example.com", "***@example.com"),
            (Action::Partial, "078-05-1120", "***-**-1120"),
            (Action::Partial, "4111 1111 1111 1111", "**** **** **** 1111"),
            (Action::Partial, "Alice", "*****"),
            (Action::Partial, "Zoë Müller", "**********"),
            (Action::Partial, "me@here or there", "**@**** ** *here"),
            (Action::Partial, "", ""),
        ] {
            assert_eq!(masked(action, value), expected, "{value}");
        }
    }

    #[test]
    fn a_hash_is_the_same_for_the_same_value_and_key_alone() {
        let hash = masked(Action::Hash, "alice");
        assert_eq!(hash, masked(Action::Hash, "alice"));
        assert_ne!(hash, masked(Action::Hash, "bob"));
        let other = whole_value(Action::Hash, b"alice", &HashKey::new([8; 32])).unwrap();
        assert_ne!(hash.as_bytes(), other);
    }

    proptest! {
        #[test]
        fn what_is_left_is_text_and_at_most_four_characters(value in "\\PC{0,40}") {
            let left = masked(Action::Partial, &value);
            if !value.contains('@') {
                let seen = left.chars().filter(char::is_ascii_alphanumeric).count();
                prop_assert!(seen <= KEPT, "{left}");
            }
        }
    }
}
