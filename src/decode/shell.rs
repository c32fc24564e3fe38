//! A command line for a remote shell, understood as far as that can be certain.
//!
//! sshd hands the line to the account's login shell, whatever that is, so what a line does is what
//! a shell makes of it: quotes, expansions, aliases, `eval`. There are a thousand ways to write
//! `rm`, and a list of forbidden words is no control. What is certain is a small grammar that every
//! shell reads alike: a line is *simple* when it is words apart from each other by spaces, each
//! word made of harmless characters, or of harmless characters and spaces between two quotes, and
//! its program is none that runs another program which the line names (`runners`). Only
//! of a simple line are program and arguments told (`program:/usr/bin/id`, `argv`). Of every other
//! line the program is not known (`program:?`): a rule that blocks could mean it, a rule that
//! allows never does.
//!
//! Limits: which file a program without a path is, the target's PATH, aliases and functions say;
//! what a program does with its input is its own, and which programs run others is a list. Allow
//! programs by their path, one by one, and no interpreters.

mod runners;

use std::borrow::Cow;

use serde_json::Value;

use crate::policy::{Attributes, Command, Effect, Object};

use super::sftp::path;

/// Words of a simple line; a longer one is not understood.
const MAX_WORDS: usize = 4_096;

/// A command line as policy decides it.
pub fn exec(line: &[u8]) -> Command {
    let text = String::from_utf8_lossy(line);
    let words = std::str::from_utf8(line).ok().and_then(words);
    let words = words.filter(|words| !runners::runs_another(words));
    let mut effects = Vec::with_capacity(2);
    let mut effect = match &words {
        Some(words) => {
            let program = words.first().cloned().unwrap_or_default();
            Effect::on("ssh.exec", Object::named("program", program))
        }
        None => Effect::on("ssh.exec", Object::new("program", [None])),
    };
    attribute(&mut effect.attributes, "simple", words.is_some());
    if let Some(words) = &words {
        attribute(&mut effect.attributes, "argv", words.clone());
    }
    effects.push(effect);
    effects.extend(transfers(&text, words.as_deref()));
    Command {
        form: Cow::Borrowed("exec"),
        text: text.into_owned(),
        attributes: Attributes::new(),
        effects,
    }
}

/// The words of a simple line; none when there is anything in it that a shell could take for more
/// than a word.
pub fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_matches(' ');
    while !rest.is_empty() {
        let (word, after) = match rest.chars().next() {
            // The program's name is not quoted: a quoted one is meant to hide something.
            Some(quote @ ('\'' | '"')) if !words.is_empty() => quoted(rest, quote)?,
            _ => bare(rest)?,
        };
        if words.len() == MAX_WORDS {
            return None;
        }
        words.push(word.to_owned());
        // A word ends where a space stands, or the line ends.
        match after.strip_prefix(' ') {
            Some(next) => rest = next.trim_start_matches(' '),
            None if after.is_empty() => rest = after,
            None => return None,
        }
    }
    // `NAME=value` in front would set a variable, `=name` is a path to zsh.
    let program = words.first()?;
    let assigns = program.contains('=') || words.iter().any(|word| word.starts_with('='));
    (!assigns && names_one_file(program)).then_some(words)
}

/// Whether a program's path is written in one way: `/usr/bin/../../tmp/x` is in no folder that it names.
fn names_one_file(program: &str) -> bool {
    let mut parts = program.strip_prefix('/').unwrap_or(program).split('/');
    match program.starts_with('/') {
        true => parts.all(|part| !matches!(part, "" | "." | "..")),
        false => parts.all(|part| !matches!(part, "" | "..")),
    }
}

fn bare(rest: &str) -> Option<(&str, &str)> {
    let end = rest.find(' ').unwrap_or(rest.len());
    let (word, after) = rest.split_at_checked(end)?;
    word.chars().all(harmless).then_some((word, after))
}

fn quoted(rest: &str, quote: char) -> Option<(&str, &str)> {
    let (word, after) = rest.strip_prefix(quote)?.split_once(quote)?;
    word.chars().all(|c| c == ' ' || harmless(c)).then_some((word, after))
}

