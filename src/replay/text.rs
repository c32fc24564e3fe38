//! Foreign text made safe to print and to read.

use std::fmt::Write;

/// Marks on one letter; more only serve to hide what is around it.
const MARKS_IN_A_ROW: usize = 3;

/// What happens to line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    /// They stay, and tabs too.
    Keep,
    /// They are shown as `\n`.
    Escape,
}

/// The text with everything escaped that a terminal acts on or a reader does not see.
pub(super) fn printable(text: &str, lines: Lines) -> String {
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    for c in text.chars() {
        marks = if is_mark(c) { marks + 1 } else { 0 };
        match c {
            '\n' | '\t' if lines == Lines::Keep => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if is_hidden(c) || marks > MARKS_IN_A_ROW => escape(&mut out, c),
            _ => out.push(c),
        }
    }
    out
}

/// The same for bytes that should be UTF-8; those that are not are shown as `\xNN`.
pub(super) fn printable_bytes(bytes: &[u8], lines: Lines) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.push_str(&printable(chunk.valid(), lines));
        for byte in chunk.invalid() {
            // Writing to a String does not fail.
            let _ok = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

/// At most so many characters, and how many more there were.
pub(super) fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => {
            let more = text.chars().count() - most;
            format!("{}… (+{more})", text.get(..end).unwrap_or_default())
        }
    }
}

fn escape(out: &mut String, c: char) {
    let code = u32::from(c);
    let _ok =
        if code < 0x100 { write!(out, "\\x{code:02x}") } else { write!(out, "\\u{{{code:x}}}") };
}

/// Whether a character acts on a terminal, or is not seen.
pub(super) fn is_hidden(c: char) -> bool {
    c.is_control() || is_unseen(c)
}

/// Characters that take no place or change the order of others: bidirectional controls,
/// zero-width characters, line separators, tags, invisible fillers.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

fn is_mark(c: char) -> bool {
    matches!(c,
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5bd}'
        | '\u{610}'..='\u{61a}' | '\u{64b}'..='\u{65f}' | '\u{e31}' | '\u{e34}'..='\u{e3a}'
        | '\u{e47}'..='\u{e4e}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}'
        | '\u{20d0}'..='\u{20ff}' | '\u{fe20}'..='\u{fe2f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_acts_on_a_terminal_gets_through() {
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            let shown = printable(&c.to_string(), Lines::Escape);
            assert!(!shown.chars().any(char::is_control), "{c:?} gave {shown:?}");
        }
        let attack = "a\x1b]0;title\x07\x1b[2Jb\u{9b}31m\u{202e}c\r\u{200b}d\u{e0041}";
        let shown = printable(attack, Lines::Keep);
        assert_eq!(shown, "a\\x1b]0;title\\x07\\x1b[2Jb\\x9b31m\\u{202e}c\\r\\u{200b}d\\u{e0041}");
        assert_eq!(printable_bytes(b"a\xffb\n", Lines::Escape), "a\\xffb\\n");
        assert_eq!(printable("naïve – 日本語 e\u{301}", Lines::Escape), "naïve – 日本語 e\u{301}");
        assert!(
            printable(&format!("e{}", "\u{301}".repeat(50)), Lines::Escape).contains("\\u{301}")
        );
    }

    #[test]
    fn long_text_says_how_much_is_left_out() {
        assert_eq!(shortened("äbc", 3), "äbc");
        assert_eq!(shortened("äbcdef", 3), "äbc… (+3)");
    }
}
