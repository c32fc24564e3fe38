//! What masks must know of a database: which columns show masked ones, however they are called
//! there, and which names are known at all.
//!
//! Columns are known by the table's OID and their number, as `RowDescription` has them. A mask
//! that names a column also masks it in partitions, children and parents of its table, and in
//! views, down to the last. A view's column is what the server itself says that it is; where the
//! server does not say (an expression, a UNION), it may be anything that the view reads.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::decode::postgres::backend::Column;
use crate::decode::sql::{self, LexerSettings};
use crate::mask::{Action, ColumnPattern, MaskPlan};
use crate::policy::{Object, Pattern};

use super::bodies::{Body, FETCHING, NAMING, doing};
use super::column_lineage::Judged;
use super::filtered::Filtered;
use super::source::Rewrites;
use super::statistics::shown_by;

/// Relations of the system's that show definitions of views, rules and functions.
const DEFINITIONS: &[&str] = &[
    "check_constraints",
    "pg_indexes",
    "pg_matviews",
    "pg_policies",
    "pg_proc",
    "pg_rules",
    "pg_views",
    "routines",
    "triggers",
    "views",
];

/// The first OID that is not of the system's own making (`FirstNormalObjectId`).
pub(super) const FIRST_NORMAL: u32 = 16_384;

/// Masks of a plan, by their places there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(in super::super) struct MaskSet(Vec<u16>);

impl MaskSet {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in super::super) fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|at| usize::from(*at))
    }

    pub(super) fn insert(&mut self, mask: u16) {
        if let Err(at) = self.0.binary_search(&mask) {
            self.0.insert(at, mask);
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        other.0.iter().for_each(|mask| self.insert(*mask));
    }

    /// Whether they have one in common.
    pub(super) fn meets(&self, other: &Self) -> bool {
        self.0.iter().any(|mask| other.0.contains(mask))
    }

    pub(super) fn common(&self, other: &Self) -> Self {
        Self(self.0.iter().filter(|mask| other.0.contains(mask)).copied().collect())
    }

    pub(super) fn holds(&self, other: &Self) -> bool {
        other.0.iter().all(|mask| self.0.contains(mask))
    }
}

/// Masks and row filters of a plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hiding {
    pub(super) masks: MaskSet,
    pub(super) filters: MaskSet,
}

impl Hiding {
    pub(super) fn is_empty(&self) -> bool {
        self.masks.is_empty() && self.filters.is_empty()
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.masks.add(&other.masks);
        self.filters.add(&other.filters);
    }

    /// These, or others where these are none.
    pub(super) fn or<'h>(&'h self, others: &'h Self) -> &'h Self {
        if self.is_empty() { others } else { self }
    }
}

/// The masks of columns in a plan, each with its place there, and the tables of its row filters.
/// Plans of one target have the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in super::super) struct ColumnMasks {
    columns: Vec<(u16, ColumnPattern, Action)>,
    /// In the order of the plan.
    rows: Vec<Pattern>,
}

impl ColumnMasks {
    pub(in super::super) fn of(plan: &MaskPlan) -> Self {
        let masks = (0..).zip(plan.masks());
        let columns = |(at, applied): (u16, &crate::mask::Applied)| {
            let named = applied.mask.columns.iter();
            named.map(move |column| (at, column.clone(), applied.mask.with)).collect::<Vec<_>>()
        };
        let rows = plan.rows().iter().map(|applied| applied.filter.named.clone()).collect();
        Self { columns: masks.flat_map(columns).collect(), rows }
    }

    pub(super) fn patterns(&self) -> impl Iterator<Item = &ColumnPattern> {
        self.columns.iter().map(|(_, pattern, _)| pattern)
    }

    /// The tables of row filters.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Pattern> {
        self.rows.iter()
    }

    /// Every row filter.
    pub(super) fn filters(&self) -> MaskSet {
        MaskSet((0..).zip(&self.rows).map(|(at, _)| at).collect())
    }

    /// The row filters that name a relation.
    pub(super) fn filtering(&self, schema: &str, table: &str) -> MaskSet {
        let names = |pattern: &Pattern| {
            pattern.parts().iter().zip([schema, table]).all(|(glob, name)| glob.matches(name))
        };
        let named = (0..).zip(&self.rows).filter(|(_, pattern)| names(pattern));
        MaskSet(named.map(|(at, _)| at).collect())
    }

    pub(super) fn all(&self) -> MaskSet {
        let mut all = MaskSet::default();
        self.columns.iter().for_each(|(at, ..)| all.insert(*at));
        all
    }

    /// What these masks together leave of a value.
    fn strictest(&self, masks: &MaskSet) -> Option<Action> {
        let of = self.columns.iter().filter(|(at, ..)| masks.0.contains(at));
        of.map(|(.., action)| *action).max()
    }

    fn naming(&self, schema: &str, table: &str, column: &str) -> MaskSet {
        let mut masks = MaskSet::default();
        for (at, pattern, _) in &self.columns {
            if pattern.names(schema, table, column) {
                masks.insert(*at);
            }
        }
        masks
    }
}

