//! Definitions that make the server compute with the values of masked columns, or look at them all.
//!
//! The server does what a definition asks for with the rows as they are stored, and says in an
//! error, in a number or in the order of rows what it found. So nothing that is not known to leave
//! the values alone is done to a table with masked columns.

use pg_query::NodeEnum;
use pg_query::protobuf::{self as pg, AlterTableType as Type, ConstrType};

use super::super::tree::{Edit, Editor};
use super::walk::Rewriter;
use super::writes::Written;
use super::{Refusal, Resolved, string};

const COMPUTED: Refusal = Refusal::of("masked columns are read by a definition of their table");
const CHECKED: Refusal = Refusal::of(
    "values of masked columns would be checked, converted or sorted by a change of their table",
);

/// Parts of ALTER TABLE that compute with no values of the table's, whatever column they name. What
/// changes a table's place in a tree of tables is refused elsewhere.
const HARMLESS: &[Type] = &[
    Type::AtAddInherit,
    Type::AtAttachPartition,
    Type::AtChangeOwner,
    Type::AtColumnDefault,
    Type::AtDetachPartition,
    Type::AtDetachPartitionFinalize,
    Type::AtDisableRowSecurity,
    Type::AtDisableRule,
    Type::AtDisableTrig,
    Type::AtDisableTrigAll,
    Type::AtDisableTrigUser,
    Type::AtDropCluster,
    Type::AtDropColumn,
    Type::AtDropConstraint,
    Type::AtDropExpression,
    Type::AtDropIdentity,
    Type::AtDropInherit,
    Type::AtDropNotNull,
    Type::AtDropOf,
    Type::AtEnableAlwaysRule,
    Type::AtEnableAlwaysTrig,
    Type::AtEnableReplicaRule,
    Type::AtEnableReplicaTrig,
    Type::AtEnableRowSecurity,
    Type::AtEnableRule,
    Type::AtEnableTrig,
    Type::AtEnableTrigAll,
    Type::AtEnableTrigUser,
    Type::AtForceRowSecurity,
    Type::AtNoForceRowSecurity,
    Type::AtReplicaIdentity,
    Type::AtResetOptions,
    Type::AtResetRelOptions,
    Type::AtSetAccessMethod,
    Type::AtSetCompression,
    Type::AtSetIdentity,
    Type::AtSetLogged,
    Type::AtSetOptions,
    Type::AtSetRelOptions,
    Type::AtSetStatistics,
    Type::AtSetStorage,
    Type::AtSetTableSpace,
    Type::AtSetUnLogged,
];

/// Parts of ALTER TABLE that look at the values of the column that they name, and no others.
const OF_COLUMN: &[Type] =
    &[Type::AtAddIdentity, Type::AtAlterColumnType, Type::AtSetExpression, Type::AtSetNotNull];

impl Rewriter<'_, '_> {
    /// Refuses a definition that computes with values of masked columns, or looks at them.
    pub(super) fn defines(&mut self, node: &mut NodeEnum) {
        match node {
            NodeEnum::AlterTableStmt(alter) => {
                let Some(written) = self.hiding(alter.relation.as_ref()) else { return };
                self.reads(&written, &mut alter.cmds);
                if alter.cmds.iter().any(|command| !leaves_values(command, &written)) {
                    self.refuse(CHECKED);
                }
            }
            NodeEnum::IndexStmt(index) => {
                let Some(written) = self.hiding(index.relation.as_ref()) else { return };
                self.reads(&written, &mut index.index_params);
                self.reads(&written, &mut index.index_including_params);
                self.reads(&written, &mut index.where_clause);
            }
            NodeEnum::CreateStatsStmt(statistics) => {
                for relation in statistics.relations.clone() {
                    let Some(NodeEnum::RangeVar(relation)) = &relation.node else { continue };
                    if let Some(written) = self.hiding(Some(relation)) {
                        self.reads(&written, &mut statistics.exprs);
                    }
                }
            }
            NodeEnum::CreatePolicyStmt(policy) => {
                let Some(written) = self.hiding(policy.table.as_ref()) else { return };
                self.reads(&written, &mut policy.qual);
                self.reads(&written, &mut policy.with_check);
            }
            NodeEnum::AlterPolicyStmt(policy) => {
                let Some(written) = self.hiding(policy.table.as_ref()) else { return };
                self.reads(&written, &mut policy.qual);
                self.reads(&written, &mut policy.with_check);
            }
            NodeEnum::CreateTrigStmt(trigger) => {
                let Some(written) = self.hiding(trigger.relation.as_ref()) else { return };
                self.reads(&written, &mut trigger.when_clause);
            }
            // Rows come out in the order of an index afterwards.
            NodeEnum::ClusterStmt(cluster) if self.hiding(cluster.relation.as_ref()).is_some() => {
                self.refuse(CHECKED);
            }
            NodeEnum::CreateStmt(table) => self.adds_partition(table),
            NodeEnum::CreateForeignTableStmt(foreign) => {
                if let Some(table) = &foreign.base_stmt {
                    self.adds_partition(table);
                }
            }
            _ => {}
        }
    }

