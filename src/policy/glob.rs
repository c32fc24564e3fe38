//! Patterns that know `*` only: any run of characters, none included. Everything else is matched
//! byte for byte.

/// A pattern with `*`. Matching takes no more than pattern length times text length, and mostly
/// far less; it allocates nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// Every text is a pattern.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole text fits the pattern.
    pub fn matches(&self, text: &str) -> bool {
        // Most patterns have one star, at their end, or none.
        match self.0.split_once('*') {
            None => *self.0 == *text,
            Some((start, "")) => text.starts_with(start),
            Some((start, _)) if !text.starts_with(start) => false,
            Some(_) => fits(self.0.as_bytes(), text.as_bytes()),
        }
    }

    /// Whether every text fits.
    pub fn matches_all(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether some text that starts with `prefix` fits.
    pub fn matches_some_with_prefix(&self, prefix: &str) -> bool {
        match self.0.split_once('*') {
            None => self.0.starts_with(prefix),
            Some((literal, _)) => literal.starts_with(prefix) || prefix.starts_with(literal),
        }
    }

    /// Whether something below a folder could fit under the folder's name and no more under
    /// another, so that moving or linking the folder would take it out of what the pattern names.
    /// Both names end with `/`. A no is certain.
    pub fn loses_below(&self, folder: &str, other: &str) -> bool {
        let [here, there] = [folder, other].map(|prefix| self.places(prefix.as_bytes()));
        here.iter().zip(there).any(|(here, there)| *here && !there)
    }

    /// The places in the pattern that it can have come to with this text.
    fn places(&self, text: &[u8]) -> Vec<bool> {
        let pattern = self.0.as_bytes();
        let mut places = vec![false; pattern.len() + 1];
        if let Some(first) = places.first_mut() {
            *first = true;
        }
        pass_stars(pattern, &mut places);
        for byte in text {
            let mut next = vec![false; pattern.len() + 1];
            for (at, wanted) in pattern.iter().enumerate() {
                if places.get(at).is_some_and(|there| *there) {
                    let to = if *wanted == b'*' { at } else { at + 1 };
                    if let Some(place) = next.get_mut(to).filter(|_| wanted == byte || to == at) {
                        *place = true;
                    }
                }
            }
            pass_stars(pattern, &mut next);
            places = next;
        }
        places
    }

    /// Whether every text that fits `other` fits this pattern too.
    ///
    /// The `*` of `other` is looked at as one character that only a `*` takes in; so a yes is
    /// certain, and a no can be wrong for patterns with several `*`.
    pub fn covers(&self, other: &Self) -> bool {
        fits(self.0.as_bytes(), other.0.as_bytes())
    }
}

/// A `*` takes in nothing, too.
fn pass_stars(pattern: &[u8], places: &mut [bool]) {
    for (at, wanted) in pattern.iter().enumerate() {
        if *wanted == b'*'
            && places.get(at).is_some_and(|there| *there)
            && let Some(after) = places.get_mut(at + 1)
        {
            *after = true;
        }
    }
}

/// Takes the text greedily and, where it does not go on, lets the last `*` take one byte more.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                p += 1;
                star = Some((p, t));
            }
            (Some(wanted), Some(found)) if wanted == found => {
                p += 1;
                t += 1;
            }
            (_, found) => match (star, found) {
                (Some((after, taken)), Some(_)) => {
                    (p, t) = (after, taken + 1);
                    star = Some((after, taken + 1));
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_takes_any_run_and_all_else_is_literal() {
        let cases = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "any.thing", true),
            ("sql.*", "sql.drop", true),
            ("sql.*", "sql", false),
            ("*rm", "program-rm", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("a?c", "abc", false),
            ("[a]", "a", false),
            ("*é*", "café!", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_pattern_covers_what_is_narrower() {
        let covers = |a: &str, b: &str| Glob::new(a).covers(&Glob::new(b));
        assert!(covers("*", "sql.*") && covers("sql.*", "sql.d*") && covers("a*", "a*b"));
        assert!(!covers("sql.*", "*") && !covers("a*b", "a*") && !covers("a", "b"));
    }

    /// The definition, at its simplest and slowest.
    fn by_definition(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|at| by_definition(rest, &text[at..])),
            Some((c, rest)) => text
                .split_first()
                .is_some_and(|(first, text)| first == c && by_definition(rest, text)),
        }
    }

    #[test]
    fn a_folder_that_moves_takes_what_is_below_it_along() {
        for (pattern, folder, other, loses) in [
            ("/srv/secret/*", "/srv/secret/", "/tmp/x/", true),
            ("/srv/secret/*", "/srv/", "/tmp/x/", true),
            ("/srv/secret/*", "/", "/tmp/x/", true),
            ("/srv/secret/*", "/srv/other/", "/tmp/x/", false),
            ("/srv/secret/*", "/srv/secret/a/", "/srv/secret/b/", false),
            ("/srv/*/secret/*", "/srv/a/", "/tmp/a/", true),
            ("/srv/*/secret/*", "/srv/a/", "/srv/b/", false),
            ("*/secret/*", "/srv/secret/", "/srv/moved/", true),
            ("*/secret/*", "/srv/", "/tmp/", false),
            ("*.pem", "/srv/", "/tmp/", false),
            ("/srv/a", "/srv/", "/tmp/", true),
            ("/srv/a", "/srv/a/", "/tmp/", false),
        ] {
            assert_eq!(Glob::new(pattern).loses_below(folder, other), loses, "{pattern} {folder}");
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = by_definition(&chars(&pattern), &chars(&text));
            prop_assert_eq!(Glob::new(&pattern).matches(&text), expected);
        }

        #[test]
        fn what_fits_the_covered_pattern_fits_the_covering_one(
            wide in "[ab*]{0,5}", narrow in "[ab*]{0,5}", text in "[ab]{0,6}",
        ) {
            let (wide, narrow) = (Glob::new(&wide), Glob::new(&narrow));
            if wide.covers(&narrow) && narrow.matches(&text) {
                prop_assert!(wide.matches(&text));
            }
        }

        #[test]
        fn a_prefix_is_ruled_out_only_when_nothing_with_it_fits(
            pattern in "[ab*]{0,5}", prefix in "[ab]{0,3}", rest in "[ab]{0,4}",
        ) {
            let glob = Glob::new(&pattern);
            if glob.matches(&format!("{prefix}{rest}")) {
                prop_assert!(glob.matches_some_with_prefix(&prefix));
            }
        }
    }
}
