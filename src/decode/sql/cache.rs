//! What was found in texts seen before.
//!
//! Two generations: what is asked for moves to the young one, and when the young one is full the
//! old one goes. So what is used stays, one pass over many new texts cannot push all of it out at
//! once, and nothing is ever searched for a victim.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::{Analysis, LexerSettings, Unparsed};

/// Texts longer than this are hardly asked for twice.
const LONGEST: usize = 64 << 10;
/// Beside its text and effects, what an entry takes.
const ENTRY: usize = 200;
/// What an effect takes, with its names.
const EFFECT: usize = 250;

type Found = Result<Arc<Analysis>, Unparsed>;

/// Findings by text, for each setting of the lexer apart.
#[derive(Debug)]
pub(super) struct Cache {
    generations: [Mutex<Generations>; 4],
    /// Bytes for one generation.
    most: usize,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Box<str>, Found>,
    old: HashMap<Box<str>, Found>,
    /// Bytes of the young one.
    bytes: usize,
}

impl Cache {
    /// A cache of about so many bytes, for all settings together: nearly all texts come under one.
    pub(super) fn new(bytes: usize) -> Self {
        Self { generations: Default::default(), most: bytes / 2 }
    }

    pub(super) fn get_or_make(
        &self,
        text: &str,
        settings: LexerSettings,
        make: impl FnOnce() -> Found,
    ) -> Found {
        let [neither, quote, strings, both] = &self.generations;
        let generations = match (settings.standard_conforming_strings, settings.backslash_quote) {
            (false, false) => neither,
            (false, true) => quote,
            (true, false) => strings,
            (true, true) => both,
        };
        if text.len() > LONGEST {
            return make();
        }
        if let Some(found) = generations.lock().get(text, self.most) {
            return found;
        }
        // Not under the lock: two sessions may find the same at once.
        let found = make();
        generations.lock().insert(text.into(), found.clone(), self.most);
        found
    }
}

impl Generations {
    fn get(&mut self, text: &str, most: usize) -> Option<Found> {
        if let Some(found) = self.young.get(text) {
            return Some(found.clone());
        }
        let (text, found) = self.old.remove_entry(text)?;
        self.insert(text, found.clone(), most);
        Some(found)
    }

    fn insert(&mut self, text: Box<str>, found: Found, most: usize) {
        let effects = found.as_ref().map_or(0, |found| found.effects().map(size).sum());
        let bytes = ENTRY + text.len() + effects;
        if bytes > most {
            return;
        }
        if self.bytes + bytes > most {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        if self.young.insert(text, found).is_none() {
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
            analyze(text, settings).map(Arc::new)
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
