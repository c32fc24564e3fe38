//! Statements that create.
//!
//! What a definition holds counts as done: a view's query, a rule's actions and a function's SQL
//! body have their effects here, for when they run the statement that runs them does not show them.

use pg_query::NodeEnum;
use pg_query::protobuf as pg;
use serde_json::json;

use super::actions;
use super::object::{Named, kind, object, table, within};
use super::query::named;
use super::session::{may_hold_password, option_text};
use super::tree::{Fields, Walk};
use super::walker::{Walker, name, names};
use crate::policy::Object;

/// Statements that create an object of a kind with the name in a field, and mean no more.
macro_rules! creates {
    ($($statement:ident: $kind:literal $field:ident;)*) => {
        $(impl Walk for pg::$statement {
            fn walk(&self, walker: &mut Walker) {
                walker.effect(actions::CREATE, object($kind, &self.$field));
                self.fields(walker);
            }
        })*
    };
}

creates! {
    CreateSchemaStmt: "schema" schemaname;
    CreateExtensionStmt: "extension" extname;
    CreateForeignServerStmt: "server" servername;
    CreateRoleStmt: "role" role;
    CreateUserMappingStmt: "user-mapping" servername;
    CreatePublicationStmt: "publication" pubname;
    CreatedbStmt: "database" dbname;
    CreateTableSpaceStmt: "tablespace" tablespacename;
    CreateEnumStmt: "type" type_name;
    CreateOpClassStmt: "operator-class" opclassname;
    CreateOpFamilyStmt: "operator-family" opfamilyname;
}

/// Statements that create what will call functions.
macro_rules! creates_caller {
    ($($statement:ident: $kind:literal $field:ident calls $($function:ident)*;)*) => {
        $(impl Walk for pg::$statement {
            fn walk(&self, walker: &mut Walker) {
                walker.effect(actions::CREATE, object($kind, &self.$field));
                $(calls(&self.$function, walker);)*
                self.fields(walker);
            }
        })*
    };
}

creates_caller! {
    CreateEventTrigStmt: "event-trigger" trigname calls funcname;
    CreateAmStmt: "access-method" amname calls handler_name;
    CreatePLangStmt: "language" plname calls plhandler plinline plvalidator;
    CreateConversionStmt: "conversion" conversion_name calls func_name;
    CreateFdwStmt: "foreign-data-wrapper" fdwname calls func_options;
}

fn calls(function: &[pg::Node], walker: &mut Walker) {
    // A foreign-data wrapper has options with a function each, the others have the name alone.
    if function.first().is_some_and(|first| name(first).is_none()) {
        return names_functions(function, walker);
    }
    if !function.is_empty() {
        walker.effect(actions::FUNCTION, object("function", function));
    }
}

/// Functions that stand among options, where they cannot be told from types: each name counts.
pub(super) fn names_functions(options: &[pg::Node], walker: &mut Walker) {
    for option in options {
        if let Some(NodeEnum::DefElem(option)) = &option.node
            && let Some(arg) = &option.arg
            && matches!(arg.node, Some(NodeEnum::TypeName(_) | NodeEnum::List(_)))
        {
            walker.effect(actions::FUNCTION, object("function", arg));
        }
    }
}

impl Walk for pg::CreateCastStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::CREATE, object("cast", &self.targettype));
        if self.func.is_some() {
            walker.effect(actions::FUNCTION, object("function", &self.func));
        }
        self.fields(walker);
    }
}

impl Walk for pg::CreateTransformStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::CREATE, object("transform", &self.type_name));
        for function in [&self.fromsql, &self.tosql].into_iter().flatten() {
            walker.effect(actions::FUNCTION, object("function", function));
        }
        self.fields(walker);
    }
}

/// CREATE AGGREGATE, OPERATOR, TYPE, COLLATION, TEXT SEARCH ….
impl Walk for pg::DefineStmt {
    fn walk(&self, walker: &mut Walker) {
        let (kind, word) = kind(self.kind());
        let created = object(kind, &self.defnames);
        let place = walker.effect_with(actions::CREATE, created, [("type", json!(word))]);
        if ["aggregate", "operator", "parser", "template", "type"].contains(&word) {
            walker.is_opaque(place);
            names_functions(&self.definition, walker);
        }
        self.fields(walker);
    }
}

