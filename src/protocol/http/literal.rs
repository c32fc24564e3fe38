//! Known secrets in what passes: a credential that a target sends back, a token that a client
//! sends on.
//!
//! A credential is replaced by as many stars, so lengths stay true. It is found as it is, as JSON
//! and URLs write it, in base64 and in hexadecimal; in other encodings it is not, and neither is
//! one that a target cuts over several events or several values of JSON. However a text is cut, the
//! same comes out: what could be the beginning of a secret waits for more.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::{Bytes, BytesMut};
use memchr::memmem::Finder;
use zeroize::Zeroizing;

/// Shorter texts are no secrets, and stand in everything.
pub(super) const SHORTEST: usize = 6;

/// Secrets, in each form that they are looked for in; the longest first.
#[derive(Default)]
pub(super) struct Literals(Vec<Zeroizing<Vec<u8>>>);

impl AsRef<Self> for Literals {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl fmt::Debug for Literals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Literals({})", self.0.len())
    }
}

impl Literals {
    /// A secret as it is.
    pub(super) fn exact(secret: &str) -> Self {
        Self::of([secret.as_bytes().to_vec()])
    }

    /// A secret in its usual forms. What a value of Basic authentication holds counts too.
    pub(super) fn every_form(secret: &str) -> Self {
        let mut forms = forms(secret);
        if let Some(inner) = STANDARD.decode(secret).ok().and_then(|b| String::from_utf8(b).ok())
            && let Some((_, password)) = inner.split_once(':')
        {
            forms.extend(self::forms(password));
        }
        Self::of(forms)
    }

    fn of(forms: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let long_enough = |form: &Vec<u8>| form.len() >= SHORTEST;
        let mut forms: Vec<_> = forms.into_iter().filter(long_enough).map(Zeroizing::new).collect();
        forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        forms.dedup();
        Self(forms)
    }

    /// Whether there is nothing to look for.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one stands in a whole text.
    pub(super) fn stand_in(&self, text: &[u8]) -> bool {
        // Most header fields are shorter than a token: for them nothing is prepared.
        let mut long_enough = self.0.iter().filter(|form| form.len() <= text.len());
        long_enough.any(|form| Finder::new(&**form).find(text).is_some())
    }

    /// Puts stars in the place of those in a whole text; gives how many bytes they were.
    pub(super) fn mask(&self, text: &mut [u8]) -> usize {
        let mut masked = 0;
        for form in &self.0 {
            let places: Vec<usize> = Finder::new(&**form).find_iter(text).collect();
            for at in places {
                if let Some(found) = text.get_mut(at..at + form.len()) {
                    found.fill(b'*');
                    masked += found.len();
                }
            }
        }
        masked
    }

    /// How many bytes at the end of a text could be the beginning of one.
    fn begun(&self, text: &[u8]) -> usize {
        let begun = |form: &Zeroizing<Vec<u8>>| {
            let most = form.len().saturating_sub(1).min(text.len());
            let (end, first) = (text.get(text.len() - most..)?, form.first()?);
            let begins = memchr::memchr_iter(*first, end);
            let mut ends = begins.filter_map(|at| end.get(at..));
            ends.find(|end| form.starts_with(end)).map(<[u8]>::len)
        };
        self.0.iter().filter_map(begun).max().unwrap_or(0)
    }
}

fn forms(secret: &str) -> Vec<Vec<u8>> {
    let json = serde_json::to_string(secret).unwrap_or_default();
    let json = json.trim_start_matches('"').strip_suffix('"').unwrap_or_default();
    let mut forms = vec![
        secret.as_bytes().to_vec(),
        json.as_bytes().to_vec(),
        json.replace('/', "\\/").into_bytes(),
        escaped(secret, b"-._~").into_bytes(),
        escaped(secret, b"-._~/").into_bytes(),
    ];
    // Of a short secret the digits would be as long as what is none.
    if secret.len() >= SHORTEST {
        for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
            forms.extend(["", "%"].map(|before| in_digits(secret, before, digits)));
        }
    }
    for shift in 0..3 {
        let mut shifted = Zeroizing::new(vec![0; shift]);
        shifted.extend_from_slice(secret.as_bytes());
        for engine in [STANDARD, URL_SAFE] {
            let text = engine.encode(&*shifted);
            // The first and last letters hold bits of the neighbours.
            let from = [0, 2, 3].get(shift).copied().unwrap_or(0);
            let to = shifted.len() / 3 * 4;
            forms.extend(text.as_bytes().get(from..to).map(<[u8]>::to_vec));
        }
    }
    forms
}

/// Each byte in two hexadecimal digits, with something before them.
fn in_digits(secret: &str, before: &str, digits: &[u8; 16]) -> Vec<u8> {
    let mut text = Vec::with_capacity(secret.len() * (before.len() + 2));
    for byte in secret.bytes() {
        text.extend_from_slice(before.as_bytes());
        let nibbles = [byte >> 4, byte & 15].map(usize::from);
        text.extend(nibbles.iter().filter_map(|nibble| digits.get(*nibble)));
    }
    text
}

/// So many bytes of a secret are no longer chance.
const TELLING: usize = 4;

/// Looks for secrets in messages that follow each other, and could hold one in pieces.
#[derive(Default)]
pub(super) struct Pieces {
    /// The end of what came, shorter than a secret.
    tail: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Pieces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pieces({})", self.tail.len())
    }
}

