//! The lines that somebody typed into a terminal, as its echo shows them: for search, not for
//! decisions.
//!
//! What counts is the line on the screen when it is sent, without the prompt before it. So what a
//! line editor, history or completion made of the keys is listed, and what is not echoed, as a
//! password, is not.
//!
//! Honest limits: what a program paints elsewhere on the screen, or shows on the alternate screen
//! (editors, pagers), is not listed. A program that writes into the line while somebody types makes
//! another line of it. What is sent before its prompt is there may be listed with the prompt, and
//! what is typed on while the echo of the line before is still on its way may not be listed.

use super::message::Size;

/// The longest line that is listed, in characters.
const MAX_LINE: usize = 4_096;
/// The longest sequence that is taken for a control.
const MAX_SEQUENCE: usize = 64;
/// Lines that were sent and are not on the screen yet.
const MAX_SENT: usize = 1_000;

/// The line of a terminal that the cursor is in.
#[derive(Debug)]
pub struct TypedLines {
    columns: usize,
    line: Vec<char>,
    cursor: usize,
    /// Bytes of a character that is not whole.
    partial: Vec<u8>,
    control: Control,
    alternate: bool,
    /// What stood there before anything was typed.
    prompt: Option<Vec<char>>,
    last_prompt: Vec<char>,
    /// Ends of lines that were typed and not seen yet.
    sent: usize,
    /// Whether the line grew since.
    answered: bool,
}

#[derive(Debug, Default)]
enum Control {
    #[default]
    None,
    /// Behind ESC.
    Escape,
    /// Behind CSI.
    Sequence(Vec<u8>),
    /// A title, a link, …, to its end.
    Text,
    /// In such a text, behind ESC.
    TextEscape,
}

impl TypedLines {
    /// Those of a terminal of this size.
    pub fn new(size: Size) -> Self {
        let mut lines = Self {
            columns: 1,
            line: Vec::new(),
            cursor: 0,
            partial: Vec::new(),
            control: Control::None,
            alternate: false,
            prompt: None,
            last_prompt: Vec::new(),
            sent: 0,
            answered: false,
        };
        lines.resize(size);
        lines
    }

    /// The terminal has another size.
    pub fn resize(&mut self, size: Size) {
        let columns = usize::try_from(size.columns).unwrap_or(usize::MAX);
        // None at all stands for one that nobody knows.
        self.columns = if columns == 0 { MAX_LINE } else { columns };
    }

    /// The next that is typed.
    pub fn typed(&mut self, input: &[u8]) {
        // What goes on in the same line did not show its end, as a password's.
        if self.answered {
            self.sent = 0;
            self.prompt = None;
        }
        if self.prompt.is_none() && self.sent == 0 {
            self.prompt = Some(self.line.clone());
        }
        let ends = input.iter().filter(|byte| matches!(byte, b'\r' | b'\n')).count();
        self.answered = false;
        self.sent = self.sent.saturating_add(ends).min(MAX_SENT);
    }

    /// The next that the screen shows. Gives the lines that were sent and are whole by that.
    pub fn shown(&mut self, output: &[u8]) -> Vec<String> {
        output.iter().filter_map(|byte| self.byte(*byte)).collect()
    }

    fn byte(&mut self, byte: u8) -> Option<String> {
        let control = std::mem::take(&mut self.control);
        self.control = match (control, byte) {
            (Control::None, 0x1b) | (Control::Escape, 0x20..=0x2f) => Control::Escape,
            (Control::None, _) => return self.text(byte),
            (Control::Escape, b'[') => Control::Sequence(Vec::new()),
            (Control::Sequence(mut parameters), 0x20..=0x3f) if parameters.len() < MAX_SEQUENCE => {
                parameters.push(byte);
                Control::Sequence(parameters)
            }
            (Control::Sequence(parameters), 0x40..=0x7e) => {
                self.sequence(&parameters, byte);
                Control::None
            }
            (Control::Text | Control::TextEscape, 0x07) | (Control::TextEscape, b'\\') => {
                Control::None
            }
            (Control::Text, 0x1b) => Control::TextEscape,
            (Control::Escape, b']' | b'P' | b'X' | b'^' | b'_')
            | (Control::Text | Control::TextEscape, _) => Control::Text,
            (Control::Escape | Control::Sequence(_), _) => Control::None,
        };
        None
    }

