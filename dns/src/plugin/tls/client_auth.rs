use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};

use super::certificate::certificates;
use crate::corefile::{ConfigError, Token};

/// How clients show who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientAuth {
    /// Not at all.
    NoCert,
    /// They are asked for a certificate; any or none will do.
    Request,
    /// Any certificate will do, but there must be one.
    Require,
    /// One that is shown must be of the CA.
    VerifyIfGiven,
    /// There must be one, of the CA.
    RequireAndVerify,
}

impl ClientAuth {
    pub(super) fn from_token(token: &Token) -> Result<Self, ConfigError> {
        match &**token {
            "nocert" => Ok(Self::NoCert),
            "request" => Ok(Self::Request),
            "require" => Ok(Self::Require),
            "verify_if_given" => Ok(Self::VerifyIfGiven),
            "require_and_verify" => Ok(Self::RequireAndVerify),
            _ => Err(token.error(format!(
                "client_auth must be nocert, request, require, verify_if_given or \
                 require_and_verify, not `{token}`"
            ))),
        }
    }
}

/// The judge of clients' certificates.
pub(super) fn verifier(
    how: ClientAuth,
    authorities: Option<&Path>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mandatory = match how {
        ClientAuth::NoCert => return Ok(WebPkiClientVerifier::no_client_auth()),
        ClientAuth::Request => return Ok(Arc::new(AnyCertificate::new(false))),
        ClientAuth::Require => return Ok(Arc::new(AnyCertificate::new(true))),
        ClientAuth::VerifyIfGiven => false,
        ClientAuth::RequireAndVerify => true,
    };
    let path = authorities.ok_or("client_auth with `verify` needs a CA file: `tls CERT KEY CA`")?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if mandatory {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    builder.build().map_err(|error| error.to_string())
}

/// Takes every certificate whose key the client has: it tells clients apart, it does not say
/// who they are.
#[derive(Debug)]
struct AnyCertificate {
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyCertificate {
    fn new(mandatory: bool) -> Self {
        let provider = rustls::crypto::ring::default_provider();
        Self {
            mandatory,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ClientCertVerifier for AnyCertificate {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
