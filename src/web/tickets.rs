//! Tickets: made by whom they are for, seen and revoked by their owners and by admins.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::{Answer, Api, Named, named};
use super::caller::{Caller, Person};
use super::problem::Problem;
use super::query::{Body, Pages};
use crate::access;
use crate::database::{Page, Ticket, TicketLimits};
use crate::identity::ticket::NoTicket;
use crate::names::{TargetName, TicketId};
use crate::secret::Secret;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/api/v1/tickets", get(list).post(make))
        .route("/api/v1/tickets/{id}", delete(revoke))
}

/// What ticket is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WantedTicket {
    pub(super) target: TargetName,
    /// The configured longest time when left out.
    pub(super) lifetime_seconds: Option<u64>,
    #[serde(default)]
    pub(super) single_use: bool,
}

/// A ticket that was just made.
#[derive(Serialize)]
struct MadeTicket<'a> {
    #[serde(flatten)]
    ticket: Ticket,
    /// What is presented; it is told this once.
    secret: &'a str,
}

async fn make(
    State(api): State<Arc<Api>>,
    Person(caller): Person,
    Body(wanted): Body<WantedTicket>,
) -> Result<Response, Problem> {
    let (ticket, secret) = made(&api, &caller, wanted).await?;
    let made = Json(MadeTicket { ticket, secret: secret.expose() });
    let mut response = (StatusCode::CREATED, made).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Makes a ticket for the caller.
pub(super) async fn made(
    api: &Api,
    caller: &Caller,
    wanted: WantedTicket,
) -> Result<(Ticket, Secret), Problem> {
    let Some(identity) = caller.identity() else {
        let why = "a ticket is for whom asks for it: use --server, with a login";
        return Err(Problem::forbidden(why));
    };
    let rules = api.catalog.current();
    let most = rules.tickets().max_lifetime;
    let lifetime = wanted.lifetime_seconds.map_or(most, Duration::from_secs);
    if lifetime.is_zero() || lifetime > most {
        let most = most.as_secs();
        return Err(Problem::bad(format!(
            "lifetime_seconds: 1 to {most} ([tickets] max_lifetime)"
        )));
    }
    if access::right(&rules, identity, &wanted.target).is_err() {
        let target = wanted.target.to_string();
        api.tried(caller, "ticket.create", target, "no access to this target").await;
        return Err(Problem::forbidden("you have no access to a target of this name"));
    }
    let limits =
        TicketLimits { live: rules.tickets().max_live, per_hour: rules.tickets().max_per_hour };
    let made =
        api.tickets.make(identity, &wanted.target, lifetime, wanted.single_use, limits).await;
    let (ticket, secret) = made.map_err(|error| match error {
        NoTicket::Database(error) => error.into(),
        NoTicket::NoRandomness => Problem::internal(),
        NoTicket::TooMany(_) | NoTicket::WithTicket => Problem::conflict(error.to_string()),
        NoTicket::TooFast(_) => Problem::too_often(error.to_string()),
    })?;
    let detail = BTreeMap::from([
        ("target".to_owned(), Value::from(ticket.target.as_str())),
        ("expires_at".to_owned(), Value::from(ticket.expires_at.to_string())),
        ("single_use".to_owned(), Value::from(ticket.single_use)),
    ]);
    // Not audited, not given: nobody knows the secret then, and it ends by itself.
    api.done(caller, "ticket.create", Some(ticket.id.to_string()), detail).await?;
    Ok((ticket, secret))
}

async fn list(
    State(api): State<Arc<Api>>,
    Person(caller): Person,
    Pages(wanted): Pages,
) -> Answer<Page<Ticket>> {
    let all = caller.may_read(api.roles());
    let page = api.database.tickets(caller.key().filter(|_| !all), &wanted).await?;
    api.shown(&caller, "ticket.list", None, BTreeMap::new()).await?;
    Ok(Json(page))
}

async fn revoke(State(api): State<Arc<Api>>, Person(caller): Person, id: Named) -> Answer<Ticket> {
    revoked(&api, &caller, id).await.map(Json)
}

/// Revokes a ticket, the caller's own unless it is an admin.
pub(super) async fn revoked(api: &Api, caller: &Caller, id: Named) -> Result<Ticket, Problem> {
    let id: TicketId = named(id)?;
    let owner = caller.key().filter(|_| !caller.is_admin(api.roles()));
    let entry = api.entry(caller, "ticket.revoke", id.to_string(), BTreeMap::new());
    let Some(revoked) = api.database.revoke_ticket(id, owner, &entry).await? else {
        api.tried(caller, "ticket.revoke", id.to_string(), "there is no such ticket").await;
        return Err(Problem::not_found());
    };
    api.catalog.desk().wake();
    Ok(revoked)
}
