//! Statements that change, drop, grant and comment.

use pg_query::NodeEnum;
use pg_query::protobuf::{self as pg, AlterTableType, ObjectType};
use serde_json::{Value, json};

use super::actions::{self, Action};
use super::create::{computes, names_functions};
use super::object::{Named, kind, object, object_of, table, within};
use super::query::named;
use super::tree::{Fields, Walk};
use super::walker::{Walker, names};
use crate::policy::Object;

/// Statements with an effect on an object of a kind with the name in a field, and no more meaning.
macro_rules! statements {
    ($($statement:ident: $action:ident $kind:literal $field:ident;)*) => {
        $(impl Walk for pg::$statement {
            fn walk(&self, walker: &mut Walker) {
                walker.effect(actions::$action, object($kind, &self.$field));
                self.fields(walker);
            }
        })*
    };
}

statements! {
    AlterFunctionStmt: ALTER "function" func;
    AlterDatabaseStmt: ALTER "database" dbname;
    AlterDatabaseSetStmt: ALTER "database" dbname;
    AlterDatabaseRefreshCollStmt: ALTER "database" dbname;
    AlterEnumStmt: ALTER "type" type_name;
    AlterExtensionStmt: ALTER "extension" extname;
    AlterForeignServerStmt: ALTER "server" servername;
    AlterRoleStmt: ALTER "role" role;
    AlterUserMappingStmt: ALTER "user-mapping" servername;
    AlterFdwStmt: ALTER "foreign-data-wrapper" fdwname;
    AlterEventTrigStmt: ALTER "event-trigger" trigname;
    AlterPublicationStmt: ALTER "publication" pubname;
    AlterStatsStmt: ALTER "statistics" defnames;
    AlterOpFamilyStmt: ALTER "operator-family" opfamilyname;
    AlterTsDictionaryStmt: ALTER "text-search" dictname;
    AlterTsConfigurationStmt: ALTER "text-search" cfgname;
    AlterCollationStmt: ALTER "collation" collname;
    AlterTableSpaceOptionsStmt: ALTER "tablespace" tablespacename;
    AlterTableMoveAllStmt: ALTER "tablespace" orig_tablespacename;
    DropdbStmt: DROP "database" dbname;
    DropTableSpaceStmt: DROP "tablespace" tablespacename;
    DropUserMappingStmt: DROP "user-mapping" servername;
    DropSubscriptionStmt: DROP "subscription" subname;
}

impl Walk for pg::AlterSubscriptionStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::ALTER, object("subscription", &self.subname));
        walker.holds_secret();
        self.fields(walker);
    }
}

impl Walk for pg::AlterTypeStmt {
    fn walk(&self, walker: &mut Walker) {
        let place = walker.effect(actions::ALTER, object("type", &self.type_name));
        walker.is_opaque(place);
        names_functions(&self.options, walker);
    }
}

impl Walk for pg::AlterOperatorStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::ALTER, object("operator", &self.opername));
        names_functions(&self.options, walker);
    }
}

impl Walk for pg::AlterRoleSetStmt {
    fn walk(&self, walker: &mut Walker) {
        // ALTER ROLE ALL has no role.
        walker.effect(actions::ALTER, object("role", &self.role));
        if !self.database.is_empty() {
            walker.effect(actions::ALTER, object("database", &self.database));
        }
        self.fields(walker);
    }
}

impl Walk for pg::AlterExtensionContentsStmt {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::ALTER, object("extension", &self.extname));
        on_object(walker, actions::ALTER, self.objtype(), self.object.as_deref());
    }
}

/// What a domain demands is checked on all values of the columns that are of it.
impl Walk for pg::AlterDomainStmt {
    fn walk(&self, walker: &mut Walker) {
        let place = walker.effect(actions::ALTER, object("type", &self.type_name));
        // DROP NOT NULL, DROP CONSTRAINT, SET and DROP DEFAULT: see AlterDomainStmt of parsenodes.h.
        let harmless = match &*self.subtype {
            "N" | "X" => true,
            "T" => !computes(self.def.as_deref()),
            _ => false,
        };
        if !harmless {
            walker.is_opaque(place);
        }
        self.fields(walker);
    }
}

// Relations.

