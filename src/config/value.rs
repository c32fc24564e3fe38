//! Values as operators write them: durations, sizes, addresses, networks, claims, globs, secrets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use globset::{GlobBuilder, GlobMatcher};
use ipnet::IpNet;

use super::keys::Form;
use super::model::ClaimPath;
use super::reader::{Field, quoted};
use super::secret_ref::SecretRef;

/// Ten years: nothing waits longer, and times stay far from where arithmetic ends.
const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
/// More people than would ever be asked about one thing.
pub(super) const MOST_APPROVALS: usize = 100;
/// A target's name has 63 characters; a glob needs few more.
const MAX_GLOB: usize = 128;

const SECRET_FORMS: &str =
    r#"write { env = "NAME" }, { file = "path" } or { command = ["program", "argument"] }"#;

/// `"10m"`: a whole number and one of ms, s, m, h, d.
pub(super) fn duration(field: Field<'_>) -> Option<Duration> {
    field.held("a duration", |form| matches!(form, Form::Duration));
    let text = field.text()?;
    let (number, unit) = number_and_unit(text);
    let unit_ms = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let Some((number, unit_ms)) = number.zip(unit_ms) else {
        return field.wrong_with(
            format!("{} is not a duration", quoted(text)),
            r#"a whole number and a unit: "500ms", "30s", "10m", "12h", "30d""#,
        );
    };
    match number.checked_mul(unit_ms).map(Duration::from_millis) {
        Some(duration) if duration <= MAX_DURATION => Some(duration),
        _ => field.wrong("is longer than ten years"),
    }
}

/// A duration that is not zero.
pub(super) fn span(field: Field<'_>) -> Option<Duration> {
    match duration(field) {
        Some(Duration::ZERO) => field.wrong("must not be zero"),
        duration => duration,
    }
}

/// `"64 MiB"`: a whole number and one of B, KiB, MiB, GiB, TiB; not zero.
pub(super) fn size(field: Field<'_>) -> Option<u64> {
    field.held("a size", |form| matches!(form, Form::Size));
    let text = field.text()?;
    let (number, unit) = number_and_unit(text);
    let shift = match unit {
        "B" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        "TiB" => Some(40),
        _ => None,
    };
    let Some((number, shift)) = number.zip(shift) else {
        return field.wrong_with(
            format!("{} is not a size", quoted(text)),
            r#"a whole number and a unit: "512 KiB", "64 MiB", "10 GiB", "1 TiB""#,
        );
    };
    match number.checked_mul(1 << shift) {
        Some(0) => field.wrong("must not be zero"),
        Some(bytes) if i64::try_from(bytes).is_ok() => Some(bytes),
        _ => field.wrong("is too large"),
    }
}

/// `1_000 MiB` as 1000 and `MiB`.
fn number_and_unit(text: &str) -> (Option<u64>, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let well_formed = digits.starts_with(|c: char| c.is_ascii_digit()) && !digits.ends_with('_');
    (well_formed.then(|| digits.replace('_', "").parse().ok()).flatten(), unit.trim_start())
}

/// An address to listen on.
pub(super) fn listen_address(field: Field<'_>) -> Option<SocketAddr> {
    let text = field.text()?;
    text.parse().ok().or_else(|| {
        field.wrong_with(
            format!("{} is not an address and port", quoted(text)),
            r#"a number, not a name: "127.0.0.1:5432", "0.0.0.0:5432", "[::]:5432""#,
        )
    })
}

/// `host:port` of a target.
pub(super) fn host_and_port(field: Field<'_>) -> Option<(String, u16)> {
    let text = field.text()?;
    let parsed = text.rsplit_once(':').and_then(|(host, port)| {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host_is_well_formed = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => is_host_name(host),
        };
        let port = port.parse::<u16>().ok().filter(|port| *port != 0)?;
        host_is_well_formed.then(|| (bare.unwrap_or(host).to_owned(), port))
    });
    parsed.or_else(|| {
        field.wrong_with(
            format!("{} is not a host and port", quoted(text)),
            r#"for example "db.internal:5432", "10.0.3.7:5432" or "[fd00::7]:5432""#,
        )
    })
}

/// RFC 1123 names, and `_`, which internal names have.
fn is_host_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 253 && text.chars().all(inner) && !text.starts_with('-')
}

