//! The condition of a rule: `when = 'effect.has_where == false && !("dba" in identity.groups)'`.
//!
//! The language is a part of CEL (the Common Expression Language) that always ends soon: texts,
//! numbers, `true`, `false`, `null`, lists of constants; `.field`, `[index]`, `has()`; `!`, `&&`,
//! `||`, `? :`; `== != < <= > >= in`; `size()`, `startsWith()`, `endsWith()`, `contains()`,
//! `matches()` with a constant expression; `exists(x, …)` and `all(x, …)` over lists. There is no
//! arithmetic, and nothing makes a list or a text. As in CEL, `&&` and `||` give an answer where
//! one side alone decides it, even when the other side is an error.
//!
//! In one point it is stricter than CEL: values of two kinds are not unequal, they are an error,
//! so that `effect.has_where == "false"` does not quietly let everything pass. What can be known
//! is refused when the rules are loaded; the rest is an error when it is met, and what an error
//! means is up to the caller (a block rule holds, an allow rule does not).
//!
//! It is not the `cel` crate because conditions are evaluated on what callers send: that crate
//! (0.15) has no bound on cost, its parser overflows a thread's stack at a nesting of 64, and it
//! allocates for every comparison. Here an evaluation borrows all it looks at, allocates nothing,
//! recurses no deeper than [`MAX_NESTING`] allows and takes at most [`MAX_STEPS`] steps.

mod evaluate;
mod lexer;
mod parse;

use std::sync::Arc;

use regex::Regex;

pub(super) use self::evaluate::{Facts, Failure};
pub(super) use self::parse::regex;

/// Bytes of a condition or a regular expression: far more than one that people understand.
const MAX_SOURCE: usize = 4096;
/// How deep brackets nest, and how many fields and elements follow each other.
const MAX_NESTING: usize = 32;
/// How deep `exists` and `all` nest: the cost is the product of their lists.
const MAX_SCOPES: usize = 2;
/// What one evaluation may cost: a step is one operation, or one kibibyte of text looked at. Some
/// milliseconds at most.
const MAX_STEPS: usize = 200_000;

/// A condition that was understood.
#[derive(Debug)]
pub(super) struct Condition {
    source: Box<str>,
    expr: Expr,
}

impl Condition {
    /// Understands a condition, or says where it is wrong.
    pub(super) fn new(source: &str) -> Result<Self, Mistake> {
        Ok(Self { source: source.into(), expr: parse::parse(source)? })
    }

    /// The condition as it was written.
    pub(super) fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the condition holds for these facts.
    pub(super) fn holds(&self, facts: &Facts<'_>) -> Result<bool, Failure> {
        evaluate::evaluate(&self.expr, facts)
    }

    /// Whether the condition may look at this attribute of the command.
    pub(super) fn may_look_at(&self, name: &str) -> bool {
        self.may_look_in(Root::Command, name)
    }

    /// Whether the condition may look at the claims of the caller.
    pub(super) fn may_look_at_claims(&self) -> bool {
        self.may_look_in(Root::Identity, "claims")
    }

    fn may_look_in(&self, root: Root, name: &str) -> bool {
        // The root other than by another field of it: by an element, say.
        let (mut roots, mut other_fields) = (0_usize, 0_usize);
        self.expr.visit(&mut |expr| match expr {
            Expr::Root(found) if *found == root => roots += 1,
            Expr::Field(of, field) | Expr::Has(of, field)
                if matches!(**of, Expr::Root(found) if found == root) && **field != *name =>
            {
                other_fields += 1;
            }
            _ => {}
        });
        roots > other_fields
    }

    /// The attributes of command and effect that the condition looks at, `effect.has_where` say.
    pub(super) fn attributes(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.expr.visit(&mut |expr| {
            if let Expr::Field(of, name) | Expr::Has(of, name) = expr
                && let Expr::Root(root @ (Root::Command | Root::Effect)) = **of
                && !root.fields().iter().any(|(field, _)| **field == **name)
            {
                found.push(format!("{}.{name}", root.name()));
            }
        });
        found
    }
}

