//! What programs write to a terminal or a pipe, masked as it passes.
//!
//! A value is found although colours and other controls of a terminal stand in it: patterns see
//! the text as a terminal shows it, and the controls come out where they were, those within a
//! secret before its mask.
//!
//! Honest limits: a value that is put together by moving the cursor, or that a line editor breaks
//! at the terminal's edge, is not one. What stands in titles, links and clipboards is text like any
//! other. More than [`MAX_WAITING`] bytes of controls within a value end it.
//!
//! A stream may be no text, or hold other bytes beside text. Secrets are masked in it all the same;
//! how many is told ([`Output::altered`]), for its bytes are then not those that were written.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::plan::Masked;
use super::scanner::{Masker, Scanner, Sink};

/// Controls that wait behind text that is held back.
const MAX_WAITING: usize = 4 << 10;
/// The longest sequence that is taken for a control.
const MAX_SEQUENCE: usize = 64;
const ESCAPE: u8 = 0x1b;

/// One stream of output, for two pairs of eyes.
#[derive(Debug)]
pub struct Output {
    shown: Option<Screen>,
    /// Where storage is masked otherwise than what the client sees, or later.
    stored: Option<Option<Screen>>,
    kind: Kind,
    /// How many secrets were masked for the client in texts that ended.
    found: u64,
}

/// Whether a stream is text, as far as it came.
#[derive(Debug)]
enum Kind {
    /// In UTF-8, and the beginning of a character.
    Text(Vec<u8>),
    Other,
}

impl Kind {
    fn push(&mut self, bytes: &[u8]) {
        let Self::Text(begun) = self else { return };
        let (mut whole, mut rest) = (std::mem::take(begun), bytes);
        // The character that was begun has three bytes more at most.
        while !whole.is_empty() && !rest.is_empty() {
            whole.extend(rest.split_off_first());
            match std::str::from_utf8(&whole) {
                Ok(_) => whole.clear(),
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return *self = Self::Other,
            }
        }
        match std::str::from_utf8(rest) {
            _ if bytes.contains(&0) => *self = Self::Other,
            Ok(_) => *begun = whole,
            Err(error) if error.error_len().is_none() => {
                *begun = rest.get(error.valid_up_to()..).unwrap_or_default().to_vec();
            }
            Err(_) => *self = Self::Other,
        }
    }
}

impl Output {
    /// What is masked for the client, and what for storage; `None` in the second's place where
    /// that is one and the same, and nothing is ever given up.
    pub(super) fn new(shown: Option<&Arc<Masker>>, stored: Option<Option<&Arc<Masker>>>) -> Self {
        let screen = |masker: Option<&Arc<Masker>>| masker.map(Screen::new);
        let kind = Kind::Text(Vec::new());
        Self { shown: screen(shown), stored: stored.map(screen), kind, found: 0 }
    }

    /// How many secrets were masked for the client in a stream that is not text; `None` in text.
    pub fn altered(&self) -> Option<u64> {
        let open = self.shown.as_ref().map_or(0, |screen| screen.scanner.found());
        matches!(self.kind, Kind::Other).then_some(self.found + open)
    }

    /// Takes the next bytes, and gives what can be given of them.
    pub fn push(&mut self, bytes: &Bytes) -> Masked {
        self.kind.push(bytes);
        let push = |screen: &mut Option<Screen>| match screen {
            None => bytes.clone(),
            Some(screen) => Bytes::from(screen.push(bytes)),
        };
        let shown = push(&mut self.shown);
        let stored = self.stored.as_mut().map_or_else(|| shown.clone(), push);
        Masked::by_value(shown, stored)
    }

    /// How many bytes the client waits for.
    pub fn held(&self) -> usize {
        self.shown.as_ref().map_or(0, Screen::held)
    }