/// A check runs over all values of a column that gets the domain as its type.
impl Walk for pg::CreateDomainStmt {
    fn walk(&self, walker: &mut Walker) {
        let place = walker.effect(actions::CREATE, object("type", &self.domainname));
        let computes = |constraint: &pg::Node| match &constraint.node {
            Some(NodeEnum::Constraint(constraint)) => match constraint.contype() {
                pg::ConstrType::ConstrDefault => computes(constraint.raw_expr.as_deref()),
                kind => {
                    ![pg::ConstrType::ConstrNull, pg::ConstrType::ConstrNotnull].contains(&kind)
                }
            },
            _ => false,
        };
        if self.constraints.iter().any(computes) {
            walker.is_opaque(place);
        }
        self.fields(walker);
    }
}

/// Whether a default is more than a constant.
pub(super) fn computes(default: Option<&pg::Node>) -> bool {
    match default.and_then(|default| default.node.as_ref()) {
        None | Some(NodeEnum::AConst(_)) => false,
        Some(NodeEnum::TypeCast(cast)) => computes(cast.arg.as_deref()),
        Some(_) => true,
    }
}

impl Walk for pg::CreateRangeStmt {
    fn walk(&self, walker: &mut Walker) {
        let place = walker.effect(actions::CREATE, object("type", &self.type_name));
        walker.is_opaque(place);
        names_functions(&self.params, walker);
    }
}

/// An operator, a function or a storage type of an operator class.
impl Walk for pg::CreateOpClassItem {
    fn walk(&self, walker: &mut Walker) {
        // OPCLASS_ITEM_FUNCTION of parsenodes.h.
        if self.itemtype == 2 {
            walker.effect(actions::FUNCTION, object("function", &self.name));
        }
        self.fields(walker);
    }
}

impl Walk for pg::CreateSubscriptionStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::CREATE, object("subscription", &self.subname));
        walker.holds_secret();
        self.fields(walker);
    }
}

impl Walk for pg::ImportForeignSchemaStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::IMPORT, object("schema", &self.local_schema));
        self.options.walk(walker);
    }
}

// Relations.

impl Walk for pg::CreateStmt {
    fn walk(&self, walker: &mut Walker) {
        creates_table(self, "table", walker);
    }
}

impl Walk for pg::CreateForeignTableStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { base_stmt, servername: _, options } = self;
        if let Some(base) = base_stmt {
            creates_table(base, "foreign-table", walker);
        }
        options.walk(walker);
    }
}

fn creates_table(statement: &pg::CreateStmt, word: &str, walker: &mut Walker) {
    let pg::CreateStmt {
        relation,
        table_elts,
        inh_relations,
        partbound,
        partspec,
        of_typename,
        constraints,
        nnconstraints,
        options,
        oncommit: _,
        tablespacename: _,
        access_method: _,
        if_not_exists: _,
    } = statement;
    let created = object("table", relation);
    let place = walker.effect_with(actions::CREATE, created, [("type", json!(word))]);
    if word == "foreign-table" {
        walker.is_opaque(place);
    }
    for parent in inh_relations {
        walker.effect(actions::REFERENCES, Some(table(parent)));
    }
    table_elts.walk(walker);
    partbound.walk(walker);
    partspec.walk(walker);
    of_typename.walk(walker);
    constraints.walk(walker);
    nnconstraints.walk(walker);
    options.walk(walker);
}

/// The table of SELECT INTO and CREATE TABLE AS.
impl Walk for pg::IntoClause {
    fn walk(&self, walker: &mut Walker) {
        let Self {
            rel,
            col_names: _,
            access_method: _,
            options,
            on_commit: _,
            table_space_name: _,
            view_query,
            skip_data: _,
        } = self;
        walker.effect_with(actions::CREATE, object("table", rel), [("type", json!("table"))]);
        options.walk(walker);
        view_query.walk(walker);
    }
}

impl Walk for pg::CreateTableAsStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { query, into, objtype: _, is_select_into: _, if_not_exists: _ } = self;
        match (self.objtype(), into) {
            (pg::ObjectType::ObjectMatview, Some(into)) => {
                let word = [("type", json!("materialized-view"))];
                walker.effect_with(actions::CREATE, object("table", &into.rel), word);
            }
            _ => {
                into.walk(walker);
                return walker.writing(|walker| query.walk(walker));
            }
        }
        query.walk(walker);
    }
}

impl Walk for pg::ViewStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { view, aliases: _, query, replace, options, with_check_option: _ } = self;
        let attributes = [("type", json!("view")), ("replace", json!(replace))];
        walker.effect_with(actions::CREATE, object("table", view), attributes);
        query.walk(walker);
        options.walk(walker);
    }
}

