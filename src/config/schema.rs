//! The definition of the keys as a JSON Schema, for editors.
//!
//! Of draft 7, which editors of TOML take. It knows which keys there are, of what form their values
//! are and which must be there; whether a configuration is right is for `portcullis check` to say.

use serde_json::{Map, Value, json};

use super::keys::{Form, Key, Section, WHOLE};

/// `"30s"`: as the reader takes a whole number and its unit.
const DURATION: &str = r"^[0-9](_*[0-9])*\s*(ms|s|m|h|d)$";
const SIZE: &str = r"^[0-9](_*[0-9])*\s*(B|KiB|MiB|GiB|TiB)$";

/// The JSON Schema of a configuration file. One that others include has the same.
pub fn schema() -> Value {
    let mut schema = of_form(&WHOLE);
    put(&mut schema, "$schema", "http://json-schema.org/draft-07/schema#".into());
    put(&mut schema, "title", "The configuration of Portcullis".into());
    schema
}

fn of_form(form: &Form) -> Value {
    match form {
        Form::Text | Form::Path => json!({ "type": "string", "minLength": 1 }),
        Form::Duration => json!({ "type": "string", "pattern": DURATION }),
        Form::Size => json!({ "type": "string", "pattern": SIZE }),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Count(most) => json!({ "type": "integer", "minimum": 1, "maximum": most }),
        Form::Word(words) => json!({ "type": "string", "enum": words }),
        Form::List(form, least) => list(&of_form(form), *least),
        Form::Map(form) => json!({ "type": "object", "additionalProperties": of_form(form) }),
        Form::Table(section) => of_section(section),
        Form::Tables(section) => list(&of_section(section), 0),
        Form::Either(forms) => json!({ "anyOf": forms.iter().map(of_form).collect::<Vec<_>>() }),
        Form::Any => json!({}),
    }
}

fn list(item: &Value, least: usize) -> Value {
    json!({ "type": "array", "items": item, "minItems": least })
}

fn of_section(section: &Section) -> Value {
    if let Some((by, kinds)) = section.by {
        let kinds = kinds.iter().map(|(kind, more)| {
            let mut table = of_keys(section.keys.iter().chain(*more), section.one_of);
            if let Some(key) = table.pointer_mut(&format!("/properties/{by}")) {
                put(key, "enum", json!([kind]));
            }
            table
        });
        return json!({ "type": "object", "oneOf": kinds.collect::<Vec<_>>() });
    }
    of_keys(section.keys.iter(), section.one_of)
}

fn of_keys<'k>(keys: impl Iterator<Item = &'k Key> + Clone, one_of: &[&str]) -> Value {
    let properties: Map<String, Value> =
        keys.clone().map(|key| (key.name.to_owned(), of_key(key))).collect();
    let required: Vec<&str> = keys.filter(|key| key.is_required).map(|key| key.name).collect();
    let mut table =
        json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        put(&mut table, "required", json!(required));
    }
    if !one_of.is_empty() {
        let each = one_of.iter().map(|key| json!({ "required": [key] }));
        put(&mut table, "oneOf", each.collect());
    }
    table
}

fn of_key(key: &Key) -> Value {
    let mut value = of_form(&key.form);
    put(&mut value, "description", key.about.into());
    value
}

/// Sets a member of an object.
fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(members) = object.as_object_mut() {
        members.insert(name.to_owned(), value);
    }
}