    fn text(&mut self, byte: u8) -> Option<String> {
        match byte {
            b'\n' => return self.ended(),
            b'\r' => self.cursor -= self.cursor % self.columns,
            0x08 => self.cursor = self.cursor.saturating_sub(1),
            b'\t' => self.cursor = (self.cursor / 8 * 8 + 8).min(MAX_LINE),
            0x00..=0x1f | 0x7f => {}
            0x20..=0x7e => self.put(char::from(byte)),
            _ => self.part(byte),
        }
        None
    }

    /// A byte of a character that is not ASCII.
    fn part(&mut self, byte: u8) {
        self.partial.push(byte);
        match std::str::from_utf8(&self.partial) {
            Ok(text) => {
                let whole = text.chars().next();
                self.partial.clear();
                whole.into_iter().for_each(|character| self.put(character));
            }
            Err(error) if error.error_len().is_some() => self.partial.clear(),
            Err(_) => {}
        }
    }

    fn put(&mut self, character: char) {
        if self.cursor >= MAX_LINE {
            return;
        }
        if self.line.len() <= self.cursor {
            self.line.resize(self.cursor + 1, ' ');
        }
        if let Some(there) = self.line.get_mut(self.cursor) {
            *there = character;
        }
        self.cursor += 1;
        self.answered |= self.sent > 0;
    }

    /// A control sequence of those that line editors write. Source: ECMA-48, section 8.3.
    fn sequence(&mut self, parameters: &[u8], end: u8) {
        let text = std::str::from_utf8(parameters).unwrap_or_default();
        let first = text.split(';').next().and_then(|first| first.parse::<usize>().ok());
        let count = first.unwrap_or(1).clamp(1, MAX_LINE);
        let at = self.cursor.min(self.line.len());
        match (end, text) {
            (b'h', "?47" | "?1047" | "?1049") => self.alternate = true,
            (b'l', "?47" | "?1047" | "?1049") => {
                self.alternate = false;
                self.begin();
                self.sent = 0;
            }
            (b'C', _) => self.cursor = (self.cursor + count).min(MAX_LINE),
            (b'D', _) => self.cursor = self.cursor.saturating_sub(count),
            (b'A', _) => {
                let rows = count.saturating_mul(self.columns);
                self.cursor = self.cursor.checked_sub(rows).unwrap_or(self.cursor % self.columns);
            }
            (b'G', _) => {
                self.cursor = (self.cursor - self.cursor % self.columns + count - 1).min(MAX_LINE);
            }
            (b'K' | b'J', "" | "0") => self.line.truncate(at),
            (b'K', "1") => self.line.iter_mut().take(at + 1).for_each(|there| *there = ' '),
            (b'K' | b'J', "2" | "3") => self.line.clear(),
            (b'P', _) => {
                let end = (at + count).min(self.line.len());
                self.line.drain(at..end);
            }
            (b'@', _) => {
                self.line.splice(at..at, std::iter::repeat_n(' ', count));
                self.line.truncate(MAX_LINE);
            }
            _ => {}
        }
    }

    /// The line is at its end; it, where it was sent.
    fn ended(&mut self) -> Option<String> {
        let line = std::mem::take(&mut self.line);
        let prompt = self.prompt.take();
        self.begin();
        if self.alternate || self.sent == 0 {
            return None;
        }
        self.sent -= 1;
        let prompt = prompt.unwrap_or_else(|| self.last_prompt.clone());
        let typed = line.strip_prefix(prompt.as_slice()).unwrap_or(&line);
        let typed: String = typed.iter().collect();
        self.last_prompt = prompt;
        let typed = typed.trim();
        (!typed.is_empty()).then(|| typed.to_owned())
    }

