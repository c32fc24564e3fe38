//! A recording that somebody else has written.

use std::sync::LazyLock;

use portcullis::recording::Reader;

/// One file for each process, in memory where the system has such a place.
static PATH: LazyLock<std::path::PathBuf> = LazyLock::new(|| {
    let memory = std::path::PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("portcullis-fuzz-{}.rec", std::process::id()))
});

/// Runs the target on what a fuzzer made, or a corpus has.
pub fn run(data: &[u8]) {
    std::fs::write(&*PATH, data).unwrap();
    if let Ok(mut reader) = Reader::open(&PATH) {
        for event in reader.by_ref() {
            if event.is_err() {
                break;
            }
        }
        let _any = (reader.end(), reader.walked());
        let _any = reader.seek_sequence(3);
        let _any = reader.seek_time(0);
    }
    // A file of one process that outlives it would stay for ever.
    let _gone = std::fs::remove_file(&*PATH);
}
