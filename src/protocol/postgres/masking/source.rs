//! Masks and row filters at the source: which text goes to the server in place of the client's.

use std::hash::Hash;
use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use super::MasksNow;
use super::catalog_snapshot::{Candidate, FIRST_NORMAL, Hiding, MaskSet, Shapes, TableColumn};
use super::effects::{self, is_opaque, unsettles};
use super::expression::OfType;
use super::filtered::{Filtered, Way};
use super::filtering::Bound;
use super::statistics::tells_by;
use crate::decode::sql::rewrite::{
    MaskedColumn, MaskedRelation, Refusal, Relations, Resolved, Shown, qualified_type, rewrite,
};
use crate::decode::sql::{LexerSettings, Reading};
use crate::gate::Against;
use crate::mask::{Action, Enforce};
use crate::policy::{Effect, Object};

/// Bytes of texts that are remembered with what goes to the server in their place.
const REMEMBERED: usize = 16 << 20;
/// Columns of relations that are remembered with what stands in their place.
const MOST_COLUMNS: usize = 50_000;
/// What a text usually takes of that, and a relation: guesses, for how many of them there may be.
const USUAL: usize = 4 << 10;
const USUAL_COLUMNS: usize = 16;
/// Parts of what is remembered that have a lock each, and an equal share of the bytes or columns: few,
/// so that the largest thing that is kept fits into one.
const PARTS: usize = 4;
/// A longer text is not remembered.
const LONGEST: usize = 64 << 10;
/// A longer text that reads masked columns is refused: it is read again for each session.
const MOST_TEXT: usize = 1 << 20;
/// The type of `anyarray`, which statistics have and nothing can be cast to.
const ANYARRAY: u32 = 2277;

/// Types that rows cannot be grouped by: json, xml, and those of geometry and text search.
const NOT_GROUPED: &[u32] = &[114, 142, 600, 601, 602, 603, 604, 628, 718, 4072];

/// What goes to the server in place of a text.
#[derive(Debug, Clone)]
pub(in super::super) enum AtSource {
    /// The text itself.
    Same,
    /// Another one.
    Instead(Arc<Reading>),
    /// Nothing: it cannot be masked.
    Refused(Against),
}

/// What was found for a text before.
#[derive(Debug, Clone)]
enum Found {
    Same,
    Instead(Arc<Reading>),
    Refused(Refusal),
}

/// What was found for texts, as long as the catalog is this one.
#[derive(Debug)]
pub(in super::super) struct Rewrites {
    found: Remembered<Key, Found>,
    relations: Remembered<RelationKey, Arc<MaskedRelation>>,
}

impl Default for Rewrites {
    fn default() -> Self {
        Self {
            found: Remembered::of(REMEMBERED, REMEMBERED / USUAL),
            relations: Remembered::of(MOST_COLUMNS, MOST_COLUMNS / USUAL_COLUMNS),
        }
    }
}

/// What is remembered, up to a sum of sizes.
#[derive(Debug)]
struct Remembered<K, V> {
    found: Cache<K, (V, u64), Sizes>,
    most: usize,
}

/// Takes each thing for as large as it was said to be.
#[derive(Debug, Clone)]
struct Sizes;

impl<K, V> Weighter<K, (V, u64)> for Sizes {
    fn weight(&self, _: &K, (_, size): &(V, u64)) -> u64 {
        *size
    }
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    #[expect(clippy::expect_used, reason = "options lack nothing with an estimate and a capacity")]
    fn of(most: usize, entries: usize) -> Self {
        let options = OptionsBuilder::new()
            .shards(PARTS)
            .estimated_items_capacity(entries)
            .weight_capacity(most as u64)
            .build()
            .expect("an estimate and a capacity");
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self { found: Cache::with_options(options, Sizes, hasher, lifecycle), most }
    }

    fn get(&self, key: &K) -> Option<V> {
        Some(self.found.get(key)?.0)
    }

