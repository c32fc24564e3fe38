//! The walk over one statement that replaces what it reads.

use std::sync::Arc;

use pg_query::NodeEnum;
use pg_query::protobuf as pg;

use super::super::functions;
use super::super::tree::{Edit, Editor};
use super::facts::Facts;
use super::narrow::{Narrowed, conjuncts};
use super::relation::{MaskedRelation, Tail, quoted};
use super::splice::{Around, Splices};
use super::{Refusal, Relations, Resolved, string};

/// The most columns in the queries that stand for the relations of one statement.
const MOST_COLUMNS: usize = 50_000;

const SAMPLED: Refusal = Refusal::of("a sample of a table with masked columns is taken");
const TOO_MANY: Refusal =
    Refusal::of("masked columns are read by a statement that names too many tables");
const UNCLEAR: Refusal =
    Refusal::of("the name could mean several tables, which are not masked alike: name its schema");
const SEVERAL: Refusal = Refusal::of(
    "the name could mean several tables, of which one has masked columns or filtered rows: name its schema",
);
const STORED: Refusal = Refusal::of("masked columns are read by a definition that would be stored");
const DEFINED: Refusal =
    Refusal::of("tables with masked columns may not be renamed, moved or attached");
const SYSTEM_COLUMNS: Refusal =
    Refusal::of("system columns of a table with masked columns are read beside all of its columns");
const SAME_NAME: Refusal = Refusal::of(
    "a column of a table with masked columns is named in a way that could mean another",
);
const OPAQUE: Refusal = Refusal::of(
    "what a function of the database's own gives may be selected as it is, and no more",
);
const AT_OUTPUT: Refusal = Refusal::of(
    "columns with hash or tokenize may be selected as they are, and no more, because the server has \
     no functions for them that the gateway may use: the gateway's operator makes them with \
     `portcullis policy harden TARGET --functions`",
);
const NOT_WRITTEN: Refusal = Refusal::of("a row filter cannot be written into the statement");
const EXPLAINED: Refusal =
    Refusal::of("EXPLAIN of a table with a row filter tells of rows outside of it");
const COPIED_VIEW: Refusal =
    Refusal::of("a view over a table with a row filter is copied by a query: COPY (SELECT …) TO");

/// Replaces the masked relations of one statement.
pub(super) struct Rewriter<'r, 's> {
    relations: &'r dyn Relations,
    /// The text that changes with the tree. Without one nothing stands in the place of what is
    /// masked.
    pub(super) splices: Option<&'r mut Splices<'s>>,
    facts: Facts,
    /// Common table expressions in scope.
    common: Vec<String>,
    changed: bool,
    /// Relations that were replaced and have no alias: schema and name.
    unaliased: Vec<(String, String)>,
    refused: Option<Refusal>,
    /// Columns in the queries that were put in.
    columns: usize,
    /// It says how the statement runs.
    explains: bool,
    /// A relation with filtered rows is in it.
    filtered: bool,
    /// What must hold of what the query's FROM names, and whether that is one thing.
    pub(super) conjuncts: (Vec<pg::Node>, bool),
}

impl<'r, 's> Rewriter<'r, 's> {
    pub(super) fn new(relations: &'r dyn Relations, splices: Option<&'r mut Splices<'s>>) -> Self {
        Self {
            relations,
            splices,
            facts: Facts::default(),
            common: Vec::new(),
            changed: false,
            unaliased: Vec::new(),
            refused: None,
            columns: 0,
            explains: false,
            filtered: false,
            conjuncts: (Vec::new(), false),
        }
    }

