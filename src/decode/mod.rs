//! Bytes of the protocols, understood: pure functions that sessions, policy tools, replay and
//! tests share. No I/O, and no state beyond what a caller hands in.

pub mod http;
pub mod postgres;
pub mod sftp;
pub mod shell;
pub mod sql;
pub mod ssh;

use std::sync::LazyLock;

use crate::names::Protocol;
use crate::policy::{Command, Vocabulary};

/// Reads a command that somebody wrote down, as sessions of the protocol read theirs: SQL, a
/// command line, or a method and a path.
///
/// # Errors
/// When it cannot be one, with what it should look like.
pub fn command(protocol: Protocol, text: &str) -> Result<Command, String> {
    match protocol {
        Protocol::Postgres => Ok(postgres::command::of_text(text)),
        Protocol::Ssh => Ok(shell::exec(text.as_bytes())),
        Protocol::Http => http::dialects::plain().read_text(text),
    }
}

/// Why a command that somebody wrote down is not understood, if so: the parser's words, and where it
/// stumbles.
pub fn misunderstood(protocol: Protocol, text: &str) -> Option<String> {
    match protocol {
        Protocol::Postgres => postgres::command::misunderstood(text),
        Protocol::Ssh | Protocol::Http => None,
    }
}

/// The words that rules can use of commands.
pub fn vocabulary() -> Vocabulary<'static> {
    static WORDS: LazyLock<Words> = LazyLock::new(|| Words {
        actions: sql::ACTIONS
            .iter()
            .map(|(action, _)| *action)
            .chain(ssh::ACTIONS.iter().copied())
            .chain(http::METHODS.iter().map(|(_, action)| *action))
            .chain(
                http::dialects::ALL
                    .iter()
                    .flat_map(|(_, dialect)| dialect.words().actions)
                    .copied(),
            )
            .collect(),
        kinds: sql::KINDS
            .iter()
            .chain(ssh::KINDS)
            .chain(&["path"])
            .chain(http::dialects::ALL.iter().flat_map(|(_, dialect)| dialect.words().kinds))
            .copied()
            .collect(),
        attributes: sql::ATTRIBUTES
            .iter()
            .chain(ssh::EFFECT_ATTRIBUTES)
            .chain(http::command::ATTRIBUTES)
            .chain(http::dialects::ALL.iter().flat_map(|(_, dialect)| dialect.words().attributes))
            .map(|name| format!("effect.{name}").leak() as &str)
            .chain(
                postgres::command::ATTRIBUTES
                    .iter()
                    .chain(ssh::ATTRIBUTES)
                    .map(|n| format!("command.{n}").leak() as &str),
            )
            .collect(),
        only_by_rule: ssh::ONLY_BY_RULE
            .iter()
            .chain(sql::OPAQUE_ACTIONS)
            .chain(sql::OPAQUE_ON_CODE)
            .copied()
            .collect(),
    });
    Vocabulary {
        actions: &WORDS.actions,
        kinds: &WORDS.kinds,
        attributes: &WORDS.attributes,
        open: OPEN,
        only_by_rule: &WORDS.only_by_rule,
    }
}

struct Words {
    actions: Vec<&'static str>,
    kinds: Vec<&'static str>,
    attributes: Vec<&'static str>,
    only_by_rule: Vec<&'static str>,
}

/// Protocols whose words are not all listed.
const OPEN: &[&str] = &[];
