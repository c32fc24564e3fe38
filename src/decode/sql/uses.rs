//! What becomes of the columns that a statement reads: whether their values can come out, be
//! written somewhere, or only pick rows.
//!
//! Told from the text alone, so it says what could be: a value counts as coming out unless it
//! stands where only a condition or an order looks at it.

use std::collections::BTreeMap;
use std::ops::BitOr;

use crate::policy::Object;

/// What becomes of a column's value; several at once, when it is named in several places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct How(u8);

impl How {
    /// It picks rows, joins, groups or orders them.
    pub const FILTER: Self = Self(1);
    /// It may come out, as it is or as part of something else.
    pub const OUTPUT: Self = Self(2);
    /// What comes out, or is written, may be computed from it.
    pub const COMPUTED: Self = Self(4);
    /// It may be written somewhere: into a table, a setting, a notification, a file.
    pub const WRITTEN: Self = Self(8);
    /// It is read in a common table expression: what that is used for is told by the statement.
    pub(super) const COMMON: Self = Self(16);

    /// Whether all of these are among it.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for How {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One column that a statement reads.
#[derive(Debug, Clone, PartialEq)]
pub struct Use {
    /// The table, as its effect names it.
    pub table: Object,
    /// The column; `*` is every column of the table.
    pub column: Box<str>,
    /// What becomes of its value.
    pub how: How,
}

/// The uses that a walk gathers, by the place of the effect of reading the table.
#[derive(Debug, Default)]
pub(super) struct Uses(BTreeMap<usize, BTreeMap<Box<str>, How>>);

impl Uses {
    pub(super) fn note(&mut self, place: usize, column: &str, how: How) {
        let columns = self.0.entry(place).or_default();
        match columns.get_mut(column) {
            Some(known) => *known = *known | how,
            None => {
                columns.insert(column.into(), how);
            }
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (place, columns) in &other.0 {
            for (column, how) in columns {
                self.note(*place, column, *how);
            }
        }
    }

    /// The uses, for a statement that writes rows from values, or not.
    pub(super) fn finish(self, writes: bool, table: impl Fn(usize) -> Option<Object>) -> Vec<Use> {
        let mut uses = Vec::new();
        for (place, columns) in self.0 {
            let Some(table) = table(place) else { continue };
            uses.extend(columns.into_iter().map(|(column, how)| {
                let read_in_common = writes && how.has(How::COMMON) && how.has(How::OUTPUT);
                let how = if read_in_common { how | How::WRITTEN } else { how };
                Use { table: table.clone(), column, how: how.without(How::COMMON) }
            }));
        }
        uses
    }
}
