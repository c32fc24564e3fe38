//! What README.md and docs/ say can be followed: links lead somewhere, commands and options are there.
//!
//! `followed` types the lines that pages show; here a name that has gone fails, also in prose.

mod followed;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use regex::Regex;

use crate::support::daemon::PORTCULLIS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and every page of docs/, with their texts.
fn pages() -> Vec<(PathBuf, String)> {
    let folder = fs::read_dir(root().join("docs")).unwrap();
    let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "md"));
    files.push(root().join("README.md"));
    files.push(root().join("CHANGELOG.md"));
    files.sort();
    assert!(files.len() > 10, "{files:?}");
    files.into_iter().map(|file| (file.clone(), fs::read_to_string(file).unwrap())).collect()
}

/// The lines of a page outside its blocks of code, and those within.
fn prose_and_code(text: &str) -> (Vec<&str>, Vec<&str>) {
    let mut within = false;
    let (mut prose, mut code) = (Vec::new(), Vec::new());
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            within = !within;
        } else if within {
            code.push(line);
        } else {
            prose.push(line);
        }
    }
    assert!(!within, "a block of code has no end");
    (prose, code)
}

/// A page's anchors, as GitHub makes them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in prose_and_code(text).0 {
        let heading = line.trim_start_matches('#');
        if heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = heading.trim().to_lowercase();
        let anchor: String = kept
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let again = (1..).map(|n| format!("{anchor}-{n}")).find(|other| !found.contains(other));
        found.insert(if found.contains(&anchor) { again.unwrap() } else { anchor });
    }
    found
}

#[test]
fn every_link_leads_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let (mut wrong, mut links) = (Vec::new(), 0);
    for (file, text) in pages() {
        for line in prose_and_code(&text).0 {
            for found in link.captures_iter(line) {
                let target = &found[1];
                if target.contains("://") {
                    continue;
                }
                links += 1;
                let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
                let place = if path.is_empty() { file.clone() } else { file.with_file_name(path) };
                let there = match fs::read_to_string(&place) {
                    Ok(text) => anchor.is_empty() || anchors(&text).contains(anchor),
                    // A folder, or a picture.
                    Err(_) => place.exists() && anchor.is_empty(),
                };
                if !there {
                    wrong.push(format!("{}: {target}", file.display()));
                }
            }
        }
    }
    assert!(links > 50, "only {links} links were found");
    assert!(wrong.is_empty(), "dead links:\n{}", wrong.join("\n"));
}

#[test]
fn the_index_names_every_page() {
    let index = fs::read_to_string(root().join("docs/README.md")).unwrap();
    for (file, _) in pages() {
        let name = file.file_name().unwrap().to_str().unwrap();
        let is_other = file.parent() == Some(root()) || name == "README.md";
        assert!(is_other || index.contains(&format!("]({name})")), "docs/README.md lacks {name}");
    }
}

/// What `--help` says of a command.
#[derive(Default)]
struct Help {
    commands: BTreeSet<String>,
    options: BTreeSet<String>,
}

/// The command line as `--help` tells it, asked once for each command.
#[derive(Default)]
struct CommandLine(BTreeMap<Vec<String>, Help>);

impl CommandLine {
    fn help(&mut self, command: &[String]) -> &Help {
        self.0.entry(command.to_vec()).or_insert_with(|| {
            let output = Command::new(PORTCULLIS).args(command).arg("--help").output().unwrap();
            assert!(output.status.success(), "portcullis {command:?} --help");
            let text = String::from_utf8(output.stdout).unwrap();
            let mut help = Help::default();
            let mut is_command = false;
            for line in text.lines() {
                if !line.starts_with(' ') {
                    is_command = line == "Commands:";
                } else if is_command && line.starts_with("  ") && !line.starts_with("   ") {
                    help.commands.extend(line.split_whitespace().next().map(str::to_owned));
                } else if line.trim_start().starts_with('-') {
                    let names = line.split([' ', ',', '=']).filter(|w| w.starts_with("--"));
                    help.options.extend(names.map(str::to_owned));
                }
            }
            help
        })
    }

    /// What is wrong with the words behind `portcullis`.
    fn complaint(&mut self, words: &str) -> Option<String> {
        let mut command = Vec::new();
        let mut may_go_on = true;
        for word in words.split_whitespace() {
            let help = self.help(&command);
            if let Some(option) = word.strip_prefix("--") {
                let option = option.split('=').next().unwrap().trim_end_matches(is_punctuation);
                let known = option.is_empty() || help.options.contains(&format!("--{option}"));
                if !known && option != "help" && option != "version" {
                    return Some(format!("portcullis {}: no --{option}", command.join(" ")));
                }
                may_go_on = false;
            } else if may_go_on && !help.commands.is_empty() {
                let name = word.trim_end_matches(is_punctuation).to_owned();
                if help.commands.contains(&name) {
                    command.push(name);
                } else if is_placeholder(word) {
                    return None;
                } else {
                    return Some(format!("portcullis {}: no {word}", command.join(" ")));
                }
            }
        }
        None
    }
}

