//! The lines that somebody typed into a terminal, as its echo shows them: for search, not for
//! decisions.
//!
//! What counts is the line on the screen when it is sent, held against the keys: where the keys were
//! plain characters, a line is listed that ends with just these, and none else. So what is shown
//! before or between (a greeting, another command's output) is not taken for what was typed, and
//! what is not echoed, as a password, is not listed. Where the keys were a line editor's (history,
//! completion, moving about), only the screen tells, and the line behind the prompt is listed.
//!
//! It is a guess. What a program paints elsewhere on the screen, or shows on the alternate screen
//! (editors, pagers), is not listed. A program that writes into the line while somebody types makes
//! another line of it. A line of output that ends with just the characters of a line that was typed
//! and not echoed is taken for it.

use std::collections::VecDeque;

use super::message::Size;

/// The longest line that is listed, in characters.
const MAX_LINE: usize = 4_096;
/// The longest sequence that is taken for a control.
const MAX_SEQUENCE: usize = 64;
/// Lines that were sent and are not on the screen yet, and their characters together. Beyond, the
/// oldest are forgotten.
const MAX_SENT: usize = 1_000;
const MAX_KEYS: usize = 16_384;

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
    /// The keys of the line that is being typed.
    keys: Keys,
    /// Lines that were typed and not seen yet.
    sent: VecDeque<Sent>,
    /// Whether the line grew since.
    answered: bool,
}

/// The keys of one line.
#[derive(Debug, Default, Clone)]
struct Keys {
    bytes: Vec<u8>,
    /// Some of them were a line editor's: what they came to, the screen alone tells.
    edited: bool,
}

impl Keys {
    fn press(&mut self, key: u8) {
        match key {
            0x08 | 0x7f => {
                // A character may be several bytes.
                while self.bytes.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            // Ctrl-C and Ctrl-U take all of it back.
            0x03 | 0x15 => *self = Self::default(),
            // Ctrl-D in a line does nothing, or sends it as it is.
            0x04 => {}
            0x00..=0x1f => self.edited = true,
            _ if self.bytes.len() >= MAX_LINE => self.edited = true,
            _ => self.bytes.push(key),
        }
    }

    /// The characters, where they are known.
    fn text(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.bytes);
        (!self.edited).then(|| text.trim().to_owned())
    }

    fn is_empty(&self) -> bool {
        !self.edited && self.bytes.trim_ascii().is_empty()
    }
}

/// A line that was typed to its end: its characters as the screen shows them, where they are known.
#[derive(Debug)]
struct Sent(Option<String>);

impl Sent {
    /// Whether a line of the screen ends with just what was typed.
    fn ends(&self, line: &str) -> bool {
        self.0
            .as_ref()
            .and_then(|text| line.trim_end().strip_suffix(text))
            .is_some_and(|before| !before.ends_with(char::is_alphanumeric))
    }

    fn characters(&self) -> usize {
        self.0.as_ref().map_or(0, String::len)
    }
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
            keys: Keys::default(),
            sent: VecDeque::new(),
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

    /// The next that is typed. `masked` gives a line as the screen shows it.
    pub fn typed(&mut self, input: &[u8], masked: impl Fn(&str) -> String) {
        // What goes on in the same line did not show its end, as a password's, unless its echo is
        // there and its end on the way.
        let shown: String = self.line.iter().collect();
        if self.answered && !self.sent.iter().any(|sent| sent.ends(&shown)) {
            self.sent.clear();
            self.prompt = None;
        }
        if self.prompt.is_none() && self.sent.is_empty() {
            self.prompt = Some(self.line.clone());
        }
        self.answered = false;
        for key in input {
            if !matches!(key, b'\r' | b'\n') {
                self.keys.press(*key);
                continue;
            }
            let keys = std::mem::take(&mut self.keys);
            if !keys.is_empty() {
                self.sent.push_back(Sent(keys.text().map(|text| masked(&text))));
            }
            let characters =
                |sent: &VecDeque<Sent>| -> usize { sent.iter().map(Sent::characters).sum() };
            while self.sent.len() > MAX_SENT || characters(&self.sent) > MAX_KEYS {
                self.sent.pop_front();
            }
        }
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
        self.answered |= !self.sent.is_empty();
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
                self.sent.clear();
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
        if self.alternate {
            return None;
        }
        let shown: String = line.iter().collect();
        let edited = self.sent.front()?.0.is_none();
        let behind = |prompt: &[char]| {
            let typed: String = line.strip_prefix(prompt)?.iter().collect();
            Some(typed.trim().to_owned())
        };
        let (through, typed) = if let Some(at) = self.sent.iter().position(|sent| sent.ends(&shown))
        {
            (at, self.sent.get(at)?.0.clone()?)
        } else if edited {
            let known = Some(self.last_prompt.as_slice()).filter(|prompt| !prompt.is_empty());
            (0, behind(prompt.as_deref().or(known)?)?)
        } else {
            // Output; what was typed may still come.
            return None;
        };
        self.sent.drain(..=through);
        if let Some(prompt) = prompt {
            self.last_prompt = prompt;
        }
        (!typed.is_empty()).then_some(typed)
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
                lines.typed(typed.as_bytes(), |line| line.replace("a@b.cc", "[email]"));
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
            (&[("", "$ "), ("lx\x7fs", "lx\x08 \x08s"), ("\r", "\r\n")], &["ls"]),
            (&[("", "$ "), ("ac\x1b[Db", "ac\x08\x1b[1@b"), ("\r", "\r\n")], &["abc"]),
            (
                &[("", "$ "), ("axbc\x1b[D\x1b[D\x08", "axbc\x08\x08\x08\x1b[P"), ("\r", "\r\n")],
                &["abc"],
            ),
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
                &[("", "$ "), ("echo 0123456789abcdefg\r", "echo 0123456789abc\x20\rdefg\r\n")],
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
            (&[("", "$ "), ("id\rls\r", "id\r\n0\r\n$ ls\r\n")], &["id", "ls"]),
            // Before the prompt is there: the terminal shows it at once, and the shell once more.
            (
                &[
                    ("echo 2\rexit\r", "echo 2\r\nexit\r\n"),
                    ("", "Last login: Mon\r\n$ echo 2\r\n2\r\n$ exit\r\n"),
                ],
                &["echo 2", "exit"],
            ),
            // Or the echo is off until then.
            (&[("echo 2\r", ""), ("", "Last login: Mon\r\n$ echo 2\r\n2\r\n")], &["echo 2"]),
            // A password that comes ahead is not listed, nor is what is shown instead.
            (
                &[("", "Password: "), ("hunter2\rid\r", "\r\nLast login: Mon\r\n$ id\r\n0\r\n")],
                &["id"],
            ),
            // What is output and not typed.
            (&[("", "$ "), ("ls\r", "ls\r\nfalse\r\n"), ("\r", "$ \r\n$ ")], &["ls"]),
            (&[("", "$ "), ("drop\x03ls\r", "drop^C\r\n$ ls\r\n")], &["ls"]),
            (&[("", "$ "), ("é\r", "é\r\n")], &["é"]),
            // What is masked on the screen.
            (&[("", "$ "), ("to a@b.cc\r", "to [email]\r\n")], &["to [email]"]),
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
                    lines.typed(&bytes, str::to_owned);
                } else {
                    let _any = lines.shown(&bytes);
                }
                let _any = lines.shown(text.as_bytes());
                prop_assert!(lines.line.len() <= MAX_LINE && lines.partial.len() < 5);
            }
        }
    }
}
