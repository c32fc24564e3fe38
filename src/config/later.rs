//! What the format has and later work brings: read for its shape, then refused.
//!
//! A section moves from here to a file of its own when it is built.

use super::reader::Table;
use super::value;

/// More people than would ever be asked about one thing.
pub(super) const MOST_APPROVALS: usize = 100;

/// The looks that values of later sections have.
#[derive(Clone, Copy)]
enum Shape {
    Texts,
    Duration,
}

use Shape::{Duration, Texts};

type Keys = &'static [(&'static str, Shape)];

/// `[[name]]`, of which there may be many.
const LISTS: &[(&str, Keys)] = &[("retention", &[("targets", Texts), ("keep", Duration)])];

/// Reads and refuses the sections that nothing acts on yet.
pub(super) fn sections(top: &Table<'_>) {
    for (name, keys) in LISTS {
        for (i, table) in top.tables(name).into_iter().enumerate() {
            // Once is enough, however many there are.
            if i == 0 {
                refuse(&table);
            }
            read(table, keys);
        }
    }
}

fn refuse(table: &Table<'_>) {
    table.wrong(
        format!("{} is not yet supported", table.title()),
        Some("leave it out: nothing would act on it"),
    );
}

fn read(table: Table<'_>, keys: Keys) {
    look(&table, keys);
    table.finish();
}

fn look(table: &Table<'_>, keys: Keys) {
    for (key, shape) in keys {
        table.read(key, |field| match shape {
            Texts => field.texts().map(drop),
            Duration => value::duration(field).map(drop),
        });
    }
}
