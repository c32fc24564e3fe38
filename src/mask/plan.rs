//! The masks in force, and what they are for one session.
//!
//! # Two pairs of eyes
//!
//! `unless_groups` lifts a mask for the eyes of the client; what is stored is masked always. So
//! everything that is masked is masked for two: [`Masked`] holds both, and the bytes are the same
//! ones unless a lifted mask found something.
//!
//! # How a protocol masks what it passes on
//!
//! [`MaskPlan::is_empty`] first: then nothing need be done. A whole text goes through
//! [`MaskPlan::text`]; a stream goes chunk by chunk through the one [`Texts`] that
//! [`MaskPlan::texts`] gives, and comes out the same however it was cut. It holds back no more
//! than the longest match, and [`Texts::finish`] gives that up. What is stored of a request goes
//! through [`MaskPlan::view`]. JSON documents are asked for field by field:
//! [`MaskPlan::field`].

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use super::action::Action;
use super::columns::{ColumnPattern, FieldPattern};
use super::counts::{Counts, PATTERNS, count};
use super::output::Output;
use super::pattern::Pattern;
use super::rows::{AppliedRows, RowFilter, Viewer};
use super::scanner::{HashKey, Masker, Scanner};
use crate::policy::Glob;

/// One `[[mask]]`, checked.
#[derive(Debug, Clone)]
pub struct Mask {
    /// What recordings and people call it.
    pub name: Arc<str>,
    /// Names of targets; none names every target.
    pub targets: Option<Vec<Glob>>,
    /// Columns whose values are masked whole.
    pub columns: Vec<ColumnPattern>,
    /// Fields of JSON documents whose values are masked whole.
    pub fields: Vec<FieldPattern>,
    /// What is masked wherever it stands.
    pub patterns: Vec<Pattern>,
    /// What stands in a value's place.
    pub with: Action,
    /// Groups whose clients see the values; `*` is everybody.
    pub unless_groups: Vec<String>,
    /// Where columns are masked.
    pub enforce: Enforce,
}

/// Where the columns of a database are masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enforce {
    /// When values come back.
    Output,
    /// Before the server computes: statements go up with a query in place of the relation. The
    /// output is masked all the same.
    Source {
        /// What cannot be masked so is masked at the output; otherwise it is refused.
        or_output: bool,
    },
}

impl Default for Enforce {
    fn default() -> Self {
        Self::Source { or_output: false }
    }
}

impl Mask {
    /// Whether it is about a target.
    pub fn names_target(&self, target: &str) -> bool {
        self.targets.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.matches(target)))
    }

    fn spares(&self, groups: &[String]) -> bool {
        self.unless_groups.iter().any(|spared| spared == "*" || groups.contains(spared))
    }
}

/// All masks and row filters of a configuration.
#[derive(Debug, Clone, Default)]
pub struct Masks {
    masks: Vec<Arc<Mask>>,
    rows: Vec<Arc<RowFilter>>,
}

impl Masks {
    /// The masks, in any order.
    pub fn new(masks: Vec<Mask>) -> Self {
        Self { masks: masks.into_iter().map(Arc::new).collect(), rows: Vec::new() }
    }

    /// The same, with these row filters.
    #[must_use]
    pub fn with_rows(self, rows: Vec<RowFilter>) -> Self {
        Self { rows: rows.into_iter().map(Arc::new).collect(), ..self }
    }

    /// The row filters.
    pub fn rows(&self) -> &[Arc<RowFilter>] {
        &self.rows
    }

    /// The row filters of a target, for one caller.
    pub fn rows_of(&self, target: &str, viewer: &Viewer<'_>) -> Vec<AppliedRows> {
        let named = self.rows.iter().filter(|filter| filter.names_target(target));
        named.map(|filter| filter.applied(viewer)).collect()
    }

    /// Whether columns of a target are masked, or rows of it filtered for callers in these groups:
    /// code that nobody looks into could show them.
    pub fn guard(&self, target: &str, groups: &[String]) -> bool {
        let filters = |f: &Arc<RowFilter>| f.names_target(target) && f.acts_on(groups);
        self.mask_columns(target) || self.rows.iter().any(filters)
    }

