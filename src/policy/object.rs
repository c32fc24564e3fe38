//! What an effect acts on, and the patterns by which rules name it.
//!
//! An object is written `kind:name`. Some kinds have names of several parts, joined by dots
//! (`table:public.orders`, `column:public.orders.email`); what the decoder cannot know of a name
//! is written `?`: `table:?.orders` is an `orders` in a schema that the command does not name. A
//! part that would read as something else is quoted as SQL quotes: `table:public."a.b"`.
//!
//! A pattern is written likewise, with `*` for any run of characters within a part; parts left
//! out in front match anything (`table:orders` is `table:*.orders`), and `*` alone is any object.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::command::Effect;

/// Kinds whose names have several parts, with their number. All other kinds have one.
const PARTS: &[(&str, usize)] = &[
    ("collation", 2),
    ("column", 3),
    ("constraint", 3),
    ("conversion", 2),
    ("function", 2),
    ("index", 2),
    ("operator", 2),
    ("operator-class", 2),
    ("operator-family", 2),
    ("policy", 3),
    ("rule", 3),
    ("statistics", 2),
    ("table", 2),
    ("text-search", 2),
    ("trigger", 3),
    ("type", 2),
];

fn parts_of(kind: &str) -> usize {
    PARTS.iter().find(|(name, _)| *name == kind).map_or(1, |(_, parts)| *parts)
}

/// What an effect acts on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    kind: Cow<'static, str>,
    parts: Vec<Option<String>>,
}

impl Object {
    /// An object of a kind. Of the parts, outermost first, `None` is what is not known; parts
    /// missing in front are not known either, and of too many the innermost count.
    pub fn new(kind: &'static str, parts: impl IntoIterator<Item = Option<String>>) -> Self {
        let mut parts: Vec<Option<String>> = parts.into_iter().collect();
        let wanted = parts_of(kind);
        parts.drain(..parts.len().saturating_sub(wanted));
        let missing = wanted - parts.len();
        parts.splice(..0, std::iter::repeat_n(None, missing));
        Self { kind: Cow::Borrowed(kind), parts }
    }

    /// For example `table`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The parts of the name, outermost first; `None` is what is not known.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = Option<&str>> {
        self.parts.iter().map(Option::as_deref)
    }

    /// The innermost part of the name.
    pub fn name(&self) -> Option<&str> {
        self.parts.last().and_then(Option::as_deref)
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind)?;
        let dotted = self.parts.len() > 1;
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            match part {
                None => f.write_str("?")?,
                Some(name) if reads_as_itself(name, dotted) => f.write_str(name)?,
                Some(name) => write!(f, "\"{}\"", name.replace('"', "\"\""))?,
            }
        }
        Ok(())
    }
}

fn reads_as_itself(name: &str, dotted: bool) -> bool {
    name != "?" && !name.starts_with('"') && !(dotted && (name.is_empty() || name.contains('.')))
}

/// What was given is no object, or no pattern of objects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadObject {
    /// There is no colon after a kind.
    #[error("an object is written kind:name, for example table:public.orders")]
    NoKind,
    /// A quote does not close, or something follows it.
    #[error("a quoted part of an object's name ends with a quote, and a dot or nothing follows")]
    Quote,
    /// The name has more parts than its kind.
    #[error("an object of this kind has fewer dots in its name (quote a part that holds one)")]
    TooManyParts,
}

impl FromStr for Object {
    type Err = BadObject;

    fn from_str(text: &str) -> Result<Self, BadObject> {
        let (kind, parts) = split(text)?;
        if parts.len() != parts_of(kind) {
            return Err(BadObject::TooManyParts);
        }
        let known = |part: Part| (part.quoted || part.text != "?").then_some(part.text);
        Ok(Self {
            kind: Cow::Owned(kind.to_owned()),
            parts: parts.into_iter().map(known).collect(),
        })
    }
}

impl Serialize for Object {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A rule's name for objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// `None` is any object at all.
    named: Option<(String, Vec<Part>)>,
}

