//! Tokens: other letters and digits in the places of a value's own.
//!
//! A permutation of all texts of one form, made from HMAC-SHA-256 by a Feistel network: the halves
//! of a text are shifted by turns, letter by letter, by what a keyed function gives for the other
//! half (the shape of FF1 in NIST SP 800-38G, with other functions). So different values have different
//! tokens, joins and counts are right, and nobody computes a token or its value without the key.
//! `policy harden` installs the same in SQL (`hardening/keyed.sql`); a test holds one against the other.

use aws_lc_rs::hmac;

use super::scanner::HashKey;
use super::value::hash;

/// How often the halves are shifted.
const ROUNDS: u8 = 8;
/// A longer text gets a hash: how long it is tells enough of it.
const LONGEST: usize = 1_000;

/// A text of the same form: digits, capitals and small letters of ASCII become others, everything
/// else of ASCII stays, and other characters become small letters. One with such characters shares
/// its token with another by chance alone.
pub(super) fn token(value: &[u8], key: &HashKey) -> Vec<u8> {
    let text = String::from_utf8_lossy(value);
    if text.chars().count() > LONGEST {
        return hash(value, key);
    }
    let plain: Vec<u8> = text.chars().map(in_ascii).collect();
    let tweak: &[u8] = if text.is_ascii() { &[] } else { value };
    permuted(plain, tweak, &key.of_tokens())
}

fn in_ascii(character: char) -> u8 {
    u8::try_from(character).ok().filter(u8::is_ascii).unwrap_or_else(|| {
        b'a' + u8::try_from(u32::from(character) % u32::from(SMALL.1)).unwrap_or_default()
    })
}

/// The first of a class of letters, and how many there are.
type Class = (u8, u8);
const SMALL: Class = (b'a', 26);

fn class(letter: u8) -> Option<Class> {
    match letter {
        b'0'..=b'9' => Some((b'0', 10)),
        b'A'..=b'Z' => Some((b'A', 26)),
        b'a'..=b'z' => Some(SMALL),
        _ => None,
    }
}

fn permuted(mut text: Vec<u8>, tweak: &[u8], key: &hmac::Key) -> Vec<u8> {
    let middle = text.len() / 2;
    for round in 0..ROUNDS {
        let (left, right) = text.split_at_mut(middle);
        let (shifted, other) = if round % 2 == 0 { (right, left) } else { (left, right) };
        let mut stream = Stream::new(round, other, tweak, key);
        for letter in shifted {
            let by = stream.next();
            if let Some((first, count)) = class(*letter) {
                let shifted =
                    (u16::from(*letter - first) + by % u16::from(count)) % u16::from(count);
                *letter = first + u8::try_from(shifted).unwrap_or_default();
            }
        }
    }
    text
}

/// Numbers that a keyed function gives: two bytes each, of blocks of 32.
struct Stream<'t> {
    round: u8,
    block: u8,
    input: [&'t [u8]; 2],
    key: &'t hmac::Key,
    bytes: Vec<u8>,
}

impl<'t> Stream<'t> {
    fn new(round: u8, other: &'t [u8], tweak: &'t [u8], key: &'t hmac::Key) -> Self {
        Self { round, block: 0, input: [other, tweak], key, bytes: Vec::new() }
    }

    fn next(&mut self) -> u16 {
        if self.bytes.is_empty() {
            let mut mac = hmac::Context::with_key(self.key);
            mac.update(&[self.round, self.block]);
            self.input.iter().for_each(|part| mac.update(part));
            self.bytes = mac.sign().as_ref().to_vec();
            self.bytes.reverse();
            // A text of a thousand letters takes 32 blocks.
            self.block = self.block.wrapping_add(1);
        }
        let mut byte = || self.bytes.pop().unwrap_or_default();
        u16::from_be_bytes([byte(), byte()])
    }
}
