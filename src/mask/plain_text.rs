//! Text in no grammar that masks read: prose, HTML, XML, YAML, CSV, logs. Patterns are masked in it;
//! a text in which a mask could not be applied is refused.
//!
//! Refused are: what is no text at all (binary formats hold numbers and pieces of strings that no
//! pattern finds), a text that holds the name of a masked field (its value may stand beside it, in a
//! grammar that is not read), and a text in which a pattern matches only behind escapes (`&#64;`,
//! `\u0040`, `%40`).
//!
//! Honest limits: values in base64, and named entities of HTML other than those of punctuation, are
//! not seen.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;

use super::json::NotMasked;
use super::plan::{MaskPlan, Masked, Texts};

/// How much of what passed is looked at again with what comes next, in bytes: longer than any
/// name of a field that is looked for, and any match of a pattern, in escapes.
const OVERLAP: usize = 2 << 10;
/// How often escapes are undone within escapes.
const MOST_ROUNDS: usize = 3;

/// Masks such a text, however it is cut into chunks.
#[derive(Debug)]
pub struct PlainText {
    plan: Arc<MaskPlan>,
    texts: Texts,
    /// Names of masked fields, in lower case; none where any text could hold one.
    names: Option<Vec<Vec<u8>>>,
    /// Bytes above 127 are characters by themselves.
    single_byte: bool,
    /// The beginning of a character.
    begun: Vec<u8>,
    /// The end of what was looked at.
    overlap: Vec<u8>,
}

impl PlainText {
    /// At the beginning of a text, in UTF-8, or where `single_byte` in a charset of the Latin family.
    pub fn new(plan: &Arc<MaskPlan>, single_byte: bool) -> Self {
        Self {
            plan: Arc::clone(plan),
            texts: plan.texts(),
            names: plan.field_names(),
            single_byte,
            begun: Vec::new(),
            overlap: Vec::new(),
        }
    }

    /// Takes the next chunk, and gives what can be given of the text.
    pub fn push(&mut self, chunk: &Bytes) -> Result<Masked, NotMasked> {
        self.check_text(chunk)?;
        let mut window = std::mem::take(&mut self.overlap);
        window.extend_from_slice(chunk);
        self.check_window(&window)?;
        let from = window.len().saturating_sub(OVERLAP);
        window.drain(..from);
        self.overlap = window;
        Ok(self.texts.push(chunk))
    }

    /// Gives the rest.
    pub fn finish(self) -> Result<Masked, NotMasked> {
        match self.begun.is_empty() {
            true => Ok(self.texts.finish()),
            false => Err(NotMasked::Binary),
        }
    }

    /// Holds that these bytes are characters.
    fn check_text(&mut self, chunk: &[u8]) -> Result<(), NotMasked> {
        if chunk.iter().any(|byte| is_binary(*byte)) {
            return Err(NotMasked::Binary);
        }
        if self.single_byte {
            return Ok(());
        }
        let mut bytes = Cow::Borrowed(chunk);
        if !self.begun.is_empty() {
            let mut whole = std::mem::take(&mut self.begun);
            whole.extend_from_slice(chunk);
            bytes = Cow::Owned(whole);
        }
        match std::str::from_utf8(&bytes) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                self.begun = bytes.get(error.valid_up_to()..).unwrap_or_default().to_vec();
                Ok(())
            }
            Err(_) => Err(NotMasked::Binary),
        }
    }

    fn check_window(&self, window: &[u8]) -> Result<(), NotMasked> {
        self.check_names(window)?;
        let mut text = Cow::Borrowed(window);
        for _ in 0..MOST_ROUNDS {
            let Some(plain) = unescaped(&text) else { return Ok(()) };
            self.check_names(&plain)?;
            let found = |text: &[u8]| {
                let [_, stored] = self.plan.maskers();
                stored.and_then(|masker| masker.find(text)).map_or(0, |(_, found)| found)
            };
            if found(&plain) > found(window) {
                return Err(NotMasked::Escaped);
            }
            text = Cow::Owned(plain);
        }
        // It goes on and on: nobody knows what it means in the end.
        match unescaped(&text) {
            Some(_) => Err(NotMasked::Escaped),
            None => Ok(()),
        }
    }

    fn check_names(&self, text: &[u8]) -> Result<(), NotMasked> {
        match &self.names {
            // Any name is one of a masked field.
            None if text.is_empty() => Ok(()),
            None => Err(NotMasked::NamesField),
            Some(names) if names.is_empty() => Ok(()),
            Some(names) => {
                let text = text.to_ascii_lowercase();
                match names.iter().any(|name| memmem::find(&text, name).is_some()) {
                    true => Err(NotMasked::NamesField),
                    false => Ok(()),
                }
            }
        }
    }
}