    /// Whether anything of a target is masked or filtered, for anybody.
    pub fn hide(&self, target: &str) -> bool {
        self.masks.iter().any(|mask| mask.names_target(target))
            || self.rows.iter().any(|filter| filter.names_target(target))
    }

    /// Every mask, whatever its targets.
    pub fn of_all(&self) -> impl Iterator<Item = &Arc<Mask>> + Clone {
        self.masks.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.masks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty()
    }

    /// Whether fields or patterns are masked on a target, for whosever eyes.
    pub fn look_into_bodies(&self, target: &str) -> bool {
        let looks = |mask: &Arc<Mask>| !mask.fields.is_empty() || !mask.patterns.is_empty();
        self.masks.iter().any(|mask| mask.names_target(target) && looks(mask))
    }

    /// Whether columns of a target are masked, for whosever eyes.
    pub fn mask_columns(&self, target: &str) -> bool {
        self.masks.iter().any(|mask| mask.names_target(target) && !mask.columns.is_empty())
    }

    /// The masks of a target, with whether callers in these groups see the values.
    pub fn of(&self, target: &str, groups: &[String]) -> Vec<Applied> {
        let named = self.masks.iter().filter(|mask| mask.names_target(target));
        named.map(|mask| Applied { mask: Arc::clone(mask), lifted: mask.spares(groups) }).collect()
    }

    /// What is masked in sessions of callers in these groups on a target.
    pub fn for_session(&self, target: &str, groups: &[String], key: &HashKey) -> MaskPlan {
        let masks = self.of(target, groups);
        let masker = |lifted_too: bool| {
            let mut patterns: Vec<(Pattern, Action)> = Vec::new();
            for Applied { mask, .. } in masks.iter().filter(|m| lifted_too || !m.lifted) {
                for pattern in &mask.patterns {
                    match patterns.iter_mut().find(|(known, _)| known.name == pattern.name) {
                        Some((_, action)) => *action = mask.with.max(*action),
                        None => patterns.push((pattern.clone(), mask.with)),
                    }
                }
            }
            (!patterns.is_empty()).then(|| Arc::new(Masker::of_each(patterns, key.clone())))
        };
        let stored = masker(true);
        let differ = masks.iter().any(|m| m.lifted && !m.mask.patterns.is_empty());
        let shown = if differ { masker(false) } else { stored.clone() };
        MaskPlan { masks, rows: Vec::new(), shown, stored, key: Some(key.clone()) }
    }
}

/// A mask of a session's target.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The mask.
    pub mask: Arc<Mask>,
    /// Whether the client sees the values; storage never does.
    pub lifted: bool,
}

/// How the responses of one session are masked.
#[derive(Debug, Default)]
pub struct MaskPlan {
    masks: Vec<Applied>,
    rows: Vec<AppliedRows>,
    /// The patterns for the client's eyes, and those for storage.
    shown: Option<Arc<Masker>>,
    stored: Option<Arc<Masker>>,
    key: Option<HashKey>,
}

impl MaskPlan {
    /// A plan of patterns alone, for everybody's eyes.
    pub(super) fn of_patterns(masker: &Arc<Masker>) -> Self {
        let masker = Some(Arc::clone(masker));
        Self { shown: masker.clone(), stored: masker, ..Self::default() }
    }

    /// The same, with these row filters.
    #[must_use]
    pub fn with_rows(self, rows: Vec<AppliedRows>) -> Self {
        Self { rows, ..self }
    }

    /// Whether nothing is masked or filtered.
    pub fn is_empty(&self) -> bool {
        self.masks.is_empty() && !self.filters_rows()
    }

    /// The row filters of the target, those that are not in force for the caller too.
    pub fn rows(&self) -> &[AppliedRows] {
        &self.rows
    }

    /// Whether rows are filtered for the caller.
    pub fn filters_rows(&self) -> bool {
        self.rows.iter().any(|applied| applied.acts)
    }

    /// The masks of the target, those that are lifted for the client too.
    pub fn masks(&self) -> &[Applied] {
        &self.masks
    }

    /// Whether columns are masked, for whosever eyes, or rows are filtered for the caller.
    pub fn masks_columns(&self) -> bool {
        self.masks.iter().any(|applied| !applied.mask.columns.is_empty()) || self.filters_rows()
    }