fn is_punctuation(c: char) -> bool {
    matches!(c, '`' | '"' | '\'' | ',' | '.' | ';' | ':')
}

/// `SESSION`, `…`, `ID`: what a reader puts in.
fn is_placeholder(word: &str) -> bool {
    !word.chars().any(|c| c.is_ascii_lowercase())
}

/// What stands behind each `portcullis` in a line of a shell, up to the command's end.
fn calls(line: &str) -> Vec<String> {
    static CALL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"(?:^|[\s(/\x22`])portcullis ((?:[a-z][a-z-]+)(?:[^|;)>&`]*))").unwrap()
    });
    CALL.captures_iter(line).map(|found| found[1].to_owned()).collect()
}

#[test]
fn every_command_and_option_is_there() {
    let mut command_line = CommandLine::default();
    let inline = Regex::new(r"`(portcullis [^`]+)`").unwrap();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (file, text) in pages() {
        let (prose, code) = prose_and_code(&text);
        let code = code.join("\n").replace("\\\n", " ");
        let prose = prose.join("\n");
        let named = inline.captures_iter(&prose).map(|found| found[1].replace('\n', " "));
        let lines = code.lines().map(|line| line.split(" #").next().unwrap().to_owned());
        for call in lines.chain(named).flat_map(|line| calls(&line)) {
            seen += 1;
            if let Some(complaint) = command_line.complaint(&call) {
                wrong.push(format!("{}: {complaint}", file.display()));
            }
        }
    }
    assert!(seen > 40, "only {seen} commands were found");
    assert!(wrong.is_empty(), "there is no such thing:\n{}", wrong.join("\n"));
}

#[test]
fn every_script_is_there_with_its_parts() {
    let script = Regex::new(r"scripts/([a-z_.-]*[a-z])(?: ([a-z]+))?").unwrap();
    let quotation = Regex::new("`([^`]*scripts/[^`]*)`").unwrap();
    let soak = fs::read_to_string(root().join("scripts/soak")).unwrap();
    for (file, text) in pages() {
        // In prose the next word is a part only within one quotation.
        let (prose, code) = prose_and_code(&text);
        let prose = prose.join("\n");
        let quoted = quotation.captures_iter(&prose).map(|found| found[1].to_owned());
        for line in code.iter().map(|line| (*line).to_owned()).chain(quoted) {
            for found in script.captures_iter(&line) {
                let path = root().join("scripts").join(&found[1]);
                assert!(path.is_file(), "{}: {}", file.display(), &found[0]);
                if let (true, Some(part)) = (&found[1] == "soak", found.get(2)) {
                    let function = format!("\n{}()", part.as_str());
                    assert!(soak.contains(&function), "{}: {}", file.display(), &found[0]);
                }
            }
        }
    }
}

/// The page shows what the test runs.
#[test]
fn the_code_of_the_crewai_page_is_the_code_that_is_tested() {
    let tools = fs::read_to_string(root().join("tests/crewai/tools.py")).unwrap();
    let page = fs::read_to_string(root().join("docs/crewai.md")).unwrap();
    let blocks: Vec<_> = page.split("```python\n").skip(1).collect();
    assert!(blocks.len() > 3);
    for block in blocks {
        let code = block.split("```").next().unwrap();
        assert!(tools.contains(code), "not in tests/crewai/tools.py:\n{code}");
    }
}

#[test]
fn the_reader_of_pages_sees_what_is_wrong() {
    let page = "# One `[[two]]`\n## Same\n## Same\n```\n# no heading\n```\n";
    let expected = ["one-two", "same", "same-1"].map(str::to_owned);
    assert_eq!(anchors(page), BTreeSet::from(expected));
    assert_eq!(
        calls("X=$(portcullis token --issuer x) psql | portcullis check; cd portcullis"),
        ["token --issuer x", "check"]
    );
    let mut command_line = CommandLine::default();
    assert_eq!(command_line.complaint("session list --run X --json"), None);
    assert_eq!(command_line.complaint("session LIST"), None);
    assert_eq!(command_line.complaint("replay anything --speed 2"), None);
    assert!(command_line.complaint("session lists").is_some());
    assert!(command_line.complaint("session list --ran X").is_some());
    assert!(command_line.complaint("lists").is_some());
}
