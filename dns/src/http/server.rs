use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::page::Reply;
use crate::metrics::count::HTTP_REFUSED;

/// Seconds a client has to send the head of a request, the first and each further one.
const HEADER_TIMEOUT_S: u64 = 10;
/// Seconds after which a connection is closed whatever it does.
const CONNECTION_LIFETIME_S: u64 = 120;
/// Connections of one endpoint at a time; a further one is closed at once and counted.
const CONNECTIONS_CAPACITY: usize = 64;
/// Milliseconds to wait when the kernel can't give us a connection (no descriptors left).
const ACCEPT_PAUSE_MS: u64 = 100;

/// Answers every request on a listener by its path, until dropped. Dropping closes the
/// listener and every connection.
pub(super) async fn serve<F>(listener: TcpListener, answer: F)
where
    F: Fn(&str) -> Reply + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let places = Arc::new(Semaphore::new(CONNECTIONS_CAPACITY));
    let mut connections = JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("an HTTP connection could not be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            HTTP_REFUSED.inc();
            continue;
        };
        let answer = Arc::clone(&answer);
        connections.spawn(async move {
            serve_connection(stream, answer).await;
            drop(place);
        });
    }
}

async fn serve_connection<F>(stream: TcpStream, answer: Arc<F>)
where
    F: Fn(&str) -> Reply + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let reply = answer(request.uri().path());
        async move { Ok::<_, Infallible>(response(reply)) }
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
    let _ended = tokio::time::timeout(lifetime, connection.as_mut()).await;
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(reply.body)));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
