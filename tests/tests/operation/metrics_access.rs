//! Metrics over TLS, and who may read them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use switchyard_tests::testbed::{Place, Proxy, find_binary, wait_for};

use super::stage::{POLL, SOON, Stage};

const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);
const TIMEOUT: Duration = Duration::from_secs(20);

/// A certificate in two files, which a client can trust.
struct Certificate {
    own: CertificateDer<'static>,
    pem: String,
    key: String,
}

impl Certificate {
    fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        let address = SanType::IpAddress(METRICS.ip());
        params.subject_alt_names.push(address);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            own: certificate.der().clone(),
            pem: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

struct Access {
    stage: Stage,
    folder: PathBuf,
}

impl Access {
    fn new() -> Result<Self> {
        let stage = Stage::new()?;
        let folder = stage.bed.work_dir().to_owned();
        Ok(Self { stage, folder })
    }

    /// Each file in one step.
    fn put(&self, name: &str, text: &str) -> Result<()> {
        let new = self.folder.join("new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.folder.join(name))?)
    }

    fn flag(&self, flag: &str, name: &str) -> String {
        format!("--metrics-{flag}={}", self.folder.join(name).display())
    }

    /// Status and body of a page, for who trusts this certificate.
    fn get(&self, trusted: &Certificate, path: &str, token: Option<&str>) -> Result<(u16, String)> {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.own.clone())?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::IpAddress(METRICS.ip().into());
        let tls = ClientConnection::new(Arc::new(config), name)?;
        let token = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n",
            token.unwrap_or_default()
        );
        self.stage.bed.in_place(Place::Node1, move || {
            let stream = TcpStream::connect(METRICS)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            let mut stream = StreamOwned::new(tls, stream);
            stream.write_all(request.as_bytes())?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
            let status = head.split(' ').nth(1).context("no status")?.parse()?;
            Ok((status, body.to_owned()))
        })?
    }

    fn reviews(&self, of: &str) -> usize {
        let requests = self.stage.api.server().requests();
        requests.iter().filter(|seen| seen.resource() == of).count()
    }
}

#[test]
fn metrics_are_read_over_tls_by_who_has_a_token_or_the_right() -> Result<()> {
    let access = Access::new()?;
    let (first, second) = (Certificate::new()?, Certificate::new()?);
    access.put("tls.crt", &first.pem)?;
    access.put("tls.key", &first.key)?;
    access.put("tokens", "of-a-file\nof-another-line\n")?;
    let server = access.stage.api.server();
    server.know_holder("of-prometheus", "system:prometheus", &["/metrics"]);
    let mut options = access.stage.options("nftables")?;
    options.flags.extend([
        access.flag("tls-cert-file", "tls.crt"),
        access.flag("tls-key-file", "tls.key"),
        access.flag("token-file", "tokens"),
        "--metrics-delegated-authorization".to_owned(),
    ]);
    let proxy = Proxy::start(&access.stage.bed, options)?;
    let status = |path: &str, token| Ok::<_, anyhow::Error>(access.get(&first, path, token)?.0);

    ensure!(status("/healthz", None)? == 200);
    ensure!(status("/nowhere", None)? == 404);
    ensure!(status("/metrics", None)? == 401);
    ensure!(status("/metrics", Some("of-nobody"))? == 401);
    ensure!(status("/configz", Some("of-another-line"))? == 200);
    for _ in 0..5 {
        let (status, text) = access.get(&first, "/metrics", Some("of-prometheus"))?;
        ensure!(status == 200 && text.contains("kubeproxy_"), "{status}");
    }
    let (status, said) = access.get(&first, "/configz", Some("of-prometheus"))?;
    ensure!(status == 403, "{status}: {said}");
    ensure!(
        said.contains("user=system:prometheus") && said.contains("/configz"),
        "{said}"
    );
    // One question for each token and page; the files' tokens need none.
    ensure!(access.reviews("tokenreviews") == 3);
    ensure!(access.reviews("subjectaccessreviews") == 2);
    let plain = access.stage.bed.http_get(Place::Node1, METRICS, "/metrics");
    ensure!(plain.is_err(), "{plain:?}");

    access.put("tls.key", &second.key)?;
    access.put("tls.crt", &second.pem)?;
    access.put("tokens", "a-new-one\n")?;
    wait_for("the new certificate", SOON, POLL, || {
        Ok(access.get(&second, "/healthz", None).is_ok())
    })?;
    wait_for("the new token", SOON, POLL, || {
        Ok(access.get(&second, "/metrics", Some("a-new-one"))?.0 == 200)
    })?;
    ensure!(access.get(&first, "/healthz", None).is_err());
    access.put("tls.crt", "no certificate")?;
    wait_for("what is said of it", SOON, POLL, || {
        ensure!(access.get(&second, "/healthz", None)?.0 == 200);
        Ok(proxy.log().contains("stays the one read before"))
    })?;
    Ok(())
}

#[test]
fn bad_files_are_named_with_what_was_expected_of_them() -> Result<()> {
    let access = Access::new()?;
    let (one, other) = (Certificate::new()?, Certificate::new()?);
    access.put("good.crt", &one.pem)?;
    access.put("good.key", &one.key)?;
    access.put("other.key", &other.key)?;
    access.put("bad", "nothing of the kind")?;
    access.put("empty", "\n")?;
    let pair = |certificate: &str, key: &str| {
        vec![
            access.flag("tls-cert-file", certificate),
            access.flag("tls-key-file", key),
        ]
    };
    let cases = [
        (
            pair("bad", "good.key"),
            "--metrics-tls-cert-file: \"",
            "a PEM file with a certificate (there is none in it)",
        ),
        (
            pair("missing", "good.key"),
            "--metrics-tls-cert-file: \"",
            "a PEM file with a certificate (No such file",
        ),
        (
            pair("good.crt", "bad"),
            "--metrics-tls-key-file: \"",
            "a PEM file with a private key (",
        ),
        (
            pair("good.crt", "other.key"),
            "--metrics-tls-key-file: \"",
            "the key of the certificate (",
        ),
        (
            vec![access.flag("tls-cert-file", "good.crt")],
            "--metrics-tls-cert-file: \"",
            "expected tlsKeyFile beside it",
        ),
        (
            vec![access.flag("token-file", "empty")],
            "--metrics-token-file: \"",
            "a file with a bearer token in each line (there is none in it)",
        ),
        (
            vec![
                "--metrics-bind-address=0.0.0.0".to_owned(),
                "--metrics-delegated-authorization".to_owned(),
            ],
            "--metrics-bind-address: \"0.0.0.0:10249\"",
            "tokens must not cross a network in the clear",
        ),
    ];
    for (flags, field, expected) in cases {
        let ended = Command::new(find_binary()?).args(&flags).output()?;
        let said = String::from_utf8(ended.stderr)?;
        ensure!(ended.status.code() == Some(2), "{flags:?}: {said}");
        ensure!(
            said.contains(field) && said.contains(expected),
            "{flags:?}: {said}"
        );
    }
    Ok(())
}
