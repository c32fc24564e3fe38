//! Startup parameters: what the gateway takes from them for itself, and which settings may be asked
//! for. Whether a setting is allowed is decided like the SET that it is: [`super::settings`].

use crate::decode::postgres::startup::Startup;
use crate::decode::sql::is_utf8;
use crate::names::TargetName;

use super::refusal::Refusal;

/// Settings that any client gives, in lower case, and that harm nobody: a rule may refuse them by
/// name, the target's default does not. Nothing here changes how the server reads SQL text, whose
/// rights it uses, what it loads, or what it logs.
const HARMLESS: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
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

/// What a startup message can set and no SET in a session does: these load code, write to the
/// server's log or hold a connection up. And what is no setting.
const NEVER: &[&str] = &[
    "database",
    "ignore_system_indexes",
    "jit_debugging_support",
    "jit_profiling_support",
    "local_preload_libraries",
    "log_connections",
    "log_disconnections",
    "options",
    "post_auth_delay",
    "pre_auth_delay",
    "replication",
    "session_preload_libraries",
    "user",
];

/// Encodings that are plain ASCII where a client writes ASCII, by the letters and digits of their
/// names: a session in UTF-8 stands for them. In the others, of East Asia, a second byte may look
/// like a quote or a backslash. Source: `pg_encname_tbl` in PostgreSQL's `encnames.c`.
const ASCII_LIKE: &[&str] = &[
    "abc",
    "alt",
    "euccn",
    "eucjis2004",
    "eucjp",
    "euckr",
    "euctw",
    "iso88591",
    "iso885910",
    "iso885913",
    "iso885914",
    "iso885915",
    "iso885916",
    "iso88592",
    "iso88593",
    "iso88594",
    "iso88595",
    "iso88596",
    "iso88597",
    "iso88598",
    "iso88599",
    "koi8",
    "koi8r",
    "koi8u",
    "latin1",
    "latin10",
    "latin2",
    "latin3",
    "latin4",
    "latin5",
    "latin6",
    "latin7",
    "latin8",
    "latin9",
    "muleinternal",
    "sqlascii",
    "tcvn",
    "tcvn5712",
    "vscii",
    "win",
    "win1250",
    "win1251",
    "win1252",
    "win1253",
    "win1254",
    "win1255",
    "win1256",
    "win1257",
    "win1258",
    "win866",
    "win874",
    "windows1250",
    "windows1251",
    "windows1252",
    "windows1253",
    "windows1254",
    "windows1255",
    "windows1256",
    "windows1257",
    "windows1258",
    "windows866",
    "windows874",
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
    /// The encoding that the client asked for, when it is told that the session runs in UTF-8.
    pub(super) other_encoding: Option<String>,
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
            other_encoding: None,
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
            "client_encoding" => return self.encoding(value),
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
            never
                if NEVER.contains(&never)
                    || never.starts_with("_pq_.")
                    || !is_setting_name(never) =>
            {
                return Err(Refusal::Parameter(name.chars().take(63).collect()));
            }
            _ => self.settings.push((lower, value.to_owned())),
        }
        Ok(())
    }

    /// The session runs in UTF-8 whatever is asked for; the server tells the client so.
    fn encoding(&mut self, value: &str) -> Result<(), Refusal> {
        if is_utf8(value) {
            return Ok(());
        }
        let name: String = value.chars().filter(char::is_ascii_alphanumeric).collect();
        let name = name.to_ascii_lowercase();
        if !ASCII_LIKE.contains(&name.as_str()) {
            return Err(Refusal::Encoding(value.chars().take(63).collect()));
        }
        // "No encoding" is what a client asks for that does not care: LC_ALL=C.
        self.other_encoding = (name != "sqlascii").then(|| name.to_ascii_uppercase());
        Ok(())
    }

    /// Settings as they may be stored: what an application sets may be a secret.
    pub(super) fn stored(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.settings.iter().map(|(name, value)| {
            let shown = if is_harmless(name) { value } else { "?" };
            (name.clone(), shown.to_owned())
        })
    }
}

/// Whether only a rule that names a setting refuses it.
pub(super) fn is_harmless(name: &str) -> bool {
    HARMLESS.contains(&name)
}

/// Whether a setting can have this name: words of letters, digits, `_` and `$`, with full stops
/// between them. Anything else would be judged as another name than the server reads.
fn is_setting_name(name: &str) -> bool {
    name.split('.').all(|word| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_$".contains(&b))
    })
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
    fn what_no_session_can_set_never_reaches_the_target() {
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
            ("Local_Preload_Libraries", "x"),
            ("options", "-c user=admin"),
            ("options", "-creplication=database"),
            ("options", "--database=other"),
            ("options", "-c _pq_.x=y"),
            ("options", "--log-connections=off"),
            ("options", "-f -c jit=off"),
            ("options", "-c"),
            ("options", r"-c\ role=admin"),
            ("jit ", "off"),
            ("a..b", "x"),
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
        for value in ["SJIS", "", "utf16", "GB18030", "big5"] {
            let refused = Err(Refusal::Encoding(value.to_owned()));
            assert_eq!(read(&[("client_encoding", value)]), refused, "{value}");
        }
    }

    #[test]
    fn a_session_in_utf8_stands_for_what_is_ascii_where_ascii_is() {
        for (value, other) in [
            ("SQL_ASCII", None),
            ("'Unicode'", None),
            ("LATIN1", Some("LATIN1")),
            ("iso-8859-1", Some("ISO88591")),
            ("WIN1252", Some("WIN1252")),
            ("EUC_JP", Some("EUCJP")),
        ] {
            let wanted = read(&[("client_encoding", value)]).unwrap();
            assert_eq!(wanted.other_encoding.as_deref(), other, "{value}");
            assert_eq!(wanted.settings, [("client_encoding".to_owned(), "UTF8".to_owned())]);
        }
    }

    #[test]
    fn what_an_application_sets_is_not_stored() {
        let wanted = read(&[("app.jwt", "SECRET"), ("TimeZone", "UTC")]).unwrap();
        let stored: Vec<_> = wanted.stored().skip(1).collect();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(stored, [pair("app.jwt", "?"), pair("timezone", "UTC")]);
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
                    prop_assert!(!NEVER.contains(&name.as_str()), "{}", name);
                }
            }
        }
    }
}
