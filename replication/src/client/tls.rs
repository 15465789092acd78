//! TLS to the primary, with libpq's modes and files.
//!
//! | `sslmode` | what is asked | what is checked of the server's certificate |
//! |---|---|---|
//! | `disable` | plain text | |
//! | `prefer` | TLS where the server has it, plain text elsewhere | nothing |
//! | `require` | TLS | nothing; as `verify-ca` where `sslrootcert` is given |
//! | `verify-ca` | TLS | that it is signed by a certificate of `sslrootcert` |
//! | `verify-full` | TLS | that, and that it names the host (in its subjectAltName) |
//!
//! A certificate that is itself in `sslrootcert` is trusted, which is how self-signed ones are used. Whatever the mode, the server must
//! prove that it has the certificate's key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::error::{Error, Result};

/// How much the connection must be secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    #[default]
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Whether the password exchange must be tied to the TLS connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    Disable,
    /// Where the server can.
    #[default]
    Prefer,
    Require,
}

/// What libpq's `ssl...` settings say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsOptions {
    pub mode: SslMode,
    /// Certificates to trust, PEM.
    pub root_certificate: Option<PathBuf>,
    /// Our certificate with its chain, PEM; needs `key`.
    pub certificate: Option<PathBuf>,
    /// The private key of our certificate, PEM, not encrypted.
    pub key: Option<PathBuf>,
    pub channel_binding: ChannelBinding,
}

impl FromStr for SslMode {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        Ok(match text {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return Err(()),
        })
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        })
    }
}

impl FromStr for ChannelBinding {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        Ok(match text {
            "disable" => ChannelBinding::Disable,
            "prefer" => ChannelBinding::Prefer,
            "require" => ChannelBinding::Require,
            _ => return Err(()),
        })
    }
}

impl TlsOptions {
    /// The set-up of rustls for one connection; `None` where TLS is not wanted. Reads the files, so that changed ones count at the next connection.
    /// # Errors
    /// `Setup` for files that are missing or hold something else.
    pub(crate) fn client_config(&self) -> Result<Option<Arc<ClientConfig>>> {
        let has_roots = self.root_certificate.is_some();
        let check = match self.mode {
            SslMode::Disable => return Ok(None),
            SslMode::Prefer => Check::Nothing,
            SslMode::Require if has_roots => Check::Signature,
            SslMode::Require => Check::Nothing,
            SslMode::VerifyCa => Check::Signature,
            SslMode::VerifyFull => Check::SignatureAndName,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new(check, self.root_certificate.as_deref(), self.mode, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::Setup(format!("could not set up TLS: {e}")))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match (&self.certificate, &self.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate)?;
                let private = PrivateKeyDer::from_pem_file(key)
                    .map_err(|e| Error::Setup(format!("file \"{}\" holds no private key that can be read: {e}", key.display())))?;
                builder.with_client_auth_cert(chain, private).map_err(|e| {
                    Error::Setup(format!("certificate \"{}\" and key \"{}\" cannot be used: {e}", certificate.display(), key.display()))
                })?
            }
            _ => return Err(Error::Setup("sslcert and sslkey must be given together".into())),
        };
        // PostgreSQL's servers of version 17 and later look at it; earlier ones do not mind.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Some(Arc::new(config)))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed =
        |what: &dyn fmt::Display| Error::Setup(format!("file \"{}\" holds no certificate that can be read: {what}", path.display()));
    let read: std::result::Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|e| failed(&e))?.collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err(failed(&"it is empty")),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(failed(&error)),
    }
}

/// The host as it stands in a certificate.
/// # Errors
/// `Setup` for what is neither a name nor an address.
pub(crate) fn server_name(host: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned()).map_err(|_| Error::Setup(format!("\"{host}\" is neither a host name nor an address")))
}

/// A handshake that failed: for good, if it is about certificates.
pub(super) fn handshake_error(error: io::Error) -> Error {
    let certificate = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match certificate {
        Some(rustls::Error::InvalidCertificate(why)) => Error::Setup(format!("the primary's certificate is refused: {why}")),
        Some(rustls::Error::AlertReceived(alert)) => Error::Setup(format!("the primary refuses the TLS connection: {alert:?}")),
        _ => Error::Connection { action: "agree on TLS with the primary", source: error },
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Nothing,
    Signature,
    SignatureAndName,
}

/// Checks a server's certificate as far as the mode asks.
#[derive(Debug)]
struct Verifier {
    check: Check,
    roots: Vec<CertificateDer<'static>>,
    /// Absent where nothing is checked.
    by_roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(check: Check, root_certificate: Option<&Path>, mode: SslMode, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let provider = Arc::clone(provider);
        if check == Check::Nothing {
            return Ok(Verifier { check, roots: Vec::new(), by_roots: None, provider });
        }
        let path = root_certificate.ok_or_else(|| Error::Setup(format!("sslmode {mode} needs sslrootcert")))?;
        let roots = certificates(path)?;
        let mut store = RootCertStore::empty();
        for root in &roots {
            store
                .add(root.clone())
                .map_err(|e| Error::Setup(format!("file \"{}\" holds a certificate that cannot be used: {e}", path.display())))?;
        }
        let by_roots = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(&provider))
            .build()
            .map_err(|e| Error::Setup(format!("file \"{}\" cannot be used: {e}", path.display())))?;
        Ok(Verifier { check, roots, by_roots: Some(by_roots), provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(by_roots) = &self.by_roots else { return Ok(ServerCertVerified::assertion()) };
        if self.roots.iter().any(|root| root == end_entity) {
            if self.check == Check::SignatureAndName {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        match by_roots.verify_server_cert(end_entity, intermediates, name, ocsp_response, now) {
            // The name is looked at when all else was found to be right.
            Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }))
                if self.check == Check::Signature =>
            {
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_libpq_writes_them() {
        for mode in [SslMode::Disable, SslMode::Prefer, SslMode::Require, SslMode::VerifyCa, SslMode::VerifyFull] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("allow".parse::<SslMode>().is_err());
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let text = |options: TlsOptions| options.client_config().expect_err("an error").to_string();
        let verify = TlsOptions { mode: SslMode::VerifyFull, ..TlsOptions::default() };
        assert_eq!(text(verify.clone()), "sslmode verify-full needs sslrootcert");
        assert!(text(TlsOptions { root_certificate: Some("/no/such/file".into()), ..verify }).contains("\"/no/such/file\""));
        assert!(text(TlsOptions { certificate: Some("c".into()), ..TlsOptions::default() }).contains("sslkey"));
        assert!(TlsOptions { mode: SslMode::Disable, ..TlsOptions::default() }.client_config().unwrap().is_none());
        assert!(TlsOptions::default().client_config().unwrap().is_some());
    }
}