    /// Rewrites a statement; says whether it is another now.
    pub(super) fn run(mut self, raw: &mut pg::RawStmt) -> Result<bool, Refusal> {
        self.facts = Facts::of(&mut raw.stmt);
        if let Some(node) = raw.stmt.as_deref_mut() {
            self.statement(node);
        }
        if self.changed && !self.unaliased.is_empty() {
            let mut names = Unqualified { rewriter: &mut self };
            raw.stmt.edit("", &mut names);
        }
        if self.explains && self.filtered {
            self.refuse(EXPLAINED);
        }
        match self.refused {
            Some(refusal) => Err(refusal),
            None => Ok(self.changed),
        }
    }

    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.refused.get_or_insert(refusal);
    }

    pub(super) fn change(&mut self) {
        self.changed = true;
    }

    pub(super) fn resolve(&self, table: &pg::RangeVar) -> Resolved {
        let schema = Some(&*table.schemaname).filter(|schema| !schema.is_empty());
        self.relations.relation(schema, &table.relname)
    }

    /// The schema that a name without one needs, so that the server finds what was found here.
    pub(super) fn schema(&self, table: &pg::RangeVar) -> Option<String> {
        let common = self.common.contains(&table.relname);
        (table.schemaname.is_empty() && !common)
            .then(|| self.relations.schema(&table.relname))
            .flatten()
    }

    /// Names a relation with its schema, where that is needed.
    pub(super) fn qualify(&mut self, table: Option<&mut pg::RangeVar>) {
        let Some(table) = table else { return };
        let Some(schema) = self.schema(table) else { return };
        if let Some(splices) = &mut self.splices {
            splices.in_schema(table, &schema);
        }
        table.schemaname = schema;
        self.change();
    }

    /// Whether the statement has a common table expression of a name.
    pub(super) fn names_common(&self, name: &str) -> bool {
        self.common.iter().any(|common| common == name) || self.facts.aliases.contains(name)
    }

    /// A relation that a definition is about. Its name goes up as it is, so there must not be several.
    pub(super) fn defined(&mut self, table: Option<&pg::RangeVar>) -> Option<Arc<MaskedRelation>> {
        if self.schema(table?).is_some() {
            self.refuse(SEVERAL);
            return None;
        }
        self.target(table)
    }

    /// A relation that a statement does more to than reading it.
    pub(super) fn target(&mut self, table: Option<&pg::RangeVar>) -> Option<Arc<MaskedRelation>> {
        match self.resolve(table?) {
            Resolved::Clear => None,
            Resolved::Masked(relation) => {
                if let Some(refusal) = relation.refused() {
                    self.refuse(refusal);
                }
                self.filtered |= relation.is_filtered();
                Some(relation)
            }
            Resolved::Unclear => {
                self.refuse(UNCLEAR);
                None
            }
        }
    }

    /// A statement as the client sends it.
    fn statement(&mut self, node: &mut pg::Node) {
        match &mut node.node {
            Some(NodeEnum::SelectStmt(select)) => self.select(select, true),
            Some(
                NodeEnum::InsertStmt(_)
                | NodeEnum::UpdateStmt(_)
                | NodeEnum::DeleteStmt(_)
                | NodeEnum::MergeStmt(_),
            ) => self.write(node, true),
            Some(NodeEnum::ExplainStmt(explain)) => {
                self.explains = true;
                self.within(&mut explain.query);
            }
            Some(NodeEnum::PrepareStmt(prepare)) => self.within(&mut prepare.query),
            // A function may fetch from a cursor, too.
            Some(NodeEnum::DeclareCursorStmt(cursor)) => cursor.query.edit("", self),
            Some(NodeEnum::CopyStmt(copy)) => self.copy(copy),
            Some(NodeEnum::CreateTableAsStmt(create))
                if create.objtype() != pg::ObjectType::ObjectMatview =>
            {
                create.query.edit("", self);
            }
            _ => self.definition(node),
        }
    }

    fn within(&mut self, node: &mut Option<Box<pg::Node>>) {
        if let Some(node) = node {
            self.statement(node);
        }
    }

    /// Anything that is no query: what reads masked columns in it would be stored.
    fn definition(&mut self, node: &mut pg::Node) {
        if let Some(NodeEnum::CreateSchemaStmt(schema)) = &mut node.node {
            schema.schema_elts.iter_mut().for_each(|element| self.definition(element));
        }
        node.node.iter_mut().for_each(|node| self.defines(node));
        self.refers(node);
        let moved = match &node.node {
            Some(NodeEnum::RenameStmt(rename)) => {
                self.defined(rename.relation.as_ref()).is_some() && moves_names(rename)
            }
            Some(NodeEnum::AlterObjectSchemaStmt(alter)) => {
                self.defined(alter.relation.as_ref()).is_some()
            }
            Some(NodeEnum::AlterTableStmt(alter)) => self.attaches(alter),
            Some(NodeEnum::RuleStmt(rule)) => self.defined(rule.relation.as_ref()).is_some(),
            _ => false,
        };
        if moved {
            self.refuse(DEFINED);
        }
        let before = std::mem::take(&mut self.changed);
        node.edit("", self);
        if std::mem::replace(&mut self.changed, before) {
            self.refuse(STORED);
        }
    }

    /// Whether a table with masked columns gets, or loses, a parent or a child.
    fn attaches(&mut self, alter: &pg::AlterTableStmt) -> bool {
        use pg::AlterTableType::{
            AtAddInherit, AtAttachPartition, AtDetachPartition, AtDropInherit,
        };
        let of_masked = self.defined(alter.relation.as_ref()).is_some();
        let commands = alter.cmds.iter().filter_map(|command| match &command.node {
            Some(NodeEnum::AlterTableCmd(command)) => Some(command),
            _ => None,
        });
        let kinds = [AtAddInherit, AtDropInherit, AtAttachPartition, AtDetachPartition];
        let mut attaches = false;
        for command in commands.filter(|command| kinds.contains(&command.subtype())) {
            let other = match command.def.as_deref().and_then(|def| def.node.as_ref()) {
                Some(NodeEnum::RangeVar(other)) => Some(other),
                Some(NodeEnum::PartitionCmd(partition)) => partition.name.as_ref(),
                _ => None,
            };
            attaches |= of_masked || self.defined(other).is_some();
        }
        attaches
    }

    fn copy(&mut self, copy: &mut pg::CopyStmt) {
        if copy.is_from {
            copy.edit("", self);
            return self.qualify(copy.relation.as_mut());
        }
        copy.query.edit("", self);
        let Some(table) = &copy.relation else { return };
        let Some(relation) = self.target(Some(table)).filter(|relation| relation.is_replaced())
        else {
            return self.qualify(copy.relation.as_mut());
        };
        let schema = self.schema(table);
        // COPY gives the rows of the table alone.
        let table = pg::RangeVar { inh: false, ..table.clone() };
        let listed: Vec<String> = match copy.attlist.as_slice() {
            [] => relation.copied().map(str::to_owned).collect(),
            listed => listed.iter().filter_map(string).map(str::to_owned).collect(),
        };
        let facts = Facts::naming(&listed);
        if relation.at_output().any(|name| facts.mentions(name)) {
            self.refuse(AT_OUTPUT);
        }
        if relation.query().is_some() {
            return self.refuse(COPIED_VIEW);
        }
        let has_list = !copy.attlist.is_empty();
        let shadow = self.splices.is_none();
        let (text, nodes) = relation.listed(&facts, "", &[], shadow, Some(&listed));
        let alias = inner_alias(&relation, &table);
        let tail = self.tail(&relation, inner_name(alias.as_ref(), &table), "");
        if let Some(splices) = &mut self.splices {
            let inner = format!("{}{}", written_alias(alias.as_ref()), tail.text);
            splices.copied_table(&table, schema.as_deref(), [&text, &inner], has_list);
        }
        let table = in_schema(table, schema);
        let query = selecting(nodes, from_table(pg::RangeVar { alias, ..table }), tail);
        (copy.relation, copy.query) = (None, Some(Box::new(query)));
        copy.attlist.clear();
        self.change();
    }

    /// A query; `shown` says that its rows go to the client as they are.
    pub(super) fn select(&mut self, select: &mut pg::SelectStmt, shown: bool) {
        let scope = self.common.len();
        self.with(&mut select.with_clause);
        for side in [&mut select.larg, &mut select.rarg].into_iter().flatten() {
            self.select(side, false);
        }
        let shown = shown && select.larg.is_none() && select.into_clause.is_none();
        self.at_output(select, shown);
        self.group_by_key(select);
        let plain = shown && is_plain(select);
        // A function's rows as they are: nothing picks or computes.
        let rows = plain
            && select.where_clause.is_none()
            && select.target_list.iter().all(|target| column_of(target).is_some());
        let alone = matches!(
            select.from_clause.as_slice(),
            [pg::Node { node: Some(NodeEnum::RangeVar(_)) }]
        );
        let condition = select.where_clause.as_deref();
        let own = (conjuncts(condition.filter(|_| self.relations.filters_rows())), alone);
        let outside = std::mem::replace(&mut self.conjuncts, own);
        for item in &mut select.from_clause {
            match &mut item.node {
                Some(NodeEnum::RangeFunction(function))
                    if rows && !self.relations.filters_rows() =>
                {
                    self.bare(&mut function.functions);
                }
                _ => self.source_item(item),
            }
        }
        self.conjuncts = outside;
        // What a function gives, as it is.
        if plain {
            select.target_list.iter_mut().for_each(|target| self.bare_target(target));
        } else {
            select.target_list.edit("", self);
        }
        let pg::SelectStmt {
            distinct_clause,
            where_clause,
            group_clause,
            having_clause,
            window_clause,
            values_lists,
            sort_clause,
            limit_offset,
            limit_count,
            ..
        } = select;
        for list in [distinct_clause, group_clause, window_clause, values_lists, sort_clause] {
            list.edit("", self);
        }
        for clause in [where_clause, having_clause, limit_offset, limit_count] {
            clause.edit("", self);
        }
        self.common.truncate(scope);
    }

    /// Puts common table expressions into scope; [`Self::leave`] takes them out.
    pub(super) fn with(&mut self, with: &mut Option<pg::WithClause>) {
        let Some(with) = with else { return };
        let named = |node: &pg::Node| match &node.node {
            Some(NodeEnum::CommonTableExpr(common)) => Some(common.ctename.clone()),
            _ => None,
        };
        if with.recursive {
            self.common.extend(with.ctes.iter().filter_map(named));
        }
        for common in &mut with.ctes {
            common.edit("", self);
            if !with.recursive {
                self.common.extend(named(common));
            }
        }
    }

    pub(super) fn scope(&self) -> usize {
        self.common.len()
    }

    pub(super) fn leave(&mut self, scope: usize) {
        self.common.truncate(scope);
    }

    /// Something in FROM.
    pub(super) fn source_item(&mut self, item: &mut pg::Node) {
        match &mut item.node {
            Some(NodeEnum::RangeVar(table)) => match self.read(table) {
                Some(relation) => {
                    let table = table.clone();
                    *item = self.subquery(&relation, table);
                }
                None => self.qualify(Some(table)),
            },
            Some(NodeEnum::RangeTableSample(sample)) => {
                sample.args.edit("", self);
                sample.repeatable.edit("", self);
                if let Some(NodeEnum::RangeVar(table)) =
                    sample.relation.as_deref_mut().and_then(|relation| relation.node.as_mut())
                {
                    match self.read(table) {
                        Some(_) => self.refuse(SAMPLED),
                        None => self.qualify(Some(table)),
                    }
                }
            }
            Some(NodeEnum::JoinExpr(join)) => {
                // A join with a name of its own hides those within.
                let hides = join.alias.is_some();
                let before = hides.then(|| std::mem::take(&mut self.conjuncts));
                for side in [&mut join.larg, &mut join.rarg].into_iter().flatten() {
                    self.source_item(side);
                }
                if let Some(before) = before {
                    self.conjuncts = before;
                }
                join.quals.edit("", self);
            }
            _ => item.edit("", self),
        }
    }

    /// A table that is read: what it is, where it must be replaced.
    fn read(&mut self, table: &pg::RangeVar) -> Option<Arc<MaskedRelation>> {
        if table.schemaname.is_empty() && self.common.contains(&table.relname) {
            return None;
        }
        self.target(Some(table)).filter(|relation| relation.is_replaced())
    }

    /// The query in the place of a table.
    fn subquery(&mut self, relation: &MaskedRelation, table: pg::RangeVar) -> pg::Node {
        let alias = named_as(&table);
        if table.alias.is_none() {
            self.unaliased.push((table.schemaname.clone(), table.relname.clone()));
        }
        self.columns += relation.names().count();
        if self.columns > MOST_COLUMNS {
            self.refuse(TOO_MANY);
            return pg::Node::default();
        }
        let mut system = self.facts.system();
        system.retain(|name| !relation.names().any(|column| column == *name));
        let all = self.facts.takes_all(&alias.aliasname);
        if !system.is_empty() && relation.has_system_columns() && all {
            self.refuse(SYSTEM_COLUMNS);
        }
        let shadow = self.splices.is_none();
        let (text, nodes) = relation.listed(&self.facts, &alias.aliasname, &system, shadow, None);
        // What is left beside the filters is left of all rows.
        let query = relation.query().filter(|_| !shadow);
        let own = || pg::Alias { aliasname: table.relname.clone(), colnames: Vec::new() };
        let inner = inner_alias(relation, &table).or_else(|| query.map(|_| own()));
        let inner_name = inner_name(inner.as_ref(), &table);
        let narrowing = match alias.colnames.is_empty() {
            true => {
                let (conjuncts, alone) = &self.conjuncts;
                let known_as = &*alias.aliasname;
                let narrowed =
                    Narrowed { relation, alias: known_as, alone: *alone, inner: inner_name };
                narrowed.text(conjuncts)
            }
            false => String::new(),
        };
        let tail = self.tail(relation, inner_name, &narrowing);
        let schema = self.schema(&table);
        if let Some(splices) = &mut self.splices {
            let outer_alias = match &table.alias {
                Some(_) => String::new(),
                None => format!(" {}", quoted(&table.relname)),
            };
            let around = Around {
                columns: &text,
                schema: schema.as_deref(),
                query: query.map(|(text, _)| text),
                inner_alias: &written_alias(inner.as_ref()),
                tail: &tail.text,
                outer_alias: &outer_alias,
            };
            splices.around_table(&table, &around);
        }
        self.change();
        let from = match query {
            Some((_, query)) => from_query(query.clone(), inner),
            None => from_table(pg::RangeVar { alias: inner, ..in_schema(table, schema) }),
        };
        let query = selecting(nodes, from, tail);
        let subquery = Some(Box::new(query));
        let select = pg::RangeSubselect { lateral: false, subquery, alias: Some(alias) };
        pg::Node { node: Some(NodeEnum::RangeSubselect(Box::new(select))) }
    }

    /// What picks the rows of a relation, behind the table's name; nothing where only what is left of
    /// the statement is looked for.
    fn tail(&mut self, relation: &MaskedRelation, alias: &str, narrowing: &str) -> Tail {
        let none = || Tail { option: pg::LimitOption::Default.into(), ..Tail::default() };
        if self.splices.is_none() {
            return none();
        }
        relation.tail(alias, narrowing).unwrap_or_else(|| {
            self.refuse(NOT_WRITTEN);
            none()
        })
    }

    /// Looks whether tables that a write reads have columns that are masked at the output alone.
    pub(super) fn none_at_output(&mut self, items: &[pg::Node]) {
        let mut tables = Vec::new();
        items.iter().for_each(|item| tables_of(item, &mut tables));
        for table in tables {
            let Resolved::Masked(relation) = self.resolve(table) else { continue };
            let alias = named_as(table);
            let all = self.facts.takes_all(&alias.aliasname) || !alias.colnames.is_empty();
            if relation.at_output().any(|name| all || self.facts.mentions(name)) {
                self.refuse(AT_OUTPUT);
            }
        }
    }

    /// Looks whether columns that are masked at the output alone are only shown.
    fn at_output(&mut self, select: &pg::SelectStmt, shown: bool) {
        let mut tables = Vec::new();
        select.from_clause.iter().for_each(|item| tables_of(item, &mut tables));
        for table in tables {
            if table.schemaname.is_empty() && self.common.contains(&table.relname) {
                continue;
            }
            let Resolved::Masked(relation) = self.resolve(table) else { continue };
            let alias = named_as(table);
            let renamed = !alias.colnames.is_empty();
            let all = self.facts.takes_all(&alias.aliasname) || renamed;
            let hidden: Vec<&str> =
                relation.at_output().filter(|name| all || self.facts.mentions(name)).collect();
            if hidden.is_empty() {
                continue;
            }
            let mut rest = select.clone();
            let mut names: Vec<String> = hidden.iter().map(|name| (*name).to_owned()).collect();
            rest.target_list.retain(|target| match column_of(target) {
                Some(alias) => {
                    names.extend(alias.map(str::to_owned));
                    false
                }
                None => true,
            });
            let lists = [&rest.sort_clause, &rest.group_clause, &rest.distinct_clause];
            let by_number = lists.iter().any(|list| list.iter().any(is_number));
            let rest_facts = Facts::of(&mut rest);
            let computed = names.iter().any(|name| rest_facts.mentions(name))
                || rest_facts.takes_all(&alias.aliasname);
            if !shown || renamed || by_number || computed || !select.distinct_clause.is_empty() {
                self.refuse(AT_OUTPUT);
            }
        }
    }

    /// GROUP BY a primary key covers the table's other columns, but not those of a subquery: they
    /// are named, too.
    fn group_by_key(&mut self, select: &mut pg::SelectStmt) {
        let sets = |node: &pg::Node| matches!(node.node, Some(NodeEnum::GroupingSet(_)));
        if select.group_clause.is_empty() || select.group_clause.iter().any(sets) {
            return;
        }
        let mut tables = Vec::new();
        select.from_clause.iter().for_each(|item| tables_of(item, &mut tables));
        let mut more: Vec<(usize, String, String)> = Vec::new();
        for table in tables {
            let alias = named_as(table);
            let common = table.schemaname.is_empty() && self.common.contains(&table.relname);
            let Resolved::Masked(relation) = self.resolve(table) else { continue };
            if common || !relation.is_replaced() || !alias.colnames.is_empty() {
                continue;
            }
            let grouped = |name: &str| {
                let is = |node: &pg::Node| is_column(node, &alias.aliasname, name);
                select.group_clause.iter().position(is)
            };
            let key: Option<Vec<usize>> = relation.key().into_iter().map(grouped).collect();
            let Some(place) = key.and_then(|places| places.into_iter().min()) else { continue };
            let all = self.facts.takes_all(&alias.aliasname);
            let others = relation.determined().filter(|name| grouped(name).is_none());
            for name in others.filter(|name| all || self.facts.mentions(name)) {
                more.push((place, alias.aliasname.clone(), name.to_owned()));
            }
        }
        more.sort_by_key(|(place, ..)| *place);
        while let Some((place, ..)) = more.last() {
            let place = *place;
            let from = more.partition_point(|(at, ..)| *at < place);
            let behind = more.split_off(from);
            let Some(NodeEnum::ColumnRef(key)) =
                select.group_clause.get(place).and_then(|node| node.node.clone())
            else {
                continue;
            };
            if let Some(splices) = &mut self.splices {
                let names =
                    behind.iter().map(|(_, of, name)| format!(", {}.{}", quoted(of), quoted(name)));
                splices.behind_column(&key, &names.collect::<String>());
            }
            let nodes = behind.iter().map(|(_, of, name)| qualified(of, name));
            select.group_clause.splice(place + 1..place + 1, nodes);
        }
    }

    /// A column of a result: a function's value as it is, or anything that computes with none.
    fn bare_target(&mut self, target: &mut pg::Node) {
        if self.relations.filters_rows() {
            return target.edit("", self);
        }
        let Some(NodeEnum::ResTarget(target)) = &mut target.node else { return };
        match target.val.as_deref_mut().map(|value| &mut value.node) {
            Some(Some(NodeEnum::FuncCall(call))) => call.edit("", self),
            Some(Some(NodeEnum::AIndirection(fields))) => {
                match fields.arg.as_deref_mut().map(|value| &mut value.node) {
                    Some(Some(NodeEnum::FuncCall(call))) => call.edit("", self),
                    _ => fields.edit("", self),
                }
            }
            _ => target.edit("", self),
        }
    }

    /// Functions in FROM whose rows are shown as they are.
    fn bare(&mut self, functions: &mut [pg::Node]) {
        for function in functions {
            let Some(NodeEnum::List(items)) = &mut function.node else { continue };
            for item in &mut items.items {
                match &mut item.node {
                    Some(NodeEnum::FuncCall(call)) => call.edit("", self),
                    _ => item.edit("", self),
                }
            }
        }
    }

    fn call(&mut self, call: &pg::FuncCall) {
        let mut names = call.funcname.iter().rev().filter_map(string);
        let (name, schema) = (names.next().unwrap_or_default(), names.next());
        if functions::reads_unseen(name) || self.relations.is_opaque(schema, name) {
            self.refuse(OPAQUE);
        }
    }
}

