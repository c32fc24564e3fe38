//! The few pages: no script, one style sheet, everything foreign escaped.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::oauth::Params;
use super::settings::{Client, Settings, origin};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:32rem;margin:3rem auto;\
padding:0 1rem;color:#222;background:#fff}.warning{background:#b00020;color:#fff;padding:.5rem 1rem}\
label{display:block;margin:.3rem 0}button{font:inherit;margin:1rem .5rem 0 0;padding:.3rem 1rem}\
.error{color:#b00020}";

/// What of an authorization request the login form carries.
const CARRIED: &[&str] = &[
    "client_id",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "audience",
    "resource",
];

pub(super) async fn welcome() -> Response {
    message("Development issuer", "Discovery is at /.well-known/openid-configuration.")
}

pub(super) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)
}

/// A page that only says something.
pub(super) fn message(title: &str, text: &str) -> Response {
    page(title, &format!("<p>{}</p>", escape(text)), "'none'")
}

/// Asks who logs in to a client.
pub(super) fn login(
    settings: &Settings,
    client: &Client,
    redirect_uri: &str,
    params: &Params,
    problem: Option<&str>,
) -> Response {
    let mut body = format!("<p>Log in to <strong>{}</strong>.</p>", escape(&client.id));
    if let Some(problem) = problem {
        body.push_str(&format!("<p class=\"error\">{}</p>", escape(problem)));
    }
    body.push_str("<form method=\"post\" action=\"/authorize\">");
    for name in CARRIED {
        if let Some(value) = params.get(name) {
            body.push_str(&hidden(name, value));
        }
    }
    body.push_str(&users(settings));
    body.push_str("<button>Log in</button></form>");
    // Browsers hold the redirect after a form to form-action as well.
    let target = origin(redirect_uri).unwrap_or_default();
    page("Log in", &body, &format!("'self' {target}"))
}

/// Asks for the code that a device shows or, once it is known, whether the device may go on.
pub(super) fn device(settings: &Settings, user_code: &str, client: Option<&str>) -> Response {
    let body = match client {
        None => format!(
            "<form method=\"get\" action=\"/device\"><label>Code shown by your device \
             <input name=\"user_code\" value=\"{}\" autocomplete=\"off\" required></label>\
             <button>Next</button></form>",
            escape(user_code)
        ),
        Some(client) => format!(
            "<p><strong>{}</strong> asks for a token with the code <strong>{}</strong>. Approve \
             only what you started yourself.</p><form method=\"post\" action=\"/device\">{}{}\
             <button name=\"decision\" value=\"approve\">Approve</button>\
             <button name=\"decision\" value=\"deny\">Deny</button></form>",
            escape(client),
            escape(user_code),
            hidden("user_code", user_code),
            users(settings)
        ),
    };
    page("Device login", &body, "'self'")
}

fn users(settings: &Settings) -> String {
    let mut out = String::from("<fieldset><legend>User</legend>");
    for user in &settings.users {
        out.push_str(&format!(
            "<label><input type=\"radio\" name=\"user\" value=\"{0}\" required> {0} ({1})</label>",
            escape(&user.name),
            escape(&user.groups.join(", "))
        ));
    }
    out.push_str("</fieldset>");
    if settings.users.iter().any(|user| user.password.is_some()) {
        out.push_str(
            "<label>Password <input type=\"password\" name=\"password\" \
             autocomplete=\"current-password\"></label>",
        );
    }
    out
}

fn hidden(name: &str, value: &str) -> String {
    format!("<input type=\"hidden\" name=\"{}\" value=\"{}\">", escape(name), escape(value))
}

fn page(title: &str, body: &str, form_action: &str) -> Response {
    let title = escape(title);
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <title>{title} – DEVELOPMENT ISSUER</title><link rel=\"stylesheet\" href=\"/style.css\">\
         </head><body><p class=\"warning\">Portcullis development issuer: not for production.</p>\
         <h1>{title}</h1>{body}</body></html>"
    );
    let policy = format!(
        "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; \
         form-action {form_action}"
    );
    match HeaderValue::from_str(&policy) {
        Ok(policy) => ([(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_text() {
        assert_eq!(
            escape("<script>\"a\" & 'b'</script>"),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;"
        );
    }
}
