//! Statements that write: their own table stays, so what they may do with its masked columns is
//! little.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf as pg;

use super::super::tree::{Edit, Editor};
use super::relation::{MaskedRelation, quoted};
use super::walk::{Rewriter, named_as, qualified};
use super::{Refusal, Resolved, string};

const PICKS: Refusal = Refusal::of(
    "masked columns of the table that is written may not pick rows or be computed with",
);
const RETURNED: Refusal = Refusal::of("masked columns may be returned as they are, and no more");

/// The table that a statement writes.
pub(super) struct Written {
    pub(super) relation: Arc<MaskedRelation>,
    pub(super) alias: String,
    /// Its own name, where it has no alias.
    name: Option<String>,
}

impl Rewriter<'_, '_> {
    /// A statement that writes; `shown` says that what it returns goes to the client as it is.
    pub(super) fn write(&mut self, node: &mut pg::Node, shown: bool) {
        let scope = self.scope();
        let outside = std::mem::take(&mut self.conjuncts);
        match &mut node.node {
            Some(NodeEnum::InsertStmt(insert)) => self.insert(insert, shown),
            Some(NodeEnum::UpdateStmt(update)) => self.update(update, shown),
            Some(NodeEnum::DeleteStmt(delete)) => self.delete(delete, shown),
            Some(NodeEnum::MergeStmt(merge)) => self.merge(merge, shown),
            _ => {}
        }
        self.conjuncts = outside;
        self.leave(scope);
    }

    fn insert(&mut self, insert: &mut pg::InsertStmt, shown: bool) {
        let written = self.written(insert.relation.as_ref());
        self.with(&mut insert.with_clause);
        if let Some(written) = &written {
            if let Some(conflict) = &mut insert.on_conflict_clause {
                self.picks(written, &mut conflict.infer);
                self.picks(written, &mut conflict.target_list);
                self.picks(written, &mut conflict.where_clause);
            }
            self.returning(written, &mut insert.returning_clause, shown, true);
            self.confine_rows(written, insert);
        }
        insert.cols.edit("", self);
        insert.select_stmt.edit("", self);
        insert.on_conflict_clause.edit("", self);
        insert.returning_clause.edit("", self);
        self.qualify(insert.relation.as_mut());
    }

    fn update(&mut self, update: &mut pg::UpdateStmt, shown: bool) {
        let written = self.written(update.relation.as_ref());
        self.with(&mut update.with_clause);
        if let Some(written) = &written {
            self.picks(written, &mut update.target_list);
            self.picks(written, &mut update.where_clause);
            let alone = update.from_clause.is_empty();
            self.returning(written, &mut update.returning_clause, shown, alone);
            self.confine_values(written, &mut update.target_list);
            self.confine(written, update.relation.as_ref(), &mut update.where_clause, alone);
        }
        self.none_at_output(&update.from_clause);
        update.from_clause.iter_mut().for_each(|item| self.source_item(item));
        update.target_list.edit("", self);
        update.where_clause.edit("", self);
        update.returning_clause.edit("", self);
        self.qualify(update.relation.as_mut());
    }

    fn delete(&mut self, delete: &mut pg::DeleteStmt, shown: bool) {
        let written = self.written(delete.relation.as_ref());
        self.with(&mut delete.with_clause);
        if let Some(written) = &written {
            self.picks(written, &mut delete.where_clause);
            let alone = delete.using_clause.is_empty();
            self.returning(written, &mut delete.returning_clause, shown, alone);
            self.confine(written, delete.relation.as_ref(), &mut delete.where_clause, alone);
        }
        self.none_at_output(&delete.using_clause);
        delete.using_clause.iter_mut().for_each(|item| self.source_item(item));
        delete.where_clause.edit("", self);
        delete.returning_clause.edit("", self);
        self.qualify(delete.relation.as_mut());
    }

    fn merge(&mut self, merge: &mut pg::MergeStmt, shown: bool) {
        let written = self.written(merge.relation.as_ref());
        self.with(&mut merge.with_clause);
        if let Some(written) = &written {
            self.confine_merge(written);
            self.picks(written, &mut merge.join_condition);
            self.picks(written, &mut merge.merge_when_clauses);
            self.returning(written, &mut merge.returning_clause, shown, false);
        }
        if let Some(source) = merge.source_relation.as_deref_mut() {
            self.none_at_output(std::slice::from_ref(source));
            self.source_item(source);
        }
        merge.join_condition.edit("", self);
        merge.merge_when_clauses.edit("", self);
        merge.returning_clause.edit("", self);
        self.qualify(merge.relation.as_mut());
    }