    /// Gives the client what it waits for, whatever that could have become. Storage goes on
    /// waiting.
    pub fn give_up(&mut self) -> Masked {
        let shown = match (&mut self.shown, &self.stored) {
            (Some(screen), Some(_)) => screen.give_up(),
            _ => Vec::new(),
        };
        Masked::by_value(Bytes::from(shown), Bytes::new())
    }

    /// Gives the rest, and how many secrets were found, for storage. Another text may follow.
    pub fn finish(&mut self) -> (Masked, u64) {
        let finish = |screen: &mut Option<Screen>| {
            let (rest, found) = screen.as_mut().map(Screen::finish).unwrap_or_default();
            (Bytes::from(rest), found)
        };
        let (shown, found) = finish(&mut self.shown);
        self.found += found;
        let (stored, found) = match &mut self.stored {
            None => (shown.clone(), found),
            Some(stored) => finish(stored),
        };
        (Masked::by_value(shown, stored), found)
    }
}

/// A stream as a terminal shows it, and what only steers the terminal.
#[derive(Debug)]
struct Screen {
    scanner: Scanner,
    within: Within,
    /// Controls, and how much text stands before each of them.
    waiting: VecDeque<(usize, Vec<u8>)>,
    /// How much text came, and how much of it went.
    taken: usize,
    given: usize,
}

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Text,
    /// Behind ESC and so many intermediates.
    Escape(usize),
    /// Behind CSI and so many parameters.
    Sequence(usize),
}

impl Within {
    /// What follows a byte; none when it is text. Source: ECMA-48, section 5.
    fn after(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (_, ESCAPE) => Some(Self::Escape(0)),
            (Self::Escape(0), b'[') => Some(Self::Sequence(0)),
            (Self::Escape(count), 0x20..=0x2f) if count < MAX_SEQUENCE => {
                Some(Self::Escape(count + 1))
            }
            (Self::Sequence(count), 0x20..=0x3f) if count < MAX_SEQUENCE => {
                Some(Self::Sequence(count + 1))
            }
            (Self::Escape(_), 0x30..=0x7e) | (Self::Sequence(_), 0x40..=0x7e) => Some(Self::Text),
            (_, byte) if shows_nothing(byte) => Some(Self::Text),
            _ => None,
        }
    }
}

/// Single controls that leave the text as it is: NUL, BEL, SO, SI, DEL.
fn shows_nothing(byte: u8) -> bool {
    matches!(byte, 0x00 | 0x07 | 0x0e | 0x0f | 0x7f)
}

impl Screen {
    fn new(masker: &Arc<Masker>) -> Self {
        let (scanner, waiting) = (masker.scanner(), VecDeque::new());
        Self { scanner, within: Within::Text, waiting, taken: 0, given: 0 }
    }

    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let control = |byte: &u8| *byte == ESCAPE || shows_nothing(*byte);
        if self.within == Within::Text && !bytes.iter().any(control) {
            return self.text(bytes);
        }
        let mut text = Vec::with_capacity(bytes.len());
        for byte in bytes {
            let next = self.within.after(*byte);
            self.within = next.unwrap_or(Within::Text);
            if next.is_none() {
                text.push(*byte);
                continue;
            }
            let at = self.taken + text.len();
            match self.waiting.back_mut().filter(|(last, _)| *last == at) {
                Some((_, controls)) => controls.push(*byte),
                None => self.waiting.push_back((at, vec![*byte])),
            }
        }
        self.text(&text)
    }

    fn text(&mut self, text: &[u8]) -> Vec<u8> {
        self.taken += text.len();
        let mut out = self.woven(|scanner, weave| scanner.push_into(text, weave));
        let waiting: usize = self.waiting.iter().map(|(_, controls)| controls.len()).sum();
        if waiting > MAX_WAITING {
            out.extend(self.give_up());
        }
        out
    }

    fn held(&self) -> usize {
        self.scanner.held()
    }

    fn give_up(&mut self) -> Vec<u8> {
        self.woven(|scanner, weave| scanner.give_up(weave))
    }

    fn finish(&mut self) -> (Vec<u8>, u64) {
        let mut found = 0;
        let rest = self.woven(|scanner, weave| found = scanner.finish_into(weave));
        (rest, found)
    }

    /// What the scanner gives, with the controls where they belong.
    fn woven(&mut self, scan: impl FnOnce(&mut Scanner, &mut Weave<'_>)) -> Vec<u8> {
        let Self { scanner, waiting, given, .. } = self;
        let mut weave = Weave { out: Vec::new(), waiting, given };
        scan(scanner, &mut weave);
        weave.controls(*weave.given + 1);
        weave.out
    }
}

