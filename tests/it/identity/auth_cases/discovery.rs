//! Rows about discovery, rotation and TLS.

use serde_json::json;
use tokio::net::TcpListener;

use super::super::mint::{Key, claims};
use super::super::scripted::{Bench, Certificate, Flaw, Issuer, Running, settings};

async fn problem(issuer: &Issuer) -> String {
    let started = Running::start(&[settings(&issuer.url)]).await;
    started.err().expect("the verifier started").to_string()
}

pub(super) async fn an_issuer_that_points_elsewhere_is_refused() {
    let issuer = Issuer::start(&[&Key::es256("k")]).await;
    for other in ["https://login.example.com", &format!("{}/", issuer.url), "", "HTTP://x"] {
        issuer.script.lock().issuer = other.to_owned();
        assert!(problem(&issuer).await.contains("to the last byte"), "{other}");
    }
    issuer.script.lock().issuer = issuer.url.clone();
    let own_keys = issuer.script.lock().jwks_uri.clone();
    for elsewhere in [
        "http://169.254.169.254/latest/meta-data",
        "http://login.example.com/keys",
        "https://evil.example/keys",
        "https://127.0.0.1.evil.example/keys",
        "http://localhost:1/keys",
        "file:///etc/passwd",
        "/keys",
        "",
    ] {
        issuer.script.lock().jwks_uri = elsewhere.to_owned();
        assert!(problem(&issuer).await.contains("jwks_uri"), "{elsewhere}");
    }
    issuer.script.lock().jwks_uri = own_keys;
    // A redirect is not followed, to wherever it leads: this one would show.
    let bait = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bait_url = format!("http://{}/", bait.local_addr().unwrap());
    for location in ["http://169.254.169.254/", &bait_url, "/elsewhere"] {
        issuer.script.lock().location = Some(location.to_owned());
        assert!(problem(&issuer).await.contains("redirects"), "{location}");
    }
    let asked = tokio::time::timeout(std::time::Duration::ZERO, bait.accept()).await;
    assert!(asked.is_err(), "the redirect was followed");
    assert_eq!(issuer.script.lock().key_requests, 0);
}

pub(super) async fn new_keys_work_at_once_and_removed_ones_die() {
    let bench = Bench::new().await;
    let old = bench.key.token(&bench.claims(&json!({})));
    assert!(bench.running.verify(&old).await.is_ok());
    let new = Key::es256("k2");
    bench.issuer.publishes(&[&new]);
    // The first token of the new key, in the moment of the rotation; many at once.
    let token = new.token(&bench.claims(&json!({})));
    let arrivals = (0..50).map(|_| bench.running.verify(&token));
    let outcomes = futures_util::future::join_all(arrivals).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert_eq!(bench.issuer.script.lock().key_requests, 2, "one refresh serves all");
    // That refresh removed the old key. (Asking once more waits out the interval of refreshes.)
    let refused = bench.running.verify(&old).await.unwrap_err();
    assert!(refused.0.contains("has no key \"k1\""), "{refused}");
}

pub(super) async fn keys_come_only_over_verified_tls() {
    let key = Key::es256("k");
    for flaw in [Flaw::Expired, Flaw::SelfSigned, Flaw::WrongName, Flaw::OtherCa, Flaw::None] {
        let certificate = Certificate::new(flaw);
        let (der, private) = (certificate.der.clone(), certificate.key.clone());
        let issuer = Issuer::start_tls(&[&key], der, private).await;
        let mut trusting = settings(&issuer.url);
        trusting.ca = Some(certificate.ca.clone());
        match Running::start(&[trusting]).await {
            Ok(running) => {
                assert_eq!(flaw, Flaw::None);
                let token = key.token(&claims(&issuer.url, &json!({})));
                assert!(running.verify(&token).await.is_ok());
                // Without the CA the system's roots count, which do not know it.
                assert!(problem(&issuer).await.contains("set ca"));
            }
            Err(error) => {
                assert_ne!(flaw, Flaw::None, "{error}");
                assert!(error.to_string().contains("certificate"), "{flaw:?}: {error}");
                assert_eq!(issuer.script.lock().key_requests, 0, "{flaw:?}");
            }
        }
    }
}
