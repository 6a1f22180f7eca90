use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context;
use data_encoding::BASE64;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::Settings;

/// A certificate authority of its own, with one certificate for the server and one for a
/// client.
#[derive(Debug)]
pub struct Identities {
    /// The authority's certificate.
    pub ca_pem: String,
    /// The client's certificate…
    pub client_pem: String,
    /// …and its key.
    pub client_key_pem: String,
    ca: CertificateDer<'static>,
    server: CertificateDer<'static>,
    server_key: Vec<u8>,
}

impl Identities {
    /// Makes them for a server at this address; what the settings say has expired, has.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn new(server: IpAddr, settings: &Settings) -> anyhow::Result<Self> {
        let expire = |params: &mut CertificateParams| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        };
        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::new(Vec::new())?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(DnType::CommonName, "stand-in CA");
        let ca_certificate = ca.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca, ca_key);

        let server_key = KeyPair::generate()?;
        let names = vec!["localhost".to_owned(), "kubernetes.default.svc".to_owned()];
        let mut params = CertificateParams::new(names)?;
        params.subject_alt_names.push(SanType::IpAddress(server));
        if settings.expired {
            expire(&mut params);
        }
        let server_certificate = params.signed_by(&server_key, &issuer)?;

        let client_key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, "system:kube-proxy");
        if settings.client_expired {
            expire(&mut params);
        }
        let client_certificate = params.signed_by(&client_key, &issuer)?;
        Ok(Self {
            ca_pem: ca_certificate.pem(),
            client_pem: client_certificate.pem(),
            client_key_pem: client_key.serialize_pem(),
            ca: ca_certificate.der().clone(),
            server: server_certificate.der().clone(),
            server_key: server_key.serialize_der(),
        })
    }

    /// A kubeconfig for a server at this URL, with this content of `user`.
    #[must_use]
    pub fn kubeconfig(&self, url: &str, user: &Value) -> String {
        let ca = BASE64.encode(self.ca_pem.as_bytes());
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "stand-in", "cluster": {"server": url, "certificate-authority-data": ca}}],
            "users": [{"name": "client", "user": user}],
            "contexts": [{"name": "main", "context": {"cluster": "stand-in", "user": "client"}}],
            "current-context": "main",
        });
        config.to_string()
    }

    /// The content of `user` for the client's certificate.
    #[must_use]
    pub fn client_certificate_user(&self) -> Value {
        json!({
            "client-certificate-data": BASE64.encode(self.client_pem.as_bytes()),
            "client-key-data": BASE64.encode(self.client_key_pem.as_bytes()),
        })
    }

    pub(super) fn acceptor(&self, settings: &Settings) -> anyhow::Result<TlsAcceptor> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = if settings.client_certificates {
            let mut roots = RootCertStore::empty();
            roots.add(self.ca.clone())?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()?;
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.server_key.clone()));
        let mut config = builder
            .with_single_cert(vec![self.server.clone()], key)
            .context("the server's certificate")?;
        config.alpn_protocols = if settings.only_http1 {
            vec![b"http/1.1".to_vec()]
        } else {
            vec![b"h2".to_vec(), b"http/1.1".to_vec()]
        };
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
