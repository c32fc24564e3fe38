//! The names of members of JSON, read byte by byte.
//!
//! What stands between any two quotation marks counts as a string: readers that allow comments may
//! begin strings at others than strict ones do.

use super::FIELD;

/// How much of a string is kept.
const MAX_NAME: usize = 16;
/// Stands for what is no letter of the name.
const OTHER: u8 = 0xff;

/// A document that is being read.
#[derive(Debug, Default)]
pub(super) struct Keys {
    text: Vec<u8>,
    escape: Escape,
    /// Behind the name, where a colon makes it one.
    behind: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum Escape {
    #[default]
    None,
    /// Behind the backslash.
    Sign,
    /// Behind `\u`, and so many digits.
    Unicode(u32, u8),
}

impl Keys {
    /// Goes on to what stands behind the next name that asks; to the end where there is none.
    pub(super) fn finds(&mut self, rest: &mut &[u8]) -> bool {
        while let Some((byte, behind)) = rest.split_first() {
            if self.behind && byte.is_ascii_whitespace() {
                *rest = behind;
                continue;
            }
            if self.behind {
                self.behind = false;
                if !matches!(byte, b',' | b']' | b'}' | b'"') {
                    return true;
                }
            }
            if self.text.len() >= MAX_NAME && matches!(self.escape, Escape::None) {
                let next = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                if next > 0 {
                    *rest = rest.get(next..).unwrap_or_default();
                    continue;
                }
            }
            *rest = behind;
            self.byte(*byte);
        }
        false
    }

    fn byte(&mut self, byte: u8) {
        match (self.escape, byte) {
            (Escape::None, b'"') => {
                self.behind = self.text.eq_ignore_ascii_case(FIELD.as_bytes());
                self.text.clear();
            }
            (Escape::None, b'\\') => self.escape = Escape::Sign,
            (Escape::None, byte) => self.push(byte),
            (Escape::Sign, b'u') => self.escape = Escape::Unicode(0, 0),
            (Escape::Sign, _) => {
                self.escape = Escape::None;
                self.push(OTHER);
            }
            (Escape::Unicode(code, digits), byte) => {
                let Some(digit) = char::from(byte).to_digit(16) else {
                    self.escape = Escape::None;
                    return self.byte(byte);
                };
                let code = code << 4 | digit;
                self.escape = Escape::Unicode(code, digits + 1);
                if digits == 3 {
                    self.escape = Escape::None;
                    self.push(u8::try_from(code).unwrap_or(OTHER));
                }
            }
        }
    }

    fn push(&mut self, byte: u8) {
        if self.text.len() < MAX_NAME {
            self.text.push(byte);
        }
    }
}
