//! TLS to an upstream (RFC 7858): whom to trust, which name to expect, which certificate to show.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::ExchangeError;

/// The files that say how to speak TLS. Without any: the machine's trusted authorities and no
/// certificate of our own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM file with the authorities to trust in place of the machine's.
    pub authorities: Option<PathBuf>,
    /// PEM files with our certificate chain and its private key.
    pub certificate_and_key: Option<(PathBuf, PathBuf)>,
}

/// What is wrong with the TLS files or the machine's authorities.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// There is nobody to trust.
    #[error(
        "this machine has no trusted certificate authorities (looked where SSL_CERT_FILE, \
         SSL_CERT_DIR and the system say{detail}); name a CA file with `tls`, or install \
         the package ca-certificates"
    )]
    NoAuthorities {
        /// What went wrong when looking; empty if nothing was there.
        detail: String,
    },
    /// The certificate and the key are not accepted.
    #[error("client certificate: {0}")]
    Certificate(#[from] rustls::Error),
    /// Not a name that a certificate can have.
    #[error("{0:?} is no name of a TLS server")]
    ServerName(String),
}

impl TlsFiles {
    /// Reads the files and the machine's authorities. TLS 1.2 and 1.3 are spoken.
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let roots = match &self.authorities {
            Some(path) => authorities_in(path)?,
            None => authorities_of_the_machine()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots);
        let config = match &self.certificate_and_key {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(certificates_in(certificate)?, private_key_in(key)?)?,
        };
        Ok(Arc::new(config))
    }
}

fn authorities_in(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(path)? {
        roots
            .add(certificate)
            .map_err(|error| file_error(path, &error))?;
    }
    Ok(roots)
}

fn authorities_of_the_machine() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _unusable) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let detail = found
            .errors
            .first()
            .map_or_else(String::new, |error| format!(": {error}"));
        return Err(TlsError::NoAuthorities { detail });
    }
    Ok(roots)
}

fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| file_error(path, &error))?;
    if certificates.is_empty() {
        return Err(file_error(path, &"no PEM certificate in it"));
    }
    Ok(certificates)
}

fn private_key_in(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| file_error(path, &error))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| file_error(path, &error))
}

fn file_error(path: &Path, reason: &impl ToString) -> TlsError {
    TlsError::File {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// How one upstream is spoken to over TLS.
#[derive(Debug, Clone)]
pub struct TlsPeer {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl TlsPeer {
    /// The certificate must be for `server_name`, or for `address` where there is none.
    pub fn new(
        config: Arc<ClientConfig>,
        server_name: Option<&str>,
        address: IpAddr,
    ) -> Result<Self, TlsError> {
        let name = match server_name {
            None => ServerName::from(address),
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|_invalid| TlsError::ServerName(name.to_owned()))?,
        };
        Ok(Self { config, name })
    }

    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, ExchangeError> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        Ok(connector.connect(self.name.clone(), stream).await?)
    }
}
