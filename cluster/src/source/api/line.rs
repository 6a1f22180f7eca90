//! From kubeconfig, certificates and tokens to something that carries requests.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::{Body, ConfigExt};
use kube::config::{
    AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster,
    NamedContext,
};
use tower::util::BoxCloneService;
use tower::{BoxError, ServiceBuilder};

use super::reason::whole_chain;
use super::token::TokenFile;
use super::{Access, Timing, TlsFiles};
use crate::source::SourceError;

/// A connection attempt to one address gives up after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A quiet TCP connection is probed after this…
const TCP_QUIET: Duration = Duration::from_secs(30);
/// …and then this often…
const TCP_PROBE_INTERVAL: Duration = Duration::from_secs(5);
/// …and given up after so many probes without an answer.
const TCP_PROBES: u32 = 3;
/// The kernel gives up a TCP connection whose peer acknowledges nothing for this long.
pub const TCP_DEAD_AFTER: Duration = Duration::from_secs(45);

/// Carries requests to the API server, with who we are added to each.
pub(super) type Carrier = BoxCloneService<Request<Body>, Response<Incoming>, BoxError>;

/// A way to the API server.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) carrier: Carrier,
    /// Host and port of the server.
    pub(super) host: Arc<str>,
}

/// Reads what leads to the API server and prepares connections; connects to nothing yet.
pub(super) async fn open(access: &Access, timing: &Timing) -> Result<Line, SourceError> {
    let place = access.to_string();
    let refused = |message: String| SourceError::Access {
        place: place.clone(),
        message,
    };
    let mut config = config(access).await.map_err(refused)?;
    if let Some(master) = &access.master {
        let secure =
            config.root_cert.is_some() || access.kubeconfig.is_some() || access.tls.is_some();
        config.cluster_url = server_url(master, secure).map_err(refused)?;
    }
    match config.cluster_url.scheme_str() {
        Some("http" | "https") if config.cluster_url.host().is_some() => {}
        _ => {
            let expected = "expected a URL like https://10.0.0.1:6443";
            return Err(refused(format!(
                "server {}: {expected}",
                config.cluster_url
            )));
        }
    }
    if config.proxy_url.take().is_some() {
        tracing::warn!(
            place,
            "proxies are not supported: going to the API server directly"
        );
    }
    // kube takes a line feed at the end of the file for a part of the token.
    let token_file = config.auth_info.token_file.take();
    let token_file = token_file.filter(|_| config.auth_info.token.is_none());
    let token = token_file.map(|path| TokenFile::open(path.into()).map(Arc::new));
    let token = token.transpose().map_err(refused)?;
    build(&config, token, timing).map_err(|error| refused(whole_chain(&*error)))
}

async fn config(access: &Access) -> Result<Config, String> {
    if let Some(file) = &access.kubeconfig {
        let mut kubeconfig = Kubeconfig::read_from(file).map_err(|error| whole_chain(&error))?;
        if let Some(master) = &access.master {
            // A kubeconfig that names no server is fine where we are told one.
            for cluster in &mut kubeconfig.clusters {
                if let Some(cluster) = &mut cluster.cluster {
                    cluster.server.get_or_insert_with(|| master.clone());
                }
            }
        }
        let chosen = KubeConfigOptions {
            context: access.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &chosen).await;
        return config.map_err(|error| whole_chain(&error));
    }
    if let Some(master) = &access.master {
        let Some(files) = &access.tls else {
            return Ok(Config::new(server_url(master, false)?));
        };
        let (kubeconfig, chosen) = of_files(&server_url(master, true)?, files);
        let config = Config::from_custom_kubeconfig(kubeconfig, &chosen).await;
        return config.map_err(|error| whole_chain(&error));
    }
    Config::incluster().map_err(|error| whole_chain(&error))
}

/// What a kubeconfig with just these would say.
fn of_files(url: &Uri, files: &TlsFiles) -> (Kubeconfig, KubeConfigOptions) {
    const NAME: &str = "given";
    let path = |path: &Path| Some(path.display().to_string());
    let cluster = Cluster {
        server: Some(url.to_string()),
        certificate_authority: path(&files.authorities),
        ..Cluster::default()
    };
    let user = AuthInfo {
        client_certificate: path(&files.certificate),
        client_key: path(&files.key),
        ..AuthInfo::default()
    };
    let context = Context {
        cluster: NAME.to_owned(),
        user: Some(NAME.to_owned()),
        ..Context::default()
    };
    let kubeconfig = Kubeconfig {
        clusters: vec![NamedCluster {
            name: NAME.to_owned(),
            cluster: Some(cluster),
            ..NamedCluster::default()
        }],
        auth_infos: vec![NamedAuthInfo {
            name: NAME.to_owned(),
            auth_info: Some(user),
            ..NamedAuthInfo::default()
        }],
        contexts: vec![NamedContext {
            name: NAME.to_owned(),
            context: Some(context),
            ..NamedContext::default()
        }],
        ..Kubeconfig::default()
    };
    let chosen = KubeConfigOptions {
        context: Some(NAME.to_owned()),
        ..KubeConfigOptions::default()
    };
    (kubeconfig, chosen)
}

/// A URL as `--master` takes it: the scheme may be left out.
fn server_url(text: &str, secure: bool) -> Result<Uri, String> {
    let scheme = if secure { "https" } else { "http" };
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        format!("{scheme}://{text}")
    };
    whole
        .parse()
        .map_err(|error| format!("{text:?} is no URL ({error}): expected https://10.0.0.1:6443"))
}

fn build(
    config: &Config,
    token: Option<Arc<TokenFile>>,
    timing: &Timing,
) -> Result<Line, BoxError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(TCP_QUIET));
    tcp.set_keepalive_interval(Some(TCP_PROBE_INTERVAL));
    tcp.set_keepalive_retries(Some(TCP_PROBES));
    tcp.set_tcp_user_timeout(Some(TCP_DEAD_AFTER));
    let tls = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http();
    let tls = match &config.tls_server_name {
        Some(name) => {
            let name = name.clone().try_into()?;
            tls.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
        None => tls,
    };
    let connector = tls.enable_http1().enable_http2().wrap_connector(tcp);
    let client: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(timing.ping_interval)
        .http2_keep_alive_timeout(timing.ping_timeout)
        .build(connector);
    let sign = move |request| match &token {
        Some(token) => token.sign(request),
        None => request,
    };
    let line = ServiceBuilder::new()
        .map_request(sign)
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    let host = config.cluster_url.authority().map_or("", |at| at.as_str());
    Ok(Line {
        host: host.into(),
        carrier: BoxCloneService::new(line),
    })
}
