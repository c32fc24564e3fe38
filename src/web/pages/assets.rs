//! Style and scripts, in the binary.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::web::api::Api;

pub(super) const STYLE: &str = include_str!("../assets/style.css");
const SCRIPT: &str = include_str!("../assets/pages.js");
const TERMINAL: &str = include_str!("../assets/terminal.js");
const MARK: &str = include_str!("../assets/mark.svg");

pub(super) fn routes() -> Router<Arc<Api>> {
    let text = |kind: &'static str, body: &'static str| {
        get(async move |headers: HeaderMap| answer(&headers, kind, body))
    };
    Router::new()
        .route("/assets/style.css", text("text/css; charset=utf-8", STYLE))
        .route("/assets/pages.js", text("text/javascript; charset=utf-8", SCRIPT))
        .route("/assets/terminal.js", text("text/javascript; charset=utf-8", TERMINAL))
        .route("/assets/mark.svg", text("image/svg+xml", MARK))
}

/// Asked for again, a browser is told that it has it.
fn answer(headers: &HeaderMap, kind: &'static str, body: &'static str) -> Response {
    let hash = blake3::hash(body.as_bytes()).to_hex();
    let tag = format!("\"{}\"", hash.get(..16).unwrap_or_default());
    let about = [
        (header::CONTENT_TYPE, kind.to_owned()),
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    let known = headers.get(header::IF_NONE_MATCH);
    match known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        true => (StatusCode::NOT_MODIFIED, about).into_response(),
        false => (about, body).into_response(),
    }
}
