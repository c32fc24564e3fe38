//! What a condition gives for the facts of one effect.

use std::cell::OnceCell;
use std::cmp::Ordering;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::{Expr, Kind, Literal, MAX_STEPS, Relation, Root};
use crate::policy::command::{CommandParts, Effect};

/// What a condition is evaluated over.
#[derive(Debug)]
pub(in crate::policy) struct Facts<'a> {
    pub(in crate::policy) identity: &'a Map<String, Json>,
    pub(in crate::policy) target: &'a Map<String, Json>,
    pub(in crate::policy) session: &'a Map<String, Json>,
    pub(in crate::policy) command: CommandParts<'a>,
    pub(in crate::policy) effect: &'a Effect,
    /// The text form of the effect's object, once it was asked for.
    pub(in crate::policy) object: OnceCell<Option<String>>,
}

/// Why a condition gives neither true nor false.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::policy) enum Failure {
    #[error("there is no {0}")]
    Missing(Arc<str>),
    #[error("there is no such element")]
    NoElement,
    #[error("it meets {} where that makes no sense", .0.words())]
    WrongKind(WrongKind),
    #[error("it costs more than {MAX_STEPS} steps")]
    TooCostly,
}

/// Keeps the kinds of the language to its own modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::policy) struct WrongKind(Kind);

impl WrongKind {
    fn words(self) -> &'static str {
        self.0.words()
    }
}

/// A value that borrows all that it is made of.
#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Constants(&'a [Literal]),
    List(&'a [Json]),
    Map(&'a Map<String, Json>),
    Root(Root),
}

/// The element that an `exists` or `all` looks at, and what is around it.
struct Scope<'s, 'a> {
    element: Value<'a>,
    outer: Option<&'s Scope<'s, 'a>>,
}

pub(super) fn evaluate(expr: &Expr, facts: &Facts<'_>) -> Result<bool, Failure> {
    Evaluation { facts, steps: 0 }.truth(expr, None)
}

struct Evaluation<'a> {
    facts: &'a Facts<'a>,
    steps: usize,
}

type Outer<'s, 'a> = Option<&'s Scope<'s, 'a>>;

impl<'a> Evaluation<'a> {
    fn truth(&mut self, expr: &'a Expr, scope: Outer<'_, 'a>) -> Result<bool, Failure> {
        match self.value(expr, scope)? {
            Value::Bool(truth) => Ok(truth),
            other => Err(other.wrong()),
        }
    }

    fn text(&mut self, expr: &'a Expr, scope: Outer<'_, 'a>) -> Result<&'a str, Failure> {
        match self.value(expr, scope)? {
            Value::Text(text) => {
                self.costs(text.len() / 1024)?;
                Ok(text)
            }
            other => Err(other.wrong()),
        }
    }

    fn costs(&mut self, steps: usize) -> Result<(), Failure> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > MAX_STEPS { Err(Failure::TooCostly) } else { Ok(()) }
    }

