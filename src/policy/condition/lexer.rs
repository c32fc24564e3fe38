//! The tokens of a condition, as the CEL specification lays them down.

use super::Mistake;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Name(String),
    Text(String),
    Int(i64),
    Float(f64),
    /// An operator, a bracket, a dot or a comma.
    Sign(&'static str),
}

/// The longer ones first.
const SIGNS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "?", ":", "(", ")", "[", "]", ".", ",", "-",
    "+", "*", "/", "%", "{", "}",
];

/// All tokens, each with the byte at which it starts.
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, usize)>, Mistake> {
    let mut found = Vec::new();
    let mut rest = source;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r', '\u{c}']);
        let at = source.len() - rest.len();
        let Some(first) = rest.chars().next() else { return Ok(found) };
        let (token, after) = if let Some(quoted) = quoted(rest) {
            let (text, after) = text(quoted, at)?;
            (Token::Text(text), after)
        } else if first.is_ascii_digit() {
            number(rest, at)?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let (name, after) = cut(rest, inside);
            (Token::Name(name.to_owned()), after)
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            (Token::Sign(sign), rest.strip_prefix(sign).unwrap_or_default())
        } else {
            return Err(Mistake::at(at, format!("{first:?} has no meaning here")));
        };
        found.push((token, at));
        rest = after;
    }
}

fn cut(text: &str, inside: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !inside(c)).unwrap_or(text.len()))
}

fn number(rest: &str, at: usize) -> Result<(Token, &str), Mistake> {
    let (digits, after) = cut(rest, |c| c.is_ascii_digit());
    let fraction = after.strip_prefix('.').filter(|f| f.starts_with(|c: char| c.is_ascii_digit()));
    let (token, after) = match fraction {
        Some(fraction) => {
            let (_, after) = cut(fraction, |c| c.is_ascii_digit());
            let (text, _) = rest.split_at(rest.len() - after.len());
            (text.parse().ok().map(Token::Float), after)
        }
        None => (digits.parse().ok().map(Token::Int), after),
    };
    let ends = !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    match token.filter(|_| ends) {
        Some(token) => Ok((token, after)),
        None => Err(Mistake::at(at, "numbers are written 12 or 1.5".to_owned())),
    }
}

/// What follows the opening quote of a text, the quote, and whether the text is raw.
fn quoted(rest: &str) -> Option<(&str, char, bool)> {
    let (inner, raw) = match rest.strip_prefix(['r', 'R']) {
        Some(inner) if inner.starts_with(['\'', '"']) => (inner, true),
        _ => (rest, false),
    };
    ['\'', '"'].into_iter().find_map(|quote| Some((inner.strip_prefix(quote)?, quote, raw)))
}

fn text((inner, quote, raw): (&str, char, bool), at: usize) -> Result<(String, &str), Mistake> {
    let mut text = String::new();
    let mut chars = inner.chars();
    loop {
        match chars.next() {
            None | Some('\n' | '\r') => {
                return Err(Mistake::at(at, "the text does not end".to_owned()));
            }
            Some(c) if c == quote => return Ok((text, chars.as_str())),
            Some('\\') if !raw => text.push(escape(&mut chars).ok_or_else(|| {
                Mistake::at(at, r"a backslash stands before \ ' n r t, or is doubled; a raw text, r'…', takes it as it is".to_owned())
            })?),
            Some(c) => text.push(c),
        }
    }
}

fn escape(chars: &mut std::str::Chars<'_>) -> Option<char> {
    match chars.next()? {
        c @ ('\\' | '\'' | '"' | '`' | '?') => Some(c),
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        c @ ('x' | 'u' | 'U') => {
            let digits = match c {
                'x' => 2,
                'u' => 4,
                _ => 8,
            };
            let code = (0..digits).try_fold(0_u32, |code, _| {
                code.checked_mul(16)?.checked_add(chars.next()?.to_digit(16)?)
            })?;
            char::from_u32(code)
        }
        _ => None,
    }
}
