//! A foreign text as somebody who decides over it must see it: nothing hidden, nothing reordered,
//! nothing that looks like what it is not.
//!
//! Escaped are control characters but line ends and tabs, whatever moves or hides text (bidi
//! controls, zero-width characters, tags, variation selectors), runs of combining marks, and
//! letters of other alphabets that pass for Latin ones: in a word with Latin letters, or in a word
//! that has nothing but such letters. Names in honest Cyrillic or Greek stay readable.
//!
//! Limit: the list of look-alikes holds the alphabets that are used for this; a Latin letter with
//! an accent stays as it is.

use std::fmt::Write as _;

/// A text that hides nothing, and what was found in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visible {
    /// The text; what would be hidden is written `\u{202e}`.
    pub text: String,
    /// What somebody who reads it should know, in words.
    pub cautions: Vec<String>,
}

/// More marks on one letter than any language writes.
const MAX_MARKS: usize = 4;

/// Cyrillic, Greek, Armenian and Cherokee letters that look like Latin ones.
const LOOKALIKES: &str = "аеорісухѕјԁԛԝһԍѵԚԜАВЕЅІЈКМНОРСТУХЗЬѴԌҺαβγεζηικνορτυχΑΒΕΖΗΙΚΜΝΟΡΤΥΧϲϳօսհոցզքՕՍᎪᏴᏟᎠᎬᎻᎥᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ";

/// Makes a text visible.
pub fn visible(text: &str) -> Visible {
    let mut shown = String::with_capacity(text.len());
    let (mut moved, mut alike, mut controls) = (0_usize, 0_usize, 0_usize);
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        alike += push_word(&mut shown, word);
        let mut characters = after.chars();
        if let Some(c) = characters.next() {
            match c {
                '\n' | '\t' => shown.push(c),
                c if c.is_control() => {
                    controls += 1;
                    push_escaped(&mut shown, c);
                }
                c if hides(c) => {
                    moved += 1;
                    push_escaped(&mut shown, c);
                }
                c => shown.push(c),
            }
        }
        rest = characters.as_str();
    }
    let mut cautions = Vec::new();
    let mut say = |count: usize, what: &str| {
        if count > 0 {
            cautions.push(format!("{count} {what}, written \\u{{…}}"));
        }
    };
    say(moved, "invisible or text-moving characters");
    say(alike, "letters of other alphabets or marks that pass for something else");
    say(controls, "control characters");
    Visible { text: shown, cautions }
}

/// Writes a word; gives how many of its characters were escaped.
fn push_word(shown: &mut String, word: &str) -> usize {
    let latin = word.chars().any(|c| c.is_ascii_alphabetic() || is_styled(c));
    let mut marks = 0;
    let mut is_escaped = |c: char| {
        marks = if is_mark(c) { marks + 1 } else { 0 };
        is_styled(c) || marks > MAX_MARKS
    };
    let (mut escaped, mut begin) = (0, 0);
    for (at, c) in word.char_indices().filter(|(_, c)| is_escaped(*c)) {
        // What is written for a character parts the word for whoever reads it.
        escaped += 1 + push_part(shown, word.get(begin..at).unwrap_or_default(), latin);
        push_escaped(shown, c);
        begin = at + c.len_utf8();
    }
    escaped + push_part(shown, word.get(begin..).unwrap_or_default(), latin)
}

/// Writes a part of a word that may have Latin letters.
fn push_part(shown: &mut String, part: &str, latin: bool) -> usize {
    let mut letters = part.chars().filter(|c| c.is_alphabetic()).peekable();
    let all_alike = letters.peek().is_some() && letters.all(|c| LOOKALIKES.contains(c));
    let mut escaped = 0;
    for c in part.chars() {
        let other_alphabet = !c.is_ascii() && c.is_alphabetic() && !is_accented_latin(c);
        if other_alphabet && (all_alike || (latin && !is_far_from_latin(c))) {
            escaped += 1;
            push_escaped(shown, c);
        } else {
            shown.push(c);
        }
    }
    escaped
}

