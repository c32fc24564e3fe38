//! What a target answers, and what of it goes down.

use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};

use super::addresses::{Addresses, Endpoints};
use super::body::{self, Body, BodyError, Down};
use super::exchange::Exchange;
use super::literal::Scanner;
use super::masking::{self, BodyMask, Unreadable, is_coded};
use super::refusal::Refusal;
use super::request::{Ask, is_hop_by_hop, listed};
use crate::config::HttpTarget;
use crate::decode::http::command::WITHHELD;
use crate::decode::http::fields::is_credential;
use crate::decode::http::head;
use crate::mask::{Counts, count};

/// Fields that offer parts of an answer: of one in which a credential could stand there are none.
const WHOLE_ALONE: &[&str] = &["accept-ranges", "content-range"];

/// Makes the client's answer of the target's, its head recorded, or says why it cannot pass.
pub(super) async fn pass(
    exchange: &Arc<Exchange>,
    ask: &Ask,
    target: &HttpTarget,
    response: Response<Incoming>,
    begins_run: bool,
) -> Result<Response<Body>, Refusal> {
    let (parts, incoming) = response.into_parts();
    let bad = |what| {
        let target = exchange.session().gate().grant().target().name.clone();
        Refusal::BadAnswer { target, what }
    };
    if parts.status.is_informational() {
        return Err(bad("it goes over to another protocol, which was not asked for"));
    }
    let upstream = exchange.session().upstream();
    let ended = incoming.is_end_stream();
    if !ended && upstream.has_credential() && is_coded(&parts.headers) {
        return Err(bad("it is encoded, which was not asked for"));
    }
    let masks = exchange.masks();
    if masks.is_some() && parts.status == StatusCode::PARTIAL_CONTENT {
        return Err(bad("it is a part of an answer, in which nothing can be masked"));
    }
    if upstream.has_credential() && parts.status == StatusCode::PARTIAL_CONTENT {
        return Err(bad("it is a part of an answer, which could hold a part of the credential"));
    }
    let addresses = Addresses::new(ask.prefix.as_deref(), target);
    let body = match ended {
        true => None,
        false => {
            let mask = match &masks {
                Some(plan) => BodyMask::of(plan, &parts.headers, &target.unmasked_types)
                    .map_err(|Unreadable(why)| bad(why))?,
                None => BodyMask::Open,
            };
            let events = ask.method == "GET" && is_event_stream(&parts.headers);
            let mut down = Down {
                incoming,
                exchange: Arc::clone(exchange),
                scanner: Scanner::new(&upstream.literals),
                mask,
                endpoints: events.then(|| Endpoints::new(addresses.clone())),
                addresses: addresses.clone(),
                trailers: None,
                dialect: target.kind,
                kickoff: begins_run.then(Vec::new),
                begun: None,
            };
            if masks.is_some() {
                down.begin().await.map_err(|error| match error {
                    BodyError::NotMasked(why) => bad(why.words()),
                    BodyError::Ended(_) => Refusal::Ended,
                    _ => bad("it breaks off"),
                })?;
            }
            Some(down)
        }
    };
    let mut headers = HeaderMap::with_capacity(parts.headers.len());
    let (mut stored, mut counts) = (headers.clone(), Counts::new());
    let listed = listed(&parts.headers);
    for (name, value) in &parts.headers {
        let word = name.as_str();
        let shows = masks.is_some() && masking::tells_of_bytes(word);
        let whole = upstream.has_credential() && WHOLE_ALONE.contains(&word);
        if !passes(word, target) || shows || whole || listed.iter().any(|listed| listed == word) {
            continue;
        }
        let Some(value) = addresses.field(name, value) else { continue };
        let value = without_credential(value, exchange);
        match &masks {
            Some(plan) => {
                let (hidden, unstored) = masking::hidden_name(plan, word);
                let masked = masking::field(plan, word, value.as_bytes()).found(unstored.into());
                if !hidden {
                    headers.append(name.clone(), masking::header_value(masked.shown()));
                }
                if !unstored {
                    stored.append(name.clone(), masking::header_value(masked.stored()));
                }
                for (mask, more) in masked.counts() {
                    count(&mut counts, mask, *more);
                }
            }
            None => {
                stored.append(name.clone(), value.clone());
                headers.append(name.clone(), value);
            }
        }
    }
    let head = written(parts.status, &stored);
    if exchange.answered(parts.status, head, &counts, ended).is_err() {
        return Err(Refusal::NotRecorded);
    }
    let body = body.map_or_else(body::empty, Down::stream);
    let mut response = Response::new(body);
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// A head as it is recorded.
pub(super) fn written(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let first =
        format!("HTTP/1.1 {} {}", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let fields = headers.iter().map(|(name, value)| {
        let withheld = is_credential(name.as_str());
        (name.as_str(), if withheld { WITHHELD.as_bytes() } else { value.as_bytes() })
    });
    let mut written = Vec::new();
    head::write(&first, fields, &mut written);
    written
}

fn passes(name: &str, target: &HttpTarget) -> bool {
    !is_hop_by_hop(name) && (target.cookies || !matches!(name, "set-cookie" | "set-cookie2"))
}

fn without_credential(mut value: HeaderValue, exchange: &Exchange) -> HeaderValue {
    let literals = &exchange.session().upstream().literals;
    if literals.stand_in(value.as_bytes()) {
        let mut text = value.as_bytes().to_vec();
        literals.mask(&mut text);
        value = HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("[withheld]"));
    }
    value
}

/// Whether it is a stream of server-sent events.
fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let essence = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}
