//! Startup parameters: an allow-list, and what the gateway takes from them for itself.

use crate::decode::postgres::startup::Startup;
use crate::names::TargetName;

use super::refusal::Refusal;

/// Settings that a client may give at startup, in lower case. Nothing here changes how the server
/// reads SQL text, whose rights it uses, what it loads, or what it logs.
const ALLOWED: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_min_messages",
    "datestyle",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "intervalstyle",
    "jit",
    "lock_timeout",
    "search_path",
    "statement_timeout",
    "timezone",
    "work_mem",
];

/// The longest workflow or run name that is kept, in bytes.
const MAX_NAME: usize = 200;

/// What a startup message asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The target, when the database names one.
    pub(super) target: Option<TargetName>,
    /// The database within the target, when one is named.
    pub(super) database: Option<String>,
    /// The whole database name as the client gave it, for log and recording.
    pub(super) named: String,
    /// What goes to the target, `client_encoding` included.
    pub(super) settings: Vec<(String, String)>,
    /// The workflow that the client says it is.
    pub(super) workflow: Option<String>,
    /// The run that the client says it is.
    pub(super) run: Option<String>,
    /// Protocol options (`_pq_.…`) that are not spoken.
    pub(super) unknown_options: Vec<String>,
}

impl Wanted {
    /// Reads the parameters of a startup message.
    pub(super) fn read(startup: &Startup<'_>) -> Result<Self, Refusal> {
        // A token that a client put in the wrong place must neither go up nor be recorded.
        if startup.parameters.iter().any(|(_, value)| holds_token(value)) {
            return Err(Refusal::AccessDenied);
        }
        let user = startup.parameter("user").unwrap_or_default();
        let named = startup.parameter("database").filter(|d| !d.is_empty()).unwrap_or(user);
        let (target, database) = match named.split_once('/') {
            Some((target, database)) => (target, Some(database.to_owned())),
            None => (named, None),
        };
        let mut wanted = Self {
            target: target.parse().ok(),
            database,
            named: named.chars().take(63).collect(),
            settings: vec![("client_encoding".to_owned(), "UTF8".to_owned())],
            workflow: None,
            run: None,
            unknown_options: Vec::new(),
        };
        for (name, value) in &startup.parameters {
            match *name {
                "user" | "database" => {}
                "replication" if is_off(value) => {}
                "replication" => return Err(Refusal::Replication),
                "options" => {
                    for (name, value) in options(value)? {
                        wanted.set(&name, &value)?;
                    }
                }
                name if name.starts_with("_pq_.") => wanted.unknown_options.push(name.to_owned()),
                name => wanted.set(name, value)?,
            }
        }
        Ok(wanted)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Refusal> {
        let lower = name.to_ascii_lowercase();
        match lower.as_str() {
            "client_encoding" if is_utf8(value) => return Ok(()),
            "client_encoding" => return Err(Refusal::Encoding),
            "portcullis.workflow" => self.workflow = some_name(value),
            "portcullis.run" => self.run = some_name(value),
            "application_name" => {
                if let Some(rest) = value.strip_prefix("portcullis:") {
                    let (workflow, run) = rest.split_once('/').unwrap_or((rest, ""));
                    self.workflow = self.workflow.take().or_else(|| some_name(workflow));
                    self.run = self.run.take().or_else(|| some_name(run));
                }
                self.settings.push((lower, value.to_owned()));
            }
            listed if ALLOWED.contains(&listed) => self.settings.push((lower, value.to_owned())),
            _ => return Err(Refusal::Parameter(name.chars().take(63).collect())),
        }
        Ok(())
    }
}

/// Whether a text holds what looks like a JWT: base64url of `{"` and two full stops behind it.
fn holds_token(text: &str) -> bool {
    text.match_indices("eyJ")
        .filter_map(|(at, _)| text.get(at..))
        .any(|rest| rest.len() > 40 && rest.split('.').count() > 2)
}

fn some_name(value: &str) -> Option<String> {
    let name: String = value.chars().filter(|c| !c.is_control()).collect();
    (!name.is_empty() && name.len() <= MAX_NAME).then_some(name)
}

fn is_off(value: &str) -> bool {
    ["false", "off", "no", "0"].iter().any(|off| value.eq_ignore_ascii_case(off))
}

/// The spellings of UTF-8 that PostgreSQL takes: it looks at letters and digits only.
fn is_utf8(value: &str) -> bool {
    let plain: String = value
        .trim_matches(['\'', '"'])
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .collect();
    plain == "utf8" || plain == "unicode"
}

/// Reads the command-line options that libpq's `options` brings: `-c name=value` and
/// `--name=value`, split at white space that no backslash protects, as the server does
/// (`pg_split_opts`). Every other option is refused.
fn options(text: &str) -> Result<Vec<(String, String)>, Refusal> {
    let refused = |option: &str| Refusal::Parameter(format!("options {option}"));
    let mut words = split(text).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("--") {
            Some(assignment) => assignment.to_owned(),
            None => match word.strip_prefix("-c") {
                Some("") => words.next().ok_or_else(|| refused("-c"))?,
                Some(assignment) => assignment.to_owned(),
                None => return Err(refused(&word.chars().take(40).collect::<String>())),
            },
        };
        let (name, value) = assignment.split_once('=').ok_or_else(|| refused("without a value"))?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => {
                let word = word.get_or_insert_default();
                word.extend(characters.next());
            }
            c if c.is_ascii_whitespace() || c == '\x0b' => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(parameters: &[(&str, &str)]) -> Result<Wanted, Refusal> {
        Wanted::read(&Startup { minor: 0, parameters: parameters.to_vec() })
    }

    #[test]
    fn the_database_names_the_target() {
        let wanted = read(&[("user", "x"), ("database", "orders/reporting")]).unwrap();
        assert_eq!(wanted.target, "orders".parse().ok());
        assert_eq!(wanted.database.as_deref(), Some("reporting"));
        let wanted = read(&[("user", "orders")]).unwrap();
        assert_eq!((wanted.target, wanted.database), ("orders".parse().ok(), None));
        assert_eq!(read(&[("user", "x"), ("database", "No Target")]).unwrap().target, None);
    }

    #[test]
    fn only_listed_parameters_reach_the_target() {
        let wanted = read(&[
            ("user", "x"),
            ("DateStyle", "ISO"),
            ("client_encoding", "utf-8"),
            ("options", r"-c statement_timeout=5s --search-path=a\ b -cjit=off"),
        ]);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            wanted.unwrap().settings,
            [
                pair("client_encoding", "UTF8"),
                pair("datestyle", "ISO"),
                pair("statement_timeout", "5s"),
                pair("search_path", "a b"),
                pair("jit", "off"),
            ]
        );
        for (name, value) in [
            ("session_preload_libraries", "x"),
            ("standard_conforming_strings", "off"),
            ("backslash_quote", "on"),
            ("role", "admin"),
            ("session_authorization", "admin"),
            ("row_security", "off"),
            ("options", "-c role=admin"),
            ("options", "-crole=admin"),
            ("options", "--role=admin"),
            ("options", "-f -c jit=off"),
            ("options", "-c"),
            ("options", r"-c\ role=admin"),
        ] {
            let refused = read(&[("user", "x"), (name, value)]);
            assert!(matches!(refused, Err(Refusal::Parameter(_))), "{name} {value}: {refused:?}");
        }
    }