    pub(super) fn written(&mut self, table: Option<&pg::RangeVar>) -> Option<Written> {
        let relation = self.target(table)?;
        let table = table?;
        let alias = table.alias.as_ref().map(|alias| alias.aliasname.clone());
        let name = alias.is_none().then(|| table.relname.clone());
        Some(Written { relation, alias: alias.unwrap_or_else(|| table.relname.clone()), name })
    }

    /// Refuses what looks at masked columns of the table that is written.
    fn picks(&mut self, written: &Written, tree: &mut impl Edit) {
        if written.is_in(tree, self) {
            self.refuse(PICKS);
        }
    }

    /// What a statement returns: what stands for masked columns. A `*` of several tables, and
    /// columns that are masked at the output alone, stay where they go straight to the client.
    fn returning(
        &mut self,
        written: &Written,
        returning: &mut Option<pg::ReturningClause>,
        shown: bool,
        alone: bool,
    ) {
        let Some(returning) = returning else { return };
        // WITH (OLD AS o): rows by other names.
        let renamed = !returning.options.is_empty();
        let mut list = Vec::with_capacity(returning.exprs.len());
        for mut target in std::mem::take(&mut returning.exprs) {
            if !written.is_in(&mut target, self) {
                // With other tables a `*` could be theirs.
                list.push(target);
                continue;
            }
            let Some(NodeEnum::ResTarget(of)) = &mut target.node else { continue };
            let column = match of.val.as_deref().map(|value| &value.node) {
                Some(Some(NodeEnum::ColumnRef(column))) => column.clone(),
                _ => {
                    self.refuse(RETURNED);
                    continue;
                }
            };
            let Some((last, before)) = column.fields.split_last() else { continue };
            match string(last) {
                Some(name) => match self.stands_for(written, name) {
                    Some((text, node)) => {
                        self.returns_instead(of, &column, &text, node);
                        list.push(target);
                    }
                    // It is masked at the output, where it goes.
                    None if shown => list.push(target),
                    None => self.refuse(RETURNED),
                },
                // Of the table alone, or of all.
                None if (alone && before.is_empty()) || written.means(before) => {
                    if shown && written.relation.at_output().next().is_some() {
                        list.push(target);
                    } else {
                        list.extend(self.every_column(written, &column));
                    }
                }
                None if shown => list.push(target),
                None => self.refuse(RETURNED),
            }
        }
        if renamed && written.relation.names().any(|name| written.relation.hides(name)) {
            self.refuse(RETURNED);
        }
        returning.exprs = list;
    }

    fn stands_for(&mut self, written: &Written, name: &str) -> Option<(String, pg::Node)> {
        if written.relation.at_output().any(|column| column == name) {
            return None;
        }
        written.relation.instead(name, self.splices.is_none())
    }

    /// Puts `expression AS name` in the place of a column that is returned.
    fn returns_instead(
        &mut self,
        of: &mut pg::ResTarget,
        column: &pg::ColumnRef,
        text: &str,
        node: pg::Node,
    ) {
        self.change();
        let Some(NodeEnum::ResTarget(instead)) = node.node else { return };
        let named = format!(" AS {}", quoted(&instead.name));
        let text = match of.name.is_empty() {
            true => text,
            // It has a name already.
            false => text.strip_suffix(&named).unwrap_or(text),
        };
        if let Some(splices) = &mut self.splices {
            splices.instead_of_column(column, text.to_owned());
        }
        if of.name.is_empty() {
            of.name.clone_from(&instead.name);
        }
        of.val = instead.val;
    }

    /// `RETURNING *` in a common table expression, column by column.
    fn every_column(&mut self, written: &Written, star: &pg::ColumnRef) -> Vec<pg::Node> {
        if written.relation.at_output().next().is_some() {
            self.refuse(RETURNED);
        }
        self.change();
        let shadow = self.splices.is_none();
        let (mut texts, mut nodes) = (Vec::new(), Vec::new());
        for name in written.relation.names() {
            let (text, node) = written.relation.instead(name, shadow).unwrap_or_else(|| {
                let value = Some(Box::new(qualified(&written.alias, name)));
                let target = pg::ResTarget { val: value, location: -1, ..pg::ResTarget::default() };
                let node = pg::Node { node: Some(NodeEnum::ResTarget(Box::new(target))) };
                (format!("{}.{}", quoted(&written.alias), quoted(name)), node)
            });
            texts.push(text);
            nodes.push(node);
        }
        if let Some(splices) = &mut self.splices {
            splices.instead_of_column(star, texts.join(", "));
        }
        nodes
    }
}

