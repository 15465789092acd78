//! The server's certificate as SCRAM's channel binding `tls-server-end-point` sees it (RFC 5929, section 4).
//!
//! The exchange of the password covers a hash of the certificate, so that nobody in between can pass it on. The hash is the one that the certificate was
//! signed with, so its signature algorithm must be known: an object identifier in its DER form.

use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256, Sha384, Sha512};

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The hash of a certificate; `None` where its signature algorithm does not tell one (Ed25519, RSASSA-PSS), or it is no certificate.
pub(crate) fn server_end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let der = certificate.as_ref();
    Some(match signature_algorithm(der)? {
        // RSA with MD5, SHA-1 and SHA-256, and ECDSA with SHA-1 and SHA-256: the first two hashes are replaced by SHA-256.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04 | 0x05 | 0x0b] => Sha256::digest(der).to_vec(),
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02] => Sha256::digest(der).to_vec(),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03] => {
            Sha384::digest(der).to_vec()
        }
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04] => {
            Sha512::digest(der).to_vec()
        }
        _ => return None,
    })
}

/// The object identifier in `Certificate ::= SEQUENCE { tbsCertificate, SEQUENCE { OBJECT IDENTIFIER, ... }, ... }`.
fn signature_algorithm(der: &[u8]) -> Option<&[u8]> {
    let (tag, certificate, _) = element(der)?;
    let (_, _, after_tbs) = element(certificate)?;
    let (algorithm_tag, algorithm, _) = element(after_tbs)?;
    let (identifier_tag, identifier, _) = element(algorithm)?;
    (tag == SEQUENCE && algorithm_tag == SEQUENCE && identifier_tag == OBJECT_IDENTIFIER).then_some(identifier)
}

/// The first element's tag and content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, size], rest) = der.split_first_chunk::<2>()?;
    let (size, rest) = match size {
        0..=0x7f => (usize::from(size), rest),
        // The number of bytes of the size; more than four are more than any certificate has.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(size & 0x7f))?;
            (bytes.iter().fold(0, |size, byte| (size << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(size)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's outer form around an algorithm.
    fn certificate(identifier: &[u8]) -> Vec<u8> {
        let put = |tag: u8, content: &[u8]| [&[tag, 0x82, (content.len() >> 8) as u8, content.len() as u8], content].concat();
        let algorithm = put(SEQUENCE, &[put(OBJECT_IDENTIFIER, identifier), vec![5, 0]].concat());
        put(SEQUENCE, &[put(SEQUENCE, &[7; 300]), algorithm, put(3, &[1; 64])].concat())
    }

    #[test]
    fn the_hash_is_that_of_the_signature_and_at_least_sha256() {
        let size = |identifier: &[u8]| server_end_point(&CertificateDer::from(certificate(identifier))).map(|hash| hash.len());
        let rsa = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
        let ecdsa = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];
        for (last, expected) in [(0x04, Some(32)), (0x05, Some(32)), (0x0b, Some(32)), (0x0c, Some(48)), (0x0d, Some(64)), (0x0a, None)] {
            assert_eq!(size(&[&rsa[..], &[last]].concat()), expected, "{last}");
        }
        for (last, expected) in [(0x02, Some(32)), (0x03, Some(48)), (0x04, Some(64))] {
            assert_eq!(size(&[&ecdsa[..], &[last]].concat()), expected, "{last}");
        }
        assert_eq!(size(&[0x2b, 0x65, 0x70]), None);
    }

    #[test]
    fn damaged_certificates_have_no_hash() {
        let whole = certificate(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b]);
        for size in 0..whole.len() {
            assert_eq!(server_end_point(&CertificateDer::from(&whole[..size])), None, "{size}");
        }
        assert_eq!(server_end_point(&CertificateDer::from(&[0x30, 0x80][..])), None);
    }
}
