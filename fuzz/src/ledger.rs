//! A ledger that somebody else has written.

use std::sync::LazyLock;

use portcullis::recording::{Against, verify_all};

/// A directory for each process, in memory where the system has such a place.
static FOLDER: LazyLock<std::path::PathBuf> = LazyLock::new(|| {
    let memory = std::path::PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("portcullis-fuzz-{}-ledger", std::process::id()))
});

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    std::fs::create_dir_all(FOLDER.join("recordings")).unwrap();
    std::fs::write(FOLDER.join("ledger"), data).unwrap();
    let _any = verify_all(&FOLDER, &Against::default());
    // A folder of one process that outlives it would stay for ever.
    let _gone = std::fs::remove_dir_all(&*FOLDER);
}
