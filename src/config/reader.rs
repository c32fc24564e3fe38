//! One pass over the tree: each read says what it wants of a key and gets a checked value, or
//! leaves a mistake with its place.
//!
//! The keys that were asked for are the keys that a table has, so [`Table::finish`] knows the
//! unknown ones and what they may have meant. Each read is held to the definition in [`super::keys`]
//! where debug assertions are on. Nothing stops at the first mistake: a read gives
//! `None`, the reader goes on, and [`super::load`] refuses the whole when anything was found.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::document::{Entries, Node, Value};
use super::keys::{Form, Key, Section};
use super::mistake::{Findings, Place};

/// Longer texts are cut in messages, and get no suggestion.
const MAX_SHOWN: usize = 64;
/// Words that are named where one of them should stand.
const MOST_NAMED: usize = 50;

/// A table being read.
pub(super) struct Table<'a> {
    /// As messages name it: `[[target]]`, `credential in [[target]]`.
    title: String,
    place: Place,
    entries: &'a Entries,
    findings: &'a Findings,
    form: &'static Form,
    /// The keys that depend on the value of another.
    more: Cell<&'static [Key]>,
    asked: RefCell<Vec<&'static str>>,
}

/// One value being read; an item of a list goes by the list's key.
#[derive(Clone, Copy)]
pub(super) struct Field<'a> {
    key: &'a str,
    node: &'a Node,
    form: &'static Form,
    findings: &'a Findings,
}

impl<'a> Table<'a> {
    /// The whole configuration, or as much as `form` says.
    pub(super) fn root(
        node: &'a Node,
        form: &'static Form,
        findings: &'a Findings,
    ) -> Option<Self> {
        let top = Field::new("", node, form, findings).titled("the configuration".to_owned())?;
        // It was read with the files.
        top.asked.borrow_mut().push("include");
        Some(top)
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn findings(&self) -> &'a Findings {
        self.findings
    }

    /// Reads a key that may be left out.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(Field<'a>) -> Option<T>,
    ) -> Option<T> {
        parse(self.field(key)?)
    }

    /// Reads a key over its default.
    pub(super) fn set<T>(
        &self,
        value: &mut T,
        key: &'static str,
        parse: impl FnOnce(Field<'a>) -> Option<T>,
    ) {
        if let Some(read) = self.read(key, parse) {
            *value = read;
        }
    }

    /// Says which value the key has that others depend on.
    pub(super) fn is_of(&self, kind: &str) {
        let kinds = self.section().and_then(|section| section.by).map(|(_, kinds)| kinds);
        let found = kinds.into_iter().flatten().find(|(name, _)| *name == kind);
        debug_assert!(found.is_some(), "{} has no kind {kind}", self.title);
        self.more.set(found.map_or(&[], |(_, keys)| *keys));
    }

    /// Reads a key that must be there.
    pub(super) fn require<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(Field<'a>) -> Option<T>,
    ) -> Option<T> {
        debug_assert!(self.defined(key).is_none_or(|key| key.is_required), "{key} is required");
        if !self.entries.contains_key(key) {
            self.wrong(format!("missing key \"{key}\" in {}", self.title), None);
        }
        self.read(key, parse)
    }

    /// Whether the key is there at all.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The table `[key]`.
    pub(super) fn table(&self, key: &'static str) -> Option<Table<'a>> {
        self.read(key, |field| {
            match &field.held("a table", |f| matches!(f, Form::Table(_))).value {
                Value::List(_) => field.wrong_with("is given once", format!("write [{key}]")),
                _ => field.titled(format!("[{key}]")),
            }
        })
    }

    /// The tables `[[key]]`.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Table<'a>> {
        let are_tables = |form: &Form| matches!(form, Form::Tables(_));
        let tables = self.read(key, |field| match &field.held("tables", are_tables).value {
            Value::Table(_) => field.wrong_with("is a list of tables", format!("write [[{key}]]")),
            // Not all or nothing as a list of values: each table is looked at by itself.
            Value::List(items) => Some(
                items
                    .iter()
                    .filter_map(|node| Field { node, ..field }.titled(format!("[[{key}]]")))
                    .collect(),
            ),
            _ => field.expected("tables"),
        });
        tables.unwrap_or_default()
    }

    /// Every key of a table whose keys are free, with its value.
    pub(super) fn free(&self) -> impl Iterator<Item = Field<'a>> + use<'a> {
        let (findings, form) = (self.findings, self.form);
        debug_assert!(matches!(form, Form::Map(_)), "{} has keys of its own", self.title);
        let form = if let Form::Map(form) = form { *form } else { &Form::Any };
        self.entries.iter().map(move |(key, (_, node))| Field { key, node, form, findings })
    }

    /// Says that something is wrong with the table as a whole.
    pub(super) fn wrong(&self, message: impl Display, hint: Option<&str>) {
        self.findings.mistake(self.place, message, hint.map(str::to_owned));
    }

    /// Says what is wrong with the value of a key, found once the table was read.
    pub(super) fn wrong_at(&self, key: &str, message: impl Display, hint: &str) {
        let message = format!("{key}: {message}");
        self.findings.mistake(self.value_place(key), message, Some(hint.to_owned()));
    }

    /// Says what is hardly meant by the value of a key.
    pub(super) fn warn_at(&self, key: &str, message: impl Display, hint: &str) {
        let message = format!("{key}: {message}");
        self.findings.warning(self.value_place(key), message, Some(hint.to_owned()));
    }

    fn value_place(&self, key: &str) -> Place {
        self.entries.get(key).map_or(self.place, |(_, node)| node.place)
    }

    /// Reports the keys that nobody asked for.
    pub(super) fn finish(self) {
        let asked = self.asked.borrow();
        let keys = self.section().map_or(&[][..], |section| section.keys);
        let unread = keys.iter().chain(self.more.get()).find(|key| !asked.contains(&key.name));
        debug_assert!(unread.is_none(), "{} was read without {unread:?}", self.title);
        for key in self.entries.keys().filter(|key| !asked.contains(&key.as_str())) {
            let hint = similar(key, asked.iter().copied())
                .unwrap_or_else(|| format!("it knows {}", asked.join(", ")));
            self.at_key(key, format!("unknown key {} in {}", quoted(key), self.title), Some(hint));
        }
    }

    fn field(&self, key: &'static str) -> Option<Field<'a>> {
        let mut asked = self.asked.borrow_mut();
        if !asked.contains(&key) {
            asked.push(key);
        }
        let defined = self.defined(key);
        debug_assert!(defined.is_some(), "{key} of {} is not defined", self.title);
        let form = defined.map_or(&Form::Any, |key| &key.form);
        let (_, node) = self.entries.get(key)?;
        Some(Field { key, node, form, findings: self.findings })
    }

    fn section(&self) -> Option<&'static Section> {
        match self.form {
            Form::Table(section) | Form::Tables(section) => Some(section),
            _ => None,
        }
    }

    fn defined(&self, key: &str) -> Option<&'static Key> {
        let keys = self.section().map_or(&[][..], |section| section.keys);
        keys.iter().chain(self.more.get()).find(|defined| defined.name == key)
    }

    fn at_key(&self, key: &str, message: String, hint: Option<String>) {
        let place = self.entries.get(key).map_or(self.place, |(place, _)| *place);
        self.findings.mistake(place, message, hint);
    }
}

