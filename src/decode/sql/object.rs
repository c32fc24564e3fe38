//! Names in the tree, as objects of effects.

use pg_query::NodeEnum;
use pg_query::protobuf::{self as pg, ObjectType, RoleSpecType};

use super::walker::{name, names};
use crate::policy::Object;

/// What names an object, or some parts of the name.
pub(super) trait Named {
    /// The parts of the name, outermost first.
    fn parts(&self) -> Vec<Option<String>>;
}

/// The object of a kind that `named` names.
pub(super) fn object(kind: &'static str, named: &(impl Named + ?Sized)) -> Option<Object> {
    Some(Object::new(kind, named.parts()))
}

/// The object that a statement about objects of any type names.
pub(super) fn object_of(kind: &'static str, named: &impl Named) -> Option<Object> {
    let mut parts = named.parts();
    if kind.starts_with("operator-") {
        // The index method comes first.
        parts = parts.split_off(1.min(parts.len()));
    }
    Some(Object::new(kind, parts))
}

/// The table that a name in the tree names.
pub(super) fn table(named: &(impl Named + ?Sized)) -> Object {
    Object::new("table", named.parts())
}

/// What belongs to a table: a trigger, a rule, a policy, a column.
pub(super) fn within(kind: &'static str, table: &impl Named, name: &str) -> Option<Object> {
    let mut parts = table.parts();
    parts.push(Some(name.to_owned()));
    Some(Object::new(kind, parts))
}

impl Named for String {
    fn parts(&self) -> Vec<Option<String>> {
        vec![(!self.is_empty()).then(|| self.clone())]
    }
}

impl Named for &str {
    fn parts(&self) -> Vec<Option<String>> {
        vec![Some((*self).to_owned())]
    }
}

impl Named for pg::RangeVar {
    fn parts(&self) -> Vec<Option<String>> {
        let schema = (!self.schemaname.is_empty()).then(|| self.schemaname.clone());
        vec![schema, Some(self.relname.clone())]
    }
}

impl Named for pg::RoleSpec {
    fn parts(&self) -> Vec<Option<String>> {
        vec![match self.roletype() {
            RoleSpecType::RolespecCstring => Some(self.rolename.clone()),
            RoleSpecType::RolespecPublic => Some("public".to_owned()),
            _ => None,
        }]
    }
}

impl Named for pg::ObjectWithArgs {
    fn parts(&self) -> Vec<Option<String>> {
        self.objname.parts()
    }
}

impl Named for pg::TypeName {
    fn parts(&self) -> Vec<Option<String>> {
        self.names.parts()
    }
}

impl Named for [pg::Node] {
    fn parts(&self) -> Vec<Option<String>> {
        names(self).into_iter().map(|name| Some(name.to_owned())).collect()
    }
}

/// A node in a list of objects: a name, a list of names, a type, a function with arguments.
impl Named for pg::Node {
    fn parts(&self) -> Vec<Option<String>> {
        match &self.node {
            Some(NodeEnum::String(name)) => name.sval.parts(),
            Some(NodeEnum::List(list)) => match list.items.as_slice() {
                // A cast goes by the type that it makes.
                [from, to] if name(from).is_none() && name(to).is_none() => to.parts(),
                // A constraint of a domain, a transform for a type.
                [first, ..] if name(first).is_none() => first.parts(),
                _ => list.items.parts(),
            },
            Some(NodeEnum::TypeName(name)) => name.parts(),
            Some(NodeEnum::ObjectWithArgs(object)) => object.parts(),
            Some(NodeEnum::RangeVar(relation)) => relation.parts(),
            Some(NodeEnum::RoleSpec(role)) => role.parts(),
            Some(NodeEnum::Integer(number)) => vec![Some(number.ival.to_string())],
            Some(NodeEnum::Float(number)) => vec![Some(number.fval.clone())],
            _ => vec![None],
        }
    }
}

impl Named for Vec<pg::Node> {
    fn parts(&self) -> Vec<Option<String>> {
        self.as_slice().parts()
    }
}

