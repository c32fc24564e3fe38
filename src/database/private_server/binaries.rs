//! Where this machine keeps PostgreSQL's programs.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::PrivateServerError;

/// The oldest major version that is taken: older ones get no more fixes.
const OLDEST: u32 = 14;

/// Folders of one version each, by the versions in their names: Debian, Red Hat, Homebrew on both
/// kinds of Mac, Postgres.app.
const VERSIONED: [(&str, &str, &str); 5] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];
const PLAIN: [&str; 4] = [
    "/usr/bin",
    "/opt/homebrew/opt/postgresql/bin",
    "/usr/local/opt/postgresql/bin",
    "/usr/local/pgsql/bin",
];

/// One installed PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) folder: PathBuf,
    pub(super) major: u32,
}

impl Binaries {
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The first PostgreSQL found, or the first of the major version that existing data need.
///
/// Looks at `PATH`, then at the folders that packages use, newest version first, then asks
/// `pg_config`.
pub(super) async fn find(data_version: Option<u32>) -> Result<Binaries, PrivateServerError> {
    let mut others = Vec::new();
    for folder in folders().await {
        let Some(major) = major_version(&folder).await else { continue };
        let wanted = data_version.unwrap_or(major);
        if major == wanted && major >= OLDEST {
            return Ok(Binaries { folder, major });
        }
        others.push(major);
    }
    others.sort_unstable();
    others.dedup();
    Err(match (data_version, others.last()) {
        (Some(data), _) if !others.is_empty() => {
            PrivateServerError::OtherVersion { data, installed: others }
        }
        (_, Some(newest)) => PrivateServerError::TooOld { newest: *newest, oldest: OLDEST },
        (_, None) => PrivateServerError::NotInstalled,
    })
}

async fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path)
        // A link in the path points to where initdb is, too.
        .filter_map(|folder| {
            Some(folder.join("postgres").canonicalize().ok()?.parent()?.to_owned())
        })
        .collect();
    for (root, prefix, inner) in VERSIONED {
        let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let version = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((version, entry.path().join(inner)))
            })
            .collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        folders.extend(versions.into_iter().map(|(_, folder)| folder));
    }
    folders.extend(PLAIN.map(PathBuf::from));
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output().await {
        folders.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    folders
        .retain(|folder| ["postgres", "initdb", "pg_ctl"].iter().all(|p| folder.join(p).is_file()));
    folders
}

async fn major_version(folder: &Path) -> Option<u32> {
    let output = Command::new(folder.join("postgres")).arg("--version").output().await.ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// The major version in `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn parse_version(line: &str) -> Option<u32> {
    let version = line.split_once("(PostgreSQL) ")?.1;
    let digits = version.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_build() {
        for (line, major) in [
            ("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("postgres (PostgreSQL) 17.2 (Homebrew)", Some(17)),
            ("postgres (EnterpriseDB) 17", None),
            ("", None),
        ] {
            assert_eq!(parse_version(line), major, "{line:?}");
        }
    }

    #[tokio::test]
    async fn data_of_a_version_that_is_not_installed_are_refused() {
        let error = find(Some(9)).await.unwrap_err();
        assert!(matches!(error, PrivateServerError::OtherVersion { data: 9, .. }), "{error}");
    }
}
