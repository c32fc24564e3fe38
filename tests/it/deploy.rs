//! What `deploy/` says fits what the gateway does.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::client::venv;
use crate::support::daemon::{PATIENCE, PORTCULLIS};
use crate::support::gateway::{Gateway, Setup, told};

/// Labels that Prometheus itself gives to what it scrapes.
const SCRAPED: [&str; 2] = ["instance", "job"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn checked(configuration: &Path) {
    let output =
        Command::new(PORTCULLIS).args(["check", "--config"]).arg(configuration).output().unwrap();
    let said = told(&output);
    // How many files this machine lets a process open says nothing of the configuration.
    let mut lines = said.lines().filter(|line| !line.contains("may open"));
    assert!(output.status.success() && !lines.any(|line| line.contains("warning")), "{said}");
}

#[test]
fn the_kubernetes_manifests_fit_each_other_and_the_gateway_takes_their_configuration() {
    let output = Command::new(venv().join("bin/python"))
        .arg(root().join("tests/deploy/manifests.py"))
        .arg(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", told(&output));
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("portcullis.toml");
    fs::write(&file, &output.stdout).unwrap();
    checked(&file);
}

#[test]
fn the_gateway_takes_the_configuration_of_compose_and_its_tests_pass() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("portcullis.toml");
    fs::copy(root().join("deploy/compose/portcullis.toml"), &file).unwrap();
    // What the first start writes.
    fs::create_dir(folder.path().join("secrets")).unwrap();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6w/eipOEJHx2H/J6xTxbWDQYhh7MycIovzzYvAm3OG";
    let host = format!(
        "[[target]]\nname = \"host\"\nprotocol = \"ssh\"\naddress = \"host:2222\"\n\
         host_key = \"{key}\"\nlabels = {{ env = \"demo\" }}\n\
         credential = {{ user = \"demo\", private_key = {{ file = \"host_login\" }} }}\n"
    );
    fs::write(folder.path().join("secrets/host.toml"), host).unwrap();
    checked(&file);
}

/// Names of metrics, and labels that they have for sure, as the gateway exports them.
fn exported() -> BTreeSet<String> {
    let gateway = Gateway::start(&Setup {
        listen: "metrics = \"127.0.0.1:0\"\n".to_owned(),
        ..Setup::default()
    });
    let mut stream = TcpStream::connect(gateway.daemon().address_of("metrics")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    let mut names = BTreeSet::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        if kind == "histogram" {
            names.extend(["bucket", "count", "sum"].map(|part| format!("{name}_{part}")));
        } else {
            names.insert(name.to_owned());
        }
    }
    assert!(names.len() > 10, "{page}");
    names
}

#[test]
fn the_dashboard_the_alerts_and_the_documents_name_what_the_gateway_exports() {
    let exported = exported();
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.iter().all(|panel| panel["targets"][0]["expr"].is_string()));

    let name = Regex::new(r"\bportcullis_[a-z_]+").unwrap();
    let mut used = BTreeSet::new();
    for path in ["deploy/monitoring/grafana.json", "deploy/monitoring/alerts.yaml"] {
        for found in name.find_iter(&read(path)) {
            assert!(exported.contains(found.as_str()), "{path}: there is no {}", found.as_str());
            used.insert(found.as_str().to_owned());
        }
    }
    assert!(used.len() > 10, "{used:?}");

    let operations = read("docs/operations.md");
    for metric in &exported {
        let known = metric.trim_end_matches("_bucket").trim_end_matches("_count");
        let known = known.trim_end_matches("_sum");
        assert!(operations.contains(&format!("`{known}`")), "docs/operations.md lacks {known}");
    }
}

#[test]
fn expressions_ask_for_labels_that_there_are() {
    let words = Regex::new(r#"([a-z_]+)=~?\\?"|by \(([a-z_, ]+)\)"#).unwrap();
    let source = fs::read_to_string(root().join("src/metrics.rs")).unwrap();
    for path in ["deploy/monitoring/grafana.json", "deploy/monitoring/alerts.yaml"] {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let expressions = text.lines().filter(|line| line.contains("expr"));
        for found in expressions.flat_map(|line| words.captures_iter(line)) {
            let labels = found.get(1).or(found.get(2)).unwrap().as_str();
            for label in labels.split(", ").filter(|label| !SCRAPED.contains(label)) {
                // As the page has it that is compared there.
                assert!(source.contains(&format!("{label}=\"")), "{path}: no label {label}");
            }
        }
    }
}

#[test]
fn the_image_is_built_from_all_that_the_binary_embeds() {
    let embedded = Regex::new(r#"include_(?:str|bytes)!\("(?:\.\./)+([a-z]+)/"#).unwrap();
    let dockerfile = fs::read_to_string(root().join("Dockerfile")).unwrap();
    let context = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let mut folders = BTreeSet::from(["src".to_owned(), ".cargo".to_owned()]);
    let mut waiting = vec![root().join("src")];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                // What tests alone read stands in tests/.
                let found = embedded.captures_iter(&text).map(|found| found[1].to_owned());
                folders.extend(found.filter(|name| name != "tests" && root().join(name).is_dir()));
            }
        }
    }
    assert!(folders.contains("migrations"), "{folders:?}");
    for folder in folders.iter().filter(|name| !root().join("src").join(name).is_dir()) {
        let copied = format!("\nCOPY {folder} {folder}\n");
        assert!(dockerfile.contains(&copied), "Dockerfile lacks {folder}");
        assert!(context.contains(&format!("\n!{folder}\n")), ".dockerignore lacks {folder}");
    }
    // Cargo asks for the file of each bench that Cargo.toml names.
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let benches = manifest["bench"].as_array().unwrap();
    for bench in benches.iter().map(|bench| bench["name"].as_str().unwrap()) {
        assert!(dockerfile.contains(&format!(" benches/{bench}.rs ")), "Dockerfile lacks {bench}");
    }
    // Macros read settings that stand beside Cargo.toml; these are for other tools.
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".toml")
            && ![".clippy.toml", "deny.toml", "rustfmt.toml"].contains(&name.as_str())
        {
            assert!(dockerfile.contains(&format!("COPY {name} ")), "Dockerfile lacks {name}");
            assert!(context.contains(&format!("\n!{name}\n")), ".dockerignore lacks {name}");
        }
    }
}
