//! The walk over a raw parse tree: every field of every node, held by the compiler.
//!
//! The table below takes each kind of node apart by all its fields, so that a field or a kind that
//! a new version of the grammar brings does not compile until it stands here. Kinds under `plain`
//! mean nothing by themselves: the walk goes on into each field. What the others mean is written
//! by hand, in [`super::query`] and its neighbours, as their [`Walk`].

use pg_query::NodeEnum;
use pg_query::protobuf as pg;

use super::walker::Walker;

/// What tells a walker all that it holds.
pub(super) trait Walk {
    fn walk(&self, walker: &mut Walker);
}

/// A node of many fields.
pub(super) trait Fields {
    /// Walks into every field.
    fn fields(&self, walker: &mut Walker);
}

impl<T: Walk> Walk for Option<T> {
    fn walk(&self, walker: &mut Walker) {
        if let Some(inner) = self {
            inner.walk(walker);
        }
    }
}

impl<T: Walk> Walk for Vec<T> {
    fn walk(&self, walker: &mut Walker) {
        for item in self {
            item.walk(walker);
        }
    }
}

impl<T: Walk> Walk for Box<T> {
    fn walk(&self, walker: &mut Walker) {
        (**self).walk(walker);
    }
}

macro_rules! nothing_in {
    ($($leaf:ty)*) => {
        $(impl Walk for $leaf {
            fn walk(&self, _: &mut Walker) {}
        })*
    };
}

nothing_in! { bool i32 i64 u32 String pg::String }

/// Changes a raw tree where it needs to.
pub(super) trait Editor {
    /// Looks at a node; says whether to go on into its fields.
    fn node(&mut self, node: &mut pg::Node) -> bool;

    /// Looks at a place in the text.
    fn location(&mut self, _: &mut i32) {}
}

