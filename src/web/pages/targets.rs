//! What the visitor may reach, and how.

mod protects;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};

use protects::Protects;

use super::visitor::{Posted, Turned, Visitor};
use super::{Frame, page, sessions::now, text};
use crate::access::{self, Right};
use crate::config::{Listen, Target, TargetKind};
use crate::database::{AccessGrant, Ticket, Wanted};
use crate::names::TargetName;
use crate::web::api::{Api, Named};
use crate::web::caller::Caller;
use crate::web::grants::{WantedAccess, asked};
use crate::web::problem::Problem;
use crate::web::targets::protection;
use crate::web::tickets::{WantedTicket, made, revoked};

/// Tickets and grants on one page.
const MOST: u32 = 200;
/// What a ticket may be for, in seconds, as far as the configuration lets it.
const LIFETIMES: [(u64, &str); 4] =
    [(900, "15 minutes"), (3600, "1 hour"), (4 * 3600, "4 hours"), (12 * 3600, "12 hours")];

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/targets", get(targets))
        .route("/targets/{name}/ticket", post(ticket))
        .route("/targets/{name}/access", post(request))
        .route("/tickets/{id}/revoke", post(revoke))
}

/// Where clients find the gateway.
#[derive(Debug)]
pub struct Doors {
    host: String,
    postgres: Option<u16>,
    ssh: Option<u16>,
    http: Option<u16>,
    tls: bool,
}

impl Doors {
    /// By the address that browsers use, and where the gateway listens.
    pub fn new(public_url: Option<&str>, listen: &Listen, tls: bool) -> Self {
        let authority = public_url.and_then(|url| url.split("//").nth(1)).unwrap_or_default();
        let authority = authority.split('/').next().unwrap_or_default();
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => authority,
        };
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        let port = |address: Option<std::net::SocketAddr>| address.map(|address| address.port());
        Self {
            host: host.to_owned(),
            postgres: port(listen.postgres),
            ssh: port(listen.ssh),
            http: port(listen.http),
            tls,
        }
    }

    /// Lines to paste, each with what it is for. The credential is in an environment variable, so
    /// that it stands on no command line.
    fn lines(&self, target: &Target, user: &str) -> Vec<Line> {
        let (host, name) = (&self.host, &target.name);
        let line = |what, text: String| Line { what, text };
        match (&target.kind, self.postgres, self.ssh, self.http) {
            (TargetKind::Postgres(_), Some(port), ..) => {
                let tls = if self.tls { " sslmode=verify-full sslrootcert=system" } else { "" };
                let where_to = format!("host={host} port={port} dbname={name} user={user}{tls}");
                vec![
                    line("psql", format!("PGPASSWORD=\"$PORTCULLIS_TICKET\" psql \"{where_to}\"")),
                    line(
                        "Python",
                        format!(
                            "psycopg.connect(\"{where_to}\", \
                             password=os.environ[\"PORTCULLIS_TICKET\"])"
                        ),
                    ),
                ]
            }
            (TargetKind::Ssh(_), _, Some(port), _) => vec![
                line("ssh", format!("ssh -p {port} {name}@{host}")),
                line("scp", format!("scp -P {port} FILE {name}@{host}:")),
            ],
            (TargetKind::Http(_), _, _, Some(port)) => {
                let scheme = if self.tls { "https" } else { "http" };
                let url = format!("{scheme}://{host}:{port}/{name}/");
                vec![
                    line(
                        "curl",
                        format!("curl -H \"Authorization: Bearer $PORTCULLIS_TICKET\" {url}"),
                    ),
                    line(
                        "Python",
                        format!(
                            "httpx.get(\"{url}\", headers={{\"Authorization\": \
                             f\"Bearer {{os.environ['PORTCULLIS_TICKET']}}\"}})"
                        ),
                    ),
                ]
            }
            _ => Vec::new(),
        }
    }
}

/// Something to paste.
struct Line {
    what: &'static str,
    text: String,
}

