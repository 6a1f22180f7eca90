//! A server for small answers: no request body is read, every answer is ready at once.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

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

/// Answers every request on a listener by its path, until dropped. Dropping closes the
/// listener and every connection. `refused` is told of each connection over
/// [`MAX_CONNECTIONS`].
pub async fn serve<R, F>(listener: TcpListener, refused: R, answer: F)
where
    R: Fn() + Send,
    F: Fn(&str) -> Reply + Send + Sync + 'static,
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
        let answer = Arc::clone(&answer);
        connections.spawn(async move {
            serve_connection(stream, answer).await;
            drop(slot);
        });
    }
}

async fn serve_connection<F>(stream: TcpStream, answer: Arc<F>)
where
    F: Fn(&str) -> Reply + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let reply = answer(request.uri().path());
        async move { Ok::<_, Infallible>(reply.into_response()) }
    });
    let mut connection = pin!(
        http1::Builder::new()
            // Spelt as the reference spells them, for readers that compare bytes.
            .title_case_headers(true)
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(HEADER_TIMEOUT_S))
            .serve_connection(TokioIo::new(stream), service)
    );
    let lifetime = Duration::from_secs(CONNECTION_LIFETIME_S);
    // A client that cuts the connection or talks nonsense is its own affair.
    let _ = tokio::time::timeout(lifetime, connection.as_mut()).await;
}
