//! What a walk over one statement gathers: its effects, and which names mean what where.
//!
//! Whether a name is a table, and whose column a name is, follows PostgreSQL's scoping as far as
//! the text alone tells. Where it does not tell, everything that could be meant counts: a name
//! that no common table expression in scope carries is a table, and a column without a qualifier
//! is one of every table in scope, outer queries included, unless a subquery in FROM gives a column
//! of that name.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use pg_query::NodeEnum;
use pg_query::protobuf as pg;
use serde_json::Value;

use super::Unparsed;
use super::actions::{self, Action};
use super::functions;
use super::uses::{How, Use, Uses};
use crate::policy::{Attributes, Effect, Object};

/// Steps spent where a hostile statement could ask for the square of its length: a column may be
/// one of any relation in scope, a GRANT names every grantee for every object.
const MOST_STEPS: usize = 2_000_000;

/// A table under one of its names in a query.
#[derive(Debug)]
struct Table {
    object: Object,
    /// The place of the effect of reading it; a table that is only written has none yet.
    read: Option<usize>,
}

/// A name in FROM, or of what a statement writes.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) alias: String,
    pub(super) schema: Option<String>,
    /// The tables whose columns it shows: none for a subquery or a function, several for a join.
    pub(super) tables: Vec<TableId>,
    /// Whether its columns go by other names than those of its tables.
    pub(super) renamed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TableId(usize);

/// What a query's own FROM names.
#[derive(Debug, Default)]
struct Scope {
    relations: Vec<Relation>,
    /// Names that are columns here whatever the tables have, so that they mean nothing of the
    /// queries around this one.
    columns: HashSet<String>,
}

/// Looks whether a condition names a column of the table that a statement writes.
#[derive(Debug)]
struct Probe {
    depth: usize,
    table: TableId,
    hit: bool,
}

/// What a walk over one statement gathered.
#[derive(Debug)]
pub(super) struct Walked {
    pub(super) effects: Vec<Effect>,
    pub(super) uses: Vec<Use>,
    pub(super) outputs: Option<Vec<Vec<Use>>>,
    pub(super) marks: Marks,
}

/// What a statement is, as a whole.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Marks {
    /// A literal of it is always secret: a password, a connection string.
    pub(super) secret: bool,
    /// It sets `client_encoding` to something else than UTF-8.
    pub(super) leaves_utf8: bool,
    /// Its rows may hold a setting of an application's own.
    pub(super) reveals: bool,
    /// What was found depends on the value of a string constant.
    pub(super) looks_at_texts: bool,
}

/// The state of a walk over one statement.
#[derive(Debug)]
pub(super) struct Walker {
    effects: Vec<Effect>,
    uses: Uses,
    /// What becomes of the values of columns that are named here.
    how: How,
    /// What each column of the outermost query reads.
    outputs: Option<Vec<Uses>>,
    /// It was looked whether that can be told.
    looked_at_outputs: bool,
    places: HashMap<(Action, Option<Object>), Vec<usize>>,
    tables: Vec<Table>,
    scopes: Vec<Scope>,
    common_tables: Vec<String>,
    /// How often each name stands among them.
    common_table_names: HashMap<String, usize>,
    probe: Option<Probe>,
    /// Inside an EXPLAIN that does not execute.
    explained: bool,
    pub(super) marks: Marks,
    /// Settings that `name` means in the select list that is walked over.
    settings: Option<Vec<String>>,
    spent: usize,
    refused: Option<Unparsed>,
}

impl Default for Walker {
    fn default() -> Self {
        Self {
            effects: Vec::new(),
            uses: Uses::default(),
            how: How::OUTPUT,
            outputs: None,
            looked_at_outputs: false,
            places: HashMap::new(),
            tables: Vec::new(),
            scopes: Vec::new(),
            common_tables: Vec::new(),
            common_table_names: HashMap::new(),
            probe: None,
            explained: false,
            marks: Marks::default(),
            settings: None,
            spent: 0,
            refused: None,
        }
    }
}

impl Walker {
    /// What was gathered.
    pub(super) fn finish(self) -> Result<Walked, Unparsed> {
        if let Some(reason) = self.refused {
            return Err(reason);
        }
        let writes = self
            .effects
            .iter()
            .any(|effect| [actions::INSERT, actions::UPDATE].contains(&&*effect.action));
        let effects = &self.effects;
        let table = |place: usize| effects.get(place).and_then(|effect| effect.object.clone());
        let uses = self.uses.finish(writes, table);
        let outputs = self
            .outputs
            .map(|outputs| outputs.into_iter().map(|output| output.finish(false, table)).collect());
        Ok(Walked { effects: self.effects, uses, outputs, marks: self.marks })
    }

