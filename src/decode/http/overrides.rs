//! Where frameworks take another method from than the request line: a header, a parameter of the query,
//! a field of a form or of JSON.
//!
//! Sources: `Rack::MethodOverride` (form), Symfony and Laravel (`_method` in query, form and JSON), the
//! REST API of `WordPress` (`_method` in the query), `method-override` of Express (which takes the first
//! item of a list), `Plack::Middleware::MethodOverride` (`x-tunneled-method` in the query), Google APIs
//! and `OData` (headers).
//!
//! A name counts in every spelling that one of them could take for it. PHP makes `_` of `.`, of spaces and
//! of `[`, leaves out spaces in front and ends names at NUL (`php_register_variable_ex`); programs that
//! nest parameters leave out brackets in front and end names at the first that follows (Rack, qs).

mod form;
mod json;
mod multipart;

use serde_json::Value;

use super::{action_of, query};
use form::Form;
use json::Keys;
use multipart::{Asks, Heads};

/// The parameters, with `_` for all that is no letter and no digit.
const PARAMETERS: &[&str] = &[
    FIELD,
    "_httpmethod",
    "http_method_override",
    "httpmethod",
    "x_http_method",
    "x_http_method_override",
    "x_method_override",
];
/// What a body may ask for that cannot be read.
pub const ANY: &[&str] = &["PUT", "PATCH", "DELETE"];
/// The one field of JSON.
const FIELD: &str = "_method";

/// Whether a header asks for another method, whatever its value is. Names with another character for
/// `-` are given as with it.
pub fn is_header(name: &str) -> bool {
    could_be_header(name)
        && ["http", "overrid", "overwrit", "tunnel"].iter().any(|how| name.contains(how))
}

/// Whether a header could ask for one: it does where its value is a method.
pub fn could_be_header(name: &str) -> bool {
    !name.starts_with("access-control-") && names_method(name.split('-'))
}

/// The methods that a header field asks for. Of a list the first counts for some, and any for others.
pub fn of_header(name: &str, value: &[u8]) -> Vec<String> {
    if !could_be_header(name) {
        return Vec::new();
    }
    let value = String::from_utf8_lossy(value);
    let methods = value.split(',').filter_map(method);
    methods.filter(|method| is_header(name) || action_of(method).is_ok()).collect()
}

fn names_method<'n>(mut words: impl Iterator<Item = &'n str>) -> bool {
    words.any(|word| word.contains("method") || word.ends_with("verb") || word == "verboverride")
}

/// Whether a parameter of a query or a form asks for another method, in any reading of its name.
fn asks(name: &[u8]) -> bool {
    let blank = |byte: &u8| byte.is_ascii_whitespace() || byte.is_ascii_control();
    let start = name.iter().position(|byte| !blank(byte)).unwrap_or(name.len());
    let name = name.get(start..).and_then(|name| name.split(|byte| *byte == 0).next());
    let name = name.unwrap_or_default();
    let bracket = |byte: &u8| matches!(byte, b'[' | b']');
    let nested = name.split(bracket).find(|part| !part.is_empty()).unwrap_or_default();
    is_parameter(name) || is_parameter(nested)
}

fn is_parameter(name: &[u8]) -> bool {
    let letter = |byte: &u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte.to_ascii_lowercase()),
        false => '_',
    };
    let name: String = name.trim_ascii().iter().map(letter).collect();
    PARAMETERS.contains(&name.as_str())
        || (names_method(name.split('_')) && (name.contains("override") || name.contains("tunnel")))
}

/// The methods that a query asks for.
pub fn of_query(query: &serde_json::Map<String, Value>) -> Vec<String> {
    let asking = query.iter().filter(|(name, _)| asks(name.as_bytes()));
    asking.flat_map(|(_, values)| texts(values)).filter_map(method).collect()
}

/// The methods that a form (`application/x-www-form-urlencoded`) asks for.
pub fn of_form(body: &[u8]) -> Vec<String> {
    let (mut form, mut rest, mut methods) = (Form::default(), body, Vec::new());
    while form.finds(&mut rest) {
        let value = rest.strip_prefix(b"=").unwrap_or_default();
        let value = value.split(|byte| matches!(byte, b'&' | b';')).next().unwrap_or_default();
        let spaced: Vec<u8> =
            value.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
        methods.extend(method(&String::from_utf8_lossy(&query::percent_decoded(&spaced))));
    }
    methods
}

