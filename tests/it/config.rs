//! Configurations, right and wrong, as operators meet them.
//!
//! A file of `tests/cases/config/` ends with what must be said of it: the lines after `#=`, in
//! their order, are the whole answer. Other files that it includes stand in folders beside it.

use std::fs;
use std::path::Path;

use portcullis::config::{
    self, ClaimPath, Config, Mistakes, SecretRef, TargetKind, TargetSelector, TokenKind,
};
use proptest::prelude::*;

/// The least that is right.
pub const ISSUER: &str =
    "[[issuer]]\nname = \"dev\"\nurl = \"http://127.0.0.1:9100\"\naudiences = [\"portcullis\"]\n";
const EXAMPLE: &str = include_str!("../../config/portcullis.toml");

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Loads a text as a file of a folder of its own.
pub fn load(text: &str) -> Result<Config, Mistakes> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.toml");
    fs::write(&path, text).unwrap();
    config::load(&path)
}

/// What is wrong with a file, as printed, without the folder; or its warnings.
fn said_of(path: &Path) -> String {
    let said = match config::load(path) {
        Ok(config) => {
            config.warnings.iter().map(|w| format!("warning: {w}")).collect::<Vec<_>>().join("\n")
        }
        Err(mistakes) => mistakes.to_string(),
    };
    said.replace(&format!("{}/", path.parent().unwrap().display()), "")
}

#[test]
fn every_mistake_is_told_with_its_place_and_a_hint() {
    let mut wrong = Vec::new();
    let mut cases = 0;
    for entry in fs::read_dir(root().join("tests/cases/config")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        cases += 1;
        let text = fs::read_to_string(&path).unwrap();
        let expected: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("#= ")).collect();
        let said = said_of(&path);
        if said != expected.join("\n") {
            wrong.push(format!("{}:\n{said}\n", path.display()));
        }
    }
    assert!(cases > 5, "only {cases} cases were found");
    assert!(wrong.is_empty(), "said otherwise of\n{}", wrong.join("\n"));
}

