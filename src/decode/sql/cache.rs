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

use super::{LexerSettings, Reading};

/// Texts longer than this are hardly asked for twice.
const LONGEST: usize = 64 << 10;
/// Beside its text and effects, what an entry takes.
const ENTRY: usize = 300;
/// What an effect takes, with its names.
const EFFECT: usize = 250;

/// Readings by text, for each setting of the lexer apart.
#[derive(Debug)]
pub(super) struct Cache {
    generations: [Mutex<Generations>; 4],
    /// Bytes for one generation.
    most: usize,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashSet<ByText>,
    old: HashSet<ByText>,
    /// Bytes of the young one.
    bytes: usize,
}

/// A reading that is found by its text.
#[derive(Debug, Clone)]
struct ByText(Arc<Reading>);

impl Borrow<str> for ByText {
    fn borrow(&self) -> &str {
        self.0.text()
    }
}

impl Hash for ByText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text().hash(state);
    }
}

impl PartialEq for ByText {
    fn eq(&self, other: &Self) -> bool {
        self.0.text() == other.0.text()
    }
}

impl Eq for ByText {}

impl Cache {
    /// A cache of about so many bytes, for all settings together: nearly all texts come under one.
    pub(super) fn new(bytes: usize) -> Self {
        Self { generations: Default::default(), most: bytes / 2 }
    }

    pub(super) fn get(&self, text: &str, settings: LexerSettings) -> Option<Arc<Reading>> {
        self.of(settings).lock().get(text, self.most)
    }

    fn of(&self, settings: LexerSettings) -> &Mutex<Generations> {
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
        make: impl FnOnce() -> Reading,
    ) -> Arc<Reading> {
        let generations = self.of(settings);
        if text.len() > LONGEST {
            return Arc::new(make());
        }
        if let Some(found) = generations.lock().get(text, self.most) {
            return found;
        }
        // Not under the lock: two sessions may find the same at once.
        let made = Arc::new(make());
        generations.lock().insert(ByText(Arc::clone(&made)), self.most);
        made
    }
}

impl Generations {
    fn get(&mut self, text: &str, most: usize) -> Option<Arc<Reading>> {
        if let Some(found) = self.young.get(text) {
            return Some(Arc::clone(&found.0));
        }
        let found = self.old.take(text)?;
        self.insert(found.clone(), most);
        Some(found.0)
    }

    fn insert(&mut self, made: ByText, most: usize) {
        let statements = made.0.statements().iter();
        let effects: usize = statements.flat_map(|statement| &statement.effects).map(size).sum();
        let bytes = ENTRY + 2 * made.0.text().len() + effects;
        if bytes > most {
            return;
        }
        if self.bytes + bytes > most {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        if self.young.insert(made) {
            self.bytes += bytes;
        }
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

    fn asked(cache: &Cache, text: &str, settings: LexerSettings) -> bool {
        let mut made = false;
        let _ = cache.get_or_make(text, settings, || {
            made = true;
            Reading::new(text, settings, analyze(text, settings))
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