    fn begin(&mut self) {
        self.line.clear();
        self.partial.clear();
        self.prompt = None;
        self.cursor = 0;
        self.answered = false;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines() -> TypedLines {
        TypedLines::new(Size { columns: 20, rows: 24 })
    }

    /// Types and shows in turn.
    fn listed(lines: &mut TypedLines, steps: &[(&str, &str)]) -> Vec<String> {
        let mut listed = Vec::new();
        for (typed, shown) in steps {
            if !typed.is_empty() {
                lines.typed(typed.as_bytes());
            }
            listed.extend(lines.shown(shown.as_bytes()));
        }
        listed
    }

    #[test]
    fn a_line_is_what_the_echo_shows_behind_the_prompt() {
        for (steps, wanted) in [
            (&[("", "$ "), ("ls -l\r", "ls -l\r\nfile\r\n$ ")][..], &["ls -l"][..]),
            (&[("", "$ "), ("l", "l"), ("s", "s"), ("\r", "\r\n")], &["ls"]),
            // Backspace, and a line editor's ways of taking back.
            (&[("", "$ "), ("lx\x7fs\r", "lx\x08\x1b[Ks\r\n")], &["ls"]),
            (&[("", "$ "), ("x", "lx\x08 \x08s"), ("\r", "\r\n")], &["ls"]),
            (&[("", "$ "), ("b", "ac\x08\x1b[1@b"), ("\r", "\r\n")], &["abc"]),
            (&[("", "$ "), ("x", "axbc\x08\x08\x08\x1b[P"), ("\r", "\r\n")], &["abc"]),
            // History: the line is painted anew.
            (
                &[("", "$ "), ("\x1b[A", "whoami"), ("\x1b[A", "\r$ \x1b[Kid"), ("\r", "\r\n")],
                &["id"],
            ),
            // A password has no echo.
            (&[("", "Password: "), ("hunter2\r", "\r\nin\r\n")], &[]),
            (
                &[
                    ("", "$ "),
                    ("read\r", "read\r\nWord: "),
                    ("hunter2\r", "$ "),
                    ("id\r", "id\r\n0\r\n"),
                ],
                &["read", "id"],
            ),
            // Colours and titles in the prompt.
            (&[("", "\x1b]0;t\x07\x1b[32m$\x1b[0m "), ("id\r", "id\r\n")], &["id"]),
            // Longer than the terminal is wide.
            (
                &[("", "$ "), ("x\r", "echo 0123456789abc\x20\rdefg\r\n")],
                &["echo 0123456789abcdefg"],
            ),
            // What nobody typed.
            (&[("", "one\r\ntwo\r\n$ ")], &[]),
            // An editor.
            (
                &[
                    ("", "$ "),
                    ("vi\r", "vi\r\n\x1b[?1049h"),
                    ("a\r", "a\r\nb\r\n"),
                    (":q\r", "\x1b[?1049l$ "),
                ],
                &["vi"],
            ),
            // Several at once.
            (&[("", "$ "), ("id\rls\r", "id\r\n0\r\n$ ls\r\n")], &["id", "0"]),
            (&[("", "$ "), ("é\r", "é\r\n")], &["é"]),
        ] {
            assert_eq!(listed(&mut lines(), steps), wanted, "{steps:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_or_grows(
            steps in proptest::collection::vec((any::<Vec<u8>>(), "(\x1b\\[[0-9;?]{0,4}[@-~]|\x08|\r|[ -~]){0,40}", any::<bool>()), 0..20),
        ) {
            let mut lines = lines();
            for (bytes, text, typed) in steps {
                if typed {
                    lines.typed(&bytes);
                } else {
                    let _any = lines.shown(&bytes);
                }
                let _any = lines.shown(text.as_bytes());
                prop_assert!(lines.line.len() <= MAX_LINE && lines.partial.len() < 5);
            }
        }
    }
}
