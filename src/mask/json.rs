//! JSON texts, masked as they pass: fields by their path, and patterns in every string, key and
//! number, whatever escapes they are written with.
//!
//! The grammar is RFC 8259's, and several documents may follow each other (JSON Lines). Strings are
//! put in the place of strings; what else a mask names becomes null. What is not masked passes as
//! it was written. However the text is cut, the same comes out.

use std::sync::Arc;

use bytes::Bytes;

use super::plan::{MaskPlan, Masked};
use super::scanner::{Action, HashKey, Masker};
use super::value::whole_value;

/// The largest string or number, in bytes: it is looked at whole.
const MAX_VALUE: usize = 1 << 20;
/// The deepest nesting.
const MAX_DEPTH: usize = 128;
/// The longest path of keys, in bytes together.
const MAX_PATH: usize = 64 << 10;

/// Why a text cannot be masked: then it must not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotMasked {
    /// It is not written as it says.
    #[error("it is not what it says it is")]
    Malformed,
    /// A value is larger than what is held.
    #[error("a value is too large to be masked")]
    TooLarge,
    /// It nests too deep.
    #[error("it is too deep to be masked")]
    TooDeep,
}

/// Masks JSON that comes in chunks.
#[derive(Debug)]
pub struct Documents {
    plan: Arc<MaskPlan>,
    expected: Expected,
    levels: Vec<Level>,
    /// The keys that lead to where the text is.
    path: Vec<String>,
    path_length: usize,
    /// The string or number that has not ended.
    token: Vec<u8>,
    within: Within,
    /// For the client, and for storage where that sees something else.
    shown: Eye,
    stored: Option<Eye>,
}

/// What may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// A value: the first of a list may be its end instead.
    Value {
        first: bool,
    },
    /// A key: the first of an object may be its end instead.
    Key {
        first: bool,
    },
    Colon,
    CommaOrEnd,
    /// Outside of any document.
    Document,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    String {
        escaped: bool,
    },
    /// A number, true, false or null.
    Word,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    List,
    Object,
}

/// What one pair of eyes gets.
#[derive(Debug)]
struct Eye {
    masker: Option<Arc<Masker>>,
    out: Vec<u8>,
    /// A list or object is left out that began at this depth.
    hidden: Option<usize>,
}

impl Eye {
    fn new(masker: Option<&Arc<Masker>>) -> Self {
        Self { masker: masker.cloned(), out: Vec::new(), hidden: None }
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.hidden.is_none() {
            self.out.extend_from_slice(bytes);
        }
    }

    fn taken(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.out))
    }
}

impl Documents {
    /// At the beginning of a text.
    pub fn new(plan: &Arc<MaskPlan>) -> Self {
        let [shown, stored] = plan.maskers();
        let differ = plan.masks().iter().any(|applied| applied.lifted);
        Self {
            plan: Arc::clone(plan),
            expected: Expected::Document,
            levels: Vec::new(),
            path: Vec::new(),
            path_length: 0,
            token: Vec::new(),
            within: Within::Nothing,
            shown: Eye::new(shown),
            stored: differ.then(|| Eye::new(stored)),
        }
    }

