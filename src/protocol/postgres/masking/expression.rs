//! What SQL computes in the place of a masked value: the same in statements that go up and in the views
//! of `policy harden`.
//!
//! Every name in it is of the server's own or of the schema that `policy harden` makes, and written
//! with its schema, so that no search path changes it. No expression fails on any value: an error would
//! tell something of it.

use super::values::Holds;
use crate::decode::postgres::frontend::Format;
use crate::mask::{Action, REDACTED, Step, TimeUnit};

/// The schema of functions that keep the key of `hash` and `tokenize` at the server.
pub(in super::super) const KEYED: &str = "portcullis_masks";
/// Their names.
pub(in super::super) const KEYED_FUNCTIONS: &[&str] = &["mask_hash", "mask_tokenize"];

/// `xml`, which holds no text that is none.
const XML: u32 = 142;

/// The type of a masked column; a domain's is the type under it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct OfType<'a> {
    pub(in super::super) oid: u32,
    /// As SQL writes it, with its schema.
    pub(in super::super) name: &'a str,
    /// It is written as a text though it is none of the server's own.
    pub(in super::super) text: bool,
}

impl OfType<'_> {
    fn null(&self) -> String {
        format!("NULL::{}", self.name)
    }

    /// What stands in the place of a value of which nothing is seen.
    pub(in super::super) fn redacted(&self) -> String {
        let name = self.name;
        match self.holds() {
            Holds::Text | Holds::Hex => format!("'{REDACTED}'::{name}"),
            Holds::Json | Holds::Jsonb => format!("'\"{REDACTED}\"'::{name}"),
            Holds::Bytes | Holds::Typed(..) | Holds::Other | Holds::Harmless => self.null(),
        }
    }

    /// What an action leaves of a value, which is written as this expression; `None` where only the gateway
    /// can say, for the key is its own: `keyed` says that the functions of [`KEYED`] are there.
    pub(in super::super) fn seen(
        &self,
        action: Action,
        value: &str,
        keyed: bool,
    ) -> Option<String> {
        Some(match action {
            _ if action.is_keyed() && !keyed => return None,
            Action::Null => self.null(),
            Action::Partial if self.holds() == Holds::Text => partial(value, self.name),
            Action::Partial | Action::Redact => self.redacted(),
            Action::Hash => self.hashed(value),
            Action::Tokenize => self.token(value),
            Action::Bucket(step) => self.bucket(step, value),
        })
    }

    fn holds(&self) -> Holds {
        match self.oid {
            XML => Holds::Harmless,
            oid => Holds::of(oid, Format::Text, self.text),
        }
    }

    fn hashed(&self, value: &str) -> String {
        let name = self.name;
        let hash = |text: &str| format!("{KEYED}.mask_hash({text})");
        let text = format!("({value})::pg_catalog.text");
        match self.holds() {
            Holds::Text => format!("{}::{name}", hash(&text)),
            Holds::Json | Holds::Jsonb => {
                format!("pg_catalog.to_json({})::{name}", hash(&text))
            }
            Holds::Hex => {
                let hash = hash(&format!("pg_catalog.encode({value}, 'hex')"));
                format!("pg_catalog.convert_to({hash}, 'UTF8')::{name}")
            }
            Holds::Bytes | Holds::Typed(..) | Holds::Other | Holds::Harmless => self.null(),
        }
    }

    fn token(&self, value: &str) -> String {
        let name = self.name;
        let number = |most: i64| {
            format!("{KEYED}.mask_tokenize(({value})::pg_catalog.int8, {most})::{name}")
        };
        match self.oid {
            21 => number(i16::MAX.into()),
            23 => number(i32::MAX.into()),
            20 => number(i64::MAX),
            2950 => format!("{KEYED}.mask_tokenize({value})::{name}"),
            _ if self.holds() == Holds::Text => {
                format!("{KEYED}.mask_tokenize(({value})::pg_catalog.text)::{name}")
            }
            _ => self.redacted(),
        }
    }

    /// Towards zero, so that no step lies outside of the type.
    fn bucket(&self, step: Step, value: &str) -> String {
        let name = self.name;
        match (self.oid, step) {
            (20 | 21 | 23, Step::Number(step)) => {
                let value = format!("({value})::pg_catalog.int8");
                format!("pg_catalog.int8mi({value}, pg_catalog.int8mod({value}, {step}))::{name}")
            }
            (1700, Step::Number(step)) => {
                format!(
                    "pg_catalog.numeric_sub({value}, pg_catalog.numeric_mod({value}, {step}))::{name}"
                )
            }
            (700 | 701, Step::Number(step)) => {
                let value = format!("({value})::pg_catalog.float8");
                let size = format!("pg_catalog.float8abs({value})");
                format!(
                    "(CASE WHEN pg_catalog.float8lt({size}, {step}) THEN 0 \
                     WHEN pg_catalog.float8lt({size}, 1e300) THEN pg_catalog.float8mul(\
                     pg_catalog.dtrunc(pg_catalog.float8div({value}, {step})), {step}) END)::{name}"
                )
            }
            (1082, Step::Time(unit)) if unit >= TimeUnit::Day => times(
                value,
                &format!(
                    "pg_catalog.date_trunc('{}', ({value})::pg_catalog.timestamp)",
                    unit.name()
                ),
                "pg_catalog.date",
                name,
            ),
            (1114, Step::Time(unit)) => times(
                value,
                &format!("pg_catalog.date_trunc('{}', {value})", unit.name()),
                "pg_catalog.timestamp",
                name,
            ),
            // Not in the session's time zone: whoever sets that could find the time by many of them.
            (1184, Step::Time(unit)) => times(
                value,
                &format!(
                    "pg_catalog.timezone('UTC', pg_catalog.date_trunc('{}', pg_catalog.timezone('UTC', {value})))",
                    unit.name()
                ),
                "pg_catalog.timestamptz",
                name,
            ),
            _ => self.null(),
        }
    }
}

