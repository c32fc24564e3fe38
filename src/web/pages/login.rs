//! Coming in and going out.

use std::collections::BTreeMap;
use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::Value;

use super::visitor::{Posted, Turned, Visitor};
use super::{Failed, Frame, Shown, page};
use crate::identity::browser::NotOpened;
use crate::identity::login::{Answer, Attempt, NoLogin};
use crate::percent::encoded;
use crate::web::api::Api;
use crate::web::caller::{Arrival, Caller};
use crate::web::login_cookies::{CALLBACK, place_to_go};
use crate::web::problem::Problem;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/", get(front))
        .route("/login", get(login))
        .route(CALLBACK, get(callback))
        .route(&format!("{CALLBACK}/{{issuer}}"), get(callback))
        .route("/logout", post(logout))
}

/// An issuer to log in at.
struct Way {
    name: String,
    link: String,
}

#[derive(Template)]
#[template(path = "front.html")]
struct FrontPage {
    frame: Frame,
    ways: Vec<Way>,
    /// What the configuration lacks for a login.
    missing: Option<&'static str>,
}

/// The first page: for who is logged in what there is to do, for others the way in.
async fn front(State(api): State<Arc<Api>>, request: axum::extract::Request) -> Shown {
    let (parts, _) = request.into_parts();
    match Visitor::of(&parts, &api).await? {
        Some(visitor) if visitor.caller.may_read(api.roles()) => {
            Ok(Redirect::to("/sessions").into_response())
        }
        Some(_) => Ok(Redirect::to("/approvals").into_response()),
        None => page(&ways(&api, "/")),
    }
}

fn ways(api: &Api, to: &str) -> FrontPage {
    let entrance = api.entrance();
    let to = encoded(to);
    let ways: Vec<Way> = entrance
        .logins
        .names()
        .map(|name| Way {
            name: name.to_owned(),
            link: format!("/login?issuer={}&to={to}", encoded(name)),
        })
        .collect();
    let missing = match (entrance.has_address(), ways.is_empty()) {
        (false, _) => Some("[web] public_url is not set, so no issuer could send you back here."),
        (_, true) => Some("No [[issuer]] has a client_id, so there is nowhere to log in."),
        _ => None,
    };
    FrontPage { frame: Frame::for_nobody("Portcullis"), ways, missing }
}

/// Where to, and by which issuer.
#[derive(Deserialize)]
struct Wish {
    to: Option<String>,
    issuer: Option<String>,
}

/// Sends the browser to the issuer, which sends it back to [`callback`].
async fn login(
    State(api): State<Arc<Api>>,
    connection: ConnectInfo<Arrival>,
    wish: Result<Query<Wish>, axum::extract::rejection::QueryRejection>,
) -> Shown {
    let Query(wish) = wish.map_err(|error| Problem::bad(error.body_text()))?;
    if matches!(connection.0, Arrival::Network { private: false, .. }) {
        return Err(Problem::needs_tls().into());
    }
    let entrance = api.entrance();
    let to = wish.to.as_deref().and_then(place_to_go).unwrap_or("/");
    let mut names = entrance.logins.names();
    let issuer = match (wish.issuer.as_deref(), names.next(), names.next()) {
        (Some(wanted), ..) if entrance.logins.names().any(|name| name == wanted) => wanted,
        (None, Some(only), None) => only,
        _ => return page(&ways(&api, to)),
    };
    let Some(callback) = entrance.callback(issuer) else { return page(&ways(&api, to)) };
    let attempt = Attempt::new(issuer, to).ok_or_else(Problem::internal)?;
    let at_issuer = entrance.logins.begin(&attempt, &callback).await.map_err(|error| {
        tracing::warn!(issuer, %error, "login not begun");
        Problem::no_login("the issuer cannot be reached now; the gateway's log says more")
    })?;
    let mut response = Redirect::to(&at_issuer).into_response();
    with_cookie(&mut response, entrance.keep_attempt(&attempt));
    Ok(response)
}