    /// Keeps it if it is not so large that few others would have room.
    fn put(&self, key: K, found: V, size: usize) {
        if size <= self.most / 8 {
            self.found.insert(key, (found, size as u64));
        }
    }
}

/// All that makes a difference for what stands in the place of a relation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RelationKey {
    acting: MaskSet,
    lifted: MaskSet,
    rows: Vec<(u16, Bound)>,
    /// The relations that are meant, by OID.
    meant: Vec<u32>,
}

/// All that makes a difference.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) text: Box<str>,
    pub(super) settings: LexerSettings,
    /// The masks that act at the source.
    pub(super) acting: MaskSet,
    /// The masks that are lifted for the client: of several on a column the others count.
    pub(super) lifted: MaskSet,
    /// The row filters that act, by their places in the plan, with the caller's values.
    pub(super) rows: Vec<(u16, Bound)>,
    pub(super) path_moved: bool,
    pub(super) temporary: bool,
}

impl MasksNow {
    /// The masks that act on the client at the source.
    fn at_source_masks(&self) -> MaskSet {
        let mut acting = MaskSet::default();
        for (at, applied) in (0..).zip(self.plan.masks()) {
            let source = matches!(applied.mask.enforce, Enforce::Source { .. });
            if source && !applied.lifted && !applied.mask.columns.is_empty() {
                acting.insert(at);
            }
        }
        acting
    }

    /// The same, with the row filters that act.
    fn hiding_at_source(&self) -> Hiding {
        Hiding { masks: self.at_source_masks(), filters: self.acting_filters() }
    }

    fn lifted(&self) -> MaskSet {
        let mut lifted = MaskSet::default();
        for (at, applied) in (0..).zip(self.plan.masks()) {
            if applied.lifted {
                lifted.insert(at);
            }
        }
        lifted
    }

    /// The masks that may hold at the output alone.
    pub(super) fn at_output_masks(&self) -> MaskSet {
        let mut found = MaskSet::default();
        for (at, applied) in (0..).zip(self.plan.masks()) {
            let always = matches!(applied.mask.enforce, Enforce::Source { or_output: false });
            let there = !applied.mask.with.is_keyed()
                || self.shapes.as_ref().is_some_and(|shapes| shapes.keyed());
            let computed = always && there && !applied.lifted;
            if !computed && !applied.mask.columns.is_empty() {
                found.insert(at);
            }
        }
        found
    }

    /// What goes to the server in place of a text, in a session whose names mean what they do in
    /// a new one unless `path_moved`, and which may have temporary relations.
    pub(in super::super) fn at_source(
        &self,
        reading: &Arc<Reading>,
        (path_moved, temporary): (bool, bool),
    ) -> AtSource {
        let all = self.hiding_at_source();
        let Some(shapes) = self.shapes.as_ref().filter(|_| !all.is_empty()) else {
            return AtSource::Same;
        };
        let Hiding { masks: acting, filters } = &all;
        // Where each mask that acts may go back to masking the output, it does.
        let strict = self
            .applied(acting)
            .any(|applied| matches!(applied.mask.enforce, Enforce::Source { or_output: false }));
        let refused =
            |(Refusal(reason), by): (_, &Hiding)| match self.against_all(by.or(&all), reason) {
                Some(against) if strict || !filters.is_empty() => AtSource::Refused(against),
                _ => AtSource::Same,
            };
        if !reading.is_understood() {
            // What is no SQL here is none for the server.
            let syntax = |effect: &Effect| {
                effect.attributes.get("reason").is_some_and(|reason| reason == "syntax")
            };
            return match reading.statements().iter().flat_map(|s| &s.effects).all(syntax) {
                true => AtSource::Same,
                false => refused((NOT_UNDERSTOOD, &all)),
            };
        }
        let never = |statement| effects::refusal(statement, shapes, &all);
        if let Some((refusal, by)) = reading.statements().iter().find_map(never) {
            return refused((refusal, &by));
        }
        let by = concerned(reading, shapes, &all);
        if by.is_empty() {
            return AtSource::Same;
        }
        let (moves, makes) = reading
            .statements()
            .iter()
            .map(|statement| {
                let opaque = statement.effects.iter().any(|effect| is_opaque(effect, shapes));
                unsettles(statement, opaque)
            })
            .fold((false, false), |(a, b), (c, d)| (a | c, b | d));
        let path_moved = path_moved || moves || !shapes.finds_by(self.search_path.as_deref());
        let under = |acting: &MaskSet| {
            let key = Key {
                text: reading.text().into(),
                settings: reading.settings(),
                acting: acting.clone(),
                lifted: self.lifted(),
                rows: self.bound_filters(),
                path_moved,
                temporary: temporary || makes,
            };
            self.rewritten(reading, shapes, key)
        };
        match under(acting) {
            Found::Same => AtSource::Same,
            Found::Instead(reading) => AtSource::Instead(reading),
            // Rows are filtered all the same where masks go back to masking the output.
            Found::Refused(refusal) if !strict && !acting.is_empty() && !filters.is_empty() => {
                match under(&MaskSet::default()) {
                    Found::Same => AtSource::Same,
                    Found::Instead(reading) => AtSource::Instead(reading),
                    Found::Refused(_) => refused((refusal, &by)),
                }
            }
            Found::Refused(refusal) => refused((refusal, &by)),
        }
    }