/// `10.0.0.0/8`, or one address.
pub(super) fn network(field: Field<'_>) -> Option<IpNet> {
    let text = field.text()?;
    let parsed = match text.split_once('/') {
        Some((address, prefix)) => address
            .parse()
            .ok()
            .zip(prefix.parse().ok())
            .and_then(|(address, prefix)| IpNet::new(address, prefix).ok()),
        None => text.parse::<IpAddr>().ok().map(IpNet::from),
    };
    let Some(network) = parsed else {
        return field.wrong_with(
            format!("{} is not a network", quoted(text)),
            r#"for example "10.0.0.0/8", "fd00::/8" or one address"#,
        );
    };
    if network != network.trunc() {
        return field.wrong_with(
            format!("{} has bits beyond its prefix", quoted(text)),
            format!("did you mean \"{}\"?", network.trunc()),
        );
    }
    Some(network)
}

/// A claim's name, or a JSON pointer to it.
pub(super) fn claim(field: Field<'_>) -> Option<ClaimPath> {
    let text = field.text()?;
    if !text.starts_with('/') {
        return Some(ClaimPath::Name(text.to_owned()));
    }
    // RFC 6901, section 3: `~` stands only in `~0` and `~1`.
    if text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1'])) {
        Some(ClaimPath::Pointer(text.to_owned()))
    } else {
        field.wrong_with(
            format!("{} is not a JSON pointer", quoted(text)),
            "in a pointer ~0 means ~, and ~1 means /",
        )
    }
}

/// A glob over target names.
pub(super) fn target_glob(field: Field<'_>) -> Option<GlobMatcher> {
    let text = field.text()?;
    let of_names = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '*');
    if text.len() > MAX_GLOB || !text.chars().all(of_names) {
        return field.wrong_with(
            format!("{} matches no target's name", quoted(text)),
            "names are of a-z, 0-9 and -; a glob knows * only",
        );
    }
    match star_glob(text) {
        Ok(glob) => Some(glob),
        Err(e) => field.wrong(e),
    }
}

/// A matcher in which `*` means any run of characters, and everything else itself.
pub(super) fn star_glob(text: &str) -> Result<GlobMatcher, globset::Error> {
    let mut pattern = globset::escape(text).replace("[*]", "*");
    // `**` would mean folders.
    while pattern.contains("**") {
        pattern = pattern.replace("**", "*");
    }
    Ok(GlobBuilder::new(&pattern).backslash_escape(false).build()?.compile_matcher())
}

/// A secret by reference. A literal one is refused, and never shown.
pub(super) fn secret(field: Field<'_>) -> Option<SecretRef> {
    let Some(table) = field.is_table().then(|| field.table()).flatten() else {
        return field.wrong_with("a secret is never written in the configuration", SECRET_FORMS);
    };
    let forms = ["env", "file", "command"].into_iter().filter(|form| table.has(form)).count();
    // With another key alone, that key is the mistake.
    let clear = forms == 1 || (forms == 0 && !table.is_empty());
    let env = table.read("env", |f| variable(f).map(SecretRef::Env));
    let file = table.read("file", |f| f.path().map(SecretRef::File));
    let command = table.read("command", command);
    let passed = table.read("pass_env", |names| {
        if !table.has("command") {
            return names.wrong_with("is for commands alone", SECRET_FORMS);
        }
        names.list(variable)
    });
    let command = command.map(|words| SecretRef::Command(words, passed.unwrap_or_default()));
    table.finish();
    if !clear {
        return field.wrong_with("a secret is in exactly one place", SECRET_FORMS);
    }
    env.or(file).or(command)
}

/// The name is not shown when it is none: someone may have written the secret there.
fn variable(field: Field<'_>) -> Option<String> {
    let text = field.text()?;
    let of_names = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.chars().all(of_names) && !text.starts_with(|c: char| c.is_ascii_digit()) {
        Some(text.to_owned())
    } else {
        field.wrong_with("is not the name of an environment variable", SECRET_FORMS)
    }
}

/// A program that is named with a path is looked for beside the file that names it.
fn command(field: Field<'_>) -> Option<Vec<String>> {
    let mut words = field.texts()?;
    if let Some(program) = words.first_mut().filter(|program| program.contains('/')) {
        *program = field.folder().join(&program).display().to_string();
    }
    Some(words)
}

/// Labels: keys and texts of the operator's own.
pub(super) fn labels(field: Field<'_>) -> Option<BTreeMap<String, String>> {
    let table = field.table()?;
    let labels: Vec<_> = table
        .free()
        .map(|label| Some((label.key().to_owned(), label.text()?.to_owned())))
        .collect();
    labels.into_iter().collect()
}