impl<T: Named> Named for Option<T> {
    fn parts(&self) -> Vec<Option<String>> {
        self.as_ref().map_or_else(|| vec![None], Named::parts)
    }
}

impl<T: Named> Named for Box<T> {
    fn parts(&self) -> Vec<Option<String>> {
        (**self).parts()
    }
}

/// The kind of object that the grammar's type means, and the word that it had in the statement
/// where that says more.
///
/// Everything that SELECT can read is a `table`, for a statement need not say what it is.
pub(super) fn kind(of: ObjectType) -> (&'static str, &'static str) {
    match of {
        ObjectType::ObjectTable => ("table", "table"),
        ObjectType::ObjectView => ("table", "view"),
        ObjectType::ObjectMatview => ("table", "materialized-view"),
        ObjectType::ObjectForeignTable => ("table", "foreign-table"),
        ObjectType::ObjectSequence => ("table", "sequence"),
        ObjectType::ObjectIndex => ("index", "index"),
        ObjectType::ObjectColumn | ObjectType::ObjectAttribute => ("column", "column"),
        ObjectType::ObjectRule => ("rule", "rule"),
        ObjectType::ObjectTrigger => ("trigger", "trigger"),
        ObjectType::ObjectPolicy => ("policy", "policy"),
        ObjectType::ObjectTabconstraint => ("constraint", "constraint"),
        ObjectType::ObjectFunction => ("function", "function"),
        ObjectType::ObjectProcedure => ("function", "procedure"),
        ObjectType::ObjectRoutine => ("function", "routine"),
        ObjectType::ObjectAggregate => ("function", "aggregate"),
        ObjectType::ObjectType => ("type", "type"),
        ObjectType::ObjectDomain | ObjectType::ObjectDomconstraint => ("type", "domain"),
        ObjectType::ObjectOperator => ("operator", "operator"),
        ObjectType::ObjectOpclass => ("operator-class", "operator-class"),
        ObjectType::ObjectOpfamily => ("operator-family", "operator-family"),
        ObjectType::ObjectCollation => ("collation", "collation"),
        ObjectType::ObjectConversion => ("conversion", "conversion"),
        ObjectType::ObjectStatisticExt => ("statistics", "statistics"),
        ObjectType::ObjectTsconfiguration => ("text-search", "configuration"),
        ObjectType::ObjectTsdictionary => ("text-search", "dictionary"),
        ObjectType::ObjectTsparser => ("text-search", "parser"),
        ObjectType::ObjectTstemplate => ("text-search", "template"),
        ObjectType::ObjectSchema => ("schema", "schema"),
        ObjectType::ObjectDatabase => ("database", "database"),
        ObjectType::ObjectRole => ("role", "role"),
        ObjectType::ObjectTablespace => ("tablespace", "tablespace"),
        ObjectType::ObjectExtension => ("extension", "extension"),
        ObjectType::ObjectLanguage => ("language", "language"),
        ObjectType::ObjectFdw => ("foreign-data-wrapper", "foreign-data-wrapper"),
        ObjectType::ObjectForeignServer => ("server", "server"),
        ObjectType::ObjectUserMapping => ("user-mapping", "user-mapping"),
        ObjectType::ObjectEventTrigger => ("event-trigger", "event-trigger"),
        ObjectType::ObjectPublication
        | ObjectType::ObjectPublicationNamespace
        | ObjectType::ObjectPublicationRel => ("publication", "publication"),
        ObjectType::ObjectSubscription => ("subscription", "subscription"),
        ObjectType::ObjectAccessMethod => ("access-method", "access-method"),
        ObjectType::ObjectCast => ("cast", "cast"),
        ObjectType::ObjectTransform => ("transform", "transform"),
        ObjectType::ObjectLargeobject => ("large-object", "large-object"),
        ObjectType::ObjectParameterAcl => ("setting", "setting"),
        ObjectType::ObjectAmop
        | ObjectType::ObjectAmproc
        | ObjectType::ObjectDefault
        | ObjectType::ObjectDefacl
        | ObjectType::Undefined => ("other", "other"),
    }
}
