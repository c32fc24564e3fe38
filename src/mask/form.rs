//! Forms (`application/x-www-form-urlencoded`), masked pair by pair: fields by their name, patterns in
//! names and values, however they are escaped.
//!
//! Source: WHATWG URL, section "application/x-www-form-urlencoded".

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use percent_encoding::percent_decode;

use super::action::Action;
use super::counts::{Counts, PATTERNS, count};
use super::json::NotMasked;
use super::plain_text::plain_text;
use super::plan::{MaskPlan, Masked};
use super::scanner::Masker;
use super::value::{REDACTED, whole_value};

/// The most steps of a name that names a field within others.
const MOST_STEPS: usize = 32;
/// The longest pair, in bytes: it is looked at whole.
const MAX_PAIR: usize = 1 << 20;

/// Masks a form that comes in chunks.
#[derive(Debug)]
pub struct Form {
    plan: Arc<MaskPlan>,
    /// The pair that has not ended.
    pair: BytesMut,
}

impl Form {
    /// At the beginning of a form.
    pub fn new(plan: &Arc<MaskPlan>) -> Self {
        Self { plan: Arc::clone(plan), pair: BytesMut::new() }
    }

    /// Takes the next chunk, and gives the pairs that are whole.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Masked, NotMasked> {
        let mut passed = Masked::default();
        for part in chunk.split_inclusive(|byte| matches!(byte, b'&' | b';')) {
            if self.pair.len() + part.len() > MAX_PAIR {
                return Err(NotMasked::TooLarge);
            }
            self.pair.extend_from_slice(part);
            if matches!(part.last(), Some(b'&' | b';')) {
                passed = passed.joined(&self.take());
            }
        }
        Ok(passed)
    }

    /// Gives the last pair.
    pub fn finish(&mut self) -> Masked {
        self.take()
    }

    fn take(&mut self) -> Masked {
        let whole = std::mem::take(&mut self.pair).freeze();
        let end = usize::from(matches!(whole.last(), Some(b'&' | b';')));
        let (pair, end) = whole.split_at_checked(whole.len() - end).unwrap_or((&whole, &[]));
        let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (pair.get(..at), pair.get(at + 1..)),
            None => (Some(pair), None),
        };
        let name = name.unwrap_or_default();
        let decoded = decoded(name);
        let key = String::from_utf8_lossy(&decoded);
        let actions = self.actions(&key);
        if actions == [None, None] && self.holds_field(value.unwrap_or(name)) {
            let out = Bytes::from([&*encoded(REDACTED.as_bytes()), end].concat());
            return Masked::by_value(out.clone(), out).found(1);
        }
        let mut counts = Counts::new();
        let [shown, stored] = [0, 1].map(|eyes| {
            let masker = self.plan.maskers().get(eyes).copied().flatten().cloned();
            let action = actions.get(eyes).copied().flatten();
            // Those of storage come last, and are the ones that count.
            counts.clear();
            let mut out = self.masked(name, None, masker.as_ref(), &mut counts);
            if let Some(value) = value {
                out.push(b'=');
                out.extend(self.masked(value, action, masker.as_ref(), &mut counts));
                if action.is_some() {
                    self.plan.count_field(&[&key], &mut counts);
                }
            }
            out.extend_from_slice(end);
            Bytes::from(out)
        });
        Masked::by_value(shown, stored).counted(&counts)
    }

    /// What is done with a value of this name, which may name a field within others
    /// (`customer[ssn]`, `customer.ssn`).
    fn actions(&self, name: &str) -> [Option<Action>; 2] {
        let mut actions = self.plan.field(&[name]);
        let steps = name.split(['[', ']', '.']).filter(|step| !step.is_empty());
        let path: Vec<&str> = steps.take(MOST_STEPS).collect();
        if path.len() > 1 {
            let inner = self.plan.field(&path);
            for (action, inner) in actions.iter_mut().zip(inner) {
                *action = (*action).max(inner);
            }
        }
        actions
    }

    /// Whether a value is written in a grammar of its own (JSON, YAML, XML, CSV) and holds the name of
    /// a masked field.
    fn holds_field(&self, raw: &[u8]) -> bool {
        let text = decoded(raw);
        let structured = text.iter().any(|byte| b"{<:=\n\"'".contains(byte));
        structured
            && self.plan.masks_fields()
            && matches!(plain_text(&self.plan, &Bytes::from(text)), Err(NotMasked::NamesField))
    }

    fn masked(
        &self,
        raw: &[u8],
        action: Option<Action>,
        masker: Option<&Arc<Masker>>,
        counts: &mut Counts,
    ) -> Vec<u8> {
        let text = decoded(raw);
        let masked = match (action, self.plan.key()) {
            (Some(action), Some(key)) => Some(whole_value(action, &text, key).unwrap_or_default()),
            (Some(_), None) => Some(REDACTED.into()),
            (None, _) => masker.and_then(|masker| masker.find(&text)).map(|(masked, found)| {
                count(counts, PATTERNS, found);
                masked
            }),
        };
        masked.map_or_else(|| raw.to_vec(), |masked| encoded(&masked))
    }
}

/// Not by `form_urlencoded::parse`, which makes text of what is none: patterns look at bytes.
fn decoded(raw: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = raw.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).collect()
}

fn encoded(text: &[u8]) -> Vec<u8> {
    form_urlencoded::byte_serialize(text).collect::<String>().into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Pattern;
    use super::super::plan::{Enforce, Mask, Masks};
    use super::super::scanner::HashKey;
    use super::*;

    fn passed(pieces: &[&[u8]]) -> String {
        let mask = Mask {
            name: "m".into(),
            targets: None,
            columns: Vec::new(),
            fields: vec!["**.ssn".parse().unwrap()],
            patterns: vec![Pattern::built_in("email").unwrap()],
            with: Action::Redact,
            unless_groups: Vec::new(),
            enforce: Enforce::default(),
        };
        let plan = Masks::new(vec![mask]).for_session("crew", &[], &HashKey::new([7; 32]));
        let mut form = Form::new(&Arc::new(plan));
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(form.push(piece).unwrap().shown());
        }
        out.extend_from_slice(form.finish().shown());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_and_values_are_masked_behind_their_escapes() {
        for (form, masked) in [
            ("a=1&b=x+y%20z&c", "a=1&b=x+y%20z&c"),
            ("to=a%40b.cc&x=%", "to=%5Bemail%5D&x=%"),
            ("to=%61@b.cc", "to=%5Bemail%5D"),
            ("a@b.cc=1", "%5Bemail%5D=1"),
            ("%73sn=078&ssn=1;ssn", "%73sn=%5Bmasked%5D&ssn=%5Bmasked%5D;ssn"),
        ] {
            assert_eq!(passed(&[form.as_bytes()]), masked, "{form}");
        }
    }

    proptest! {
        #[test]
        fn no_cut_changes_what_comes_out(
            text in "((ssn|a|%61)(=(a%40b\\.cc|[0-9]{1,3}|%zz)?)?[&;]?){0,5}",
            at in any::<prop::sample::Index>(),
        ) {
            let whole = passed(&[text.as_bytes()]);
            let (first, second) = text.as_bytes().split_at(at.index(text.len() + 1));
            prop_assert_eq!(&passed(&[first, second]), &whole);
        }
    }
}