    /// What goes to the server in place of a text, by all that makes a difference.
    fn rewritten(&self, reading: &Arc<Reading>, shapes: &Shapes, key: Key) -> Found {
        shapes.rewritten.get_or_make(key, |key| {
            if key.text.len() > MOST_TEXT {
                return Found::Refused(Refusal::of(
                    "masked columns or filtered rows are read by a statement that is too long",
                ));
            }
            let names = SourceNames { masks: self, shapes, key, depth: 0 };
            match rewrite(&key.text, key.settings, &names) {
                Ok(None) => Found::Same,
                Ok(Some(sent)) => Found::Instead(Arc::new(reading.sent_as(sent))),
                Err(refusal) => Found::Refused(refusal),
            }
        })
    }

    /// Why a statement that was prepared as this may not run now: it would be sent otherwise.
    pub(in super::super) fn outdated(
        &self,
        reading: &Arc<Reading>,
        moved: (bool, bool),
    ) -> Option<Against> {
        const OUTDATED: &str = "the statement was prepared when other columns were masked or rows filtered: prepare it again";
        let sent = reading.sent().map(|sent| &sent.text);
        match self.at_source(reading, moved) {
            AtSource::Refused(against) => Some(against),
            AtSource::Same if sent.is_none() => None,
            AtSource::Instead(now) if now.sent().map(|now| &now.text) == sent => None,
            AtSource::Same | AtSource::Instead(_) => {
                let all = self.hiding_at_source();
                let by = self.shapes.as_ref().map(|shapes| concerned(reading, shapes, &all));
                self.against_all(by.unwrap_or_default().or(&all), OUTDATED)
            }
        }
    }
}

/// Those of all masks and row filters that a text may have to do with.
fn concerned(reading: &Reading, shapes: &Shapes, all: &Hiding) -> Hiding {
    let effects = reading.statements().iter().flat_map(|statement| &statement.effects);
    effects::concerned(effects, shapes, all)
}

const NOT_UNDERSTOOD: Refusal =
    Refusal::of("columns are masked or rows filtered, and the statement cannot be looked through");

impl Rewrites {
    fn get_or_make(&self, key: Key, make: impl FnOnce(&Key) -> Found) -> Found {
        if let Some(found) = self.found.get(&key) {
            return found;
        }
        // Not under the lock: two sessions may find the same at once.
        let found = make(&key);
        let bytes = match &found {
            Found::Instead(reading) => {
                let sent =
                    reading.sent().map_or(0, |sent| sent.text.len() + 16 * sent.places.len());
                sent + 4 * key.text.len() + 4_000
            }
            Found::Same | Found::Refused(_) => key.text.len() + 300,
        };
        if key.text.len() <= LONGEST {
            self.found.put(key, found.clone(), bytes);
        }
        found
    }

