//! Logins in a browser: the cookies, and who comes with them.
//!
//! A page is shown to who is logged in; a form counts when it carries what only this login's own
//! pages know. What people may then is decided where it is for the API: [`super::caller`].

use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};

use super::pages::Doors;
use crate::database::Database;
use crate::identity::browser::Browsers;
use crate::identity::login::{Attempt, Logins};
use crate::secret::Secret;

/// Where an issuer sends browsers back to; where there are several, the issuer's name follows.
pub(super) const CALLBACK: &str = "/login/callback";
/// How long somebody may take at the issuer, in seconds.
const ATTEMPT_SECONDS: u32 = 600;
/// The longest place to go to after a login.
const MAX_TO: usize = 2000;

/// How people come in by a browser.
#[derive(Debug)]
pub struct Entrance {
    pub(super) logins: Logins,
    pub(super) browsers: Browsers,
    pub(super) doors: Doors,
    public_url: Option<String>,
}

impl Entrance {
    /// The logins of these issuers, kept in this database. Browsers reach the pages at
    /// `public_url`; without one nobody can be sent back from an issuer.
    pub fn new(
        logins: Logins,
        database: Database,
        doors: Doors,
        public_url: Option<String>,
    ) -> Self {
        Self { logins, browsers: Browsers::new(database), doors, public_url }
    }

    /// Where an issuer sends browsers back to: no two issuers share an address.
    pub(super) fn callback(&self, issuer: &str) -> Option<String> {
        let url = self.public_url.as_ref()?;
        Some(match self.logins.redirect_part(issuer) {
            None => format!("{url}{CALLBACK}"),
            Some(name) => format!("{url}{CALLBACK}/{name}"),
        })
    }

    /// Whether browsers can be sent back here.
    pub(super) fn has_address(&self) -> bool {
        self.public_url.is_some()
    }

    /// The pages' first address, for the issuer's own logout.
    pub(super) fn front(&self) -> Option<String> {
        self.public_url.as_ref().map(|url| format!("{url}/"))
    }

    fn is_secure(&self) -> bool {
        self.public_url.as_ref().is_some_and(|url| url.starts_with("https://"))
    }

    /// The secret of a login that a browser sent.
    pub(super) fn secret(&self, parts: &Parts) -> Option<Secret> {
        cookie(&parts.headers, &self.name("portcullis"))
    }

    /// The attempt that a browser began.
    pub(super) fn attempt(&self, headers: &HeaderMap) -> Option<Attempt> {
        let text = cookie(headers, &self.name("portcullis-login"))?;
        Attempt::from_cookie(text.expose())
    }

    /// The header that keeps a login in the browser until it is closed.
    pub(super) fn keep(&self, secret: &Secret) -> Option<HeaderValue> {
        self.set("portcullis", secret.expose(), None)
    }

    /// The header that makes the browser forget a login.
    pub(super) fn forget(&self) -> Option<HeaderValue> {
        self.set("portcullis", "", Some(0))
    }

    /// The header that keeps an attempt in the browser.
    pub(super) fn keep_attempt(&self, attempt: &Attempt) -> Option<HeaderValue> {
        self.set("portcullis-login", attempt.cookie().expose(), Some(ATTEMPT_SECONDS))
    }

    /// The header that makes the browser forget an attempt.
    pub(super) fn forget_attempt(&self) -> Option<HeaderValue> {
        self.set("portcullis-login", "", Some(0))
    }

    /// With TLS, no other host and no open line can set a cookie of this name.
    fn name(&self, name: &str) -> String {
        if self.is_secure() { format!("__Host-{name}") } else { name.to_owned() }
    }

    fn set(&self, name: &str, value: &str, seconds: Option<u32>) -> Option<HeaderValue> {
        let name = self.name(name);
        let secure = if self.is_secure() { "; Secure" } else { "" };
        let age = seconds.map(|seconds| format!("; Max-Age={seconds}")).unwrap_or_default();
        // Lax: a link in a message, and the way back from the issuer, bring it; a form does not.
        let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax{secure}{age}");
        let mut header = HeaderValue::from_str(&text).ok()?;
        header.set_sensitive(true);
        Some(header)
    }
}

/// The one cookie of that name; several are none, because one of them is somebody else's.
fn cookie(headers: &HeaderMap, name: &str) -> Option<Secret> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut found = all.flat_map(|line| line.split(';')).filter_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    });
    let (Some(value), None) = (found.next(), found.next()) else { return None };
    Some(Secret::new(value.to_owned()))
}

/// A place of ours to go to after a login: a path, so that nobody is sent elsewhere.
pub(super) fn place_to_go(text: &str) -> Option<&str> {
    let rest = text.strip_prefix('/')?;
    let fine = text.len() <= MAX_TO
        && !rest.starts_with(['/', '\\'])
        && !text.starts_with("/log")
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    fine.then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entrance(url: &str) -> Entrance {
        let database = Database::from_url("postgres://nobody@127.0.0.1:1/none").unwrap();
        let doors = Doors::new(Some(url), &crate::config::Listen::default(), false);
        Entrance::new(Logins::new(&[]).unwrap(), database, doors, Some(url.to_owned()))
    }

    #[tokio::test]
    async fn with_tls_a_cookie_is_of_this_host_and_never_over_an_open_line() {
        let text = |url| {
            let kept = entrance(url).keep(&Secret::new("s".to_owned())).unwrap();
            kept.to_str().unwrap().to_owned()
        };
        let over_tls = "__Host-portcullis=s; Path=/; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(text("https://gate.example"), over_tls);
        assert_eq!(text("http://127.0.0.1:1"), "portcullis=s; Path=/; HttpOnly; SameSite=Lax");
    }

    #[test]
    fn one_cookie_of_a_name_counts_and_two_do_not() {
        let of = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::COOKIE, line.parse().unwrap());
            }
            cookie(&headers, "portcullis").map(|secret| secret.expose().to_owned())
        };
        assert_eq!(of(&["a=b; portcullis=x"]).as_deref(), Some("x"));
        assert_eq!(of(&["portcullis=x; portcullis=y"]), None);
        assert_eq!(of(&["portcullis=x", "portcullis=y"]), None);
        assert_eq!(of(&["portcullis-login=x", "xportcullis=y"]), None);
    }

    #[test]
    fn after_a_login_nobody_is_sent_elsewhere() {
        for good in ["/", "/sessions?text=a%20b&limit=2", "/approvals/0198"] {
            assert_eq!(place_to_go(good), Some(good));
        }
        for bad in [
            "",
            "sessions",
            "//evil.example",
            "/\\evil.example",
            "/a\\b",
            "https://evil.example",
            "/a\r\nset-cookie: x",
            "/a b",
            "/é",
            "/login?to=/",
            "/logout",
            "javascript:alert(1)",
        ] {
            assert_eq!(place_to_go(bad), None, "{bad}");
        }
        assert_eq!(place_to_go(&format!("/{}", "a".repeat(MAX_TO))), None);
    }
}