/// The methods that a JSON document asks for.
pub fn of_json(document: &Value) -> Vec<String> {
    let members = document.as_object().into_iter().flatten();
    let asking = members.filter(|(name, _)| name.eq_ignore_ascii_case(FIELD));
    asking.flat_map(|(_, value)| texts(value)).filter_map(method).collect()
}

/// The methods that parts of `multipart/form-data` ask for; none where one cannot be read.
pub fn of_multipart(body: &[u8]) -> Option<Vec<String>> {
    let (mut heads, mut rest, mut methods) = (Heads::default(), body, Vec::new());
    while let Some(asks) = heads.next(&mut rest) {
        match asks {
            Asks::Anything => methods.extend(ANY.iter().map(|method| (*method).to_owned())),
            Asks::Method => methods.extend(method(&multipart::value(rest)?)),
        }
    }
    heads.end().is_none().then_some(methods)
}

fn method(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_ascii_uppercase())
}

/// A text, or those of a list.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        one => std::slice::from_ref(one),
    };
    items.iter().filter_map(Value::as_str)
}

/// How a body names its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A form; a body without a content type is taken for one (Rack).
    Form,
    /// A form of several parts.
    Multipart,
    /// JSON.
    Json,
}

impl Kind {
    /// The kind of bodies of a content type that may ask for another method. PHP ends the name of the
    /// type at a comma or a space, too (`sapi_read_post_data`).
    pub fn of(content_type: Option<&str>) -> Option<Self> {
        let content_type = content_type.unwrap_or_default().trim().to_ascii_lowercase();
        match content_type.split([';', ',', ' ', '\t']).next().unwrap_or_default() {
            "" | "application/x-www-form-urlencoded" => Some(Self::Form),
            essence if essence.starts_with("multipart/") => Some(Self::Multipart),
            essence if essence.contains("json") => Some(Self::Json),
            _ => None,
        }
    }
}

/// Looks for such a field in what of a body was not read before the request was decided, however it is
/// cut. It keeps at most the beginning of one name.
#[derive(Debug)]
pub struct Scanner {
    names: Option<Names>,
    disguised: Disguised,
}

/// JSON under another content type: some programs read a body as what it looks like.
#[derive(Debug)]
enum Disguised {
    /// Nothing came but what may stand before a document.
    Blank,
    Json(Keys),
    /// It is none.
    Other,
}

impl Disguised {
    fn finds(&mut self, chunk: &[u8]) -> bool {
        let mut rest = chunk;
        if matches!(self, Self::Blank) {
            let blank = |byte: &&u8| **byte <= b' ' || b"\xef\xbb\xbf".contains(byte);
            let before = chunk.iter().take_while(blank).count();
            rest = chunk.get(before..).unwrap_or_default();
            match rest.first() {
                None => return false,
                Some(b'{' | b'[') => *self = Self::Json(Keys::default()),
                Some(_) => *self = Self::Other,
            }
        }
        match self {
            Self::Json(keys) => keys.finds(&mut rest),
            Self::Blank | Self::Other => false,
        }
    }
}

#[derive(Debug)]
enum Names {
    Form(Form),
    Multipart(Heads),
    Json(Keys),
}

impl Scanner {
    /// At the beginning of a body.
    pub fn new(kind: Option<Kind>) -> Self {
        let names = kind.map(|kind| match kind {
            Kind::Form => Names::Form(Form::default()),
            Kind::Multipart => Names::Multipart(Heads::default()),
            Kind::Json => Names::Json(Keys::default()),
        });
        let disguised = if kind == Some(Kind::Json) { Disguised::Other } else { Disguised::Blank };
        Self { names, disguised }
    }

