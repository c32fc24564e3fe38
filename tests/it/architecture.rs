//! Holds the `use crate::…` lines of every module to the table of allowed directions.

use std::fs;
use std::path::{Path, PathBuf};

/// Module, and what it may use of the crate. Plain types that both sides use stand in modules
/// that everything may use.
const EVERYONE: &[&str] = &["age", "clock", "files", "names", "percent", "secret", "trust"];
const TABLE: &[(&str, &[&str])] = &[
    ("age", &[]),
    ("clock", &[]),
    ("files", &[]),
    ("names", &[]),
    ("percent", &[]),
    ("secret", &[]),
    ("trust", &[]),
    (
        "decode",
        &[
            "policy::Attributes",
            "policy::Command",
            "policy::CommandParts",
            "policy::Effect",
            "policy::Object",
            "policy::Vocabulary",
        ],
    ),
    ("policy", &[]),
    (
        "mask",
        &[
            "decode::sql::rewrite::BoundCondition",
            "decode::sql::rewrite::Condition",
            "decode::sql::rewrite::Given",
            "decode::sql::rewrite::Value",
            "policy::Glob",
            "policy::NotAnObject",
            "policy::Object",
            "policy::Pattern",
        ],
    ),
    ("config", &["decode", "mask", "policy"]),
    ("recording", &["policy::Command", "policy::CommandParts", "policy::Decision", "config"]),
    ("database", &["policy", "recording"]),
    ("identity", &["config", "database", "policy::Caller"]),
    ("notify", &["config", "metrics"]),
    ("approval", &["config", "database", "identity", "metrics", "notify", "policy"]),
    ("archive", &["catalog", "config", "database", "metrics", "recording"]),
    ("catalog", &["approval", "config", "database", "mask", "policy", "telemetry"]),
    ("access", &["approval", "config", "catalog", "database", "identity"]),
    (
        "admission",
        &["access", "catalog", "config", "gate", "identity", "listener", "recording", "shutdown"],
    ),
    (
        "gate",
        &[
            "access",
            "approval",
            "catalog",
            "config",
            "database",
            "identity",
            "mask",
            "metrics",
            "notify",
            "policy",
            "recording",
            "telemetry",
        ],
    ),
    ("metrics", &["policy::Verdict"]),
    ("telemetry", &["policy", "recording"]),
    ("listener", &["config", "shutdown"]),
    ("shutdown", &[]),
    ("replay", &["decode", "policy", "recording"]),
    (
        "protocol",
        &[
            "access",
            "admission",
            "catalog",
            "config",
            "decode",
            "gate",
            "identity",
            "listener",
            "mask",
            "metrics",
            "policy",
            "recording",
            "shutdown",
        ],
    ),
    (
        "web",
        &[
            "access",
            "approval",
            "archive",
            "catalog",
            "config",
            "database",
            "decode",
            "identity",
            "listener",
            "metrics",
            "notify",
            "policy",
            "recording",
            "replay",
            "shutdown",
        ],
    ),
    (
        "cli",
        &[
            "access",
            "app",
            "archive",
            "catalog",
            "config",
            "database",
            "decode",
            "identity",
            "mask",
            "policy",
            "quickstart",
            "recording",
            "replay",
            "web",
        ],
    ),
    ("quickstart", &["app", "database", "identity", "web"]),
    (
        "app",
        &[
            "access",
            "admission",
            "approval",
            "archive",
            "catalog",
            "config",
            "database",
            "gate",
            "identity",
            "listener",
            "mask",
            "notify",
            "policy",
            "protocol",
            "recording",
            "replay",
            "shutdown",
            "telemetry",
            "web",
        ],
    ),
];

/// What is of no protocol but of all.
const OF_ALL_PROTOCOLS: &[&str] = &["own_waker", "taped"];

/// What only outer modules may touch: no socket, no runtime, no database in the pure middle.
const PURE: &[&str] = &["decode", "policy", "mask", "names", "percent", "secret"];
const IMPURE_CRATES: &[&str] =
    &["tokio", "sqlx", "hyper", "axum", "std::net", "std::fs", "std::io"];

#[test]
fn modules_use_only_what_the_table_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut files = 0;
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let module = module_of(relative);
        if module == "lib" || module == "main" {
            continue;
        }
        files += 1;
        let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: module {module} is not in the table", relative.display()));
            continue;
        };
        for path in used_paths(&fs::read_to_string(&file).unwrap()) {
            let fine = match path.strip_prefix("crate::") {
                Some(inner) => {
                    let of = |name: &str| inner == name || inner.starts_with(&format!("{name}::"));
                    of(&module)
                        || EVERYONE.iter().any(|name| {
                            of(name) && (!PURE.contains(&module.as_str()) || PURE.contains(name))
                        })
                        || allowed.iter().any(|name| of(name))
                }
                None => {
                    !PURE.contains(&module.as_str())
                        || !IMPURE_CRATES
                            .iter()
                            .any(|name| path == *name || path.starts_with(&format!("{name}::")))
                }
            };
            if !fine {
                wrong.push(format!("{}: {path}", relative.display()));
            }
        }
    }
    assert!(files > 15, "only {files} files were found");
    assert!(wrong.is_empty(), "not allowed by the table:\n{}", wrong.join("\n"));
}

