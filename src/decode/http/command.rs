//! A request as policy sees it.
//!
//! A request is one command with one effect: its method, as the action, on its path. It has a
//! second one when something asks for another method (`X-HTTP-Method-Override`, `_method`), or names
//! another path (WebDAV's `Destination`): then both must be allowed.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::dialects::Dialect;
use super::path::{EncodedSlash, Path};
use super::{Refused, action_of, fields, json, overrides, query};
use crate::policy::{Attributes, Command, Effect, Object};

/// The form of the command.
pub const FORM: &str = "request";

/// What rules see of a request, beside its path.
pub const ATTRIBUTES: &[&str] = &["method", "query", "headers", "content_type", "json"];

/// What rules see of a header whose value is a credential.
pub const WITHHELD: &str = "[withheld]";

/// A request, taken apart.
#[derive(Debug)]
pub struct Request<'a> {
    /// One of [`super::METHODS`].
    pub method: &'a str,
    /// The path, as the target gets it.
    pub path: &'a Path<'a>,
    /// What stands behind the question mark.
    pub query: Option<&'a str>,
    /// Names in lower case, and values.
    pub fields: &'a [(&'a str, &'a [u8])],
    /// Where a WebDAV request copies or moves to.
    pub destination: Option<&'a Path<'a>>,
    /// The body, when it was small enough and could be read.
    pub json: Option<Value>,
    /// The methods that the body asks for in the place of this one.
    pub overrides: Vec<String>,
}

/// What the request would do.
pub fn of(request: &Request<'_>) -> Result<Command, Refused> {
    let action = action_of(request.method)?;
    let attributes = attributes(request)?;
    let Request { method, path, query, .. } = *request;
    let on = |action: &'static str, path: &Path<'_>| Effect {
        attributes: attributes.clone(),
        ..Effect::on(action, Object::named("path", path.decoded()))
    };
    let mut actions = vec![action];
    for method in overrides(request)? {
        let action = action_of(&method)?;
        if !actions.contains(&action) {
            actions.push(action);
        }
    }
    let destinations = request.destination.map(|destination| on(action, destination));
    let effects = actions.iter().map(|action| on(action, path)).chain(destinations).collect();
    let (mark, query) = query.map_or(("", ""), |query| ("?", query));
    Ok(Command {
        form: Cow::Borrowed(FORM),
        text: format!("{method} {}{mark}{query}", path.as_str()),
        attributes: Attributes::new(),
        effects,
    })
}

/// The methods that a server could take in the place of the request's own.
fn overrides(request: &Request<'_>) -> Result<Vec<String>, Refused> {
    let mut methods = request.overrides.clone();
    methods.extend(overrides::of_query(&query::parse(request.query.unwrap_or_default())?));
    methods.extend(request.json.iter().flat_map(overrides::of_json));
    for (name, value) in request.fields {
        methods.extend(overrides::of_header(&fields::canonical(name), value));
    }
    Ok(methods)
}

fn attributes(request: &Request<'_>) -> Result<Attributes, Refused> {
    let mut attributes = Attributes::new();
    let mut set = |name: &'static str, value: Value| attributes.insert(Cow::Borrowed(name), value);
    set("method", Value::from(request.method));
    set("query", Value::Object(query::parse(request.query.unwrap_or_default())?));
    let headers = headers(request.fields);
    let content_type = headers.get("content-type").and_then(Value::as_str).map(essence);
    if let Some(content_type) = content_type {
        set("content_type", Value::from(content_type));
    }
    set("headers", Value::Object(headers));
    if let Some(json) = &request.json {
        set("json", json.clone());
    }
    Ok(attributes)
}

/// The headers; several of one name are joined as RFC 9110 section 5.3 says. Of those whose values are
/// credentials rules see that they are there.
fn headers(fields: &[(&str, &[u8])]) -> Map<String, Value> {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in fields {
        if fields::is_credential(name) {
            headers.insert((*name).to_owned(), Value::from(WITHHELD));
            continue;
        }
        let value = String::from_utf8_lossy(value);
        match headers.get_mut(*name) {
            Some(Value::String(text)) => {
                text.push_str(", ");
                text.push_str(&value);
            }
            _ => {
                headers.insert((*name).to_owned(), Value::from(value));
            }
        }
    }
    headers
}