impl<'a> Field<'a> {
    pub(super) fn new(
        key: &'a str,
        node: &'a Node,
        form: &'static Form,
        findings: &'a Findings,
    ) -> Self {
        Self { key, node, form, findings }
    }

    /// The node, for a reader of this form: the definition must say the same.
    pub(super) fn held(self, what: &str, is: impl Fn(&Form) -> bool + Copy) -> &'a Node {
        let Self { key, form, node, .. } = self;
        debug_assert!(form.includes(is), "{key} is read as {what}, and defined as {form:?}");
        node
    }

    pub(super) fn key(&self) -> &'a str {
        self.key
    }

    pub(super) fn place(&self) -> Place {
        self.node.place
    }

    /// Says what is wrong with this value: `key: message`.
    pub(super) fn wrong<T>(self, message: impl Display) -> Option<T> {
        self.findings.mistake(self.node.place, format!("{}: {message}", self.key), None);
        None
    }

    /// As [`Field::wrong`], with what to do.
    pub(super) fn wrong_with<T>(self, message: impl Display, hint: impl Into<String>) -> Option<T> {
        let message = format!("{}: {message}", self.key);
        self.findings.mistake(self.node.place, message, Some(hint.into()));
        None
    }

    /// Says that the value works but is hardly meant.
    pub(super) fn warn(self, message: impl Display) {
        self.findings.warning(self.node.place, format!("{}: {message}", self.key), None);
    }

    pub(super) fn expected<T>(self, what: &str) -> Option<T> {
        self.wrong(format!("expected {what}, found {}", self.node.value.kind()))
    }

    /// A text that is not empty.
    pub(super) fn text(self) -> Option<&'a str> {
        let is_text = |form: &Form| {
            use Form::{Duration, Path, Size, Text, Word};
            matches!(form, Text | Path | Duration | Size | Word(_))
        };
        match &self.held("a text", is_text).value {
            Value::Text(text) if text.is_empty() => self.wrong("must not be empty"),
            Value::Text(text) => Some(text),
            _ => self.expected("a text"),
        }
    }

    pub(super) fn flag(self) -> Option<bool> {
        match &self.held("a flag", |form| matches!(form, Form::Flag)).value {
            Value::Flag(flag) => Some(*flag),
            _ => self.expected("true or false"),
        }
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(self, most: usize) -> Option<usize> {
        let node =
            self.held("a count", |form| matches!(form, Form::Count(bound) if *bound == most));
        let Value::Integer(number) = &node.value else {
            return self.expected("a whole number");
        };
        match number.and_then(|n| usize::try_from(n).ok()) {
            Some(n) if (1..=most).contains(&n) => Some(n),
            _ => self.wrong(format!("must be from 1 to {most}")),
        }
    }

    /// A list, of which every item must be right; it may be empty.
    pub(super) fn list<T>(self, each: impl Fn(Field<'a>) -> Option<T>) -> Option<Vec<T>> {
        self.held("a list", |form| matches!(form, Form::List(_, 0)));
        self.items(each)
    }

    fn items<T>(self, each: impl Fn(Field<'a>) -> Option<T>) -> Option<Vec<T>> {
        let form = if let Form::List(form, _) = self.form { *form } else { &Form::Any };
        let Value::List(items) = &self.node.value else {
            return self.wrong_with(
                format!("expected a list, found {}", self.node.value.kind()),
                "put it in brackets: [ … ]",
            );
        };
        // All of them first, so that each mistake is seen.
        let items: Vec<_> = items.iter().map(|node| each(Field { node, form, ..self })).collect();
        items.into_iter().collect()
    }

    /// A list that names at least one.
    pub(super) fn some<T>(self, each: impl Fn(Field<'a>) -> Option<T>) -> Option<Vec<T>> {
        self.held("a list of at least one", |form| matches!(form, Form::List(_, 1)));
        match self.items(each) {
            Some(items) if items.is_empty() => self.wrong("must name at least one"),
            items => items,
        }
    }

    /// A list of texts, at least one.
    pub(super) fn texts(self) -> Option<Vec<String>> {
        self.some(|field| field.text().map(str::to_owned))
    }

    pub(super) fn is_table(self) -> bool {
        matches!(self.node.value, Value::Table(_))
    }

    /// A table within a table, known by its key.
    pub(super) fn table(self) -> Option<Table<'a>> {
        self.held("a table", |form| matches!(form, Form::Table(_) | Form::Map(_)));
        self.titled(self.key.to_owned())
    }

    fn titled(self, title: String) -> Option<Table<'a>> {
        match &self.node.value {
            Value::Table(entries) => Some(Table {
                title,
                place: self.node.place,
                entries,
                findings: self.findings,
                form: self.form,
                more: Cell::new(&[]),
                asked: RefCell::default(),
            }),
            _ => self.expected("a table"),
        }
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(self, words: &[(&'static str, T)]) -> Option<T> {
        self.held("one of a few words", |form| {
            let Form::Word(defined) = form else { return false };
            defined.iter().eq(words.iter().map(|(word, _)| word))
        });
        let text = self.text()?;
        match words.iter().find(|(word, _)| *word == text) {
            Some((_, meaning)) => Some(*meaning),
            None => self.not_one_of(text, words.iter().map(|(word, _)| *word)),
        }
    }

    /// Says that a text is none of those that it could be.
    pub(super) fn not_one_of<'w, T>(
        self,
        text: &str,
        words: impl Iterator<Item = &'w str> + Clone,
    ) -> Option<T> {
        let hint = similar(text, words.clone()).unwrap_or_else(|| {
            let more = if words.clone().nth(MOST_NAMED).is_some() { ", …" } else { "" };
            let words: Vec<_> = words.take(MOST_NAMED).collect();
            format!("it may be {}{more}", words.join(", "))
        });
        self.wrong_with(format!("unknown value {}", quoted(text)), hint)
    }

    /// A path; a relative one is relative to the folder of the file that names it.
    pub(super) fn path(self) -> Option<PathBuf> {
        self.held("a path", |form| matches!(form, Form::Path));
        self.text().map(|text| self.folder().join(text))
    }

    /// The folder of the file that the value stands in.
    pub(super) fn folder(self) -> &'a Path {
        self.findings.sources.get(self.node.place.file).map_or(Path::new(""), |s| &s.folder)
    }

    /// The node itself, for values that are free in shape.
    pub(super) fn node(self) -> &'a Node {
        self.node
    }
}

/// A text of the operator's in a message: escaped and not too long.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

fn similar<'w>(text: &str, words: impl Iterator<Item = &'w str>) -> Option<String> {
    if text.len() > MAX_SHOWN {
        return None;
    }
    let lower = text.to_lowercase();
    words
        .map(|word| (strsim::damerau_levenshtein(&lower, word), word))
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1))
        .min()
        .map(|(_, word)| format!("did you mean {}?", quoted(word)))
}