impl Pieces {
    /// Puts stars in the place of secrets in the next message, of the rest of one that began before
    /// it, and of the beginning of one at its end. Says whether a whole one was found. Nothing is held
    /// back: the first three bytes of one may pass where it comes byte by byte.
    pub(super) fn mask(&mut self, literals: &Literals, message: &mut [u8]) -> bool {
        let Some(longest) = literals.0.first().map(|form| form.len()) else { return false };
        let before = self.tail.len();
        let mut window = std::mem::take(&mut self.tail);
        window.extend_from_slice(message);
        let mut stars: Vec<(usize, usize)> = Vec::new();
        for form in &literals.0 {
            let found = Finder::new(&***form);
            stars.extend(found.find_iter(&window).map(|at| (at, at + form.len())));
        }
        let whole = !stars.is_empty();
        let begun = literals.begun(&window);
        if begun >= TELLING {
            stars.push((window.len() - begun, window.len()));
        }
        for (from, to) in stars {
            let (from, to) = (from.saturating_sub(before), to.saturating_sub(before));
            if let Some(found) = message.get_mut(from..to) {
                found.fill(b'*');
            }
        }
        let from = window.len().saturating_sub(longest - 1);
        self.tail = Zeroizing::new(window.get(from..).unwrap_or_default().to_vec());
        whole
    }
}

/// As URLs write it.
fn escaped(text: &str, kept: &[u8]) -> String {
    let escape = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || kept.contains(&byte) => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

/// Looks for secrets in a text that comes in chunks.
#[derive(Debug)]
pub(super) struct Scanner {
    literals: Arc<Literals>,
    held: BytesMut,
    found: bool,
}

impl Scanner {
    pub(super) fn new(literals: &Arc<Literals>) -> Self {
        Self { literals: Arc::clone(literals), held: BytesMut::new(), found: false }
    }

    /// What it looks for.
    pub(super) fn literals(&self) -> &Literals {
        &self.literals
    }

    /// Takes the next chunk; gives what is settled, masked.
    pub(super) fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.literals.is_empty() {
            return chunk;
        }
        if self.held.is_empty() && !self.literals.stand_in(&chunk) {
            let held = self.literals.begun(&chunk);
            let settled = chunk.len() - held;
            self.held.extend_from_slice(chunk.get(settled..).unwrap_or_default());
            return chunk.slice(..settled);
        }
        self.held.extend_from_slice(&chunk);
        self.found |= self.literals.mask(&mut self.held) > 0;
        let held = self.literals.begun(&self.held);
        self.held.split_to(self.held.len() - held).freeze()
    }

    /// Gives what was held back.
    pub(super) fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.held).freeze()
    }

    /// Whether anything was found.
    pub(super) fn found(&self) -> bool {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "s3cr3t/\"quoted\"+value";

    fn masked(text: &[u8], size: usize) -> Vec<u8> {
        let literals = Arc::new(Literals::every_form(SECRET));
        let mut scanner = Scanner::new(&literals);
        let mut out = Vec::new();
        for chunk in text.chunks(size.max(1)) {
            out.extend_from_slice(&scanner.push(Bytes::copy_from_slice(chunk)));
        }
        out.extend_from_slice(&scanner.finish());
        out
    }

    #[test]
    fn a_secret_is_found_in_its_usual_forms_however_it_is_cut() {
        let json = serde_json::json!({ "authorization": format!("Bearer {SECRET}") }).to_string();
        let slashed = json.replace('/', "\\/");
        let url = format!("?key={}&x=1", escaped(SECRET, b""));
        let base64 = STANDARD.encode(format!("user:{SECRET}!"));
        let digits = |before| String::from_utf8(in_digits(SECRET, before, b"0123456789abcdef"));
        let (hex, every) = (digits("").unwrap(), digits("%").unwrap().to_uppercase());
        let digits = format!("a {hex} b {every} c");
        for text in [format!("a {SECRET} b"), json, slashed, url, base64.clone(), digits] {
            for size in 1..text.len() {
                let out = masked(text.as_bytes(), size);
                assert_eq!(out.len(), text.len());
                let out = String::from_utf8(out).unwrap();
                assert!(out.contains("**********") && !out.contains("s3cr3t"), "{text}: {out}");
                assert!(!out.contains("7333") && !out.contains("%73"), "{text}: {out}");
                assert_eq!(out, String::from_utf8(masked(text.as_bytes(), usize::MAX)).unwrap());
            }
        }
        let decoded = STANDARD.decode(masked(base64.as_bytes(), 5)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&decoded).contains("quoted"));
    }

    #[test]
    fn a_secret_in_pieces_over_messages_is_masked_but_for_its_first_bytes() {
        let literals = Literals::every_form(SECRET);
        for size in 1..SECRET.len() {
            let mut pieces = Pieces::default();
            let (mut out, mut found) = (Vec::new(), false);
            for piece in format!("a {SECRET} b").as_bytes().chunks(size) {
                let mut message = piece.to_vec();
                found |= pieces.mask(&literals, &mut message);
                out.extend(message);
            }
            let out = String::from_utf8(out).unwrap();
            assert!(found && out.starts_with("a ") && out.ends_with(" b"), "{size}: {out}");
            assert!(!out.contains("3t/") && !out.contains("value"), "{size}: {out}");
        }
        let mut pieces = Pieces::default();
        let mut message = *b"s3c and other text";
        assert!(!pieces.mask(&literals, &mut message) && message == *b"s3c and other text");
    }

    #[test]
    fn the_password_in_a_basic_credential_is_one_too() {
        let literals = Literals::every_form(&STANDARD.encode("svc:long-password"));
        assert!(literals.stand_in(b"it is long-password."));
        assert!(Literals::every_form("abc").is_empty(), "too short to be told from text");
    }

    proptest! {
        #[test]
        fn other_texts_stay_as_they_are(
            text in "[a-z3\"/+ ]{0,60}",
            size in 1usize..9,
        ) {
            prop_assert_eq!(masked(text.as_bytes(), size), text.as_bytes());
        }
    }
}