    /// Takes the next chunk, and gives what can be given of it.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Masked, NotMasked> {
        let mut rest = chunk;
        while let Some((byte, behind)) = rest.split_first() {
            rest = match self.within {
                Within::String { escaped } => self.string(escaped, rest)?,
                Within::Word if !is_end_of_word(*byte) => {
                    self.hold(std::slice::from_ref(byte))?;
                    behind
                }
                Within::Word => {
                    self.end_word()?;
                    rest
                }
                Within::Nothing => {
                    self.between(*byte)?;
                    behind
                }
            };
        }
        Ok(self.taken())
    }

    /// Gives the rest, if the text is whole.
    pub fn finish(&mut self) -> Result<Masked, NotMasked> {
        if self.within == Within::Word {
            self.end_word()?;
        }
        if self.within != Within::Nothing || self.expected != Expected::Document {
            return Err(NotMasked::Malformed);
        }
        Ok(self.taken())
    }

    fn taken(&mut self) -> Masked {
        let shown = self.shown.taken();
        let stored = self.stored.as_mut().map_or_else(|| shown.clone(), Eye::taken);
        Masked::by_value(shown, stored)
    }

    fn each_eye(&mut self, mut each: impl FnMut(usize, &mut Eye)) {
        each(0, &mut self.shown);
        if let Some(stored) = &mut self.stored {
            each(1, stored);
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.each_eye(|_, eye| eye.write(bytes));
    }

    fn hold(&mut self, bytes: &[u8]) -> Result<(), NotMasked> {
        if self.token.len() + bytes.len() > MAX_VALUE {
            return Err(NotMasked::TooLarge);
        }
        self.token.extend_from_slice(bytes);
        Ok(())
    }

    /// A byte that is in no string, number or word.
    fn between(&mut self, byte: u8) -> Result<(), NotMasked> {
        let value = matches!(self.expected, Expected::Value { .. } | Expected::Document);
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            // JSON text sequences (RFC 7464) begin each document so.
            0x1e if self.expected == Expected::Document => {}
            b'"' if value || matches!(self.expected, Expected::Key { .. }) => {
                self.within = Within::String { escaped: false };
                return self.hold(b"\"");
            }
            b'{' if value => return self.begin(Level::Object, byte),
            b'[' if value => return self.begin(Level::List, byte),
            b'}' => return self.end(Level::Object, byte),
            b']' => return self.end(Level::List, byte),
            b',' if self.expected == Expected::CommaOrEnd => {
                self.expected = match self.levels.last() {
                    Some(Level::Object) => Expected::Key { first: false },
                    _ => Expected::Value { first: false },
                };
            }
            b':' if self.expected == Expected::Colon => {
                self.expected = Expected::Value { first: false };
            }
            b'-' | b'0'..=b'9' | b't' | b'f' | b'n' if value => {
                self.within = Within::Word;
                return self.hold(&[byte]);
            }
            _ => return Err(NotMasked::Malformed),
        }
        self.write(&[byte]);
        Ok(())
    }

    fn begin(&mut self, level: Level, byte: u8) -> Result<(), NotMasked> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(NotMasked::TooDeep);
        }
        let (actions, depth) = (self.actions(), self.levels.len());
        self.each_eye(|at, eye| match actions.get(at).copied().flatten() {
            Some(_) if eye.hidden.is_none() => {
                eye.write(b"null");
                eye.hidden = Some(depth);
            }
            _ => eye.write(&[byte]),
        });
        self.levels.push(level);
        self.expected = match level {
            Level::Object => Expected::Key { first: true },
            Level::List => Expected::Value { first: true },
        };
        Ok(())
    }

    fn end(&mut self, level: Level, byte: u8) -> Result<(), NotMasked> {
        let may = match level {
            Level::Object => self.expected == Expected::Key { first: true },
            Level::List => self.expected == Expected::Value { first: true },
        } || self.expected == Expected::CommaOrEnd;
        if !may || self.levels.pop() != Some(level) {
            return Err(NotMasked::Malformed);
        }
        let depth = self.levels.len();
        self.each_eye(|_, eye| match eye.hidden {
            Some(began) if began == depth => eye.hidden = None,
            _ => eye.write(&[byte]),
        });
        self.value_ended();
        Ok(())
    }

    /// A value is over: the key that led to it leads nowhere any more.
    fn value_ended(&mut self) {
        self.expected = match self.levels.last() {
            None => Expected::Document,
            Some(level) => {
                if *level == Level::Object
                    && let Some(key) = self.path.pop()
                {
                    self.path_length -= key.len();
                }
                Expected::CommaOrEnd
            }
        };
    }

    /// What is done with a value that begins here.
    fn actions(&self) -> [Option<Action>; 2] {
        if !self.plan.masks_fields() {
            return [None, None];
        }
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        self.plan.field(&path)
    }

    /// Bytes of a string; gives what stands behind it.
    fn string<'a>(&mut self, escaped: bool, bytes: &'a [u8]) -> Result<&'a [u8], NotMasked> {
        if escaped {
            let (byte, rest) = bytes.split_at_checked(1).unwrap_or((bytes, &[]));
            self.hold(byte)?;
            self.within = Within::String { escaped: false };
            return Ok(rest);
        }
        let end = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'));
        let length = end.map_or(bytes.len(), |end| end + 1);
        let (part, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
        self.hold(part)?;
        match part.last() {
            Some(b'"') => self.end_string()?,
            Some(b'\\') => self.within = Within::String { escaped: true },
            _ => {}
        }
        Ok(rest)
    }

    fn end_string(&mut self) -> Result<(), NotMasked> {
        let raw = std::mem::take(&mut self.token);
        self.within = Within::Nothing;
        let text: String = serde_json::from_slice(&raw).map_err(|_| NotMasked::Malformed)?;
        let is_key = matches!(self.expected, Expected::Key { .. });
        let actions = if is_key { [None, None] } else { self.actions() };
        let key = self.plan.key().cloned();
        self.each_eye(|at, eye| {
            let action = actions.get(at).copied().flatten();
            if eye.hidden.is_none() {
                match masked_string(&text, action, eye.masker.as_ref(), key.as_ref()) {
                    Some(masked) => eye.write(&masked),
                    None => eye.write(&raw),
                }
            }
        });
        if is_key {
            self.path_length += text.len();
            if self.path_length > MAX_PATH {
                return Err(NotMasked::TooLarge);
            }
            self.path.push(text);
            self.expected = Expected::Colon;
        } else {
            self.value_ended();
        }
        self.reuse(raw);
        Ok(())
    }

    fn end_word(&mut self) -> Result<(), NotMasked> {
        let raw = std::mem::take(&mut self.token);
        self.within = Within::Nothing;
        if !matches!(&*raw, b"true" | b"false" | b"null") && !is_number(&raw) {
            return Err(NotMasked::Malformed);
        }
        let actions = self.actions();
        self.each_eye(|at, eye| {
            let named = actions.get(at).copied().flatten().is_some();
            let found = || eye.masker.as_ref().is_some_and(|masker| masker.mask(&raw).is_some());
            let masked = eye.hidden.is_none() && (named || found());
            eye.write(if masked { b"null" } else { &raw });
        });
        self.value_ended();
        self.reuse(raw);
        Ok(())
    }

    /// Keeps the room of a token for the next one.
    fn reuse(&mut self, mut token: Vec<u8>) {
        token.clear();
        self.token = token;
    }
}

