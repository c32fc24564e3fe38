//! The names of a form, read byte by byte.

use super::super::hex;
use super::asks;

/// How much of a name is kept: more than any that counts has behind what stands in front of it.
const MAX_NAME: usize = 64;

/// A form that is being read.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// The beginning of the name, with its escapes undone.
    name: Vec<u8>,
    escape: Escape,
    in_value: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum Escape {
    #[default]
    None,
    /// Behind the sign.
    Sign,
    /// Behind its first digit.
    Digit(u8),
}

impl Form {
    /// Goes on to the sign behind the next name that asks; to the end where there is none.
    pub(super) fn finds(&mut self, rest: &mut &[u8]) -> bool {
        while let Some((byte, behind)) = rest.split_first() {
            if self.in_value {
                let Some(end) = memchr::memchr2(b'&', b';', rest) else { break };
                *rest = rest.get(end + 1..).unwrap_or_default();
                self.in_value = false;
                continue;
            }
            if matches!(byte, b'&' | b';' | b'=') {
                self.flush();
                self.in_value = true;
                let found = asks(&self.name);
                self.name.clear();
                if found {
                    return true;
                }
                continue;
            }
            *rest = behind;
            self.byte(*byte);
        }
        *rest = &[];
        false
    }

    /// Whether the last name asks, where nothing follows.
    pub(super) fn ends_asking(&self) -> bool {
        !self.in_value && asks(&self.name)
    }

    fn byte(&mut self, byte: u8) {
        match (self.escape, hex(byte)) {
            (Escape::Sign, Some(_)) => self.escape = Escape::Digit(byte),
            (Escape::Digit(high), Some(low)) => {
                self.escape = Escape::None;
                self.push(hex(high).unwrap_or_default() << 4 | low);
            }
            _ => {
                self.flush();
                match byte {
                    b'%' => self.escape = Escape::Sign,
                    b'+' => self.push(b' '),
                    byte => self.push(byte),
                }
            }
        }
    }

    /// What began like an escape and is none stands for itself.
    fn flush(&mut self) {
        match std::mem::take(&mut self.escape) {
            Escape::None => {}
            Escape::Sign => self.push(b'%'),
            Escape::Digit(digit) => {
                self.push(b'%');
                self.push(digit);
            }
        }
    }

    fn push(&mut self, byte: u8) {
        let blank = byte.is_ascii_whitespace() || byte.is_ascii_control();
        if blank && self.name.is_empty() {
            return;
        }
        // Of brackets in front one counts as much as a hundred, and two not as one.
        let bracket = |byte: u8| matches!(byte, b'[' | b']');
        if bracket(byte) && self.name.len() >= 2 && self.name.iter().all(|byte| bracket(*byte)) {
            return;
        }
        if self.name.len() < MAX_NAME {
            self.name.push(byte);
        }
    }
}
