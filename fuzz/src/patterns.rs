//! Every built-in pattern: however a text is cut, the same comes out, and nothing panics.

use std::sync::{Arc, LazyLock};

use portcullis::mask::{Action, HashKey, Masker, Pattern};

static MASKER: LazyLock<Arc<Masker>> = LazyLock::new(|| {
    let patterns = Pattern::names().flat_map(Pattern::built_in).collect();
    Arc::new(Masker::new(patterns, Action::Redact, HashKey::new([7; 32])))
});

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    let [size, text @ ..] = data else { return };
    let both = [text.len().max(1), usize::from(*size) + 1].map(|size| {
        let (mut scanner, mut out) = (MASKER.scanner(), Vec::new());
        for chunk in text.chunks(size) {
            scanner.push(chunk, &mut out);
        }
        scanner.finish(&mut out);
        out
    });
    assert_eq!(both[0], both[1]);
}