    /// Whether fields of JSON documents are masked, for whosever eyes.
    pub fn masks_fields(&self) -> bool {
        self.masks.iter().any(|applied| !applied.mask.fields.is_empty())
    }

    /// What every text holds, in lower case, that holds the name of a masked field, for whosever eyes;
    /// `None` where any text could be one.
    pub fn field_names(&self) -> Option<Vec<Vec<u8>>> {
        let fields = self.masks.iter().flat_map(|applied| &applied.mask.fields);
        let lower = |literal: &str| literal.to_ascii_lowercase().into_bytes();
        let mut names: Vec<Vec<u8>> =
            fields.map(|field| field.literal().map(lower)).collect::<Option<_>>()?;
        names.sort_unstable();
        names.dedup();
        Some(names)
    }

    /// Whether there are patterns to look for, for whosever eyes.
    pub fn has_patterns(&self) -> bool {
        self.stored.is_some()
    }

    /// The patterns that are masked for the client, and those that are masked for storage.
    pub fn maskers(&self) -> [Option<&Arc<Masker>>; 2] {
        [self.shown.as_ref(), self.stored.as_ref()]
    }

    /// Whether the client sees what storage does, as far as patterns go.
    fn same_patterns(&self) -> bool {
        match (&self.shown, &self.stored) {
            (Some(shown), Some(stored)) => Arc::ptr_eq(shown, stored),
            (None, None) => true,
            _ => false,
        }
    }

    /// The key of hashes of masked values; an empty plan has none.
    pub fn key(&self) -> Option<&HashKey> {
        self.key.as_ref()
    }

    /// Masks one whole text.
    pub fn text(&self, text: &Bytes) -> Masked {
        let mask = |masker: &Option<Arc<Masker>>| match masker.as_ref().and_then(|m| m.find(text)) {
            None => (text.clone(), 0),
            Some((masked, found)) => (Bytes::from(masked), found),
        };
        let shown = mask(&self.shown);
        let stored = if self.same_patterns() { shown.clone() } else { mask(&self.stored) };
        Masked::by_value(shown.0, stored.0).found(stored.1)
    }

    /// Masks a text that comes in chunks.
    pub fn texts(&self) -> Texts {
        let scanner = |masker: &Option<Arc<Masker>>| masker.as_ref().map(Masker::scanner);
        let stored = if self.same_patterns() { None } else { Some(scanner(&self.stored)) };
        Texts { shown: scanner(&self.shown), stored }
    }

    /// Masks a program's output as it passes. What it writes to a terminal may be given up in
    /// between ([`Output::give_up`]).
    pub fn output(&self, to_terminal: bool) -> Output {
        let own = to_terminal || !self.same_patterns();
        Output::new(self.shown.as_ref(), own.then_some(self.stored.as_ref()))
    }

    /// The masks whose patterns are masked for the client.
    pub fn patterns_shown(&self) -> impl Iterator<Item = &Arc<str>> {
        let in_force = self.masks.iter().filter(|a| !a.lifted && !a.mask.patterns.is_empty());
        in_force.map(|applied| &applied.mask.name)
    }

    /// What is stored of a text of the client's own: patterns applied as for storage.
    pub fn view<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let masked = self.stored.as_ref().and_then(|masker| masker.mask(text.as_bytes()));
        match masked {
            None => Cow::Borrowed(text),
            Some(masked) => Cow::Owned(String::from_utf8_lossy(&masked).into_owned()),
        }
    }

    /// What is done with the field of a JSON document at a path of keys: for the client's eyes, and
    /// for storage. `None` leaves it as it is.
    pub fn field(&self, path: &[&str]) -> [Option<Action>; 2] {
        let named = |applied: &&Applied| applied.mask.fields.iter().any(|field| field.names(path));
        self.strictest(self.masks.iter().filter(named))
    }

    /// Counts a field that was masked, for each of the masks that name it.
    pub(super) fn count_field(&self, path: &[&str], counts: &mut Counts) {
        let fields = |mask: &Mask| mask.fields.iter().any(|field| field.names(path));
        for Applied { mask, .. } in self.masks.iter().filter(|applied| fields(&applied.mask)) {
            count(counts, &mask.name, 1);
        }
    }

    /// What several masks together do with a value: for the client's eyes, and for storage.
    pub fn strictest<'m>(
        &self,
        masks: impl IntoIterator<Item = &'m Applied>,
    ) -> [Option<Action>; 2] {
        let [mut shown, mut stored] = [None, None];
        for Applied { mask, lifted } in masks {
            stored = stored.max(Some(mask.with));
            if !lifted {
                shown = shown.max(Some(mask.with));
            }
        }
        [shown, stored]
    }
}

