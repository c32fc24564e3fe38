//! Row filters: which rows of a table there are for a caller.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use crate::decode::sql::rewrite::{BoundCondition, Condition, Given, Value};
use crate::policy::{Glob, Pattern};

/// The longest value of a caller's that stands in a condition, in bytes.
pub const LONGEST_VALUE: usize = 1024;
/// The most values of one list: each is compared with in every statement.
const MOST_VALUES: usize = 200;

/// Actions on a table with a row filter that are refused however they are written: they do something
/// to the table as a whole, or to what makes it a table with a row filter. A lock of single rows is none.
pub const CLOSED: &[&str] = &[
    "sql.alter",
    "sql.cluster",
    "sql.copy-from",
    "sql.create",
    "sql.drop",
    "sql.lock",
    "sql.references",
    "sql.reindex",
    "sql.truncate",
    "sql.vacuum",
];

/// One `[[rows]]`, checked.
#[derive(Debug, Clone)]
pub struct RowFilter {
    /// What recordings and people call it.
    pub name: Arc<str>,
    /// Names of targets; none names every target.
    pub targets: Option<Vec<Glob>>,
    /// The table as it was written.
    pub table: Box<str>,
    /// The same as a pattern of objects: `table:public.customers`.
    pub named: Pattern,
    /// The condition as it was written.
    pub text: Box<str>,
    /// The rows that there are.
    pub condition: Condition,
    /// Groups whose sessions it is for; `*` is everybody, and so is none.
    pub groups: Vec<String>,
    /// Groups whose sessions it is not for; `*` is everybody.
    pub unless_groups: Vec<String>,
}

/// Whom rows are filtered for.
#[derive(Debug, Clone, Copy)]
pub struct Viewer<'a> {
    /// The name shown to people.
    pub username: &'a str,
    /// The groups, compared byte for byte.
    pub groups: &'a [String],
    /// The claims of the token.
    pub claims: &'a Map<String, Json>,
}

/// A row filter of a session's target.
#[derive(Debug, Clone)]
pub struct AppliedRows {
    /// The filter.
    pub filter: Arc<RowFilter>,
    /// Whether it is in force for the caller.
    pub acts: bool,
    /// The condition with the caller's values, or those that the caller lacks: then there are no
    /// rows.
    pub bound: Result<BoundCondition, Vec<Given>>,
}

impl RowFilter {
    /// Whether it is about a target.
    pub fn names_target(&self, target: &str) -> bool {
        self.targets.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.matches(target)))
    }

    /// Whether it names this relation.
    pub fn names(&self, schema: &str, table: &str) -> bool {
        self.named.parts().iter().zip([schema, table]).all(|(glob, name)| glob.matches(name))
    }

    /// Whether it is in force for callers in these groups.
    pub fn acts_on(&self, groups: &[String]) -> bool {
        let among = |named: &[String]| named.iter().any(|one| one == "*" || groups.contains(one));
        (self.groups.is_empty() || among(&self.groups)) && !among(&self.unless_groups)
    }

    /// The filter for one caller.
    pub fn applied(self: &Arc<Self>, viewer: &Viewer<'_>) -> AppliedRows {
        AppliedRows {
            filter: Arc::clone(self),
            acts: self.acts_on(viewer.groups),
            bound: self.condition.bind(&|given| viewer.value(given)),
        }
    }
}

impl AppliedRows {
    /// Why the caller may not use the table, if so: a value that the condition needs is not there.
    pub fn lacking(&self) -> Option<String> {
        let lacking = self.bound.as_ref().err().filter(|_| self.acts)?;
        let lacking: Vec<String> = lacking.iter().map(ToString::to_string).collect();
        Some(lacking.join(" and "))
    }
}

impl Viewer<'_> {
    /// What the caller has of a value; `None` where there is nothing that a condition takes.
    fn value(&self, given: &Given) -> Option<Value> {
        let several = |values: Option<Vec<String>>| {
            values.filter(|values| values.len() <= MOST_VALUES).map(Value::Several)
        };
        match given {
            Given::User => fitting(self.username.to_owned()).map(Value::One),
            Given::Groups => several(self.groups.iter().cloned().map(fitting).collect()),
            Given::Claim(name) => match self.claims.get(name)? {
                Json::Array(values) => several(values.iter().map(scalar).collect()),
                value => scalar(value).map(Value::One),
            },
        }
    }
}

