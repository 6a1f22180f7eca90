use std::path::{Path, PathBuf};

use switchyard_operation::tls::{Files, Tls, TlsError};

use super::Check;
use crate::health::Access;
use crate::settings::MetricsGuard;
use crate::settings::configuration::Configuration;

const CERT: &str = "switchyard.metrics.tlsCertFile";
const KEY: &str = "switchyard.metrics.tlsKeyFile";
const TOKENS: &str = "switchyard.metrics.tokenFile";
const DELEGATED: &str = "switchyard.metrics.delegatedAuthorization";

impl Check {
    /// Who may read the metrics, and over what. The files are read, so that bad ones are no
    /// surprise later.
    pub(in crate::settings) fn metrics_guard(&mut self, all: &Configuration) -> MetricsGuard {
        let said = &all.switchyard.metrics;
        let tls = match (&said.tls_cert_file, &said.tls_key_file) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(self.pair(certificate, key)),
            (Some(certificate), None) => {
                self.wrong(CERT, &shown(certificate), "tlsKeyFile beside it");
                None
            }
            (None, Some(key)) => {
                self.wrong(KEY, &shown(key), "tlsCertFile beside it");
                None
            }
        };
        if let Some(file) = &said.token_file
            && let Err(error) = Access::new(Some(file), None)
        {
            self.wrong(TOKENS, &shown(file), error.to_string());
        }
        if said.delegated_authorization && all.switchyard.manifests.is_some() {
            let expected = "no switchyard.manifests beside it: there is no API server to ask";
            self.wrong(DELEGATED, "true", expected);
        }
        let asks = said.token_file.is_some() || said.delegated_authorization;
        let local = ["127.", "[::1]", "localhost"];
        let address = &all.metrics_bind_address;
        let is_local = address.is_empty() || local.iter().any(|prefix| address.starts_with(prefix));
        if asks && tls.is_none() && !is_local {
            let expected = "a loopback address, or tlsCertFile: tokens must not cross a network \
                            in the clear";
            self.wrong("metricsBindAddress", address, expected);
        }
        MetricsGuard {
            tls,
            token_file: said.token_file.clone(),
            delegated: said.delegated_authorization,
        }
    }

    fn pair(&mut self, certificate: &Path, key: &Path) -> Files {
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        if let Err(error) = Tls::open(files.clone()) {
            let (field, file): (_, &PathBuf) = match error {
                TlsError::Certificate(_) => (CERT, &files.certificate),
                TlsError::Key(_) | TlsError::Pair(_) => (KEY, &files.key),
            };
            self.wrong(field, &shown(file), error.to_string());
        }
        files
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
