//! A ledger that somebody else has written.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portcullis::recording::{Against, verify_all};

/// A directory for each process, in memory where the system has such a place.
static FOLDER: LazyLock<std::path::PathBuf> = LazyLock::new(|| {
    let memory = std::path::PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let folder = folder.join(format!("portcullis-fuzz-{}-ledger", std::process::id()));
    std::fs::create_dir_all(folder.join("recordings")).unwrap();
    folder
});

fuzz_target!(|data: &[u8]| {
    std::fs::write(FOLDER.join("ledger"), data).unwrap();
    let _any = verify_all(&FOLDER, &Against::default());
});