/// What is wrong with a condition, and at which byte.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {}: {problem}", at + 1)]
pub(super) struct Mistake {
    at: usize,
    problem: String,
}

impl Mistake {
    fn at(at: usize, problem: String) -> Self {
        Self { at, problem }
    }
}

#[derive(Debug)]
enum Expr {
    Literal(Literal),
    List(Vec<Literal>),
    Root(Root),
    /// What the `n`th `exists` or `all` outwards looks at now.
    Bound(usize),
    Field(Box<Expr>, Arc<str>),
    Has(Box<Expr>, Arc<str>),
    Element(Box<(Expr, Expr)>),
    Not(Box<Expr>),
    Any(Vec<Expr>),
    All(Vec<Expr>),
    Choice(Box<(Expr, Expr, Expr)>),
    Relation(Relation, Box<(Expr, Expr)>),
    Matches(Box<Expr>, Regex),
    Size(Box<Expr>),
    Exists(Box<(Expr, Expr)>),
    ForAll(Box<(Expr, Expr)>),
}

impl Expr {
    fn visit(&self, see: &mut dyn FnMut(&Self)) {
        see(self);
        match self {
            Self::Literal(_) | Self::List(_) | Self::Root(_) | Self::Bound(_) => {}
            Self::Field(of, _)
            | Self::Has(of, _)
            | Self::Matches(of, _)
            | Self::Not(of)
            | Self::Size(of) => of.visit(see),
            Self::Any(parts) | Self::All(parts) => parts.iter().for_each(|part| part.visit(see)),
            Self::Choice(parts) => {
                parts.0.visit(see);
                parts.1.visit(see);
                parts.2.visit(see);
            }
            Self::Element(parts)
            | Self::Relation(_, parts)
            | Self::Exists(parts)
            | Self::ForAll(parts) => {
                parts.0.visit(see);
                parts.1.visit(see);
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    StartsWith,
    EndsWith,
    Contains,
}

impl Relation {
    fn of(sign: &str) -> Option<Self> {
        Some(match sign {
            "==" => Self::Equal,
            "!=" => Self::Unequal,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }
}

/// What is known of a value before it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Number,
    Text,
    List,
    Map,
    /// An attribute, a claim: known when it is met.
    Any,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Any => "any value",
        }
    }
}

/// What a condition may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Identity,
    Target,
    Session,
    Command,
    Effect,
}

impl Root {
    const ALL: [Self; 5] =
        [Self::Identity, Self::Target, Self::Session, Self::Command, Self::Effect];

    fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Target => "target",
            Self::Session => "session",
            Self::Command => "command",
            Self::Effect => "effect",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|root| root.name() == name)
    }

    /// The fields that are always known; null where there is nothing to say.
    fn fields(self) -> &'static [(&'static str, Kind)] {
        match self {
            Self::Identity => &[
                ("issuer", Kind::Text),
                ("subject", Kind::Text),
                ("username", Kind::Text),
                ("groups", Kind::List),
                ("claims", Kind::Map),
                ("workflow", Kind::Any),
                ("run", Kind::Any),
            ],
            Self::Target => {
                &[("name", Kind::Text), ("protocol", Kind::Text), ("labels", Kind::Map)]
            }
            Self::Session => &[
                ("id", Kind::Any),
                ("client", Kind::Any),
                ("database", Kind::Any),
                ("workflow", Kind::Any),
                ("run", Kind::Any),
            ],
            Self::Command => &[("form", Kind::Text), ("text", Kind::Text)],
            Self::Effect => &[("action", Kind::Text), ("object", Kind::Any)],
        }
    }

    /// The kind of a field; command and effect have attributes beside their fields.
    fn field_kind(self, name: &str) -> Option<Kind> {
        let known = self.fields().iter().find(|(field, _)| *field == name).map(|(_, kind)| *kind);
        match self {
            Self::Command | Self::Effect => known.or(Some(Kind::Any)),
            _ => known,
        }
    }
}

#[cfg(test)]
mod tests;
