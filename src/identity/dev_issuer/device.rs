//! Device authorization (RFC 8628): a device shows a short code, a person types it into a page,
//! the device polls until that is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::{Form, Json};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::oauth::{self, OAuthError, Params, random_text};
use super::settings::Grant;
use super::{Issuer, pages};

/// How long a device code is good for.
const LIFETIME: Duration = Duration::from_secs(600);

/// How much longer a device must wait each time it polled too soon (RFC 8628 section 3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);

/// How many device codes may be open at once.
const MAX_OPEN: usize = 1000;

/// RFC 8628 section 6.1: letters that are hard to confuse and spell no words.
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// The open device codes, by code.
#[derive(Debug, Default)]
pub(super) struct Devices(HashMap<String, Device>);

#[derive(Debug)]
struct Device {
    user_code: String,
    asked: Asked,
    state: Progress,
    expires: Instant,
    interval: Duration,
    polled: Option<Instant>,
}

/// What the device asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) client_id: String,
    pub(super) audience: String,
    pub(super) scope: String,
}

#[derive(Debug, Clone)]
enum Progress {
    Pending,
    Approved(String),
    Denied,
}

/// What a poll finds.
#[derive(Debug)]
pub(super) enum Poll {
    Approved {
        user: String,
        asked: Asked,
    },
    /// With the error to answer.
    Not(&'static str),
}

impl Devices {
    /// Opens a device code; `None` when too many are open.
    fn open(
        &mut self,
        code: String,
        user_code: String,
        asked: Asked,
        interval: Duration,
    ) -> Option<()> {
        let now = Instant::now();
        self.0.retain(|_, device| device.expires > now);
        if self.0.len() >= MAX_OPEN || self.by_user_code(&user_code).is_some() {
            return None;
        }
        let device = Device {
            user_code,
            asked,
            state: Progress::Pending,
            expires: now + LIFETIME,
            interval,
            polled: None,
        };
        self.0.insert(code, device);
        Some(())
    }

    /// The client that waits for this user code.
    fn waiting(&mut self, user_code: &str) -> Option<String> {
        self.by_user_code(user_code).map(|device| device.asked.client_id.clone())
    }

    /// Settles a pending user code once: approved by a user, or denied.
    fn settle(&mut self, user_code: &str, approved_by: Option<&str>) -> bool {
        let Some(device) = self.by_user_code(user_code) else { return false };
        device.state = match approved_by {
            Some(user) => Progress::Approved(user.to_owned()),
            None => Progress::Denied,
        };
        true
    }

    pub(super) fn poll(&mut self, code: &str, client_id: &str) -> Poll {
        let now = Instant::now();
        let Some(device) = self.0.get_mut(code).filter(|d| d.asked.client_id == client_id) else {
            return Poll::Not("invalid_grant");
        };
        if device.expires <= now {
            self.0.remove(code);
            return Poll::Not("expired_token");
        }
        let early = device.polled.is_some_and(|last| now < last + device.interval);
        device.polled = Some(now);
        if early {
            device.interval += SLOW_DOWN;
            return Poll::Not("slow_down");
        }
        match device.state.clone() {
            Progress::Pending => Poll::Not("authorization_pending"),
            Progress::Denied => {
                self.0.remove(code);
                Poll::Not("access_denied")
            }
            Progress::Approved(user) => match self.0.remove(code) {
                Some(device) => Poll::Approved { user, asked: device.asked },
                None => Poll::Not("invalid_grant"),
            },
        }
    }