impl Walk for pg::AlterTableStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { relation, cmds, objtype: _, missing_ok: _ } = self;
        let (kind, word) = kind(self.objtype());
        let altered = object(kind, relation);
        let commands: Vec<&str> = cmds.iter().filter_map(command).collect();
        let place = walker.effect_with(
            actions::ALTER,
            altered,
            [("type", json!(word)), ("commands", json!(commands))],
        );
        // Tables of a composite type change with it.
        let retypes = |node: &pg::Node| command(node) == Some(RETYPES);
        if cmds.iter().any(gives_values_another_place)
            || (kind == "type" && cmds.iter().any(retypes))
        {
            walker.is_opaque(place);
        }
        if let Some(relation) = relation {
            for command in cmds {
                drops_column(command, relation, walker);
            }
        }
        let own =
            relation.iter().map(|relation| named(relation, vec![walker.written(table(relation))]));
        let own = own.collect();
        walker.in_scope(own, |walker| cmds.walk(walker));
    }
}

/// ALTER ATTRIBUTE … TYPE, as ALTER COLUMN … TYPE.
const RETYPES: &str = "AT_AlterColumnType";

/// The server's own word for a command of ALTER TABLE: `AT_DropColumn`.
fn command(node: &pg::Node) -> Option<&'static str> {
    match &node.node {
        Some(NodeEnum::AlterTableCmd(command)) => Some(command.subtype().as_str_name()),
        _ => None,
    }
}

/// Whether a part of ALTER TABLE lets values come out under another name than before: a column
/// made from others (`ALTER … USING`, a generated column), or another table above or below.
fn gives_values_another_place(node: &pg::Node) -> bool {
    use AlterTableType as Type;
    let Some(NodeEnum::AlterTableCmd(command)) = &node.node else { return false };
    let column = match command.def.as_deref().and_then(|def| def.node.as_ref()) {
        Some(NodeEnum::ColumnDef(column)) => Some(column),
        _ => None,
    };
    match command.subtype() {
        Type::AtAddInherit
        | Type::AtDropInherit
        | Type::AtAttachPartition
        | Type::AtDetachPartition
        | Type::AtDetachPartitionFinalize
        | Type::AtSetExpression => true,
        Type::AtAlterColumnType => column.is_some_and(|column| column.raw_default.is_some()),
        Type::AtAddColumn => column.is_some_and(|column| {
            column.constraints.iter().any(|constraint| {
                matches!(&constraint.node, Some(NodeEnum::Constraint(constraint))
                    if constraint.contype() == pg::ConstrType::ConstrGenerated)
            })
        }),
        _ => false,
    }
}

fn drops_column(node: &pg::Node, relation: &pg::RangeVar, walker: &mut Walker) {
    if let Some(NodeEnum::AlterTableCmd(command)) = &node.node
        && command.subtype() == AlterTableType::AtDropColumn
    {
        walker.effect(actions::DROP, within("column", relation, &command.name));
    }
}

impl Walk for pg::AlterTableCmd {
    fn walk(&self, walker: &mut Walker) {
        // INHERIT names the parent.
        if let Some(NodeEnum::RangeVar(parent)) =
            self.def.as_ref().and_then(|def| def.node.as_ref())
        {
            walker.effect(actions::REFERENCES, Some(table(parent)));
        } else {
            self.fields(walker);
        }
    }
}

/// ATTACH and DETACH PARTITION.
impl Walk for pg::PartitionCmd {
    fn walk(&self, walker: &mut Walker) {
        walker.effect(actions::REFERENCES, object("table", &self.name));
        self.bound.walk(walker);
    }
}

impl Walk for pg::AlterSeqStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { sequence, options, for_identity: _, missing_ok: _ } = self;
        let word = [("type", json!("sequence"))];
        walker.effect_with(actions::ALTER, object("table", sequence), word);
        options.walk(walker);
    }
}

impl Walk for pg::AlterPolicyStmt {
    fn walk(&self, walker: &mut Walker) {
        if let Some(relation) = &self.table {
            walker.effect(actions::ALTER, within("policy", relation, &self.policy_name));
            walker.effect(actions::ALTER, Some(table(relation)));
        }
        self.qual.walk(walker);
        self.with_check.walk(walker);
    }
}

// Any object.

