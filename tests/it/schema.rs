//! The JSON Schema of the configuration: what editors get is what the reader takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use portcullis::config;
use serde_json::Value as Json;

use crate::config::{ISSUER, load, root, toml_blocks};
use crate::support::client::venv;
use crate::support::gateway::told;

const REFERENCE: &str = include_str!("../../docs/configuration.md");

/// A table of the schema, by the place of its keys in a configuration: `[server]`, `[[access]] users`.
struct Section {
    place: String,
    schema: Json,
}

/// Every table of the schema that has keys of its own; a target's for each protocol.
fn sections() -> Vec<Section> {
    let mut found = Vec::new();
    collect("", &config::schema(), &mut found);
    assert!(found.len() > 35, "only {} tables were found", found.len());
    found
}

fn collect(place: &str, schema: &Json, found: &mut Vec<Section>) {
    for kind in schema["oneOf"].as_array().into_iter().flatten() {
        if let Some(protocol) = kind.pointer("/properties/protocol/enum/0") {
            collect(&format!("{place} {}", protocol.as_str().unwrap()), kind, found);
        }
    }
    if let Some(keys) = schema["properties"].as_object() {
        found.push(Section { place: place.trim().to_owned(), schema: schema.clone() });
        for (key, value) in keys {
            collect(&format!("{place} {key}"), value, found);
        }
    }
    if schema["items"].is_object() {
        collect(place, &schema["items"], found);
    }
}