impl Pattern {
    /// Whether the effect's object may be one that the pattern names. Block, approve and mask
    /// rules ask this: what is not known counts as a match.
    pub fn could_be(&self, effect: &Effect) -> bool {
        self.matches(effect, |_| true, |mut hits| hits.any(|hit| hit))
    }

    /// Whether the effect's object is certainly one that the pattern names. Allow rules ask this:
    /// what is not known matches only what matches everything.
    pub fn certainly_is(&self, effect: &Effect) -> bool {
        self.matches(effect, Part::is_everything, |mut hits| {
            !effect.columns.is_empty() && hits.all(|hit| hit)
        })
    }

    /// `unknown` decides a part that is not known, `columns` whether the hits among the columns of
    /// a table are enough for a pattern of columns.
    fn matches(
        &self,
        effect: &Effect,
        unknown: impl Fn(&Part) -> bool,
        columns: impl Fn(Box<dyn Iterator<Item = bool> + '_>) -> bool,
    ) -> bool {
        let Some((kind, parts)) = &self.named else { return true };
        let Some(object) = &effect.object else { return false };
        let names = |wanted: &[Part]| {
            wanted.len() == object.parts.len()
                && wanted.iter().zip(&object.parts).all(|(part, name)| match name {
                    Some(name) => part.matches(name),
                    None => unknown(part),
                })
        };
        if *kind == object.kind {
            return names(parts);
        }
        let Some((column, table)) = parts.split_last() else { return false };
        let hit = |name: &String| match name.as_str() {
            "*" => unknown(column),
            name => column.matches(name),
        };
        kind == "column"
            && object.kind == "table"
            && names(table)
            && (column.is_everything() || columns(Box::new(effect.columns.iter().map(hit))))
    }
}

impl FromStr for Pattern {
    type Err = BadObject;

    fn from_str(text: &str) -> Result<Self, BadObject> {
        if text == "*" {
            return Ok(Self { named: None });
        }
        let (kind, mut parts) = split(text)?;
        let wanted = parts_of(kind);
        if parts.len() > wanted {
            return Err(BadObject::TooManyParts);
        }
        let anything = Part { text: "*".to_owned(), quoted: false };
        parts.splice(..0, std::iter::repeat_n(anything, wanted - parts.len()));
        Ok(Self { named: Some((kind.to_owned(), parts)) })
    }
}

/// One part of a written name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    text: String,
    quoted: bool,
}

impl Part {
    fn is_everything(&self) -> bool {
        !self.quoted && self.text == "*"
    }

    /// Whether the glob matches the whole name; a quoted part matches itself alone.
    fn matches(&self, name: &str) -> bool {
        if self.quoted {
            return self.text == name;
        }
        let mut pieces = self.text.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            match rest.split_once(piece) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

/// The kind, and the parts of the name as written.
fn split(text: &str) -> Result<(&str, Vec<Part>), BadObject> {
    let (kind, mut rest) = text.split_once(':').ok_or(BadObject::NoKind)?;
    if kind.is_empty() {
        return Err(BadObject::NoKind);
    }
    let dotted = parts_of(kind) > 1;
    let mut parts = Vec::new();
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_part(quoted)?,
            None if dotted => match rest.split_once('.') {
                Some((part, after)) => (Part { text: part.to_owned(), quoted: false }, Some(after)),
                None => (Part { text: rest.to_owned(), quoted: false }, None),
            },
            None => (Part { text: rest.to_owned(), quoted: false }, None),
        };
        parts.push(part);
        match after {
            Some(after) => rest = after,
            None => return Ok((kind, parts)),
        }
    }
}

