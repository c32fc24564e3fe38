//! Comparisons of a statement's own that stand beside a filter's condition, too, so that the server
//! can use an index for them.
//!
//! They are compared before or after the filter, as the server likes, so they must not fail on any
//! row: a column of a common type of the server's own, compared by the server's own operator with a
//! constant or a parameter. The statement's condition stays where it is.

use pg_query::NodeEnum;
use pg_query::protobuf as pg;
use pg_query::protobuf::a_const::Val;

use super::condition::quoted_text;
use super::confine::harmless_type;
use super::relation::{MaskedRelation, quoted};
use super::string;

/// The most comparisons, and the most values of an IN, that are looked at.
const MOST: usize = 100;
/// How deep ANDs within each other are looked through.
const DEEPEST: usize = 16;

const OPERATORS: &[&str] = &["=", "<>", "<", "<=", ">", ">="];

/// A relation as a condition knows it.
pub(super) struct Narrowed<'n> {
    pub(super) relation: &'n MaskedRelation,
    /// What the condition knows it by.
    pub(super) alias: &'n str,
    /// Nothing else is in FROM: a column by itself is its own.
    pub(super) alone: bool,
    /// What the filter knows it by.
    pub(super) inner: &'n str,
}

/// The conditions that must all hold.
pub(super) fn conjuncts(condition: Option<&pg::Node>) -> Vec<pg::Node> {
    let mut found = Vec::new();
    if let Some(condition) = condition {
        collect(condition, DEEPEST, &mut found);
    }
    found
}

fn collect(node: &pg::Node, deep: usize, found: &mut Vec<pg::Node>) {
    match &node.node {
        Some(NodeEnum::BoolExpr(of)) if of.boolop() == pg::BoolExprType::AndExpr => {
            if let Some(deep) = deep.checked_sub(1) {
                of.args.iter().for_each(|arg| collect(arg, deep, found));
            }
        }
        Some(NodeEnum::AExpr(_)) if found.len() < MOST => found.push(node.clone()),
        _ => {}
    }
}

impl Narrowed<'_> {
    /// What of these stands beside the filter, each behind an AND.
    pub(super) fn text(&self, conjuncts: &[pg::Node]) -> String {
        let written = conjuncts.iter().filter_map(|node| match &node.node {
            Some(NodeEnum::AExpr(of)) => self.comparison(of),
            _ => None,
        });
        written.map(|written| format!(" AND {written}")).collect()
    }

    fn comparison(&self, of: &pg::AExpr) -> Option<String> {
        use pg::AExprKind::{AexprIn, AexprOp, AexprOpAny};
        let [name] = of.name.as_slice() else { return None };
        let operator = OPERATORS.iter().find(|known| string(name) == Some(**known))?;
        let (one, other) = (of.lexpr.as_deref()?, of.rexpr.as_deref()?);
        let same = *operator == "=";
        match of.kind() {
            AexprOp => {
                let (one, other) = match self.column(one) {
                    Some(column) => (column, value(other)?),
                    None => (value(one)?, self.column(other)?),
                };
                Some(format!("({one} OPERATOR(pg_catalog.{operator}) {other})"))
            }
            AexprOpAny if same && matches!(other.node, Some(NodeEnum::ParamRef(_))) => {
                let (column, array) = (self.column(one)?, value(other)?);
                Some(format!("({column} OPERATOR(pg_catalog.=) ANY ({array}))"))
            }
            AexprIn if same => {
                let (column, list) = (self.column(one)?, other.node.as_ref()?);
                let NodeEnum::List(list) = list else { return None };
                let equal =
                    |item| Some(format!("{column} OPERATOR(pg_catalog.=) {}", value(item)?));
                let all: Vec<String> =
                    list.items.iter().take(MOST + 1).map(equal).collect::<Option<_>>()?;
                (1..=MOST).contains(&all.len()).then(|| format!("({})", all.join(" OR ")))
            }
            _ => None,
        }
    }

    /// A column of the relation that is seen as it is, by the name that the filter has for it.
    fn column(&self, node: &pg::Node) -> Option<String> {
        let Some(NodeEnum::ColumnRef(of)) = &node.node else { return None };
        let name = match of.fields.as_slice() {
            [only] if self.alone => string(only)?,
            [table, column] if string(table) == Some(self.alias) => string(column)?,
            _ => return None,
        };
        let compares = self.relation.compares(name) && !self.relation.hides(name);
        compares.then(|| format!("{}.{}", quoted(self.inner), quoted(name)))
    }
}

/// A constant or a parameter, as it is written anywhere.
fn value(node: &pg::Node) -> Option<String> {
    match &node.node {
        Some(NodeEnum::AConst(of)) => match of.val.as_ref()? {
            Val::Sval(text) => Some(quoted_text(&text.sval)),
            Val::Ival(number) if number.ival >= 0 => Some(number.ival.to_string()),
            _ => None,
        },
        Some(NodeEnum::ParamRef(of)) => Some(format!("${}", of.number)),
        Some(NodeEnum::TypeCast(of)) => {
            let name = of.type_name.as_ref().and_then(harmless_type)?;
            Some(format!("{}::pg_catalog.{name}", value(of.arg.as_deref()?)?))
        }
        _ => None,
    }
}
