//! What was found in texts seen before.
//!
//! Two generations: what is asked for moves to the young one, and when the young one is full the
//! old one goes. So what is used stays, one pass over many new texts cannot push all of it out at
//! once, and nothing is ever searched for a victim.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{LexerSettings, Reading, Statement};

/// Texts longer than this are hardly asked for twice.
const LONGEST: usize = 64 << 10;
/// Beside its text and effects, what an entry takes.
const ENTRY: usize = 300;
/// What an effect takes, with its names.
const EFFECT: usize = 250;

/// What is found by a text.
pub(super) trait Cached: Clone {
    fn text(&self) -> &str;

    /// What it holds.
    fn statements(&self) -> &[Statement];
}

impl Cached for Arc<Reading> {
    fn text(&self) -> &str {
        Reading::text(self)
    }

    fn statements(&self) -> &[Statement] {
        Reading::statements(self)
    }
}

/// Findings by text, for each setting of the lexer apart.
#[derive(Debug)]
pub(super) struct Cache<T> {
    generations: [Mutex<Generations<T>>; 4],
    /// Bytes for one generation.
    most: usize,
}

#[derive(Debug)]
struct Generations<T> {
    young: HashSet<ByText<T>>,
    old: HashSet<ByText<T>>,
    /// Bytes of the young one.
    bytes: usize,
}

impl<T> Default for Generations<T> {
    fn default() -> Self {
        Self { young: HashSet::new(), old: HashSet::new(), bytes: 0 }
    }
}

#[derive(Debug, Clone)]
struct ByText<T>(T);

impl<T: Cached> Borrow<str> for ByText<T> {
    fn borrow(&self) -> &str {
        self.0.text()
    }
}

impl<T: Cached> Hash for ByText<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text().hash(state);
    }
}

impl<T: Cached> PartialEq for ByText<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.text() == other.0.text()
    }
}

impl<T: Cached> Eq for ByText<T> {}

impl<T: Cached> Cache<T> {
    /// A cache of about so many bytes, for all settings together: nearly all texts come under one.
    pub(super) fn new(bytes: usize) -> Self {
        Self { generations: Default::default(), most: bytes / 2 }
    }

    pub(super) fn get(&self, text: &str, settings: LexerSettings) -> Option<T> {
        self.of(settings).lock().get(text, self.most)
    }

    /// Keeps something, instead of what was kept for its text before.
    pub(super) fn put(&self, made: T, settings: LexerSettings) {
        self.of(settings).lock().put(ByText(made), self.most);
    }

    fn of(&self, settings: LexerSettings) -> &Mutex<Generations<T>> {
        let [neither, quote, strings, both] = &self.generations;
        match (settings.standard_conforming_strings, settings.backslash_quote) {
            (false, false) => neither,
            (false, true) => quote,
            (true, false) => strings,
            (true, true) => both,
        }
    }

    pub(super) fn get_or_make(
        &self,
        text: &str,
        settings: LexerSettings,
        make: impl FnOnce() -> T,
    ) -> T {
        let generations = self.of(settings);
        if text.len() > LONGEST {
            return make();
        }
        if let Some(found) = generations.lock().get(text, self.most) {
            return found;
        }
        // Not under the lock: two sessions may find the same at once.
        let made = make();
        generations.lock().put(ByText(made.clone()), self.most);
        made
    }
}

impl<T: Cached> Generations<T> {
    fn get(&mut self, text: &str, most: usize) -> Option<T> {
        if let Some(found) = self.young.get(text) {
            return Some(found.0.clone());
        }
        let found = self.old.take(text)?;
        self.put(found.clone(), most);
        Some(found.0)
    }

    fn put(&mut self, made: ByText<T>, most: usize) {
        let bytes = made.bytes();
        if bytes > most {
            return;
        }
        if self.bytes + bytes > most {
            // The tables keep their room: growing again would hash every text once more.
            std::mem::swap(&mut self.old, &mut self.young);
            self.young.clear();
            self.bytes = 0;
        }
        let before = self.young.replace(made).map_or(0, |before| before.bytes());
        self.bytes = (self.bytes + bytes).saturating_sub(before);
    }
}

impl<T: Cached> ByText<T> {
    /// About what it takes.
    fn bytes(&self) -> usize {
        let statements = self.0.statements().iter();
        let effects: usize = statements.flat_map(|statement| &statement.effects).map(size).sum();
        ENTRY + 2 * self.0.text().len() + effects
    }
}

fn size(effect: &crate::policy::Effect) -> usize {
    let columns: usize = effect.columns.iter().map(|column| 40 + column.len()).sum();
    EFFECT + columns + 150 * effect.attributes.len()
}

#[cfg(test)]
mod tests {
    use super::super::{analyze, view::view_with};
    use super::*;

    fn asked(cache: &Cache<Arc<Reading>>, text: &str, settings: LexerSettings) -> bool {
        let mut made = false;
        let _ = cache.get_or_make(text, settings, || {
            made = true;
            Arc::new(Reading::new(text, settings, analyze(text, settings)))
        });
        made
    }

    #[test]
    fn what_is_asked_for_stays_and_memory_is_bounded() {
        let cache = Cache::new(100_000);
        let settings = LexerSettings::default();
        for n in 0..5_000 {
            assert!(asked(&cache, &format!("SELECT {n} FROM t"), settings));
            asked(&cache, "SELECT 'often'", settings);
            assert!(!asked(&cache, "SELECT 'often'", settings), "{n}");
        }
        let entries = cache.generations.iter().map(|generations| {
            let generations = generations.lock();
            generations.young.len() + generations.old.len()
        });
        let entries: usize = entries.sum();
        assert!((10..250).contains(&entries), "{entries}");
        assert!(asked(&cache, "SELECT 0 FROM t", settings));
    }

    #[test]
    fn findings_are_those_of_the_settings_asked_with() {
        let cache = Cache::new(100_000);
        let on = LexerSettings::default();
        let off = LexerSettings { standard_conforming_strings: false, ..on };
        let sql = r"SELECT '\'; DROP TABLE t; --'";
        assert!(asked(&cache, sql, on) && asked(&cache, sql, off));
        assert!(!asked(&cache, sql, on) && !asked(&cache, sql, off));
        assert_ne!(view_with(sql, on, |_| true), view_with(sql, off, |_| true));
    }

    #[test]
    fn mistakes_are_remembered_and_long_texts_are_not() {
        let cache = Cache::new(1 << 20);
        let settings = LexerSettings::default();
        assert!(asked(&cache, "SELEC 1", settings) && !asked(&cache, "SELEC 1", settings));
        let long = format!("SELECT '{}'", "x".repeat(LONGEST));
        assert!(asked(&cache, &long, settings) && asked(&cache, &long, settings));
    }
}
