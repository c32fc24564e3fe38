//! Secrets by reference: where they are stands in the configuration, what they are is read when
//! it is needed and wiped after.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::age::Identity;
use crate::files;
use crate::secret::Secret;

/// Keys and tokens are far smaller; a larger one is the wrong file.
const MAX_SECRET: usize = 64 * 1024;
/// A session waits for this command while it opens.
const COMMAND_TIME: Duration = Duration::from_secs(10);
/// What a command has of the gateway's environment, beside what the configuration lists: the rest
/// holds other secrets.
const PASSED: [&str; 3] = ["PATH", "HOME", "LANG"];

/// Where a secret is; what it is, is read when it is needed and wiped after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable of the gateway.
    Env(String),
    /// A file; one newline at its end is not part of the secret.
    File(PathBuf),
    /// A program and its arguments; its standard output is the secret, less one newline. And the
    /// names of environment variables that it has beside `PATH`, `HOME` and `LANG`.
    Command(Vec<String>, Vec<String>),
}

/// A secret could not be read. The text names where it should be, never what it is.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SecretError(pub String);

impl SecretRef {
    /// Reads the secret, at most 64 KiB of it. A command gets 10 seconds. Cancel safe: a command
    /// is killed when the future is dropped.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Env(name) => from_environment(name),
            Self::File(path) => {
                let path = path.clone();
                // Not through tokio's file, whose buffers are not wiped.
                tokio::task::spawn_blocking(move || from_file(&path))
                    .await
                    .unwrap_or_else(|_| Err(SecretError("reading the secret broke off".to_owned())))
            }
            Self::Command(words, environment) => from_command(words, environment).await,
        }
    }

    /// Why the secret cannot be read now: a variable that is not set, a file that is not there. No
    /// command is run. Blocks on files.
    pub fn missing(&self) -> Option<SecretError> {
        match self {
            Self::Env(name) => from_environment(name).err(),
            Self::File(path) => from_file(path).err(),
            Self::Command(..) => None,
        }
    }

    /// Reads the secret as identities of age. Cancel safe.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub async fn identities(&self) -> Result<Vec<Identity>, SecretError> {
        let secret = self.read().await?;
        Identity::read_all(secret.expose()).map_err(|error| SecretError(error.to_string()))
    }
}

fn from_environment(name: &str) -> Result<Secret, SecretError> {
    let error = |problem| SecretError(format!("the environment variable {name} {problem}"));
    let text = std::env::var(name).map_err(|e| match e {
        std::env::VarError::NotPresent => error("is not set; set it where the gateway starts"),
        std::env::VarError::NotUnicode(_) => error("is not UTF-8"),
    })?;
    let text = Zeroizing::new(text);
    secret_of(text.as_bytes()).map_err(error)
}

fn from_file(path: &Path) -> Result<Secret, SecretError> {
    let error =
        |problem: &str| SecretError(format!("the secret file {} {problem}", path.display()));
    let unreadable = |e: io::Error| error(&format!("cannot be read: {e}"));
    let file = match files::open(path) {
        Err(e) if e.kind() == io::ErrorKind::Other => return Err(error("is not a regular file")),
        file => file.map_err(unreadable)?,
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET + 1));
    file.take(MAX_SECRET as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    secret_of(without_newline(&bytes)).map_err(error)
}

async fn from_command(words: &[String], environment: &[String]) -> Result<Secret, SecretError> {
    let (program, arguments) = words
        .split_first()
        .ok_or_else(|| SecretError("the secret's command is empty".to_owned()))?;
    // The arguments may tell more than an error should.
    let error = |problem: &str| SecretError(format!("the secret's command {program:?} {problem}"));
    let names = PASSED.into_iter().chain(environment.iter().map(String::as_str));
    let passed = names.filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(passed)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| error(&format!("cannot be run: {e}")))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(error("has no output"));
    };
    let run = async {
        let (output, complained) = tokio::join!(first(MAX_SECRET + 1, stdout), async {
            let mut stderr = stderr;
            // A full pipe would hold the command up. What it says is nobody's to see: it may hold
            // the secret, or another.
            tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await
        });
        io::Result::Ok((output?, complained?, child.wait().await?))
    };
    let (output, complained, status) = match tokio::time::timeout(COMMAND_TIME, run).await {
        Ok(done) => done.map_err(|e| error(&format!("cannot be read from: {e}")))?,
        Err(_) => return Err(error(&format!("took longer than {COMMAND_TIME:?}"))),
    };
    // One that wrote too much was cut off, and is told so rather than that it failed.
    if !status.success() && output.len() <= MAX_SECRET {
        return Err(error(&format!(
            "failed with {status}, and wrote {complained} bytes to standard error, which are not \
             shown; run it as the gateway's user, with PATH, HOME, LANG and what `pass_env` lists"
        )));
    }
    secret_of(without_newline(&output)).map_err(error)
}

