//! Finding an issuer's keys, over what networks and operators get wrong.

use axum::http::StatusCode;
use futures_util::future::join_all;
use serde_json::json;
use tokio::net::TcpListener;

use super::mint::{Key, claims};
use super::scripted::{Bench, Issuer, Running, settings};

/// What is wrong with the only issuer, according to the verifier.
async fn problem(issuer: &Issuer) -> String {
    match Running::start(&[settings(&issuer.url)]).await {
        Ok(_) => panic!("the verifier started"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test]
async fn every_accepted_kind_of_key_verifies() {
    let keys = [Key::es256("a"), Key::es384("b"), Key::ed25519("c"), Key::rs256("d")];
    let issuer = Issuer::start(&keys.iter().collect::<Vec<_>>()).await;
    let running = Running::start(&[settings(&issuer.url)]).await.unwrap();
    for key in &keys {
        let token = key.token(&claims(&issuer.url, &json!({})));
        assert_eq!(running.verify(&token).await.unwrap().subject(), "crew-7", "{}", key.alg);
    }
}

#[tokio::test]
async fn an_issuer_that_answers_wrongly_stops_the_start() {
    let issuer = Issuer::start(&[&Key::es256("k")]).await;
    issuer.script.lock().status = StatusCode::NOT_FOUND;
    assert!(problem(&issuer).await.contains("status 404"));
    issuer.script.lock().status = StatusCode::OK;
    issuer.script.lock().padding = 2 << 20;
    assert!(problem(&issuer).await.contains("more than 1024 KiB"));
}

#[tokio::test]
async fn an_issuer_url_without_tls_is_refused_unasked() {
    for url in ["http://login.example.com", "http://169.254.169.254", "login.example.com"] {
        let error = Running::start(&[settings(url)]).await.err().unwrap();
        assert!(error.to_string().contains("neither https://"), "{error}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_ill_at_the_start_is_used_once_it_is_well() {
    let key = Key::es256("k");
    let issuer = Issuer::start(&[&key]).await;
    issuer.script.lock().status = StatusCode::SERVICE_UNAVAILABLE;
    let running = Running::start(&[settings(&issuer.url)]).await.unwrap();
    issuer.script.lock().status = StatusCode::OK;
    let token = key.token(&claims(&issuer.url, &json!({})));
    assert!(running.verify(&token).await.is_ok());
    // And ill again: the keys that are known go on serving.
    issuer.script.lock().status = StatusCode::SERVICE_UNAVAILABLE;
    assert!(running.verify(&token).await.is_ok());
}

#[tokio::test]
async fn an_unreachable_issuer_does_not_stop_the_others() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let key = Key::es256("k");
    let issuer = Issuer::start(&[&key]).await;
    let running = Running::start(&[settings(&closed), settings(&issuer.url)]).await.unwrap();
    assert!(running.verify(&key.token(&claims(&issuer.url, &json!({})))).await.is_ok());
    let refused = running.verify(&key.token(&claims(&closed, &json!({})))).await.unwrap_err();
    assert!(refused.0.contains("could not be fetched yet"), "{refused}");
    let unknown = claims("https://login.example.com", &json!({}));
    assert!(running.verify(&key.token(&unknown)).await.unwrap_err().0.contains("not configured"));
}

#[tokio::test]
async fn a_key_of_one_issuer_does_not_sign_for_another() {
    let (ours, theirs) = (Key::es256("k"), Key::es256("k"));
    let (a, b) = (Issuer::start(&[&ours]).await, Issuer::start(&[&theirs]).await);
    let running = Running::start(&[settings(&a.url), settings(&b.url)]).await.unwrap();
    assert!(running.verify(&ours.token(&claims(&a.url, &json!({})))).await.is_ok());
    assert!(running.verify(&theirs.token(&claims(&a.url, &json!({})))).await.is_err());
    let same_subject = running.verify(&theirs.token(&claims(&b.url, &json!({})))).await.unwrap();
    assert_eq!((same_subject.issuer(), same_subject.subject()), (b.url.as_str(), "crew-7"));
}

#[tokio::test]
async fn a_flood_of_unknown_kids_causes_one_refresh() {
    let bench = Bench::new().await;
    assert_eq!(bench.issuer.script.lock().key_requests, 1);
    let stranger = Key::es256("stranger");
    let token = stranger.token(&bench.claims(&json!({})));
    let flood = join_all((0..200).map(|_| bench.running.verify(&token))).await;
    assert!(flood.iter().all(Result::is_err));
    assert_eq!(bench.issuer.script.lock().key_requests, 2);
}