/// Characters that no shell takes for anything but themselves.
fn harmless(c: char) -> bool {
    c.is_ascii_alphanumeric()
        || matches!(c, '_' | '-' | '.' | '/' | ',' | ':' | '+' | '@' | '%' | '=')
}

/// What a line that moves files does to them: scp's own protocol, rsync, git, an sftp server, and
/// the first two as clients, which copy from anywhere to anywhere. These names are recognised
/// wherever the line begins with them, simple or not.
fn transfers(line: &str, words: Option<&[String]>) -> Vec<Effect> {
    let mut split = line.split_whitespace();
    let first = split.next().unwrap_or_default();
    let program = first.rsplit('/').next().unwrap_or(first);
    let split: Vec<&str> = split.collect();
    let flags = |wanted: char| {
        split
            .iter()
            .any(|word| word.starts_with('-') && !word.starts_with("--") && word.contains(wanted))
    };
    let (action, via) = match program {
        "scp" if flags('t') => ("sftp.write", "scp"),
        "scp" if flags('f') => ("sftp.read", "scp"),
        "rsync" if split.contains(&"--server") => match split.contains(&"--sender") {
            true => ("sftp.read", "rsync"),
            false => ("sftp.write", "rsync"),
        },
        "scp" => return copies("scp", words),
        "rsync" => return copies("rsync", words),
        "sftp-server" | "internal-sftp" => {
            let actions = ["sftp.read", "sftp.write", "sftp.remove"];
            return actions.map(|action| moved(action, None, "sftp-server")).into();
        }
        "git-upload-pack" | "git-upload-archive" => ("sftp.read", "git"),
        "git-receive-pack" => ("sftp.write", "git"),
        "git" if split.iter().any(|word| ["upload-pack", "upload-archive"].contains(word)) => {
            ("sftp.read", "git")
        }
        "git" if split.contains(&"receive-pack") => ("sftp.write", "git"),
        _ => return Vec::new(),
    };
    // Which files is said within the stream, and of several or of folders not even in the line.
    // Only a single file that is read by its whole path is certain.
    let single = match (words, via, action) {
        (Some([_, options @ .., file]), "scp", "sftp.read") => options
            .iter()
            .all(|option| option.starts_with('-') && !option.contains('r'))
            .then(|| path(file.as_bytes(), None))
            .flatten(),
        _ => None,
    };
    vec![moved(action, single, via)]
}

/// A copy that is made on the target: of two plain files named by their whole paths both are
/// certain.
fn copies(via: &'static str, words: Option<&[String]>) -> Vec<Effect> {
    let local = |word: &String| path(word.as_bytes(), None).filter(|_| !word.contains(':'));
    let known = match words {
        // A folder that is copied into, or out of, names no file.
        Some([_, from, to]) if !from.ends_with('/') && !to.ends_with('/') => {
            local(from).zip(local(to))
        }
        _ => None,
    };
    let (from, to) = known.unzip();
    vec![moved("sftp.read", from, via), moved("sftp.write", to, via)]
}

fn moved(action: &'static str, file: Option<String>, via: &'static str) -> Effect {
    let mut effect = Effect::on(action, Object::new("file", [file]));
    attribute(&mut effect.attributes, "via", via);
    effect
}