/// Reads up to `most` bytes, into memory that is wiped. Not cancel safe.
async fn first(most: usize, mut from: impl AsyncRead + Unpin) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; most]);
    let mut filled = 0;
    while let Some(free) = bytes.get_mut(filled..).filter(|free| !free.is_empty()) {
        match from.read(free).await? {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

fn without_newline(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

fn secret_of(bytes: &[u8]) -> Result<Secret, &'static str> {
    if bytes.is_empty() {
        return Err("is empty");
    }
    if bytes.len() > MAX_SECRET {
        return Err("holds more than 64 KiB");
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    Ok(Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> SecretRef {
        SecretRef::Command(["sh", "-c", script].map(str::to_owned).to_vec(), Vec::new())
    }

    fn file(content: &[u8]) -> (tempfile::TempDir, SecretRef) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        (dir, SecretRef::File(path))
    }

    #[tokio::test]
    async fn a_file_gives_its_text_less_one_newline() {
        for (content, secret) in
            [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), ("abc\n\n", "abc\n")]
        {
            let (_dir, place) = file(content.as_bytes());
            assert_eq!(place.read().await.unwrap().expose(), secret, "{content:?}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_too_large_empty_binary_or_no_file_is_refused() {
        let (_dir, most) = file(&[b'x'; MAX_SECRET]);
        assert_eq!(most.read().await.unwrap().expose().len(), MAX_SECRET);
        for (content, problem) in [
            (&[b'x'; MAX_SECRET + 1][..], "more than 64 KiB"),
            (b"\n", "is empty"),
            (b"\xff", "not UTF-8"),
        ] {
            let (_dir, place) = file(content);
            let error = place.read().await.unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        let error = SecretRef::File("/".into()).read().await.unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
        let error = SecretRef::File("/no/such".into()).read().await.unwrap_err().to_string();
        assert!(error.starts_with("the secret file /no/such cannot be read"), "{error}");
    }

    #[tokio::test]
    async fn an_environment_variable_that_is_not_set_is_named() {
        let error = SecretRef::Env("PORTCULLIS_NO_SUCH".to_owned()).read().await.unwrap_err();
        assert!(error.to_string().contains("PORTCULLIS_NO_SUCH is not set"), "{error}");
    }

    #[tokio::test]
    async fn a_command_gives_its_output_and_has_no_input() {
        let secret = shell("cat; echo noise >&2; echo hunter2").read().await.unwrap();
        assert_eq!(secret.expose(), "hunter2");
    }

    #[tokio::test]
    async fn a_failed_command_shows_nothing_of_what_it_said() {
        let error = shell("echo hunter2; echo 'not hunter3' >&2; exit 3")
            .read()
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("exit status: 3") && error.contains("12 bytes"), "{error}");
        assert!(!error.contains("hunter"), "{error}");
        let command = SecretRef::Command(vec!["/no/such".to_owned()], Vec::new());
        let error = command.read().await.unwrap_err();
        assert!(error.to_string().contains("cannot be run"), "{error}");
    }

    #[tokio::test]
    async fn a_command_that_writes_without_end_is_cut_off() {
        let error = shell("yes").read().await.unwrap_err().to_string();
        assert!(error.contains("more than 64 KiB"), "{error}");
        let secret = shell("yes | head -c 1000000 >&2; echo fine").read().await.unwrap();
        assert_eq!(secret.expose(), "fine");
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_that_hangs_is_given_up_after_ten_seconds() {
        let started = tokio::time::Instant::now();
        let error = shell("exec sleep 600").read().await.unwrap_err().to_string();
        assert!(error.contains("took longer than 10s"), "{error}");
        assert_eq!(started.elapsed().as_secs(), 10);
    }
}
