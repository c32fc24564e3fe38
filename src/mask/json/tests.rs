//! JSON behind masks: what comes out, however it is written and cut.

use proptest::prelude::*;

use super::super::Pattern;
use super::super::plan::{Enforce, Mask, Masks};
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
        enforce: Enforce::default(),
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
        (r#"{"customer": {"ssn": "1", "n": 1}}"#, r#"{"customer": {"ssn": "[masked]", "n": 1}}"#),
        (r#"{"ssn": "1"}"#, r#"{"ssn": "1"}"#),
        (r#"[{"customer":[{"ssn":1.5e3}]}]"#, r#"[{"customer":[{"ssn":null}]}]"#),
        (r#"{"a":{"pin":{"x":[1,{"y":"2"}]},"b":2}}"#, r#"{"a":{"pin":null,"b":2}}"#),
        (r#"{"all":[1,"2"], "b" : [ ] }"#, r#"{"all":null, "b" : [ ] }"#),
        ("{\"pin\":1}\n{\"pin\":2}\n", "{\"pin\":null}\n{\"pin\":null}\n"),
        (r#"{"cust\u006fmer":{"ss\u006e":"1"}}"#, r#"{"cust\u006fmer":{"ss\u006e":"[masked]"}}"#),
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
