//! Connections: taken, cut, silenced.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::answer::{Caller, answer};
use super::{Shared, lock};

/// Takes connections until it is dropped.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        if lock(&shared.mood).closed {
            continue;
        }
        // Answers are small and must not wait for one another.
        let _ = stream.set_nodelay(true);
        let mut cuts = shared.cuts.subscribe();
        let silenced = Silenced {
            stream,
            silent: shared.silent.subscribe(),
        };
        let connection = converse(Arc::clone(&shared), silenced, tls.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection => {}
                // Also when the server is gone.
                _ = cuts.changed() => {}
            }
        });
    }
}

async fn converse(shared: Arc<Shared>, stream: Silenced, tls: Option<TlsAcceptor>) {
    let Some(tls) = tls else {
        speak(shared, stream, false).await;
        return;
    };
    // A client that does not trust us has nothing to say.
    let Ok(stream) = tls.accept(stream).await else {
        return;
    };
    let certified = stream.get_ref().1.peer_certificates().is_some();
    speak(shared, stream, certified).await;
}

async fn speak<S>(shared: Arc<Shared>, stream: S, certified: bool)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(move |request| {
        let (shared, caller) = (Arc::clone(&shared), Caller { certified });
        async move { answer(shared, caller, request).await }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    // How a conversation ends is the client's business.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// A connection that neither reads nor writes while the server is silent. Nothing wakes it
/// afterwards: it is cut then.
struct Silenced {
    stream: TcpStream,
    silent: watch::Receiver<bool>,
}

impl Silenced {
    fn is_silent(&self) -> bool {
        *self.silent.borrow()
    }
}

impl AsyncRead for Silenced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_silent() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Silenced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_silent() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
