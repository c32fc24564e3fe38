//! `[[mask]]`, `[[pattern]]`: what nobody may see.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::Value;
use super::model::Target;
use super::reader::{Field, Table, quoted};
use super::value;
use crate::mask::{
    Action, ColumnPattern, Enforce, FieldPattern, Mask, Masks, Pattern, PatternMistake, Step,
    TimeUnit,
};
use crate::names::{Protocol, TargetName};
use crate::policy::Glob;

/// Every row that passes is held against the masks of its target.
const MAX_MASKS: usize = 1_000;
/// Every text that passes is searched for each pattern.
const MAX_PATTERNS: usize = 200;
/// Names of patterns stand in masked texts.
const MAX_NAME: usize = 64;

/// `None` is `bucket`, which goes by a step.
const ACTIONS: &[(&str, Option<Action>)] = &[
    ("redact", Some(Action::Redact)),
    ("partial", Some(Action::Partial)),
    ("hash", Some(Action::Hash)),
    ("null", Some(Action::Null)),
    ("tokenize", Some(Action::Tokenize)),
    ("bucket", None),
];
/// The largest step of `bucket` between numbers.
pub(super) const MOST_STEP: usize = 1_000_000_000;

/// Where columns are masked: at the source or not.
const ENFORCE: &[(&str, bool)] = &[("source", true), ("output", false)];
/// What becomes of a statement that cannot be masked at the source: whether it is at the output.
const ON_UNPROVABLE: &[(&str, bool)] = &[("refuse", false), ("output", true)];

/// `enforce` and `on_unprovable` of a table.
type Enforced = (Option<bool>, Option<bool>);

fn enforced(table: &Table<'_>) -> Enforced {
    let enforce = table.read("enforce", |field| field.word(ENFORCE));
    (enforce, table.read("on_unprovable", |field| field.word(ON_UNPROVABLE)))
}

pub(super) type Targets = BTreeMap<TargetName, Arc<Target>>;
/// The operator's own patterns; `None` stands for one that is wrong.
type Own = BTreeMap<String, Option<Pattern>>;

/// The masks, and whether these are all that are written: a wrong one is told and left out.
pub(super) fn masks(top: &Table<'_>, targets: &Targets) -> (Masks, bool) {
    let own = patterns(top);
    let default = top.table("policy").map(|table| enforced(&table)).unwrap_or_default();
    let tables = top.tables("mask");
    if tables.len() > MAX_MASKS {
        top.wrong(format!("there are more than {MAX_MASKS} masks"), None);
    }
    let (mut masks, written): (Vec<Mask>, _) = (Vec::new(), tables.len());
    for table in tables {
        if let Some(mask) = mask(&table, targets, &own, default) {
            if masks.iter().any(|other| other.name == mask.name) {
                let hint = "recordings name the masks that acted: give each a name of its own";
                table.wrong_at("name", "another mask has this name", hint);
            }
            masks.push(mask);
        }
        table.finish();
    }
    let complete = masks.len() == written;
    (Masks::new(masks), complete)
}

fn patterns(top: &Table<'_>) -> Own {
    let mut own = Own::new();
    for table in top.tables("pattern") {
        let name = table.require("name", |field| {
            let name = pattern_name(field)?;
            if own.contains_key(name) {
                return field.wrong("another pattern has this name");
            }
            Some(name.to_owned())
        });
        let pattern = table.require("regex", |field| {
            let named = name.as_deref().unwrap_or("pattern");
            match Pattern::own(named, field.text()?) {
                Ok(pattern) => Some(pattern),
                Err(mistake) => field.wrong_with(&mistake, hint(&mistake)),
            }
        });
        table.finish();
        own.extend(name.map(|name| (name, pattern)));
    }
    if own.len() > MAX_PATTERNS {
        top.wrong(format!("there are more than {MAX_PATTERNS} patterns"), None);
    }
    own
}

fn hint(mistake: &PatternMistake) -> &'static str {
    match mistake {
        PatternMistake::Unknown => "write a [[pattern]] of that name",
        PatternMistake::Expression(_) => {
            "https://docs.rs/regex tells the language; it has no look-around and no back-references"
        }
        PatternMistake::Unbounded => "for example tok_[0-9a-f]{32}",
        PatternMistake::Empty => "say what must be there, for example [0-9]{8} for [0-9]*",
    }
}

fn pattern_name(field: Field<'_>) -> Option<&str> {
    let name = field.text()?;
    let of_names = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.len() > MAX_NAME || !name.chars().all(of_names) {
        return field.wrong(format!(
            "{} is not a name of at most {MAX_NAME} of a-z, 0-9 and -",
            quoted(name)
        ));
    }
    if Pattern::names().any(|built_in| built_in == name) || name == "masked" {
        return field.wrong_with(
            format!("{} is built in", quoted(name)),
            "give your own another name; a mask may name both",
        );
    }
    Some(name)
}