#[derive(Template)]
#[template(path = "targets.html")]
struct TargetsPage {
    frame: Frame,
    places: Vec<Place>,
    tickets: Vec<Held>,
    lifetimes: Vec<(u64, &'static str)>,
    fresh: Option<Fresh>,
}

/// A ticket that was just made.
struct Fresh {
    target: String,
    secret: String,
    until: String,
}

/// A target that the visitor may reach, or may ask for.
struct Place {
    name: String,
    protocol: &'static str,
    labels: Vec<String>,
    standing: bool,
    /// Until when people granted it.
    granted: Option<String>,
    /// For how long it is granted at most.
    offered: String,
    lines: Vec<Line>,
    password: &'static str,
    protects: Protects,
}

/// A ticket of the visitor's.
struct Held {
    id: String,
    target: String,
    until: String,
    single_use: bool,
    used: bool,
}

async fn targets(State(api): State<Arc<Api>>, visitor: Visitor) -> Result<Response, Turned> {
    shown(&api, &visitor, None).await
}

async fn shown(api: &Api, visitor: &Visitor, fresh: Option<Fresh>) -> Result<Response, Turned> {
    let caller = &visitor.caller;
    let wanted = Wanted { limit: Some(MOST), cursor: None };
    let grants = api.database.grants(caller.key(), &wanted).await.map_err(Problem::from)?;
    let tickets = api.database.tickets(caller.key(), &wanted).await.map_err(Problem::from)?;
    api.done(caller, "target.list", None, [].into()).await?;
    let most = api.catalog.current().tickets().max_lifetime.as_secs();
    page(&TargetsPage {
        frame: Frame::of(api, visitor, "targets", "Targets"),
        places: places(api, caller, &grants.items),
        tickets: tickets.items.iter().filter(|ticket| is_live(ticket)).map(held).collect(),
        lifetimes: LIFETIMES.into_iter().filter(|(seconds, _)| *seconds <= most).collect(),
        fresh,
    })
    .map_err(Into::into)
}

fn places(api: &Api, caller: &Caller, grants: &[AccessGrant]) -> Vec<Place> {
    let Some(identity) = caller.identity() else { return Vec::new() };
    let rules = api.catalog.current();
    let mut places = Vec::new();
    for target in rules.targets() {
        let Ok((target, right)) = access::right(&rules, identity, &target.name) else { continue };
        let granted = grants.iter().find(|grant| {
            grant.target == target.name.as_str()
                && grant.revoked_at.is_none()
                && grant.ends_at > now()
        });
        let (standing, offered) = match right {
            Right::Standing { .. } => (true, String::new()),
            Right::Asked { whom, .. } => {
                let us = i64::try_from(whom.duration.as_micros()).unwrap_or(i64::MAX);
                (false, text::duration(us))
            }
        };
        let protection = protection(api, caller, &rules, target);
        let user = identity.username();
        let plain = user.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b));
        places.push(Place {
            name: target.name.to_string(),
            protocol: target.protocol().as_str(),
            labels: target
                .labels
                .iter()
                .map(|(key, value)| text::line(&format!("{key}: {value}")))
                .collect(),
            standing,
            granted: granted.map(|grant| text::time(grant.ends_at)),
            offered,
            lines: api.entrance().doors.lines(target, if plain { user } else { "me" }),
            password: match target.kind {
                TargetKind::Ssh(_) => "ssh asks for a password: the ticket.",
                _ => "PORTCULLIS_TICKET holds the ticket, or a token of your issuer.",
            },
            protects: Protects::of(&protection),
        });
    }
    places
}

fn is_live(ticket: &Ticket) -> bool {
    ticket.revoked_at.is_none() && ticket.expires_at > now()
}

fn held(ticket: &Ticket) -> Held {
    Held {
        id: ticket.id.to_string(),
        target: text::line(&ticket.target),
        until: text::time(ticket.expires_at),
        single_use: ticket.single_use,
        used: ticket.used_at.is_some(),
    }
}

fn target_of(name: Named) -> Result<TargetName, Problem> {
    name.ok().and_then(|Path(name)| name.parse().ok()).ok_or_else(Problem::not_found)
}

/// Makes a ticket and shows its secret, this once.
async fn ticket(
    State(api): State<Arc<Api>>,
    name: Named,
    posted: Posted,
) -> Result<Response, Turned> {
    let lifetime = posted.field("lifetime").map(str::parse).transpose();
    let wanted = WantedTicket {
        target: target_of(name)?,
        lifetime_seconds: lifetime.map_err(|_| Problem::bad("lifetime: a number of seconds"))?,
        single_use: posted.field("single_use").is_some(),
    };
    let visitor = posted.visitor;
    let (ticket, secret) = made(&api, &visitor.caller, wanted).await?;
    let fresh = Fresh {
        secret: secret.expose().to_owned(),
        until: text::time(ticket.expires_at),
        target: ticket.target,
    };
    shown(&api, &visitor, Some(fresh)).await
}

/// Asks people for access.
async fn request(
    State(api): State<Arc<Api>>,
    name: Named,
    posted: Posted,
) -> Result<Response, Turned> {
    let wanted = WantedAccess {
        target: target_of(name)?,
        duration_seconds: None,
        reason: posted.field("reason").map(str::to_owned),
    };
    let (shown, _) = asked(&api, &posted.visitor.caller, wanted).await?;
    Ok(Redirect::to(&format!("/access-requests/{}", shown.request.id)).into_response())
}

async fn revoke(
    State(api): State<Arc<Api>>,
    id: Named,
    posted: Posted,
) -> Result<Response, Turned> {
    revoked(&api, &posted.visitor.caller, id).await?;
    Ok(Redirect::to("/targets").into_response())
}