/// An effect on the object that a statement names by type; what belongs to a table changes it.
fn on_object(walker: &mut Walker, action: Action, of: ObjectType, named: Option<&pg::Node>) {
    let (kind, word) = kind(of);
    let Some(named) = named else { return };
    walker.effect_with(action, object_of(kind, named), [("type", json!(word))]);
    if ["column", "constraint", "policy", "rule", "trigger"].contains(&kind) {
        let mut parts = named.parts();
        parts.pop();
        let holder = if of == ObjectType::ObjectAttribute { "type" } else { "table" };
        walker.effect(actions::ALTER, Some(Object::new(holder, parts)));
    }
}

impl Walk for pg::DropStmt {
    fn walk(&self, walker: &mut Walker) {
        let cascade = self.behavior() == pg::DropBehavior::DropCascade;
        for dropped in &self.objects {
            on_object(walker, actions::DROP, self.remove_type(), Some(dropped));
            if cascade {
                // What hangs on a schema are the tables in it; otherwise it could be any.
                let of_schema = self.remove_type() == ObjectType::ObjectSchema;
                let schema = if of_schema { dropped.parts().pop().flatten() } else { None };
                let hanging = Object::new("table", [schema, None]);
                walker.effect_with(actions::DROP, Some(hanging), [("cascade", json!(true))]);
            }
        }
    }
}

impl Walk for pg::CommentStmt {
    fn walk(&self, walker: &mut Walker) {
        comments_on(walker, actions::COMMENT, self.objtype(), self.object.as_deref());
    }
}

impl Walk for pg::SecLabelStmt {
    fn walk(&self, walker: &mut Walker) {
        comments_on(walker, actions::SECURITY_LABEL, self.objtype(), self.object.as_deref());
    }
}

/// A comment on a column or a trigger does not change the table.
fn comments_on(walker: &mut Walker, action: Action, of: ObjectType, on: Option<&pg::Node>) {
    let (kind, word) = kind(of);
    if let Some(on) = on {
        walker.effect_with(action, object_of(kind, on), [("type", json!(word))]);
    }
}

impl Walk for pg::RenameStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self {
            rename_type: _,
            relation_type: _,
            relation,
            object: named,
            subname,
            newname: _,
            behavior: _,
            missing_ok: _,
        } = self;
        let (kind, word) = kind(self.rename_type());
        match (relation, named) {
            (Some(relation), _) => {
                // A column, a trigger … of the relation goes by `subname`.
                let renamed = match self.rename_type() {
                    ObjectType::ObjectColumn | ObjectType::ObjectAttribute => {
                        within("column", relation, subname)
                    }
                    _ if ["constraint", "policy", "rule", "trigger"].contains(&kind) => {
                        within(kind, relation, subname)
                    }
                    _ => object(kind, relation),
                };
                let place = walker.effect_with(actions::ALTER, renamed, [("type", json!(word))]);
                gives_name(kind, place, walker);
                if kind != "table" {
                    let place = walker.effect(actions::ALTER, Some(table(relation)));
                    gives_name(kind, place, walker);
                }
            }
            (None, Some(named)) => {
                on_object(walker, actions::ALTER, self.rename_type(), Some(named));
            }
            // Roles, databases, schemas … have a plain name.
            (None, None) => {
                let renamed = object(kind, subname);
                let place = walker.effect_with(actions::ALTER, renamed, [("type", json!(word))]);
                gives_name(kind, place, walker);
            }
        }
    }
}

/// Statements about a relation, or else about an object of some type.
/// Rows and values go by another name afterwards, which rules and masks may not have.
fn gives_name(kind: &str, place: usize, walker: &mut Walker) {
    if ["column", "schema", "table"].contains(&kind) {
        walker.is_opaque(place);
    }
}

macro_rules! about_relation_or_object {
    ($($statement:ident by $of:ident moves $moves:literal;)*) => {
        $(impl Walk for pg::$statement {
            fn walk(&self, walker: &mut Walker) {
                match &self.relation {
                    Some(relation) => {
                        let place = walker.effect(actions::ALTER, Some(table(relation)));
                        if $moves {
                            walker.is_opaque(place);
                        }
                    }
                    None => on_object(walker, actions::ALTER, self.$of(), self.object.as_deref()),
                }
            }
        })*
    };
}

