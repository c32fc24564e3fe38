//! Masks at the source: relations with masked columns become subqueries that mask.
//!
//! [`rewrite`] takes a text and what is known of the relations that it names, and gives the text
//! that goes to the server instead: `FROM customers c` becomes
//! `FROM (SELECT id, '[masked]'::text AS email FROM customers) c`. The inner name is the client's
//! own, with the schema where there are several of the name; the columns are listed, and one that is
//! masked by a constant is not named at all.
//!
//! The tree is changed, and the text at the places of the changed nodes. Then the text is parsed again:
//! one that does not parse to the tree that was meant is refused, so the places and the quoting are
//! not trusted. The rest of the client's text stays as it is, comments too. (The deparser of
//! `libpg_query` is not used: it ends the process at trees that it does not expect.)
//!
//! A relation whose rows are filtered is replaced in the same way, by a subquery with a condition:
//! `(SELECT id, email FROM customers WHERE tenant_id = 'acme' OFFSET 0) c`; the OFFSET keeps the
//! server from computing the statement's own conditions first. A view over it is replaced by the
//! query that it is made of. Statements that write it get the condition, and new rows must be
//! proven to meet it (`confine`).
//!
//! What cannot be masked so is refused with a [`Refusal`]: masked columns of the table that a
//! statement writes in its conditions and values, definitions that would store the rewritten text,
//! and results of functions of the database's own, other than shown as they are.
//!
//! Honest limits: GROUP BY the primary key of a rewritten relation does not cover its other
//! columns, and functions that take the relation's row type do not take the subquery's record.

mod condition;
mod confine;
mod define;
mod facts;
mod narrow;
mod relation;
mod splice;
mod walk;
mod writes;

pub use condition::{BoundCondition, Condition, ConditionMistake, Given, Value};
pub use relation::{MaskedColumn, MaskedRelation, Rows, Shown, qualified_type};

use std::borrow::Cow;
use std::sync::Arc;

use pg_query::protobuf as pg;

use super::{LexerSettings, Use, deep, grammar, statement};
use splice::Splices;
use walk::Rewriter;

/// What a name in a statement means.
#[derive(Debug, Clone)]
pub enum Resolved {
    /// Nothing with masked columns.
    Clear,
    /// A relation with masked columns or filtered rows.
    Masked(Arc<MaskedRelation>),
    /// One of several relations, which are not masked alike.
    Unclear,
}

/// What is known of the database that a text is for.
pub trait Relations: Sync {
    /// What a relation's name means, or could mean where no schema is given.
    fn relation(&self, schema: Option<&str>, name: &str) -> Resolved;

    /// The schema in which a relation of this name was found, where there are several: it goes up with
    /// the name, so that the server finds the same, whatever becomes of the others meanwhile.
    fn schema(&self, _name: &str) -> Option<String> {
        None
    }

    /// Whether nobody knows what a function reads.
    fn is_opaque(&self, schema: Option<&str>, name: &str) -> bool;

    /// Whether rows are filtered. Then what such a function gives is not even shown as it is: it is
    /// not known by its values of whom it is.
    fn filters_rows(&self) -> bool {
        false
    }
}

/// Why a text cannot be masked at the source, for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub Cow<'static, str>);

impl Refusal {
    /// One in fixed words.
    pub const fn of(reason: &'static str) -> Self {
        Self(Cow::Borrowed(reason))
    }
}

/// What a statement still reads when its masked relations are replaced.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Remaining {
    /// What becomes of the columns that it reads.
    pub uses: Vec<Use>,
    /// The same for each column that it gives, where that is known.
    pub outputs: Option<Vec<Vec<Use>>>,
}

/// A text that goes to the server in place of the client's.
#[derive(Debug, Clone, PartialEq)]
pub struct Rewritten {
    /// The text.
    pub text: String,
    /// For each statement what it still reads; `None` for one that was not changed.
    pub statements: Vec<Option<Remaining>>,
    /// Bytes of the text at which a part of the client's text begins, with its byte there; in
    /// order.
    pub places: Vec<(usize, usize)>,
}

/// Masks a text at the source; `None` where it reads nothing that is masked.
pub fn rewrite(
    sql: &str,
    settings: LexerSettings,
    relations: &dyn Relations,
) -> Result<Option<Rewritten>, Refusal> {
    let size = grammar::size(sql, settings).map_err(|_| LARGE)?;
    if size.is_deep {
        return deep::run_scoped(|| rewrite_here(sql, settings, relations)).unwrap_or(Err(LARGE));
    }
    rewrite_here(sql, settings, relations)
}

const LARGE: Refusal = Refusal::of("masked columns are read by a statement that is too complex");

/// The same, on a stack that is large enough.
fn rewrite_here(
    sql: &str,
    settings: LexerSettings,
    relations: &dyn Relations,
) -> Result<Option<Rewritten>, Refusal> {
    let mut sent = grammar::parse_here(sql, settings).map_err(|_| LARGE)?;
    let mut splices = Splices::new(sql, settings);
    let mut statements = Vec::with_capacity(sent.len());
    for raw in &mut sent {
        let mut shadow = raw.clone();
        if !Rewriter::new(relations, Some(&mut splices)).run(raw)? {
            statements.push(None);
            continue;
        }
        // The same, with nothing in place of the masks: what is read besides them.
        Rewriter::new(relations, None).run(&mut shadow)?;
        let found = statement(&shadow, sql.len()).map_err(|_| LARGE)?;
        statements.push(Some(Remaining { uses: found.uses, outputs: found.outputs }));
    }
    if statements.iter().all(Option::is_none) {
        return Ok(None);
    }
    let (text, places) = splices.finish(settings, sent)?;
    Ok(Some(Rewritten { text, statements, places }))
}

impl Rewritten {
    /// The character of the client's text, counted from 1, that a character of the sent text
    /// comes from.
    pub fn position(&self, client: &str, sent: usize) -> Option<usize> {
        let (byte, _) = self.text.char_indices().nth(sent.checked_sub(1)?)?;
        let at = self.places.binary_search_by_key(&byte, |(sent, _)| *sent).ok()?;
        let (_, client_byte) = self.places.get(at)?;
        Some(client.get(..*client_byte)?.chars().count() + 1)
    }
}

/// The name in a node that holds one.
fn string(node: &pg::Node) -> Option<&str> {
    match &node.node {
        Some(pg_query::NodeEnum::String(string)) => Some(&string.sval),
        _ => None,
    }
}
