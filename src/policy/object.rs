//! What an effect acts on, and the patterns that rules name objects by.
//!
//! An object is a kind and a name: `path:/v1/refunds`, `program:/bin/rm`, `role:admin`. The name
//! of most kinds is one text. The kinds of [`PARTS`] have names of several parts, outermost first:
//! `table:public.orders`, `column:public.orders.email`. A part may be unknown, because the
//! statement did not say it and only the server's settings would; it is written `?`:
//! `table:?.orders` is a table of that name in some schema, `table:public.?` some table of that
//! schema.
//!
//! So there are two questions. Could the object be one that the pattern means? Block, approve and
//! mask rules ask that. Is it one for certain? Allow rules ask that. Where nothing is unknown both
//! have the same answer.
//!
//! A decoder writes names as the system itself would resolve them (PostgreSQL folds unquoted
//! identifiers to lower case and cuts them at 63 bytes); patterns are exact bytes with `*`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::glob::Glob;

/// The kinds whose names have parts, and how many. What can be selected from (tables, views,
/// sequences) is `table`: a statement does not say which it means.
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

/// How many parts the name of an object of this kind has.
fn parts_of(kind: &str) -> usize {
    PARTS.iter().find(|(name, _)| *name == kind).map_or(1, |(_, parts)| *parts)
}

/// What an effect acts on. Its text form ([`fmt::Display`], [`FromStr`], serde) is what recordings
/// and people see.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Object {
    kind: Cow<'static, str>,
    /// As many as the kind has, outermost first; `None` is a part that is not known.
    parts: Vec<Option<String>>,
}

impl Object {
    /// An object of a kind, named by its parts, outermost first; `None` is one that is not known.
    /// Outer parts that are left out are not known either; parts beyond what the kind has are
    /// joined into its outermost.
    pub fn new(kind: &'static str, parts: impl IntoIterator<Item = Option<String>>) -> Self {
        Self::of(Cow::Borrowed(kind), parts.into_iter().collect())
    }

    /// An object whose name is one text that is known: a path, a program.
    pub fn named(kind: &'static str, name: impl Into<String>) -> Self {
        Self::new(kind, [Some(name.into())])
    }

    fn of(kind: Cow<'static, str>, mut parts: Vec<Option<String>>) -> Self {
        let count = parts_of(&kind);
        if let Some(extra) = parts.len().checked_sub(count).filter(|extra| *extra > 0) {
            let outer: Option<Vec<String>> = parts.drain(..=extra).collect();
            parts.insert(0, outer.map(|parts| parts.join(".")));
        }
        let unknown = count - parts.len();
        parts.splice(0..0, std::iter::repeat_n(None, unknown));
        Self { kind, parts }
    }

    /// For example `table`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The parts of the name, outermost first, as many as the kind has.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = Option<&str>> {
        self.parts.iter().map(Option::as_deref)
    }

    /// The innermost part of the name.
    pub fn name(&self) -> Option<&str> {
        self.parts.last().and_then(Option::as_deref)
    }

    /// Whether the object could be one that the pattern means.
    pub fn could_match(&self, pattern: &Pattern) -> bool {
        self.fits(pattern, |_| true)
    }

    /// Whether the object is one that the pattern means, whatever its unknown parts are.
    pub fn certainly_matches(&self, pattern: &Pattern) -> bool {
        self.fits(pattern, Glob::matches_all)
    }

    /// Whether something below this folder could be one that the pattern means and would not be
    /// under the folder's other name. The names of folders end with `/`.
    pub fn loses_below(&self, other: &str, pattern: &Pattern) -> bool {
        let Some((kind, wanted)) = &pattern.named else { return false };
        let [Some(name)] = self.parts.as_slice() else { return false };
        **kind == *self.kind && wanted.iter().any(|glob| glob.loses_below(name, other))
    }

    /// Whether a column of this table could be one that the pattern means; `*` is every column.
    pub fn column_could_match(&self, column: &str, pattern: &Pattern) -> bool {
        self.column_fits(column, pattern, |_| true)
    }

    /// Whether it is one that the pattern means, whatever is unknown.
    pub fn column_certainly_matches(&self, column: &str, pattern: &Pattern) -> bool {
        self.column_fits(column, pattern, Glob::matches_all)
    }

    fn column_fits(
        &self,
        column: &str,
        pattern: &Pattern,
        unknown_fits: impl Fn(&Glob) -> bool,
    ) -> bool {
        let Some((kind, wanted)) = &pattern.named else { return true };
        let Some((of_column, of_table)) = wanted.split_last() else { return false };
        **kind == *"column"
            && *self.kind == *"table"
            && self.parts.iter().zip(of_table).all(|(part, glob)| match part {
                Some(name) => glob.matches(name),
                None => unknown_fits(glob),
            })
            && if column == "*" { unknown_fits(of_column) } else { of_column.matches(column) }
    }

    fn fits(&self, pattern: &Pattern, unknown_fits: impl Fn(&Glob) -> bool) -> bool {
        let Some((kind, wanted)) = &pattern.named else { return true };
        **kind == *self.kind
            && self.parts.iter().zip(wanted).all(|(part, glob)| match part {
                Some(name) => glob.matches(name),
                None => unknown_fits(glob),
            })
    }
}

