//! Reading conditions: those of operators, and what was written of them.

use pg_query::NodeEnum;
use pg_query::protobuf as pg;
use pg_query::protobuf::a_const::Val;

use super::super::super::lexer::{Kind, Lexer};
use super::super::super::{LexerSettings, grammar};
use super::super::string;
use super::{ConditionMistake, Expression, FUNCTIONS, Given, OPERATORS, TYPES, Term};

/// How deep a condition may nest.
const DEEPEST: usize = 32;
/// The longest name of a claim.
const LONGEST_CLAIM: usize = 200;

/// What stands before the condition.
const HEAD: &str = "SELECT WHERE ";

/// A text with parameters in the place of the caller's values.
pub(super) struct Opened {
    text: String,
    given: Vec<Given>,
    /// Where what stands behind each parameter begins, in this text and in the operator's.
    places: Vec<(usize, usize)>,
}

impl Opened {
    pub(super) fn new(text: &str) -> Result<Self, ConditionMistake> {
        let mut opened = Self { text: String::new(), given: Vec::new(), places: vec![(0, 0)] };
        let mut at = 0;
        let wrong = |problem: &str, at| Err(ConditionMistake { problem: problem.to_owned(), at });
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let mut brace = None;
            for token in Lexer::new(rest, LexerSettings::default()) {
                let written = rest.get(token.start..token.end).unwrap_or_default();
                match token.kind {
                    Kind::Byte(b'{') => {
                        brace = Some(token.start);
                        break;
                    }
                    Kind::Parameter => return wrong("it has no parameters", at + token.start),
                    Kind::Byte(b';') => return wrong("it is one expression", at + token.start),
                    Kind::Comment => return wrong("it has no comments", at + token.start),
                    _ if ["{claim.", "{user}", "{groups}"]
                        .iter()
                        .any(|open| written.contains(open)) =>
                    {
                        let problem = "{claim.NAME}, {user} and {groups} stand without quotes: each \
                                       becomes a constant";
                        return wrong(problem, at + token.start);
                    }
                    _ => {}
                }
            }
            let Some(brace) = brace else {
                opened.text.push_str(rest);
                break;
            };
            let end = rest.get(brace..).and_then(|behind| behind.find('}'));
            let Some(end) = end.map(|end| brace + end) else {
                return wrong("a brace is not closed", at + brace);
            };
            let Some(given) = given(rest.get(brace + 1..end).unwrap_or_default()) else {
                return wrong("braces hold claim.NAME, user or groups", at + brace);
            };
            opened.text.push_str(rest.get(..brace).unwrap_or_default());
            opened.given.push(given);
            opened.text.push_str(&format!(" ${} ", opened.given.len()));
            at += end + 1;
            opened.places.push((opened.text.len(), at));
        }
        Ok(opened)
    }

    /// The condition, or what is wrong with the operator's text.
    pub(super) fn read(&self) -> Result<Expression, ConditionMistake> {
        self.expression().map_err(|Wrong { problem, at }| {
            let at = usize::try_from(at).ok().and_then(|at| at.checked_sub(HEAD.len()));
            ConditionMistake { problem, at: self.place(at.unwrap_or_default()) }
        })
    }

    fn expression(&self) -> Result<Expression, Wrong> {
        let sql = format!("{HEAD}{}", self.text);
        let settings = LexerSettings::default();
        let parsed = match grammar::size(&sql, settings) {
            Ok(size) if !size.is_deep => grammar::parse_here(&sql, settings),
            _ => return Err(wrong("it nests too deep", 0)),
        };
        let Ok(parsed) = parsed else {
            let found = grammar::mistake(&sql, settings);
            let at = found.as_ref().and_then(|found| found.position).unwrap_or(1) - 1;
            let at = sql.char_indices().nth(at).map_or(sql.len(), |(byte, _)| byte);
            let said =
                found.map_or_else(|| "it is no expression".to_owned(), |found| found.message);
            return Err(Wrong { problem: said, at: i32::try_from(at).unwrap_or_default() });
        };
        let only = <[pg::RawStmt; 1]>::try_from(parsed).ok();
        let node = only.and_then(|[raw]| raw.stmt).and_then(|stmt| stmt.node);
        let Some(NodeEnum::SelectStmt(select)) = node else {
            return Err(wrong("it is one expression", 0));
        };
        let Some(condition) = &select.where_clause else {
            return Err(wrong("it is one expression", 0));
        };
        let bare = pg::SelectStmt {
            where_clause: select.where_clause.clone(),
            limit_option: pg::LimitOption::Default.into(),
            op: pg::SetOperation::SetopNone.into(),
            ..pg::SelectStmt::default()
        };
        if *select != bare {
            return Err(wrong("it is one expression, with nothing behind it", 0));
        }
        Reader { alias: None, given: &self.given }.expression(condition, 0)
    }

    /// The byte of the operator's text that a byte of this text comes from.
    fn place(&self, at: usize) -> usize {
        let behind = self.places.partition_point(|(here, _)| *here <= at);
        let (here, there) = self.places.get(behind.saturating_sub(1)).copied().unwrap_or_default();
        there + (at - here)
    }
}

