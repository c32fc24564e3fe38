//! `tls-server-end-point` channel binding (RFC 5929, section 4.1): a hash of the server's
//! certificate, which both ends of one TLS connection know and nobody between two can match.

use aws_lc_rs::digest::{self, Algorithm, SHA224, SHA256, SHA384, SHA512};

use crate::protocol::postgres::stream::Stream;

/// DER tags.
pub(super) const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const CONTEXT_0: u8 = 0xa0;

/// The binding of a connection to a server. None without TLS, and for a certificate whose
/// signature names no hash (Ed25519, or what is unknown here), for which none is defined.
pub(super) fn of(stream: &Stream) -> Option<Vec<u8>> {
    let Stream::Tls(tls) = stream else { return None };
    let tokio_rustls::TlsStream::Client(tls) = &**tls else { return None };
    of_certificate(tls.get_ref().1.peer_certificates()?.first()?)
}

/// The certificate's hash, by the hash of its own signature, or by SHA-256 where that is MD5 or
/// SHA-1.
fn of_certificate(der: &[u8]) -> Option<Vec<u8>> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (_to_be_signed, rest) = element(certificate, SEQUENCE)?;
    let (signature_algorithm, _) = element(rest, SEQUENCE)?;
    let algorithm = hash_of_signature(signature_algorithm)?;
    Some(digest::digest(algorithm, der).as_ref().to_vec())
}

/// The hash within an `AlgorithmIdentifier` of a signature (RFC 8017 appendix A.2, RFC 5758).
fn hash_of_signature(identifier: &[u8]) -> Option<&'static Algorithm> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    let (oid, parameters) = element(identifier, OBJECT_IDENTIFIER)?;
    if let Some(kind) = oid.strip_prefix(RSA) {
        return match kind {
            [4 | 5 | 11] => Some(&SHA256), // with MD5, SHA-1, SHA-256
            [12] => Some(&SHA384),
            [13] => Some(&SHA512),
            [14] => Some(&SHA224),
            [10] => hash_of_pss(parameters),
            _ => None,
        };
    }
    match oid.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(&SHA256), // with SHA-1, SHA-256
        [3, 1] => Some(&SHA224),
        [3, 3] => Some(&SHA384),
        [3, 4] => Some(&SHA512),
        _ => None,
    }
}

/// RSASSA-PSS names its hash in its parameters: `[0]`, left out for SHA-1.
fn hash_of_pss(parameters: &[u8]) -> Option<&'static Algorithm> {
    const NIST_HASH: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
    let (parameters, _) = element(parameters, SEQUENCE)?;
    let Some((hash, _)) = element(parameters, CONTEXT_0) else { return Some(&SHA256) };
    let (hash, _) = element(hash, SEQUENCE)?;
    let (oid, _) = element(hash, OBJECT_IDENTIFIER)?;
    if oid == SHA1 {
        return Some(&SHA256);
    }
    match oid.strip_prefix(NIST_HASH)? {
        [1] => Some(&SHA256),
        [2] => Some(&SHA384),
        [3] => Some(&SHA512),
        [4] => Some(&SHA224),
        _ => None,
    }
}

/// The content of the DER element at the front, which must have this tag, and what is behind it.
pub(super) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, der) = der.split_first()?;
    let (length, der) = der.split_first()?;
    let (length, der) = match length {
        0..=0x7f => (usize::from(*length), der),
        0x81..=0x84 => {
            let (digits, der) = der.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |n, digit| (n << 8) | usize::from(*digit)), der)
        }
        _ => return None,
    };
    (*found == tag).then(|| der.split_at_checked(length)).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default().self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_is_hashed_as_its_signature_hashes() {
        for (signature, hash) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &SHA256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &SHA384),
            (&rcgen::PKCS_RSA_SHA256, &SHA256),
            (&rcgen::PKCS_RSA_SHA512, &SHA512),
        ] {
            let der = certificate(signature);
            let expected = digest::digest(hash, &der).as_ref().to_vec();
            assert_eq!(of_certificate(&der), Some(expected), "{signature:?}");
        }
    }

    #[test]
    fn old_hashes_count_as_sha_256_and_pss_names_its_own() {
        let rsa = |kind: u8| vec![6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, kind];
        assert_eq!(hash_of_signature(&rsa(4)), Some(&SHA256));
        assert_eq!(hash_of_signature(&rsa(5)), Some(&SHA256));
        assert_eq!(hash_of_signature(&rsa(2)), None);

        let pss = |parameters: &[u8]| [&rsa(10), parameters].concat();
        let sha384: &[u8] =
            &[0x30, 15, 0xa0, 13, 0x30, 11, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2];
        assert_eq!(hash_of_signature(&pss(sha384)), Some(&SHA384));
        assert_eq!(hash_of_signature(&pss(&[0x30, 0])), Some(&SHA256));
        assert_eq!(hash_of_signature(&pss(&[])), None);
    }

    #[test]
    fn ed25519_has_no_binding() {
        assert_eq!(of_certificate(&certificate(&rcgen::PKCS_ED25519)), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(noise in proptest::collection::vec(any::<u8>(), 0..64)) {
            of_certificate(&noise);
            hash_of_signature(&noise);
            hash_of_pss(&noise);
        }

        #[test]
        fn a_cut_or_changed_certificate_does_not_make_it_panic(
            cut in 0_usize..400, at in 0_usize..400, byte: u8,
        ) {
            let mut der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
            if let Some(b) = der.get_mut(at) { *b = byte; }
            der.truncate(cut);
            of_certificate(&der);
        }
    }
}