impl Editor for Rewriter<'_, '_> {
    fn node(&mut self, node: &mut pg::Node) -> bool {
        match &mut node.node {
            Some(NodeEnum::SelectStmt(select)) => {
                self.select(select, false);
                false
            }
            Some(
                NodeEnum::InsertStmt(_)
                | NodeEnum::UpdateStmt(_)
                | NodeEnum::DeleteStmt(_)
                | NodeEnum::MergeStmt(_),
            ) => {
                self.write(node, false);
                false
            }
            Some(NodeEnum::JoinExpr(_)) => {
                self.source_item(node);
                false
            }
            Some(NodeEnum::FuncCall(call)) => {
                self.call(call);
                true
            }
            _ => true,
        }
    }
}

/// Takes the schema out of columns' names that name a relation which has an alias now.
struct Unqualified<'u, 'r, 's> {
    rewriter: &'u mut Rewriter<'r, 's>,
}

impl Editor for Unqualified<'_, '_, '_> {
    fn node(&mut self, node: &mut pg::Node) -> bool {
        let Some(NodeEnum::ColumnRef(column)) = &mut node.node else { return true };
        let [before @ .., schema, table, _] = column.fields.as_slice() else { return true };
        let (Some(schema), Some(table)) = (string(schema), string(table)) else { return true };
        let means =
            |(of, name): &&(String, String)| name == table && (of.is_empty() || of == schema);
        if self.rewriter.unaliased.iter().any(|replaced| means(&replaced)) {
            let ambiguous = self.rewriter.facts.aliases.contains(table);
            let qualifiers = before.len() + 1;
            if let Some(splices) = &mut self.rewriter.splices {
                splices.without_qualifiers(column, qualifiers);
            }
            column.fields.drain(..qualifiers);
            if ambiguous {
                self.rewriter.refuse(SAME_NAME);
            }
        }
        true
    }
}