/// Masks a whole text.
pub fn plain_text(plan: &Arc<MaskPlan>, text: &Bytes) -> Result<Masked, NotMasked> {
    let mut plain = PlainText::new(plan, false);
    let first = plain.push(text)?;
    Ok(first.joined(&plain.finish()?))
}

/// Control characters that stand in no text; escape sequences of terminals do.
fn is_binary(byte: u8) -> bool {
    matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f | 0x7f)
}

/// Entities of HTML for punctuation that patterns look for.
const ENTITIES: &[(&[u8], u8)] = &[
    (b"amp;", b'&'),
    (b"colon;", b':'),
    (b"commat;", b'@'),
    (b"dash;", b'-'),
    (b"equals;", b'='),
    (b"hyphen;", b'-'),
    (b"lowbar;", b'_'),
    (b"nbsp;", b' '),
    (b"num;", b'#'),
    (b"percnt;", b'%'),
    (b"period;", b'.'),
    (b"plus;", b'+'),
    (b"quot;", b'"'),
    (b"sol;", b'/'),
    (b"UnderBar;", b'_'),
];

/// A text with its escapes undone once, those of YAML, JSON and programs (`\u0040`), of URLs
/// (`%40`) and of XML and HTML (`&#64;`); `None` where there are none.
fn unescaped(text: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr3(b'\\', b'%', b'&', text)?;
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut found = false;
    while let Some((byte, behind)) = rest.split_first() {
        let escape = match byte {
            b'\\' => backslash(behind),
            b'%' => digits(behind, 2, 2, 16),
            b'&' => entity(behind),
            _ => None,
        };
        rest = match escape {
            Some((character, length)) => {
                found = true;
                let mut buffer = [0; 4];
                if let Some(character) = character.and_then(char::from_u32) {
                    plain.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
                }
                behind.get(length..).unwrap_or_default()
            }
            None => {
                plain.push(*byte);
                behind
            }
        };
    }
    found.then_some(plain)
}

/// What an escape stands for, if for anything, and how long the rest of it is.
type Escape = Option<(Option<u32>, usize)>;

fn backslash(behind: &[u8]) -> Escape {
    let (kind, rest) = behind.split_first()?;
    let (character, length) = match kind {
        b'x' => digits(rest, 2, 2, 16)?,
        b'u' => match rest.strip_prefix(b"{") {
            Some(braced) => digits(braced, 1, 6, 16).map(|(code, length)| (code, length + 2))?,
            None => digits(rest, 4, 4, 16)?,
        },
        b'U' => digits(rest, 8, 8, 16)?,
        b'0'..=b'3' => digits(behind, 3, 3, 8).map(|(code, length)| (code, length - 1))?,
        // A line that goes on in the next one, behind its indentation.
        b'\n' | b'\r' => {
            let blank = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n');
            (None, rest.iter().take_while(blank).count())
        }
        _ => return None,
    };
    Some((character, length + 1))
}

fn entity(behind: &[u8]) -> Escape {
    let Some(number) = behind.strip_prefix(b"#") else {
        let named = ENTITIES.iter().find(|(name, _)| behind.starts_with(name));
        return named.map(|(name, byte)| (Some(u32::from(*byte)), name.len()));
    };
    let (hexadecimal, number) = match number.split_first() {
        Some((b'x' | b'X', number)) => (true, number),
        _ => (false, number),
    };
    let (code, length) = digits(number, 1, 8, if hexadecimal { 16 } else { 10 })?;
    let semicolon = usize::from(number.get(length) == Some(&b';'));
    Some((code, 1 + usize::from(hexadecimal) + length + semicolon))
}