impl fmt::Display for Object {
    /// A part that could be taken for something else stands in double quotes, doubled within.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.kind)?;
        let dotted = self.parts.len() > 1;
        for (at, part) in self.parts.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            match part {
                None => f.write_str("?")?,
                Some(name) if stands_as_it_is(name, dotted) => f.write_str(name)?,
                Some(name) => write!(f, "\"{}\"", name.replace('"', "\"\""))?,
            }
        }
        Ok(())
    }
}

fn stands_as_it_is(name: &str, dotted: bool) -> bool {
    name != "?" && !name.starts_with('"') && !(dotted && (name.is_empty() || name.contains('.')))
}

/// A text is not an object or a pattern of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAnObject {
    /// There is no `kind:` in front.
    #[error("it does not say what kind of object it names")]
    NoKind,
    /// A part's quote does not end, or something follows it.
    #[error("a quoted part ends with a double quote, followed by a dot or nothing")]
    BadQuote,
    /// There are more parts than the kind has.
    #[error("the name has more parts than its kind (a table has two: schema and name)")]
    TooManyParts,
}

impl FromStr for Object {
    type Err = NotAnObject;

    fn from_str(text: &str) -> Result<Self, NotAnObject> {
        let (kind, parts) = split(text)?;
        let known = |part: Part| (part.quoted || part.text != "?").then_some(part.text);
        Ok(Self::of(known_kind(kind), parts.into_iter().map(known).collect()))
    }
}

/// Saves the allocation for the kinds that come most often.
fn known_kind(kind: &str) -> Cow<'static, str> {
    PARTS
        .iter()
        .find(|(name, _)| *name == kind)
        .map_or_else(|| Cow::Owned(kind.to_owned()), |(name, _)| Cow::Borrowed(*name))
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Names objects: `table:public.*`, `column:*.ssn`, `path:/v1/*`, or `*` for every object.
///
/// In a name of parts every part is a pattern of its own, and outer parts that are left out are
/// `*`: `table:secrets` names that table in every schema. A part in double quotes is taken as it
/// stands, but `*` keeps its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    /// The kind, and a glob for each part; `None` names every object.
    named: Option<(Box<str>, Vec<Glob>)>,
}

impl Pattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// A pattern for each part of the name, outermost first; none when it names every object.
    pub fn parts(&self) -> &[Glob] {
        self.named.as_ref().map(|(_, parts)| parts.as_slice()).unwrap_or_default()
    }

    /// The kind of object that it names; `None` when it names every object.
    pub fn kind(&self) -> Option<&str> {
        self.named.as_ref().map(|(kind, _)| &**kind)
    }

    /// Whether every object that `other` names is named by this one too. A yes is certain.
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.named, &other.named) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((kind, wide)), Some((other_kind, narrow))) => {
                kind == other_kind && wide.iter().zip(narrow).all(|(w, n)| w.covers(n))
            }
        }
    }
}

impl FromStr for Pattern {
    type Err = NotAnObject;

    fn from_str(text: &str) -> Result<Self, NotAnObject> {
        if text == "*" {
            return Ok(Self { text: text.into(), named: None });
        }
        let (kind, parts) = split(text)?;
        let left_out = parts_of(kind) - parts.len();
        let given = parts.iter().map(|part| Glob::new(&part.text));
        let globs = std::iter::repeat_n(Glob::new("*"), left_out).chain(given).collect();
        Ok(Self { text: text.into(), named: Some((kind.into(), globs)) })
    }
}

/// One part of a name as it was written.
struct Part {
    text: String,
    quoted: bool,
}

/// Takes a text apart into its kind and at most as many parts as the kind has. Dots between double
/// quotes do not count, nor do those in a name of one part.
fn split(text: &str) -> Result<(&str, Vec<Part>), NotAnObject> {
    let (kind, mut rest) = text.split_once(':').ok_or(NotAnObject::NoKind)?;
    let count = parts_of(kind);
    let mut parts = Vec::with_capacity(count);
    loop {
        let (part, after) = if let Some(inner) = rest.strip_prefix('"') {
            let (text, after) = unquote(inner)?;
            (Part { text, quoted: true }, after)
        } else {
            let end = if count > 1 { rest.find('.') } else { None };
            let (text, after) = rest.split_at(end.unwrap_or(rest.len()));
            (Part { text: text.to_owned(), quoted: false }, after)
        };
        parts.push(part);
        if parts.len() > count {
            return Err(NotAnObject::TooManyParts);
        }
        match after.strip_prefix('.') {
            Some(after) => rest = after,
            None if after.is_empty() => return Ok((kind, parts)),
            None => return Err(NotAnObject::BadQuote),
        }
    }
}