    fn relation(
        &self,
        key: RelationKey,
        make: impl FnOnce() -> Option<MaskedRelation>,
    ) -> Option<Arc<MaskedRelation>> {
        if let Some(found) = self.relations.get(&key) {
            return Some(found);
        }
        let found = Arc::new(make()?);
        // What has no size would never go.
        self.relations.put(key, Arc::clone(&found), found.columns().max(1));
        Some(found)
    }
}

/// What names in a text mean.
pub(super) struct SourceNames<'s> {
    pub(super) masks: &'s MasksNow,
    pub(super) shapes: &'s Shapes,
    pub(super) key: &'s Key,
    /// In how many views' queries it stands.
    pub(super) depth: usize,
}

impl Relations for SourceNames<'_> {
    fn relation(&self, schema: Option<&str>, name: &str) -> Resolved {
        match self.meaning(schema, name) {
            Meaning::Clear => Resolved::Clear,
            Meaning::Unclear => Resolved::Unclear,
            Meaning::Found(found) if !self.is_concerned(&found) => Resolved::Clear,
            Meaning::Found(found) => self.resolved(&[found]),
            Meaning::AnyOf(alike) => self.resolved(&alike),
        }
    }

    fn schema(&self, name: &str) -> Option<String> {
        match self.meaning(None, name) {
            Meaning::Found(found) => Some(found.schema.to_owned()),
            Meaning::Clear | Meaning::Unclear | Meaning::AnyOf(_) => None,
        }
    }

    fn is_opaque(&self, schema: Option<&str>, name: &str) -> bool {
        let function = Object::new("function", [schema.map(str::to_owned), Some(name.to_owned())]);
        self.shapes.has_function(&function) && self.shapes.is_opaque(&function)
    }

    fn filters_rows(&self) -> bool {
        !self.key.rows.is_empty()
    }
}

