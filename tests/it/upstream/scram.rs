//! The server's side of SCRAM (RFC 5802, RFC 7677), which may lie.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncRead, AsyncWrite};

use super::hostile::{read_message, write};

/// What a server does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    Nothing,
    /// Says `AuthenticationOk` instead of its proof.
    NoProof,
    /// Proves something else.
    WrongProof,
    /// Answers with a nonce that is not the client's.
    OtherNonce,
    /// Demands this much hashing.
    Iterations(u32),
}

const SALT: &[u8] = b"salt of a server";

/// Goes through the exchange; returns the mechanism and the flag for binding
/// that the client chose, or nothing when it leaves.
/// `binding` is what the client must have bound to with SCRAM-SHA-256-PLUS.
pub async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    mechanisms: &[&str],
    binding: &[u8],
    password: &str,
    lie: Lie,
) -> Option<(String, String)> {
    let offer: String = mechanisms.iter().map(|m| format!("{m}\0")).collect();
    request(stream, 10, format!("{offer}\0").as_bytes()).await;

    let initial = read_message(stream).await?;
    let end = initial.iter().position(|b| *b == 0).unwrap();
    let mechanism = String::from_utf8(initial[..end].to_vec()).unwrap();
    let first = String::from_utf8(initial[end + 5..].to_vec()).unwrap();
    let (flag, bare) = first.split_once(",,").unwrap();
    let nonce = bare.strip_prefix("n=,r=").unwrap();

    let iterations = if let Lie::Iterations(n) = lie { n } else { 4096 };
    let nonce = if lie == Lie::OtherNonce { "other".to_owned() } else { format!("{nonce}ours") };
    let challenge = format!("r={nonce},s={},i={iterations}", BASE64_STANDARD.encode(SALT));
    request(stream, 11, challenge.as_bytes()).await;

    let last = String::from_utf8(read_message(stream).await?).unwrap();
    let (unproved, proof) = last.rsplit_once(",p=").unwrap();
    let bound = if flag == "p=tls-server-end-point" { binding } else { &[] };
    let header = BASE64_STANDARD.encode([flag.as_bytes(), b",,", bound].concat());
    assert_eq!(unproved, format!("c={header},r={nonce}"), "the binding and the nonce");

    let mut salted = [0; 32];
    let rounds = NonZeroU32::new(iterations).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, SALT, password.as_bytes(), &mut salted);
    let message = format!("{bare},{challenge},{unproved}");
    let client_key = sign(&salted, b"Client Key");
    let signature = sign(digest::digest(&digest::SHA256, &client_key).as_ref(), message.as_bytes());
    let expected: Vec<u8> = client_key.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
    assert_eq!(proof, BASE64_STANDARD.encode(expected), "the client's proof");

    let mut ours = sign(&sign(&salted, b"Server Key"), message.as_bytes());
    if lie == Lie::WrongProof {
        ours[0] ^= 1;
    }
    if lie != Lie::NoProof {
        request(stream, 12, format!("v={}", BASE64_STANDARD.encode(ours)).as_bytes()).await;
    }
    Some((mechanism, flag.to_owned()))
}

async fn request<S: AsyncWrite + Unpin>(stream: &mut S, kind: u8, body: &[u8]) {
    write(stream, b'R', &[&[0, 0, 0, kind][..], body].concat()).await;
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}
