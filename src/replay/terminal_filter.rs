//! A terminal's output made safe to show on another terminal: what moves the cursor, colours and
//! erases stays, whatever else acts on a terminal or asks it something goes.
//!
//! What stays is a list; a sequence that is not on it, or is too long, is left out whole, and bytes
//! that are no text are shown as such. Nothing that is fed here, in pieces of any size, makes this
//! give out a sequence that is not on the list.

/// Parameters of one sequence; longer ones are of no use to anybody.
const MAX_PARAMETERS: usize = 32;

/// Follows one terminal's output.
#[derive(Debug, Default)]
pub(super) struct Screen {
    state: State,
    /// The beginning of a character that has not come to its end.
    partial: Vec<u8>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// Behind ESC.
    Escape,
    /// Behind ESC and a mark that takes one more character.
    Charset(char),
    /// Behind ESC and another mark: its end is left out too.
    Intermediate,
    /// Behind ESC [.
    Control(String),
    /// A sequence that is too long, until its end.
    TooLong,
    /// A text for the terminal itself (title, clipboard, link), until its end.
    Command { escaped: bool },
}

impl Screen {
    /// What of these bytes may be shown.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> String {
        let mut input = std::mem::take(&mut self.partial);
        input.extend_from_slice(bytes);
        let mut out = String::with_capacity(input.len());
        let mut chunks = input.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            for c in chunk.valid().chars() {
                self.character(c, &mut out);
            }
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            // At the end it may be a character whose rest comes next.
            if chunks.peek().is_none() && begins_character(invalid) {
                self.partial = invalid.to_vec();
            } else {
                self.character(char::REPLACEMENT_CHARACTER, &mut out);
            }
        }
        out
    }

    fn character(&mut self, c: char, out: &mut String) {
        self.state = match std::mem::take(&mut self.state) {
            State::Text => text(c, out),
            State::Escape => escape(c, out),
            State::Charset(mark) => {
                // US-ASCII, and line drawing.
                if matches!(c, 'B' | '0') {
                    out.extend(['\x1b', mark, c]);
                }
                State::Text
            }
            State::Intermediate if matches!(c, ' '..='/') => State::Intermediate,
            State::Intermediate => State::Text,
            State::Control(parameters) => control(parameters, c, out),
            State::TooLong if matches!(c, ' '..='?') => State::TooLong,
            State::TooLong => again(c),
            State::Command { .. } if matches!(c, '\x07' | '\u{9c}' | '\x18' | '\x1a') => {
                State::Text
            }
            State::Command { escaped: true } if c == '\\' => State::Text,
            State::Command { .. } => State::Command { escaped: c == '\x1b' },
        };
    }
}

/// Whether these bytes could be the beginning of a character.
fn begins_character(bytes: &[u8]) -> bool {
    match bytes.first() {
        Some(0xc2..=0xdf) => bytes.len() < 2,
        Some(0xe0..=0xef) => bytes.len() < 3,
        Some(0xf0..=0xf4) => bytes.len() < 4,
        _ => false,
    }
}

fn again(c: char) -> State {
    if c == '\x1b' { State::Escape } else { State::Text }
}

fn text(c: char, out: &mut String) -> State {
    match c {
        '\x1b' => return State::Escape,
        '\n' | '\r' | '\t' | '\x08' => out.push(c),
        // Controls of one byte and of two (U+0080 to U+009F), and what turns text around.
        _ if c.is_control() => {}
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
        _ => out.push(c),
    }
    State::Text
}

fn escape(c: char, out: &mut String) -> State {
    match c {
        '[' => return State::Control(String::new()),
        ']' | 'P' | '^' | '_' | 'X' => return State::Command { escaped: false },
        '(' | ')' => return State::Charset(c),
        ' '..='/' => return State::Intermediate,
        '\x1b' => return State::Escape,
        // Cursor kept and restored, a line up, down, to the next.
        '7' | '8' | 'M' | 'D' | 'E' => out.extend(['\x1b', c]),
        _ => {}
    }
    State::Text
}