fn push_escaped(shown: &mut String, c: char) {
    // Writing to a String does not fail.
    let _ok = write!(shown, "\\u{{{:x}}}", u32::from(c));
}

fn is_of_word(c: char) -> bool {
    !hides(c) && (c.is_alphanumeric() || c == '_' || is_mark(c))
}

/// Characters that show nothing, or move what stands around them.
fn hides(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1d159}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' | '\u{e000}'..='\u{f8ff}' | '\u{f0000}'..='\u{10ffff}')
        // Spaces that are not the space.
        || matches!(c, '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{1ab0}'..='\u{1aff}'
        | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

fn is_accented_latin(c: char) -> bool {
    matches!(c, '\u{c0}'..='\u{24f}' | '\u{1e00}'..='\u{1eff}')
}

/// Latin letters and digits in other dress: full width, mathematical, enclosed, superscript.
fn is_styled(c: char) -> bool {
    matches!(c,
        '\u{2070}'..='\u{209f}' | '\u{2100}'..='\u{214f}' | '\u{2160}'..='\u{2188}'
        | '\u{2460}'..='\u{24ff}' | '\u{a640}'..='\u{a69f}' | '\u{ff01}'..='\u{ff5e}'
        | '\u{1d400}'..='\u{1d7ff}' | '\u{1f100}'..='\u{1f1ff}')
}

/// Scripts that nobody takes for Latin, whatever they stand beside.
fn is_far_from_latin(c: char) -> bool {
    matches!(c,
        '\u{590}'..='\u{6ff}' | '\u{900}'..='\u{109f}' | '\u{1100}'..='\u{11ff}'
        | '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_would_be_hidden_is_written_out() {
        for (text, shown) in [
            (
                "delete from orders -- \u{202e}42 = di erehw",
                "delete from orders -- \\u{202e}42 = di erehw",
            ),
            ("dro\u{200b}p", "dro\\u{200b}p"),
            ("a\rb", "a\\u{d}b"),
            ("a\u{1b}[31m", "a\\u{1b}[31m"),
            ("x\u{e0041}", "x\\u{e0041}"),
            // Cyrillic a in a Latin word, and a word of look-alikes alone.
            ("p\u{430}yroll", "p\\u{430}yroll"),
            ("\u{441}\u{43e}\u{440}\u{443}", "\\u{441}\\u{43e}\\u{440}\\u{443}"),
            ("ｏrders", "\\u{ff4f}rders"),
            ("\u{1d41d}rop", "\\u{1d41d}rop"),
            ("a\u{300}\u{300}\u{300}\u{300}\u{300}", "a\u{300}\u{300}\u{300}\u{300}\\u{300}"),
            ("a\u{a0}b", "a\\u{a0}b"),
            // What is left of a word beside characters that are written out passes for no other.
            ("ｏ\u{43e}", "\\u{ff4f}\\u{43e}"),
            (
                "\u{43e}\u{300}\u{300}\u{300}\u{300}\u{300}\u{436}",
                "\\u{43e}\u{300}\u{300}\u{300}\u{300}\\u{300}\u{436}",
            ),
        ] {
            let seen = visible(text);
            assert_eq!(seen.text, shown);
            assert_eq!(seen.cautions.len(), 1, "{text:?}: {:?}", seen.cautions);
        }
    }

    #[test]
    fn honest_text_stays_as_it_is() {
        for text in [
            "update orders\n\tset note = 'größer, façade, Łódź' where id = 1",
            "select * from заказы where город = 'Москва'",
            "insert into t values ('日本語 text', 'ελληνικά', 'العربية')",
            "",
        ] {
            assert_eq!(visible(text), Visible { text: text.to_owned(), cautions: Vec::new() });
        }
    }

    proptest! {
        #[test]
        fn no_text_shows_a_character_that_hides_or_moves(text in "\\PC{0,40}|.{0,40}") {
            let seen = visible(&text).text;
            prop_assert!(!seen.chars().any(|c| hides(c) || (c.is_control() && c != '\n' && c != '\t')));
            prop_assert_eq!(visible(&seen).text, seen);
        }
    }
}