#[test]
fn a_secret_written_in_the_configuration_is_not_repeated() {
    for place in ["client_id = \"x\"\nclient_secret = ", "[recording]\nmask_key = "] {
        for secret in
            ["\"hunter2\"", "{ env = \"hunter2-\" }", "[\"hunter2\"]", "\"hunter2", "hunter2"]
        {
            let said = load(&format!("{ISSUER}{place}{secret}\n")).unwrap_err().to_string();
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

#[test]
fn the_example_is_right_and_says_what_its_comments_say() {
    let config = config::load(&root().join("config/portcullis.toml")).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.issuers[0].url, "http://127.0.0.1:9100");
    assert_eq!(config.listen.postgres.unwrap().to_string(), "127.0.0.1:6432");
    let target = &config.targets[&"orders".parse().unwrap()];
    let TargetKind::Postgres(postgres) = &target.kind else { panic!("{target:?}") };
    assert_eq!((postgres.host.as_str(), postgres.port), ("127.0.0.1", 5432));
    assert_eq!(postgres.password, SecretRef::Env("ORDERS_PASSWORD".to_owned()));
    assert_eq!(config.access[0].groups, ["support-agents"]);
    assert_eq!(config.server.data_dir, root().join("config/../data"));
}

/// Every block marked as `toml` and nothing more is a configuration or a part of one; those of
/// one document stand together.
#[test]
fn every_example_in_the_documents_is_right() {
    let documents = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut blocks = 0;
    for document in documents.chain([root().join("README.md")]) {
        let Ok(text) = fs::read_to_string(&document) else { continue };
        let dir = tempfile::tempdir().unwrap();
        // What the documents include.
        fs::create_dir(dir.path().join("policy.d")).unwrap();
        fs::write(dir.path().join("policy.d/empty.toml"), "").unwrap();
        fs::write(dir.path().join("targets.toml"), "").unwrap();
        for (i, block) in toml_blocks(&text).iter().enumerate() {
            blocks += 1;
            fs::write(dir.path().join(format!("block-{i:02}.toml")), block).unwrap();
        }
        let issuer = if text.contains("\n[[issuer]]\n") { "" } else { ISSUER };
        let whole = dir.path().join("whole.toml");
        fs::write(&whole, format!("include = [\"block-*.toml\"]\n{issuer}")).unwrap();
        if let Err(mistakes) = config::load(&whole) {
            panic!("{}:\n{mistakes}", document.display());
        }
    }
    assert!(blocks > 3, "only {blocks} blocks were found");
}

#[test]
fn durations_and_sizes_are_a_whole_number_and_a_unit() {
    let grace = |text: &str| {
        let loaded = load(&format!("{ISSUER}[server]\nexpiry_grace = \"{text}\""));
        loaded.ok().map(|config| config.server.expiry_grace.as_millis())
    };
    for (text, milliseconds) in [
        ("0s", 0),
        ("500ms", 500),
        ("10 m", 600_000),
        ("1_2h", 43_200_000),
        ("3660d", 316_224_000_000),
    ] {
        assert_eq!(grace(text), Some(milliseconds), "{text}");
    }
    for text in [
        "5",
        "s",
        "-5s",
        "+5s",
        "5.5s",
        "_5s",
        "5_s",
        "1h30m",
        "5S",
        "3661d",
        "99999999999999999999s",
        "18446744073709551615d",
    ] {
        assert_eq!(grace(text), None, "{text}");
    }
    let most = |text: &str| {
        let loaded = load(&format!("{ISSUER}[recording]\nmax_local = \"{text}\""));
        loaded.ok().map(|config| config.recording.max_local)
    };
    for (text, bytes) in
        [("1B", 1), ("64 MiB", 64 << 20), ("50GiB", 50 << 30), ("8_000 TiB", 8_000 << 40)]
    {
        assert_eq!(most(text), Some(bytes), "{text}");
    }
    for text in [
        "0 B",
        "5",
        "5 MB",
        "5 mib",
        "8388608 TiB",
        "18446744073709551615 TiB",
        "18446744073709551615 B",
    ] {
        assert_eq!(most(text), None, "{text}");
    }
}

#[test]
fn a_star_is_any_run_of_characters() {
    let matches = |glob: &str, name: &str| {
        let access = format!("{ISSUER}[[access]]\ngroups = [\"*\"]\ntargets = [\"{glob}\"]");
        let TargetSelector::Names(globs) = load(&access).unwrap().access.remove(0).targets else {
            panic!()
        };
        globs[0].is_match(name)
    };
    for (glob, name) in
        [("*", "a"), ("**", "ab"), ("web-*", "web-"), ("a*c", "abbc"), ("*-*", "a-b")]
    {
        assert!(matches(glob, name), "{glob} {name}");
    }
    for (glob, name) in [("a", "ab"), ("web-*", "xweb-1"), ("a*c", "acb"), ("*-", "a")] {
        assert!(!matches(glob, name), "{glob} {name}");
    }
}

#[test]
fn a_path_is_relative_to_the_file_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("more")).unwrap();
    let tls = "[tls]\ncertificate = \"tls.crt\"\nprivate_key = \"/etc/tls.key\"\n[recording]\nmask_key = { command = [\"./get\", \"key\"] }";
    fs::write(dir.path().join("more/tls.toml"), tls).unwrap();
    let path = dir.path().join("portcullis.toml");
    fs::write(
        &path,
        format!("include = [\"more/tls.toml\"]\n{ISSUER}[server]\ndata_dir = \"data\""),
    )
    .unwrap();
    let config = config::load(&path).unwrap();
    let tls = config.tls.unwrap();
    assert_eq!(tls.certificate, dir.path().join("more/tls.crt"));
    assert_eq!(tls.private_key, Path::new("/etc/tls.key"));
    assert_eq!(config.server.data_dir, dir.path().join("data"));
    let SecretRef::Command(words, _) = &config.recording.mask_key else { panic!() };
    assert_eq!(*words, [dir.path().join("more/./get").to_str().unwrap(), "key"]);
}

