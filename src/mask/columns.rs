//! Which columns and which fields a mask names.

use std::borrow::Cow;
use std::str::FromStr;

use crate::policy::{Glob, NotAnObject, Object, Pattern as ObjectPattern};

/// Names columns of tables: `public.customers.email`, `customers.email`, `*.ssn`. Parts that are
/// left out in front are `*`, and a part that holds a dot is quoted, as in the objects of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnPattern {
    text: Box<str>,
    named: ObjectPattern,
}

impl ColumnPattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As a pattern of objects: `column:public.customers.email`.
    pub fn as_object(&self) -> &ObjectPattern {
        &self.named
    }

    /// Patterns of schema, table and column.
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &Glob> {
        self.named.parts().iter()
    }

    /// Whether it names this column.
    pub fn names(&self, schema: &str, table: &str, column: &str) -> bool {
        let names = [schema, table, column];
        self.parts().zip(names).all(|(glob, name)| glob.matches(name))
    }

    /// Whether it could name a column of which not all is known.
    pub fn could_name(&self, column: &Object) -> bool {
        column.could_match(&self.named)
    }
}

impl FromStr for ColumnPattern {
    type Err = NotAnObject;

    fn from_str(text: &str) -> Result<Self, NotAnObject> {
        let named = format!("column:{text}").parse()?;
        Ok(Self { text: text.into(), named })
    }
}

/// Names fields of JSON documents: `customer.email` from the top, `**.ssn` at any depth, `*.ssn`
/// one below the top; `*` within a step is any run of characters. The items of a list stand where
/// the list stands. Upper and lower case are the same: many decoders take `SSN` for `ssn`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPattern {
    text: Box<str>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Named(Glob),
    /// `**`: any number of steps, none too.
    Any,
}

/// The most steps that a field pattern may have.
const MOST_STEPS: usize = 32;

/// A text names no fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAField {
    /// A dot at an end, or two beside each other.
    #[error("a step between its dots is empty")]
    EmptyStep,
    /// Deeper than any document.
    #[error("it has more than {MOST_STEPS} steps")]
    TooDeep,
}

impl FieldPattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What stands in every text that holds such a field and its keys, in upper or lower case: the longest
    /// part of ASCII of the last step that has one. `None` where any text could.
    pub fn literal(&self) -> Option<&str> {
        let literals = self.steps.iter().rev().filter_map(|step| match step {
            Step::Named(glob) => glob
                .as_str()
                .split(|letter: char| letter == '*' || !letter.is_ascii())
                .max_by_key(|part| part.len()),
            Step::Any => None,
        });
        let mut literals = literals.filter(|literal| !literal.is_empty());
        literals.next()
    }

    /// Whether it names the field at a path of keys, outermost first.
    pub fn names(&self, path: &[&str]) -> bool {
        // The steps that could come next; at most as many as the pattern has.
        let mut at = vec![0];
        for key in path {
            let key = &*folded(key);
            let mut next = Vec::with_capacity(self.steps.len());
            for step in self.closed(&at) {
                match self.steps.get(step) {
                    Some(Step::Any) => next.push(step),
                    Some(Step::Named(glob)) if glob.matches(key) => next.push(step + 1),
                    Some(Step::Named(_)) | None => {}
                }
            }
            next.sort_unstable();
            next.dedup();
            at = next;
        }
        self.closed(&at).contains(&self.steps.len())
    }

    /// The steps with those that `**` lets be skipped.
    fn closed(&self, at: &[usize]) -> Vec<usize> {
        let mut closed = at.to_vec();
        let mut look = 0;
        while let Some(step) = closed.get(look).copied() {
            if matches!(self.steps.get(step), Some(Step::Any)) && !closed.contains(&(step + 1)) {
                closed.push(step + 1);
            }
            look += 1;
        }
        closed
    }
}

/// A name as it is compared.
fn folded(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        true => Cow::Owned(name.to_lowercase()),
        false => Cow::Borrowed(name),
    }
}

impl FromStr for FieldPattern {
    type Err = NotAField;

    fn from_str(text: &str) -> Result<Self, NotAField> {
        let steps: Vec<Step> = text
            .split('.')
            .map(|step| match step {
                "" => Err(NotAField::EmptyStep),
                "**" => Ok(Step::Any),
                name => Ok(Step::Named(Glob::new(&folded(name)))),
            })
            .collect::<Result<_, _>>()?;
        if steps.len() > MOST_STEPS {
            return Err(NotAField::TooDeep);
        }
        Ok(Self { text: text.into(), steps })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_has_its_name_in_upper_and_lower_case() {
        for (pattern, path, named) in [
            ("**.ssn", &["customers", "SSN"][..], true),
            ("Customer.eMail", &["customer", "Email"], true),
            ("*.strasse", &["Kunde", "STRASSE"], true),
            ("**.été", &["ÉTÉ"], true),
            ("**.ssn", &["SSNs"], false),
        ] {
            assert_eq!(pattern.parse::<FieldPattern>().unwrap().names(path), named, "{pattern}");
        }
    }

    #[test]
    fn columns_are_named_from_the_right() {
        let named = |pattern: &str| {
            let pattern: ColumnPattern = pattern.parse().unwrap();
            [
                pattern.names("public", "customers", "email"),
                pattern.names("crm", "customers", "email"),
                pattern.names("public", "people", "ssn"),
            ]
        };
        assert_eq!(named("public.customers.email"), [true, false, false]);
        assert_eq!(named("customers.email"), [true, true, false]);
        assert_eq!(named("*.ssn"), [false, false, true]);
        assert_eq!(named("public.*.*"), [true, false, true]);
        assert!("a.b.c.d".parse::<ColumnPattern>().is_err());
    }

    #[test]
    fn a_column_without_its_schema_could_be_the_one() {
        let pattern: ColumnPattern = "public.customers.email".parse().unwrap();
        let column = |text: &str| text.parse::<Object>().unwrap();
        assert!(pattern.could_name(&column("column:?.customers.email")));
        assert!(!pattern.could_name(&column("column:crm.customers.email")));
        assert!(!pattern.could_name(&column("column:?.customers.name")));
    }

    #[test]
    fn fields_are_named_by_their_path() {
        let named =
            |pattern: &str, path: &[&str]| pattern.parse::<FieldPattern>().unwrap().names(path);
        assert!(named("customer.email", &["customer", "email"]));
        assert!(!named("customer.email", &["a", "customer", "email"]));
        assert!(named("**.ssn", &["ssn"]));
        assert!(named("**.ssn", &["a", "b", "ssn"]));
        assert!(!named("**.ssn", &["ssn", "a"]));
        assert!(named("a.**.b.**", &["a", "x", "b"]));
        assert!(named("a.**.b.**", &["a", "b", "y", "z"]));
        assert!(named("*_token", &["access_token"]));
        assert!(!named("*.ssn", &["a", "b", "ssn"]));
        assert!(named("**", &[]));
        for wrong in ["", "a.", ".a", "a..b"] {
            assert_eq!(wrong.parse::<FieldPattern>(), Err(NotAField::EmptyStep), "{wrong}");
        }
    }
}
