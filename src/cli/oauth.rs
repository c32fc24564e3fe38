//! Getting tokens from an issuer: client credentials (RFC 6749 section 4.4) and device
//! authorization (RFC 8628).

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hyper::StatusCode;
use serde::Deserialize;

use super::http::Client;
use super::output;
use crate::secret::Secret;

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// RFC 8628 section 3.2: when the issuer says nothing, and how much `slow_down` adds.
const INTERVAL: u64 = 5;
/// The longest that an issuer may have us wait between two polls, and for a person.
const LONGEST: (u64, u64) = (60, 3600);

/// An issuer's addresses.
#[derive(Debug, Deserialize)]
pub(super) struct Endpoints {
    issuer: String,
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
}

/// A token and for how many seconds it is good.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) token: Secret,
    pub(super) expires_in: Option<u64>,
}

/// What a person has to do.
#[derive(Debug, Deserialize)]
pub(super) struct Device {
    device_code: String,
    pub(super) user_code: String,
    pub(super) verification_uri: String,
    expires_in: u64,
    interval: Option<u64>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Option<String>,
    expires_in: Option<u64>,
    error: Option<String>,
    error_description: Option<String>,
}

impl Endpoints {
    /// Reads the issuer's discovery document.
    pub(super) async fn of(client: &Client, issuer: &str) -> anyhow::Result<Self> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let (status, body) = client.get(&url).await?;
        if status != StatusCode::OK {
            bail!("{url} answered {status}");
        }
        let endpoints: Self = serde_json::from_slice(&body)
            .with_context(|| format!("{url} is no discovery document"))?;
        if endpoints.issuer != issuer {
            bail!("{url} is of issuer {:?}, not of {issuer:?}", endpoints.issuer);
        }
        Ok(endpoints)
    }

    /// A token for a machine client of its own.
    pub(super) async fn client_credentials(
        &self,
        client: &Client,
        login: (&str, &Secret),
        audience: &str,
        scope: Option<&str>,
    ) -> anyhow::Result<Granted> {
        let mut fields = vec![("grant_type", "client_credentials"), ("audience", audience)];
        fields.extend(scope.map(|scope| ("scope", scope)));
        let (_, body) = client.post(&self.token_endpoint, &fields, Some(login)).await?;
        answer(&body)?.map_err(|refused| anyhow::anyhow!("the issuer gave no token: {}", refused.1))
    }

    /// Opens a device code.
    pub(super) async fn device(
        &self,
        client: &Client,
        client_id: &str,
        audience: &str,
        scope: &str,
    ) -> anyhow::Result<Device> {
        let url = self.device_authorization_endpoint.as_ref();
        let url = url.context("the issuer offers no device login")?;
        let fields = [("client_id", client_id), ("scope", scope), ("audience", audience)];
        let (status, body) = client.post(url, &fields, None).await?;
        if status != StatusCode::OK {
            let refused = answer(&body)?.err().map(|(_, text)| text).unwrap_or_default();
            bail!("the issuer opens no device login: {refused}");
        }
        serde_json::from_slice(&body).context("the issuer's answer is not understood")
    }

    /// Waits until the person has logged in.
    pub(super) async fn wait(
        &self,
        client: &Client,
        client_id: &str,
        device: &Device,
    ) -> anyhow::Result<Granted> {
        let fields = [
            ("grant_type", DEVICE_GRANT),
            ("device_code", &device.device_code),
            ("client_id", client_id),
        ];
        let ends = Instant::now() + Duration::from_secs(device.expires_in.min(LONGEST.1));
        let mut interval = device.interval.unwrap_or(INTERVAL);
        while Instant::now() < ends {
            tokio::time::sleep(Duration::from_secs(interval.clamp(1, LONGEST.0))).await;
            let (_, body) = client.post(&self.token_endpoint, &fields, None).await?;
            match answer(&body)? {
                Ok(granted) => return Ok(granted),
                Err((code, _)) if code == "authorization_pending" => {}
                Err((code, _)) if code == "slow_down" => {
                    interval = interval.saturating_add(INTERVAL);
                }
                Err((_, text)) => bail!("no login: {text}"),
            }
        }
        bail!("nobody logged in in time; run it again")
    }
}

/// A token, or the code and text of why there is none.
fn answer(body: &[u8]) -> anyhow::Result<Result<Granted, (String, String)>> {
    let answer: TokenAnswer =
        serde_json::from_slice(body).context("the issuer's answer is not understood")?;
    Ok(match answer.access_token {
        Some(token) => Ok(Granted { token: Secret::new(token), expires_in: answer.expires_in }),
        None => {
            let code = answer.error.unwrap_or_default();
            let text = answer.error_description.unwrap_or_else(|| code.clone());
            Err((code, output::visible(&text)))
        }
    })
}