about_relation_or_object! {
    AlterOwnerStmt by object_type moves false;
    AlterObjectSchemaStmt by object_type moves true;
    AlterObjectDependsStmt by object_type moves false;
}

// Roles and rights.

impl Walk for pg::DropRoleStmt {
    fn walk(&self, walker: &mut Walker) {
        for role in &self.roles {
            walker.effect(actions::DROP, object("role", role));
        }
    }
}

impl Walk for pg::DropOwnedStmt {
    fn walk(&self, walker: &mut Walker) {
        for role in &self.roles {
            walker.effect_with(actions::DROP, object("role", role), [("owned", json!(true))]);
        }
        let owned = Some(Object::new("table", []));
        walker.effect_with(actions::DROP, owned, [("owned", json!(true))]);
    }
}

impl Walk for pg::ReassignOwnedStmt {
    fn walk(&self, walker: &mut Walker) {
        for role in self.roles.iter().map(|role| object("role", role)) {
            walker.effect_with(actions::ALTER, role, [("owned", json!(true))]);
        }
        walker.effect(actions::ALTER, object("role", &self.newrole));
    }
}

fn roles(list: &[pg::Node]) -> Value {
    let name = |role: &pg::Node| role.parts().pop().flatten().unwrap_or_else(|| "?".to_owned());
    list.iter().map(name).collect()
}

impl Walk for pg::GrantStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self {
            is_grant,
            targtype: _,
            objtype: _,
            objects,
            privileges,
            grantees,
            grant_option,
            grantor: _,
            behavior: _,
        } = self;
        let action = if *is_grant { actions::GRANT } else { actions::REVOKE };
        if !walker.may_spend(objects.len().saturating_mul(grantees.len() + privileges.len())) {
            return;
        }
        let rights = rights(privileges);
        let attributes = || {
            [
                ("privileges", rights.clone()),
                ("grantees", roles(grantees)),
                ("grant_option", json!(grant_option)),
            ]
        };
        let (kind, _) = kind(self.objtype());
        let of_schema = self.targtype() == pg::GrantTargetType::AclTargetAllInSchema;
        for target in objects {
            // ALL TABLES IN SCHEMA names schemas.
            let target = if of_schema {
                Some(Object::new(kind, target.parts().into_iter().chain([None])))
            } else {
                object(kind, target)
            };
            let place = walker.effect_with(action, target, attributes());
            for right in privileges {
                if let Some(NodeEnum::AccessPriv(right)) = &right.node {
                    walker.columns(place, names(&right.cols));
                }
            }
        }
        if objects.is_empty() {
            walker.effect_with(action, Some(Object::new(kind, [])), attributes());
        }
    }
}

/// The words of a GRANT, `all` for ALL.
fn rights(privileges: &[pg::Node]) -> Value {
    if privileges.is_empty() {
        return json!(["all"]);
    }
    let word = |node: &pg::Node| match &node.node {
        Some(NodeEnum::AccessPriv(right)) if !right.priv_name.is_empty() => {
            Some(right.priv_name.clone())
        }
        // ALL (column, …).
        _ => Some("all".to_owned()),
    };
    privileges.iter().filter_map(word).collect()
}

impl Walk for pg::GrantRoleStmt {
    fn walk(&self, walker: &mut Walker) {
        let action = if self.is_grant { actions::GRANT } else { actions::REVOKE };
        if !walker.may_spend(self.granted_roles.len().saturating_mul(self.grantee_roles.len())) {
            return;
        }
        for granted in &self.granted_roles {
            let role = match &granted.node {
                Some(NodeEnum::AccessPriv(role)) => object("role", &role.priv_name),
                _ => object("role", granted),
            };
            walker.effect_with(action, role, [("grantees", roles(&self.grantee_roles))]);
        }
    }
}

impl Walk for pg::AlterDefaultPrivilegesStmt {
    fn walk(&self, walker: &mut Walker) {
        let Self { options, action } = self;
        for option in options {
            if let Some(NodeEnum::DefElem(option)) = &option.node
                && option.defname == "schemas"
                && let Some(NodeEnum::List(schemas)) =
                    option.arg.as_ref().and_then(|a| a.node.as_ref())
            {
                for schema in names(&schemas.items) {
                    walker.effect(actions::ALTER, object("schema", &schema));
                }
            }
        }
        action.walk(walker);
    }
}
