//! The code of functions, as far as it tells what they read.
//!
//! A function in SQL or PL/pgSQL reaches a table only by naming it, or by naming what does, unless
//! it makes statements from text. So one whose code has no such word in it, in whatever place,
//! reads nothing that is masked. Operators and casts that call functions are not looked at.

use std::collections::HashSet;

use crate::decode::sql::reads_unseen;

/// Words without which code neither makes nor drops a prepared statement or a named cursor.
pub(super) const NAMING: &[&str] = &["close", "deallocate", "discard", "open", "prepare"];
/// The word without which code takes nothing from a cursor that it did not open.
pub(super) const FETCHING: &[&str] = &["fetch"];

/// The functions that may do something: those of `first`, those whose code has a word for it, and
/// those that call such a function.
pub(super) fn doing(
    words: &[&str],
    first: &HashSet<Box<str>>,
    bodies: &[(Box<str>, Body)],
) -> HashSet<Box<str>> {
    let mut found = first.clone();
    let has_word = |body: &Body| words.iter().any(|word| body.names(word));
    found.extend(bodies.iter().filter(|(_, body)| has_word(body)).map(|(name, _)| name.clone()));
    loop {
        let lower: Vec<String> = found.iter().map(|name| name.to_lowercase()).collect();
        let calls = |body: &Body| lower.iter().any(|name| body.names(name));
        let more = bodies.iter().filter(|(name, body)| !found.contains(name) && calls(body));
        let more: Vec<Box<str>> = more.map(|(name, _)| name.clone()).collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// What a function's code names, in lower case.
#[derive(Debug)]
pub(super) struct Body {
    words: HashSet<Box<str>>,
    code: String,
}

impl Body {
    /// `None` for code that may name anything.
    pub(super) fn new(code: &str) -> Option<Self> {
        let code = code.to_lowercase();
        let of_names = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
        let words: HashSet<Box<str>> = code
            .split(|c: char| !of_names(c))
            .filter(|word| !word.is_empty())
            .map(Into::into)
            .collect();
        let makes_statements = words.contains("execute") || words.iter().any(|w| reads_unseen(w));
        // Names may be spelled by their characters' numbers.
        let spelled = code.contains("u&");
        (!makes_statements && !spelled).then_some(Self { words, code })
    }

    /// Whether the code has a name, in lower case, in it.
    pub(super) fn names(&self, name: &str) -> bool {
        let plain = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$'));
        if plain {
            return self.words.contains(name);
        }
        // As it is quoted there, or as part of something longer.
        self.code.contains(&name.replace('"', "\"\"")) || self.code.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_may_make_names_itself_or_by_what_it_calls() {
        let bodies: Vec<(Box<str>, Body)> = [
            ("opens", "begin open c for select 1; end"),
            ("Through", "select opens()"),
            ("twice", "select through()"),
            ("dynamic", "select run('x')"),
            ("harmless", "select 1 from prepared"),
        ]
        .map(|(name, code)| (name.into(), Body::new(code).unwrap()))
        .into();
        let unseen = HashSet::from(["run".into()]);
        let mut found: Vec<Box<str>> = doing(NAMING, &unseen, &bodies).into_iter().collect();
        found.sort();
        assert_eq!(found.join(" "), "Through dynamic opens run twice");
    }

    #[test]
    fn code_names_what_it_may_read() {
        let body = Body::new("SELECT Email FROM public.\"Odd name\" o, customers").unwrap();
        for (name, named) in
            [("customers", true), ("custom", false), ("odd name", true), ("orders", false)]
        {
            assert_eq!(body.names(name), named, "{name}");
        }
        for anything in [
            "begin execute 'select 1'; end",
            "select query_to_xml('select 1', true, true, '')",
            "select * from U&\"c\\0075stomers\"",
        ] {
            assert!(Body::new(anything).is_none(), "{anything}");
        }
    }
}
