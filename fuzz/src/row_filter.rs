//! The condition of a row filter from any text, with any value in it: nothing panics, and what is
//! written of it goes into a statement as the condition that it is, or not at all.

use std::sync::Arc;

use portcullis::decode::sql::LexerSettings;
use portcullis::decode::sql::rewrite::{
    Condition, MaskedColumn, MaskedRelation, Relations, Resolved, Rows, Shown, Value, rewrite,
};

struct One(Arc<MaskedRelation>);

impl Relations for One {
    fn relation(&self, _: Option<&str>, name: &str) -> Resolved {
        match name {
            "t" => Resolved::Masked(Arc::clone(&self.0)),
            _ => Resolved::Clear,
        }
    }

    fn is_opaque(&self, _: Option<&str>, _: &str) -> bool {
        false
    }

    fn filters_rows(&self) -> bool {
        true
    }
}

/// Takes a line with a condition, and one for each value.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (condition, value) = text.split_once('\n').unwrap_or((text, "v"));
    let Ok(condition) = Condition::parse(condition) else { return };
    let given = match value.lines().count() {
        0 | 1 => Value::One(value.to_owned()),
        _ => Value::Several(value.lines().map(str::to_owned).collect()),
    };
    let Ok(bound) = condition.bind(&|_| Some(given.clone())) else { return };
    let columns = condition.columns().into_iter().map(|name| MaskedColumn {
        name: name.to_owned(),
        null: "NULL::pg_catalog.text".to_owned(),
        shown: Shown::Clear,
        readable: true,
        generated: false,
        key: false,
        groupable: true,
    });
    let columns: Vec<MaskedColumn> = columns.collect();
    let Some(relation) = MaskedRelation::new(&columns, true) else { return };
    let Some(relation) = relation.with_rows(Rows::Where(vec![bound])) else { return };
    let relation = One(Arc::new(relation));
    for sql in ["SELECT * FROM t WHERE a = 'x'", "UPDATE t x SET y = 1 WHERE z", "DELETE FROM t"] {
        for standard_conforming_strings in [true, false] {
            let settings = LexerSettings { standard_conforming_strings, backslash_quote: true };
            let sent = rewrite(sql, settings, &relation).expect("it can be written");
            assert!(sent.expect("it is filtered").text.len() > sql.len());
        }
    }
}
