//! What the effects of a statement mean for masks and row filters before it is rewritten: whether
//! they concern it, what is refused whatever it is rewritten to, and what it does to the session.

use super::expression::{KEYED, KEYED_FUNCTIONS};
use super::filtering::beyond;
use super::judge::OPAQUE;
use super::shapes::{Candidate, MaskSet, Shapes};
use super::statistics::function_tells;
use crate::decode::sql::rewrite::Refusal;
use crate::decode::sql::{Statement, reads_unseen};
use crate::policy::{Effect, Object};

/// Why a statement is refused, whatever it could be rewritten to.
pub(super) fn refusal(
    statement: &Statement,
    shapes: &Shapes,
    acting: &MaskSet,
    filters: &MaskSet,
) -> Option<Refusal> {
    let mut effects = statement.effects.iter();
    let beyond = effects.find_map(|effect| beyond(effect, shapes, filters));
    let decoy = || makes_decoy(statement, shapes, acting, filters).then_some(DECOY);
    let keyed = || statement.effects.iter().any(calls_keyed).then_some(KEYED_CALL);
    let counted = || {
        let counts = |effect: &Effect| effect.object.as_ref().is_some_and(counts_rows);
        (!filters.is_empty() && statement.effects.iter().any(counts)).then_some(COUNTED)
    };
    beyond.or_else(decoy).or_else(keyed).or_else(counted)
}

/// Whether a statement may move the session's search path, and whether it may make temporary
/// relations; `opaque` says that it runs what nobody looks into.
pub(super) fn unsettles(statement: &Statement, opaque: bool) -> (bool, bool) {
    let moves = |effect: &Effect| {
        let name = effect.object.as_ref().and_then(Object::name);
        // "$user" in a search path is the role that statements run as.
        effect.action == "sql.set-role"
            || effect.action == "sql.set"
                && name.is_none_or(|name| name.eq_ignore_ascii_case("search_path"))
    };
    let makes = |effect: &Effect| {
        let named = effect.object.as_ref().is_some_and(|object| object.kind() == "table");
        effect.action == "sql.create" && named
    };
    let moves = opaque || statement.effects.iter().any(moves);
    (moves, opaque || statement.effects.iter().any(makes))
}

/// Whether nobody knows what an effect does to the session.
pub(super) fn is_opaque(effect: &Effect, shapes: &Shapes) -> bool {
    let function = |object: &Object| object.kind() == "function" && shapes.is_opaque(object);
    OPAQUE.contains(&&*effect.action) || effect.object.as_ref().is_some_and(function)
}

/// Whether it makes a relation by whose name others mean one with masked columns or filtered rows: on
/// their search path it could be found first.
fn makes_decoy(
    statement: &Statement,
    shapes: &Shapes,
    acting: &MaskSet,
    filters: &MaskSet,
) -> bool {
    let made = |kind: &'static str| {
        let made = move |effect: &&Effect| {
            let object = effect.object.as_ref();
            effect.action == "sql.create" && object.is_some_and(|object| object.kind() == kind)
        };
        statement.effects.iter().filter(made)
    };
    // What is made with a schema is made in it.
    let usual = match made("schema").next() {
        None => shapes.path().iter().find(|schema| !schema.starts_with("pg_")),
        Some(_) => None,
    };
    made("table").filter_map(|effect| effect.object.as_ref()).any(|object| {
        let mut names = object.parts();
        let (schema, name) = (names.next().flatten(), names.next().flatten());
        let schema = schema.or(usual.map(String::as_str));
        // Temporary ones are found by the session alone.
        let temporary = schema.is_some_and(|schema| schema.starts_with("pg_temp"));
        !temporary
            && shapes.candidates(None, name.unwrap_or_default(), false).iter().any(|candidate| {
                Some(candidate.schema) != schema && is_hidden(candidate, acting, filters)
            })
    })
}

const DECOY: Refusal = Refusal::of(
    "a relation of this name in another schema has masked columns or filtered rows: take another name",
);

/// Whether columns of a relation are masked, or rows of it filtered.
fn is_hidden(candidate: &Candidate<'_>, acting: &MaskSet, filters: &MaskSet) -> bool {
    let masks = |column| candidate.lineage(column).is_some_and(|l| l.masks.meets(acting));
    candidate.filtered.is_some_and(|found| found.filters.meets(filters))
        || candidate.columns.iter().any(masks)
}

/// Whether it calls a function that masks with a key: what it gives for a guess tells where the guess is
/// right.
fn calls_keyed(effect: &Effect) -> bool {
    let Some(object) = effect.object.as_ref().filter(|object| object.kind() == "function") else {
        return false;
    };
    let mut names = object.parts();
    let (schema, name) = (names.next().flatten(), names.next().flatten());
    schema == Some(KEYED) || name.is_none_or(|name| KEYED_FUNCTIONS.contains(&name))
}

const KEYED_CALL: Refusal = Refusal::of("functions that mask with a key are the gateway's to call");

/// Whether it is a function that counts rows, whoever may see them.
fn counts_rows(object: &Object) -> bool {
    object.kind() == "function" && object.name().is_none_or(function_tells)
}

const COUNTED: Refusal =
    Refusal::of("the server's counters and locks tell of rows outside of a row filter");

/// Whether a statement's effect may have to do with masked columns, with filtered rows, or with what
/// nobody looks into.
pub(super) fn concerns(
    effect: &Effect,
    shapes: &Shapes,
    acting: &MaskSet,
    filters: &MaskSet,
) -> bool {
    let Some(object) = &effect.object else { return false };
    match object.kind() {
        "table" => {
            let mut names = object.parts();
            let (schema, name) = (names.next().flatten(), names.next().flatten());
            let Some(name) = name else { return true };
            let candidates = shapes.candidates(schema, name, true);
            candidates.iter().any(|candidate| is_hidden(candidate, acting, filters))
        }
        "function" => shapes.is_opaque(object) || object.name().is_none_or(reads_unseen),
        _ => false,
    }
}
