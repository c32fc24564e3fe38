//! `portcullis ssh-cert`: a key and a short-lived certificate, for SSH clients.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use hyper::StatusCode;

use super::gateway::refusal;
use super::http::Client;
use super::{login, output};
use crate::identity::ssh_key;
use crate::secret::Secret;
use crate::web::certificates::Issued;

/// How long a gateway that is not ready yet is asked again, and how often.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(300);

/// Make an SSH key and have the gateway sign a certificate for it.
///
/// The certificate stands in for the token until it ends, at most 12 hours from now; ssh, scp,
/// sftp, rsync, git and Ansible take key and certificate with `-i FILE`. The key never leaves this
/// machine. One that is there is used again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  portcullis ssh-cert --server https://portcullis.example.com \
                  --out ~/.ssh/portcullis\n  ssh -i ~/.ssh/portcullis -p 2222 web-1@portcullis.example.com")]
pub(super) struct Options {
    /// The gateway's API.
    #[arg(long, value_name = "URL", env = "PORTCULLIS_SERVER")]
    server: String,
    /// The file that holds the token, instead of the token of `portcullis login`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where the private key goes; the certificate goes beside it, as FILE-cert.pub.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(options: Options) -> anyhow::Result<()> {
    let file = &options.out;
    let shown = file.display();
    let token = match &options.token_file {
        Some(file) => token_in(file)?,
        None => login::token_for(&options.server)?,
    };
    let key = ssh_key::read_or_make(file, "portcullis")
        .with_context(|| format!("{shown} cannot be used as a key"))?;
    let public_key = key.public_key().to_openssh()?;
    let url = format!("{}/api/v1/ssh/certificates", options.server.trim_end_matches('/'));
    let wanted = serde_json::json!({ "public_key": public_key });
    let client = Client::new()?;
    let asked = Instant::now();
    let (status, body) = loop {
        let (status, body) = client.post_json(&url, &wanted, &token).await?;
        // A gateway that has just started has no audit log yet.
        if status != StatusCode::SERVICE_UNAVAILABLE || asked.elapsed() > PATIENCE {
            break (status, body);
        }
        tokio::time::sleep(PAUSE).await;
    };
    if status != StatusCode::OK {
        bail!(refusal(status, &body));
    }
    let issued: Issued =
        serde_json::from_slice(&body).context("the gateway's answer is not understood")?;
    let certificate = ssh_key::beside(file, "-cert.pub");
    fs::write(&certificate, format!("{}\n", issued.certificate))
        .with_context(|| format!("{} cannot be written", certificate.display()))?;
    if options.json {
        return output::print_json(&serde_json::json!({
            "key": file,
            "certificate": certificate,
            "targets": issued.targets,
            "expires": issued.expires,
        }));
    }
    let targets = output::visible(&issued.targets.join(", "));
    let expires = output::visible(&issued.expires);
    output::print(&format!("{shown}: good for {targets} until {expires}"))?;
    Ok(())
}

fn token_in(file: &Path) -> anyhow::Result<Secret> {
    let read = || -> io::Result<Secret> {
        let text = crate::files::read_text(file, crate::files::MAX_KEY_FILE)?;
        Ok(Secret::new(text.trim().to_owned()))
    };
    read().with_context(|| format!("{} cannot be read", file.display()))
}