/// A claim's value as a text.
fn scalar(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => fitting(text.clone()),
        Json::Number(number) => fitting(number.to_string()),
        Json::Bool(flag) => fitting(flag.to_string()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

fn fitting(value: String) -> Option<String> {
    (1..=LONGEST_VALUE).contains(&value.len()).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn filter(groups: &[&str], unless: &[&str]) -> Arc<RowFilter> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let text = "tenant_id = {claim.tenant}";
        Arc::new(RowFilter {
            name: "tenants".into(),
            targets: None,
            table: "public.customers".into(),
            named: "table:public.customers".parse().unwrap(),
            text: text.into(),
            condition: Condition::parse(text).unwrap(),
            groups: owned(groups),
            unless_groups: owned(unless),
        })
    }

    fn bound(claims: &Json) -> Option<String> {
        let claims = claims.as_object().unwrap();
        let viewer = Viewer { username: "ann", groups: &[], claims };
        filter(&[], &[]).applied(&viewer).bound.ok().map(|bound| bound.written("c"))
    }

    #[test]
    fn groups_say_for_whom_it_is() {
        let groups = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert!(filter(&[], &[]).acts_on(&[]));
        assert!(filter(&["*"], &[]).acts_on(&[]));
        assert!(!filter(&["a"], &[]).acts_on(&groups(&["b"])));
        assert!(filter(&["a"], &[]).acts_on(&groups(&["b", "a"])));
        assert!(!filter(&["a"], &["b"]).acts_on(&groups(&["b", "a"])));
        assert!(!filter(&[], &["*"]).acts_on(&[]));
    }

    #[test]
    fn a_claim_is_one_value_or_none() {
        let text =
            |value: &str| Some(format!("(\"c\".\"tenant_id\" OPERATOR(pg_catalog.=) {value})"));
        assert_eq!(bound(&json!({ "tenant": "acme" })), text("'acme'"));
        assert_eq!(bound(&json!({ "tenant": "a'b\\" })), text(r"E'a''b\\'"));
        assert_eq!(bound(&json!({ "tenant": 42 })), text("'42'"));
        assert_eq!(bound(&json!({ "tenant": true })), text("'true'"));
        for none in [
            json!({}),
            json!({ "tenant": null }),
            json!({ "tenant": "" }),
            json!({ "tenant": ["acme"] }),
            json!({ "tenant": { "id": 1 } }),
            json!({ "tenant": "a\0b" }),
            json!({ "tenant": "x".repeat(LONGEST_VALUE + 1) }),
            json!({ "Tenant": "acme" }),
        ] {
            assert_eq!(bound(&none), None, "{none}");
        }
    }

    #[test]
    fn a_list_is_each_of_its_values_or_none() {
        let text = "tenant_id in ({claim.tenants}) and owner in ({groups})";
        let condition = Condition::parse(text).unwrap();
        let written = |claims: &Json, groups: &[&str]| {
            let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
            let claims = claims.as_object().unwrap();
            let viewer = Viewer { username: "ann", groups: &groups, claims };
            condition.bind(&|given| viewer.value(given)).map(|bound| bound.written("c")).ok()
        };
        let is = |column: &str, value: &str| {
            format!("(\"c\".\"{column}\" OPERATOR(pg_catalog.=) '{value}')")
        };
        let both = format!("({} OR {})", is("tenant_id", "acme"), is("tenant_id", "7"));
        assert_eq!(
            written(&json!({ "tenants": ["acme", 7] }), &["ops"]),
            Some(format!("({both} AND {})", is("owner", "ops")))
        );
        assert_eq!(
            written(&json!({ "tenants": "acme" }), &["ops"]),
            Some(format!("({} AND {})", is("tenant_id", "acme"), is("owner", "ops")))
        );
        for none in [
            json!([]),
            json!([["acme"]]),
            json!(["acme", null]),
            json!(["acme", ""]),
            json!(["acme", "x".repeat(LONGEST_VALUE + 1)]),
            json!(vec!["acme"; MOST_VALUES + 1]),
        ] {
            assert_eq!(written(&json!({ "tenants": none }), &["ops"]), None);
        }
        assert_eq!(written(&json!({ "tenants": "acme" }), &[]), None);
    }

    proptest! {
        #[test]
        fn any_claim_is_a_constant(value in "[^\\x00]{1,60}|['\"\\\\;$E-]{1,20}") {
            let written = bound(&json!({ "tenant": value })).unwrap();
            let quoted = written.split_once(") ").unwrap().1.strip_suffix(')').unwrap();
            let plain = match quoted.strip_prefix('E') {
                Some(escaped) => escaped.replace("\\\\", "\\"),
                None => quoted.to_owned(),
            };
            let inner = plain.strip_prefix('\'').and_then(|p| p.strip_suffix('\'')).unwrap();
            prop_assert_eq!(inner.replace("''", "'"), value);
        }
    }
}
