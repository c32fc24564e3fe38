//! What a role gets of each relation: what rules leave to somebody and masks to everybody.

use std::collections::{HashMap, HashSet};

use crate::mask::Action;
use crate::policy::{Effect, Object, Policy, TargetFacts};

use super::catalog::{Catalog, Column, Kind, Relation, Rule};

/// A role's rights, relation by relation.
#[derive(Debug, Default)]
pub(super) struct Rights<'c> {
    pub(super) granted: Vec<Granted<'c>>,
    /// Relations of which it gets nothing, and why.
    pub(super) refused: Vec<(&'c Relation, Because<'c>)>,
}

/// Why a relation is not for the role.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Because<'c> {
    /// Rules leave it to nobody.
    Rules,
    /// It shows rows of one that rules leave to nobody.
    Shows(&'c Relation),
    /// Its rows are another server's, and nothing tells whether they are masked ones.
    Foreign(&'c str),
}

/// The rights on one relation.
#[derive(Debug)]
pub(super) struct Granted<'c> {
    pub(super) relation: &'c Relation,
    pub(super) select: Columns<'c>,
    pub(super) insert: Columns<'c>,
    pub(super) update: Columns<'c>,
    pub(super) delete: bool,
    pub(super) truncate: bool,
    /// Of a sequence: that it may be moved on.
    pub(super) usage: bool,
    /// The view that stands before it on the search path.
    pub(super) view: Option<Vec<Output<'c>>>,
    /// Why there is no view though columns are masked.
    pub(super) no_view: Option<&'static str>,
    /// Rules of the relation (`CREATE RULE`) because of which a right to write is left out.
    pub(super) ruled: Vec<&'c Rule>,
    /// Triggers on it that run with other rights than the role's.
    pub(super) triggers: Vec<(&'c str, &'c str)>,
}

/// Columns of one relation that a right is for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Columns<'c> {
    None,
    Some(Vec<&'c Column>),
    /// Those to come, too.
    All,
}

/// A column of a view.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Output<'c> {
    pub(super) column: &'c Column,
    /// What stands in the place of its values; `None` where they are seen.
    pub(super) masked: Option<Action>,
}

impl<'c> Rights<'c> {
    /// Weighs every relation. `masked` says what masks do with a column, by OID and number.
    pub(super) fn new(
        catalog: &'c Catalog,
        target: &TargetFacts,
        policy: &Policy,
        masked: impl Fn(u32, i16) -> Option<Action>,
    ) -> Self {
        let weighing = Weighing { catalog, target, policy, masked };
        let closed = weighing.closed();
        // Whether anything is kept from the role that a foreign table could show after all.
        let hides = !closed.is_empty()
            || catalog.relations.iter().any(|relation| weighing.is_masked(relation));
        let mut rights = Self::default();
        for relation in &catalog.relations {
            if let Some(because) = closed.get(&relation.oid) {
                rights.refused.push((relation, *because));
                continue;
            }
            let elsewhere = catalog.foreign.iter().find(|(oid, _)| *oid == relation.oid);
            if let Some((_, server)) = elsewhere.filter(|_| hides) {
                rights.refused.push((relation, Because::Foreign(server)));
                continue;
            }
            let granted = weighing.weigh(relation);
            match granted.is_nothing() {
                true => rights.refused.push((relation, Because::Rules)),
                false => rights.granted.push(granted),
            }
        }
        rights
    }
}

impl Granted<'_> {
    fn is_nothing(&self) -> bool {
        let none = |columns: &Columns<'_>| *columns == Columns::None;
        none(&self.select)
            && none(&self.insert)
            && none(&self.update)
            && !(self.delete || self.truncate || self.usage)
    }
}

struct Weighing<'c, 'p, M> {
    catalog: &'c Catalog,
    target: &'p TargetFacts,
    policy: &'p Policy,
    masked: M,
}