impl Written {
    /// Whether a masked column of the table, or all of its row, could be meant in a tree.
    pub(super) fn is_in(&self, tree: &mut impl Edit, rewriter: &Rewriter<'_, '_>) -> bool {
        struct Finder<'w, 'r, 's> {
            written: &'w Written,
            rewriter: &'w Rewriter<'r, 's>,
            found: bool,
            /// What the queries around this place find first.
            scopes: Vec<Scope>,
        }
        impl Editor for Finder<'_, '_, '_> {
            fn node(&mut self, node: &mut pg::Node) -> bool {
                match &mut node.node {
                    Some(NodeEnum::ColumnRef(column)) => {
                        let elsewhere = self.scopes.iter().any(|scope| scope.finds(&column.fields));
                        let in_query = !self.scopes.is_empty();
                        self.found |= !elsewhere && self.written.is_meant(&column.fields, in_query);
                        true
                    }
                    // An element of an index, or of statistics, names its column.
                    Some(NodeEnum::IndexElem(element)) => {
                        self.found |= self.written.relation.hides(&element.name);
                        true
                    }
                    Some(NodeEnum::StatsElem(element)) => {
                        self.found |= self.written.relation.hides(&element.name);
                        true
                    }
                    Some(NodeEnum::SelectStmt(select)) => {
                        let mut scope = Scope::default();
                        for item in &select.from_clause {
                            scope.add(item, self.rewriter);
                        }
                        // What stands in WITH and FROM does not see what FROM names.
                        let mut with = select.with_clause.take();
                        let mut from = std::mem::take(&mut select.from_clause);
                        with.edit("", self);
                        from.edit("", self);
                        self.scopes.push(scope);
                        select.edit("", self);
                        self.scopes.pop();
                        (select.with_clause, select.from_clause) = (with, from);
                        false
                    }
                    _ => true,
                }
            }
        }
        let mut finder = Finder { written: self, rewriter, found: false, scopes: Vec::new() };
        tree.edit("", &mut finder);
        finder.found
    }

    /// Whether a name could mean a masked column of the table, or its row.
    fn is_meant(&self, fields: &[pg::Node], in_query: bool) -> bool {
        let Some((last, before)) = fields.split_last() else { return true };
        let hides_any = || self.relation.names().any(|name| self.relation.hides(name));
        match (string(last), before) {
            // All columns of a subquery's own tables, or of this one.
            (None, []) => !in_query && hides_any(),
            (Some(name), []) => self.relation.hides(name) || (name == self.alias && hides_any()),
            (None, before) => self.means(before) && hides_any(),
            (Some(name), before) => {
                let known = self.relation.has(name);
                self.means(before) && (self.relation.hides(name) || (!known && hides_any()))
            }
        }
    }

    /// Whether the table could be meant by what stands before a column.
    fn means(&self, before: &[pg::Node]) -> bool {
        let Some(last) = before.last().and_then(string) else { return false };
        let own = self.name.as_ref().is_some_and(|name| name == last);
        last == self.alias || own || (before.len() == 1 && ["old", "new"].contains(&last))
    }
}

/// What the FROM of a query makes its columns' names mean.
#[derive(Default)]
struct Scope {
    aliases: Vec<String>,
    /// Relations whose columns are known.
    relations: Vec<Arc<MaskedRelation>>,
}

impl Scope {
    fn add(&mut self, item: &pg::Node, rewriter: &Rewriter<'_, '_>) {
        match &item.node {
            Some(NodeEnum::RangeVar(table)) => {
                let alias = named_as(table);
                // A common table expression of this name may have other columns.
                let common = table.schemaname.is_empty() && rewriter.names_common(&table.relname);
                if let Resolved::Masked(relation) = rewriter.resolve(table)
                    && !common
                    && alias.colnames.is_empty()
                {
                    self.relations.push(relation);
                }
                self.aliases.push(alias.aliasname);
            }
            Some(NodeEnum::RangeSubselect(query)) => {
                self.aliases.extend(query.alias.as_ref().map(|alias| alias.aliasname.clone()));
            }
            // A join with a name of its own hides those within.
            Some(NodeEnum::JoinExpr(join)) if join.alias.is_none() => {
                let sides = [&join.larg, &join.rarg];
                sides.into_iter().flatten().for_each(|side| self.add(side, rewriter));
            }
            _ => {}
        }
    }

    /// Whether a column's name means something here.
    fn finds(&self, fields: &[pg::Node]) -> bool {
        let Some((last, before)) = fields.split_last() else { return false };
        let alias = |name: &str| self.aliases.iter().any(|alias| alias == name);
        match (string(last), before) {
            (Some(name), []) => {
                self.relations.iter().any(|relation| relation.names().any(|own| own == name))
            }
            (_, [of]) => string(of).is_some_and(alias),
            _ => false,
        }
    }
}
