//! Login by a device code (RFC 8628): a program that has no browser shows an address and a short
//! code, a person logs in there, and the program asks the issuer whether that is done.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::{Client, Logins, NoLogin, endpoint, form};
use crate::identity::Refused;
use crate::secret::Secret;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// When the issuer says nothing, and how much `slow_down` adds. Source: RFC 8628, sections 3.2, 3.5.
const INTERVAL: u64 = 5;
/// The longest that an issuer may have us wait between two questions.
const LONGEST_INTERVAL: u64 = 30;
/// The longest code and address that people are shown.
const MAX_CODE: usize = 64;
const MAX_ADDRESS: usize = 512;

/// A login that somebody was asked for.
#[derive(Debug)]
pub struct Device {
    issuer: String,
    code: Secret,
    user_code: String,
    address: String,
    interval: u64,
    ends: Instant,
}

/// What has become of it.
#[derive(Debug)]
pub enum Progress {
    /// Nobody has logged in yet.
    Waiting,
    /// What was given to who logged in; nothing in it is proved.
    Token(Secret),
}

/// What the issuer says of a new code.
#[derive(Deserialize)]
struct Opened {
    device_code: String,
    user_code: String,
    verification_uri: String,
    expires_in: u64,
    interval: Option<u64>,
}

/// What the issuer answers a question.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    id_token: Option<String>,
    error: Option<String>,
}

impl Device {
    /// The code to type.
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// Where to type it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How long to wait before asking.
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.interval.clamp(1, LONGEST_INTERVAL))
    }

    /// When the code ends.
    pub fn ends(&self) -> Instant {
        self.ends
    }
}

impl Logins {
    /// Whether there is an issuer to log in at.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Opens a code at the first issuer.
    ///
    /// # Errors
    /// When the issuer cannot be asked, or knows no such logins.
    pub async fn begin_device(&self) -> Result<Device, NoLogin> {
        let Some(client) = self.clients.first() else {
            return Err(NoLogin::Issuer("none has a client_id".to_owned()));
        };
        client.begin_device().await
    }

    /// Asks whether somebody has logged in.
    ///
    /// # Errors
    /// When nobody will any more, or the issuer cannot be asked.
    pub async fn poll_device(&self, device: &mut Device) -> Result<Progress, NoLogin> {
        self.client(&device.issuer)?.poll_device(device).await
    }
}

impl Client {
    async fn begin_device(&self) -> Result<Device, NoLogin> {
        let wrong = |what: &str| NoLogin::Issuer(what.to_owned());
        let place = self.endpoints().await?.device_authorization_endpoint;
        let place = endpoint(&place.ok_or_else(|| wrong("it offers no device login"))?)
            .map_err(NoLogin::Issuer)?;
        let mut fields = vec![("scope", super::SCOPE)];
        fields.extend(self.audience().map(|audience| ("audience", audience)));
        let login = self.own(&mut fields).await?;
        let body = Secret::new(form(fields.into_iter()));
        let answer = self.fetcher.post_form(&place, &body, login.as_ref()).await?;
        let opened: Opened = serde_json::from_slice(&answer)
            .map_err(|_| wrong("what it answers is no device code"))?;
        let plain =
            |text: &str, most| text.len() <= most && text.chars().all(|c| c.is_ascii_graphic());
        if !plain(&opened.user_code, MAX_CODE) || !plain(&opened.verification_uri, MAX_ADDRESS) {
            return Err(wrong("its code or address is nothing to show to people"));
        }
        endpoint(&opened.verification_uri).map_err(NoLogin::Issuer)?;
        let lives = Duration::from_secs(opened.expires_in.min(3600));
        Ok(Device {
            issuer: self.settings.name.clone(),
            code: Secret::new(opened.device_code),
            user_code: opened.user_code,
            address: opened.verification_uri,
            interval: opened.interval.unwrap_or(INTERVAL),
            ends: Instant::now() + lives,
        })
    }

    async fn poll_device(&self, device: &mut Device) -> Result<Progress, NoLogin> {
        let place = endpoint(&self.endpoints().await?.token_endpoint).map_err(NoLogin::Issuer)?;
        let mut fields = vec![("grant_type", GRANT), ("device_code", device.code.expose())];
        let login = self.own(&mut fields).await?;
        let body = Secret::new(form(fields.into_iter()));
        let answer = self.fetcher.ask(&place, &body, login.as_ref()).await?;
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| NoLogin::Issuer(format!("{place} gave no tokens")))?;
        match answer.error.as_deref() {
            Some("authorization_pending") => return Ok(Progress::Waiting),
            Some("slow_down") => {
                device.interval = device.interval.saturating_add(INTERVAL);
                return Ok(Progress::Waiting);
            }
            Some("access_denied") => return refused("the login was denied at the issuer"),
            Some("expired_token") => return refused("nobody logged in in time"),
            Some(_) => return refused("the issuer gave no token"),
            None => {}
        }
        let token = if self.accepts_access() { answer.access_token } else { answer.id_token };
        let token = token.ok_or_else(|| NoLogin::Issuer("it gave no token".to_owned()))?;
        Ok(Progress::Token(Secret::new(token)))
    }
}

fn refused<T>(why: &str) -> Result<T, NoLogin> {
    Err(NoLogin::Refused(Refused(why.to_owned())))
}
