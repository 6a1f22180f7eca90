//! `tls`: certificates for a server block's `tls://` keys. See the README.

mod certificate;
mod client_auth;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;

use self::certificate::FollowedCertificate;
use self::client_auth::{ClientAuth, verifier};
use super::{Plugin, Setup};
use crate::corefile::{ConfigError, Token};

/// `tls CERT KEY [CA] { client_auth HOW }`
///
/// # Errors
/// Files that can't be read, or that do not fit together.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    let args = line.between(2, 3, "a certificate, a key and perhaps a CA file")?;
    let path = |token: &Token| -> PathBuf { setup.block.root.join(&**token) };
    let [certificate, key, rest @ ..] = args else {
        return Err(line.error("`tls` takes a certificate and a key"));
    };
    let mut client_auth = ClientAuth::NoCert;
    for option in line.options() {
        if &**option.name() != "client_auth" {
            return Err(option.unknown_option(&["client_auth"]));
        }
        let [how] = option.exactly::<1>("how clients show who they are")?;
        client_auth = ClientAuth::from_token(how)?;
    }
    let refuse = |problem: String| line.error(problem);
    let authorities = rest.first().map(path);
    let verifier = verifier(client_auth, authorities.as_deref()).map_err(refuse)?;
    let followed = FollowedCertificate::load(path(certificate), path(key)).map_err(refuse)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| line.error(error.to_string()))?;
    let mut config = builder
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(followed));
    config.alpn_protocols = vec![b"dot".to_vec()];
    setup.block.tls = Some(Arc::new(config));
    Ok(Vec::new())
}

#[cfg(test)]
mod tests;