    /// The value of a string constant. What is found depends on it from now on.
    pub(super) fn constant<'n>(&mut self, node: Option<&'n pg::Node>) -> Option<&'n str> {
        match node?.node.as_ref()? {
            NodeEnum::AConst(constant) => match constant.val.as_ref()? {
                pg::a_const::Val::Sval(text) => {
                    self.marks.looks_at_texts = true;
                    Some(&text.sval)
                }
                _ => None,
            },
            NodeEnum::String(text) => Some(&text.sval),
            NodeEnum::TypeCast(cast) => self.constant(cast.arg.as_deref()),
            _ => None,
        }
    }

    /// Whether this query is the outermost one, whose columns are the statement's. Asked once.
    pub(super) fn gives_outputs(&mut self) -> bool {
        let outermost = !self.looked_at_outputs && self.how == How::OUTPUT;
        self.looked_at_outputs |= self.how.has(How::OUTPUT);
        outermost && self.scopes.is_empty()
    }

    /// Walks over the columns of the outermost query, each by itself.
    pub(super) fn outputs<'a>(
        &mut self,
        targets: impl IntoIterator<Item = &'a pg::Node>,
        mut walk: impl FnMut(&'a pg::Node, &mut Self),
    ) {
        let mut outputs = Vec::new();
        let mut whole = std::mem::take(&mut self.uses);
        for target in targets {
            walk(target, self);
            let output = std::mem::take(&mut self.uses);
            whole.add(&output);
            outputs.push(output);
        }
        self.uses = whole;
        self.outputs = Some(outputs);
    }

    /// The columns of a table that a COPY lists, each by itself.
    pub(super) fn lists_outputs(&mut self, place: usize, columns: &[&str]) {
        let output = |column: &&str| {
            let mut uses = Uses::default();
            uses.note(place, column, How::OUTPUT);
            uses
        };
        self.outputs = Some(columns.iter().map(output).collect());
    }

    // What becomes of the values of columns.

    /// A part that only picks or orders rows.
    pub(super) fn filtering<T>(&mut self, part: impl FnOnce(&mut Self) -> T) -> T {
        self.using(How::FILTER, part)
    }

    /// A part whose values are written somewhere.
    pub(super) fn writing<T>(&mut self, part: impl FnOnce(&mut Self) -> T) -> T {
        self.using(How::WRITTEN | How::OUTPUT | How::COMPUTED, part)
    }

    /// A part whose values go into what is computed from them.
    pub(super) fn computing<T>(&mut self, part: impl FnOnce(&mut Self) -> T) -> T {
        let how = if self.how.has(How::OUTPUT) { self.how | How::COMPUTED } else { self.how };
        self.using(how, part)
    }

    /// A part whose rows come out, and go where those of the whole statement go.
    pub(super) fn returning<T>(&mut self, part: impl FnOnce(&mut Self) -> T) -> T {
        self.using(self.how | How::OUTPUT, part)
    }

    /// A common table expression.
    pub(super) fn in_common<T>(&mut self, part: impl FnOnce(&mut Self) -> T) -> T {
        self.using(self.how | How::COMMON, part)
    }

    fn using<T>(&mut self, how: How, part: impl FnOnce(&mut Self) -> T) -> T {
        // What is only explained gives and writes nothing.
        let how = if self.explained { How::FILTER } else { how };
        let outer = std::mem::replace(&mut self.how, how);
        let done = part(self);
        self.how = outer;
        done
    }

    /// The tree holds what no parse gives.
    pub(super) fn does_not_understand(&mut self) {
        self.refused = Some(Unparsed::Unknown);
    }

    /// A literal of the statement is always secret: a password, a connection string.
    pub(super) fn holds_secret(&mut self) {
        self.marks.secret = true;
    }

    /// Notes an effect; one that is there already is not noted again.
    pub(super) fn effect(&mut self, action: Action, object: Option<Object>) -> usize {
        self.effect_with(action, object, [])
    }

    /// Notes an effect with attributes.
    pub(super) fn effect_with<const N: usize>(
        &mut self,
        mut action: Action,
        object: Option<Object>,
        attributes: [(&'static str, Value); N],
    ) -> usize {
        let mut attributes: Attributes =
            attributes.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect();
        if self.explained && actions::only_when_executed(action) {
            action = actions::EXPLAIN;
            attributes.clear();
        }
        let places = self.places.entry((action, object.clone())).or_default();
        let same = |place: &&usize| {
            self.effects.get(**place).is_some_and(|effect| effect.attributes == attributes)
        };
        if let Some(place) = places.iter().find(same) {
            return *place;
        }
        places.push(self.effects.len());
        let mut effect = Effect::of(action);
        effect.object = object;
        actions::mark_opaque(&mut effect);
        effect.attributes = attributes;
        self.effects.push(effect);
        self.effects.len() - 1
    }

    /// An effect leads to what the statement does not show, though its action and the kind of its
    /// object do not say so.
    pub(super) fn is_opaque(&mut self, place: usize) {
        if let Some(effect) = self.effects.get_mut(place) {
            effect.mark_opaque_by_object();
        }
    }

    /// Adds columns to an effect.
    pub(super) fn columns<'a>(&mut self, place: usize, columns: impl IntoIterator<Item = &'a str>) {
        let Some(effect) = self.effects.get_mut(place) else { return };
        for column in columns {
            if !effect.columns.contains(column) {
                effect.columns.insert(column.to_owned());
            }
        }
    }

    /// Runs a part of the walk inside an EXPLAIN that does not execute.
    pub(super) fn explained(&mut self, part: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.explained, true);
        self.filtering(part);
        self.explained = outer;
    }

    /// Runs a part of the walk in which the column `name` means one of these settings.
    pub(super) fn with_settings(
        &mut self,
        settings: Option<Vec<String>>,
        part: impl FnOnce(&mut Self),
    ) {
        let outer = std::mem::replace(&mut self.settings, settings);
        part(self);
        self.settings = outer;
    }

    /// The settings that the column `name` means here.
    pub(super) fn settings(&self) -> Option<&[String]> {
        self.settings.as_deref()
    }

    // Tables and their names.

    /// Whether a name without a schema is a common table expression here.
    pub(super) fn is_common_table(&self, relation: &pg::RangeVar) -> bool {
        relation.schemaname.is_empty()
            && self.common_table_names.get(&relation.relname).is_some_and(|count| *count > 0)
    }

    pub(super) fn add_common_table(&mut self, name: &str) {
        self.common_tables.push(name.to_owned());
        *self.common_table_names.entry(name.to_owned()).or_default() += 1;
    }

    /// Runs a part of the walk, after which the common tables that it added are gone.
    pub(super) fn with_common_tables(&mut self, part: impl FnOnce(&mut Self)) {
        let before = self.common_tables.len();
        part(self);
        for name in self.common_tables.drain(before..) {
            if let Some(count) = self.common_table_names.get_mut(&name) {
                *count -= 1;
            }
        }
    }

    /// Runs a part of the walk inside a query with names of its own.
    pub(super) fn in_scope(&mut self, relations: Vec<Relation>, part: impl FnOnce(&mut Self)) {
        self.scopes.push(Scope { relations, columns: HashSet::new() });
        part(self);
        self.scopes.pop();
    }

    /// From here on the innermost query sees one relation more.
    pub(super) fn sees(&mut self, relation: Relation) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.relations.push(relation);
        }
    }

    /// From here on the innermost query sees these columns of subqueries in its FROM.
    pub(super) fn sees_columns<'a>(&mut self, columns: impl IntoIterator<Item = &'a str>) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.columns.extend(columns.into_iter().map(str::to_owned));
        }
    }

    /// The tables that the innermost query names itself, or those of them under one name.
    pub(super) fn tables_here(&mut self, alias: Option<&str>) -> Vec<TableId> {
        if !self.may_look() {
            return Vec::new();
        }
        let here = self.scopes.last().into_iter().flat_map(|scope| &scope.relations);
        here.filter(|relation| alias.is_none_or(|alias| relation.alias == alias))
            .flat_map(|relation| relation.tables.iter().copied())
            .collect()
    }

    pub(super) fn object_of(&self, table: TableId) -> Option<Object> {
        self.tables.get(table.0).map(|table| table.object.clone())
    }

    /// A table that is read.
    pub(super) fn read(&mut self, object: Object) -> TableId {
        let read = Some(self.effect(actions::SELECT, Some(object.clone())));
        self.tables.push(Table { object, read });
        TableId(self.tables.len() - 1)
    }

    /// A table that is written, and read only if a column of it is.
    pub(super) fn written(&mut self, object: Object) -> TableId {
        self.tables.push(Table { object, read: None });
        TableId(self.tables.len() - 1)
    }

    // Columns.

    /// Runs the walk over a condition, and says whether it names a column that may be the table's.
    pub(super) fn names_column_of(
        &mut self,
        table: TableId,
        condition: impl FnOnce(&mut Self),
    ) -> bool {
        let probe = Probe { depth: self.scopes.len(), table, hit: false };
        let outer = self.probe.replace(probe);
        condition(self);
        std::mem::replace(&mut self.probe, outer).is_some_and(|probe| probe.hit)
    }

    /// The condition names one row of the table in a way of its own (WHERE CURRENT OF).
    pub(super) fn condition_names_row(&mut self) {
        if let Some(probe) = &mut self.probe {
            probe.hit = true;
        }
    }

    /// Tells a reference to a column to all tables that it may belong to.
    pub(super) fn refer(&mut self, fields: &[pg::Node]) {
        let names: Vec<&str> = fields.iter().filter_map(name_or_star).collect();
        match *names.as_slice() {
            [] => {}
            ["*"] => self.every_column_here(),
            [column] => self.unqualified(column),
            [.., schema, relation, column] => self.qualified(Some(schema), relation, column),
            [relation, column] => self.qualified(None, relation, column),
        }
    }

    /// A column of any table in scope; or, by the name of one, its whole row.
    pub(super) fn unqualified(&mut self, column: &str) {
        if !self.may_look() {
            return;
        }
        let (mut hits, mut rows) = (Vec::new(), false);
        for (depth, scope) in self.scopes.iter().enumerate().rev() {
            for relation in &scope.relations {
                let whole = relation.renamed || relation.alias == column;
                rows |= relation.alias == column;
                hits.extend(relation.tables.iter().map(|table| (*table, whole)));
                if let Some(probe) = &mut self.probe
                    && probe.depth == depth + 1
                    && relation.tables.contains(&probe.table)
                {
                    probe.hit = true;
                }
            }
            // The innermost query that has the column is meant (`colNameToVar`).
            if scope.columns.contains(column) {
                break;
            }
        }
        let tell = |walker: &mut Self| {
            for (table, whole) in hits {
                walker.tell(table, if whole { "*" } else { column });
            }
        };
        // A row is more than its columns.
        if rows { self.computing(tell) } else { tell(self) }
    }

    /// Every column of every table that the innermost query names.
    pub(super) fn every_column_here(&mut self) {
        for table in self.tables_here(None) {
            self.tell(table, "*");
        }
    }

    /// A column of the nearest relation of that name; of any table in scope when there is none.
    fn qualified(&mut self, schema: Option<&str>, name: &str, column: &str) {
        if !self.may_look() {
            return;
        }
        let mut scopes = self.scopes.iter().rev().flat_map(|scope| &scope.relations);
        let found = scopes.find(|relation| {
            relation.alias == name
                && match (schema, &relation.schema) {
                    (Some(wanted), Some(schema)) => wanted == schema,
                    _ => true,
                }
        });
        let Some(relation) = found else { return self.unqualified(column) };
        // `c.to_json` may be the function to_json over the whole row.
        let row = functions::takes_whole_row(column);
        let whole = relation.renamed || row;
        let tables = relation.tables.clone();
        let tell = |walker: &mut Self| {
            for table in tables {
                walker.tell(table, if whole { "*" } else { column });
                if let Some(probe) = &mut walker.probe
                    && probe.table == table
                {
                    probe.hit = true;
                }
            }
        };
        if row { self.computing(tell) } else { tell(self) }
    }

    fn tell(&mut self, id: TableId, column: &str) {
        let Some(table) = self.tables.get(id.0) else { return };
        let place = match table.read {
            Some(place) => place,
            None => {
                let place = self.effect(actions::SELECT, Some(table.object.clone()));
                if let Some(table) = self.tables.get_mut(id.0) {
                    table.read = Some(place);
                }
                place
            }
        };
        self.columns(place, [column]);
        self.uses.note(place, column, self.how);
    }

    /// Columns of a table that is read without a query, by COPY.
    pub(super) fn read_columns<'a>(
        &mut self,
        place: usize,
        columns: impl IntoIterator<Item = &'a str> + Clone,
    ) {
        self.columns(place, columns.clone());
        for column in columns {
            self.uses.note(place, column, self.how);
        }
    }

    /// Whether all relations in scope may be looked at once more.
    fn may_look(&mut self) -> bool {
        if self.refused.is_some() {
            return false;
        }
        let relations = self.scopes.iter().flat_map(|scope| &scope.relations);
        let looks = relations.map(|relation| 1 + relation.tables.len()).sum();
        self.may_spend(looks)
    }

    /// Whether a statement that multiplies its parts may go on.
    pub(super) fn may_spend(&mut self, steps: usize) -> bool {
        self.spent = self.spent.saturating_add(steps);
        if self.spent > MOST_STEPS {
            self.refused = Some(Unparsed::TooComplex);
        }
        self.refused.is_none()
    }
}

/// The text of a node that is a name.
pub(super) fn name(node: &pg::Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::String(name)) => Some(&name.sval),
        _ => None,
    }
}

fn name_or_star(node: &pg::Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::AStar(_)) => Some("*"),
        _ => name(node),
    }
}

/// The names in a list of nodes.
pub(super) fn names(nodes: &[pg::Node]) -> Vec<&str> {
    nodes.iter().filter_map(name).collect()
}
