//! Files to one tree: reading, `include`, TOML, and every value with its place.
//!
//! `include` globs know `*` in the last part of a path only. Lists of tables from several files
//! are joined in the order of reading: a file's own come before those of the files it includes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::keys::INCLUDE;
use super::mistake::{Findings, Place, Source};
use super::reader::Field;
use super::value;

use crate::files;

/// A generated policy of ten thousand rules is about half of this.
const MAX_FILE: u64 = 4 * 1024 * 1024;
/// How many files one configuration may have.
const MAX_FILES: usize = 256;
/// How deep includes may nest; cycles are found before that.
const MAX_DEPTH: usize = 8;

/// A value and where it stands.
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// What TOML knows. No key takes fractions or times, so these stay as written.
pub(super) enum Value {
    Text(String),
    /// `None` beyond 64 bits.
    Integer(Option<i64>),
    Flag(bool),
    Float(String),
    Time(String),
    List(Vec<Node>),
    Table(Entries),
}

/// The keys of a table, each with its own place and its value.
pub(super) type Entries = BTreeMap<String, (Place, Node)>;

impl Value {
    /// What it is, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Float(_) => "a number with a fraction",
            Self::Flag(_) => "true or false",
            Self::Time(_) => "a date or time",
            Self::List(items) if items.iter().any(|i| matches!(i.value, Self::Table(_))) => {
                "a list of tables"
            }
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Reads a file with all that it includes into one table.
pub(super) fn read(path: &Path, findings: &mut Findings) -> Node {
    let mut reading = Reading { findings, seen: BTreeSet::new(), whole: Entries::new() };
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    reading.file(path.display().to_string(), &absolute, None, 0);
    Node { place: Place { file: 0, byte: 0 }, value: Value::Table(reading.whole) }
}

/// Reads a text that is no file: it includes none.
pub(super) fn read_text(name: &str, text: &str, findings: &mut Findings) -> Node {
    let source = Source { name: name.to_owned(), folder: PathBuf::new(), text: text.to_owned() };
    findings.sources.push(source);
    let (mut entries, errors) = parse(text, 0);
    if let Some((place, _)) = entries.remove("include") {
        findings.mistake(place, "include: a draft reads no files", None);
    }
    let reading = Reading { findings, seen: BTreeSet::new(), whole: Entries::new() };
    reading.report_syntax(0, errors);
    Node { place: Place { file: 0, byte: 0 }, value: Value::Table(entries) }
}

struct Reading<'f> {
    findings: &'f mut Findings,
    /// The files of this configuration, without symbolic links.
    seen: BTreeSet<PathBuf>,
    whole: Entries,
}

