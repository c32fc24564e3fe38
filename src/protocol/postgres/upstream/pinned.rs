//! A server's certificate that stands in the target's `ca` itself, byte for byte.
//!
//! PostgreSQL's manual makes a certificate that vouches for itself: it is marked as an authority, bears
//! its name as common name alone, or has the format of version 1. No such certificate holds by the
//! rules for a chain. One that the operator has named to the byte needs no chain: whoever has its key is
//! the server. So neither its names nor its dates are looked at.

use rustls::SignatureScheme;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct};

use std::sync::Arc;

use super::channel_binding::{SEQUENCE, element};

const BIT_STRING: u8 = 0x03;
const CONTEXT_0: u8 = 0xa0;
const INTEGER: u8 = 0x02;

/// Takes the certificates of a `ca` file, and what they vouch for.
#[derive(Debug)]
pub(super) struct Pinned {
    /// The certificates of the file.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// Those of them that may vouch for others.
    pub(super) chains: Option<Arc<dyn ServerCertVerifier>>,
    /// Signatures that are taken.
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Pinned {
    fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        self.certificates.iter().any(|pinned| pinned.as_ref() == certificate.as_ref())
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.has(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.chains {
            Some(chains) => chains.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            ),
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = key_of(certificate).filter(|_| self.has(certificate));
        let Some(Key { identifier, bits, .. }) = key else {
            return verify_tls12_signature(message, certificate, signed, &self.algorithms);
        };
        let of_scheme = self.algorithms.mapping.iter().filter(|(of, _)| *of == signed.scheme);
        let holds = of_scheme.flat_map(|(_, algorithms)| *algorithms).any(|algorithm| {
            algorithm.public_key_alg_id().as_ref() == identifier
                && algorithm.verify_signature(bits, message, signed.signature()).is_ok()
        });
        match holds {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let key = key_of(certificate).filter(|_| self.has(certificate));
        let Some(Key { info, .. }) = key else {
            return verify_tls13_signature(message, certificate, signed, &self.algorithms);
        };
        let info = SubjectPublicKeyInfoDer::from(info);
        verify_tls13_signature_with_raw_key(message, &info, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A certificate's public key.
struct Key<'a> {
    /// The whole `SubjectPublicKeyInfo`.
    info: &'a [u8],
    /// What is in its `AlgorithmIdentifier`.
    identifier: &'a [u8],
    /// The key itself.
    bits: &'a [u8],
}

/// The key of a certificate of any version (RFC 5280, section 4.1).
fn key_of(der: &[u8]) -> Option<Key<'_>> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_version, behind)) = element(rest, CONTEXT_0) {
        rest = behind;
    }
    (_, rest) = element(rest, INTEGER)?;
    for _signature_issuer_validity_subject in 0..4 {
        (_, rest) = element(rest, SEQUENCE)?;
    }
    let (key, behind) = element(rest, SEQUENCE)?;
    let info = rest.get(..rest.len().checked_sub(behind.len())?)?;
    let (identifier, bits) = element(key, SEQUENCE)?;
    let (bits, _) = element(bits, BIT_STRING)?;
    // The first byte counts bits that are not used.
    let bits = bits.strip_prefix(&[0])?;
    Some(Key { info, identifier, bits })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};

    use super::*;

    #[test]
    fn the_key_of_a_certificate_is_found() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_RSA_SHA256] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let der = CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
            assert_eq!(key_of(&der).unwrap().info, key.subject_public_key_info());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(der in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = key_of(&der);
        }
    }
}
