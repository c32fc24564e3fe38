//! How many values were masked, for those who ask what masks do.

use std::collections::BTreeMap;
use std::sync::Arc;

/// How many values each mask masked; those that patterns found stand under [`PATTERNS`].
pub type Counts = BTreeMap<Arc<str>, u64>;

/// What values that patterns found are counted under.
pub const PATTERNS: &str = "patterns";

/// Counts so many more values.
pub fn count(counts: &mut Counts, name: &str, more: u64) {
    match counts.get_mut(name) {
        _ if more == 0 => {}
        Some(count) => *count = count.saturating_add(more),
        None => {
            counts.insert(name.into(), more);
        }
    }
}
