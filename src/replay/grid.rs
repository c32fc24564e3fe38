//! The rows of one result as a table, as far as they are shown.

use std::rc::Rc;

use comfy_table::{Cell, ContentArrangement, Table, presets};

use super::postgres::Column;
use super::text::{Lines, printable_bytes, shortened};
use super::values;

/// Characters shown of one value.
pub(super) const VALUE_SHOWN: usize = 80;
/// Columns shown of one table; more do not fit any terminal.
pub(super) const COLUMNS_SHOWN: usize = 40;

/// Rows that came, and the columns they have.
#[derive(Default)]
pub(super) struct Grid {
    columns: Option<Rc<[Column]>>,
    rows: Vec<Vec<String>>,
    count: u64,
}

impl Grid {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Says what the rows to come are made of; keeps what was said last when that is not known.
    /// What is too narrow for rows of `width` is of another result.
    pub(super) fn describe(&mut self, columns: Option<Rc<[Column]>>, width: usize) {
        let columns = columns.or(self.columns.take());
        self.columns = columns.filter(|columns| columns.len() >= width);
    }

    pub(super) fn forget_columns(&mut self) {
        self.columns = None;
    }

    /// Takes a row; `formats` are those that a Bind asked for, one for all or one for each.
    pub(super) fn add(&mut self, row: &[Option<Vec<u8>>], formats: Option<&[bool]>, most: usize) {
        self.count += 1;
        if self.rows.len() >= most {
            return;
        }
        let columns = self.columns.as_deref().unwrap_or_default();
        let shown = row.iter().take(COLUMNS_SHOWN).enumerate().map(|(n, value)| {
            let Some(value) = value else { return "NULL".to_owned() };
            let column = columns.get(n);
            let binary = match formats {
                Some([all]) => *all,
                Some(each) => each.get(n).copied().unwrap_or(false),
                // Of a prepared statement's columns the format is only known with the bind.
                None => column.is_some_and(|column| column.binary) || !looks_like_text(value),
            };
            let text = if binary {
                values::from_binary(column.map_or(0, |column| column.type_oid), value)
            } else {
                values::from_text(value)
            };
            shortened(&text, VALUE_SHOWN)
        });
        self.rows.push(shown.collect());
    }

    /// Gives the table and how many rows it leaves out, and starts over with the same columns.
    pub(super) fn take(&mut self, width: Option<u16>) -> Option<(Table, u64)> {
        let (rows, count) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.count));
        if count == 0 {
            return None;
        }
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        match width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width)
            }
            None => table.set_content_arrangement(ContentArrangement::Disabled),
        };
        if let Some(columns) = &self.columns {
            let names = columns.iter().take(COLUMNS_SHOWN).map(|column| {
                Cell::new(shortened(&printable_bytes(&column.name, Lines::Escape), VALUE_SHOWN))
            });
            table.set_header(names);
        }
        let left_out = count - rows.len() as u64;
        table.add_rows(rows);
        Some((table, left_out))
    }
}

fn looks_like_text(value: &[u8]) -> bool {
    std::str::from_utf8(value)
        .is_ok_and(|text| !text.chars().any(|c| c.is_control() && !c.is_whitespace()))
}