    fn value(&mut self, expr: &'a Expr, scope: Outer<'_, 'a>) -> Result<Value<'a>, Failure> {
        self.costs(1)?;
        Ok(match expr {
            Expr::Literal(literal) => Value::constant(literal),
            Expr::List(constants) => Value::Constants(constants),
            Expr::Root(root) => Value::Root(*root),
            Expr::Bound(depth) => bound(scope, *depth)?,
            Expr::Field(of, name) => {
                let of = self.value(of, scope)?;
                self.field(of, name)?.ok_or_else(|| Failure::Missing(Arc::clone(name)))?
            }
            Expr::Has(of, name) => {
                let of = self.value(of, scope)?;
                Value::Bool(self.field(of, name)?.is_some())
            }
            Expr::Element(parts) => {
                let of = self.value(&parts.0, scope)?;
                let index = self.value(&parts.1, scope)?;
                self.element(of, index)?
            }
            Expr::Not(of) => Value::Bool(!self.truth(of, scope)?),
            Expr::Any(parts) => {
                Value::Bool(decided(true, parts.iter().map(|part| self.truth(part, scope)))?)
            }
            Expr::All(parts) => {
                Value::Bool(decided(false, parts.iter().map(|part| self.truth(part, scope)))?)
            }
            Expr::Choice(parts) => {
                let branch = if self.truth(&parts.0, scope)? { &parts.1 } else { &parts.2 };
                self.value(branch, scope)?
            }
            Expr::Relation(relation, sides) => {
                Value::Bool(self.related(*relation, &sides.0, &sides.1, scope)?)
            }
            Expr::Matches(of, regex) => Value::Bool(regex.is_match(self.text(of, scope)?)),
            Expr::Size(of) => Value::Int(self.size(of, scope)?),
            Expr::Exists(parts) => Value::Bool(self.each(true, &parts.0, &parts.1, scope)?),
            Expr::ForAll(parts) => Value::Bool(self.each(false, &parts.0, &parts.1, scope)?),
        })
    }

    /// The field of that name, if it is there.
    fn field(&self, of: Value<'a>, name: &str) -> Result<Option<Value<'a>>, Failure> {
        let facts = self.facts;
        let found = match of {
            Value::Map(map) => map.get(name),
            Value::Root(Root::Identity) => facts.identity.get(name),
            Value::Root(Root::Target) => facts.target.get(name),
            Value::Root(Root::Session) => facts.session.get(name),
            Value::Root(Root::Command) => match name {
                "form" => return Ok(Some(Value::Text(facts.command.form))),
                "text" => return Ok(Some(Value::Text(facts.command.text))),
                _ => facts.command.attributes.get(name),
            },
            Value::Root(Root::Effect) => match name {
                "action" => return Ok(Some(Value::Text(&facts.effect.action))),
                "object" => {
                    let text = || facts.effect.object.as_ref().map(ToString::to_string);
                    return Ok(facts.object.get_or_init(text).as_deref().map(Value::Text));
                }
                _ => facts.effect.attributes.get(name),
            },
            other => return Err(other.wrong()),
        };
        Ok(found.map(Value::json))
    }

    fn element(&self, of: Value<'a>, index: Value<'a>) -> Result<Value<'a>, Failure> {
        let found = match (of, index) {
            (Value::List(list), Value::Int(at)) => {
                usize::try_from(at).ok().and_then(|at| list.get(at)).map(Value::json)
            }
            (Value::Constants(list), Value::Int(at)) => {
                usize::try_from(at).ok().and_then(|at| list.get(at)).map(Value::constant)
            }
            (Value::Map(_) | Value::Root(_), Value::Text(key)) => self.field(of, key)?,
            (Value::Map(_) | Value::Root(_) | Value::List(_), _) => return Err(index.wrong()),
            _ => return Err(of.wrong()),
        };
        found.ok_or(Failure::NoElement)
    }

    fn related(
        &mut self,
        relation: Relation,
        left: &'a Expr,
        right: &'a Expr,
        scope: Outer<'_, 'a>,
    ) -> Result<bool, Failure> {
        match relation {
            Relation::StartsWith | Relation::EndsWith | Relation::Contains => {
                let (text, part) = (self.text(left, scope)?, self.text(right, scope)?);
                Ok(match relation {
                    Relation::StartsWith => text.starts_with(part),
                    Relation::EndsWith => text.ends_with(part),
                    _ => text.contains(part),
                })
            }
            Relation::In => {
                let sought = self.value(left, scope)?;
                match self.value(right, scope)? {
                    Value::List(list) => self.held(sought, list.iter().map(Value::json)),
                    Value::Constants(list) => self.held(sought, list.iter().map(Value::constant)),
                    map @ (Value::Map(_) | Value::Root(_)) => match sought {
                        Value::Text(key) => Ok(self.field(map, key)?.is_some()),
                        other => Err(other.wrong()),
                    },
                    other => Err(other.wrong()),
                }
            }
            _ => {
                let (left, right) = (self.value(left, scope)?, self.value(right, scope)?);
                match relation {
                    Relation::Equal => left.equals(right),
                    Relation::Unequal => left.equals(right).map(|equal| !equal),
                    _ => left.order(right).map(|order| match relation {
                        Relation::Less => order == Some(Ordering::Less),
                        Relation::LessOrEqual => order.is_some_and(Ordering::is_le),
                        Relation::Greater => order == Some(Ordering::Greater),
                        _ => order.is_some_and(Ordering::is_ge),
                    }),
                }
            }
        }
    }

    /// Whether the list holds the value; elements of other kinds decide nothing by themselves.
    fn held(
        &mut self,
        sought: Value<'a>,
        list: impl ExactSizeIterator<Item = Value<'a>>,
    ) -> Result<bool, Failure> {
        self.costs(list.len())?;
        decided(true, list.map(|element| element.equals(sought)))
    }

    fn size(&mut self, of: &'a Expr, scope: Outer<'_, 'a>) -> Result<i64, Failure> {
        let size = match self.value(of, scope)? {
            Value::Text(text) => {
                self.costs(text.len() / 1024)?;
                text.chars().count()
            }
            Value::List(list) => list.len(),
            Value::Constants(list) => list.len(),
            Value::Map(map) => map.len(),
            other => return Err(other.wrong()),
        };
        i64::try_from(size).map_err(|_| Failure::TooCostly)
    }

    fn each(
        &mut self,
        decisive: bool,
        list: &'a Expr,
        each: &'a Expr,
        outer: Outer<'_, 'a>,
    ) -> Result<bool, Failure> {
        let list = self.value(list, outer)?;
        let test = |element| self.truth(each, Some(&Scope { element, outer }));
        match list {
            Value::List(list) => decided(decisive, list.iter().map(Value::json).map(test)),
            Value::Constants(list) => decided(decisive, list.iter().map(Value::constant).map(test)),
            other => Err(other.wrong()),
        }
    }
}

/// `||` (true is decisive) and `&&` (false is) over parts: the decisive answer counts wherever it
/// stands, then an error, then the other answer. Only cost ends it early.
fn decided(
    decisive: bool,
    parts: impl Iterator<Item = Result<bool, Failure>>,
) -> Result<bool, Failure> {
    let mut failure = None;
    for part in parts {
        match part {
            Ok(truth) if truth == decisive => return Ok(decisive),
            Ok(_) => {}
            Err(Failure::TooCostly) => return Err(Failure::TooCostly),
            Err(other) => failure = Some(other),
        }
    }
    failure.map_or(Ok(!decisive), Err)
}

fn bound<'a>(scope: Outer<'_, 'a>, depth: usize) -> Result<Value<'a>, Failure> {
    std::iter::successors(scope, |scope| scope.outer)
        .nth(depth)
        .map(|scope| scope.element)
        .ok_or(Failure::NoElement)
}

impl<'a> Value<'a> {
    fn constant(literal: &'a Literal) -> Self {
        match literal {
            Literal::Null => Self::Null,
            Literal::Bool(truth) => Self::Bool(*truth),
            Literal::Int(number) => Self::Int(*number),
            Literal::Float(number) => Self::Float(*number),
            Literal::Text(text) => Self::Text(text),
        }
    }

