//! A server for small answers: no request body is read.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::tls::Tls;

/// Seconds a client has to send the head of a request, the first and each further one.
pub const HEADER_TIMEOUT_S: u64 = 10;
/// Seconds after which a connection is closed whatever it does.
pub const CONNECTION_LIFETIME_S: u64 = 120;
/// Connections that one server keeps open at a time; a further one is closed at once and
/// counted.
pub const MAX_CONNECTIONS: usize = 64;
/// Milliseconds to wait when the kernel can't give us a connection (no descriptors left).
const ACCEPT_PAUSE_MS: u64 = 100;

/// Plain text as the reference labels it.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// JSON.
pub const JSON: &str = "application/json";

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// Header Content-Type.
    pub content_type: &'static str,
    /// Headers beside the content type.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// All of it.
    pub body: String,
}

impl Reply {
    /// Without headers beside the content type.
    #[must_use]
    pub const fn new(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type,
            headers: Vec::new(),
            body,
        }
    }

    /// For a path that nothing is at.
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            TEXT,
            "404 page not found\n".to_owned(),
        )
    }

    /// We could not make the answer.
    #[must_use]
    pub fn failed(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "an HTTP answer could not be written");
        let body = format!("{error}\n");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, TEXT, body)
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.extend(self.headers);
        response
    }
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Path without query.
    pub path: String,
    /// The bearer token that came with it.
    pub bearer: Option<String>,
}

impl Asked {
    fn of(request: &Request<Incoming>) -> Self {
        let header = request.headers().get(AUTHORIZATION);
        let bearer = header.and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
        });
        Self {
            path: request.uri().path().to_owned(),
            bearer: bearer.map(str::to_owned),
        }
    }
}

/// Answers every request on a listener by its path, until dropped. Dropping closes the
/// listener and every connection. `refused` is told of each connection over
/// [`MAX_CONNECTIONS`].
pub async fn serve<R, F>(listener: TcpListener, refused: R, answer: F)
where
    R: Fn() + Send,
    F: Fn(&str) -> Reply + Send + Sync + 'static,
{
    serve_guarded(listener, None, refused, move |asked| {
        ready(answer(&asked.path))
    })
    .await;
}

/// As [`serve`], over TLS if there is a certificate, and with answers that may take a while.
pub async fn serve_guarded<R, F, A>(listener: TcpListener, tls: Option<Tls>, refused: R, answer: F)
where
    R: Fn() + Send,
    F: Fn(Asked) -> A + Send + Sync + 'static,
    A: Future<Output = Reply> + Send + 'static,
{
    let answer = Arc::new(answer);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            refused();
            continue;
        };
        let (answer, acceptor) = (Arc::clone(&answer), tls.as_ref().map(Tls::acceptor));
        connections.spawn(async move {
            let lifetime = Duration::from_secs(CONNECTION_LIFETIME_S);
            // A client that cuts the connection or talks nonsense is its own affair.
            let _ = tokio::time::timeout(lifetime, converse(stream, acceptor, answer)).await;
            drop(slot);
        });
    }
}

async fn converse<F, A>(stream: TcpStream, acceptor: Option<TlsAcceptor>, answer: Arc<F>)
where
    F: Fn(Asked) -> A + Send + Sync + 'static,
    A: Future<Output = Reply> + Send + 'static,
{
    let Some(acceptor) = acceptor else {
        return serve_connection(stream, answer).await;
    };
    let limit = Duration::from_secs(HEADER_TIMEOUT_S);
    match tokio::time::timeout(limit, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => serve_connection(stream, answer).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

async fn serve_connection<S, F, A>(stream: S, answer: Arc<F>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Asked) -> A + Send + Sync + 'static,
    A: Future<Output = Reply> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let reply = answer(Asked::of(&request));
        async move { Ok::<_, Infallible>(reply.await.into_response()) }
    });
    let connection = http1::Builder::new()
        // Spelt as the reference spells them, for readers that compare bytes.
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(HEADER_TIMEOUT_S))
        .serve_connection(TokioIo::new(stream), service);
    let _ = connection.await;
}