    #[test]
    fn replication_and_other_encodings_are_refused() {
        for value in ["true", "on", "database", "1", "yes"] {
            assert_eq!(read(&[("replication", value)]), Err(Refusal::Replication));
        }
        assert!(read(&[("replication", "false")]).is_ok());
        for value in ["LATIN1", "SQL_ASCII", "", "utf16"] {
            assert_eq!(read(&[("client_encoding", value)]), Err(Refusal::Encoding), "{value}");
        }
    }

    #[test]
    fn workflow_and_run_are_taken_from_the_client() {
        let wanted = read(&[("application_name", "portcullis:billing/run-7")]).unwrap();
        assert_eq!(
            (wanted.workflow.as_deref(), wanted.run.as_deref()),
            (Some("billing"), Some("run-7"))
        );
        let wanted = read(&[("options", "-c portcullis.workflow=w -c portcullis.run=r")]).unwrap();
        assert_eq!((wanted.workflow.as_deref(), wanted.run.as_deref()), (Some("w"), Some("r")));
        assert_eq!(wanted.settings.len(), 1, "they are not forwarded");
    }

    proptest! {
        #[test]
        fn no_options_smuggle_a_setting(text in "[-c=a-z \\\\\t]{0,40}") {
            if let Ok(wanted) = read(&[("options", &text)]) {
                for (name, _) in wanted.settings {
                    prop_assert!(name == "client_encoding" || ALLOWED.contains(&name.as_str()));
                }
            }
        }
    }
}