/// `application/json` of `Application/JSON; charset=utf-8`.
fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads a request as people write one in policy tests: `POST /v1/refunds?open=1 {"amount": 2000}`.
/// The path is the target's own, without the target's name in front.
pub(super) fn from_text(text: &str, dialect: &(impl Dialect + ?Sized)) -> Result<Command, String> {
    let (method, rest) = text.trim().split_once(' ').ok_or("write METHOD /path")?;
    let (target, body) = rest.trim_start().split_once(' ').unwrap_or((rest.trim_start(), ""));
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let path = Path::parse_with(path, EncodedSlash::Data).map_err(|refused| refused.to_string())?;
    let json = match body.trim() {
        "" => None,
        body => Some(json::parse(body.as_bytes()).map_err(|not_read| not_read.to_string())?),
    };
    let fields: &[(&str, &[u8])] =
        if json.is_some() { &[("content-type", b"application/json")] } else { &[] };
    let overrides = Vec::new();
    let request =
        Request { method, path: &path, query, fields, destination: None, json, overrides };
    dialect.read(&request).map(|meaning| meaning.command).map_err(|refused| refused.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::dialects;
    use super::*;

    #[test]
    fn a_request_is_its_method_on_its_path_with_what_rules_look_at() {
        let path = Path::parse("/users/alice%40example.com").unwrap();
        let fields: [(&str, &[u8]); 4] = [
            ("content-type", b"Application/JSON; charset=utf-8"),
            ("accept", b"a"),
            ("accept", b"b"),
            ("cookie", b"secret"),
        ];
        let command = of(&Request {
            method: "POST",
            path: &path,
            query: Some("id=1&id=2"),
            fields: &fields,
            destination: None,
            json: Some(json!({ "amount": 2000 })),
            overrides: Vec::new(),
        })
        .unwrap();
        assert_eq!(command.text, "POST /users/alice%40example.com?id=1&id=2");
        let [effect] = command.effects.as_slice() else { panic!("{command:?}") };
        assert_eq!(effect.action, "http.post");
        assert_eq!(effect.object.as_ref().unwrap().to_string(), "path:/users/alice@example.com");
        assert_eq!(effect.attributes["query"], json!({ "id": ["1", "2"] }));
        assert_eq!(effect.attributes["content_type"], "application/json");
        assert_eq!(effect.attributes["headers"]["accept"], "a, b");
        assert_eq!(effect.attributes["json"], json!({ "amount": 2000 }));
        assert_eq!(effect.attributes["headers"]["cookie"], WITHHELD);
    }

    #[test]
    fn a_header_that_asks_for_another_method_is_a_second_effect() {
        let path = Path::parse("/a").unwrap();
        let with = |value: &[u8]| {
            let fields = [("x-http-method-override", value)];
            let (query, destination, json, overrides) = (None, None, None, Vec::new());
            let method = "POST";
            let fields = &fields;
            let request =
                Request { method, path: &path, query, fields, destination, json, overrides };
            of(&request).map(|command| {
                command.effects.iter().map(|effect| effect.action.to_string()).collect::<Vec<_>>()
            })
        };
        assert_eq!(with(b"delete").unwrap(), ["http.post", "http.delete"]);
        assert_eq!(with(b"POST").unwrap(), ["http.post"]);
        assert!(with(b"TRACE").is_err());
    }

    #[test]
    fn head_is_judged_as_get_and_unknown_methods_are_none() {
        let from_text = |text| dialects::plain().read_text(text);
        assert_eq!(from_text("HEAD /a").unwrap().effects[0].action, "http.get");
        for wrong in ["get /a", "TRACE /a", "CONNECT /a", "/a", "GET a", "GET /a {\"a\""] {
            assert!(from_text(wrong).is_err(), "{wrong}");
        }
        let command = from_text("POST /v1/refunds?x=1 {\"amount\": 1}").unwrap();
        assert_eq!(command.effects[0].attributes["json"], json!({ "amount": 1 }));
    }
}