/// A query of one thing in FROM.
fn selecting(target_list: Vec<pg::Node>, from: pg::Node, tail: Tail) -> pg::Node {
    let select = pg::SelectStmt {
        target_list,
        from_clause: vec![from],
        where_clause: tail.condition,
        limit_offset: tail.offset,
        limit_option: tail.option,
        op: pg::SetOperation::SetopNone.into(),
        ..pg::SelectStmt::default()
    };
    pg::Node { node: Some(NodeEnum::SelectStmt(Box::new(select))) }
}

fn in_schema(table: pg::RangeVar, schema: Option<String>) -> pg::RangeVar {
    match schema {
        Some(schemaname) => pg::RangeVar { schemaname, ..table },
        None => table,
    }
}

fn from_table(table: pg::RangeVar) -> pg::Node {
    pg::Node { node: Some(NodeEnum::RangeVar(pg::RangeVar { location: -1, ..table })) }
}

fn from_query(query: pg::SelectStmt, alias: Option<pg::Alias>) -> pg::Node {
    let query = pg::Node { node: Some(NodeEnum::SelectStmt(Box::new(query))) };
    let subquery = Some(Box::new(query));
    let select = pg::RangeSubselect { lateral: false, subquery, alias };
    pg::Node { node: Some(NodeEnum::RangeSubselect(Box::new(select))) }
}