    /// Takes the next chunk; says whether a field stands in it. With `last` nothing follows.
    pub fn finds(&mut self, chunk: &[u8], last: bool) -> bool {
        let disguised = self.disguised.finds(chunk);
        let mut rest = chunk;
        let found = self.next(&mut rest);
        if found {
            while self.next(&mut rest) {}
        }
        found
            || disguised
            || (last
                && match &self.names {
                    Some(Names::Form(form)) => form.ends_asking(),
                    Some(Names::Multipart(heads)) => heads.end().is_some(),
                    Some(Names::Json(_)) | None => false,
                })
    }

    /// Takes a chunk that was read as what it calls itself; says whether a field stands in it that is
    /// only there for those who read it as JSON.
    pub fn finds_disguised(&mut self, chunk: &[u8]) -> bool {
        let mut rest = chunk;
        while self.next(&mut rest) {}
        self.disguised.finds(chunk)
    }

    /// Goes on to what stands behind the next name that asks; to the end where there is none.
    fn next(&mut self, rest: &mut &[u8]) -> bool {
        match &mut self.names {
            Some(Names::Form(form)) => form.finds(rest),
            Some(Names::Multipart(heads)) => heads.next(rest).is_some(),
            Some(Names::Json(keys)) => keys.finds(rest),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn finds(kind: Kind, text: &str, size: usize) -> bool {
        let mut scanner = Scanner::new(Some(kind));
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        let count = pieces.len();
        let each = |(at, piece): (usize, &&[u8])| scanner.finds(piece, at + 1 == count);
        pieces.iter().enumerate().map(each).collect::<Vec<_>>().contains(&true)
    }

    #[test]
    fn the_field_is_found_in_every_spelling_and_cut() {
        let head = |parameters: &str| format!("--b\r\nContent-Disposition: {parameters}\r\n\r\nx");
        let spaced = format!("{{\"_method\"{}:\"DELETE\"}}", " ".repeat(300));
        let far = format!("a=1&{}.method=1", "%20".repeat(100));
        for (kind, text, there) in [
            (Kind::Form, "_method=delete", true),
            (Kind::Form, "a=1&_METHOD=delete", true),
            (Kind::Form, "a=1;%5fm%65thod=delete", true),
            (Kind::Form, "a=1&_method", true),
            (Kind::Form, "a=1&.method=1", true),
            (Kind::Form, "+%2Emethod=1", true),
            (Kind::Form, "%5Bmethod=1", true),
            (Kind::Form, "_method%00%zz=1", true),
            (Kind::Form, "_method[]=1", true),
            (Kind::Form, "[[[_method]=1", true),
            (Kind::Form, "X-Http-Method-Override=1", true),
            (Kind::Form, "a=1&x-tunneled-method=1", true),
            (Kind::Form, &far, true),
            (Kind::Form, "payment_method=1&a=_method=1&x%26_method=1", false),
            (Kind::Form, "payment.method=1&method=2&a[_method]=1&%_method=3", false),
            (Kind::Json, r#"{"_method" : "DELETE"}"#, true),
            (Kind::Json, r#"{"a": {}, "\u005fMeth\u006Fd": 1}"#, true),
            (Kind::Json, r#"{"a": 1 /* " */, "_method"/**/: 1}"#, true),
            (Kind::Json, &spaced, true),
            (Kind::Json, r#"{"code": "x = {\"_method\": 1}", "payment_method": 1}"#, false),
            (Kind::Json, r#"["_method", "a"]"#, false),
            (Kind::Multipart, &head("form-data; name=\"_method\""), true),
            (Kind::Multipart, &head("form-data; name=_method"), true),
            (Kind::Multipart, &head("form-data; name=\".method\""), true),
            (Kind::Multipart, &head("form-data; name=\"[_method]\""), true),
            (Kind::Multipart, &head("form-data; name=\"_\\method\""), true),
            (Kind::Multipart, &head("form-data; name*=utf-8''%5Fmethod"), true),
            (Kind::Multipart, &head("form-data; name*0=_me; name*1=thod"), true),
            (Kind::Multipart, &head("form-data;\r\n\tname = '_method'"), true),
            (Kind::Multipart, "--b\ncontent-disposition:form-data;name=.method\n\nx", true),
            (Kind::Multipart, "Content-Disposition: form-data; name=_method\r\n", true),
            (Kind::Multipart, &head("form-data; name=\"payment.method\""), false),
            (Kind::Multipart, &head("form-data; name=\"a\"; filename=\"_method\""), false),
            (Kind::Multipart, &head("form-data; name=\"a\"\r\n\r\n; name=\"_method\""), false),
            (
                Kind::Multipart,
                "Content-Disposition: form-data; name=\"a\"\r\n\r\nx_method\r\n",
                false,
            ),
        ] {
            for size in [1, 3, 7, 1_000] {
                assert_eq!(finds(kind, text, size), there, "{text} {size}");
            }
        }
    }

    #[test]
    fn methods_are_read_where_frameworks_read_them() {
        assert_eq!(of_form(b"a=1&_method=delete+&%5fmethod=put"), ["DELETE", "PUT"]);
        assert_eq!(of_form(b"_method&.method=put;%20_method=%64elete"), ["PUT", "DELETE"]);
        assert_eq!(of_json(&json!({ "_method": "delete", "a": { "_method": 1 } })), ["DELETE"]);
        assert_eq!(of_json(&json!({ "_method": ["delete", "get"] })), ["DELETE", "GET"]);
        let query = query::parse("_method=DELETE&X-HTTP-Method-Override=put&method=x").unwrap();
        assert_eq!(of_query(&query).len(), 2);
        for query in [".method=DELETE", "[method=DELETE", "_method%00=DELETE", "_method[]=DELETE"] {
            assert_eq!(of_query(&query::parse(query).unwrap()), ["DELETE"], "{query}");
        }
        let part =
            b"--b\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nDELETE\r\n--b--";
        assert_eq!(of_multipart(part).unwrap(), ["DELETE"]);
        assert_eq!(of_multipart(&part[..60]), None);
        let part = b"--b\nContent-Disposition: form-data; name=.method\nA: b\n\n\nput\n--b--";
        assert_eq!(of_multipart(part).unwrap(), ["PUT"]);
        let part = b"--b\r\nContent-Disposition: form-data; name*1=d\r\n\r\nx\r\n--b--";
        assert_eq!(of_multipart(part).unwrap(), ANY);
    }

    #[test]
    fn headers_that_ask_for_another_method_are_known_by_their_words() {
        for name in [
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
            "x-httpmethod-override",
            "x-http-verb",
            "x-httpverb-override",
            "http-method-override",
            "x-tunneled-method",
        ] {
            assert!(is_header(name), "{name}");
            assert_eq!(of_header(name, b"delete, get"), ["DELETE", "GET"], "{name}");
        }
        for name in ["x-method", "x-verb", "x-real-method"] {
            assert!(of_header(name, b"wire").is_empty(), "{name}");
            assert_eq!(of_header(name, b"DELETE"), ["DELETE"], "{name}");
        }
        for name in ["access-control-request-method", "x-verbose", "x-http-client"] {
            assert!(of_header(name, b"DELETE").is_empty(), "{name}");
        }
    }

    #[test]
    fn a_type_ends_where_servers_end_it() {
        for form in ["application/x-www-form-urlencoded,a", " Application/X-WWW-Form-Urlencoded a"]
        {
            assert_eq!(Kind::of(Some(form)), Some(Kind::Form), "{form}");
        }
        assert_eq!(Kind::of(Some("text/plain; application/json")), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), size in 1usize..9) {
            let (_, _) = (of_form(&bytes), of_multipart(&bytes));
            for kind in [Kind::Form, Kind::Json, Kind::Multipart] {
                let mut scanner = Scanner::new(Some(kind));
                for piece in bytes.chunks(size) {
                    scanner.finds(piece, false);
                }
            }
        }

        #[test]
        fn the_cut_changes_nothing(
            pieces in prop::collection::vec(
                prop::sample::select(&[
                    "_method", ".", "method", "[", "]", "%", "%20", "%5f", "+", "&", "=", "\"", "\\", ":",
                    "\r", "\n", " ", "Content-Disposition:", "name", "*", ";", "a",
                ][..]),
                0..14,
            ),
            size in 1usize..9,
        ) {
            let text = pieces.concat();
            for kind in [Kind::Form, Kind::Json, Kind::Multipart] {
                prop_assert_eq!(finds(kind, &text, size), finds(kind, &text, 10_000));
            }
        }
    }
}
