//! The one definition of each key: its name, the form of its value, and what it is.
//!
//! [`super::schema`] writes it as a JSON Schema. The reader knows no other keys: where debug assertions
//! are on, so in every test, a read that is not as defined panics, and so does a table that is read
//! without one of its keys.

mod process;
mod reach;
mod rules;

use process::{
    APPROVALS, DATABASE, HTTP, LISTEN, NOTIFY, RECORDING, SERVER, SSH, TELEMETRY, TICKETS, TLS, WEB,
};
use reach::{ACCESS, ISSUER, TARGET};
use rules::{MASK, PATTERN, POLICY, RETENTION, ROWS, RULE, TEST};

/// What stands in a table.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) keys: &'static [Key],
    /// Of these exactly one is given; none where there are none.
    pub(super) one_of: &'static [&'static str],
    /// The key on whose value other keys depend, and these by the value.
    pub(super) by: Option<(&'static str, &'static [Kind])>,
}

/// A value of the key that others depend on, and these.
pub(super) type Kind = (&'static str, &'static [Key]);

/// One key of a table.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
    pub(super) form: Form,
    pub(super) about: &'static str,
}

/// What a value looks like. That it means something is for the reader to say.
#[derive(Debug)]
pub(super) enum Form {
    /// A text that is not empty.
    Text,
    /// A path, relative to the folder of the file that names it.
    Path,
    /// A whole number and one of ms, s, m, h, d.
    Duration,
    /// A whole number and one of B, KiB, MiB, GiB, TiB.
    Size,
    /// True or false.
    Flag,
    /// A whole number from 1 to this.
    Count(usize),
    /// One of these texts.
    Word(&'static [&'static str]),
    /// A list of at least so many.
    List(&'static Form, usize),
    /// A table of free keys.
    Map(&'static Form),
    /// A table.
    Table(&'static Section),
    /// A list of tables.
    Tables(&'static Section),
    /// One of these.
    Either(&'static [Form]),
    /// Whatever TOML takes.
    Any,
}

impl Form {
    /// Whether this form, or one of several, is as asked.
    pub(super) fn includes(&self, is: impl Fn(&Self) -> bool + Copy) -> bool {
        match self {
            Self::Either(forms) => forms.iter().any(is),
            form => is(form),
        }
    }
}

const fn section(keys: &'static [Key]) -> Section {
    Section { keys, one_of: &[], by: None }
}

const fn key(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, is_required: false, form, about }
}

const fn required(name: &'static str, form: Form, about: &'static str) -> Key {
    Key { name, is_required: true, form, about }
}

const TEXTS: Form = Form::List(&Form::Text, 1);
const LABELS: Form = Form::Map(&Form::Text);
const SECRET: Form = Form::Table(&SECRET_PLACE);

/// Files that belong to the configuration.
pub(super) const INCLUDE: Form = Form::List(&Form::Text, 0);
/// The whole of it.
pub(super) const WHOLE: Form = Form::Table(&CONFIGURATION);
/// Rules to try, which stand in no file.
pub(super) const DRAFT: Form = Form::Table(&section(&[
    key("include", INCLUDE, ""),
    key("policy", Form::Table(&POLICY), ""),
    key("rule", Form::Tables(&RULE), ""),
]));

const CONFIGURATION: Section = section(&[
    key(
        "include",
        INCLUDE,
        "Other files of this configuration; * stands in the last part of a path.",
    ),
    key("server", Form::Table(&SERVER), "The process: where its data are, and how it stops."),
    key("tls", Form::Table(&TLS), "What the gateway shows to clients that speak TLS."),
    key("listen", Form::Table(&LISTEN), "Where callers connect."),
    key("ssh", Form::Table(&SSH), "The gateway's own keys for SSH."),
    key("web", Form::Table(&WEB), "Pages and API: who may read what was recorded."),
    key("telemetry", Form::Table(&TELEMETRY), "Where spans go."),
    key("recording", Form::Table(&RECORDING), "How recordings are kept."),
    key("database", Form::Table(&DATABASE), "Where the index and what people decide are kept."),
    key("tickets", Form::Table(&TICKETS), "Bounds of tickets, short passwords for one target."),
    key("approvals", Form::Table(&APPROVALS), "How many commands may wait for people."),
    key("notify", Form::Tables(&NOTIFY), "Who is told of what."),
    key("http", Form::Table(&HTTP), "What holds for every HTTP target."),
    key(
        "issuer",
        Form::Tables(&ISSUER),
        "An OpenID Connect provider whose tokens prove who calls.",
    ),
    key("target", Form::Tables(&TARGET), "A system behind the gateway."),
    key("access", Form::Tables(&ACCESS), "Who may open sessions on what."),
    key("policy", Form::Table(&POLICY), "What holds for every rule and mask."),
    key("rule", Form::Tables(&RULE), "What a command may do, or must not."),
    key("pattern", Form::Tables(&PATTERN), "A pattern of your own, for masks."),
    key("mask", Form::Tables(&MASK), "What nobody may see."),
    key("rows", Form::Tables(&ROWS), "Which rows of a table there are for a caller."),
    key("test", Form::Tables(&TEST), "A command, and what the rules must say to it."),
    key("retention", Form::Tables(&RETENTION), "How long recordings are kept."),
]);

const SECRET_PLACE: Section = Section {
    one_of: &["env", "file", "command"],
    ..section(&[
        key("env", Form::Text, "The environment variable of the gateway that holds it."),
        key("file", Form::Path, "The file that holds it."),
        key("command", TEXTS, "A program and its arguments, whose standard output is the secret."),
        key("pass_env", Form::List(&Form::Text, 0), "Environment variables that the command gets."),
    ])
};
