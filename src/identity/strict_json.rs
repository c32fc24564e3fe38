//! JSON in which every object has each of its names once, at every depth.
//!
//! Of two members with one name some readers take the first and some the last, so two programs that
//! look at one token could see two tokens. RFC 7515 section 4 and RFC 7519 section 4 let a reader
//! refuse such a header and such claims.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// A JSON object without repeated names; none of anything else.
pub(super) fn object(json: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice::<Strict>(json) {
        Ok(Strict(Value::Object(object))) => Some(object),
        _ => None,
    }
}

/// A value in which no name is repeated.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values).map(Self)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, Strict(value))) = members.next_entry::<String, Strict>()? {
            if object.insert(name, value).is_some() {
                return Err(Error::custom("a name is repeated"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_is_repeated_is_refused_at_every_depth_and_however_it_is_written() {
        for good in ["{}", r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}"#, r#"{"a":1,"A":1}"#] {
            assert!(object(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"b":{"a":1,"a":2}}"#,
            r#"{"b":[[{"c":{"a":1,"x":0,"a":2}}]]}"#,
            r#"{"a":null,"b":2,"a":null}"#,
            r#"{"a":1} {"a":1}"#,
            "[]",
            "1",
            "",
        ] {
            assert!(object(bad.as_bytes()).is_none(), "{bad}");
        }
        let deep = format!("{}1{}", r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
        assert!(object(deep.as_bytes()).is_none(), "it is bounded in depth");
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_what_others_read(json in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(read) = object(&json) {
                prop_assert_eq!(Value::Object(read), serde_json::from_slice::<Value>(&json).unwrap());
            }
        }

        #[test]
        fn names_that_differ_are_read_and_one_more_of_them_is_not(
            names in proptest::collection::btree_set("[a-c\u{e9}\"\\\\]{0,3}", 1..6),
            again in any::<proptest::sample::Index>(),
        ) {
            let names: Vec<String> = names.into_iter().collect();
            let members = |names: &[String]| {
                let members = names.iter().map(|name| format!("{}:[{{}}]", serde_json::json!(name)));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            };
            prop_assert!(object(members(&names).as_bytes()).is_some());
            let mut twice = names.clone();
            twice.push(names[again.index(names.len())].clone());
            prop_assert!(object(members(&twice).as_bytes()).is_none());
        }
    }
}