/// What the catalog says, as it was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// The `search_path` that the connection for the catalog was opened with.
    pub(super) path_setting: Option<String>,
    /// The schemas that a session with this search path finds relations in, in order.
    pub(super) path: Vec<String>,
    /// Everything that has columns: OID, schema, name, and whether it is a view.
    pub(super) relations: Vec<(u32, String, String, bool)>,
    /// Names of functions, and what is known of one of that name.
    pub(super) functions: Vec<(String, Does)>,
    /// Types that are written as texts, beside those that every server has.
    pub(super) texts: Vec<u32>,
    /// Relations with rules on INSERT, UPDATE or DELETE.
    pub(super) ruled: Vec<u32>,
    /// Columns of views that `policy harden` made, which the gateway's role cannot change, with what
    /// is left of their values.
    pub(super) walled: Vec<(u32, i16, Option<Action>)>,
    /// Whether the functions that mask with a key are there, as `policy harden` makes them: the
    /// gateway's role may call them, and neither read their key nor change them.
    pub(super) keyed: bool,
    /// Columns of all that may show masked ones.
    pub(super) columns: Vec<TableColumn>,
    /// Child and parent.
    pub(super) inherits: Vec<(u32, u32)>,
    /// Generated columns with each that they are made from: table, number, number.
    pub(super) generated: Vec<(u32, i16, i16)>,
    /// Views that may show masked columns: definition, and its columns as the server sees them.
    pub(super) views: Vec<(u32, String, Option<Vec<Column>>)>,
    /// Those of them that keep what their query gave.
    pub(super) stored: Vec<u32>,
}

/// A column of a table.
#[derive(Debug)]
pub(super) struct TableColumn {
    pub(super) table: u32,
    pub(super) number: i16,
    pub(super) name: String,
    /// Its type; a domain's is the type under it.
    pub(super) type_oid: u32,
    /// It is computed from others: COPY leaves it out.
    pub(super) generated: bool,
    /// Its type as SQL writes it; a domain's is the type under it.
    pub(super) type_name: String,
    /// Its collation, where that is not its type's.
    pub(super) collation: Option<String>,
    /// Whether the gateway's role may read it.
    pub(super) readable: bool,
    /// It is of the primary key.
    pub(super) key: bool,
}

/// What is known of a function.
#[derive(Debug)]
pub(super) enum Does {
    /// It is the server's or an extension's own, and reads nothing but its arguments.
    Known,
    /// Its code.
    Code(String),
    /// It may do anything.
    Anything,
}

#[derive(Debug)]
pub(super) struct Relation {
    pub(super) schema: Box<str>,
    pub(super) name: Box<str>,
    view: bool,
}

/// A column that shows masked ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in super::super) struct Lineage {
    pub(in super::super) masks: MaskSet,
    /// Its values are the masked column's own, and not perhaps something made from them.
    pub(in super::super) itself: bool,
    /// A view that `policy harden` made leaves of the values what the masks do.
    pub(in super::super) masked: bool,
}

/// What a column of a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Origin<'s> {
    /// A column that shows nothing masked.
    Clear,
    /// One that does.
    Masked(&'s Lineage),
    /// A row with masked columns in it.
    Row,
    /// Nobody knows.
    Unknown,
}

/// What is known of a name in a statement.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// The masks of all columns that could be meant.
    pub(super) masks: MaskSet,
    /// The same of those whose values are not masked yet.
    pub(super) values: MaskSet,
    /// Nothing of that name is known.
    pub(super) unknown: bool,
}

