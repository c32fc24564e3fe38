//! What is negotiated on both sides: nothing with SHA-1, no CBC, AES-GCM first.
//!
//! `chacha20-poly1305` is left out: it is the one that the Terrapin attack (CVE-2023-48795) works
//! on with peers that have no strict key exchange, and every client that has it has AES too.

use std::borrow::Cow;
use std::time::Duration;

use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey, PublicKey};
use russh::{MethodKind, MethodSet, Preferred, SshId, cipher, compression, kex, mac};

const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::DH_G16_SHA512,
    kex::DH_G14_SHA256,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];
const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];
const MACS: &[mac::Name] =
    &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM, mac::HMAC_SHA512, mac::HMAC_SHA256];
const COMPRESSIONS: &[compression::Name] = &[compression::NONE, compression::ZLIB_LEGACY];

/// What a channel may have on the way unasked. A larger one was slower.
pub(super) const WINDOW: u32 = 2 << 20;
/// The longest message of data that is taken: one event of a recording.
const MAX_PACKET: u32 = 65_520;
/// Messages of a channel that wait within russh.
const BUFFERED: usize = 16;
/// How long a side may be silent before it is asked whether it is there, and how often it is asked.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVES: usize = 3;
/// Each refused key of an agent is an attempt.
const ATTEMPTS: usize = 10;
/// How long a refusal takes, whatever is wrong. OpenSSH offers a certificate's key without the
/// certificate first, so this is part of every login.
const REFUSAL_TIME: Duration = Duration::from_millis(20);

fn preferred(keys: Cow<'static, [Algorithm]>) -> Preferred {
    Preferred {
        kex: Cow::Borrowed(KEX),
        key: keys,
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Borrowed(CIPHERS),
        mac: Cow::Borrowed(MACS),
        compression: Cow::Borrowed(COMPRESSIONS),
    }
}

fn id() -> SshId {
    SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Portcullis_", env!("CARGO_PKG_VERSION"))))
}

/// How the gateway is a server, with logins in a browser or without.
pub(super) fn downstream(host_key: PrivateKey, browsers: bool) -> russh::server::Config {
    let mut methods = MethodSet::from([MethodKind::PublicKey, MethodKind::Password].as_slice());
    if browsers {
        methods.push(MethodKind::KeyboardInteractive);
    }
    russh::server::Config {
        server_id: id(),
        methods,
        auth_rejection_time: REFUSAL_TIME,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        window_size: WINDOW,
        maximum_packet_size: MAX_PACKET,
        channel_buffer_size: BUFFERED,
        preferred: preferred(Cow::Borrowed(KEYS)),
        max_auth_attempts: ATTEMPTS,
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES,
        ..russh::server::Config::default()
    }
}

/// How the gateway is a client of a target that must show this key.
pub(super) fn upstream(host_key: &PublicKey) -> russh::client::Config {
    // Of a server's several keys, the one that the catalog knows is asked for.
    let keys = match host_key.algorithm() {
        Algorithm::Rsa { .. } => vec![
            Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
            Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
        ],
        other => vec![other],
    };
    russh::client::Config {
        client_id: id(),
        window_size: WINDOW,
        maximum_packet_size: MAX_PACKET,
        channel_buffer_size: BUFFERED,
        preferred: preferred(Cow::Owned(keys)),
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES,
        ..russh::client::Config::default()
    }
}
