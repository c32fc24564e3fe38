//! Logging in with a browser (keyboard-interactive): the client shows an address and a code, and
//! waits. There is nothing to type; the client is asked again and again without a question, so that
//! one that went away is noticed. The issuer is asked for a code once the client has answered the
//! first time: one that only connects costs no code and no place.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use russh::server::{Auth, Response};

use super::handler::Connection;
use crate::identity::login::Logins;
use crate::identity::relying_party::Device;
use crate::listener::{Share, Shares};

/// How long somebody may take in the browser.
const DEVICE_TIME: Duration = Duration::from_secs(300);
/// Clients that wait for a browser at a time, and how many of them one address may have. Each has
/// the issuer asked every few seconds.
const MAX_WAITING: usize = 256;
const WAITING_OF_ADDRESS: usize = 16;
/// A code counts against its address this long, even when the client left at once: so many are
/// opened in this time at most.
const CODE_TIME: Duration = Duration::from_secs(60);
/// How long a client may take to answer a question that nobody has to read: programs answer at
/// once, and some show a window first.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// Where people log in, and how many do.
#[derive(Debug)]
pub(super) struct Browsers {
    logins: Logins,
    room: Arc<Shares>,
}

/// What has become of a connection's one login with a browser.
#[derive(Default)]
pub(super) enum DeviceLogin {
    #[default]
    Untried,
    /// It was told that a login with a browser begins; the user.
    Asked(String),
    Waiting(Box<Waiting>),
    Over,
}

pub(super) struct Waiting {
    device: Device,
    user: String,
    until: Instant,
    _room: Share,
}

impl Browsers {
    pub(super) fn new(logins: Logins) -> Self {
        Self { logins, room: Shares::new(MAX_WAITING, WAITING_OF_ADDRESS, CODE_TIME) }
    }

    /// Whether there is a place to log in at.
    pub(super) fn any(&self) -> bool {
        !self.logins.is_empty()
    }

    async fn begin(&self, user: &str, client: IpAddr) -> Result<Waiting, String> {
        let room = self.room.take(client);
        let room = room.ok_or_else(|| "too many wait for a browser".to_owned())?;
        let device = self.logins.begin_device().await.map_err(|error| error.to_string())?;
        let until = device.ends.min(Instant::now() + DEVICE_TIME);
        Ok(Waiting { device, user: user.to_owned(), until, _room: room })
    }
}

impl Waiting {
    fn shown(&self) -> String {
        let (address, code) = (&self.device.address, &self.device.user_code);
        format!(
            "To log in, open {address}\nand enter the code {code}. This waits until that is done."
        )
    }
}

/// Says something, or nothing, and asks nothing.
fn say(text: String) -> Auth {
    let (name, prompts) = (Cow::Borrowed(""), Cow::Borrowed(&[][..]));
    Auth::Partial { name, instructions: Cow::Owned(text), prompts }
}

impl Connection {
    /// One step of a login with a browser.
    pub(super) async fn with_browser(&mut self, user: &str, answers: Option<Response<'_>>) -> Auth {
        let context = Arc::clone(&self.context);
        let browsers = &context.browsers;
        let answered = answers.map(Iterator::count);
        if self.presented {
            return self.refused();
        }
        let step = match (std::mem::replace(&mut self.device, DeviceLogin::Over), answered) {
            (DeviceLogin::Untried, None) => {
                self.device = DeviceLogin::Asked(user.to_owned());
                return say(String::new());
            }
            (DeviceLogin::Asked(asked), Some(0)) if asked == user => {
                let waiting = browsers.begin(user, self.client.ip()).await;
                waiting.map(|waiting| {
                    let shown = waiting.shown();
                    (Box::new(waiting), shown)
                })
            }
            // Whoever answers, or is somebody else by now, was not asked.
            (DeviceLogin::Waiting(mut waiting), Some(0)) if waiting.user == user => {
                let asked = waiting.device.ask().await;
                match asked.and_then(|granted| {
                    granted.map(|granted| browsers.logins.of_device(granted)).transpose()
                }) {
                    Ok(None) if Instant::now() < waiting.until => Ok((waiting, String::new())),
                    Ok(None) => Err("nobody logged in in time".to_owned()),
                    Ok(Some(token)) => {
                        let login = self.caller(user).with_token(token).await;
                        return match login {
                            Some(login) => self.proved(Some(login)),
                            None => Auth::reject(),
                        };
                    }
                    Err(error) => Err(error.to_string()),
                }
            }
            _ => Err("a login with a browser that goes another way".to_owned()),
        };
        match step {
            Ok((waiting, text)) => {
                // As long as it answers.
                let answer = Instant::now() + waiting.device.interval() + ANSWER_TIME;
                self.deadline.extend(waiting.until.min(answer));
                self.device = DeviceLogin::Waiting(waiting);
                say(text)
            }
            Err(why) => {
                self.caller(user).denied(None, &format!("device login: {why}"));
                Auth::reject()
            }
        }
    }
}
