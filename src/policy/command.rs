//! A decoded command, neutral of protocol.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, Serializer};

use super::object::Object;

/// Named facts about a command or an effect that rules may look at.
pub type Attributes = BTreeMap<Cow<'static, str>, serde_json::Value>;

/// One decoded unit that policy decides: a SQL message, an SSH operation, an HTTP request.
///
/// What is stored of it is its request view: the text and attributes carry no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// The form the command came in, in its protocol's own word: `query`, `parse`, `bind`, ….
    pub form: Cow<'static, str>,
    /// The SQL, the command line, or method and path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Facts about the whole command.
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    /// What the command would do; empty for what only prepares or binds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Effect>,
}

impl Command {
    /// The command by its parts, with `effects` for its own.
    pub fn parts<'a>(&'a self, effects: &'a [&'a [Effect]]) -> CommandParts<'a> {
        CommandParts { form: &self.form, text: &self.text, attributes: &self.attributes, effects }
    }
}

/// The attribute of an effect on everything below a folder: the folder's other name.
const BELOW: &str = "below";

/// One thing that a command would do: an action on an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// For example `sql.delete`; a rule's `actions` name these.
    pub action: Cow<'static, str>,
    /// For example `table:public.orders`; a rule's `objects` name these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Object>,
    /// Of a table: the columns that the effect names or may name; `*` is every column. None where
    /// no column's value is looked at, as by `count(*)`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub columns: BTreeSet<String>,
    /// Facts about the effect, for example `has_where`.
    #[serde(default, skip_serializing_if = "Attributes::is_empty")]
    pub attributes: Attributes,
    /// Only a rule lets it pass: what the target allows by default leaves it out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_by_rule: bool,
    /// What follows from it is not among the command's effects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opaque: Option<Opaque>,
}

/// An effect that runs or defines code, or gives data another name: what follows from it may be
/// anything that the protocol can do, and no effect tells of it. Where rules or masks apply that
/// it could go around, it passes only by a rule that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Opaque {
    /// The action alone says so (`sql.do`): a rule names it by the action, spelled in full.
    Action,
    /// The action on an object of this kind says so (`sql.create` on a function): a rule names it
    /// by the action and a pattern of that kind.
    Object,
}

impl Effect {
    /// An effect of which only the action is known.
    pub fn of(action: &'static str) -> Self {
        Self {
            action: Cow::Borrowed(action),
            object: None,
            columns: BTreeSet::new(),
            attributes: Attributes::new(),
            only_by_rule: false,
            opaque: None,
        }
    }

    /// An effect on everything below a folder, which gets the other name too, or instead. It is
    /// there for rules that block what is below: nothing has to allow it.
    pub fn on_all_below(action: &'static str, folder: Object, other: String) -> Self {
        let attributes = Attributes::from([(Cow::Borrowed(BELOW), other.into())]);
        Self { attributes, ..Self::on(action, folder) }
    }

    /// The folder's other name, when the effect is on everything below one.
    pub fn below(&self) -> Option<&str> {
        self.attributes.get(BELOW)?.as_str()
    }

    /// Its action says that it is opaque: [`Opaque::Action`].
    pub fn mark_opaque_by_action(&mut self) {
        self.opaque = Some(Opaque::Action);
    }

    /// Its action on an object of that kind says so: [`Opaque::Object`].
    pub fn mark_opaque_by_object(&mut self) {
        self.opaque = self.opaque.or(Some(Opaque::Object));
    }

    /// An effect on an object.
    pub fn on(action: &'static str, object: Object) -> Self {
        Self { object: Some(object), ..Self::of(action) }
    }
}

/// A command by its parts, borrowed from whoever keeps them: what is decided and recorded many
/// times need not be copied each time. It is stored exactly as a [`Command`] is.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct CommandParts<'a> {
    /// As [`Command::form`].
    pub form: &'a str,
    /// As [`Command::text`].
    #[serde(skip_serializing_if = "str::is_empty")]
    pub text: &'a str,
    /// As [`Command::attributes`].
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    pub attributes: &'a Attributes,
    /// As [`Command::effects`], in as many runs as there are places that keep them.
    #[serde(skip_serializing_if = "none", serialize_with = "in_one_list")]
    pub effects: &'a [&'a [Effect]],
}

impl CommandParts<'_> {
    /// A copy to keep.
    pub fn to_command(&self) -> Command {
        Command {
            form: Cow::Owned(self.form.to_owned()),
            text: self.text.to_owned(),
            attributes: self.attributes.clone(),
            effects: self.effects().cloned().collect(),
        }
    }

    /// The effects, one after the other.
    pub fn effects(&self) -> impl Iterator<Item = &Effect> {
        self.effects.iter().copied().flatten()
    }
}

fn none(effects: &&[&[Effect]]) -> bool {
    effects.iter().all(|run| run.is_empty())
}

fn in_one_list<S: Serializer>(effects: &&[&[Effect]], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(effects.iter().copied().flatten())
}
