//! What a target answers, and what of it goes down.

use std::sync::Arc;

use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::Uri;
use hyper::{Response, StatusCode};

use super::body::{self, Body};
use super::exchange::Exchange;
use super::masking::{self, BodyMask, Unreadable, is_coded};
use super::refusal::Refusal;
use super::request::{Ask, is_hop_by_hop, listed};
use crate::config::HttpTarget;
use crate::decode::http::head;
use crate::mask::{Counts, count};

/// Fields whose values are credentials, of whomever: what is stored names them and no more.
pub(super) const WITHHELD: &[&str] = &[
    "api-key",
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-access-token",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
];
/// What stands for such a value.
pub(super) const WITHHELD_AS: &[u8] = b"[withheld]";

/// Makes the client's answer of the target's, its head recorded, or says why it cannot pass.
pub(super) fn pass(
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
    let mask = match &masks {
        Some(plan) if !ended => match BodyMask::of(plan, &parts.headers) {
            Ok(mask) => Some(mask),
            Err(Unreadable(why)) => return Err(bad(why)),
        },
        _ => None,
    };
    let mut headers = HeaderMap::with_capacity(parts.headers.len());
    let (mut stored, mut counts) = (headers.clone(), Counts::new());
    let listed = listed(&parts.headers);
    for (name, value) in &parts.headers {
        let word = name.as_str();
        let shows = masks.is_some() && masking::tells_of_bytes(word);
        if !passes(word, target) || shows || listed.iter().any(|listed| listed == word) {
            continue;
        }
        let value = rewritten(name, value, ask, target).unwrap_or_else(|| value.clone());
        let value = without_credential(value, exchange);
        match &masks {
            Some(plan) => {
                let masked = masking::field(plan, word, value.as_bytes());
                headers.append(name.clone(), masking::header_value(masked.shown()));
                stored.append(name.clone(), masking::header_value(masked.stored()));
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
    let body = match ended {
        true => body::empty(),
        false => body::down(incoming, Arc::clone(exchange), &upstream.literals, mask, begins_run),
    };
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
        let withheld = WITHHELD.contains(&name.as_str());
        (name.as_str(), if withheld { WITHHELD_AS } else { value.as_bytes() })
    });
    let mut written = Vec::new();
    head::write(&first, fields, &mut written);
    written
}

fn passes(name: &str, target: &HttpTarget) -> bool {
    // What offers another way to the target would lead around the gateway.
    !is_hop_by_hop(name)
        && name != "alt-svc"
        && (target.cookies || !matches!(name, "set-cookie" | "set-cookie2"))
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

/// A place at the target, as the client reaches it: behind the target's name. Other places stay
/// what they are, and nobody follows them here.
fn rewritten(
    name: &HeaderName,
    value: &HeaderValue,
    ask: &Ask,
    target: &HttpTarget,
) -> Option<HeaderValue> {
    if !matches!(*name, header::LOCATION | header::CONTENT_LOCATION) {
        return None;
    }
    let text = value.to_str().ok()?;
    let prefix = ask.prefix.as_deref().unwrap_or_default();
    if text.starts_with('/') && !text.starts_with("//") {
        return HeaderValue::try_from(format!("{prefix}{text}")).ok();
    }
    let uri: Uri = text.parse().ok()?;
    let scheme = if target.https { "https" } else { "http" };
    let same = uri.scheme_str() == Some(scheme)
        && uri.authority()?.as_str().eq_ignore_ascii_case(&target.authority);
    let path = uri.path_and_query()?.as_str();
    let fragment = text.split_once('#').map(|(_, fragment)| format!("#{fragment}"));
    let fragment = fragment.unwrap_or_default();
    same.then(|| HeaderValue::try_from(format!("{prefix}{path}{fragment}")).ok()).flatten()
}
