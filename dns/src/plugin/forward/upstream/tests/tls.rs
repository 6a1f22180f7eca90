use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::{ExchangeError, How, TlsError, TlsFiles, TlsPeer, Upstream, UpstreamOptions};
use super::{expected, patient, query, reply_to};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An authority, a server certificate for dns.example and 127.0.0.1, and a client certificate.
struct Pki {
    folder: TempDir,
    authority: Certificate,
    server: (Certificate, KeyPair),
}

impl Pki {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let server = signed(&issuer, &["dns.example"]);
        let client = signed(&issuer, &["client.example"]);
        let write = |name: &str, text: String| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        write("ca.pem", authority.pem());
        write("client.pem", client.0.pem());
        write("client.key", client.1.serialize_pem());
        Self {
            folder,
            authority,
            server,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn trusting(&self) -> TlsFiles {
        TlsFiles {
            authorities: Some(self.path("ca.pem")),
            certificate_and_key: None,
        }
    }

    fn with_certificate(&self) -> TlsFiles {
        TlsFiles {
            certificate_and_key: Some((self.path("client.pem"), self.path("client.key"))),
            ..self.trusting()
        }
    }

    /// A DoT server; `wants_certificate`: of every client.
    async fn serve(&self, wants_certificate: bool) -> SocketAddr {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if wants_certificate {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(self.authority.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.server.1.serialize_der()));
        let config = builder
            .with_single_cert(vec![self.server.0.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.ok()?;
                    loop {
                        let length = stream.read_u16().await.ok()?;
                        let mut query = vec![0; usize::from(length)];
                        stream.read_exact(&mut query).await.ok()?;
                        let reply = reply_to(&query);
                        stream
                            .write_u16(u16::try_from(reply.len()).unwrap())
                            .await
                            .ok()?;
                        stream.write_all(&reply).await.ok()?;
                        stream.flush().await.ok()?;
                    }
                    #[expect(unreachable_code, reason = "gives the block its type")]
                    Some(())
                });
            }
        });
        address
    }
}

fn signed(issuer: &Issuer<'static, KeyPair>, names: &[&str]) -> (Certificate, KeyPair) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.subject_alt_names.push(SanType::IpAddress(LOCALHOST));
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, issuer).unwrap(), key)
}

fn upstream(to: SocketAddr, files: &TlsFiles, name: Option<&str>) -> Arc<Upstream> {
    let peer = TlsPeer::new(files.load().unwrap(), name, to.ip()).unwrap();
    let options = UpstreamOptions {
        tls: Some(peer),
        ..UpstreamOptions::default()
    };
    Upstream::new(to, options).unwrap()
}

#[tokio::test]
async fn queries_share_a_tls_session_whatever_the_client_used() {
    let pki = Pki::new();
    let address = pki.serve(false).await;
    for name in [Some("dns.example"), None] {
        let upstream = upstream(address, &pki.trusting(), name);
        for how in [How::Udp, How::Tcp, How::Udp] {
            let query = query("www");
            let reply = upstream.exchange(&query, how, patient()).await.unwrap();
            assert_eq!(reply, expected(&query));
        }
        assert_eq!(upstream.stream.open_connections(), 1);
    }
}

#[tokio::test]
async fn many_queries_at_once_go_over_tls() {
    let pki = Pki::new();
    let address = pki.serve(false).await;
    let upstream = upstream(address, &pki.trusting(), None);
    let asked = (0..300).map(|at| {
        let upstream = Arc::clone(&upstream);
        tokio::spawn(async move {
            let query = query(&format!("n{at}"));
            let reply = upstream
                .exchange(&query, How::Tcp, patient())
                .await
                .unwrap();
            assert_eq!(reply, expected(&query));
        })
    });
    for done in futures::future::join_all(asked).await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused_and_said_so() {
    let pki = Pki::new();
    let address = pki.serve(false).await;
    let upstream = upstream(address, &pki.trusting(), Some("other.example"));
    let outcome = upstream.exchange(&query("www"), How::Udp, patient()).await;
    let Err(ExchangeError::Tls(reason)) = &outcome else {
        panic!("{outcome:?}")
    };
    assert!(reason.contains("other.example"), "{reason}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let pki = Pki::new();
    let address = pki.serve(false).await;
    let stranger = Pki::new();
    let upstream = upstream(address, &stranger.trusting(), None);
    let outcome = upstream.exchange(&query("www"), How::Udp, patient()).await;
    assert!(matches!(outcome, Err(ExchangeError::Tls(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_ours() {
    let pki = Pki::new();
    let address = pki.serve(true).await;
    let query = query("www");
    let reply = upstream(address, &pki.with_certificate(), None)
        .exchange(&query, How::Udp, patient())
        .await
        .unwrap();
    assert_eq!(reply, expected(&query));
    let outcome = upstream(address, &pki.trusting(), None)
        .exchange(&query, How::Udp, patient())
        .await;
    assert!(outcome.is_err(), "without a certificate");
}

#[test]
fn files_that_are_missing_or_no_pem_are_named() {
    let pki = Pki::new();
    let files = TlsFiles {
        authorities: Some(pki.path("nothing.pem")),
        certificate_and_key: None,
    };
    let error = files.load().unwrap_err();
    assert!(matches!(&error, TlsError::File { path, .. } if path.ends_with("nothing.pem")));
    let files = TlsFiles {
        authorities: Some(pki.path("client.key")),
        certificate_and_key: None,
    };
    assert!(
        files
            .load()
            .unwrap_err()
            .to_string()
            .contains("no PEM certificate")
    );
}

#[test]
fn a_name_no_certificate_can_have_is_refused() {
    let pki = Pki::new();
    let config = pki.trusting().load().unwrap();
    let error = TlsPeer::new(config, Some("no name"), LOCALHOST).unwrap_err();
    assert_eq!(error.to_string(), "\"no name\" is no name of a TLS server");
}