    fn json(json: &'a Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(truth) => Self::Bool(*truth),
            Json::Number(number) => match number.as_i64() {
                Some(number) => Self::Int(number),
                None => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Self::Text(text),
            Json::Array(list) => Self::List(list),
            Json::Object(map) => Self::Map(map),
        }
    }

    fn wrong(self) -> Failure {
        Failure::WrongKind(WrongKind(match self {
            Self::Null => Kind::Null,
            Self::Bool(_) => Kind::Bool,
            Self::Int(_) | Self::Float(_) => Kind::Number,
            Self::Text(_) => Kind::Text,
            Self::Constants(_) | Self::List(_) => Kind::List,
            Self::Map(_) | Self::Root(_) => Kind::Map,
        }))
    }

    /// Null equals itself alone; other values of two kinds are neither equal nor unequal.
    fn equals(self, other: Self) -> Result<bool, Failure> {
        match (self, other) {
            (Self::Null, Self::Null) => Ok(true),
            (Self::Null, _) | (_, Self::Null) => Ok(false),
            (Self::Bool(a), Self::Bool(b)) => Ok(a == b),
            _ => self.order(other).map(|order| order == Some(Ordering::Equal)),
        }
    }

    fn order(self, other: Self) -> Result<Option<Ordering>, Failure> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Ok(Some(a.cmp(&b))),
            (Self::Text(a), Self::Text(b)) => Ok(Some(a.cmp(b))),
            _ => match (self.number(), other.number()) {
                (Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
                (None, _) => Err(self.wrong()),
                (_, None) => Err(other.wrong()),
            },
        }
    }

    fn number(self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(number as f64),
            Self::Float(number) => Some(number),
            _ => None,
        }
    }
}