fn digits(text: &[u8], least: usize, most: usize, radix: u32) -> Escape {
    let is_digit = |byte: &&u8| char::from(**byte).is_digit(radix);
    let length = text.iter().take(most).take_while(is_digit).count();
    if length < least {
        return None;
    }
    let digits = std::str::from_utf8(text.get(..length)?).ok()?;
    Some((u32::from_str_radix(digits, radix).ok(), length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Pattern;
    use super::super::action::Action;
    use super::super::plan::{Enforce, Mask, Masks};
    use super::super::scanner::HashKey;
    use super::*;

    fn plan(fields: &[&str]) -> Arc<MaskPlan> {
        let mask = Mask {
            name: "m".into(),
            targets: None,
            columns: Vec::new(),
            fields: fields.iter().map(|field| field.parse().unwrap()).collect(),
            patterns: vec![Pattern::built_in("email").unwrap()],
            with: Action::Redact,
            unless_groups: Vec::new(),
            enforce: Enforce::default(),
        };
        Arc::new(Masks::new(vec![mask]).for_session("crew", &[], &HashKey::new([7; 32])))
    }

    fn masked(fields: &[&str], text: &[u8], size: usize) -> Result<String, NotMasked> {
        let mut plain = PlainText::new(&plan(fields), false);
        let mut out = Vec::new();
        for piece in text.chunks(size) {
            out.extend_from_slice(plain.push(&Bytes::copy_from_slice(piece))?.shown());
        }
        out.extend_from_slice(plain.finish()?.shown());
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_text_without_names_of_masked_fields_passes_with_its_patterns_masked() {
        for (text, shown) in [
            ("to a@b.cc, caf\u{e9}", "to [email], caf\u{e9}"),
            ("100 % of \\d+ & more &lt;b&gt;", "100 % of \\d+ & more &lt;b&gt;"),
            ("", ""),
        ] {
            for size in [1, 3, 100] {
                assert_eq!(masked(&["**.ssn"], text.as_bytes(), size).as_deref(), Ok(shown));
            }
        }
    }

    #[test]
    fn a_text_that_holds_the_name_of_a_masked_field_is_refused_however_it_is_written() {
        for text in [
            "ssn: 078",
            "name,SSN\nAlice,078\n",
            "<ssn>078</ssn>",
            "\"s\\x73n\": 078",
            "\"s\\\n  sn\": 078",
            "<i t='&#115;&#x73;n'>",
            "a=1&%73s%6e=2",
            "%2573sn=1",
        ] {
            for size in [1, 2, 100] {
                let told = masked(&["customer.ssn"], text.as_bytes(), size);
                assert_eq!(told, Err(NotMasked::NamesField), "{text}");
            }
        }
        for fields in ["**", "a.*", "*.*"] {
            let told = masked(&[fields], b"x: a", 9);
            assert_eq!(told, Err(NotMasked::NamesField), "{fields}");
        }
        assert_eq!(masked(&["a*.*"], b"x: y", 9).as_deref(), Ok("x: y"));
        assert_eq!(masked(&["*_key"], b"my_key: y", 9), Err(NotMasked::NamesField));
    }

    #[test]
    fn what_a_pattern_finds_only_behind_escapes_is_refused() {
        for text in [
            "alice&#64;example.com",
            "alice&commat;example.com",
            "alice\\u0040example.com",
            "alice%40example.com",
            "alice%2540example.com",
            "alice&amp;#64;example.com",
        ] {
            for size in [1, 7, 100] {
                assert_eq!(masked(&[], text.as_bytes(), size), Err(NotMasked::Escaped), "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_text_is_refused() {
        for bytes in [&b"\0"[..], b"a\x1a", b"\xff\xfea", b"caf\xe9", b"\xa1fssn", b"caf\xc3"] {
            for size in [1, 100] {
                assert_eq!(masked(&[], bytes, size), Err(NotMasked::Binary), "{bytes:?}");
            }
        }
        let mut latin = PlainText::new(&plan(&[]), true);
        assert!(latin.push(&Bytes::from_static(b"caf\xe9")).is_ok() && latin.finish().is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_no_cut_lets_a_secret_pass(
            text in "([a-z ]{0,4}|a@b\\.cc|%40|&#64;|\\\\u0040|&#|;|%|\\\\|x@|\\.cc|\u{e9}){0,8}",
            size in 1usize..9,
        ) {
            if let Ok(shown) = masked(&["**.ssn"], text.as_bytes(), size) {
                prop_assert!(!shown.contains("a@b.cc"), "{shown}");
            }
            let _ = masked(&["**.ssn"], &text.into_bytes(), 100);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), size in 1usize..9) {
            let _ = masked(&["**.ssn"], &bytes, size);
        }
    }
}