impl Walk for pg::CreateSeqStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { sequence, options, owner_id: _, for_identity: _, if_not_exists: _ } = self;
        let word = [("type", json!("sequence"))];
        walker.effect_with(actions::CREATE, object("table", sequence), word);
        options.walk(walker);
    }
}

impl Walk for pg::CompositeTypeStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { typevar, coldeflist } = self;
        walker.effect(actions::CREATE, object("type", typevar));
        coldeflist.walk(walker);
    }
}

/// LIKE takes a table's structure.
impl Walk for pg::TableLikeClause {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::REFERENCES, object("table", &self.relation));
    }
}

/// A foreign key may be asked which keys a table holds.
impl Walk for pg::Constraint {
    fn walk(&self, walker: &mut Walker) {
        if let Some(referenced) = &self.pktable {
            let place = walker.effect(actions::REFERENCES, Some(table(referenced)));
            walker.columns(place, names(&self.pk_attrs));
        }
        let rest = Self { pktable: None, ..self.clone() };
        rest.fields(walker);
    }
}

// What belongs to a table changes the table.

impl Walk for pg::IndexStmt {
    fn walk(&self, walker: &mut Walker) {
        if let Some(relation) = &self.relation {
            // An index lies in its table's schema.
            let mut parts = relation.parts();
            parts.pop();
            parts.extend(self.idxname.parts());
            walker.effect(actions::CREATE, Some(Object::new("index", parts)));
            let place = walker.effect(actions::ALTER, Some(table(relation)));
            let columns = self.index_params.iter().chain(&self.index_including_params);
            let columns = columns.filter_map(|element| match &element.node {
                Some(NodeEnum::IndexElem(element)) if !element.name.is_empty() => {
                    Some(element.name.as_str())
                }
                _ => None,
            });
            walker.columns(place, columns);
            let own = vec![named(relation, vec![walker.written(table(relation))])];
            walker.in_scope(own, |walker| {
                self.index_params.walk(walker);
                self.index_including_params.walk(walker);
                self.options.walk(walker);
                self.where_clause.walk(walker);
            });
        }
    }
}

impl Walk for pg::CreateTrigStmt {
    fn walk(&self, walker: &mut Walker) {
        creates_on(walker, "trigger", &self.trigname, self.relation.as_ref());
        calls(&self.funcname, walker);
        if self.constrrel.is_some() {
            walker.effect(actions::REFERENCES, object("table", &self.constrrel));
        }
        self.when_clause.walk(walker);
        self.args.walk(walker);
    }
}

impl Walk for pg::CreatePolicyStmt {
    fn walk(&self, walker: &mut Walker) {
        creates_on(walker, "policy", &self.policy_name, self.table.as_ref());
        self.qual.walk(walker);
        self.with_check.walk(walker);
    }
}

impl Walk for pg::RuleStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { relation, rulename, where_clause, event: _, instead: _, actions, replace: _ } =
            self;
        creates_on(walker, "rule", rulename, relation.as_ref());
        where_clause.walk(walker);
        actions.walk(walker);
    }
}

fn creates_on(walker: &mut Walker, kind: &'static str, name: &str, on: Option<&pg::RangeVar>) {
    if let Some(relation) = on {
        walker.effect(actions::CREATE, within(kind, relation, name));
        walker.effect(actions::ALTER, Some(table(relation)));
    }
}

impl Walk for pg::CreateStatsStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::CREATE, object("statistics", &self.defnames));
        let mut own = Vec::new();
        for relation in &self.relations {
            walker.effect(actions::ALTER, Some(table(relation)));
            if let Some(NodeEnum::RangeVar(relation)) = &relation.node {
                own.push(named(relation, vec![walker.written(table(relation))]));
            }
        }
        walker.in_scope(own, |walker| self.exprs.walk(walker));
    }
}

impl Walk for pg::CreateFunctionStmt {
    fn walk(&self, walker: &mut Walker) {
        let word = if self.is_procedure { "procedure" } else { "function" };
        let language = option_text(&self.options, "language", walker).unwrap_or("sql");
        walker.effect_with(
            actions::CREATE,
            object("function", &self.funcname),
            [
                ("type", json!(word)),
                ("language", json!(language.to_ascii_lowercase())),
                ("replace", json!(self.replace)),
            ],
        );
        let code = option_text(&self.options, "as", walker);
        may_hold_password(code, walker);
        self.fields(walker);
    }
}
