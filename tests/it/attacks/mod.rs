//! What got past the gateway at e80d256, or went wrong there: `tests/cases/attacks.tsv`.
//!
//! Every row has a test whose name starts with the row's id (`p01_…`), and each stands for its
//! kind: the tests beside it (`p01b_…`, or without an id) hold other members of that kind.
//!
//! With the binary of e80d256, 84 of the 92 tests of rows fail. The others hold what is not the binary's (documents,
//! the corpus of patterns, minor versions of psql, the C library that a build needs: M19, O06, O07, P20), or met the fault
//! only sometimes or with newer clients (O04, O09, S05); of M14's two tests one fails.

mod approvals;
mod closed;
mod evidence;
mod harden;
mod http;
mod identity;
mod masks;
mod operations;
mod patterns;
mod postgres_clients;
mod postgres_wire;
mod ssh;

use std::collections::BTreeSet;

use crate::support::sources::tests_of;

/// SHA-256 of the file that these tests are about.
const PINNED: &str = "fe464bc78b804906bd8d0ecdcebf1b112484efd18bc85e4a1b2aea0c367b8b69";

/// Rows that no test names yet. Only ever shorter.
const WAITING: &[&str] = &[];

/// The tests of this folder, as text: a row counts when a function that is a test names it.
const SOURCES: &[&str] = &[
    include_str!("approvals.rs"),
    include_str!("evidence.rs"),
    include_str!("harden.rs"),
    include_str!("http.rs"),
    include_str!("identity.rs"),
    include_str!("masks.rs"),
    include_str!("operations.rs"),
    include_str!("patterns.rs"),
    include_str!("postgres_clients.rs"),
    include_str!("postgres_wire.rs"),
    include_str!("ssh.rs"),
];

#[test]
fn every_row_of_the_pinned_file_has_a_test() {
    let file = include_bytes!("../../cases/attacks.tsv");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, file);
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, PINNED, "the rows changed: read them again, then pin the new hash");
    let text = std::str::from_utf8(file).unwrap();
    let rows: BTreeSet<String> =
        text.lines().skip(1).map(|row| row.split('\t').next().unwrap().to_lowercase()).collect();
    let tested: BTreeSet<String> = SOURCES.iter().flat_map(|source| rows_tested(source)).collect();
    let waits = |row: &&String| WAITING.contains(&row.as_str());
    let untested = rows.difference(&tested).filter(|row| !waits(row));
    assert_eq!(untested.collect::<Vec<_>>(), [""; 0], "rows without a test");
    assert_eq!(tested.difference(&rows).collect::<Vec<_>>(), [""; 0], "tests of no row");
}

/// Ids (`p01`) that the names of a source's tests start with.
fn rows_tested(source: &str) -> Vec<String> {
    let id_of = |name: &str| {
        let (id, _) = name.split_once('_')?;
        let digits = id.strip_prefix(|letter: char| letter.is_ascii_lowercase())?;
        let is_id = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
        is_id.then(|| id.to_owned())
    };
    tests_of(source).into_iter().filter_map(id_of).collect()
}