/// A stream of text that is masked as it passes.
#[derive(Debug)]
pub struct Texts {
    shown: Option<Scanner>,
    /// Where storage is masked otherwise than what the client sees.
    stored: Option<Option<Scanner>>,
}

impl Texts {
    /// Takes the next chunk, and gives what can be given of it.
    pub fn push(&mut self, chunk: &Bytes) -> Masked {
        let push = |scanner: &mut Option<Scanner>| match scanner {
            None => (chunk.clone(), 0),
            Some(scanner) => {
                let mut out = Vec::with_capacity(chunk.len());
                let before = scanner.found();
                scanner.push(chunk, &mut out);
                (Bytes::from(out), scanner.found() - before)
            }
        };
        let shown = push(&mut self.shown);
        let stored = self.stored.as_mut().map_or_else(|| shown.clone(), push);
        Masked::by_value(shown.0, stored.0).found(stored.1)
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        let held = |scanner: &Option<Scanner>| scanner.as_ref().map_or(0, Scanner::held);
        held(&self.shown).max(self.stored.as_ref().map_or(0, held))
    }

    /// Gives the rest.
    pub fn finish(self) -> Masked {
        let finish = |scanner: Option<Scanner>| {
            let mut out = Vec::new();
            let before = scanner.as_ref().map_or(0, Scanner::found);
            let found = scanner.map_or(0, |scanner| scanner.finish(&mut out));
            (Bytes::from(out), found - before)
        };
        let shown = finish(self.shown);
        let stored = self.stored.map_or_else(|| shown.clone(), finish);
        Masked::by_value(shown.0, stored.0).found(stored.1)
    }
}

/// Response bytes from which everything that must not be seen has been taken, for two pairs of
/// eyes: the client's, and those of whoever reads what is stored.
#[derive(Debug, Clone, Default)]
pub struct Masked {
    shown: Bytes,
    stored: Bytes,
    /// What was masked in what is stored, as far as whoever masked it counts here.
    counts: Counts,
}

impl Masked {
    /// Bytes that a protocol masked itself, value by value: what the client gets, and what is
    /// stored. Who calls this answers for every byte.
    pub fn by_value(shown: Bytes, stored: Bytes) -> Self {
        Self { shown, stored, counts: Counts::new() }
    }

    /// With what was masked in what is stored.
    #[must_use]
    pub fn counted(mut self, counts: &Counts) -> Self {
        for (name, more) in counts {
            count(&mut self.counts, name, *more);
        }
        self
    }

    /// With so many values that patterns found.
    #[must_use]
    pub fn found(mut self, found: u64) -> Self {
        count(&mut self.counts, PATTERNS, found);
        self
    }

    /// How many values were masked in what is stored.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Both, with what follows them.
    pub fn joined(self, rest: &Self) -> Self {
        let join = |first: Bytes, rest: &Bytes| match (first.is_empty(), rest.is_empty()) {
            (_, true) => first,
            (true, _) => rest.clone(),
            _ => Bytes::from([first, rest.clone()].concat()),
        };
        let same = self.shown == self.stored && rest.shown == rest.stored;
        let shown = join(self.shown, &rest.shown);
        let stored = if same { shown.clone() } else { join(self.stored, &rest.stored) };
        Self { shown, stored, counts: self.counts }.counted(&rest.counts)
    }

    /// The bytes, for recording.
    pub fn stored(&self) -> &Bytes {
        &self.stored
    }

    /// The bytes, for the client.
    pub fn shown(&self) -> &Bytes {
        &self.shown
    }