fn mask(table: &Table<'_>, targets: &Targets, own: &Own, default: Enforced) -> Option<Mask> {
    let name = table.require("name", |field| field.text().map(str::to_owned));
    let named = table.read("targets", |f| f.some(|field| target_glob(field, targets)));
    let columns = table.read("columns", |f| f.some(column));
    let fields = table.read("fields", |f| f.some(json_field));
    let patterns = table.read("patterns", |f| f.some(|field| pattern(field, own)));
    if !["columns", "fields", "patterns"].iter().any(|key| table.has(key)) {
        table.wrong(
            "[[mask]] says nothing of what",
            Some("give columns, fields or patterns; patterns = [\"email\"], for example"),
        );
    }
    let with = action(table);
    let unless_groups = table.read("unless_groups", |f| f.some(group)).unwrap_or_default();
    let (enforce, on_unprovable) = enforced(table);
    let enforce = match enforce.or(default.0) {
        Some(false) => Enforce::Output,
        Some(true) | None => {
            let or_output = on_unprovable.or(default.1).unwrap_or(false);
            Enforce::Source { or_output }
        }
    };
    let mask = Mask {
        name: name?.into(),
        targets: named,
        columns: columns.unwrap_or_default(),
        fields: fields.unwrap_or_default(),
        patterns: patterns.unwrap_or_default().into_iter().flatten().collect(),
        // A mistake was told where there is none.
        with: with.unwrap_or(Action::Redact),
        unless_groups,
        enforce,
    };
    warn(table, targets, &mask);
    Some(mask)
}

/// What a mask leaves of values; `None` is told.
fn action(table: &Table<'_>) -> Option<Action> {
    let given = table.read("step", step);
    let with = match table.read("with", |field| field.word(ACTIONS)) {
        Some(with) => with,
        None if table.has("with") => return None,
        None => Some(Action::Redact),
    };
    if let Some(action) = with {
        if table.has("step") {
            table.wrong_at(
                "step",
                "only bucket has a step",
                "write with = \"bucket\", or leave it out",
            );
        }
        if action == Action::Tokenize {
            of_columns(table, "tokenize");
        }
        return Some(action);
    }
    of_columns(table, "bucket");
    if !table.has("step") {
        table.wrong_at("with", "bucket has a step", "for example step = 1000, or step = \"month\"");
    }
    given.map(Action::Bucket)
}

/// What looks for words in a text has no form that a token could keep, and no step.
fn of_columns(table: &Table<'_>, with: &str) {
    for key in ["fields", "patterns"] {
        if table.has(key) {
            table.wrong_at(
                key,
                format!("with = \"{with}\" is for columns"),
                "give them a mask of their own",
            );
        }
    }
}

fn step(field: Field<'_>) -> Option<Step> {
    if let Value::Text(_) = field.node().value {
        return field.word(TimeUnit::ALL).map(Step::Time);
    }
    let step = field.count(MOST_STEP)?;
    Some(Step::Number(u32::try_from(step).ok()?))
}

/// Columns are those of databases, fields those of HTTP bodies, and neither means anything elsewhere.
fn warn(table: &Table<'_>, targets: &Targets, mask: &Mask) {
    let named = || targets.values().filter(|target| mask.names_target(target.name.as_str()));
    let none = |protocol| !named().any(|target| target.protocol() == protocol);
    if !mask.columns.is_empty() && none(Protocol::Postgres) {
        table.warn_at("columns", "no target of the mask has columns", "name a Postgres target");
    }
    if !mask.fields.is_empty() && none(Protocol::Http) {
        table.warn_at("fields", "no target of the mask has fields", "name an HTTP target");
    }
}

pub(super) fn target_glob(field: Field<'_>, targets: &Targets) -> Option<Glob> {
    let glob = value::target_glob(field)?;
    let text = glob.glob().glob();
    if !targets.keys().any(|name| glob.is_match(name.as_str())) {
        field.warn(format!("{} matches no target", quoted(text)));
    }
    Some(Glob::new(field.text()?))
}

fn column(field: Field<'_>) -> Option<ColumnPattern> {
    let text = field.text()?;
    let hint = "write schema.table.column, for example public.customers.email or *.ssn; a part \
                that holds a dot stands in double quotes";
    match text.parse() {
        _ if text.split('.').any(str::is_empty) => {
            field.wrong_with(format!("{} does not name a column", quoted(text)), hint)
        }
        Ok(column) => Some(column),
        Err(_) => field.wrong_with(format!("{} does not name a column", quoted(text)), hint),
    }
}

fn json_field(field: Field<'_>) -> Option<FieldPattern> {
    let text = field.text()?;
    match text.parse() {
        Ok(parsed) => Some(parsed),
        Err(mistake) => field.wrong_with(
            format!("{} names no field: {mistake}", quoted(text)),
            "write the keys from the top with dots between: customer.email; **.ssn is at any depth",
        ),
    }
}

/// One that is wrong where it stands is no mistake here, too.
fn pattern(field: Field<'_>, own: &Own) -> Option<Option<Pattern>> {
    let name = field.text()?;
    if let Some(pattern) = own.get(name) {
        return Some(pattern.clone());
    }
    match Pattern::built_in(name) {
        Ok(pattern) => Some(Some(pattern)),
        Err(PatternMistake::Unknown) => {
            let built_in = Pattern::names().map(str::to_owned);
            let known: Vec<String> = built_in.chain(own.keys().cloned()).collect();
            field.not_one_of(name, known.iter().map(String::as_str))
        }
        Err(mistake) => field.wrong_with(&mistake, hint(&mistake)),
    }
}

pub(super) fn group(field: Field<'_>) -> Option<String> {
    let name = field.text()?;
    if name != "*" && name.contains('*') {
        return field.wrong_with(
            format!("{} is not a group", quoted(name)),
            "name groups in full, or * for everybody",
        );
    }
    Some(name.to_owned())
}