    fn by_user_code(&mut self, user_code: &str) -> Option<&mut Device> {
        let now = Instant::now();
        self.0.values_mut().find(|device| {
            device.user_code == user_code
                && device.expires > now
                && matches!(device.state, Progress::Pending)
        })
    }
}

/// `POST /device_authorization`
pub(super) async fn authorize(
    State(issuer): State<Arc<Issuer>>,
    headers: HeaderMap,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Json<Value>, OAuthError> {
    let params = Params::new(pairs)?;
    let client = oauth::client(&issuer.settings, &headers, &params)?;
    if !client.may(Grant::DeviceCode) {
        return Err(OAuthError::new("unauthorized_client", "not a grant of this client"));
    }
    let asked = Asked {
        client_id: client.id.clone(),
        audience: issuer.audience(&params)?.to_owned(),
        scope: params.get("scope").unwrap_or_default().to_owned(),
    };
    let (code, user_code) = (random_text()?, user_code()?);
    let interval = Duration::from_secs(issuer.settings.device_interval_seconds);
    issuer.devices.lock().open(code.clone(), user_code.clone(), asked, interval).ok_or_else(
        || OAuthError::new("temporarily_unavailable", "too many devices wait for their users"),
    )?;
    let page = format!("{}/device", issuer.url);
    Ok(Json(json!({
        "device_code": code,
        "verification_uri_complete": format!("{page}?user_code={user_code}"),
        "user_code": user_code,
        "verification_uri": page,
        "expires_in": LIFETIME.as_secs(),
        "interval": interval.as_secs(),
    })))
}

/// `GET /device`: where a person types the code.
pub(super) async fn ask(
    State(issuer): State<Arc<Issuer>>,
    Query(pairs): Query<Vec<(String, String)>>,
) -> Result<Response, OAuthError> {
    let params = Params::new(pairs)?;
    let user_code = normalized(params.get("user_code").unwrap_or_default());
    let client = issuer.devices.lock().waiting(&user_code);
    Ok(pages::device(&issuer.settings, &user_code, client.as_deref()))
}

/// `POST /device`: the person's answer.
pub(super) async fn answer(
    State(issuer): State<Arc<Issuer>>,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response, OAuthError> {
    let params = Params::new(pairs)?;
    let user_code = normalized(params.require("user_code")?);
    let approves = params.get("decision") == Some("approve");
    let user = if approves {
        let Some(user) = issuer.log_in(&params) else {
            return Ok(pages::message("Not logged in", "Unknown user or wrong password."));
        };
        Some(user.name.as_str())
    } else {
        None
    };
    Ok(match (issuer.devices.lock().settle(&user_code, user), approves) {
        (false, _) => pages::message("No such code", "It may have expired; start again."),
        (true, true) => pages::message("Device approved", "Go back to your device."),
        (true, false) => pages::message("Device denied", "It gets no token."),
    })
}

/// Eight letters in two groups.
fn user_code() -> Result<String, OAuthError> {
    let mut code = String::new();
    while code.len() < 8 {
        let mut byte = [0];
        aws_lc_rs::rand::fill(&mut byte).map_err(OAuthError::internal)?;
        // 240 is the largest multiple of 20 in a byte: no letter is likelier than another.
        let [byte] = byte;
        if byte < 240
            && let Some(letter) = LETTERS.get(usize::from(byte % 20))
        {
            code.push(char::from(*letter));
        }
    }
    code.insert(4, '-');
    Ok(code)
}

/// A code as people type it: any case, any separators.
fn normalized(typed: &str) -> String {
    let mut code: String = typed
        .chars()
        .filter(char::is_ascii_alphabetic)
        .map(|letter| letter.to_ascii_uppercase())
        .take(8)
        .collect();
    if code.len() > 4 {
        code.insert(4, '-');
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked {
            client_id: "cli".to_owned(),
            audience: "portcullis".to_owned(),
            scope: String::new(),
        }
    }

    fn opened(devices: &mut Devices, code: &str) {
        let interval = Duration::from_secs(5);
        devices.open(code.to_owned(), format!("USER-{code}"), asked(), interval).unwrap();
    }

    fn refusal(poll: &Poll) -> &'static str {
        match *poll {
            Poll::Not(code) => code,
            Poll::Approved { .. } => "approved",
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_that_polls_too_soon_must_wait_longer() {
        let mut devices = Devices::default();
        opened(&mut devices, "d");
        assert_eq!(refusal(&devices.poll("d", "cli")), "authorization_pending");
        assert_eq!(refusal(&devices.poll("d", "cli")), "slow_down");
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(refusal(&devices.poll("d", "cli")), "slow_down");
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!(refusal(&devices.poll("d", "cli")), "authorization_pending");
    }

    #[tokio::test(start_paused = true)]
    async fn a_device_code_is_for_its_client_once_and_for_ten_minutes() {
        let mut devices = Devices::default();
        opened(&mut devices, "d");
        assert_eq!(refusal(&devices.poll("d", "other")), "invalid_grant");
        assert!(devices.settle("USER-d", Some("alice")));
        assert!(!devices.settle("USER-d", Some("mallory")));
        assert!(matches!(devices.poll("d", "cli"), Poll::Approved { user, .. } if user == "alice"));
        assert_eq!(refusal(&devices.poll("d", "cli")), "invalid_grant");
        opened(&mut devices, "e");
        tokio::time::advance(LIFETIME).await;
        assert!(!devices.settle("USER-e", Some("alice")));
        assert_eq!(refusal(&devices.poll("e", "cli")), "expired_token");
    }

    #[tokio::test(start_paused = true)]
    async fn open_device_codes_are_bounded() {
        let mut devices = Devices::default();
        for n in 0..MAX_OPEN {
            opened(&mut devices, &n.to_string());
        }
        let interval = Duration::ZERO;
        assert!(devices.open("x".to_owned(), "X".to_owned(), asked(), interval).is_none());
        tokio::time::advance(LIFETIME).await;
        opened(&mut devices, "x");
        assert_eq!(devices.0.len(), 1);
    }

    #[test]
    fn a_user_code_may_be_typed_as_people_do() {
        let code = user_code().unwrap();
        assert_eq!(normalized(&format!(" {} ", code.to_lowercase().replace('-', " "))), code);
    }
}