/// What takes an editor through all that it holds.
pub(super) trait Edit {
    fn edit(&mut self, field: &'static str, editor: &mut dyn Editor);
}

impl<T: Edit> Edit for Option<T> {
    fn edit(&mut self, field: &'static str, editor: &mut dyn Editor) {
        if let Some(inner) = self {
            inner.edit(field, editor);
        }
    }
}

impl<T: Edit> Edit for Vec<T> {
    fn edit(&mut self, field: &'static str, editor: &mut dyn Editor) {
        for item in self {
            item.edit(field, editor);
        }
    }
}

impl<T: Edit> Edit for Box<T> {
    fn edit(&mut self, field: &'static str, editor: &mut dyn Editor) {
        (**self).edit(field, editor);
    }
}

impl Edit for i32 {
    fn edit(&mut self, field: &'static str, editor: &mut dyn Editor) {
        if field.ends_with("location")
            || field.ends_with("list_start")
            || field.ends_with("list_end")
        {
            editor.location(self);
        }
    }
}

macro_rules! nothing_to_edit {
    ($($leaf:ty)*) => {
        $(impl Edit for $leaf {
            fn edit(&mut self, _: &'static str, _: &mut dyn Editor) {}
        })*
    };
}

nothing_to_edit! { bool i64 u32 String pg::String }

/// Nodes that only analysis makes; in a raw tree they are a mistake.
macro_rules! never_in_a_raw_tree {
    ($($node:ty)*) => {
        $(impl Walk for $node {
            fn walk(&self, walker: &mut Walker) {
                walker.does_not_understand();
            }
        }
        nothing_to_edit! { $node })*
    };
}

never_in_a_raw_tree! { pg::FuncExpr pg::Query }

macro_rules! nodes {
    (
        plain { $($plain:ident $(as $plain_variant:ident)? { $($plain_field:ident),* })* }
        meaningful { $($node:ident $(as $variant:ident)? { $($field:ident),* })* }
    ) => {
        $(impl Walk for pg::$plain {
            fn walk(&self, walker: &mut Walker) {
                let Self { $($plain_field),* } = self;
                let _ = &walker;
                $($plain_field.walk(walker);)*
            }
        })*
        $(impl Fields for pg::$node {
            fn fields(&self, walker: &mut Walker) {
                let Self { $($field),* } = self;
                let _ = &walker;
                $($field.walk(walker);)*
            }
        })*
        $(impl Edit for pg::$plain {
            fn edit(&mut self, _: &'static str, editor: &mut dyn Editor) {
                let Self { $($plain_field),* } = self;
                let _ = &editor;
                $($plain_field.edit(stringify!($plain_field), editor);)*
            }
        })*
        $(impl Edit for pg::$node {
            fn edit(&mut self, _: &'static str, editor: &mut dyn Editor) {
                let Self { $($field),* } = self;
                let _ = &editor;
                $($field.edit(stringify!($field), editor);)*
            }
        })*

        impl Edit for pg::Node {
            fn edit(&mut self, _: &'static str, editor: &mut dyn Editor) {
                if !editor.node(self) {
                    return;
                }
                match &mut self.node {
                    $(Some(nodes!(@variant node $plain $($plain_variant)?)) => node.edit("", editor),)*
                    $(Some(nodes!(@variant node $node $($variant)?)) => node.edit("", editor),)*
                    Some(NodeEnum::AConst(constant)) => constant.location.edit("location", editor),
                    _ => {}
                }
            }
        }

        impl Walk for pg::Node {
            fn walk(&self, walker: &mut Walker) {
                match &self.node {
                    $(Some(nodes!(@variant node $plain $($plain_variant)?)) => node.walk(walker),)*
                    $(Some(nodes!(@variant node $node $($variant)?)) => node.walk(walker),)*
                    None
                    | Some(
                        NodeEnum::AConst(_)
                        | NodeEnum::BitString(_)
                        | NodeEnum::Boolean(_)
                        | NodeEnum::Float(_)
                        | NodeEnum::Integer(_)
                        | NodeEnum::String(_),
                    ) => {}
                    // What only analysis makes.
                    Some(_) => walker.does_not_understand(),
                }
            }
        }
    };
    (@variant $bound:ident $node:ident) => { NodeEnum::$node($bound) };
    (@variant $bound:ident $node:ident $variant:ident) => { NodeEnum::$variant($bound) };
}

nodes! {
    plain {
        AArrayExpr { elements, list_start, list_end, location }
        AExpr { kind, name, lexpr, rexpr, rexpr_list_start, rexpr_list_end, location }
        AIndices { is_slice, lidx, uidx }
        AIndirection { arg, indirection }
        AStar {}
        AccessPriv { priv_name, cols }
        Alias { aliasname, colnames }
        AtAlterConstraint as AtalterConstraint {
            conname, alter_enforceability, is_enforced, alter_deferrability, deferrable,
            initdeferred, alter_inheritability, noinherit
        }
        BoolExpr { xpr, boolop, args, location }
        BooleanTest { xpr, arg, booltesttype, location }
        CaseExpr { xpr, casetype, casecollid, arg, args, defresult, location }
        CaseWhen { xpr, expr, result, location }
        CoalesceExpr { xpr, coalescetype, coalescecollid, args, location }
        CollateClause { arg, collname, location }
        CollateExpr { xpr, arg, coll_oid, location }
        ColumnDef {
            colname, type_name, compression, inhcount, is_local, is_not_null, is_from_type, storage,
            storage_name, raw_default, cooked_default, identity, identity_sequence, generated,
            coll_clause, coll_oid, constraints, fdwoptions, location
        }
        CommonTableExpr {
            ctename, aliascolnames, ctematerialized, ctequery, search_clause, cycle_clause,
            location, cterecursive, cterefcount, ctecolnames, ctecoltypes, ctecoltypmods,
            ctecolcollations
        }
        CteCycleClause as CtecycleClause {
            cycle_col_list, cycle_mark_column, cycle_mark_value, cycle_mark_default,
            cycle_path_column, location, cycle_mark_type, cycle_mark_typmod, cycle_mark_collation,
            cycle_mark_neop
        }
        CteSearchClause as CtesearchClause {
            search_col_list, search_breadth_first, search_seq_column, location
        }
        FunctionParameter { name, arg_type, mode, defexpr, location }
        GroupingFunc { xpr, args, refs, agglevelsup, location }
        GroupingSet { kind, content, location }
        IndexElem {
            name, expr, indexcolname, collation, opclass, opclassopts, ordering, nulls_ordering
        }
        InferClause { index_elems, where_clause, conname, location }
        JsonAggConstructor { output, agg_filter, agg_order, over, location }
        JsonArgument { val, name }
        JsonArrayAgg { constructor, arg, absent_on_null }
        JsonArrayConstructor { exprs, output, absent_on_null, location }
        JsonArrayQueryConstructor { query, output, format, absent_on_null, location }
        JsonBehavior { btype, expr, coerce, location }
        JsonFormat { format_type, encoding, location }
        JsonFuncExpr {
            op, column_name, context_item, pathspec, passing, output, on_empty, on_error, wrapper,
            quotes, location
        }
        JsonIsPredicate { expr, format, item_type, unique_keys, location }
        JsonKeyValue { key, value }
        JsonObjectAgg { constructor, arg, absent_on_null, unique }
        JsonObjectConstructor { exprs, output, absent_on_null, unique, location }
        JsonOutput { type_name, returning }
        JsonParseExpr { expr, output, unique_keys, location }
        JsonReturning { format, typid, typmod }
        JsonScalarExpr { expr, output, location }
        JsonSerializeExpr { expr, output, location }
        JsonTable { context_item, pathspec, passing, columns, on_error, alias, lateral, location }
        JsonTableColumn {
            coltype, name, type_name, pathspec, format, wrapper, quotes, columns, on_empty,
            on_error, location
        }
        JsonTablePathSpec { string, name, name_location, location }
        JsonValueExpr { raw_expr, formatted_expr, format }
        List { items }
        MergeSupportFunc { xpr, msftype, msfcollid, location }
        MergeWhenClause { match_kind, command_type, r#override, condition, target_list, values }
        MinMaxExpr { xpr, minmaxtype, minmaxcollid, inputcollid, op, args, location }
        MultiAssignRef { source, colno, ncolumns }
        NamedArgExpr { xpr, arg, name, argnumber, location }
        NullTest { xpr, arg, nulltesttype, argisrow, location }
        ObjectWithArgs { objname, objargs, objfuncargs, args_unspecified }
        OnConflictClause { action, infer, target_list, where_clause, location }
        ParamRef { number, location }
        PartitionBoundSpec {
            strategy, is_default, modulus, remainder, listdatums, lowerdatums, upperdatums, location
        }
        PartitionElem { name, expr, collation, opclass, location }
        PartitionRangeDatum { kind, value, location }
        PartitionSpec { strategy, part_params, location }
        PublicationObjSpec { pubobjtype, name, pubtable, location }
        PublicationTable { relation, where_clause, columns }
        RangeFunction { lateral, ordinality, is_rowsfrom, functions, alias, coldeflist }
        RangeSubselect { lateral, subquery, alias }
        RangeTableFunc { lateral, docexpr, rowexpr, namespaces, columns, alias, location }
        RangeTableFuncCol {
            colname, type_name, for_ordinality, is_not_null, colexpr, coldefexpr, location
        }
        ReplicaIdentityStmt { identity_type, name }
        ResTarget { name, indirection, val, location }
        ReturnStmt { returnval }
        ReturningClause { options, exprs }
        ReturningOption { option, value, location }
        RoleSpec { roletype, rolename, location }
        RowExpr { xpr, args, row_typeid, row_format, colnames, location }
        SetToDefault { xpr, type_id, type_mod, collation, location }
        SortBy { node, sortby_dir, sortby_nulls, use_op, location }
        SqlValueFunction as SqlvalueFunction { xpr, op, r#type, typmod, location }
        StatsElem { name, expr }
        SubLink { xpr, sub_link_type, sub_link_id, testexpr, oper_name, subselect, location }
        TriggerTransition { name, is_new, is_table }
        TypeName { names, type_oid, setof, pct_type, typmods, typemod, array_bounds, location }
        VacuumRelation { relation, oid, va_cols }
        WindowDef {
            name, refname, partition_clause, order_clause, frame_options, start_offset, end_offset,
            location
        }
        XmlExpr {
            xpr, op, name, named_args, arg_names, args, xmloption, indent, r#type, typmod, location
        }
        XmlSerialize { xmloption, expr, type_name, indent, location }
    }
    meaningful {
        AlterCollationStmt { collname }
        AlterDatabaseRefreshCollStmt { dbname }
        AlterDatabaseSetStmt { dbname, setstmt }
        AlterDatabaseStmt { dbname, options }
        AlterDefaultPrivilegesStmt { options, action }
        AlterDomainStmt { subtype, type_name, name, def, behavior, missing_ok }
        AlterEnumStmt {
            type_name, old_val, new_val, new_val_neighbor, new_val_is_after, skip_if_new_val_exists
        }
        AlterEventTrigStmt { trigname, tgenabled }
        AlterExtensionContentsStmt { extname, action, objtype, object }
        AlterExtensionStmt { extname, options }
        AlterFdwStmt { fdwname, func_options, options }
        AlterForeignServerStmt { servername, version, options, has_version }
        AlterFunctionStmt { objtype, func, actions }
        AlterObjectDependsStmt { object_type, relation, object, extname, remove }
        AlterObjectSchemaStmt { object_type, relation, object, newschema, missing_ok }
        AlterOpFamilyStmt { opfamilyname, amname, is_drop, items }
        AlterOperatorStmt { opername, options }
        AlterOwnerStmt { object_type, relation, object, newowner }
        AlterPolicyStmt { policy_name, table, roles, qual, with_check }
        AlterPublicationStmt { pubname, options, pubobjects, for_all_tables, action }
        AlterRoleSetStmt { role, database, setstmt }
        AlterRoleStmt { role, options, action }
        AlterSeqStmt { sequence, options, for_identity, missing_ok }
        AlterStatsStmt { defnames, stxstattarget, missing_ok }
        AlterSubscriptionStmt { kind, subname, conninfo, publication, options, conninfo_location }
        AlterSystemStmt { setstmt }
        AlterTableCmd { subtype, name, num, newowner, def, behavior, missing_ok, recurse }
        AlterTableMoveAllStmt { orig_tablespacename, objtype, roles, new_tablespacename, nowait }
        AlterTableSpaceOptionsStmt { tablespacename, options, is_reset }
        AlterTableStmt { relation, cmds, objtype, missing_ok }
        AlterTsConfigurationStmt as AlterTsconfigurationStmt {
            kind, cfgname, tokentype, dicts, r#override, replace, missing_ok
        }
        AlterTsDictionaryStmt as AlterTsdictionaryStmt { dictname, options }
        AlterTypeStmt { type_name, options }
        AlterUserMappingStmt { user, servername, options }
        CallStmt { funccall, funcexpr, outargs }
        CheckPointStmt {}
        ClosePortalStmt { portalname }
        ClusterStmt { relation, indexname, params }
        ColumnRef { fields, location }
        CommentStmt { objtype, object, comment }
        CompositeTypeStmt { typevar, coldeflist }
        Constraint {
            contype, conname, deferrable, initdeferred, is_enforced, skip_validation,
            initially_valid, is_no_inherit, raw_expr, cooked_expr, generated_when, generated_kind,
            nulls_not_distinct, keys, without_overlaps, including, exclusions, options, indexname,
            indexspace, reset_default_tblspc, access_method, where_clause, pktable, fk_attrs,
            pk_attrs, fk_with_period, pk_with_period, fk_matchtype, fk_upd_action, fk_del_action,
            fk_del_set_cols, old_conpfeqop, old_pktable_oid, location
        }
        ConstraintsSetStmt { constraints, deferred }
        CopyStmt { relation, query, attlist, is_from, is_program, filename, options, where_clause }
        CreateAmStmt { amname, handler_name, amtype }
        CreateCastStmt { sourcetype, targettype, func, context, inout }
        CreateConversionStmt {
            conversion_name, for_encoding_name, to_encoding_name, func_name, def
        }
        CreateDomainStmt { domainname, type_name, coll_clause, constraints }
        CreateEnumStmt { type_name, vals }
        CreateEventTrigStmt { trigname, eventname, whenclause, funcname }
        CreateExtensionStmt { extname, if_not_exists, options }
        CreateFdwStmt { fdwname, func_options, options }
        CreateForeignServerStmt { servername, servertype, version, fdwname, if_not_exists, options }
        CreateForeignTableStmt { base_stmt, servername, options }
        CreateFunctionStmt {
            is_procedure, replace, funcname, parameters, return_type, options, sql_body
        }
        CreateOpClassItem { itemtype, name, number, order_family, class_args, storedtype }
        CreateOpClassStmt { opclassname, opfamilyname, amname, datatype, items, is_default }
        CreateOpFamilyStmt { opfamilyname, amname }
        CreatePLangStmt as CreatePlangStmt {
            replace, plname, plhandler, plinline, plvalidator, pltrusted
        }
        CreatePolicyStmt { policy_name, table, cmd_name, permissive, roles, qual, with_check }
        CreatePublicationStmt { pubname, options, pubobjects, for_all_tables }
        CreateRangeStmt { type_name, params }
        CreateRoleStmt { stmt_type, role, options }
        CreateSchemaStmt { schemaname, authrole, schema_elts, if_not_exists }
        CreateSeqStmt { sequence, options, owner_id, for_identity, if_not_exists }
        CreateStatsStmt {
            defnames, stat_types, exprs, relations, stxcomment, transformed, if_not_exists
        }
        CreateStmt {
            relation, table_elts, inh_relations, partbound, partspec, of_typename, constraints,
            nnconstraints, options, oncommit, tablespacename, access_method, if_not_exists
        }
        CreateSubscriptionStmt { subname, conninfo, publication, options, conninfo_location }
        CreateTableAsStmt { query, into, objtype, is_select_into, if_not_exists }
        CreateTableSpaceStmt { tablespacename, owner, location, options }
        CreateTransformStmt { replace, type_name, lang, fromsql, tosql }
        CreateTrigStmt {
            replace, isconstraint, trigname, relation, funcname, args, row, timing, events, columns,
            when_clause, transition_rels, deferrable, initdeferred, constrrel
        }
        CreateUserMappingStmt { user, servername, if_not_exists, options }
        CreatedbStmt { dbname, options }
        CurrentOfExpr { xpr, cvarno, cursor_name, cursor_param }
        DeallocateStmt { name, isall, location }
        DeclareCursorStmt { portalname, options, query }
        DefElem { defnamespace, defname, arg, defaction, location, arg_location }
        DefineStmt { kind, oldstyle, defnames, args, definition, if_not_exists, replace }
        DeleteStmt { relation, using_clause, where_clause, returning_clause, with_clause }
        DiscardStmt { target }
        DoStmt { args }
        DropOwnedStmt { roles, behavior }
        DropRoleStmt { roles, missing_ok }
        DropStmt { objects, remove_type, behavior, missing_ok, concurrent }
        DropSubscriptionStmt { subname, missing_ok, behavior }
        DropTableSpaceStmt { tablespacename, missing_ok }
        DropUserMappingStmt { user, servername, missing_ok }
        DropdbStmt { dbname, missing_ok, options }
        ExecuteStmt { name, params }
        ExplainStmt { query, options }
        FetchStmt { direction, how_many, portalname, ismove }
        FuncCall {
            funcname, args, agg_order, agg_filter, over, agg_within_group, agg_star, agg_distinct,
            func_variadic, funcformat, location
        }
        GrantRoleStmt { granted_roles, grantee_roles, is_grant, opt, grantor, behavior }
        GrantStmt {
            is_grant, targtype, objtype, objects, privileges, grantees, grant_option, grantor,
            behavior
        }
        ImportForeignSchemaStmt {
            server_name, remote_schema, local_schema, list_type, table_list, options
        }
        IndexStmt {
            idxname, relation, access_method, table_space, index_params, index_including_params,
            options, where_clause, exclude_op_names, idxcomment, index_oid, old_number,
            old_create_subid, old_first_relfilelocator_subid, unique, nulls_not_distinct, primary,
            isconstraint, iswithoutoverlaps, deferrable, initdeferred, transformed, concurrent,
            if_not_exists, reset_default_tblspc
        }
        InsertStmt {
            relation, cols, select_stmt, on_conflict_clause, returning_clause, with_clause,
            r#override
        }
        IntoClause {
            rel, col_names, access_method, options, on_commit, table_space_name, view_query,
            skip_data
        }
        JoinExpr {
            jointype, is_natural, larg, rarg, using_clause, join_using_alias, quals, alias, rtindex
        }
        ListenStmt { conditionname }
        LoadStmt { filename }
        LockStmt { relations, mode, nowait }
        LockingClause { locked_rels, strength, wait_policy }
        MergeStmt {
            relation, source_relation, join_condition, merge_when_clauses, returning_clause,
            with_clause
        }
        NotifyStmt { conditionname, payload, payload_location }
        PartitionCmd { name, bound, concurrent }
        PrepareStmt { name, argtypes, query }
        RangeTableSample { relation, method, args, repeatable, location }
        RangeVar { catalogname, schemaname, relname, inh, relpersistence, alias, location }
        ReassignOwnedStmt { roles, newrole }
        RefreshMatViewStmt { concurrent, skip_data, relation }
        ReindexStmt { kind, relation, name, params }
        RenameStmt {
            rename_type, relation_type, relation, object, subname, newname, behavior, missing_ok
        }
        RuleStmt { relation, rulename, where_clause, event, instead, actions, replace }
        SecLabelStmt { objtype, object, provider, label }
        SelectStmt {
            distinct_clause, into_clause, target_list, from_clause, where_clause, group_clause,
            group_distinct, having_clause, window_clause, values_lists, sort_clause, limit_offset,
            limit_count, limit_option, locking_clause, with_clause, op, all, larg, rarg
        }
        TableLikeClause { relation, options, relation_oid }
        TransactionStmt { kind, options, savepoint_name, gid, chain, location }
        TruncateStmt { relations, restart_seqs, behavior }
        TypeCast { arg, type_name, location }
        UnlistenStmt { conditionname }
        UpdateStmt {
            relation, target_list, where_clause, from_clause, returning_clause, with_clause
        }
        VacuumStmt { options, rels, is_vacuumcmd }
        VariableSetStmt { kind, name, args, jumble_args, is_local, location }
        VariableShowStmt { name }
        ViewStmt { view, aliases, query, replace, options, with_check_option }
        WithClause { ctes, recursive, location }
    }
}