/// The columns of a database that show masked ones.
#[derive(Debug, Default)]
pub(in super::super) struct Shapes {
    pub(super) of: ColumnMasks,
    pub(super) relations: HashMap<u32, Relation>,
    by_name: HashMap<Box<str>, Vec<u32>>,
    exposed: HashMap<u32, BTreeMap<i16, (Box<str>, Lineage)>>,
    /// Of relations that show masked columns: what COPY gives of them, in order.
    copied: HashMap<u32, Vec<Copied>>,
    functions: HashMap<Box<str>, bool>,
    /// Functions that may make or drop prepared statements and cursors.
    naming: HashSet<Box<str>>,
    /// Functions whose code is known and that may take rows from cursors of others.
    fetching: HashSet<Box<str>>,
    texts: HashSet<u32>,
    ruled: HashSet<u32>,
    /// Of relations that show masked columns: all columns, in order.
    columns: HashMap<u32, Vec<TableColumn>>,
    /// A session's `search_path`, and the schemas that it finds relations in by that, in order.
    path_setting: Option<String>,
    path: Vec<String>,
    /// Texts that were masked at the source.
    pub(super) rewritten: Rewrites,
    walled: HashMap<(u32, i16), Option<Action>>,
    keyed: bool,
    /// Relations that show rows of which there may not be all.
    pub(super) filtered: HashMap<u32, Filtered>,
}

/// A column as COPY gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Copied {
    number: i16,
    name: Box<str>,
    pub(super) type_oid: u32,
}

/// A relation that a name could mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'s> {
    pub(super) oid: u32,
    pub(super) schema: &'s str,
    pub(super) name: &'s str,
    pub(super) view: bool,
    /// All of its columns, where some show masked ones.
    pub(super) columns: &'s [TableColumn],
    exposed: Option<&'s BTreeMap<i16, (Box<str>, Lineage)>>,
    /// Of whose rows there may not be all.
    pub(super) filtered: Option<&'s Filtered>,
}

impl Candidate<'_> {
    /// What of masked columns a column shows.
    pub(super) fn lineage(&self, column: &TableColumn) -> Option<&Lineage> {
        self.exposed?.get(&column.number).map(|(_, lineage)| lineage)
    }

    /// Those of these masks that its columns have, and those of these filters that its rows have.
    pub(super) fn hidden_by(&self, all: &Hiding) -> Hiding {
        let mut hiding = Hiding::default();
        for (_, lineage) in self.exposed.iter().flat_map(|exposed| exposed.values()) {
            hiding.masks.add(&lineage.masks.common(&all.masks));
        }
        if let Some(found) = self.filtered {
            hiding.filters.add(&found.filters.common(&all.filters));
        }
        hiding
    }
}

/// A view, its definition taken apart.
pub(super) struct AnalysedView<'r> {
    pub(super) view: u32,
    pub(super) definition: &'r str,
    described: Option<&'r [Column]>,
    analysis: Option<sql::Analysis>,
}

impl<'r> AnalysedView<'r> {
    fn of((view, definition, described): &'r (u32, String, Option<Vec<Column>>)) -> Self {
        let analysis = sql::analyze(definition, LexerSettings::default()).ok();
        Self { view: *view, definition, described: described.as_deref(), analysis }
    }

    /// What it reads; `None` where that is not known.
    pub(super) fn statement(&self) -> Option<&sql::Statement> {
        self.analysis.as_ref().and_then(|found| found.statements.first())
    }
}

impl Shapes {
    pub(super) fn new(of: &ColumnMasks, read: Read) -> Self {
        let mut shapes = Self {
            of: of.clone(),
            path_setting: read.path_setting,
            path: read.path,
            keyed: read.keyed,
            ..Self::default()
        };
        for (oid, schema, name, view) in read.relations {
            shapes.by_name.entry(name.as_str().into()).or_default().push(oid);
            let relation = Relation { schema: schema.into(), name: name.into(), view };
            shapes.relations.insert(oid, relation);
        }
        let (mut bodies, mut unseen) = (Vec::new(), HashSet::new());
        for (name, does) in read.functions {
            let body = match &does {
                Does::Code(code) => Body::new(code),
                Does::Known | Does::Anything => None,
            };
            let opaque = body.is_none() && !matches!(does, Does::Known);
            *shapes.functions.entry(name.as_str().into()).or_default() |= opaque;
            if opaque {
                unseen.insert(Box::from(name.as_str()));
            }
            bodies.extend(body.map(|body| (Box::from(name), body)));
        }
        shapes.naming = doing(NAMING, &unseen, &bodies);
        shapes.fetching = doing(FETCHING, &HashSet::new(), &bodies);
        shapes.texts = read.texts.into_iter().collect();
        shapes.ruled = read.ruled.into_iter().collect();
        let walled = read.walled.into_iter();
        shapes.walled = walled.map(|(view, number, left)| ((view, number), left)).collect();
        let mut columns: HashMap<u32, BTreeMap<i16, Box<str>>> = HashMap::new();
        for column in &read.columns {
            let named = columns.entry(column.table).or_default();
            named.insert(column.number, column.name.as_str().into());
        }
        shapes.expose_named(&columns);
        shapes.expose_generated(&columns, &read.generated);
        shapes.expose_relatives(&columns, &read.inherits);
        shapes.filter_named(&read.inherits);
        // Functions read views, and views call functions.
        let analysed: Vec<_> = read.views.iter().map(AnalysedView::of).collect();
        while shapes.close_functions(&mut bodies)
            | shapes.expose_views(&columns, &analysed)
            | shapes.filter_views(&analysed, &read.stored)
        {}
        shapes.keep_copied(read.columns);
        shapes
    }