impl Reading<'_> {
    fn file(&mut self, name: String, path: &Path, included: Option<Place>, depth: usize) {
        let file = self.findings.sources.len();
        let folder = path.parent().unwrap_or(path).to_owned();
        self.findings.sources.push(Source { name, folder, text: String::new() });
        let text = match text_of(path) {
            Ok(text) => text,
            Err(problem) => {
                let hint = match included {
                    Some(place) => format!("it is included at {}", self.findings.named(place)),
                    None => "--config or PORTCULLIS_CONFIG names the file to read".to_owned(),
                };
                return self.findings.unusable(file, problem, Some(hint));
            }
        };
        if let Ok(canonical) = fs::canonicalize(path) {
            self.seen.insert(canonical);
        }
        let (mut entries, errors) = parse(&text, file);
        if let Some(source) = self.findings.sources.get_mut(file) {
            source.text = text;
        }
        self.report_syntax(file, errors);
        let include = entries.remove("include");
        self.merge(entries);
        if let Some((_, node)) = include {
            self.include(file, &node, depth + 1);
        }
    }

    /// Reports what the parser said first of each line: the rest follows from it.
    fn report_syntax(&self, file: usize, errors: Vec<(usize, String)>) {
        let mut lines = BTreeSet::new();
        for (byte, message) in errors {
            let place = Place { file, byte };
            let line = self.findings.position(place).map(|position| position.line);
            if lines.insert(line) {
                self.findings.mistake(place, message, None);
            }
        }
    }

    fn merge(&mut self, entries: Entries) {
        for (key, (place, node)) in entries {
            match self.whole.entry(key) {
                Entry::Vacant(vacant) => {
                    vacant.insert((place, node));
                }
                Entry::Occupied(mut occupied) => match (&mut occupied.get_mut().1.value, node) {
                    (Value::List(list), Node { value: Value::List(more), .. }) => list.extend(more),
                    _ => {
                        let first = self.findings.named(occupied.get().0);
                        self.findings.mistake(
                            place,
                            format!("{:?} is given twice", occupied.key()),
                            Some(format!("the first stands at {first}; put both in one place")),
                        );
                    }
                },
            }
        }
    }

    fn include(&mut self, file: usize, node: &Node, depth: usize) {
        let field = Field::new("include", node, &INCLUDE, self.findings);
        let Some(patterns) = field.list(|f| Some((f.place(), f.text()?.to_owned()))) else {
            return;
        };
        let Some(Source { name, folder, .. }) = self.findings.sources.get(file) else { return };
        let shown = Path::new(name).parent().map(Path::to_owned).unwrap_or_default();
        let folder = folder.clone();
        for (place, pattern) in patterns {
            let found = match matching(&folder, &pattern) {
                Ok(found) => found,
                Err(problem) => {
                    self.findings.mistake(place, format!("include: {problem}"), None);
                    continue;
                }
            };
            if found.is_empty() {
                let message = format!("include: no file matches {pattern:?}");
                self.findings.warning(place, message, None);
            }
            for relative in found {
                let path = folder.join(&relative);
                let name = shown.join(&relative).display().to_string();
                if self.may_include(place, &path, &name, depth) {
                    self.file(name, &path, Some(place), depth);
                }
            }
        }
    }

    fn may_include(&self, place: Place, path: &Path, name: &str, depth: usize) -> bool {
        let (message, hint) = if depth > MAX_DEPTH {
            (format!("include: files nest deeper than {MAX_DEPTH}"), None)
        } else if self.findings.sources.len() >= MAX_FILES {
            (format!("include: more than {MAX_FILES} files"), None)
        } else if fs::canonicalize(path).is_ok_and(|canonical| self.seen.contains(&canonical)) {
            let hint = "a file is read once; keep included files in a folder of their own";
            (format!("include: {name} is part of the configuration already"), Some(hint.to_owned()))
        } else {
            return true;
        };
        self.findings.mistake(place, message, hint);
        false
    }
}

/// The files that a pattern names, relative as the pattern is, in the order of their names.
fn matching(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    if !pattern.contains('*') {
        return Ok(vec![PathBuf::from(pattern)]);
    }
    let (within, last) = pattern.split_at(pattern.rfind('/').map_or(0, |slash| slash + 1));
    if within.contains('*') {
        return Err("only the last part of a path may hold *".to_owned());
    }
    let glob = value::star_glob(last).map_err(|e| e.to_string())?;
    let listed = fs::read_dir(folder.join(within))
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|e| format!("cannot list \"{within}\": {e}"))?;
    let mut names: Vec<_> = listed
        .iter()
        .map(fs::DirEntry::file_name)
        // As in a shell, * does not mean hidden files: editors leave such beside the real ones.
        .filter(|name| glob.is_match(name) && !name.as_encoded_bytes().starts_with(b"."))
        .collect();
    names.sort();
    Ok(names.iter().map(|name| Path::new(within).join(name)).collect())
}

fn text_of(path: &Path) -> Result<String, String> {
    let unreadable = |e: io::Error| format!("cannot be read: {e}");
    let mut text = String::new();
    let file = files::open(path).map_err(unreadable)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_FILE {
        return Err(format!("is larger than {} MiB", MAX_FILE / 1024 / 1024));
    }
    // Some editors begin a file with a byte order mark.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// What could be read of a text, and what could not: bytes and messages.
fn parse(text: &str, file: usize) -> (Entries, Vec<(usize, String)>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let errors = errors
        .iter()
        .map(|e| (e.span().map_or(0, |span| span.start), e.message().to_owned()))
        .collect();
    (entries(table.get_ref(), file), errors)
}

fn entries(table: &DeTable<'_>, file: usize) -> Entries {
    table
        .iter()
        .map(|(key, value)| {
            let place = Place { file, byte: key.span().start };
            (key.get_ref().to_string(), (place, node(value, file)))
        })
        .collect()
}

/// Nests as deep as TOML's parser lets it, 80 levels.
fn node(value: &Spanned<DeValue<'_>>, file: usize) -> Node {
    let place = Place { file, byte: value.span().start };
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => Value::Integer(i64::from_str_radix(n.as_str(), n.radix()).ok()),
        DeValue::Float(n) => Value::Float(n.to_string()),
        DeValue::Boolean(flag) => Value::Flag(*flag),
        DeValue::Datetime(time) => Value::Time(time.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(|i| node(i, file)).collect()),
        DeValue::Table(table) => Value::Table(entries(table, file)),
    };
    Node { place, value }
}