impl<'c, M: Fn(u32, i16) -> Option<Action>> Weighing<'c, '_, M> {
    /// Relations that nobody may read, and those that show their rows.
    fn closed(&self) -> HashMap<u32, Because<'c>> {
        let by_oid: HashMap<u32, &Relation> =
            self.catalog.relations.iter().map(|relation| (relation.oid, relation)).collect();
        let mut closed: HashMap<u32, Because<'c>> = HashMap::new();
        for relation in &self.catalog.relations {
            let any = |column: &Column| self.could("sql.select", relation, Some(column));
            let read = match relation.columns.is_empty() {
                true => self.could("sql.select", relation, None),
                false => relation.columns.iter().any(any),
            };
            if !read && relation.kind != Kind::Sequence {
                closed.insert(relation.oid, Because::Rules);
            }
        }
        let mut looked: HashSet<u32> = HashSet::new();
        let mut next: Vec<u32> = closed.keys().copied().collect();
        while let Some(oid) = next.pop() {
            if !looked.insert(oid) {
                continue;
            }
            let Some(shown) = by_oid.get(&oid) else { continue };
            for (_, by) in self.catalog.shown_by.iter().filter(|(from, _)| *from == oid) {
                closed.entry(*by).or_insert(Because::Shows(shown));
                next.push(*by);
            }
        }
        closed
    }

    fn weigh(&self, relation: &'c Relation) -> Granted<'c> {
        let could = |action| self.could(action, relation, None);
        let table = matches!(relation.kind, Kind::Table | Kind::Foreign);
        let sequence = relation.kind == Kind::Sequence;
        let select = match sequence {
            true if could("sql.select") => Columns::All,
            true => Columns::None,
            false => self.columns(relation, |column| {
                (self.masked)(relation.oid, column.number).is_none()
                    && self.could("sql.select", relation, Some(column))
            }),
        };
        let ruled: Vec<&Rule> =
            self.catalog.rules.iter().filter(|rule| rule.relation == relation.oid).collect();
        // What the rule's action gives is read with the rights of the relation's owner.
        let free = |action: &str| ruled.iter().all(|rule| rule.at != action);
        let write = |action: &'static str| match table && free(action) {
            true => self.columns(relation, |column| self.could(action, relation, Some(column))),
            false => Columns::None,
        };
        let triggers = self.catalog.triggers.iter().filter(|(oid, ..)| *oid == relation.oid);
        let triggers = triggers.map(|(_, name, function)| (&**name, &**function)).collect();
        let (insert, update) = (write("sql.insert"), write("sql.update"));
        let (view, no_view) = match self.view(relation, &select) {
            Ok(view) => (view, None),
            Err(why) => (None, Some(why)),
        };
        Granted {
            relation,
            select,
            insert,
            update,
            delete: table && free("sql.delete") && could("sql.delete"),
            truncate: table && could("sql.truncate"),
            usage: sequence && could("sql.sequence"),
            view,
            no_view,
            ruled,
            triggers,
        }
    }

    fn is_masked(&self, relation: &Relation) -> bool {
        relation.columns.iter().any(|column| (self.masked)(relation.oid, column.number).is_some())
    }

    /// The view of a relation with masked columns, where names without a schema mean the relation.
    fn view(
        &self,
        relation: &'c Relation,
        select: &Columns<'c>,
    ) -> Result<Option<Vec<Output<'c>>>, &'static str> {
        let masked = |column: &Column| (self.masked)(relation.oid, column.number);
        if !self.is_masked(relation) {
            return Ok(None);
        }
        if *select == Columns::None {
            return Err("it has no other columns");
        }
        if !self.is_found_by_name(relation) {
            return Err("its name alone does not mean it");
        }
        if relation.row_security && !self.catalog.invoker_views {
            return Err("a view would pass by its row security before PostgreSQL 15");
        }
        let outputs = relation.columns.iter().filter_map(|column| {
            let could = self.could("sql.select", relation, Some(column));
            let masked = masked(column);
            (could || masked.is_some()).then_some(Output { column, masked })
        });
        Ok(Some(outputs.collect()))
    }

    fn is_found_by_name(&self, relation: &Relation) -> bool {
        let is_in = |schema: &&String| {
            let named = |other: &Relation| other.schema == **schema && other.name == relation.name;
            self.catalog.relations.iter().any(named)
        };
        self.catalog.path.iter().find(is_in).is_some_and(|schema| *schema == relation.schema)
    }

    fn columns(&self, relation: &'c Relation, good: impl Fn(&Column) -> bool) -> Columns<'c> {
        let columns: Vec<&Column> = relation.columns.iter().filter(|column| good(column)).collect();
        match columns.len() {
            0 => Columns::None,
            all if all == relation.columns.len() => Columns::All,
            _ => Columns::Some(columns),
        }
    }

    fn could(&self, action: &'static str, relation: &Relation, column: Option<&Column>) -> bool {
        let parts = [Some(relation.schema.clone()), Some(relation.name.clone())];
        let mut effect = Effect::on(action, Object::new("table", parts));
        effect.columns.extend(column.map(|column| column.name.clone()));
        self.policy.could_pass(self.target, &effect)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::names::Protocol;
    use crate::policy::{PolicySettings, Rule, Verdict};

    fn catalog() -> Catalog {
        let columns = |names: &[&str]| {
            let numbered = (1..).zip(names);
            let made = numbered.map(|(number, name)| Column {
                number,
                name: (*name).to_owned(),
                type_name: "text".to_owned(),
                type_oid: 25,
                text: true,
            });
            made.collect::<Vec<_>>()
        };
        let relation = |oid, name: &str, kind, names: &[&str]| Relation {
            oid,
            schema: "public".to_owned(),
            name: name.to_owned(),
            kind,
            columns: columns(names),
            ..Relation::default()
        };
        Catalog {
            invoker_views: true,
            path: vec!["public".to_owned()],
            relations: vec![
                relation(1, "customers", Kind::Table, &["id", "email"]),
                relation(2, "secrets", Kind::Table, &["value"]),
                relation(3, "v_secrets", Kind::View, &["value"]),
                relation(4, "seq", Kind::Sequence, &[]),
            ],
            shown_by: vec![(2, 3)],
            ..Catalog::default()
        }
    }

    fn policy(rules: &[Rule]) -> Policy {
        Policy::compile(String::new(), PolicySettings::default(), rules).unwrap()
    }

    fn target() -> TargetFacts {
        let (name, protocol) = ("orders".parse().unwrap(), Protocol::Postgres);
        TargetFacts { name, protocol, labels: BTreeMap::new(), default: Verdict::Allow }
    }

    fn block(actions: &[&str], objects: &[&str]) -> Rule {
        let list = |texts: &[&str]| {
            (!texts.is_empty()).then(|| texts.iter().map(|text| (*text).to_owned()).collect())
        };
        let mut rule = Rule::new("block", Verdict::Block);
        (rule.actions, rule.objects) = (list(actions), list(objects));
        rule
    }

    fn email_is_masked(table: u32, number: i16) -> Option<Action> {
        (table == 1 && number == 2).then_some(Action::Redact)
    }

    #[test]
    fn masked_columns_are_not_read_and_a_view_stands_before_them() {
        let catalog = catalog();
        let rights = Rights::new(&catalog, &target(), &policy(&[]), email_is_masked);
        let customers = &rights.granted[0];
        assert_eq!(customers.select, Columns::Some(vec![&catalog.relations[0].columns[0]]));
        assert_eq!((&customers.insert, customers.delete), (&Columns::All, true));
        let masked: Vec<_> = customers.view.iter().flatten().map(|output| output.masked).collect();
        assert_eq!(masked, [None, Some(Action::Redact)]);
        assert_eq!(rights.granted[1].view, None);
    }

    #[test]
    fn a_name_that_means_another_table_gets_no_view() {
        let mut catalog = catalog();
        let mut other = catalog.relations[0].clone();
        (other.oid, other.schema) = (9, "first".to_owned());
        catalog.relations.push(other);
        catalog.path.insert(0, "first".to_owned());
        let rights = Rights::new(&catalog, &target(), &policy(&[]), email_is_masked);
        assert_eq!((&rights.granted[0].view, rights.granted[0].no_view.is_some()), (&None, true));
    }

    #[test]
    fn row_security_is_not_passed_by() {
        let mut catalog = catalog();
        (catalog.invoker_views, catalog.relations[0].row_security) = (false, true);
        let rights = Rights::new(&catalog, &target(), &policy(&[]), email_is_masked);
        assert!(rights.granted[0].view.is_none() && rights.granted[0].no_view.is_some());
    }

    #[test]
    fn what_rules_leave_to_nobody_is_refused_with_what_shows_it() {
        let catalog = catalog();
        let rules = [block(&[], &["table:public.secrets"])];
        let rights = Rights::new(&catalog, &target(), &policy(&rules), |_, _| None);
        let refused: Vec<_> =
            rights.refused.iter().map(|(relation, because)| (&*relation.name, *because)).collect();
        let shows = Because::Shows(&catalog.relations[1]);
        assert_eq!(refused, [("secrets", Because::Rules), ("v_secrets", shows)]);
    }

    #[test]
    fn actions_are_weighed_apart() {
        let catalog = catalog();
        let rules = [block(&["sql.delete", "sql.truncate", "sql.sequence"], &[])];
        let rights = Rights::new(&catalog, &target(), &policy(&rules), |_, _| None);
        let customers = &rights.granted[0];
        assert_eq!((customers.delete, customers.truncate), (false, false));
        assert_eq!((&customers.select, &customers.update), (&Columns::All, &Columns::All));
        let sequence = rights.granted.last().unwrap();
        assert_eq!((sequence.usage, &sequence.select), (false, &Columns::All));
    }
}
