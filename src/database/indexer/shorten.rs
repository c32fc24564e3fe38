//! Bounds on what one row holds: the recording has the whole.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::policy::{Attributes, Effect};

/// The longest text in the index; longer ones are found by their beginning.
const MAX_TEXT: usize = 64 << 10;
/// The longest message.
const MAX_MESSAGE: usize = 8 << 10;
/// The longest name: PostgreSQL's B-trees take values of up to 2,700 bytes.
const MAX_NAME: usize = 512;
/// The longest string in attributes.
const MAX_VALUE: usize = 4 << 10;
/// The longest list in attributes, and the most effects.
const MAX_LIST: usize = 1000;
/// The most that attributes, or effects, may come to as JSON.
const MAX_JSON: usize = 64 << 10;
/// Lists in lists go no deeper.
const MAX_DEPTH: usize = 8;

/// A name, so short that an index takes it.
pub(super) fn name(text: &str) -> String {
    cut(text, MAX_NAME, &mut false)
}

/// A message for people.
pub(super) fn message(text: &str) -> String {
    cut(text, MAX_MESSAGE, &mut false)
}

/// A command's text; whether it was longer is noted.
pub(super) fn text(text: &str, was_cut: &mut bool) -> String {
    cut(text, MAX_TEXT, was_cut)
}

/// Adds a line to a command's text; whether there was no room for it is noted.
pub(super) fn append(text: &mut String, line: &str, was_cut: &mut bool) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(line);
    if text.len() > MAX_TEXT {
        *was_cut = true;
        text.truncate(text.floor_char_boundary(MAX_TEXT));
    }
}

/// As many attributes as there is room for; whether that is not all is noted.
pub(super) fn attributes(attributes: &Attributes, was_cut: &mut bool) -> BTreeMap<String, Value> {
    let mut left = MAX_JSON;
    let mut kept = BTreeMap::new();
    for (key, value) in attributes {
        let (key, value) = (name(key), shortened(value, MAX_DEPTH, was_cut));
        match left.checked_sub(key.len() + value.to_string().len()) {
            Some(rest) => {
                left = rest;
                kept.insert(key, value);
            }
            None => *was_cut = true,
        }
    }
    kept
}

/// The first effects, as many as there is room for; whether that is not all is noted.
pub(super) fn effects(effects: &[Effect], was_cut: &mut bool) -> Vec<Effect> {
    let mut left = MAX_JSON;
    let mut kept = Vec::new();
    for effect in effects.iter().take(MAX_LIST) {
        let attributes = attributes(&effect.attributes, was_cut);
        let effect = Effect {
            action: name(&effect.action).into(),
            object: effect.object.clone(),
            columns: effect.columns.iter().take(MAX_LIST).map(|column| name(column)).collect(),
            attributes: attributes.into_iter().map(|(key, value)| (key.into(), value)).collect(),
            only_by_rule: effect.only_by_rule,
            opaque: effect.opaque,
        };
        let size = serde_json::to_string(&effect).map_or(usize::MAX, |json| json.len());
        let Some(rest) = left.checked_sub(size) else { break };
        left = rest;
        kept.push(effect);
    }
    *was_cut |= kept.len() < effects.len();
    kept
}

fn cut(text: &str, max: usize, was_cut: &mut bool) -> String {
    *was_cut |= text.len() > max;
    text.get(..text.floor_char_boundary(max)).unwrap_or_default().to_owned()
}

fn shortened(value: &Value, depth: usize, was_cut: &mut bool) -> Value {
    match value {
        Value::String(text) => Value::String(cut(text, MAX_VALUE, was_cut)),
        Value::Array(_) | Value::Object(_) if depth == 0 => {
            *was_cut = true;
            Value::Null
        }
        Value::Array(values) => {
            *was_cut |= values.len() > MAX_LIST;
            let values = values.iter().take(MAX_LIST);
            Value::Array(values.map(|value| shortened(value, depth - 1, was_cut)).collect())
        }
        Value::Object(fields) => {
            *was_cut |= fields.len() > MAX_LIST;
            let shorten =
                |(key, value): (&String, &Value)| (name(key), shortened(value, depth - 1, was_cut));
            Value::Object(fields.iter().take(MAX_LIST).map(shorten).collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_in_a_row_grows_without_bound_and_cutting_is_told() {
        let mut was_cut = false;
        assert_eq!(text("select 1", &mut was_cut), "select 1");
        assert!(!was_cut);
        assert_eq!(text(&"é".repeat(MAX_TEXT), &mut was_cut).len(), MAX_TEXT);
        assert!(was_cut);

        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        for (value, max) in [
            (json!("x".repeat(1 << 20)), MAX_VALUE + 2),
            (json!(vec![0; 1 << 20]), 2 * MAX_LIST + 2),
            (json!(vec!["x".repeat(100); 5000]), 0),
            (deep, 100),
        ] {
            let mut was_cut = false;
            let all = Attributes::from([("a".into(), json!(1)), ("b".into(), value)]);
            let kept = attributes(&all, &mut was_cut);
            assert!(was_cut && kept["a"] == 1);
            assert!(kept.get("b").map_or(0, |b| b.to_string().len()) <= max);
        }
    }

    #[test]
    fn effects_are_kept_from_the_first_on() {
        let all = vec![Effect::of("sql.select"); 5 * MAX_LIST];
        let mut was_cut = false;
        let kept = effects(&all, &mut was_cut);
        assert!(was_cut && kept.len() == MAX_LIST && kept[0] == all[0]);
    }
}