/// The browser is back: proves who it is, and opens a login with a new secret.
async fn callback(
    State(api): State<Arc<Api>>,
    ConnectInfo(arrival): ConnectInfo<Arrival>,
    place: Option<Path<String>>,
    headers: HeaderMap,
    answer: Result<Query<Answer>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Failed> {
    // A parameter that comes twice is an error too (RFC 6749 section 3.1).
    let Query(answer) = answer.map_err(|error| Problem::bad(error.body_text()))?;
    let Arrival::Network { client, private: true } = arrival else {
        return Err(Problem::needs_tls().into());
    };
    let entrance = api.entrance();
    let over = || Problem::no_login("this login is over, or was begun in another browser");
    let attempt = entrance.attempt(&headers).ok_or_else(over)?;
    let place = place.map(|Path(name)| name);
    if place.as_deref() != entrance.logins.redirect_part(attempt.issuer()) {
        let (issuer, came_to) = (attempt.issuer(), place.as_deref().unwrap_or_default());
        tracing::warn!(%client, issuer, came_to, "login refused: redirected by another issuer");
        return Err(over().into());
    }
    let uri = entrance.callback(attempt.issuer()).ok_or_else(over)?;
    let finished = entrance.logins.finish(&attempt, &uri, answer, api.verifier()).await;
    let identity = finished.map_err(|error| {
        tracing::warn!(%client, issuer = attempt.issuer(), %error, "login refused");
        match error {
            NoLogin::OtherAttempt => over(),
            NoLogin::Denied(error) => Problem::no_login(format!("the issuer says: {error}")),
            NoLogin::Issuer(_) => {
                Problem::no_login("the issuer's answer is of no use; the gateway's log says more")
            }
            NoLogin::Refused(_) => {
                Problem::no_login("the issuer does not prove who you are to this gateway")
            }
        }
    })?;
    let caller = Caller::Remote(identity, client);
    api.done(&caller, "web.login", None, BTreeMap::from([issuer(&caller)])).await?;
    let Caller::Remote(identity, _) = &caller else { return Err(Problem::internal().into()) };
    let secret = entrance.browsers.open(identity).await.map_err(|error| match error {
        NotOpened::Database(error) => error.into(),
        NotOpened::NoRandomness => Problem::internal(),
    })?;
    tracing::info!(%client, username = caller.username(), "logged in by a browser");
    let to = place_to_go(attempt.to()).unwrap_or("/");
    let mut response = Redirect::to(to).into_response();
    with_cookie(&mut response, entrance.keep(&secret));
    with_cookie(&mut response, entrance.forget_attempt());
    Ok(response)
}

fn issuer(caller: &Caller) -> (String, Value) {
    let issuer = caller.key().map(|(issuer, _)| issuer).unwrap_or_default();
    ("issuer".to_owned(), Value::from(issuer))
}

#[derive(Template)]
#[template(path = "out.html")]
struct OutPage {
    frame: Frame,
    /// Where the issuer's own session ends.
    at_issuer: Option<String>,
}

/// Ends the login here, then at the issuer.
async fn logout(State(api): State<Arc<Api>>, posted: Posted) -> Result<Response, Turned> {
    let entrance = api.entrance();
    let Posted { visitor, .. } = posted;
    entrance.browsers.close(visitor.secret()).await.map_err(Problem::from)?;
    api.done(&visitor.caller, "web.logout", None, BTreeMap::new()).await?;
    let at_issuer = match (visitor.caller.key(), entrance.front()) {
        (Some((issuer, _)), Some(front)) => entrance.logins.end_session(issuer, &front).await,
        _ => None,
    };
    let frame = Frame::for_nobody("You are logged out");
    let refresh = at_issuer.as_ref().map(|url| format!("0;url={url}"));
    let mut response = page(&OutPage { frame, at_issuer }).map_err(Turned::Failed)?;
    with_cookie(&mut response, entrance.forget());
    // Not a redirect: what forms may send to is this gateway alone, and covers redirects too.
    if let Some(refresh) = refresh.and_then(|refresh| HeaderValue::from_str(&refresh).ok()) {
        response.headers_mut().insert(header::REFRESH, refresh);
    }
    Ok(response)
}

fn with_cookie(response: &mut Response, cookie: Option<HeaderValue>) {
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}