fn given(text: &str) -> Option<Given> {
    match text {
        "user" => return Some(Given::User),
        "groups" => return Some(Given::Groups),
        _ => {}
    }
    let name = text.strip_prefix("claim.")?;
    let of_names = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
    let fits = (1..=LONGEST_CLAIM).contains(&name.len()) && name.chars().all(of_names);
    fits.then(|| Given::Claim(name.to_owned()))
}

pub(super) struct Wrong {
    problem: String,
    at: i32,
}

fn wrong(problem: &str, at: i32) -> Wrong {
    Wrong { problem: problem.to_owned(), at }
}

/// Reads trees: those of operators, and those of what was written of a condition.
pub(super) struct Reader<'g> {
    /// What columns are named with, where they are.
    pub(super) alias: Option<&'g str>,
    pub(super) given: &'g [Given],
}

impl Reader<'_> {
    pub(super) fn expression(&self, node: &pg::Node, depth: usize) -> Result<Expression, Wrong> {
        if depth > DEEPEST {
            return Err(wrong("it nests too deep", 0));
        }
        match &node.node {
            Some(NodeEnum::BoolExpr(of)) => {
                let parts = of.args.iter().map(|arg| self.expression(arg, depth + 1));
                let mut parts: Vec<Expression> = parts.collect::<Result<_, _>>()?;
                match of.boolop() {
                    pg::BoolExprType::AndExpr => Ok(Expression::all(parts)),
                    pg::BoolExprType::OrExpr => Ok(Expression::any(parts)),
                    pg::BoolExprType::NotExpr if parts.len() == 1 => {
                        Ok(Expression::Not(Box::new(parts.remove(0))))
                    }
                    _ => Err(wrong(NOT_KNOWN, of.location)),
                }
            }
            Some(NodeEnum::NullTest(of)) => {
                let arg = of.arg.as_deref().ok_or_else(|| wrong(NOT_KNOWN, of.location))?;
                let is_null = Expression::IsNull(self.term(arg, depth + 1)?);
                Ok(match of.nulltesttype() {
                    pg::NullTestType::IsNotNull => Expression::Not(Box::new(is_null)),
                    _ => is_null,
                })
            }
            Some(NodeEnum::AExpr(of)) if !is_minus(of) => self.compared(of, depth),
            _ => match self.term(node, depth + 1)? {
                term @ (Term::Column(_) | Term::Flag(_)) => Ok(Expression::Holds(term)),
                _ => Err(wrong("it is no condition: compare it with something", place_of(node))),
            },
        }
    }

    fn compared(&self, of: &pg::AExpr, depth: usize) -> Result<Expression, Wrong> {
        use pg::AExprKind::{AexprBetween, AexprIn, AexprNotBetween, AexprOp};
        let unknown = || wrong(NOT_KNOWN, of.location);
        let side = |node: &Option<Box<pg::Node>>| match node {
            Some(node) => self.term(node, depth + 1),
            None => Err(unknown()),
        };
        match of.kind() {
            AexprOp => {
                let operator = known(&of.name, OPERATORS).ok_or_else(unknown)?;
                Ok(Expression::Compared(side(&of.lexpr)?, operator, side(&of.rexpr)?))
            }
            kind @ (AexprIn | AexprBetween | AexprNotBetween) if self.alias.is_none() => {
                let one = side(&of.lexpr)?;
                let list = match of.rexpr.as_deref().map(|node| &node.node) {
                    Some(Some(NodeEnum::List(list))) => &list.items,
                    _ => return Err(unknown()),
                };
                if kind == AexprIn {
                    let list = list.iter().map(|item| match self.given_by(item)? {
                        Some(given) => Ok(Term::Each(given)),
                        None => self.term(item, depth + 1),
                    });
                    let list: Vec<Term> = list.collect::<Result<_, _>>()?;
                    let not = known(&of.name, &["<>"]).is_some();
                    let same = |other| Expression::Compared(one.clone(), "=", other);
                    let any = Expression::any(list.into_iter().map(same).collect());
                    return Ok(if not { Expression::Not(Box::new(any)) } else { any });
                }
                let list = list.iter().map(|item| self.term(item, depth + 1));
                let list: Vec<Term> = list.collect::<Result<_, _>>()?;
                let [low, high] = <[Term; 2]>::try_from(list).map_err(|_| unknown())?;
                let within = Expression::all(vec![
                    Expression::Compared(one.clone(), ">=", low),
                    Expression::Compared(one, "<=", high),
                ]);
                let not = kind == AexprNotBetween;
                Ok(if not { Expression::Not(Box::new(within)) } else { within })
            }
            _ => Err(unknown()),
        }
    }

    /// The caller's value that a node stands for, if it is one.
    fn given_by(&self, node: &pg::Node) -> Result<Option<Given>, Wrong> {
        let Some(NodeEnum::ParamRef(of)) = &node.node else { return Ok(None) };
        let at = usize::try_from(of.number).ok().and_then(|number| number.checked_sub(1));
        let given = at.and_then(|at| self.given.get(at));
        given.cloned().map(Some).ok_or_else(|| wrong(NOT_KNOWN, of.location))
    }

    fn term(&self, node: &pg::Node, depth: usize) -> Result<Term, Wrong> {
        let unknown = || wrong(NOT_KNOWN, place_of(node));
        if depth > DEEPEST {
            return Err(wrong("it nests too deep", 0));
        }
        match &node.node {
            Some(NodeEnum::ColumnRef(of)) => match (self.alias, of.fields.as_slice()) {
                (None, [only]) => Ok(Term::Column(string(only).ok_or_else(unknown)?.to_owned())),
                (Some(alias), [table, column]) if string(table) == Some(alias) => {
                    Ok(Term::Column(string(column).ok_or_else(unknown)?.to_owned()))
                }
                _ => Err(wrong("columns are named by themselves", of.location)),
            },
            Some(NodeEnum::AConst(of)) => constant(of).ok_or_else(unknown),
            Some(NodeEnum::AExpr(of)) if is_minus(of) => {
                match of.rexpr.as_deref().map(|node| self.term(node, depth + 1)) {
                    Some(Ok(Term::Number(number))) if !number.starts_with('-') => {
                        Ok(Term::Number(format!("-{number}")))
                    }
                    _ => Err(unknown()),
                }
            }
            Some(NodeEnum::ParamRef(of)) => match self.given_by(node)?.ok_or_else(unknown)? {
                Given::Groups => Err(wrong("{groups} stands in an IN list", of.location)),
                given => Ok(Term::Given(given)),
            },
            Some(NodeEnum::FuncCall(of)) => {
                let plain = pg::FuncCall {
                    funcname: of.funcname.clone(),
                    args: of.args.clone(),
                    funcformat: of.funcformat,
                    location: of.location,
                    ..pg::FuncCall::default()
                };
                let name = known(&of.funcname, FUNCTIONS);
                match (name, of.args.as_slice()) {
                    (Some(name), [arg]) if **of == plain => {
                        Ok(Term::Called(name, Box::new(self.term(arg, depth + 1)?)))
                    }
                    _ => Err(wrong("of functions it knows lower and upper", of.location)),
                }
            }
            Some(NodeEnum::TypeCast(of)) => {
                let known = of.type_name.as_ref().and_then(type_of);
                let known = known.ok_or_else(|| {
                    let types = TYPES.join(", ");
                    Wrong { problem: format!("casts go to one of {types}"), at: of.location }
                })?;
                let arg = of.arg.as_deref().ok_or_else(unknown)?;
                Ok(Term::Cast(Box::new(self.term(arg, depth + 1)?), known))
            }
            _ => Err(unknown()),
        }
    }
}