    /// The masks that were looked for.
    pub(in super::super) fn of(&self) -> &ColumnMasks {
        &self.of
    }

    /// Whether a relation was there.
    pub(in super::super) fn has(&self, oid: u32) -> bool {
        self.relations.contains_key(&oid)
    }

    /// Every mask of columns.
    pub(super) fn every_mask(&self) -> MaskSet {
        self.of.all()
    }

    /// Types that are written as texts, beside those that every server has.
    pub(in super::super) fn is_text(&self, type_oid: u32) -> bool {
        self.texts.contains(&type_oid)
    }

    /// Whether a relation may have rules of the target's that run when it is written.
    pub(super) fn has_rules(&self, table: &Object) -> bool {
        self.could_be(table).any(|oid| self.ruled.contains(oid))
    }

    /// Whether the server has the functions that mask with a key.
    pub(super) fn keyed(&self) -> bool {
        self.keyed
    }

    /// Whether a relation of the system's shows definitions, which repeat literals.
    pub(super) fn shows_definitions(&self, oid: u32) -> bool {
        oid < FIRST_NORMAL
            && self.relations.get(&oid).is_some_and(|r| DEFINITIONS.contains(&&*r.name))
    }

    /// The masks of what a column shows, by its table's OID and its number.
    pub(super) fn masks_of(&self, table: u32, number: i16) -> Option<&MaskSet> {
        Some(&self.exposed.get(&table)?.get(&number)?.1.masks)
    }

