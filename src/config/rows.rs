//! `[[rows]]`: which rows of a table there are for a caller.

use super::mask::{Targets, group, target_glob};
use super::reader::{Field, Table, quoted};
use crate::decode::sql::rewrite::Condition;
use crate::mask::{Masks, RowFilter};
use crate::names::Protocol;
use crate::policy::Pattern;

/// Every statement is held against the filters of its target.
const MAX_FILTERS: usize = 1_000;

/// The filters, and whether these are all that are written: a wrong one is told and left out.
pub(super) fn filters(top: &Table<'_>, targets: &Targets, masks: &Masks) -> (Vec<RowFilter>, bool) {
    let tables = top.tables("rows");
    if tables.len() > MAX_FILTERS {
        top.wrong(format!("there are more than {MAX_FILTERS} row filters"), None);
    }
    let of_masks = masks.of_all().map(|mask| mask.name.clone());
    let mut names: Vec<_> = of_masks.collect();
    let (mut filters, written) = (Vec::new(), tables.len());
    for table in tables {
        if let Some(filter) = filter(&table, targets) {
            if table.has("name") && names.contains(&filter.name) {
                let hint = "recordings name what acted: give each a name of its own";
                table.wrong_at("name", "a mask or another row filter has this name", hint);
            }
            names.push(filter.name.clone());
            filters.push(filter);
        }
        table.finish();
    }
    let complete = filters.len() == written;
    (filters, complete)
}

fn filter(table: &Table<'_>, targets: &Targets) -> Option<RowFilter> {
    let name = table.read("name", |field| field.text().map(str::to_owned));
    let named_targets = table.read("targets", |f| f.some(|field| target_glob(field, targets)));
    let relation = table.require("table", relation);
    let condition = table.require("where", condition);
    let groups = table.read("groups", |f| f.some(group)).unwrap_or_default();
    let unless_groups = table.read("unless_groups", |f| f.some(group)).unwrap_or_default();
    let (written, pattern) = relation?;
    let (text, condition) = condition?;
    let filter = RowFilter {
        name: name.unwrap_or_else(|| written.clone()).into(),
        targets: named_targets,
        table: written.into(),
        named: pattern,
        text: text.into(),
        condition,
        groups,
        unless_groups,
    };
    let mut named = targets.values().filter(|target| filter.names_target(target.name.as_str()));
    if !named.any(|target| target.protocol() == Protocol::Postgres) {
        table.warn_at("table", "no target of the row filter has tables", "name a Postgres target");
    }
    Some(filter)
}

fn relation(field: Field<'_>) -> Option<(String, Pattern)> {
    let text = field.text()?;
    let hint = "write schema.table, for example public.customers or *.customers; a part that holds \
                a dot stands in double quotes";
    match format!("table:{text}").parse() {
        Ok(pattern) if !text.split('.').any(str::is_empty) => Some((text.to_owned(), pattern)),
        _ => field.wrong_with(format!("{} does not name a table", quoted(text)), hint),
    }
}

fn condition(field: Field<'_>) -> Option<(String, Condition)> {
    let text = field.text()?;
    match Condition::parse(text) {
        Ok(condition) => Some((text.to_owned(), condition)),
        Err(mistake) => {
            let before = text.get(..mistake.at).unwrap_or(text);
            let at = before.chars().count() + 1;
            let hint = "for example tenant_id = {claim.tenant} AND NOT archived";
            field.wrong_with(format!("at character {at}: {mistake}"), hint)
        }
    }
}