/// The part after an opening quote, and what follows its dot.
fn quoted_part(mut rest: &str) -> Result<(Part, Option<&str>), BadObject> {
    let mut text = String::new();
    loop {
        let (before, after) = rest.split_once('"').ok_or(BadObject::Quote)?;
        text.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                text.push('"');
                rest = after;
            }
            None if after.is_empty() => return Ok((Part { text, quoted: true }, None)),
            None => {
                let after = after.strip_prefix('.').ok_or(BadObject::Quote)?;
                return Ok((Part { text, quoted: true }, Some(after)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(object: &str, columns: &[&str]) -> Effect {
        let mut effect = Effect::of("sql.select");
        effect.object = Some(object.parse().unwrap());
        effect.columns = columns.iter().map(|c| (*c).to_owned()).collect();
        effect
    }

    fn could(pattern: &str, object: &str, columns: &[&str]) -> bool {
        pattern.parse::<Pattern>().unwrap().could_be(&effect(object, columns))
    }

    fn certainly(pattern: &str, object: &str, columns: &[&str]) -> bool {
        pattern.parse::<Pattern>().unwrap().certainly_is(&effect(object, columns))
    }

    #[test]
    fn an_object_reads_back_as_it_was_written() {
        for text in [
            "table:public.orders",
            "table:?.orders",
            "table:\"?\".\"a.b\"",
            "table:public.\"\"",
            "table:public.\"\"\"\"",
            "column:public.orders.email",
            "role:?",
            "role:\"?\"",
            "setting:my.v",
            "path:/v1/re.funds",
        ] {
            let object: Object = text.parse().unwrap();
            assert_eq!(object.to_string(), text);
            assert_eq!(
                serde_json::to_string(&object).unwrap(),
                serde_json::json!(text).to_string()
            );
        }
        let new = Object::new("table", [Some("a.b".to_owned())]);
        assert_eq!(new.to_string(), "table:?.\"a.b\"");
        assert_eq!(new, "table:?.\"a.b\"".parse().unwrap());
        for bad in ["table", ":a", "table:a.b.c", "table:\"a", "table:\"a\"b", "table:a"] {
            assert!(bad.parse::<Object>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_that_is_not_known_could_be_any_and_is_certainly_none() {
        for pattern in ["table:public.orders", "table:*.ord*", "table:orders", "*", "table:*"] {
            assert!(could(pattern, "table:?.orders", &[]), "{pattern}");
        }
        assert!(!certainly("table:public.orders", "table:?.orders", &[]));
        assert!(certainly("table:public.orders", "table:public.orders", &[]));
        for pattern in ["table:orders", "table:*.orders", "table:*", "*"] {
            assert!(certainly(pattern, "table:?.orders", &[]), "{pattern}");
        }
        assert!(!could("table:public.secrets", "table:?.orders", &[]));
        assert!(!could("table:public.orders", "function:?.orders", &[]));
        assert!(could("role:admin", "role:?", &[]) && !certainly("role:admin", "role:?", &[]));
    }

    #[test]
    fn a_pattern_of_columns_matches_tables_by_the_columns_named() {
        let email = "column:public.customers.email";
        assert!(could(email, "table:?.customers", &["email", "id"]));
        assert!(could(email, "table:public.customers", &["*"]));
        assert!(!could(email, "table:public.customers", &["id"]));
        assert!(!could(email, "table:public.customers", &[]));
        assert!(!could(email, "table:public.vendors", &["email"]));
        assert!(certainly(email, "table:public.customers", &["email"]));
        assert!(!certainly(email, "table:public.customers", &["email", "id"]));
        assert!(!certainly(email, "table:public.customers", &["*"]));
        assert!(!certainly(email, "table:public.customers", &[]));
        assert!(certainly("column:public.customers.*", "table:public.customers", &["*"]));
        assert!(certainly("column:customers.*", "table:public.customers", &[]));
        assert!(could("column:*.ssn", "table:public.customers", &["ssn"]));
        assert!(could(email, "column:public.customers.email", &[]));
    }

    #[test]
    fn globs_match_whole_parts_and_quoted_parts_match_themselves() {
        assert!(could("table:public.o*r*s", "table:public.orders", &[]));
        assert!(!could("table:public.o*x*s", "table:public.orders", &[]));
        assert!(!could("table:public.orders*s", "table:public.orders", &[]));
        assert!(!could("table:public.order", "table:public.orders", &[]));
        assert!(!could("table:pub*s", "table:public.orders", &[]));
        assert!(could("table:public.\"a*\"", "table:public.a*", &[]));
        assert!(!could("table:public.\"a*\"", "table:public.ab", &[]));
        assert!(could("path:/v1/*", "path:/v1/re.funds", &[]));
    }
}