    /// What a column of a result is. `views_hold` says whether views are still what they were
    /// when the catalog was read.
    pub(in super::super) fn origin(&self, column: &Column, views_hold: bool) -> Origin<'_> {
        if !self.has(column.table) || (!views_hold && self.may_change(column.table)) {
            return Origin::Unknown;
        }
        match (self.exposed.get(&column.table), column.number) {
            (None, _) => Origin::Clear,
            (Some(_), 0) => Origin::Row,
            (Some(exposed), number) => {
                exposed.get(&number).map_or(Origin::Clear, |(_, lineage)| Origin::Masked(lineage))
            }
        }
    }

    /// What a COPY of a table gives, column by column, with what of masked ones each shows; `None`
    /// where it is not known which table is meant. Without a list of columns it gives them all.
    pub(super) fn copied<'s>(
        &'s self,
        table: &Object,
        listed: Option<&[&str]>,
        views_hold: bool,
    ) -> Option<Vec<(&'s Copied, Option<&'s Lineage>)>> {
        let mut could_be = self.could_be(table);
        let (oid, None) = (could_be.next()?, could_be.next()) else { return None };
        if !views_hold && self.may_change(*oid) {
            return None;
        }
        let all = self.copied.get(oid)?;
        let exposed = self.exposed.get(oid)?;
        let shown =
            |column: &'s Copied| (column, exposed.get(&column.number).map(|(_, lineage)| lineage));
        let find = |name: &&str| all.iter().find(|column| *column.name == **name).map(shown);
        match listed {
            None => Some(all.iter().map(shown).collect()),
            Some(listed) => listed.iter().map(find).collect(),
        }
    }

    /// What could be meant by a column of a table as a statement names them; `*` is every column.
    /// Views may be unknown though they are there, when they do not hold.
    pub(super) fn named(&self, table: &Object, column: &str, views_hold: bool) -> Named {
        let mut named = Named { unknown: true, ..Named::default() };
        let mut changed = false;
        for oid in self.could_be(table) {
            named.unknown = false;
            changed |= !views_hold && self.may_change(*oid);
            for (name, lineage) in self.exposed.get(oid).into_iter().flat_map(BTreeMap::values) {
                if column == "*" || **name == *column {
                    named.masks.add(&lineage.masks);
                    if !lineage.masked {
                        named.values.add(&lineage.masks);
                    }
                }
            }
        }
        named.unknown |= changed;
        named
    }

    /// Whether what belongs to one of these columns belongs to one that shows nothing masked, which is
    /// known to be there.
    pub(super) fn are_clear(&self, columns: &[(Object, Box<str>)]) -> bool {
        let mut known = columns.len() == 1;
        for (table, column) in columns {
            let mut could_be = self.could_be(table).peekable();
            if could_be.peek().is_none() {
                return false;
            }
            for oid in could_be {
                let Some(exposed) = self.exposed.get(oid) else { continue };
                let named = |copied: &Copied| copied.name == *column;
                let there = self.copied.get(oid).is_some_and(|copied| copied.iter().any(named));
                if exposed.values().any(|(name, _)| name == column)
                    || (columns.len() == 1 && !there)
                {
                    return false;
                }
                known |= there;
            }
        }
        known || columns.is_empty()
    }

    /// A view that is not the system's own.
    pub(super) fn may_change(&self, oid: u32) -> bool {
        oid >= FIRST_NORMAL && self.relations.get(&oid).is_some_and(|relation| relation.view)
    }

    /// The relations that a name could mean.
    pub(super) fn could_be<'s>(&'s self, table: &Object) -> impl Iterator<Item = &'s u32> {
        let mut parts = table.parts();
        let (schema, name) = (parts.next().flatten(), parts.next().flatten());
        let schema = schema.map(str::to_owned);
        let oids = name.and_then(|name| self.by_name.get(name)).map(Vec::as_slice);
        oids.unwrap_or_default().iter().filter(move |oid| {
            let found = self.relations.get(oid);
            schema.as_ref().is_none_or(|schema| found.is_some_and(|r| *r.schema == **schema))
        })
    }

    /// The relations that a name could mean, each with its schema. Temporary ones count where no
    /// schema is given only if the session may have some.
    pub(super) fn candidates(
        &self,
        schema: Option<&str>,
        name: &str,
        temporary: bool,
    ) -> Vec<Candidate<'_>> {
        let oids = self.by_name.get(name).map(Vec::as_slice).unwrap_or_default();
        let found = oids.iter().filter_map(|oid| {
            let relation = self.relations.get(oid)?;
            let is_temporary = relation.schema.starts_with("pg_temp_");
            let means = match schema {
                Some("pg_temp") => is_temporary,
                Some(schema) => *relation.schema == *schema,
                None => temporary || !is_temporary,
            };
            means.then(|| Candidate {
                oid: *oid,
                schema: &relation.schema,
                name: &relation.name,
                view: relation.view,
                columns: self.columns.get(oid).map(Vec::as_slice).unwrap_or_default(),
                exposed: self.exposed.get(oid),
                filtered: self.filtered.get(oid),
            })
        });
        found.collect()
    }

    /// Whether a session that was opened with this search path finds relations by [`Self::path`].
    /// The path of new sessions may have been changed since the catalog's connection was opened.
    pub(super) fn finds_by(&self, search_path: Option<&str>) -> bool {
        search_path.is_some() && self.path_setting.as_deref() == search_path
    }

    /// The `search_path` of a new session, as it was when the catalog was read.
    pub(super) fn path_setting(&self) -> Option<&str> {
        self.path_setting.as_deref()
    }

    /// Whether the gateway's role may read a column whose values this mask is still for; `None` where
    /// it names no column.
    pub(super) fn readable_by_role(&self, mask: u16) -> Option<bool> {
        let mut of = MaskSet::default();
        of.insert(mask);
        let of_mask = self.exposed.iter().flat_map(|(table, columns)| {
            let own = |l: &Lineage| l.itself && !l.masked && l.masks.meets(&of);
            let masked = columns.iter().filter(move |(_, (_, lineage))| own(lineage));
            masked.map(|(number, _)| (*table, *number))
        });
        let readable =
            of_mask.filter(|(table, _)| *table >= FIRST_NORMAL).map(|(table, number)| {
                let columns = self.columns.get(&table).map(Vec::as_slice).unwrap_or_default();
                columns.iter().any(|column| column.number == number && column.readable)
            });
        readable.reduce(|any, one| any | one)
    }

    /// All columns of a relation that shows masked ones or filtered rows, in order.
    pub(super) fn columns_of(&self, oid: u32) -> &[TableColumn] {
        self.columns.get(&oid).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether `policy harden` made a view, in a schema that the gateway's role cannot change.
    pub(super) fn is_hardened(&self, oid: u32) -> bool {
        self.walled.keys().any(|(view, _)| *view == oid)
    }

    /// The schemas that a session finds relations in, in order.
    pub(super) fn path(&self) -> &[String] {
        &self.path
    }

    /// The masks that a column has whichever table is meant.
    pub(super) fn certainly(&self, table: &Object, column: &str) -> MaskSet {
        let masks = self.could_be(table).map(|oid| {
            let exposed = self.exposed.get(oid).into_iter().flat_map(BTreeMap::values);
            let of = exposed.filter(|(name, _)| **name == *column);
            of.map(|(_, lineage)| lineage.masks.clone()).next().unwrap_or_default()
        });
        masks.reduce(|all, one| all.common(&one)).unwrap_or_default()
    }

    /// Whether a function was there.
    pub(super) fn has_function(&self, function: &Object) -> bool {
        function.name().is_some_and(|name| self.functions.contains_key(name))
    }

    /// Whether a function may make or drop prepared statements and cursors out of sight.
    pub(super) fn makes_names(&self, function: &Object) -> bool {
        let mut parts = function.parts();
        let (schema, name) = (parts.next().flatten(), parts.next().flatten());
        let may = |name: &str| self.naming.contains(name) || !self.functions.contains_key(name);
        schema != Some("pg_catalog") && name.is_none_or(may)
    }

    /// Whether a function may take rows from a cursor that somebody else opened.
    pub(super) fn fetches(&self, function: &Object) -> bool {
        function.name().is_some_and(|name| self.fetching.contains(name))
    }

    /// Whether nobody knows what a function does: one of the database's own.
    pub(super) fn is_opaque(&self, function: &Object) -> bool {
        let mut parts = function.parts();
        let (schema, name) = (parts.next().flatten(), parts.next().flatten());
        if schema == Some("pg_catalog") {
            return false;
        }
        name.and_then(|name| self.functions.get(name)).copied().unwrap_or(true)
    }

    // How they are found.

    fn expose(&mut self, table: u32, number: i16, name: &str, found: &Lineage) -> bool {
        if found.masks.is_empty() {
            return false;
        }
        let columns = self.exposed.entry(table).or_default();
        let before = columns.get(&number).map(|(_, lineage)| lineage.clone());
        let mut now = found.clone();
        if let Some(before) = &before {
            now.masks.add(&before.masks);
            now.itself &= before.itself;
            now.masked &= before.masked;
        }
        // Whatever it is made from, and whoever names it.
        if let Some(left) = self.walled.get(&(table, number)) {
            now.masked = self.of.strictest(&now.masks) <= *left;
        }
        let changed = before.as_ref() != Some(&now);
        columns.insert(number, (name.into(), now));
        changed
    }

    /// Keeps what COPY gives of relations that show masked columns.
    fn keep_copied(&mut self, mut columns: Vec<TableColumn>) {
        columns.sort_by_key(|column| (column.table, column.number));
        for column in columns {
            let table = column.table;
            if !self.exposed.contains_key(&table) && !self.filtered.contains_key(&table) {
                continue;
            }
            if !column.generated {
                let (number, type_oid) = (column.number, column.type_oid);
                let copied = Copied { number, name: column.name.as_str().into(), type_oid };
                self.copied.entry(table).or_default().push(copied);
            }
            self.columns.entry(table).or_default().push(column);
        }
    }

    /// Columns that masks name, and the system's own that show them.
    fn expose_named(&mut self, columns: &HashMap<u32, BTreeMap<i16, Box<str>>>) {
        for (table, columns) in columns {
            let Some(Relation { schema, name, .. }) = self.relations.get(table) else { continue };
            let (schema, table_name) = (schema.clone(), name.clone());
            let shown = shown_by(&table_name);
            for (number, column) in columns {
                let masks = self.of.naming(&schema, &table_name, column);
                self.expose(
                    *table,
                    *number,
                    column,
                    &Lineage { masks, itself: true, masked: false },
                );
                if shown.is_some_and(|shown| shown.contains(&&**column)) {
                    let masks = self.of.all();
                    self.expose(
                        *table,
                        *number,
                        column,
                        &Lineage { masks, itself: false, masked: false },
                    );
                }
            }
        }
    }

    /// Columns that are computed from others of their row.
    fn expose_generated(
        &mut self,
        columns: &HashMap<u32, BTreeMap<i16, Box<str>>>,
        generated: &[(u32, i16, i16)],
    ) {
        for (table, number, from) in generated {
            let found = self.exposed.get(table).and_then(|columns| columns.get(from));
            let Some(masks) = found.map(|(_, lineage)| lineage.masks.clone()) else { continue };
            let name = columns.get(table).and_then(|columns| columns.get(number));
            let name = name.cloned().unwrap_or_default();
            self.expose(*table, *number, &name, &Lineage { masks, itself: false, masked: false });
        }
    }

    /// Partitions, children and parents: rows of the one are shown by the other.
    fn expose_relatives(
        &mut self,
        columns: &HashMap<u32, BTreeMap<i16, Box<str>>>,
        inherits: &[(u32, u32)],
    ) {
        let mut changed = true;
        while std::mem::take(&mut changed) {
            let both =
                inherits.iter().flat_map(|(child, parent)| [(child, parent), (parent, child)]);
            for (from, to) in both {
                let found: Vec<_> = self.exposed.get(from).into_iter().flatten().collect();
                let found: Vec<(Box<str>, Lineage)> =
                    found.into_iter().map(|(_, found)| found.clone()).collect();
                for (name, lineage) in found {
                    let same = columns.get(to).into_iter().flatten().find(|(_, n)| **n == name);
                    if let Some((number, _)) = same {
                        changed |= self.expose(*to, *number, &name, &lineage);
                    }
                }
            }
        }
    }

    /// Functions whose code names what shows masked columns, or such a function, are not known any
    /// more. Says whether there were any.
    fn close_functions(&mut self, bodies: &mut Vec<(Box<str>, Body)>) -> bool {
        let of_tables = self.exposed.keys().chain(self.filtered.keys());
        let of_tables = of_tables.filter_map(|oid| self.relations.get(oid));
        let mut names: HashSet<String> = of_tables.map(|r| r.name.to_lowercase()).collect();
        let opaque = self.functions.iter().filter(|(_, opaque)| **opaque);
        names.extend(opaque.map(|(name, _)| name.to_lowercase()));
        let mut found = false;
        bodies.retain(|(function, body)| {
            let reads = names.iter().any(|name| body.names(name));
            if reads {
                self.functions.insert(function.clone(), true);
            }
            found |= reads;
            !reads
        });
        found
    }

    /// Views, whatever they are made from. Says whether one shows more than was known.
    fn expose_views(
        &mut self,
        columns: &HashMap<u32, BTreeMap<i16, Box<str>>>,
        views: &[AnalysedView<'_>],
    ) -> bool {
        let mut changed = false;
        for analysed @ AnalysedView { view, described, .. } in views {
            let read = match analysed.statement() {
                Some(statement) => Judged::of(statement, self, true, |_| false),
                None => Judged::unknown(self.of.all()),
            };
            for (number, name) in columns.get(view).into_iter().flatten() {
                let mut found = self.of_view(*described, *number, &read);
                found.itself |= self.walled.contains_key(&(*view, *number));
                changed |= self.expose(*view, *number, name, &found);
            }
        }
        changed
    }

    /// What a view's column shows, for one that reads these columns.
    fn of_view(&self, described: Option<&[Column]>, number: i16, read: &Judged) -> Lineage {
        let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        let column = described.zip(at).and_then(|(columns, at)| columns.get(at));
        match column.map(|column| self.origin(column, true)) {
            Some(Origin::Clear) => Lineage::default(),
            Some(Origin::Masked(lineage)) => lineage.clone(),
            Some(Origin::Row | Origin::Unknown) | None => {
                let masks = match (described, at) {
                    (Some(columns), Some(at)) => read.output(at, columns.len()),
                    _ => &read.value,
                };
                Lineage { masks: masks.clone(), itself: false, masked: false }
            }
        }
    }
}