/// What stands in a string's place; `None` when it stays.
fn masked_string(
    text: &str,
    action: Option<Action>,
    masker: Option<&Arc<Masker>>,
    key: Option<&HashKey>,
) -> Option<Vec<u8>> {
    let masked = match (action, key) {
        (Some(action), Some(key)) => match whole_value(action, text.as_bytes(), key) {
            Some(masked) => masked,
            None => return Some(b"null".to_vec()),
        },
        // A plan without a key has no masks.
        (Some(_), None) => return Some(b"null".to_vec()),
        (None, _) => masker?.mask(text.as_bytes())?,
    };
    let masked = String::from_utf8_lossy(&masked).into_owned();
    Some(serde_json::Value::from(masked).to_string().into_bytes())
}

fn is_end_of_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}' | b':' | b'"' | 0x1e)
}

/// RFC 8259 section 6.
fn is_number(word: &[u8]) -> bool {
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

/// Masks one whole text that may be JSON: by its fields if it is, by patterns if not. One that
/// is neither, but could hold fields, is left out.
pub fn document(plan: &Arc<MaskPlan>, text: &Bytes) -> Masked {
    let mut documents = Documents::new(plan);
    let masked = documents.push(text).and_then(|first| Ok((first, documents.finish()?)));
    match masked {
        Ok((first, rest)) => first.joined(&rest),
        Err(NotMasked::Malformed) if !plan.masks_fields() || !text.contains(&b'"') => {
            plan.text(text)
        }
        Err(_) => {
            let nothing = Bytes::from_static(super::value::REDACTED.as_bytes());
            Masked::by_value(nothing.clone(), nothing)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Pattern;
    use super::super::plan::{Mask, Masks};
    use super::*;

    fn mask(name: &str, fields: &[&str], patterns: &[&str], unless: &[&str]) -> Mask {
        Mask {
            name: name.into(),
            targets: None,
            columns: Vec::new(),
            fields: fields.iter().map(|field| field.parse().unwrap()).collect(),
            patterns: patterns.iter().map(|name| Pattern::built_in(name).unwrap()).collect(),
            with: Action::Redact,
            unless_groups: unless.iter().map(|group| (*group).to_owned()).collect(),
        }
    }

    fn plan(masks: Vec<Mask>) -> Arc<MaskPlan> {
        let key = HashKey::new([7; 32]);
        Arc::new(Masks::new(masks).for_session("crew", &["readers".to_owned()], &key))
    }

    fn strict() -> Arc<MaskPlan> {
        plan(vec![mask("m", &["customer.ssn", "**.pin", "all"], &["email"], &[])])
    }

    fn pushed(plan: &Arc<MaskPlan>, pieces: &[&[u8]]) -> Result<[String; 2], NotMasked> {
        let mut documents = Documents::new(plan);
        let (mut shown, mut stored) = (Vec::new(), Vec::new());
        let mut add = |masked: Masked| {
            shown.extend_from_slice(masked.shown());
            stored.extend_from_slice(masked.stored());
        };
        for piece in pieces {
            add(documents.push(piece)?);
        }
        add(documents.finish()?);
        Ok([shown, stored].map(|bytes| String::from_utf8(bytes).unwrap()))
    }

    fn shown(text: &str) -> Result<String, NotMasked> {
        pushed(&strict(), &[text.as_bytes()]).map(|[shown, _]| shown)
    }

    #[test]
    fn fields_are_masked_by_their_path() {
        for (text, masked) in [
            (
                r#"{"customer": {"ssn": "1", "n": 1}}"#,
                r#"{"customer": {"ssn": "[masked]", "n": 1}}"#,
            ),
            (r#"{"ssn": "1"}"#, r#"{"ssn": "1"}"#),
            (r#"[{"customer":[{"ssn":1.5e3}]}]"#, r#"[{"customer":[{"ssn":null}]}]"#),
            (r#"{"a":{"pin":{"x":[1,{"y":"2"}]},"b":2}}"#, r#"{"a":{"pin":null,"b":2}}"#),
            (r#"{"all":[1,"2"], "b" : [ ] }"#, r#"{"all":null, "b" : [ ] }"#),
            ("{\"pin\":1}\n{\"pin\":2}\n", "{\"pin\":null}\n{\"pin\":null}\n"),
            (
                r#"{"cust\u006fmer":{"ss\u006e":"1"}}"#,
                r#"{"cust\u006fmer":{"ss\u006e":"[masked]"}}"#,
            ),
            ("", ""),
            ("3", "3"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(masked), "{text}");
        }
    }

    #[test]
    fn patterns_are_found_behind_escapes() {
        for text in [
            r#"{"to": "a@b.cc"}"#,
            r#"{"to": "\u0061\u0040b.cc"}"#,
            r#"{"a@b.cc": 1}"#,
            r#"["a@b.c\u0063"]"#,
        ] {
            let masked = shown(text).unwrap();
            assert!(masked.contains("[email]") && !masked.contains("b.c"), "{masked}");
        }
        let card = plan(vec![mask("m", &[], &["credit-card"], &[])]);
        let masked = pushed(&card, &[b"{\"n\": 4111111111111111, \"m\": 5}"]).unwrap();
        assert_eq!(masked[0], "{\"n\": null, \"m\": 5}");
    }

    #[test]
    fn a_lifted_mask_is_for_the_client_s_eyes_alone() {
        let plan = plan(vec![
            mask("open", &["pin", "o"], &["email"], &["readers"]),
            mask("shut", &["ssn"], &[], &[]),
        ]);
        let text = br#"{"pin":"1","o":{"ssn":2},"ssn":"3","to":"a@b.cc"}"#;
        let [shown, stored] = pushed(&plan, &[text]).unwrap();
        assert_eq!(shown, r#"{"pin":"1","o":{"ssn":2},"ssn":"[masked]","to":"a@b.cc"}"#);
        assert_eq!(stored, r#"{"pin":"[masked]","o":null,"ssn":"[masked]","to":"[email]"}"#);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "{",
            "[1",
            "\"a",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "[1,]",
            "[1 2]",
            "{1:2}",
            "}",
            "'a'",
            "{a:1}",
            "[NaN]",
            "01",
            "1.",
            "-",
            "tru",
            "\u{feff}{}",
            "[1]]",
            "\"\\x\"",
            "\"\n\"",
            "//x",
            ")]}'\n{}",
            "\"\\ud800\"",
        ] {
            assert_eq!(shown(text), Err(NotMasked::Malformed), "{text}");
        }
        assert_eq!(shown(&"[".repeat(200)), Err(NotMasked::TooDeep));
        assert_eq!(shown(&format!("\"{}", "a".repeat(2 << 20))), Err(NotMasked::TooLarge));
        assert_eq!(pushed(&strict(), &[b"\"\xff\""]), Err(NotMasked::Malformed));
    }

    #[test]
    fn a_text_that_may_be_json_is_masked_either_way() {
        let masked = |text: &str| {
            let masked = document(&strict(), &Bytes::copy_from_slice(text.as_bytes()));
            String::from_utf8(masked.shown().to_vec()).unwrap()
        };
        assert_eq!(masked("[DONE]"), "[DONE]");
        assert_eq!(masked("to a@b.cc"), "to [email]");
        assert_eq!(masked(r#"{"pin":"1"}"#), r#"{"pin":"[masked]"}"#);
        assert_eq!(masked(r#"{"pin":"1""#), "[masked]");
    }

    /// Documents of which the values under `pin` are secret.
    fn any_json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i32>().prop_map(Into::into),
            "[a-c\"\\\\\n\u{e9}]{0,4}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::btree_map("(pin|a|b)", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// The same with what is under `pin` masked.
    fn expected(value: &serde_json::Value) -> serde_json::Value {
        use serde_json::Value;
        match value {
            Value::Array(items) => items.iter().map(expected).collect(),
            Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, value)| {
                        let masked = match (key.as_str(), value) {
                            ("pin", Value::String(_)) => "[masked]".into(),
                            ("pin", _) => Value::Null,
                            _ => expected(value),
                        };
                        (key.clone(), masked)
                    })
                    .collect(),
            ),
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn documents_come_out_masked_however_they_are_cut(
            value in any_json(),
            pretty in any::<bool>(),
            at in any::<prop::sample::Index>(),
        ) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            let text = text.unwrap();
            let whole = pushed(&strict(), &[text.as_bytes()]).unwrap();
            let masked: serde_json::Value = serde_json::from_str(&whole[0]).unwrap();
            prop_assert_eq!(masked, expected(&value));
            let (first, second) = text.as_bytes().split_at(at.index(text.len() + 1));
            prop_assert_eq!(&pushed(&strict(), &[first, second]).unwrap(), &whole);
            let bytewise: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            prop_assert_eq!(&pushed(&strict(), &bytewise).unwrap(), &whole);
        }

        #[test]
        fn what_is_taken_is_json_to_others_too(text in "[\\[\\]{}\",:0-9a-n.\\\\ -]{0,20}") {
            if let Ok([masked, _]) = pushed(&strict(), &[text.as_bytes()]) {
                let mut others = serde_json::Deserializer::from_str(&text).into_iter::<serde_json::Value>();
                prop_assert!(others.all(|value| value.is_ok()), "{}", masked);
            }
        }
    }
}