struct Weave<'a> {
    out: Vec<u8>,
    waiting: &'a mut VecDeque<(usize, Vec<u8>)>,
    given: &'a mut usize,
}

impl Weave<'_> {
    /// Puts down the controls before a place in the text.
    fn controls(&mut self, before: usize) {
        while let Some((_, controls)) = self.waiting.pop_front_if(|(at, _)| *at < before) {
            self.out.extend(controls);
        }
    }
}

impl Sink for Weave<'_> {
    fn pass(&mut self, mut text: &[u8]) {
        let end = *self.given + text.len();
        while let Some((at, controls)) = self.waiting.pop_front_if(|(at, _)| *at < end) {
            let (before, rest) = text.split_at(at.saturating_sub(*self.given).min(text.len()));
            self.out.extend_from_slice(before);
            self.out.extend(controls);
            *self.given += before.len();
            text = rest;
        }
        self.out.extend_from_slice(text);
        *self.given = end;
    }

    fn skip(&mut self, length: usize) {
        *self.given += length;
        self.controls(*self.given);
    }

    fn put(&mut self, mask: &[u8]) {
        self.out.extend_from_slice(mask);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::action::Action;
    use super::super::scanner::HashKey;
    use super::super::{Enforce, Mask, MaskPlan, Masks, Pattern};
    use super::*;

    fn plan(unless_groups: &[&str]) -> MaskPlan {
        let patterns = ["email", "credit-card", "private-key"];
        let own = Pattern::own("token", r"\btok_[0-9a-f]{8}\b").unwrap();
        let mask = Mask {
            name: "m".into(),
            targets: None,
            columns: Vec::new(),
            fields: Vec::new(),
            patterns: patterns
                .iter()
                .map(|name| Pattern::built_in(name).unwrap())
                .chain([own])
                .collect(),
            with: Action::Redact,
            unless_groups: unless_groups.iter().map(|group| (*group).to_owned()).collect(),
            enforce: Enforce::default(),
        };
        Masks::new(vec![mask]).for_session("host", &["g".to_owned()], &HashKey::new([7; 32]))
    }

    fn passed(terminal: bool, pieces: &[&[u8]]) -> String {
        let mut output = plan(&[]).output(terminal);
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(output.push(&Bytes::copy_from_slice(piece)).shown());
        }
        out.extend_from_slice(output.finish().0.shown());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn controls_within_a_value_do_not_hide_it_and_stay() {
        for (text, masked) in [
            ("to a@b.cc!", "to [email]!"),
            ("\x1b[1ma@\x1b[31mb.cc\x1b[0m!", "\x1b[1m\x1b[31m[email]\x1b[0m!"),
            ("a\0@\x07b.cc", "\0\x07[email]"),
            ("4111\x1b[K 1111 1111 1111 x", "\x1b[K[credit-card] x"),
            ("\x1b]0;a@b.cc\x07 ls", "\x1b]0;[email]\x07 ls"),
            ("\x1b(Btok_\x1b[0;1m01234567\x1b[m ", "\x1b(B\x1b[0;1m[token]\x1b[m "),
            ("\x1b[31mred\x1b[0m\r\n", "\x1b[31mred\x1b[0m\r\n"),
        ] {
            assert_eq!(passed(false, &[text.as_bytes()]), masked, "{text:?}");
            let bytewise: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(passed(true, &bytewise), masked, "{text:?}");
        }
    }

    #[test]
    fn only_what_may_be_the_beginning_of_a_secret_is_held_back() {
        for (text, held) in [
            ("agent@web-1:~$ ", 0),
            ("Password: ", 0),
            ("db-server login: ", 0),
            ("-rw-r--r-- 1 root root ", 0),
            ("total 12\r\n", 0),
            ("tok", 3),
            ("tok_0g", 6),
            ("Continue? [y/N] ", 0),
            ("mail", 4),
        ] {
            let mut output = plan(&[]).output(true);
            output.push(&Bytes::copy_from_slice(text.as_bytes()));
            assert_eq!(output.held(), held, "{text:?}");
        }
    }

    #[test]
    fn what_is_given_up_is_still_masked_in_what_is_stored() {
        let mut output = plan(&[]).output(true);
        let first = output.push(&Bytes::from_static(b"a@b"));
        assert!(first.shown().is_empty() && first.stored().is_empty());
        let given = output.give_up();
        assert_eq!((&given.shown()[..], &given.stored()[..]), (&b"a@b"[..], &b""[..]));
        let rest = output.push(&Bytes::from_static(b".cc\n"));
        assert_eq!((&rest.shown()[..], &rest.stored()[..]), (&b".cc\n"[..], &b"[email]\n"[..]));
        assert_eq!(output.finish().1, 1);
    }

    #[test]
    fn a_lifted_mask_holds_nothing_back_from_the_client() {
        let mut output = plan(&["g"]).output(false);
        let masked = output.push(&Bytes::from_static(b"a@b.cc"));
        assert_eq!((&masked.shown()[..], &masked.stored()[..]), (&b"a@b.cc"[..], &b""[..]));
        assert_eq!(output.finish().0.stored(), "[email]");
    }

    #[test]
    fn what_is_changed_in_other_than_text_is_counted() {
        let altered = |pieces: &[&[u8]]| {
            let mut output = plan(&[]).output(false);
            for piece in pieces {
                output.push(&Bytes::copy_from_slice(piece));
            }
            output.finish();
            output.altered()
        };
        assert_eq!(altered(&[b"alice@example.com"]), None);
        assert_eq!(altered(&[b"\xc3", b"\xa9 alice@example.com"]), None);
        assert_eq!(altered(&[b"\xf0\x9f", b"\x98", b"\x80 a@b.cc\n"]), None);
        assert_eq!(altered(&[b"\x01\xfealice@example.com\xff"]), Some(1));
        assert_eq!(altered(&[b"\xc3", b"alice"]), Some(0));
        assert_eq!(altered(&[b"SQLite format 3\0alice@example.com\0"]), Some(1));
    }

    #[test]
    fn controls_without_end_are_not_kept() {
        let mut output = plan(&[]).output(false);
        output.push(&Bytes::from_static(b"a"));
        let zeros = Bytes::from(vec![0; 3 * MAX_WAITING]);
        assert_eq!(output.push(&zeros).shown().len(), zeros.len() + 1);
        assert_eq!(output.held(), 0);
    }

    proptest! {
        #[test]
        fn no_cut_changes_what_comes_out(
            text in "(a@b\\.cc|\x1b\\[[0-9;]{0,3}[mK]|\x1b[(]B|4111 1111 1111 1111|tok_0123abcd|[ -~]|\0|\n){0,12}",
            cuts in proptest::collection::vec(1..6_usize, 1..6),
        ) {
            let whole = passed(false, &[text.as_bytes()]);
            let (mut pieces, mut rest) = (Vec::new(), text.as_bytes());
            for cut in cuts.iter().cycle() {
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = more;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(passed(true, &pieces), whole);
        }
    }
}
