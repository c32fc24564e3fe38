//! Tests by their names, as documents and tables name them.

use std::fs;
use std::path::Path;

/// The names of a source's tests, in their order.
pub fn tests_of(source: &str) -> Vec<&str> {
    let mut is_test = false;
    let mut found = Vec::new();
    for line in source.lines().map(str::trim) {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        let function = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn "));
        if let Some(function) = function {
            if std::mem::take(&mut is_test) {
                found.extend(function.split(['(', '<']).next());
            }
        } else if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
        }
    }
    found
}

/// Holds that a file has a test of this name. The file is below `tests/it`, or it begins with `src/`;
/// a name that ends with `…` is the beginning of exactly one.
pub fn test_is_there(file: &str, name: &str) -> Result<(), String> {
    let folder = if file.starts_with("src/") { "" } else { "tests/it" };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(file);
    let source = fs::read_to_string(&path).map_err(|error| format!("{file}: {error}"))?;
    let found = tests_of(&source).into_iter().filter(|test| match name.strip_suffix('…') {
        Some(beginning) => test.starts_with(beginning),
        None => *test == name,
    });
    match found.count() {
        1 => Ok(()),
        count => Err(format!("{file} has {count} tests {name}")),
    }
}

#[test]
fn tests_are_told_from_other_functions() {
    let source = "fn no_test() {}\n#[test]\n#[ignore]\nfn one() {\n    fn inner() {}\n}\n\
                  #[tokio::test(start_paused = true)]\nasync fn two() {}\n";
    assert_eq!(tests_of(source), ["one", "two"]);
    assert!(test_is_there("support/sources.rs", "tests_are_…").is_ok());
    assert!(test_is_there("support/sources.rs", "tests_of").is_err());
    assert!(test_is_there("support/missing.rs", "x").is_err());
}