    /// The bytes, for the client.
    pub fn into_shown(self) -> Bytes {
        self.shown
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(name: &str, patterns: &[&str], with: Action, unless: &[&str]) -> Mask {
        Mask {
            name: name.into(),
            targets: Some(vec![Glob::new("orders")]),
            columns: Vec::new(),
            fields: Vec::new(),
            patterns: patterns.iter().map(|name| Pattern::built_in(name).unwrap()).collect(),
            with,
            unless_groups: unless.iter().map(|group| (*group).to_owned()).collect(),
            enforce: Enforce::default(),
        }
    }

    fn plan(masks: Vec<Mask>, groups: &[&str]) -> MaskPlan {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        Masks::new(masks).for_session("orders", &groups, &HashKey::new([7; 32]))
    }

    const TEXT: &str = "mail alice.secret@example.com about 4111111111111111";

    #[test]
    fn a_lifted_mask_is_lifted_for_the_client_and_never_for_storage() {
        let masks = vec![
            mask("mail", &["email"], Action::Redact, &["pii-readers"]),
            mask("cards", &["credit-card"], Action::Partial, &[]),
        ];
        let masked = plan(masks.clone(), &["pii-readers"]).text(&TEXT.into());
        assert_eq!(masked.shown(), "mail alice.secret@example.com about ************1111");
        assert_eq!(masked.stored(), "mail [email] about ************1111");

        let masked = plan(masks, &["others"]).text(&TEXT.into());
        assert_eq!(masked.shown(), "mail [email] about ************1111");
        assert_eq!(masked.shown().as_ptr(), masked.stored().as_ptr(), "one copy serves both");
    }

    #[test]
    fn of_two_masks_the_stricter_counts() {
        let masks = vec![
            mask("a", &["credit-card"], Action::Partial, &[]),
            mask("b", &["credit-card"], Action::Redact, &[]),
        ];
        assert_eq!(
            plan(masks, &[]).text(&TEXT.into()).shown().rsplit(|b| *b == b' ').next(),
            Some(&b"[credit-card]"[..])
        );
    }

    #[test]
    fn a_plan_without_masks_copies_nothing() {
        let plan = Masks::default().for_session("orders", &[], &HashKey::new([7; 32]));
        assert!(plan.is_empty());
        let text = Bytes::from_static(TEXT.as_bytes());
        assert_eq!(plan.text(&text).into_shown().as_ptr(), text.as_ptr());
        assert_eq!(plan.texts().push(&text).stored().as_ptr(), text.as_ptr());
        let other = Masks::new(vec![mask("a", &["email"], Action::Redact, &[])]);
        assert!(other.for_session("shop", &[], &HashKey::new([7; 32])).is_empty());
    }

    #[test]
    fn fields_are_told_for_both_pairs_of_eyes() {
        let fields = |fields: &str, with, unless: &[&str]| Mask {
            fields: vec![fields.parse().unwrap()],
            ..mask(fields, &[], with, unless)
        };
        let plan = plan(
            vec![fields("**.ssn", Action::Partial, &[]), fields("a.*", Action::Null, &["g"])],
            &["g"],
        );
        assert_eq!(plan.field(&["a", "ssn"]), [Some(Action::Partial), Some(Action::Null)]);
        assert_eq!(plan.field(&["a", "b"]), [None, Some(Action::Null)]);
        assert_eq!(plan.field(&["b"]), [None, None]);
    }

    proptest! {
        #[test]
        fn streams_come_out_the_same_however_they_are_cut(
            cuts in proptest::collection::vec(1usize..20, 1..20),
        ) {
            let masks = vec![
                mask("mail", &["email"], Action::Hash, &["pii-readers"]),
                mask("cards", &["credit-card"], Action::Partial, &[]),
            ];
            let plan = plan(masks, &["pii-readers"]);
            let whole = plan.text(&TEXT.into());
            let (mut texts, mut rest) = (plan.texts(), TEXT.as_bytes());
            let (mut shown, mut stored, mut found) = (Vec::new(), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                let (chunk, after) = rest.split_at((*cut).min(rest.len()));
                let masked = texts.push(&Bytes::copy_from_slice(chunk));
                found += masked.counts().get(PATTERNS).copied().unwrap_or_default();
                shown.extend_from_slice(masked.shown());
                stored.extend_from_slice(masked.stored());
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            let masked = texts.finish();
            found += masked.counts().get(PATTERNS).copied().unwrap_or_default();
            shown.extend_from_slice(masked.shown());
            stored.extend_from_slice(masked.stored());
            prop_assert_eq!(&shown, whole.shown());
            prop_assert_eq!(&stored, whole.stored());
            prop_assert_eq!(found, 2);
        }
    }
}