fn attribute(attributes: &mut Attributes, name: &'static str, value: impl Into<Value>) {
    attributes.insert(Cow::Borrowed(name), value.into());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_apart_by_spaces_are_simple() {
        for (line, argv) in [
            ("id", &["id"][..]),
            ("  /bin/ls   -la /var/log/app ", &["/bin/ls", "-la", "/var/log/app"]),
            ("grep 'not found' \"a file\" ''", &["grep", "not found", "a file", ""]),
            ("dd if=/dev/zero of=x bs=1k", &["dd", "if=/dev/zero", "of=x", "bs=1k"]),
        ] {
            assert_eq!(words(line).unwrap(), argv, "{line}");
        }
    }

    #[test]
    fn whatever_a_shell_could_read_more_into_is_not_simple() {
        for line in [
            "",
            "   ",
            "a;b",
            "a & b",
            "a | b",
            "a `b`",
            "a $b",
            "a (b)",
            "a <b",
            "a >b",
            "a\nb",
            "a\tb",
            "/usr/bin/../../tmp/x",
            "/usr/bin/./x",
            "/usr//bin/x",
            "/usr/bin/ls/",
            "bin/../x",
            "a *",
            "a ?",
            "a [b]",
            "a {b,c}",
            "a ~",
            "a #b",
            "a !b",
            "a \\b",
            "a ^b",
            "r\"\"m x",
            "'rm' x",
            "\"rm\" x",
            "a 'b",
            "a 'b'c",
            "a b'c'",
            "a '$b'",
            "a 'b'\"c\"",
            "LD_PRELOAD=/tmp/x.so id",
            "a =b",
            "a \u{e4}",
            "a \0",
        ] {
            assert_eq!(words(line), None, "{line:?}");
        }
        assert!(exec(b"id \xff").effects[0].object.as_ref().unwrap().name().is_none());
    }

    #[test]
    fn transfers_are_recognised_by_what_they_do_to_files() {
        for (line, effect) in [
            ("scp -t /srv/in", "sftp.write file:?"),
            ("scp -f /etc/hostname", "sftp.read file:/etc/hostname"),
            ("scp -p -f /etc/hostname", "sftp.read file:/etc/hostname"),
            ("scp -r -f /etc", "sftp.read file:?"),
            ("scp -f hostname", "sftp.read file:?"),
            ("scp -f /etc/../etc/shadow", "sftp.read file:?"),
            ("/usr/bin/scp -v -t -- 'a b'", "sftp.write file:?"),
            ("rsync --server -logDtpre.iLsfxCIvu . /srv", "sftp.write file:?"),
            ("rsync --server --sender -logDtpre.iLsfxCIvu . /srv", "sftp.read file:?"),
            ("git-upload-pack '/srv/x.git'", "sftp.read file:?"),
            ("git-receive-pack '/srv/x.git'", "sftp.write file:?"),
        ] {
            let command = exec(line.as_bytes());
            let effects: Vec<String> = command
                .effects
                .iter()
                .map(|effect| format!("{} {}", effect.action, effect.object.as_ref().unwrap()))
                .collect();
            assert_eq!(effects[1..], [effect], "{line}");
        }
        assert_eq!(exec(b"ls -t /srv").effects.len(), 1);
        let of = |line: &str| {
            let effects = exec(line.as_bytes()).effects;
            let words = |e: &Effect| format!("{} {}", e.action, e.object.as_ref().unwrap());
            effects[1..].iter().map(words).collect::<Vec<_>>()
        };
        let unknown = ["sftp.read file:?", "sftp.write file:?"];
        assert_eq!(of("scp /priv/a /pub/b"), ["sftp.read file:/priv/a", "sftp.write file:/pub/b"]);
        assert_eq!(of("scp -r /priv /pub"), unknown);
        assert_eq!(of("scp host:/priv /pub"), unknown);
        assert_eq!(of("rsync -a /priv/ /pub/"), unknown);
        assert_eq!(of("rsync x y -- --server"), ["sftp.write file:?"]);
        assert_eq!(of("scp"), unknown);
        assert_eq!(of("/usr/lib/openssh/sftp-server").len(), 3);
        assert_eq!(of("git upload-pack /srv/x.git"), ["sftp.read file:?"]);
    }

    proptest! {
        #[test]
        fn a_simple_line_written_again_from_its_words_is_the_same(line in "[ -~]{0,60}") {
            if let Some(first) = words(&line) {
                let again: Vec<String> = first
                    .iter()
                    .map(|word| if word.is_empty() || word.contains(' ') { format!("'{word}'") } else { word.clone() })
                    .collect();
                prop_assert_eq!(words(&again.join(" ")).unwrap(), first);
            }
        }

        #[test]
        fn any_bytes_are_some_command(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let command = exec(&line);
            prop_assert_eq!(&*command.effects[0].action, "ssh.exec");
        }
    }
}
