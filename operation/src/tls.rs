//! TLS for our own servers, with a certificate that may be exchanged while they run.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ServerConfig;
use tokio_rustls::TlsAcceptor;

/// The files are looked at this often at most, when somebody connects.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Why files are no certificate and key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Of the certificate's file.
    #[error("a PEM file with a certificate ({0})")]
    Certificate(String),
    /// Of the key's file.
    #[error("a PEM file with a private key ({0})")]
    Key(String),
    /// Of both together.
    #[error("the key of the certificate ({0})")]
    Pair(rustls::Error),
}

/// What connections are accepted with: read again when the files change. Where they make no
/// sense then, what was read before stays in use.
#[derive(Debug)]
pub struct Tls {
    files: Files,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    stamps: Stamps,
    looked: Instant,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Current")
    }
}

/// What changes with a file's text, of certificate and key.
type Stamps = [Option<(u64, u64, i64, i64)>; 2];

impl Tls {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// [`TlsError`], with what was expected of which file.
    pub fn open(files: Files) -> Result<Self, TlsError> {
        // Before they are read: no change is missed.
        let stamps = files.stamps();
        let config = files.read()?;
        let current = Mutex::new(Current {
            config,
            stamps,
            looked: Instant::now(),
        });
        Ok(Self { files, current })
    }

    /// For one connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            let stamps = self.files.stamps();
            if stamps != current.stamps {
                current.stamps = stamps;
                match self.files.read() {
                    Ok(config) => {
                        tracing::info!(files = ?self.files, "the server's certificate was read again");
                        current.config = config;
                    }
                    Err(error) => tracing::warn!(
                        files = ?self.files,
                        "expected {error}: the server's certificate stays the one read before"
                    ),
                }
            }
        }
        TlsAcceptor::from(Arc::clone(&current.config))
    }
}

impl Files {
    fn stamps(&self) -> Stamps {
        [&self.certificate, &self.key].map(|path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
        })
    }

    fn read(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let text = |path: &Path| fs::read(path).map_err(|error: io::Error| error.to_string());
        let certificates = text(&self.certificate).map_err(TlsError::Certificate)?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&certificates)
            .collect::<Result<_, _>>()
            .map_err(|error| TlsError::Certificate(error.to_string()))?;
        if certificates.is_empty() {
            let none = "there is none in it".to_owned();
            return Err(TlsError::Certificate(none));
        }
        let key = text(&self.key).map_err(TlsError::Key)?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|error| TlsError::Key(error.to_string()))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Pair)?
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .map_err(TlsError::Pair)?;
        Ok(Arc::new(config))
    }
}