/// What a table goes by within the query in its place.
fn inner_name<'n>(alias: Option<&'n pg::Alias>, table: &'n pg::RangeVar) -> &'n str {
    alias.map_or(&table.relname, |alias| &alias.aliasname)
}

/// A name for a table within the query in its place, where its own is a column's: a column that is
/// not there any more must not mean the whole row.
fn inner_alias(relation: &MaskedRelation, table: &pg::RangeVar) -> Option<pg::Alias> {
    relation.has(&table.relname).then(|| {
        let mut aliasname = "masked".to_owned();
        while relation.has(&aliasname) {
            aliasname.push('_');
        }
        pg::Alias { aliasname, colnames: Vec::new() }
    })
}

fn written_alias(alias: Option<&pg::Alias>) -> String {
    alias.map_or(String::new(), |alias| format!(" {}", quoted(&alias.aliasname)))
}

/// The alias that a replaced table gets.
pub(super) fn named_as(table: &pg::RangeVar) -> pg::Alias {
    let own = || pg::Alias { aliasname: table.relname.clone(), colnames: Vec::new() };
    table.alias.clone().unwrap_or_else(own)
}

/// Tables that FROM names itself.
fn tables_of<'n>(item: &'n pg::Node, tables: &mut Vec<&'n pg::RangeVar>) {
    match &item.node {
        Some(NodeEnum::RangeVar(table)) => tables.push(table),
        Some(NodeEnum::RangeTableSample(sample)) => {
            sample.relation.iter().for_each(|relation| tables_of(relation, tables));
        }
        Some(NodeEnum::JoinExpr(join)) => {
            let sides = [&join.larg, &join.rarg];
            sides.into_iter().flatten().for_each(|side| tables_of(side, tables));
        }
        _ => {}
    }
}

