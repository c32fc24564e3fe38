//! The query as rules see it: every value of every parameter.
//!
//! Programs differ in which of two values of one name counts, and whether `;` separates. So each
//! name has a list with all that anybody might take for its value.

use serde_json::{Map, Value};

use super::{Refused, hex};

/// Longer queries are not taken, in bytes.
pub const MAX_QUERY: usize = 32 << 10;
/// More parameters are not taken.
const MAX_PARAMETERS: usize = 1_000;

/// Reads a query, without its question mark: name to list of values, both with their escapes
/// undone.
pub fn parse(raw: &str) -> Result<Map<String, Value>, Refused> {
    if raw.len() > MAX_QUERY {
        return Err(Refused { status: 414, what: "the query is too long" });
    }
    if raw.bytes().any(|byte| !byte.is_ascii_graphic() || byte == b'#') {
        return Err(Refused::bad("the query has a character that must be escaped"));
    }
    let mut found: Map<String, Value> = Map::new();
    let mut count = 0;
    for parameter in raw.split('&').filter(|parameter| !parameter.is_empty()) {
        let whole = std::iter::once(parameter);
        // Programs that take `;` for a separator see these instead.
        let parts = parameter.split(';').filter(|part| !part.is_empty() && *part != parameter);
        for parameter in whole.chain(parts) {
            count += 1;
            if count > MAX_PARAMETERS {
                return Err(Refused::bad("the query has too many parameters"));
            }
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = Value::from(decode(value)?);
            let values = found.entry(decode(name)?).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(values) = values
                && !values.contains(&value)
            {
                values.push(value);
            }
        }
    }
    Ok(found)
}

/// Undoes the escapes of `application/x-www-form-urlencoded`.
pub fn decode(raw: &str) -> Result<String, Refused> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match bytes.next().and_then(hex).zip(bytes.next().and_then(hex)) {
                Some((high, low)) => high << 4 | low,
                None => return Err(Refused::bad("the query has a % that is no escape")),
            },
            byte => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| Refused::bad("the query has escapes that are not UTF-8"))
}

/// A text with the escapes of URLs undone once. What is no escape stays, as with most programs.
pub fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        let digit = |at: usize| behind.get(at).copied().and_then(hex);
        match (byte, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                plain.push(high << 4 | low);
                rest = behind.get(2..).unwrap_or_default();
            }
            (other, ..) => {
                plain.push(*other);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parsed(raw: &str) -> Value {
        Value::Object(parse(raw).unwrap())
    }

    #[test]
    fn every_value_that_anybody_could_take_is_there() {
        assert_eq!(parsed(""), json!({}));
        assert_eq!(parsed("id=1&id=2&%69d=3"), json!({ "id": ["1", "2", "3"] }));
        assert_eq!(parsed("a[]=1&b"), json!({ "a[]": ["1"], "b": [""] }));
        assert_eq!(parsed("q=a+b%20c"), json!({ "q": ["a b c"] }));
        assert_eq!(parsed("x=1;id=2"), json!({ "x": ["1;id=2", "1"], "id": ["2"] }));
    }

    #[test]
    fn what_is_malformed_or_without_end_is_refused() {
        for raw in ["a=%zz", "a=%4", "a=%ff", "a b", "a=#"] {
            assert_eq!(parse(raw).unwrap_err().status, 400, "{raw}");
        }
        assert!(parse(&"a&".repeat(MAX_PARAMETERS + 1)).is_err());
        assert_eq!(parse(&"a".repeat(MAX_QUERY + 1)).unwrap_err().status, 414);
    }

    proptest! {
        #[test]
        fn no_text_panics(raw in ".{0,80}") {
            let _ = parse(&raw);
        }
    }
}
