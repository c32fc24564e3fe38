//! JSON bodies that mean one thing.
//!
//! Of two members with one name some programs take the first and some the last, and some take `amount`
//! and `AMOUNT` for one name (Go, .NET). Such a document is not read at all: a rule that looks into it
//! finds nothing there, and fails closed.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Why a body is no document that rules can look into.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotRead(String);

/// Reads a whole document, UTF-8 without a byte order mark. Nesting is bounded by `serde_json`, at
/// 128.
pub fn parse(bytes: &[u8]) -> Result<Value, NotRead> {
    let not_read = |error: serde_json::Error| NotRead(error.to_string());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict.deserialize(&mut deserializer).map_err(not_read)?;
    deserializer.end().map_err(not_read)?;
    Ok(value)
}

/// Whether a content type says that a body is JSON in UTF-8.
pub fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let json = essence == "application/json"
        || essence == "text/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    let utf8 = parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            let value = value.trim().trim_matches('"');
            value.eq_ignore_ascii_case("utf-8") || value.eq_ignore_ascii_case("utf8")
        }
        _ => true,
    });
    json && utf8
}

/// A name without what some programs do not tell apart: upper and lower case, and the characters whose
/// upper case is that of another (`\u{17f}` and `s`).
fn folded(name: &str) -> String {
    let each_upper = name.chars().flat_map(char::to_uppercase);
    each_upper.flat_map(char::to_lowercase).collect()
}

/// Reads any value, and refuses a second member of one name.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut names = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if !names.insert(folded(&name)) {
                return Err(A::Error::custom("two members have one name"));
            }
            let value = members.next_value_seed(Self)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_document_is_read_as_everybody_reads_it() {
        let text = br#"{"amount": 2000, "a": [1.5, -3, null, true, "\u00e9"], "b": {"c": {}}}"#;
        assert_eq!(parse(text).unwrap(), serde_json::from_slice::<Value>(text).unwrap());
    }

    #[test]
    fn what_two_programs_could_read_in_two_ways_is_not_read() {
        for text in [
            r#"{"amount": 1, "amount": 5000}"#,
            r#"{"a": [{"x": 1, "\u0078": 2}]}"#,
            r#"{"amount": 1, "AMOUNT": 2000}"#,
            "{\"status\": 1, \"\u{17f}tatus\": 2, \"k\": 1}",
            "{\"k\": 1, \"\u{212a}\": 2}",
            "{} {}",
            "\u{feff}{}",
            "{\"a\": NaN}",
            "{\"a\": 1e999}",
            "{'a': 1}",
            "{\"a\": 1,}",
            "",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\"\xff\"").is_err());
        assert!(parse(&b"[".repeat(100_000)).is_err());
    }

    #[test]
    fn a_content_type_says_what_is_json() {
        for json in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/problem+json",
            "application/json;profile=x",
        ] {
            assert!(is_json(json), "{json}");
        }
        for other in ["", "text/plain", "application/jsonlines", "application/json; charset=utf-16"]
        {
            assert!(!is_json(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = parse(&bytes);
        }
    }
}