/// The text up to the quote that ends it, and what follows.
fn unquote(inner: &str) -> Result<(String, &str), NotAnObject> {
    let mut text = String::new();
    let mut rest = inner;
    loop {
        let (before, after) = rest.split_once('"').ok_or(NotAnObject::BadQuote)?;
        text.push_str(before);
        match after.strip_prefix('"') {
            Some(after) => {
                text.push('"');
                rest = after;
            }
            None => return Ok((text, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(text: &str) -> Object {
        text.parse().unwrap()
    }

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_without_its_schema_could_be_the_protected_one_but_is_not_for_certain() {
        let rule = pattern("table:public.orders");
        for (name, could, certainly) in [
            ("table:public.orders", true, true),
            ("table:?.orders", true, false),
            ("table:orders", true, false),
            ("table:public.?", true, false),
            ("table:?", true, false),
            ("table:private.orders", false, false),
            ("table:public.other", false, false),
            ("column:public.orders.id", false, false),
        ] {
            assert_eq!(object(name).could_match(&rule), could, "{name}");
            assert_eq!(object(name).certainly_matches(&rule), certainly, "{name}");
        }
    }

    #[test]
    fn a_pattern_without_outer_parts_names_the_object_wherever_it_is() {
        assert!(object("table:public.secrets").certainly_matches(&pattern("table:secrets")));
        assert!(object("table:secrets").certainly_matches(&pattern("table:secrets")));
        assert!(object("column:public.people.ssn").certainly_matches(&pattern("column:*.ssn")));
        assert!(object("column:ssn").certainly_matches(&pattern("column:ssn")));
        assert!(!object("column:ssn").certainly_matches(&pattern("column:people.ssn")));
        assert!(object("role:admin").certainly_matches(&pattern("*")));
    }

    #[test]
    fn a_star_does_not_cross_from_one_part_into_the_next() {
        let inside = Object::new("table", [Some("public".into()), Some("a.b".into())]);
        assert_eq!(inside.to_string(), "table:public.\"a.b\"");
        assert!(inside.certainly_matches(&pattern("table:public.*")));
        assert!(inside.certainly_matches(&pattern("table:public.\"a.b\"")));
        assert!(!inside.could_match(&pattern("table:b")));
        assert!(!object("table:public.ab").could_match(&pattern("table:pub*ab.*")));
    }

    #[test]
    fn other_names_are_one_text_whatever_it_holds() {
        for text in ["path:/v1/a.b\"c*", "forward:10.0.0.5:80", "program:", "role:?", "file:.x"] {
            assert_eq!(object(text).to_string(), text);
        }
        assert!(object("path:/v1/a.b/c").certainly_matches(&pattern("path:/v1/*")));
        assert!(object("forward:10.0.0.5:80").certainly_matches(&pattern("forward:10.*:80")));
        assert!(!object("path:/v2").could_match(&pattern("path:/v1/*")));
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        assert_eq!("orders".parse::<Pattern>(), Err(NotAnObject::NoKind));
        assert_eq!("table:a.b.c".parse::<Pattern>(), Err(NotAnObject::TooManyParts));
        assert_eq!("table:a.b.c".parse::<Object>(), Err(NotAnObject::TooManyParts));
        for text in ["table:\"a", "table:\"a\"b", "table:a.\""] {
            assert_eq!(text.parse::<Object>(), Err(NotAnObject::BadQuote), "{text}");
        }
    }

    #[test]
    fn parts_beyond_what_the_kind_has_are_kept_in_the_outermost() {
        let parts = ["db", "public", "orders"].map(|part| Some(part.to_owned()));
        assert_eq!(Object::new("table", parts).to_string(), "table:\"db.public\".orders");
    }

    fn any_object() -> impl Strategy<Value = Object> {
        let part = proptest::option::of("[a.\"*?:é]{0,4}");
        let kind = prop_oneof![Just("table"), Just("column"), Just("path"), Just("role")];
        (kind, proptest::collection::vec(part, 1..4))
            .prop_map(|(kind, parts)| Object::new(kind, parts))
    }

    proptest! {
        #[test]
        fn the_text_form_is_the_object(object in any_object()) {
            prop_assert_eq!(object.to_string().parse::<Object>(), Ok(object));
        }

        #[test]
        fn what_matches_for_certain_could_match(object in any_object(), text in "(table|path):[a.*]{1,5}") {
            if let Ok(pattern) = text.parse::<Pattern>()
                && object.certainly_matches(&pattern)
            {
                prop_assert!(object.could_match(&pattern));
            }
        }
    }
}
