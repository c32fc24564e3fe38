//! The table of `docs/security.md` under "What is not known is refused": each row names the test that
//! holds it.

use crate::support::sources::test_is_there;

const SECURITY: &str = include_str!("../../../docs/security.md");
const HEADING: &str = "\n## What is not known is refused\n";

#[test]
fn every_row_of_what_is_refused_names_tests_that_are_there() {
    let (_, section) = SECURITY.split_once(HEADING).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ") && !line.contains("| --- |"));
    let (mut count, mut wrong) = (0, Vec::new());
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let &[met, happens, tests] = cells.as_slice() else {
            wrong.push(format!("a row of {} cells: {row}", cells.len()));
            continue;
        };
        if (happens, tests) == ("what happens", "test") {
            continue;
        }
        count += 1;
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if met.is_empty() || happens.is_empty() || named.is_empty() {
            wrong.push(format!("a row that names no test: {row}"));
        }
        for test in named {
            match test.split_once("::") {
                Some((file, name)) => wrong.extend(test_is_there(file, name).err()),
                None => wrong.push(format!("no file::test: {test}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 60, "only {count} rows were read");
}
