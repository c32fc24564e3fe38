//! TLS towards a target: `SSLRequest`, then a handshake that verifies what the target's `tls` says.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature,
    verify_tls13_signature,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::UpstreamError;
use super::pinned::Pinned;
use crate::config::{PostgresTarget, UpstreamTls};
use crate::files;
use crate::protocol::postgres::messages::to_target;
use crate::protocol::postgres::stream::Stream;

/// What one target's handshakes need.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// None for a target without TLS. Reads certificate files.
    pub(super) fn new(target: &PostgresTarget) -> Result<Option<Self>, UpstreamError> {
        if target.ca.is_some() && target.tls != UpstreamTls::VerifyFull {
            return Err(UpstreamError::Configuration(
                "the target's `ca` proves nothing without tls = \"verify-full\"; set that, or \
                 leave `ca` out"
                    .to_owned(),
            ));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| UpstreamError::Configuration(e.to_string()))?;
        let config = match target.tls {
            UpstreamTls::Disable => return Ok(None),
            UpstreamTls::Require => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(algorithms)))
                .with_no_client_auth(),
            UpstreamTls::VerifyFull => match &target.ca {
                Some(path) => {
                    let pinned = pinned_by(path, &provider)?;
                    let verifier = builder.dangerous().with_custom_certificate_verifier(pinned);
                    verifier.with_no_client_auth()
                }
                None => builder.with_root_certificates(system_roots()?).with_no_client_auth(),
            },
        };
        let name = ServerName::try_from(target.host.clone()).map_err(|_| {
            UpstreamError::Configuration(format!(
                "{:?} is neither a host name nor an address; TLS needs one of them",
                target.host
            ))
        })?;
        Ok(Some(Self { connector: TlsConnector::from(Arc::new(config)), name }))
    }

    /// Asks for TLS and makes the handshake. There is no way back to plain text.
    pub(super) async fn negotiate(&self, mut tcp: TcpStream) -> Result<Stream, UpstreamError> {
        let broke = |e| UpstreamError::io("the TLS request", e);
        tcp.write_all(&to_target::ssl_request()).await.map_err(broke)?;
        // One byte more than is due: what a server, or somebody in its place, sends before the
        // handshake must not be taken for part of it.
        let mut answer = [0; 2];
        let length = tcp.read(&mut answer).await.map_err(broke)?;
        match (length, answer) {
            (1, [b'S', _]) => {}
            (1, [b'N', _]) => return Err(UpstreamError::TlsRefused),
            (0, _) => return Err(broke(io::ErrorKind::UnexpectedEof.into())),
            (_, [b'E', _]) => return Err(UpstreamError::TlsNegotiation("an error as answer")),
            (2.., [b'S' | b'N', _]) => {
                return Err(UpstreamError::TlsNegotiation("bytes behind the answer"));
            }
            _ => return Err(UpstreamError::TlsNegotiation("an unknown answer")),
        }
        let tls = self.connector.connect(self.name.clone(), tcp).await;
        tls.map(Stream::from).map_err(|source| UpstreamError::Tls { hint: hint(&source), source })
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Takes every certificate (`tls = "require"`), but holds the server to having its key. A
/// certificate of version 1 is too old for rustls even so.
#[derive(Debug)]
struct AnyCertificate(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// The certificates of a file: each is trusted itself, and as an authority where it may be one.
fn pinned_by(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<Pinned>, UpstreamError> {
    let wrong = |what: String| {
        let path = path.display();
        UpstreamError::Configuration(format!("the target's `ca` {path}: {what}"))
    };
    let text = files::read(path, files::MAX_KEY_FILE).map_err(|e| wrong(e.to_string()))?;
    let read = CertificateDer::pem_slice_iter(&text);
    let certificates: Vec<CertificateDer<'static>> =
        read.collect::<Result<_, _>>().map_err(|e| wrong(e.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("no certificate in it; it should be a PEM file".to_owned()));
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned());
    let chains = match roots.is_empty() {
        true => None,
        false => {
            let roots = Arc::new(roots);
            let built = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
            let built: Arc<dyn ServerCertVerifier> =
                built.build().map_err(|e| wrong(e.to_string()))?;
            Some(built)
        }
    };
    let algorithms = provider.signature_verification_algorithms;
    Ok(Arc::new(Pinned { certificates, chains, algorithms }))
}

fn system_roots() -> Result<Arc<RootCertStore>, UpstreamError> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = SYSTEM.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        return Err(UpstreamError::Configuration(
            "this machine trusts no certificate authority; install ca-certificates, or set the \
             target's `ca`"
                .to_owned(),
        ));
    }
    Ok(roots.clone())
}

/// What an operator can do about a failed handshake.
fn hint(error: &io::Error) -> &'static str {
    use CertificateError as C;
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            // The second is an authority of the same name with another key.
            C::UnknownIssuer | C::BadSignature => {
                "set the target's `ca` to the PEM file of the authority that signed it, or to the \
                 server's own certificate"
            }
            C::NotValidForNameContext { presented, .. } if presented.is_empty() => {
                "the certificate has a common name and no subjectAltName: give it one, or set the \
                 target's `ca` to the server's own certificate"
            }
            C::NotValidForName | C::NotValidForNameContext { .. } => {
                "connect by a name that the certificate has as subjectAltName"
            }
            C::Expired | C::ExpiredContext { .. } => "renew the server's certificate",
            C::NotValidYet | C::NotValidYetContext { .. } => "check the clocks",
            C::Other(other) => match other.to_string().as_str() {
                "CaUsedAsEndEntity" => {
                    "the server shows a certificate that is marked as an authority: set the target's \
                     `ca` to that very certificate, or issue one with basicConstraints CA:FALSE"
                }
                "UnsupportedCertVersion" => {
                    "the certificate is of version 1: set the target's `ca` to that very certificate, \
                     or issue one of version 3 with subjectAltName"
                }
                _ => "look at the server's certificate",
            },
            _ => "look at the server's certificate",
        },
        _ => "check the TLS versions and ciphers of the server",
    }
}
