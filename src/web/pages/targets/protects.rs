//! Masks and row filters of a target, in words.

use super::super::text;
use crate::catalog::{MaskShown, Protection, RowsShown};

/// What masks and row filters of a target do to the visitor.
pub(super) struct Protects {
    pub(super) masks: Vec<MaskLine>,
    pub(super) rows: Vec<RowsLine>,
    /// Since when it is known what the target's catalog says; empty where it is not.
    pub(super) catalog_read: String,
}

/// A mask in words.
pub(super) struct MaskLine {
    pub(super) name: String,
    pub(super) with: String,
    /// Columns, fields or patterns, with their names.
    pub(super) covers: Vec<(&'static str, String)>,
    pub(super) acts: String,
    /// The gateway's role may not read the columns either.
    pub(super) role: bool,
    pub(super) lifted: bool,
    pub(super) unless_groups: String,
}

/// A row filter in words.
pub(super) struct RowsLine {
    pub(super) name: String,
    pub(super) table: String,
    pub(super) condition: String,
    pub(super) whom: String,
    pub(super) acts: bool,
    pub(super) lacking: String,
}

impl Protects {
    pub(super) fn of(protection: &Protection) -> Self {
        let read = protection.catalog_read_at.map(text::time);
        Self {
            masks: protection.masks.iter().map(MaskLine::of).collect(),
            rows: protection.rows.iter().map(RowsLine::of).collect(),
            catalog_read: read.unwrap_or_default(),
        }
    }

    /// How many of both there are, in words; empty where there are none.
    pub(super) fn count(&self) -> String {
        let some = |count: usize, one: &str, many: &str| match count {
            0 => None,
            1 => Some(format!("1 {one}")),
            _ => Some(format!("{count} {many}")),
        };
        let masks = some(self.masks.len(), "mask", "masks");
        let rows = some(self.rows.len(), "row filter", "row filters");
        masks.into_iter().chain(rows).collect::<Vec<_>>().join(", ")
    }
}

impl MaskLine {
    fn of(mask: &MaskShown) -> Self {
        let covers =
            [("columns", &mask.columns), ("fields", &mask.fields), ("patterns", &mask.patterns)];
        let named = covers.into_iter().filter(|(_, names)| !names.is_empty());
        Self {
            name: text::line(&mask.name),
            with: mask.with.clone(),
            covers: named
                .map(|(what, names)| (what, text::block(&names.join(", "), MOST)))
                .collect(),
            acts: mask.acts.clone(),
            role: mask.role_cannot_read == Some(true),
            lifted: mask.lifted,
            unless_groups: groups(&mask.unless_groups),
        }
    }
}

impl RowsLine {
    fn of(rows: &RowsShown) -> Self {
        let mut whom = match rows.groups.as_slice() {
            [] => "everybody".to_owned(),
            names => groups(names),
        };
        if !rows.unless_groups.is_empty() {
            whom = format!("{whom}, not for {}", groups(&rows.unless_groups));
        }
        Self {
            name: text::line(&rows.name),
            table: text::line(&rows.table),
            condition: text::block(&rows.condition, MOST),
            whom,
            acts: rows.acts,
            lacking: text::line(rows.lacking.as_deref().unwrap_or_default()),
        }
    }
}

/// Characters of a list of names, or of a condition: more than anybody writes.
const MOST: usize = 4096;

fn groups(names: &[String]) -> String {
    let everybody = names.iter().any(|name| name == "*");
    if everybody { "everybody".to_owned() } else { text::line(&names.join(", ")) }
}