fn control(mut parameters: String, c: char, out: &mut String) -> State {
    match c {
        ' '..='?' if parameters.len() == MAX_PARAMETERS => State::TooLong,
        ' '..='?' => {
            parameters.push(c);
            State::Control(parameters)
        }
        '@'..='~' => {
            if is_harmless(&parameters, c) {
                out.push_str("\x1b[");
                out.push_str(&parameters);
                out.push(c);
            }
            State::Text
        }
        // Another control within is no part of it.
        _ => again(c),
    }
}

/// Whether a control sequence only changes what is seen. Source: ECMA-48, and xterm's
/// ctlseqs.
fn is_harmless(parameters: &str, last: char) -> bool {
    let plain = parameters.chars().all(|c| c.is_ascii_digit() || matches!(c, ';' | ':'));
    match last {
        'A'..='H'
        | 'J'
        | 'K'
        | 'L'
        | 'M'
        | 'P'
        | 'S'
        | 'T'
        | 'X'
        | 'Z'
        | '@'
        | '`'
        | 'a'
        | 'd'
        | 'e'
        | 'f'
        | 'm'
        | 'r'
        | 's'
        | 'u' => plain,
        // Wrapping, the cursor's looks, and the other screen.
        'h' | 'l' => {
            matches!(parameters, "?7" | "?12" | "?25" | "?47" | "?1047" | "?1048" | "?1049")
        }
        _ => false,
    }
}

/// What puts a terminal back to how it was before a recorded one was shown on it.
pub(super) const RESET: &str = "\x1b[0m\x1b[r\x1b[?7h\x1b[?25h\x1b[?1049l\x1b(B";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_draws_stays_and_what_acts_goes() {
        let mut screen = Screen::default();
        let attack = "a\x1b[31mred\x1b[0m\x1b]52;c;cm0gLXJm\x07b\x1b]0;title\x1b\\c\x1b]8;;http://x\x1b\\d\
                      \x1bPq#0\x1b\\e\x1b[5n\x1b[c\x1b[?1000h\x1b[21t\x07f\u{9b}31mg\x1b[2J\x1b[?1049h\x1b(0h\
                      \x1b#8i\u{202e}j\x1b[?2004hk";
        let shown = screen.feed(attack.as_bytes());
        assert_eq!(shown, "a\x1b[31mred\x1b[0mbcdef31mg\x1b[2J\x1b[?1049h\x1b(0hijk");
    }

    #[test]
    fn characters_and_sequences_may_come_in_pieces() {
        let text = "naïve – 日本語 \x1b[1;31mx\x1b[0m".as_bytes();
        for size in 1..5 {
            let mut screen = Screen::default();
            let shown: String = text.chunks(size).map(|piece| screen.feed(piece)).collect();
            assert_eq!(shown.as_bytes(), text);
        }
        assert_eq!(Screen::default().feed(b"a\xffb"), "a\u{fffd}b");
    }

    proptest! {
        #[test]
        fn whatever_comes_only_listed_sequences_go_out(
            bytes in proptest::collection::vec(
                prop_oneof![
                    any::<u8>(), Just(0x1b), Just(b'['), Just(b']'), Just(b'?'), Just(7), Just(0x9b)
                ],
                0..80,
            ),
            size in 1usize..9,
        ) {
            let mut screen = Screen::default();
            let shown: String = bytes.chunks(size).map(|piece| screen.feed(piece)).collect();
            for control in shown.split('\x1b').skip(1) {
                let first = control.chars().next().unwrap();
                prop_assert!("[78MDE()".contains(first), "{:?}", shown);
            }
            let bare = shown.replace('\x1b', "");
            prop_assert!(!bare.chars().any(|c| c.is_control() && !"\n\r\t\x08".contains(c)));
        }
    }
}