/// What a relation's name means, as far as masks and row filters are concerned.
enum Meaning<'s> {
    /// Nothing that is masked or filtered.
    Clear,
    /// One of several, which are not masked alike.
    Unclear,
    /// Whichever the server finds of these, which are masked alike.
    AnyOf(Vec<Candidate<'s>>),
    /// The one of several that is first on the search path.
    Found(Candidate<'s>),
}

impl SourceNames<'_> {
    fn meaning(&self, schema: Option<&str>, name: &str) -> Meaning<'_> {
        let candidates = self.shapes.candidates(schema, name, self.key.temporary);
        if !candidates.iter().any(|candidate| self.is_concerned(candidate)) {
            return Meaning::Clear;
        }
        let temporary = candidates.iter().any(|c| c.schema.starts_with("pg_temp_"));
        // As the server finds it, where nothing has moved the path.
        if schema.is_none() && candidates.len() > 1 && !self.key.path_moved && !temporary {
            let first = |schema: &String| candidates.iter().find(|c| c.schema == schema);
            if let Some(found) = self.shapes.path().iter().find_map(first) {
                return Meaning::Found(*found);
            }
        }
        let same = |first: &Candidate<'_>, other: &Candidate<'_>| {
            alike(first, other) && self.filters(first) == self.filters(other)
        };
        match candidates.split_first() {
            Some((first, rest)) if rest.iter().all(|other| same(first, other)) => {
                Meaning::AnyOf(candidates)
            }
            _ => Meaning::Unclear,
        }
    }

    fn is_concerned(&self, candidate: &Candidate<'_>) -> bool {
        let columns = candidate.columns.iter();
        let mut lineages = columns.filter_map(|column| candidate.lineage(column));
        self.filters(candidate).is_some() || lineages.any(|l| !l.masked && self.acts(&l.masks))
    }

    fn resolved(&self, meant: &[Candidate<'_>]) -> Resolved {
        let key = RelationKey {
            acting: self.key.acting.clone(),
            lifted: self.key.lifted.clone(),
            rows: self.key.rows.clone(),
            meant: meant.iter().map(|candidate| candidate.oid).collect(),
        };
        // Within a view's query it may be one view too many.
        let remembered = &self.shapes.rewritten;
        let found = match self.depth {
            0 => remembered.relation(key, || self.masked(meant)),
            _ => self.masked(meant).map(Arc::new),
        };
        found.map_or(Resolved::Unclear, Resolved::Masked)
    }

    fn acts(&self, masks: &MaskSet) -> bool {
        masks.meets(&self.key.acting)
    }

    /// One relation, or several that are alike: what any of them masks is masked.
    fn masked(&self, meant: &[Candidate<'_>]) -> Option<MaskedRelation> {
        let first = meant.first()?;
        let tells_of_rows = matches!(self.filters(first), Some(Filtered { way: Way::Shown, .. }));
        let columns = first.columns.iter().enumerate().map(|(at, column)| {
            let mut lineages =
                meant.iter().filter_map(|candidate| candidate.lineage(candidate.columns.get(at)?));
            let (mut masks, mut itself) = (MaskSet::default(), true);
            let mut masked = true;
            for lineage in lineages.by_ref().filter(|lineage| self.acts(&lineage.masks)) {
                masks.add(&lineage.masks);
                itself &= lineage.itself;
                masked &= lineage.masked;
            }
            let acting = self.masks.applied(&masks).filter(|applied| !applied.lifted);
            let [action, _] = self.masks.plan.strictest(acting);
            let action = action.filter(|_| !masked);
            // A type that is none fails with the whole relation.
            let of_type = qualified_type(type_name(column)).unwrap_or_default();
            let null = format!("NULL::{of_type}");
            // Of rows that are not there for the caller, too.
            let of_others = tells_of_rows && tells_by(first.name, &column.name);
            MaskedColumn {
                name: column.name.clone(),
                shown: match of_others && action.is_none() {
                    true => Shown::Masked(null.clone()),
                    false => self.shown(column, action, itself, &of_type),
                },
                null,
                readable: column.readable,
                generated: column.generated,
                // Of several relations the key is not certain.
                key: column.key && meant.len() == 1,
                groupable: column.type_oid < FIRST_NORMAL
                    && !NOT_GROUPED.contains(&column.type_oid),
            }
        });
        let columns: Vec<MaskedColumn> = columns.collect();
        let relation =
            MaskedRelation::new(&columns, meant.iter().all(|candidate| !candidate.view))?;
        relation.with_rows(self.rows(meant))
    }

    fn shown(
        &self,
        column: &TableColumn,
        action: Option<Action>,
        itself: bool,
        of_type: &str,
    ) -> Shown {
        let Some(action) = action else { return Shown::Clear };
        let text = self.shapes.is_text(column.type_oid);
        let of_type = OfType { oid: column.type_oid, name: of_type, text };
        let expression = if itself || action == Action::Null {
            let name = format!("\"{}\"", column.name.replace('"', "\"\""));
            of_type.seen(action, &name, self.shapes.keyed())
        } else {
            Some(of_type.redacted())
        };
        // Its key stands in no statement.
        let Some(expression) = expression else { return Shown::AtOutput };
        Shown::Masked(match &column.collation {
            Some(collation) => format!("{expression} COLLATE {collation}"),
            None => expression,
        })
    }
}

/// Whether two relations have the same columns.
fn alike(one: &Candidate<'_>, other: &Candidate<'_>) -> bool {
    let same = |(one, other): (&TableColumn, &TableColumn)| {
        one.name == other.name && one.type_name == other.type_name
    };
    one.columns.len() == other.columns.len() && one.columns.iter().zip(other.columns).all(same)
}

/// A column's type as SQL writes it.
fn type_name(column: &TableColumn) -> &str {
    match column.type_oid {
        ANYARRAY => "text[]",
        _ => &column.type_name,
    }
}
