//! Conditions on the rows of one table, as operators write them for row filters.
//!
//! The language is small: columns of the table, constants, `{claim.NAME}`, `{user}` and `{groups}`; `=`,
//! `<>`, `<`, `<=`, `>`, `>=`, IN, BETWEEN, IS NULL, AND, OR, NOT, `lower`, `upper`, and casts to common
//! types. In an IN list a claim may have several values. Nothing of it depends on settings, reads a table or runs code of the database's own.
//!
//! A condition is kept as a value and not as text. When a caller's values are in it, it is written out
//! with every operator, function and type in `pg_catalog`, so that no search path changes what it
//! means. What was written is parsed, and must be the same value: a claim cannot become anything but
//! a constant.

mod read;

use std::fmt;

use pg_query::protobuf as pg;

use self::read::{Opened, Reader};
use super::relation::quoted;

/// The longest condition, in bytes: some hundred comparisons.
const LONGEST: usize = 4096;

/// A value of the caller's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Given {
    /// The name shown to people.
    User,
    /// A claim of the token, by its name.
    Claim(String),
    /// The caller's groups.
    Groups,
}

/// What a caller has of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// One value.
    One(String),
    /// A list of values, which only IN takes.
    Several(Vec<String>),
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("the user's name"),
            Self::Claim(name) => write!(f, "the claim \"{name}\""),
            Self::Groups => f.write_str("a group of the user's"),
        }
    }
}

/// A condition in which values of the caller's stand open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition(Expression);