/// Where all units begin within the type: infinite times and those of other ages are NULL.
fn times(value: &str, expression: &str, compared: &str, name: &str) -> String {
    let from = format!("{compared} '0101-01-01'");
    let until = format!("{compared} '9999-01-01'");
    format!(
        "(CASE WHEN {value} OPERATOR(pg_catalog.>=) {from} AND {value} OPERATOR(pg_catalog.<) {until} \
         THEN {expression} END)::{name}"
    )
}

/// What [`Action::Partial`] leaves of a text, as an expression: the same as the output's mask. No
/// literal has a backslash.
fn partial(value: &str, of_type: &str) -> String {
    let value = format!("(({value})::pg_catalog.text COLLATE pg_catalog.\"C\")");
    // Letters of any alphabet but ASCII's.
    const OTHER: &str = "[^[:cntrl:] -~]";
    let label = format!("([A-Za-z0-9-]|{OTHER})*[.]([A-Za-z0-9.-]|{OTHER})*");
    let matches = |pattern: &str| format!("pg_catalog.textregexeq({value}, '{pattern}')");
    let address = matches(&format!("^[^@]+@{label}$"));
    let first = matches("^[[:cntrl:] -~][^@]");
    let other = matches(OTHER);
    let eight = matches("^([^A-Za-z0-9]*[A-Za-z0-9]){8}");
    format!(
        "(CASE WHEN pg_catalog.int4le(pg_catalog.octet_length({value}), 320) AND {address} \
         THEN pg_catalog.textcat(CASE WHEN {first} THEN pg_catalog.substr({value}, 1, 1) \
         ELSE '' END, pg_catalog.textcat('***', \
         pg_catalog.substr({value}, pg_catalog.strpos({value}, '@')))) \
         WHEN {eight} AND NOT {other} THEN pg_catalog.regexp_replace({value}, \
         '[A-Za-z0-9](?=([^A-Za-z0-9]*[A-Za-z0-9]){{4}})', '*', 'g') \
         ELSE pg_catalog.repeat('*', pg_catalog.char_length({value})) END)::{of_type}"
    )
}
