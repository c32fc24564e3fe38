//! What was found in texts seen before, bounded by what it takes.
//!
//! `quick_cache` says what goes when it is full: what is asked for again and again stays, and one pass
//! over many new texts cannot push it out. Its locks are held while it looks or keeps, not while a text
//! is taken apart.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::{self, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, Equivalent, OptionsBuilder, Weighter};

use super::{LexerSettings, Reading, Statement};

/// Texts longer than this are hardly asked for twice.
const LONGEST: usize = 64 << 10;
/// Beside its text and effects, what an entry takes.
const ENTRY: usize = 300;
/// What an effect takes, with its names.
const EFFECT: usize = 250;
/// What an entry usually takes, with all that.
const USUAL: usize = 1 << 10;
/// Parts of a cache that have a lock each, and an equal share of its bytes: few, so that what the
/// longest texts take fits into one.
const PARTS: usize = 8;

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

/// Findings by text and the lexer's settings.
#[derive(Debug)]
pub(super) struct Cache<T>(sync::Cache<Key<T>, Kept<T>, Bytes>);

/// What was found, by its own text.
#[derive(Debug)]
struct Key<T> {
    made: T,
    settings: LexerSettings,
}

#[derive(Debug, Clone)]
struct Kept<T> {
    made: T,
    bytes: u64,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Asked<'t> {
    text: &'t str,
    settings: LexerSettings,
}

impl<T: Cached> Key<T> {
    fn asked(&self) -> Asked<'_> {
        Asked { text: self.made.text(), settings: self.settings }
    }
}

impl<T: Cached> Hash for Key<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.asked().hash(state);
    }
}

impl<T: Cached> PartialEq for Key<T> {
    fn eq(&self, other: &Self) -> bool {
        self.asked() == other.asked()
    }
}

impl<T: Cached> Eq for Key<T> {}

impl<T: Cached> Equivalent<Key<T>> for Asked<'_> {
    fn equivalent(&self, key: &Key<T>) -> bool {
        *self == key.asked()
    }
}

/// Weighs what is kept by the bytes that were counted when it was.
#[derive(Debug, Clone)]
struct Bytes;

impl<T> Weighter<Key<T>, Kept<T>> for Bytes {
    fn weight(&self, _: &Key<T>, kept: &Kept<T>) -> u64 {
        kept.bytes
    }
}

impl<T: Cached> Cache<T> {
    /// A cache of so many bytes, as far as they are counted.
    #[expect(clippy::expect_used, reason = "options lack nothing with an estimate and a capacity")]
    pub(super) fn new(bytes: usize) -> Self {
        let options = OptionsBuilder::new()
            .shards(PARTS)
            .estimated_items_capacity(bytes / USUAL)
            .weight_capacity(bytes as u64)
            .build()
            .expect("an estimate and a capacity");
        let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self(sync::Cache::with_options(options, Bytes, hasher, lifecycle))
    }

    pub(super) fn get(&self, text: &str, settings: LexerSettings) -> Option<T> {
        Some(self.0.get(&Asked { text, settings })?.made)
    }

    /// Keeps something, instead of what was kept for its text before.
    pub(super) fn put(&self, made: T, settings: LexerSettings) {
        let kept = Kept { bytes: bytes(&made) as u64, made: made.clone() };
        self.0.insert(Key { made, settings }, kept);
    }

    pub(super) fn get_or_make(
        &self,
        text: &str,
        settings: LexerSettings,
        make: impl FnOnce() -> T,
    ) -> T {
        if text.len() > LONGEST {
            return make();
        }
        if let Some(found) = self.get(text, settings) {
            return found;
        }
        // Not under a lock: two sessions may find the same at once.
        let made = make();
        self.put(made.clone(), settings);
        made
    }
}

/// About what it takes.
fn bytes(made: &impl Cached) -> usize {
    let statements = made.statements().iter();
    let effects: usize = statements.flat_map(|statement| &statement.effects).map(size).sum();
    ENTRY + 2 * made.text().len() + effects
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
        let (entries, bytes) = (cache.0.len(), cache.0.weight());
        assert!((10..250).contains(&entries) && bytes <= 100_000, "{entries}, {bytes} bytes");
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
