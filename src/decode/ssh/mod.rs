//! SSH's connection protocol (RFC 4254), as far as policy and recordings are about it: commands
//! that are no lines for a shell, environment variables that may pass, the form in which channels
//! stand in a recording ([`message`]), and lines that were typed ([`lines`]).

pub mod lines;
pub mod message;

use std::borrow::Cow;

use crate::policy::{Attributes, Command, Effect, Object};

/// The actions of effects, here and in [`super::shell`] and [`super::sftp`].
pub const ACTIONS: &[&str] = &[
    "ssh.exec",
    "ssh.shell",
    "ssh.subsystem",
    "ssh.forward",
    "sftp.read",
    "sftp.write",
    "sftp.remove",
    "sftp.list",
    "sftp.stat",
];
/// Of these, those that only a rule lets pass, whatever the target allows by default.
pub const ONLY_BY_RULE: &[&str] = &["ssh.forward"];
/// The kinds of objects.
pub const KINDS: &[&str] = &["file", "forward", "program", "subsystem"];
/// The attributes of effects.
pub const EFFECT_ATTRIBUTES: &[&str] =
    &["argv", "below", "direction", "operation", "simple", "via"];
/// The attributes of commands.
pub const ATTRIBUTES: &[&str] = &["channel", "env", "mode", "pty"];

/// An interactive shell. What is typed into it is recorded and not decided.
pub fn shell() -> Command {
    command("shell", String::new(), Effect::of("ssh.shell"))
}

/// A subsystem: `sftp`, mostly, whose operations are decided one by one.
pub fn subsystem(name: &str) -> Command {
    let effect = Effect::on("ssh.subsystem", Object::named("subsystem", name));
    command("subsystem", name.to_owned(), effect)
}

/// What is asked to be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward<'a> {
    /// A connection from the target to a host and port (`ssh -L`, `ssh -W`).
    Local {
        /// The host, as the client names it.
        host: &'a str,
        /// The port.
        port: u32,
    },
    /// A port of the target, whose connections come back (`ssh -R`).
    Remote {
        /// The address that it would listen on.
        host: &'a str,
        /// The port; 0 is any.
        port: u32,
    },
    /// A connection from the target to a Unix socket.
    LocalSocket(&'a str),
    /// A Unix socket of the target, whose connections come back.
    RemoteSocket(&'a str),
    /// The client's agent, with its keys.
    Agent,
    /// The client's X11 display.
    X11,
}

impl Forward<'_> {
    /// It as a command, which only a rule that allows it lets pass.
    pub fn command(self) -> Command {
        let (direction, name) = match self {
            Self::Local { host, port } => ("local", format!("{host}:{port}")),
            Self::Remote { host, port } => ("remote", format!("{host}:{port}")),
            Self::LocalSocket(path) => ("local", path.to_owned()),
            Self::RemoteSocket(path) => ("remote", path.to_owned()),
            Self::Agent => ("agent", "agent".to_owned()),
            Self::X11 => ("x11", "x11".to_owned()),
        };
        let mut effect = Effect::on("ssh.forward", Object::named("forward", name.clone()));
        effect.attributes.insert(Cow::Borrowed("direction"), direction.into());
        effect.only_by_rule = true;
        command("forward", format!("{direction} {name}"), effect)
    }
}

fn command(form: &'static str, text: String, effect: Effect) -> Command {
    Command {
        form: Cow::Borrowed(form),
        text,
        attributes: Attributes::new(),
        effects: vec![effect],
    }
}

/// Locale variables, which programs read as names of locales.
const LOCALE: &[&str] = &[
    "LANG",
    "LANGUAGE",
    "LC_ADDRESS",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MEASUREMENT",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TELEPHONE",
    "LC_TIME",
];
/// The longest value that passes.
const MAX_VALUE: usize = 64;

/// Whether an environment variable may pass: those whose values cannot make another program of an
/// allowed one, with a value of a small grammar.
pub fn may_pass(name: &str, value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '@' | ':');
    match name {
        "GIT_PROTOCOL" => matches!(value, "version=0" | "version=1" | "version=2"),
        _ => LOCALE.contains(&name) && value.len() <= MAX_VALUE && value.chars().all(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_variables_pass() {
        for (name, value) in [
            ("LANG", "de_DE.UTF-8"),
            ("LC_ALL", "C"),
            ("LC_TIME", ""),
            ("GIT_PROTOCOL", "version=2"),
        ] {
            assert!(may_pass(name, value), "{name}");
        }
        for (name, value) in [
            ("LD_PRELOAD", "/tmp/x.so"),
            ("BASH_ENV", "x"),
            ("PATH", "/tmp"),
            ("LC_ANYTHING", "x"),
            ("LC_ALL", "$(id)"),
            ("LC_ALL", "../../tmp/evil"),
            ("LANG", "() { :; }"),
            ("GIT_PROTOCOL", "version=2:x"),
            ("lang", "C"),
        ] {
            assert!(!may_pass(name, value), "{name}={value}");
        }
        assert!(!may_pass("LANG", &"a".repeat(65)));
    }

    #[test]
    fn a_forward_names_where_it_leads() {
        let command = Forward::Local { host: "10.0.0.5", port: 80 }.command();
        assert_eq!(command.effects[0].object.as_ref().unwrap().to_string(), "forward:10.0.0.5:80");
        assert_eq!(command.effects[0].attributes["direction"], "local");
    }
}