/// A condition with all of its values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BoundCondition(Expression);

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ConditionMistake {
    /// What is wrong.
    pub problem: String,
    /// The byte of the text where that is.
    pub at: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Expression {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Compared(Term, &'static str, Term),
    IsNull(Term),
    /// A boolean by itself.
    Holds(Term),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Term {
    Column(String),
    Text(String),
    Number(String),
    Flag(bool),
    Given(Given),
    /// Each of the values, in an IN list.
    Each(Given),
    Called(&'static str, Box<Self>),
    Cast(Box<Self>, &'static str),
}

const OPERATORS: &[&str] = &["=", "<>", "<", "<=", ">", ">="];
const FUNCTIONS: &[&str] = &["lower", "upper"];
const TYPES: &[&str] = &[
    "bool",
    "date",
    "int2",
    "int4",
    "int8",
    "numeric",
    "text",
    "timestamp",
    "timestamptz",
    "uuid",
    "varchar",
];

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// When it is none, or more than this language has.
    pub fn parse(text: &str) -> Result<Self, ConditionMistake> {
        if text.len() > LONGEST {
            let problem = format!("a condition has at most {LONGEST} bytes");
            return Err(ConditionMistake { problem, at: 0 });
        }
        let opened = Opened::new(text)?;
        let read = opened.read()?;
        if read.columns().is_empty() {
            let problem = "it names no column of the table".to_owned();
            return Err(ConditionMistake { problem, at: 0 });
        }
        Ok(Self(read))
    }

    /// The columns that it names.
    pub fn columns(&self) -> Vec<&str> {
        self.0.columns()
    }

    /// The values of the caller's that it needs.
    pub fn given(&self) -> Vec<&Given> {
        let mut given = Vec::new();
        self.0.terms(&mut |term| {
            if let Term::Given(value) | Term::Each(value) = term {
                given.push(value);
            }
        });
        given
    }

    /// The condition with the caller's values.
    ///
    /// # Errors
    /// With the values that are not there, are several where one is needed, or hold a byte that no text
    /// of PostgreSQL has.
    pub fn bind(
        &self,
        value: &dyn Fn(&Given) -> Option<Value>,
    ) -> Result<BoundCondition, Vec<Given>> {
        let mut lacking: Vec<Given> = Vec::new();
        self.0.terms(&mut |term| {
            let (given, there) = match term {
                Term::Given(given) => (given, one(value, given).is_some()),
                Term::Each(given) => (given, each(value, given).is_some()),
                _ => return,
            };
            if !there && !lacking.contains(given) {
                lacking.push(given.clone());
            }
        });
        self.0.bound(value).map(BoundCondition).ok_or(lacking)
    }
}

impl BoundCondition {
    /// The columns that it names.
    pub fn columns(&self) -> Vec<&str> {
        self.0.columns()
    }

    /// The values of which each of its columns must have one, where it says no more than that.
    pub fn pinned(&self) -> Option<Vec<(&str, Vec<&str>)>> {
        match &self.0 {
            Expression::All(all) => all.iter().map(pins).collect(),
            only => Some(vec![pins(only)?]),
        }
    }

    /// The condition as SQL, on the columns of what goes by a name.
    pub fn written(&self, alias: &str) -> String {
        let mut text = String::new();
        self.0.write(alias, &mut text);
        text
    }

    /// Whether a node says this, and nothing else.
    pub(super) fn is(&self, node: &pg::Node, alias: &str) -> bool {
        let reader = Reader { alias: Some(alias), given: &[] };
        reader.expression(node, 0).is_ok_and(|read| read == self.0)
    }
}

fn text_of(value: String) -> Option<String> {
    (!value.contains('\0')).then_some(value)
}

/// The one value that a caller has.
fn one(value: &dyn Fn(&Given) -> Option<Value>, given: &Given) -> Option<String> {
    match value(given)? {
        Value::One(value) => text_of(value),
        Value::Several(_) => None,
    }
}

/// The values that a caller has, one at least.
fn each(value: &dyn Fn(&Given) -> Option<Value>, given: &Given) -> Option<Vec<String>> {
    let values = match value(given)? {
        Value::One(value) => vec![value],
        Value::Several(values) => values,
    };
    let values: Vec<String> = values.into_iter().map(text_of).collect::<Option<_>>()?;
    (!values.is_empty()).then_some(values)
}

/// A column and the values of which it must have one.
fn pins(expression: &Expression) -> Option<(&str, Vec<&str>)> {
    let Expression::Any(any) = expression else {
        let (column, value) = pin(expression)?;
        return Some((column, vec![value]));
    };
    let pinned: Vec<(&str, &str)> = any.iter().map(pin).collect::<Option<_>>()?;
    let (column, _) = *pinned.first()?;
    let same = pinned.iter().all(|(other, _)| *other == column);
    same.then(|| (column, pinned.iter().map(|(_, value)| *value).collect()))
}

/// A column and the one value that it may have.
fn pin(expression: &Expression) -> Option<(&str, &str)> {
    let Expression::Compared(one, "=", other) = expression else { return None };
    match (one, other) {
        (Term::Column(column), Term::Text(value) | Term::Number(value))
        | (Term::Text(value) | Term::Number(value), Term::Column(column)) => Some((column, value)),
        _ => None,
    }
}

impl Expression {
    /// As the grammar has it: what begins with an AND is one AND.
    fn all(mut parts: Vec<Self>) -> Self {
        if let Some(Self::All(first)) = parts.first_mut() {
            let first = std::mem::take(first);
            parts.splice(..1, first);
        }
        Self::All(parts)
    }

    /// The same of OR, which may be of one part.
    fn any(mut parts: Vec<Self>) -> Self {
        if let Some(Self::Any(first)) = parts.first_mut() {
            let first = std::mem::take(first);
            parts.splice(..1, first);
        }
        match parts.len() {
            1 => parts.remove(0),
            _ => Self::Any(parts),
        }
    }

    fn terms<'e>(&'e self, see: &mut dyn FnMut(&'e Term)) {
        match self {
            Self::All(all) | Self::Any(all) => all.iter().for_each(|of| of.terms(see)),
            Self::Not(of) => of.terms(see),
            Self::Compared(one, _, other) => {
                one.see(see);
                other.see(see);
            }
            Self::IsNull(of) | Self::Holds(of) => of.see(see),
        }
    }

    fn columns(&self) -> Vec<&str> {
        let mut columns = Vec::new();
        self.terms(&mut |term| {
            if let Term::Column(name) = term {
                columns.push(name.as_str());
            }
        });
        columns
    }

    fn bound(&self, value: &dyn Fn(&Given) -> Option<Value>) -> Option<Self> {
        let all = |all: &Vec<Self>| all.iter().map(|of| of.bound(value)).collect::<Option<_>>();
        Some(match self {
            Self::All(of) => Self::All(all(of)?),
            Self::Any(of) => {
                let any = of.iter().map(|of| of.alternatives(value));
                let any: Vec<Vec<Self>> = any.collect::<Option<_>>()?;
                Self::Any(any.into_iter().flatten().collect())
            }
            Self::Compared(_, _, Term::Each(_)) => Self::any(self.alternatives(value)?),
            Self::Not(of) => Self::Not(Box::new(of.bound(value)?)),
            Self::Compared(one, operator, other) => {
                Self::Compared(one.bound(value)?, operator, other.bound(value)?)
            }
            Self::IsNull(of) => Self::IsNull(of.bound(value)?),
            Self::Holds(of) => Self::Holds(of.bound(value)?),
        })
    }

    /// What of a list of alternatives one of them is with the caller's values: one for each value.
    fn alternatives(&self, value: &dyn Fn(&Given) -> Option<Value>) -> Option<Vec<Self>> {
        let Self::Compared(one, operator, Term::Each(given)) = self else {
            return Some(vec![self.bound(value)?]);
        };
        let one = one.bound(value)?;
        let same = |value| Self::Compared(one.clone(), operator, Term::Text(value));
        Some(each(value, given)?.into_iter().map(same).collect())
    }

    fn write(&self, alias: &str, out: &mut String) {
        match self {
            Self::All(all) => write_all(all, " AND ", alias, out),
            Self::Any(all) => write_all(all, " OR ", alias, out),
            Self::Not(of) => {
                out.push_str("(NOT ");
                of.write(alias, out);
                out.push(')');
            }
            Self::Compared(one, operator, other) => {
                out.push('(');
                one.write(alias, out);
                out.push_str(" OPERATOR(pg_catalog.");
                out.push_str(operator);
                out.push_str(") ");
                other.write(alias, out);
                out.push(')');
            }
            Self::IsNull(of) => {
                out.push('(');
                of.write(alias, out);
                out.push_str(" IS NULL)");
            }
            Self::Holds(of) => of.write(alias, out),
        }
    }
}

fn write_all(all: &[Expression], between: &str, alias: &str, out: &mut String) {
    out.push('(');
    for (at, of) in all.iter().enumerate() {
        out.push_str(if at > 0 { between } else { "" });
        of.write(alias, out);
    }
    out.push(')');
}

impl Term {
    fn see<'e>(&'e self, see: &mut dyn FnMut(&'e Self)) {
        see(self);
        if let Self::Called(_, of) | Self::Cast(of, _) = self {
            of.see(see);
        }
    }

    fn bound(&self, value: &dyn Fn(&Given) -> Option<Value>) -> Option<Self> {
        Some(match self {
            Self::Given(given) | Self::Each(given) => Self::Text(one(value, given)?),
            Self::Called(name, of) => Self::Called(name, Box::new(of.bound(value)?)),
            Self::Cast(of, name) => Self::Cast(Box::new(of.bound(value)?), name),
            Self::Column(_) | Self::Text(_) | Self::Number(_) | Self::Flag(_) => self.clone(),
        })
    }

    fn write(&self, alias: &str, out: &mut String) {
        match self {
            Self::Column(name) => {
                out.push_str(&quoted(alias));
                out.push('.');
                out.push_str(&quoted(name));
            }
            Self::Text(text) => out.push_str(&quoted_text(text)),
            Self::Number(number) => out.push_str(number),
            Self::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
            // Only what is bound is written.
            Self::Given(_) | Self::Each(_) => out.push_str("NULL"),
            Self::Called(name, of) => {
                out.push_str("pg_catalog.");
                out.push_str(name);
                out.push('(');
                of.write(alias, out);
                out.push(')');
            }
            Self::Cast(of, name) => {
                out.push_str("CAST(");
                of.write(alias, out);
                out.push_str(" AS pg_catalog.");
                out.push_str(name);
                out.push(')');
            }
        }
    }
}

/// A text as a literal that means the same whatever `standard_conforming_strings` is.
pub(super) fn quoted_text(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    match text.contains('\\') {
        true => format!("E'{}'", doubled.replace('\\', "\\\\")),
        false => format!("'{doubled}'"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::relation::selected;
    use super::*;

    fn bound(text: &str, value: &str) -> BoundCondition {
        Condition::parse(text).unwrap().bind(&|_| Some(Value::One(value.to_owned()))).unwrap()
    }

    fn reads_back(bound: &BoundCondition, alias: &str) -> bool {
        let sql = format!("SELECT WHERE {}", bound.written(alias));
        let read = selected(&sql).and_then(|select| select.where_clause);
        read.is_some_and(|node| bound.is(&node, alias))
    }

    #[test]
    fn the_language_is_small() {
        for text in [
            "a = 1",
            "a = {claim.t} and b <> {user}",
            "a in (1, 2, -3) or not (b is null)",
            "a not in ('x') and b between 1 and 2 and c not between 'a' and 'b'",
            "(a = 1 and b = 2) and c = 3",
            "a = 1 and (b = 2 and c = 3)",
            "(a = 1 or b = 2) or (c = 3 or d)",
            "archived and not deleted and true",
            "lower(a) = lower({claim.https://x.example/t})",
            "a::text = '1' and cast(b as uuid) = {claim.u}",
            "\"We\"\"ird\" >= 1.5 and a = E'it\\'s'",
            "a is not null",
            "a in ({claim.t})",
            "a in ('public', {claim.t}, {user}) and b not in ({groups}, {claim.t})",
            "a in ({claim.t}) or b = 1 or not a in (1, {groups})",
        ] {
            let bound = bound(text, "it's \\ \"x\"");
            assert!(reads_back(&bound, "c") && reads_back(&bound, "a \"b"), "{text} {bound:?}");
            let several = |given: &Given| match given {
                Given::User => Some(Value::One("ann".into())),
                _ => Some(Value::Several(vec!["it's".into(), "two\\".into(), "3".into()])),
            };
            match Condition::parse(text).unwrap().bind(&several) {
                Ok(bound) => assert!(reads_back(&bound, "c"), "{text} {bound:?}"),
                Err(lacking) => assert!(text.contains("{claim.") && !lacking.is_empty(), "{text}"),
            }
        }
    }

    #[test]
    fn only_an_in_list_takes_several_values() {
        let bind = |text: &str, values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            let bound = Condition::parse(text).unwrap();
            let bound = bound.bind(&|_| Some(Value::Several(values.clone())));
            bound.map(|bound| bound.written("c"))
        };
        let t = Given::Claim("t".into());
        assert_eq!(bind("a = {claim.t}", &["x"]), Err(vec![t.clone()]));
        assert_eq!(bind("a in (1, {claim.t})", &[]), Err(vec![t.clone()]));
        assert_eq!(bind("a in ({claim.t})", &["x", "y\0"]), Err(vec![t]));
        let written = bind("a in ({claim.t}) and not b", &["x", "y"]).unwrap();
        assert_eq!(
            written,
            "(((\"c\".\"a\" OPERATOR(pg_catalog.=) 'x') OR (\"c\".\"a\" OPERATOR(pg_catalog.=) 'y')) \
             AND (NOT \"c\".\"b\"))"
        );
        assert!(Condition::parse("a = {groups}").unwrap_err().problem.contains("IN list"));
        assert!(
            Condition::parse("a in (lower({groups}))").unwrap_err().problem.contains("IN list")
        );
    }

    #[test]
    fn what_is_not_of_it_is_told_with_its_place() {
        for (text, at, problem) in [
            ("a = ", 4, "end of input"),
            ("a = '{claim.t}'", 4, "without quotes"),
            ("a = {claim.t", 4, "not closed"),
            ("a = {claims.t}", 4, "claim.NAME, user or groups"),
            ("a = $1", 4, "parameters"),
            ("a = 1; drop table t", 5, "one expression"),
            ("a = 1 -- b", 6, "comments"),
            ("a = 1 order by 1", 0, "nothing behind"),
            ("a = 1 group by a", 0, "nothing behind"),
            ("a = (select 1)", 4, "knows columns"),
            ("a = now()", 4, "lower and upper"),
            ("a = {user} and b = current_user", 19, "knows columns"),
            ("t.a = 1", 0, "by themselves"),
            ("a ~ 'x'", 2, "knows columns"),
            ("a like 'x'", 2, "knows columns"),
            ("a operator(mine.=) 1", 2, "knows columns"),
            ("a::mine = 1", 1, "casts go to"),
            ("a = any (array[1])", 2, "knows columns"),
            ("1 = 1", 0, "no column"),
            ("a", usize::MAX, ""),
            ("a + 1", 2, "knows columns"),
            ("1", 0, "no condition"),
        ] {
            match Condition::parse(text) {
                Ok(_) => assert_eq!(at, usize::MAX, "{text}"),
                Err(mistake) => {
                    assert!(mistake.problem.contains(problem), "{text}: {mistake}");
                    assert_eq!(mistake.at, at, "{text}: {mistake}");
                }
            }
        }
        assert!(Condition::parse(&format!("a = {}1", "(".repeat(2000))).is_err());
        assert!(Condition::parse(&format!("{}a", "not ".repeat(900))).is_err());
    }

    #[test]
    fn columns_with_known_values_are_pinned() {
        let pinned = |text| bound(text, "v").pinned().map(|p| format!("{p:?}"));
        let both = r#"[("a", ["v"]), ("b", ["1"])]"#;
        assert_eq!(pinned("a = {user} and 1 = b").as_deref(), Some(both));
        assert_eq!(pinned("a in ('x')").as_deref(), Some(r#"[("a", ["x"])]"#));
        assert_eq!(pinned("a in ('x', {groups})").as_deref(), Some(r#"[("a", ["x", "v"])]"#));
        for not in [
            "a = 1 or b = 2",
            "not a in (1, 2)",
            "a = 1 and not b",
            "a > 1",
            "a = b",
            "lower(a) = 'x'",
        ] {
            assert_eq!(pinned(not), None, "{not}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_a_constant(value in "[^\\x00]{0,40}|['\"\\\\;$E(){}-]{0,20}", alias in "[a-z\" ]{1,9}") {
            let bound = bound("a = {claim.t} and lower(b) <> {user}", &value);
            prop_assert!(reads_back(&bound, &alias));
        }

        #[test]
        fn no_text_does_harm(text in "[ab1'(){}.=<> ,ORANDNOTINISNULLclaim.user$\"\\\\;-]{0,60}") {
            if let Ok(condition) = Condition::parse(&text) {
                let bound = condition.bind(&|_| Some(Value::Several(vec!["v'\\".to_owned(), "w".to_owned()])));
                prop_assert!(bound.ok().is_none_or(|bound| reads_back(&bound, "c")));
            }
        }
    }
}
