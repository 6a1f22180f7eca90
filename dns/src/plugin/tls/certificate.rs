use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// From one look at the files to the next, at a handshake.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A certificate and its key, read again once their files have changed: a secret that is
/// renewed takes effect without a reload.
#[derive(Debug)]
pub(super) struct FollowedCertificate {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    looked: Instant,
    files: Stamp,
}

/// When the files were last written; `None` for one that can't be looked at.
type Stamp = [Option<SystemTime>; 2];

impl FollowedCertificate {
    pub(super) fn load(certificate: PathBuf, key: PathBuf) -> Result<Self, String> {
        let files = stamp(&certificate, &key);
        let current = ArcSwap::from_pointee(read(&certificate, &key)?);
        let seen = Mutex::new(Seen {
            looked: Instant::now(),
            files,
        });
        Ok(Self {
            certificate,
            key,
            current,
            seen,
        })
    }

    pub(super) fn refresh(&self, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(seen.looked) < LOOK_EVERY {
            return;
        }
        seen.looked = now;
        let files = stamp(&self.certificate, &self.key);
        if files == seen.files {
            return;
        }
        seen.files = files;
        let path = self.certificate.display();
        match read(&self.certificate, &self.key) {
            Ok(new) => {
                self.current.store(Arc::new(new));
                tracing::info!("plugin/tls: {path} has changed and is in use");
            }
            Err(error) => tracing::warn!("plugin/tls: the old certificate stays in use: {error}"),
        }
    }

    pub(super) fn current(&self) -> Arc<CertifiedKey> {
        self.current.load_full()
    }
}

impl ResolvesServerCert for FollowedCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.refresh(Instant::now());
        Some(self.current())
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    let written = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    [written(certificate), written(key)]
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, String> {
    let key_error = |error: &dyn std::fmt::Display| format!("{}: {error}", key.display());
    let chain = certificates(certificate)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| key_error(&error))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, private, &provider).map_err(|error| key_error(&error))
}

/// The certificates of a PEM file; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| wrong(&error))?;
    if certificates.is_empty() {
        return Err(wrong(&"no PEM certificate in it"));
    }
    Ok(certificates)
}
