//! What the effects of a statement mean for masks and row filters before it is rewritten: whether
//! they concern it, what is refused whatever it is rewritten to, and what it does to the session.

use super::catalog_snapshot::{Hiding, MaskSet, Shapes};
use super::column_lineage::OPAQUE;
use super::expression::{KEYED, KEYED_FUNCTIONS};
use super::filtering::beyond;
use super::statistics::function_tells;
use crate::decode::sql::rewrite::Refusal;
use crate::decode::sql::{Statement, reads_unseen};
use crate::policy::{Effect, Object};

/// Why a statement is refused, whatever it could be rewritten to, and which of all masks and row
/// filters that concerns.
pub(super) fn refusal(
    statement: &Statement,
    shapes: &Shapes,
    all: &Hiding,
) -> Option<(Refusal, Hiding)> {
    let by_filters = |filters| Hiding { masks: MaskSet::default(), filters };
    let mut effects = statement.effects.iter();
    let beyond = effects.find_map(|effect| beyond(effect, shapes, &all.filters));
    let beyond = beyond.map(|(refusal, filters)| (refusal, by_filters(filters)));
    let decoy = || {
        let hiding = decoyed(statement, shapes, all);
        (!hiding.is_empty()).then_some((DECOY, hiding))
    };
    let keyed =
        || statement.effects.iter().any(calls_keyed).then(|| (KEYED_CALL, Hiding::default()));
    let counted = || {
        let counts = |effect: &Effect| effect.object.as_ref().is_some_and(counts_rows);
        let counted = !all.filters.is_empty() && statement.effects.iter().any(counts);
        counted.then(|| (COUNTED, by_filters(all.filters.clone())))
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

/// What hides columns or rows of relations whose names it gives to others, which a search path could
/// find first.
fn decoyed(statement: &Statement, shapes: &Shapes, all: &Hiding) -> Hiding {
    let mut hiding = Hiding::default();
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
    for object in made("table").filter_map(|effect| effect.object.as_ref()) {
        let mut names = object.parts();
        let (schema, name) = (names.next().flatten(), names.next().flatten());
        let schema = schema.or(usual.map(String::as_str));
        // Temporary ones are found by the session alone.
        if schema.is_some_and(|schema| schema.starts_with("pg_temp")) {
            continue;
        }
        let candidates = shapes.candidates(None, name.unwrap_or_default(), false);
        let others = candidates.iter().filter(|candidate| Some(candidate.schema) != schema);
        others.for_each(|candidate| hiding.add(&candidate.hidden_by(all)));
    }
    hiding
}

const DECOY: Refusal = Refusal::of(
    "a relation of this name in another schema has masked columns or filtered rows: take another name",
);

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

/// Those of all masks and row filters that effects may have to do with: all, where nobody looks into
/// what they do.
pub(super) fn concerned<'e>(
    effects: impl Iterator<Item = &'e Effect>,
    shapes: &Shapes,
    all: &Hiding,
) -> Hiding {
    let mut hiding = Hiding::default();
    for object in effects.filter_map(|effect| effect.object.as_ref()) {
        match object.kind() {
            "table" => {
                let mut names = object.parts();
                let (schema, name) = (names.next().flatten(), names.next().flatten());
                let Some(name) = name else { return all.clone() };
                let candidates = shapes.candidates(schema, name, true);
                candidates.iter().for_each(|candidate| hiding.add(&candidate.hidden_by(all)));
            }
            "function" if shapes.is_opaque(object) || object.name().is_none_or(reads_unseen) => {
                return all.clone();
            }
            _ => {}
        }
    }
    hiding
}