/// Whether a query only picks rows: it neither groups, orders nor compares what it gives.
fn is_plain(select: &pg::SelectStmt) -> bool {
    select.distinct_clause.is_empty()
        && select.group_clause.is_empty()
        && select.having_clause.is_none()
        && select.sort_clause.is_empty()
        && select.window_clause.is_empty()
}

/// Of a target that is a column, or a `*`: the name that it is given, if any.
fn column_of(target: &pg::Node) -> Option<Option<&str>> {
    let Some(NodeEnum::ResTarget(target)) = &target.node else { return None };
    let value = target.val.as_deref()?;
    matches!(value.node, Some(NodeEnum::ColumnRef(_)))
        .then(|| Some(&*target.name).filter(|name| !name.is_empty()))
}

/// A column of what goes by a name.
pub(super) fn qualified(alias: &str, name: &str) -> pg::Node {
    let part = |sval: &str| pg::Node {
        node: Some(NodeEnum::String(pg::String { sval: sval.to_owned() })),
    };
    let column = pg::ColumnRef { fields: vec![part(alias), part(name)], location: -1 };
    pg::Node { node: Some(NodeEnum::ColumnRef(column)) }
}

/// Whether a node is this column, perhaps without the name of what it is of.
fn is_column(node: &pg::Node, alias: &str, name: &str) -> bool {
    let Some(NodeEnum::ColumnRef(column)) = &node.node else { return false };
    match column.fields.as_slice() {
        [only] => string(only) == Some(name),
        [.., of, last] => string(of) == Some(alias) && string(last) == Some(name),
        [] => false,
    }
}

/// Whether something is ordered or grouped by a column's number.
fn is_number(node: &pg::Node) -> bool {
    match &node.node {
        Some(NodeEnum::AConst(_)) => true,
        Some(NodeEnum::SortBy(sort)) => sort.node.as_deref().is_some_and(is_number),
        _ => false,
    }
}

/// Whether a rename changes by which name masks know something.
fn moves_names(rename: &pg::RenameStmt) -> bool {
    use pg::ObjectType::{
        ObjectColumn, ObjectForeignTable, ObjectMatview, ObjectTable, ObjectView,
    };
    [ObjectColumn, ObjectForeignTable, ObjectMatview, ObjectTable, ObjectView]
        .contains(&rename.rename_type())
}
