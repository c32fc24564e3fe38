//! From the text of a condition to an expression, with its names and kinds checked on the way.

use regex::{Regex, RegexBuilder};

use super::lexer::{Token, tokens};
use super::{Expr, Kind, Literal, MAX_NESTING, MAX_SCOPES, MAX_SOURCE, Mistake, Relation, Root};

/// An expression, what it gives as far as that is known, and where it starts.
struct Node {
    expr: Expr,
    kind: Kind,
    at: usize,
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    end: usize,
    nesting: usize,
    /// The names that `exists` and `all` have bound, innermost last.
    bound: Vec<String>,
}

pub(super) fn parse(source: &str) -> Result<Expr, Mistake> {
    if source.len() > MAX_SOURCE {
        return Err(Mistake::at(0, format!("it is longer than {MAX_SOURCE} bytes")));
    }
    let tokens = tokens(source)?;
    let mut parser = Parser { tokens, next: 0, end: source.len(), nesting: 0, bound: Vec::new() };
    let root = parser.expression()?;
    if parser.next < parser.tokens.len() {
        return parser.unexpected("an operator");
    }
    parser.want(&root, &[Kind::Bool], "a condition is true or false")?;
    Ok(root.expr)
}

impl Parser {
    /// `a ? b : c`, and everything that binds tighter.
    fn expression(&mut self) -> Result<Node, Mistake> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(Mistake::at(self.here(), format!("it nests deeper than {MAX_NESTING}")));
        }
        let mut node = self.any()?;
        if self.takes("?") {
            self.want(&node, &[Kind::Bool], "what stands before ? is true or false")?;
            let yes = self.any()?;
            self.expect(":")?;
            let no = self.expression()?;
            let kind = if yes.kind == no.kind { yes.kind } else { Kind::Any };
            let branches = Box::new((node.expr, yes.expr, no.expr));
            node = Node { expr: Expr::Choice(branches), kind, at: node.at };
        }
        self.nesting -= 1;
        Ok(node)
    }

    fn any(&mut self) -> Result<Node, Mistake> {
        self.connected("||", Expr::Any, Self::all)
    }

    fn all(&mut self) -> Result<Node, Mistake> {
        self.connected("&&", Expr::All, Self::relation)
    }

    fn connected(
        &mut self,
        sign: &'static str,
        of: fn(Vec<Expr>) -> Expr,
        part: fn(&mut Self) -> Result<Node, Mistake>,
    ) -> Result<Node, Mistake> {
        let first = part(self)?;
        if !self.sees(sign) {
            return Ok(first);
        }
        let at = first.at;
        let mut parts = vec![first];
        while self.takes(sign) {
            parts.push(part(self)?);
        }
        for part in &parts {
            self.want(part, &[Kind::Bool], &format!("both sides of {sign} are true or false"))?;
        }
        let parts = parts.into_iter().map(|part| part.expr).collect();
        Ok(Node { expr: of(parts), kind: Kind::Bool, at })
    }

    fn relation(&mut self) -> Result<Node, Mistake> {
        let left = self.unary()?;
        let Some(relation) = self.take_relation() else { return Ok(left) };
        let right = self.unary()?;
        let at = left.at;
        match relation {
            Relation::In => self.want(&right, &[Kind::List, Kind::Map], "in looks into a list")?,
            Relation::Equal | Relation::Unequal => {
                let alike = left.kind == right.kind
                    || [left.kind, right.kind].iter().any(|k| matches!(k, Kind::Any | Kind::Null));
                if !alike {
                    let problem = format!("{} is never {}", left.kind.words(), right.kind.words());
                    return Err(Mistake::at(at, problem));
                }
                for side in [&left, &right] {
                    let kinds = [Kind::Bool, Kind::Number, Kind::Text, Kind::Null];
                    self.want(side, &kinds, "lists are looked into with in, exists and all")?;
                }
            }
            _ => {
                for side in [&left, &right] {
                    self.want(
                        side,
                        &[Kind::Number, Kind::Text],
                        "numbers and texts have an order",
                    )?;
                }
            }
        }
        if self.take_relation().is_some() {
            return Err(Mistake::at(at, "comparisons do not chain: join them with &&".to_owned()));
        }
        let sides = Box::new((left.expr, right.expr));
        Ok(Node { expr: Expr::Relation(relation, sides), kind: Kind::Bool, at })
    }

    fn take_relation(&mut self) -> Option<Relation> {
        let relation = match self.tokens.get(self.next)? {
            (Token::Sign(sign), _) => Relation::of(sign)?,
            (Token::Name(name), _) if name == "in" => Relation::In,
            _ => return None,
        };
        self.next += 1;
        Some(relation)
    }

    fn unary(&mut self) -> Result<Node, Mistake> {
        let at = self.here();
        let mut negations = 0_usize;
        while self.takes("!") {
            negations += 1;
        }
        let node = self.member()?;
        if negations == 0 {
            return Ok(node);
        }
        self.want(&node, &[Kind::Bool], "! turns true and false around")?;
        let not = Expr::Not(Box::new(node.expr));
        let expr = if negations % 2 == 1 { not } else { Expr::Not(Box::new(not)) };
        Ok(Node { expr, kind: Kind::Bool, at })
    }

    /// A value with the fields, elements and methods asked of it.
    fn member(&mut self) -> Result<Node, Mistake> {
        let mut node = self.primary()?;
        let mut steps = 0;
        loop {
            node = if self.takes(".") {
                let at = self.here();
                let name = self.name()?;
                if self.takes("(") {
                    self.method(node, &name, at)?
                } else {
                    self.field(node, name, at)?
                }
            } else if self.takes("[") {
                self.element(node)?
            } else {
                return Ok(node);
            };
            steps += 1;
            if steps > MAX_NESTING {
                return Err(Mistake::at(node.at, format!("it has more than {MAX_NESTING} steps")));
            }
        }
    }

    fn field(&mut self, of: Node, name: String, at: usize) -> Result<Node, Mistake> {
        let kind = match &of.expr {
            Expr::Root(root) => root.field_kind(&name).ok_or_else(|| {
                let known = root.fields().iter().map(|(field, _)| *field);
                Mistake::at(at, unknown(&format!("{} has no field", root.name()), &name, known))
            })?,
            _ => {
                self.want(&of, &[Kind::Map], "only a map has fields")?;
                Kind::Any
            }
        };
        Ok(Node { expr: Expr::Field(Box::new(of.expr), name.into()), kind, at: of.at })
    }

    fn element(&mut self, of: Node) -> Result<Node, Mistake> {
        self.want(&of, &[Kind::List, Kind::Map], "only a list or a map has elements")?;
        let index = self.expression()?;
        self.want(&index, &[Kind::Number, Kind::Text], "an element is named by number or key")?;
        self.expect("]")?;
        let parts = Box::new((of.expr, index.expr));
        Ok(Node { expr: Expr::Element(parts), kind: Kind::Any, at: of.at })
    }

    fn method(&mut self, of: Node, name: &str, at: usize) -> Result<Node, Mistake> {
        let start = of.at;
        let (expr, kind) = match name {
            "startsWith" | "endsWith" | "contains" => {
                self.want(&of, &[Kind::Text], &format!("{name} is asked of a text"))?;
                let argument = self.expression()?;
                self.want(&argument, &[Kind::Text], &format!("{name} takes a text"))?;
                let sides = Box::new((of.expr, argument.expr));
                let relation = match name {
                    "startsWith" => Relation::StartsWith,
                    "endsWith" => Relation::EndsWith,
                    _ => Relation::Contains,
                };
                (Expr::Relation(relation, sides), Kind::Bool)
            }
            "matches" => {
                self.want(&of, &[Kind::Text], "matches is asked of a text")?;
                (Expr::Matches(Box::new(of.expr), self.regex()?), Kind::Bool)
            }
            "exists" | "all" => {
                self.want(&of, &[Kind::List], &format!("{name} is asked of a list"))?;
                let each = self.each(name)?;
                let parts = Box::new((of.expr, each.expr));
                (if name == "all" { Expr::ForAll(parts) } else { Expr::Exists(parts) }, Kind::Bool)
            }
            "size" => (self.size(of)?, Kind::Number),
            _ => return Err(Mistake::at(at, unknown("there is no function", name, METHODS))),
        };
        self.expect(")")?;
        Ok(Node { expr, kind, at: start })
    }

    /// The name and the condition of `exists` and `all`.
    fn each(&mut self, method: &str) -> Result<Node, Mistake> {
        let at = self.here();
        let name = self.name()?;
        if Root::named(&name).is_some() || self.bound.len() >= MAX_SCOPES {
            let problem = format!(
                "{method} takes a name of its own, as in {method}(x, x == 'a'), and nests {MAX_SCOPES} deep"
            );
            return Err(Mistake::at(at, problem));
        }
        self.expect(",")?;
        self.bound.push(name);
        let each = self.expression()?;
        self.bound.pop();
        self.want(&each, &[Kind::Bool], &format!("{method} asks what is true or false"))?;
        Ok(each)
    }

    fn regex(&mut self) -> Result<Regex, Mistake> {
        let at = self.here();
        match self.tokens.get(self.next) {
            Some((Token::Text(pattern), _)) => {
                let regex = regex(pattern).map_err(|problem| Mistake::at(at, problem))?;
                self.next += 1;
                Ok(regex)
            }
            _ => self.unexpected("a regular expression in quotes (it is compiled once)"),
        }
    }

    fn size(&mut self, of: Node) -> Result<Expr, Mistake> {
        self.want(&of, &[Kind::Text, Kind::List, Kind::Map], "texts, lists and maps have a size")?;
        Ok(Expr::Size(Box::new(of.expr)))
    }

    fn primary(&mut self) -> Result<Node, Mistake> {
        let at = self.here();
        if let Some((literal, kind)) = self.constant() {
            return Ok(Node { expr: Expr::Literal(literal), kind, at });
        }
        if self.takes("(") {
            let inner = self.expression()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.takes("[") {
            return self.list(at);
        }
        match self.tokens.get(self.next) {
            Some((Token::Name(_), _)) => {
                let name = self.name()?;
                self.named(&name, at)
            }
            _ => self.unexpected("a value"),
        }
    }

    fn constant(&mut self) -> Option<(Literal, Kind)> {
        let minus = self.sees("-");
        let (token, _) = self.tokens.get(self.next + usize::from(minus))?;
        let constant = match (token, minus) {
            (Token::Int(number), true) => (Literal::Int(-*number), Kind::Number),
            (Token::Float(number), true) => (Literal::Float(-*number), Kind::Number),
            (_, true) | (Token::Sign(_), _) => return None,
            (Token::Int(number), _) => (Literal::Int(*number), Kind::Number),
            (Token::Float(number), _) => (Literal::Float(*number), Kind::Number),
            (Token::Text(text), _) => (Literal::Text(text.as_str().into()), Kind::Text),
            (Token::Name(name), _) => match name.as_str() {
                "true" => (Literal::Bool(true), Kind::Bool),
                "false" => (Literal::Bool(false), Kind::Bool),
                "null" => (Literal::Null, Kind::Null),
                _ => return None,
            },
        };
        self.next += 1 + usize::from(minus);
        Some(constant)
    }

    fn named(&mut self, name: &str, at: usize) -> Result<Node, Mistake> {
        if self.sees("(") {
            return self.function(name, at);
        }
        if let Some(depth) = self.bound.iter().rev().position(|bound| bound == name) {
            return Ok(Node { expr: Expr::Bound(depth), kind: Kind::Any, at });
        }
        match Root::named(name) {
            Some(root) => Ok(Node { expr: Expr::Root(root), kind: Kind::Map, at }),
            None => {
                let known = Root::ALL.iter().map(|root| root.name());
                Err(Mistake::at(at, unknown("nothing is called", name, known)))
            }
        }
    }

    fn function(&mut self, name: &str, at: usize) -> Result<Node, Mistake> {
        const FUNCTIONS: [&str; 2] = ["size", "has"];
        if !FUNCTIONS.contains(&name) {
            return Err(Mistake::at(at, unknown("there is no function", name, FUNCTIONS)));
        }
        self.expect("(")?;
        let argument = self.expression()?;
        self.expect(")")?;
        if name == "size" {
            return Ok(Node { expr: self.size(argument)?, kind: Kind::Number, at });
        }
        let Expr::Field(of, field) = argument.expr else {
            let problem = "has asks for a field, as in has(effect.has_where)";
            return Err(Mistake::at(at, problem.to_owned()));
        };
        Ok(Node { expr: Expr::Has(of, field), kind: Kind::Bool, at })
    }

    fn list(&mut self, at: usize) -> Result<Node, Mistake> {
        let mut elements = Vec::new();
        while !self.takes("]") {
            if !elements.is_empty() {
                self.expect(",")?;
            }
            let Some((constant, _)) = self.constant() else {
                let problem = "a list holds constants: texts, numbers, true, false, null";
                return Err(Mistake::at(self.here(), problem.to_owned()));
            };
            elements.push(constant);
        }
        Ok(Node { expr: Expr::List(elements), kind: Kind::List, at })
    }

    fn here(&self) -> usize {
        self.tokens.get(self.next).map_or(self.end, |(_, at)| *at)
    }

    fn sees(&self, sign: &str) -> bool {
        matches!(self.tokens.get(self.next), Some((Token::Sign(found), _)) if *found == sign)
    }

    fn takes(&mut self, sign: &str) -> bool {
        let seen = self.sees(sign);
        self.next += usize::from(seen);
        seen
    }

    fn expect(&mut self, sign: &'static str) -> Result<(), Mistake> {
        if self.takes(sign) { Ok(()) } else { self.unexpected(sign) }
    }

    fn name(&mut self) -> Result<String, Mistake> {
        match self.tokens.get(self.next) {
            Some((Token::Name(name), _)) => {
                let name = name.clone();
                self.next += 1;
                Ok(name)
            }
            _ => self.unexpected("a name"),
        }
    }

    fn unexpected<T>(&self, wanted: &str) -> Result<T, Mistake> {
        let found = match self.tokens.get(self.next) {
            None => "it ends".to_owned(),
            Some((Token::Sign("+" | "-" | "*" | "/" | "%"), _)) => {
                return Err(Mistake::at(self.here(), "there is no arithmetic".to_owned()));
            }
            Some((Token::Sign(sign), _)) => format!("{sign} stands"),
            Some((Token::Name(name), _)) => format!("{name} stands"),
            Some(_) => "a value stands".to_owned(),
        };
        Err(Mistake::at(self.here(), format!("{found} where {wanted} should be")))
    }

    fn want(&self, node: &Node, kinds: &[Kind], rule: &str) -> Result<(), Mistake> {
        if node.kind == Kind::Any || kinds.contains(&node.kind) {
            return Ok(());
        }
        Err(Mistake::at(node.at, format!("{rule}; this is {}", node.kind.words())))
    }
}