fn names(list: &Json) -> BTreeSet<String> {
    list.as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_key_stands_in_the_reference() {
    let mut missing = BTreeSet::new();
    for Section { place, schema } in sections() {
        for key in schema["properties"].as_object().unwrap().keys().filter(|key| *key != "include")
        {
            let named = [
                format!("`{key}`"),
                format!("`{key} = "),
                format!("`{{ {key} = "),
                format!("`[{key}]`"),
                format!("`[[{key}]]`"),
            ];
            if !named.iter().any(|form| REFERENCE.contains(form)) {
                missing.insert(format!("{place} {key}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/configuration.md does not mention {missing:?}");
}

#[test]
fn every_key_of_the_schema_has_a_form_and_says_what_it_is() {
    let mut bare = Vec::new();
    for Section { place, schema } in sections() {
        for (key, value) in schema["properties"].as_object().unwrap() {
            let has_form = value["type"].is_string() || value["anyOf"].is_array();
            let about = value["description"].as_str().unwrap_or_default();
            if !has_form || !about.ends_with('.') || about.len() > 110 {
                bare.push(format!("{place} {key}: {value}"));
            }
        }
        assert_eq!(schema["additionalProperties"], false, "{place}");
    }
    assert!(bare.is_empty(), "{}", bare.join("\n"));
}

/// The lines of a configuration that lead to a table.
fn headers(place: &str) -> String {
    let whole = config::schema();
    let mut parts: Vec<&str> = place.split(' ').filter(|part| !part.is_empty()).collect();
    let mut text = String::new();
    if let Some(top) = parts.first() {
        let is_list = whole["properties"][top]["type"] == "array";
        text.push_str(&if is_list { format!("[[{top}]]\n") } else { format!("[{top}]\n") });
    }
    if parts.first() == Some(&"target") {
        text.push_str(&format!("protocol = \"{}\"\n", parts.remove(1)));
    }
    for deep in 2..=parts.len() {
        let name = parts[..deep].join(".");
        let is_list = name == "access.users";
        text.push_str(&if is_list { format!("[[{name}]]\n") } else { format!("[{name}]\n") });
    }
    text
}

/// Each key is read once, whatever its value: a read that is not of the form that is defined panics.
#[test]
fn every_key_is_read_in_the_form_that_the_schema_has() {
    let mut read = 0;
    for Section { place, schema } in sections() {
        for (text, number) in [("\"x\"", "1"), ("[\"x\"]", "[1]")] {
            let mut lines = headers(&place);
            for (key, value) in schema["properties"].as_object().unwrap() {
                if key == "protocol" || place.is_empty() {
                    continue;
                }
                let is_number = value["type"] == "integer" || key == "step";
                lines.push_str(&format!("{key} = {}\n", if is_number { number } else { text }));
                read += 1;
            }
            if !place.is_empty() {
                load(&lines).unwrap_err();
            }
        }
    }
    assert!(read > 2 * 150, "only {} keys were read", read / 2);
}

/// What the reader says of tables that have one key that it does not know, and no other: all that it
/// knows, and all that must be there.
#[test]
fn the_schema_has_the_keys_that_the_reader_knows_and_requires_what_it_requires() {
    let mut compared = 0;
    for Section { place, schema } in sections() {
        let mistakes = load(&format!("{}zzzzzzzzzzzzzzzz = 1\n", headers(&place))).unwrap_err().0;
        let told = mistakes.iter().find(|m| m.message.starts_with("unknown key \"zzzz"));
        let told = told.unwrap_or_else(|| panic!("{place}: {mistakes:?}"));
        let (_, title) = told.message.split_once(" in ").unwrap();
        let known = told.hint.as_deref().unwrap().strip_prefix("it knows ").unwrap();
        let known: BTreeSet<String> = known.split(", ").map(str::to_owned).collect();
        let keys = schema["properties"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(known, keys, "{place}");
        let ending = format!(" in {title}");
        let missing = mistakes.iter().filter_map(|mistake| {
            let named = mistake.message.strip_prefix("missing key ")?.strip_suffix(&ending)?;
            Some(named.trim_matches('"').to_owned())
        });
        let mut required = names(&schema["required"]);
        if ["target postgres", "target ssh", "target http"].contains(&&*place) {
            // It is given, because the others depend on it.
            required.remove("protocol");
        }
        assert_eq!(missing.collect::<BTreeSet<_>>(), required, "{place}");
        compared += 1;
    }
    assert!(compared > 35, "only {compared} tables were compared");
}

/// Holds files against the schema, as an editor does; returns what is wrong with them, one a line.
fn marked(schema: &Json, files: &[PathBuf]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("schema.json");
    fs::write(&path, schema.to_string()).unwrap();
    let output = Command::new(venv().join("bin/python"))
        .arg("-B")
        .arg(root().join("tests/tools/schema.py"))
        .arg(&path)
        .args(files)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn toml_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            toml_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(path);
        }
    }
}

#[test]
fn an_editor_marks_nothing_in_configurations_that_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    let documents = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    for document in documents.chain([root().join("README.md")]) {
        let name = document.file_stem().unwrap().to_str().unwrap().to_owned();
        let Ok(text) = fs::read_to_string(&document) else { continue };
        for (i, block) in toml_blocks(&text).iter().enumerate() {
            files.push(dir.path().join(format!("{name}-{i:02}.toml")));
            fs::write(files.last().unwrap(), block).unwrap();
        }
    }
    assert!(files.len() > 30, "{files:?}");
    toml_files(&root().join("tests/fixtures/config-0.1.0"), &mut files);
    files.push(root().join("config/portcullis.toml"));
    files.push(root().join("deploy/compose/portcullis.toml"));
    // Every way to write a duration, a size and a step that the reader takes.
    let values = dir.path().join("values.toml");
    let text = "[server]\nexpiry_grace = \"1_2h\"\ndrain_timeout = \"10 m\"\n[http]\nmax_json = \
                \"1_0 KiB\"\n[[mask]]\nname = \"m\"\ncolumns = [\"*.a\"]\nwith = \"bucket\"\nstep = 10\n\
                [[mask]]\nname = \"n\"\ncolumns = [\"*.b\"]\nwith = \"bucket\"\nstep = \"month\"\n\
                [[access]]\nclaims = { a = 1, b = [true, { c = \"d\" }] }\nlabels = { x = \"y\" }\n\
                [[notify]]\nname = \"n\"\nkind = \"slack\"\nevents = [\"block\"]\n\
                url = { command = [\"get\", \"url\"], pass_env = [\"HOME\"] }\n";
    load(&format!("{ISSUER}{text}")).unwrap();
    fs::write(&values, text).unwrap();
    files.push(values);
    assert_eq!(marked(&config::schema(), &files), "");
}

#[test]
fn an_editor_marks_what_the_reader_refuses() {
    let dir = tempfile::tempdir().unwrap();
    for (i, wrong) in [
        "sever = {}",
        "[server]\ndata_dirs = \"data\"",
        "[server]\nmax_sessions = \"many\"",
        "[server]\nmax_sessions = 0",
        "[server]\ndrain_timeout = \"5\"",
        "[server]\ndrain_timeout = 5",
        "[recording]\nmax_local = \"5 MB\"",
        "[recording]\ndurability = \"disc\"",
        "[recording]\nmask_key = \"literal\"",
        "[recording]\nmask_key = { env = \"A\", file = \"b\" }",
        "[tls]\ncertificate = \"a\"",
        "[[server]]\ndata_dir = \"data\"",
        "[issuer]\nname = \"dev\"",
        "[web]\nauditors = \"group\"",
        "[web]\nauditors = []",
        "[listen]\ninsecure = [\"ssh\"]",
        "[[access]]\ngroups = [\"g\"]\ntargets = [\"*\"]\nlabels = { a = \"b\" }",
        "[[target]]\nname = \"a\"\nprotocol = \"http\"\naddress = \"a:1\"",
        "[[target]]\nname = \"a\"\nprotocol = \"gopher\"",
        "[[mask]]\nname = \"m\"\ncolumns = [\"*.a\"]\nwith = \"bucket\"\nstep = \"fortnight\"",
    ]
    .iter()
    .enumerate()
    {
        assert!(load(&format!("{ISSUER}{wrong}")).is_err(), "{wrong}");
        let file = dir.path().join(format!("{i}.toml"));
        fs::write(&file, wrong).unwrap();
        assert_ne!(marked(&config::schema(), &[file]), "", "{wrong}");
    }
}