    /// A table of which columns are masked.
    fn hiding(&mut self, table: Option<&pg::RangeVar>) -> Option<Written> {
        self.defined(table)?;
        let written = self.written(table)?;
        let hides = written.relation.names().any(|name| written.relation.hides(name));
        hides.then_some(written)
    }

    fn reads(&mut self, written: &Written, tree: &mut impl Edit) {
        if written.is_in(tree, self) {
            self.refuse(COMPUTED);
        }
    }

    /// A new partition: the rows of the default one are checked against its bound.
    fn adds_partition(&mut self, table: &pg::CreateStmt) {
        if table.partbound.is_none() {
            return;
        }
        for parent in &table.inh_relations {
            if let Some(NodeEnum::RangeVar(parent)) = &parent.node
                && self.hiding(Some(parent)).is_some()
            {
                self.refuse(CHECKED);
            }
        }
    }

    /// Refuses foreign keys to masked columns, wherever they stand in a definition.
    pub(super) fn refers(&mut self, node: &mut pg::Node) {
        let mut finder = Referring { rewriter: self, found: false };
        node.edit("", &mut finder);
        if finder.found {
            self.refuse(CHECKED);
        }
    }
}

struct Referring<'f, 'r, 's> {
    rewriter: &'f Rewriter<'r, 's>,
    found: bool,
}

impl Editor for Referring<'_, '_, '_> {
    fn node(&mut self, node: &mut pg::Node) -> bool {
        if let Some(NodeEnum::Constraint(key)) = &node.node
            && let Some(table) = &key.pktable
        {
            self.found |= match self.rewriter.resolve(table) {
                _ if self.rewriter.schema(table).is_some() => true,
                Resolved::Clear => false,
                Resolved::Unclear => true,
                Resolved::Masked(relation) if key.pk_attrs.is_empty() => {
                    relation.key().iter().any(|name| relation.hides(name))
                }
                Resolved::Masked(relation) => {
                    key.pk_attrs.iter().filter_map(string).any(|name| relation.hides(name))
                }
            };
        }
        true
    }
}

/// Whether a part of ALTER TABLE leaves the values of masked columns alone, beside expressions in
/// it.
fn leaves_values(node: &pg::Node, written: &Written) -> bool {
    let Some(NodeEnum::AlterTableCmd(command)) = &node.node else { return false };
    let (kind, clear) = (command.subtype(), |name: &str| !written.relation.hides(name));
    if HARMLESS.contains(&kind) {
        return true;
    }
    match (kind, command.def.as_deref().and_then(|def| def.node.as_ref())) {
        // IF NOT EXISTS: it may be there.
        (Type::AtAddColumn, Some(NodeEnum::ColumnDef(column))) => clear(&column.colname),
        (Type::AtAddConstraint, Some(NodeEnum::Constraint(constraint))) => {
            checks_clear(constraint, clear)
        }
        (kind, _) => OF_COLUMN.contains(&kind) && clear(&command.name),
    }
}

/// Whether a constraint is about columns that are not masked; expressions are looked at elsewhere.
fn checks_clear(constraint: &pg::Constraint, clear: impl Fn(&str) -> bool) -> bool {
    let kinds = [
        ConstrType::ConstrCheck,
        ConstrType::ConstrExclusion,
        ConstrType::ConstrForeign,
        ConstrType::ConstrNotnull,
        ConstrType::ConstrPrimary,
        ConstrType::ConstrUnique,
    ];
    let columns = [&constraint.keys, &constraint.including, &constraint.fk_attrs];
    // USING INDEX does not say which columns.
    kinds.contains(&constraint.contype())
        && constraint.indexname.is_empty()
        && columns.into_iter().flatten().all(|column| string(column).is_some_and(&clear))
}
