//! The corpora of the fuzz targets, through what the targets call: an input that made a parser fail once
//! stays in `fuzz/corpus`, and every `cargo test` tries it again.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

fn listed(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

#[test]
fn no_target_fails_on_its_corpus() {
    let (mut wrong, mut inputs) = (Vec::new(), 0);
    for (name, run) in targets::ALL {
        for file in listed(&format!("corpus/{name}")) {
            let bytes = fs::read(&file).unwrap();
            inputs += 1;
            // Its message is on standard error by then.
            if catch_unwind(AssertUnwindSafe(|| run(&bytes))).is_err() {
                wrong.push(file);
            }
        }
    }
    assert!(inputs >= 66, "only {inputs} inputs were found");
    assert!(wrong.is_empty(), "what these find is printed above: {wrong:#?}");
}

#[test]
fn every_target_is_replayed_and_has_a_corpus() {
    let names = |folder: &str| -> BTreeSet<String> {
        let stems = listed(folder).into_iter().map(|path| path.with_extension(""));
        stems.map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    let replayed: BTreeSet<_> = targets::ALL.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("fuzz_targets"), replayed);
    assert_eq!(names("corpus"), replayed);
}