#[test]
fn the_modules_have_an_order() {
    assert_eq!(in_circles(TABLE), [] as [&str; 0], "these use each other");
    // What the test would say of a circle.
    let circle: &[(&str, &[&str])] =
        &[("a", &["b::X"]), ("b", &["c"]), ("c", &["a", "d"]), ("d", &[])];
    assert_eq!(in_circles(circle), ["a", "b", "c"]);
}

/// The modules that are left when those that use none of the rest are taken away, again and again.
fn in_circles<'t>(table: &[(&'t str, &[&str])]) -> Vec<&'t str> {
    let mut left = table.to_vec();
    loop {
        let names: Vec<&str> = left.iter().map(|(name, _)| *name).collect();
        left.retain(|(own, uses)| {
            uses.iter().any(|path| {
                let module = path.split("::").next().unwrap();
                module != *own && names.contains(&module)
            })
        });
        if left.len() == names.len() {
            return names;
        }
    }
}

#[test]
fn one_protocol_does_not_use_another() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protocol");
    let mut wrong = Vec::new();
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap().to_owned();
        let own = module_of(&relative);
        if own == "mod" {
            continue;
        }
        for path in used_paths(&fs::read_to_string(&file).unwrap()) {
            if let Some(inner) = path.strip_prefix("crate::protocol::") {
                let first = inner.split("::").next().unwrap();
                let foreign = first != own && !OF_ALL_PROTOCOLS.contains(&first);
                if foreign && first.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                    wrong.push(format!("{}: {path}", relative.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The parts of the recording, each of which uses those before it.
const PARTS: &[&str] = &["format", "ledger", "read", "write"];

#[test]
fn parts_of_the_recording_use_those_before_them() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/recording");
    let (mut wrong, mut files) = (Vec::new(), 0);
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let Some(own) = PARTS.iter().position(|part| *part == module_of(relative)) else {
            continue;
        };
        files += 1;
        let text = fs::read_to_string(&file).unwrap();
        // Tests may make what they read.
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for path in used_paths(code) {
            let used = path.strip_prefix("crate::recording::").unwrap_or_default();
            let used = used.split("::").next().unwrap();
            if PARTS.iter().position(|part| *part == used).is_some_and(|used| used > own) {
                wrong.push(format!("{}: {path}", relative.display()));
            }
        }
    }
    assert!(files > 25, "only {files} files were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_use_lines_sees_groups_and_bare_paths() {
    let seen = used_paths(
        "use crate::{gate::Gate, web as w};\npub use std::io;\nfn f() { crate::app::run(\"of use } here\"); }\n// use crate::no\n",
    );
    assert_eq!(seen, ["crate::gate::Gate", "crate::web", "std::io", "crate::app::run"]);
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn module_of(relative: &Path) -> String {
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// Every path that `use` items name, and every `crate::` path in code, comments left out.
fn used_paths(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("use ") {
        if !begins_item(&code[..at]) {
            continue;
        }
        if let Some(end) = code[at..].find(';') {
            expand("", code[at + 4..at + end].trim(), &mut paths);
        }
    }
    for (at, _) in code.match_indices("crate::") {
        let before = &code[..at];
        let in_use = before
            .rfind("use ")
            .is_some_and(|u| begins_item(&before[..u]) && !before[u..].contains(';'));
        if in_use || before.ends_with("$") {
            continue;
        }
        let path: String = code[at..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_' || *c == ':')
            .collect();
        paths.push(path.trim_end_matches(':').to_owned());
    }
    paths
}

/// Whether an item may begin behind `before`: at the start of a line, or behind a visibility.
fn begins_item(before: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap().trim();
    line.is_empty() || line.starts_with("pub")
}

fn expand(prefix: &str, tree: &str, into: &mut Vec<String>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let prefix = format!("{prefix}{}", &tree[..open]);
        let inner = &tree[open + 1..tree.rfind('}').unwrap_or(tree.len())];
        let (mut depth, mut start) = (0, 0);
        for (i, c) in inner.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    expand(&prefix, &inner[start..i], into);
                    start = i + 1;
                }
                _ => {}
            }
        }
        expand(&prefix, &inner[start..], into);
    } else if !tree.is_empty() {
        let path = tree.split_whitespace().next().unwrap();
        into.push(format!("{prefix}{path}").replace("::self", ""));
    }
}