const METHODS: [&str; 7] =
    ["startsWith", "endsWith", "contains", "matches", "exists", "all", "size"];

/// A regular expression whose size and cost are bounded: matching takes time linear in the text.
pub(in crate::policy) fn regex(pattern: &str) -> Result<Regex, String> {
    /// Bytes of a compiled expression, and of the cache that matching with it may use.
    const MAX_COMPILED: usize = 1 << 20;
    if pattern.len() > MAX_SOURCE {
        return Err(format!("the regular expression is longer than {MAX_SOURCE} bytes"));
    }
    RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED)
        .dfa_size_limit(MAX_COMPILED)
        .nest_limit(50)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
            // The parser draws the place; its last line says what is wrong.
            error => {
                let drawn = error.to_string();
                let last = drawn.lines().last().unwrap_or_default();
                format!("not a regular expression: {}", last.trim_start_matches("error: "))
            }
        })
}

/// Says what is not known, with the nearest that is.
fn unknown<'k>(what: &str, name: &str, known: impl IntoIterator<Item = &'k str> + Clone) -> String {
    let near = |known: &&str| strsim::damerau_levenshtein(name, known) <= 2;
    match known.clone().into_iter().find(near) {
        Some(near) => format!("{what} {name}; is {near} meant?"),
        None => {
            let all: Vec<&str> = known.into_iter().collect();
            format!("{what} {name}; there are {}", all.join(", "))
        }
    }
}