const NOT_KNOWN: &str = "a row filter knows columns, constants, {claim.NAME}, {user}, {groups}, comparisons, IN, \
                         BETWEEN, IS NULL, AND, OR and NOT";

/// A negative number.
fn is_minus(of: &pg::AExpr) -> bool {
    of.lexpr.is_none() && of.kind() == pg::AExprKind::AexprOp && known(&of.name, &["-"]).is_some()
}

fn constant(of: &pg::AConst) -> Option<Term> {
    Some(match of.val.as_ref()? {
        Val::Sval(text) => Term::Text(text.sval.clone()),
        Val::Ival(number) => Term::Number(number.ival.to_string()),
        Val::Fval(number) if number.fval.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            Term::Number(number.fval.clone())
        }
        Val::Boolval(flag) => Term::Flag(flag.boolval),
        Val::Fval(_) | Val::Bsval(_) => return None,
    })
}

/// A name that is one of these, of the server's own.
fn known(name: &[pg::Node], names: &[&'static str]) -> Option<&'static str> {
    let name = match name {
        [name] => string(name),
        [schema, name] if string(schema) == Some("pg_catalog") => string(name),
        _ => None,
    };
    names.iter().find(|known| Some(**known) == name).copied()
}

/// A plain type that is known.
fn type_of(of: &pg::TypeName) -> Option<&'static str> {
    let plain = of.typmods.is_empty() && of.array_bounds.is_empty() && !of.setof && !of.pct_type;
    known(&of.names, TYPES).filter(|_| plain)
}

/// Where a node stands in its text, as far as that is known.
fn place_of(node: &pg::Node) -> i32 {
    match &node.node {
        Some(NodeEnum::ColumnRef(of)) => of.location,
        Some(NodeEnum::AConst(of)) => of.location,
        Some(NodeEnum::AExpr(of)) => of.location,
        Some(NodeEnum::FuncCall(of)) => of.location,
        Some(NodeEnum::TypeCast(of)) => of.location,
        Some(NodeEnum::SubLink(of)) => of.location,
        Some(NodeEnum::ParamRef(of)) => of.location,
        Some(NodeEnum::CaseExpr(of)) => of.location,
        Some(NodeEnum::CoalesceExpr(of)) => of.location,
        Some(NodeEnum::SqlvalueFunction(of)) => of.location,
        _ => 0,
    }
}