#[test]
fn includes_that_nest_too_deep_or_lead_back_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..12 {
        let text = format!("include = [\"{}.toml\"]\n", i + 1);
        fs::write(dir.path().join(format!("{i}.toml")), text).unwrap();
    }
    let said = config::load(&dir.path().join("0.toml")).unwrap_err().to_string();
    assert!(said.contains("files nest deeper than 8"), "{said}");
    fs::write(dir.path().join("2.toml"), "include = [\"0.toml\"]").unwrap();
    let said = config::load(&dir.path().join("0.toml")).unwrap_err().to_string();
    assert!(said.contains("0.toml is part of the configuration already"), "{said}");
}

#[test]
fn a_file_that_is_missing_too_large_or_not_text_is_refused() {
    let said = config::load(Path::new("/no/such.toml")).unwrap_err().to_string();
    assert!(said.starts_with("/no/such.toml: cannot be read: No such file"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    for (content, expected) in [
        (vec![b'#'; 4 * 1024 * 1024 + 1], "is larger than 4 MiB"),
        (b"a = \"\xff\"".to_vec(), "did not contain valid UTF-8"),
    ] {
        let path = dir.path().join("portcullis.toml");
        fs::write(&path, content).unwrap();
        let said = config::load(&path).unwrap_err().to_string();
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn the_policy_hash_sees_policy_and_nothing_else() {
    let targets = "[[target]]\nname = \"a\"\nprotocol = \"postgres\"\naddress = \"a:1\"\ndatabase = \"a\"\ncredential = { user = \"a\", password = { env = \"A\" } }\n";
    let other = targets.replace("\"a\"", "\"b\"");
    let access = "[[access]]\ngroups = [\"g\"]\ntargets = [\"*\"]\n";
    let hash = |text: &str| load(text).unwrap().policy.hash().to_owned();
    let base = hash(&format!("{ISSUER}{targets}{other}{access}"));
    assert!(base.len() == 32 && base.chars().all(|c| c.is_ascii_hexdigit()), "{base}");
    let same = [
        format!("# a comment\n{access}\n\n{other}{targets}{ISSUER}[server]\nmax_sessions = 7"),
        format!(
            "{ISSUER}{targets}{other}{}",
            access.replace("groups = [\"g\"]", "groups=[ 'g', ]")
        ),
    ];
    for text in same {
        assert_eq!(hash(&text), base, "{text}");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("more.toml"), format!("{other}{access}")).unwrap();
    let split = dir.path().join("portcullis.toml");
    fs::write(&split, format!("include = [\"more.toml\"]\n{ISSUER}{targets}")).unwrap();
    assert_eq!(config::load(&split).unwrap().policy.hash(), base);
    for (from, to) in [
        ("\"g\"", "\"h\""),
        ("\"A\"", "\"B\""),
        ("a:1", "a:2"),
        ("targets = [\"*\"]", "targets = [\"a*\"]"),
    ] {
        let text = format!("{ISSUER}{targets}{other}{access}").replace(from, to);
        assert_ne!(hash(&text), base, "{text}");
    }
}

#[test]
fn what_takes_a_restart_is_named() {
    let before = load(ISSUER).unwrap();
    let needs = |text: &str| before.needs_restart(&load(&format!("{ISSUER}{text}")).unwrap());
    // Each is read from another folder, so the paths differ unless they are absolute.
    assert_eq!(needs("[[access]]\ngroups = [\"g\"]\ntargets = [\"x\"]"), Vec::<&str>::new());
    assert_eq!(
        needs("max_lifetime = \"1h\"\n[server]\nmax_sessions = 1"),
        ["[server]", "[[issuer]]"]
    );
    assert_eq!(
        needs("[recording]\ndurability = \"disk\"\n[listen]\npostgres = \"127.0.0.1:1\""),
        ["[listen]", "[recording]"]
    );
}

#[test]
fn a_preset_sets_what_is_not_written() {
    let issuer = |keys: &str| load(&format!("{ISSUER}{keys}")).unwrap().issuers.remove(0);
    let plain = issuer("");
    assert_eq!(plain.username_claim, ClaimPath::Name("sub".to_owned()));
    assert_eq!(plain.accept, [TokenKind::Access]);
    let keycloak = issuer("preset = \"keycloak\"\nusername_claim = \"email\"");
    assert_eq!(keycloak.username_claim, ClaimPath::Name("email".to_owned()));
    assert_eq!(keycloak.groups_claim, Some(ClaimPath::Pointer("/realm_access/roles".to_owned())));
    let google = issuer("preset = \"google\"");
    assert_eq!((google.accept, google.groups_claim), (vec![TokenKind::Id], None));
}

#[test]
fn one_file_shows_at_most_a_thousand_mistakes() {
    let text: String = (0..5_000).map(|i| format!("key{i} = 1\n")).collect();
    assert_eq!(load(&text).unwrap_err().0.len(), 1_000);
}

proptest! {
    /// Bytes of the example and the reference cut, doubled and replaced: nothing panics, and what
    /// is refused is refused with a place.
    #[test]
    fn no_mutation_of_the_example_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..4u8, "[\\PC\n\"\\[\\]{}=.,'#]{0,6}"), 1..6),
    ) {
        let mut text = EXAMPLE.to_owned();
        for (from, to, edit, insert) in edits {
            let at = |index: prop::sample::Index| {
                let at = index.index(text.len() + 1);
                (0..=at).rev().find(|i| text.is_char_boundary(*i)).unwrap()
            };
            let (from, to) = (at(from).min(at(to)), at(from).max(at(to)));
            match edit {
                0 => text.insert_str(from, &insert),
                1 => text.replace_range(from..to, &insert),
                2 => {
                    let piece = text[from..to].to_owned();
                    text.insert_str(to, &piece);
                }
                _ => text.truncate(to.max(1)),
            }
        }
        if let Err(Mistakes(mistakes)) = load(&text) {
            prop_assert!(!mistakes.is_empty());
            prop_assert!(mistakes.iter().all(|mistake| mistake.position.is_some()));
        }
    }

    /// Any value where a known key stands.
    #[test]
    fn no_value_of_a_known_key_panics(
        table in prop::sample::select(&["[server]", "[listen]", "[tls]", "[recording]", "[[issuer]]", "[[target]]\nprotocol = \"postgres\"", "[[access]]", "[[rule]]", "[[test]]"][..]),
        key in prop::sample::select(&["data_dir", "max_sessions", "drain_timeout", "postgres", "insecure", "trusted_proxies", "certificate", "max_session", "mask_key", "name", "url", "audiences", "accept", "preset", "username_claim", "client_secret", "address", "database", "credential", "labels", "default", "groups", "users", "claims", "targets", "verdict", "identity"][..]),
        value in "(\"[0-9a-z:/.~*_ MiBK\\[\\]-]{0,20}\"|[0-9]{1,20}|\\[(\"[a-z*0-9./]{0,9}\",){0,3}\\]|\\{ (env|file|command|issuer|user) = (\"[a-z]{0,3}\"|1|\\[\\]) \\}|1\\.5|true|1979-05-27)",
    ) {
        let text = format!("{ISSUER}{table}\n{key} = {value}\n");
        let _any = load(&text);
    }
}

pub fn toml_blocks(markdown: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if line == "```toml" {
            blocks.push(
                lines
                    .by_ref()
                    .take_while(|line| *line != "```")
                    .map(|line| format!("{line}\n"))
                    .collect(),
            );
        }
    }
    blocks
}
