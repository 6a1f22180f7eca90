//! Streams: TCP (RFC 7766) and, through TLS, DoT (RFC 7858).
//!
//! Queries of one connection are answered as they are finished, in any order. A connection
//! that sends nothing, or takes no answers, is closed in time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::guard;
use super::routes::{Handled, Routes, conclude};
use super::udp::UnderWay;
use crate::metrics::count::CONNECTIONS_REFUSED;
use crate::metrics::queries::{SeriesId, count, observe_duration};
use crate::plugin::Exchange;
use crate::wire::{HEADER_OCTETS, Intake, Request, Transport};

/// Connections of one listener at one time; further ones are closed at once.
const CONNECTIONS_CAPACITY: usize = 4096;
/// Queries of one connection that wait for somebody at one time; then it is read no further.
const QUERIES_PIPELINED_CAPACITY: usize = 64;
/// Replies of one connection that wait for it to take them.
const REPLIES_QUEUED_CAPACITY: usize = 64;
/// Octets read ahead of a connection.
const READ_AHEAD_OCTETS: usize = 4096;
/// After an error of accepting (too many open files), so as not to spin.
const ERROR_PAUSE: Duration = Duration::from_millis(50);

/// How long a connection may keep us waiting. The defaults are the reference's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamTimeouts {
    /// Until the first query is in, and for each once it has begun.
    pub read: Duration,
    /// Until a reply is taken.
    pub write: Duration,
    /// Between queries.
    pub idle: Duration,
    /// Queries of one connection, after which it is closed.
    pub queries_max: Option<u64>,
}

impl Default for StreamTimeouts {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(3),
            write: Duration::from_secs(5),
            idle: Duration::from_secs(10),
            queries_max: None,
        }
    }
}

/// How streams of one listener are served; a reload may change it for new connections.
#[derive(Debug)]
pub(crate) struct StreamService {
    pub(crate) routes: Arc<ArcSwap<Routes>>,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) timeouts: StreamTimeouts,
    /// Turns true when the listener is to end: connections take no more queries then.
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) under_way: UnderWay,
}

/// Accepts connections until its task is aborted.
pub(crate) async fn accept(listener: TcpListener, service: Arc<ArcSwap<StreamService>>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_CAPACITY));
    loop {
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accepting a connection");
                tokio::time::sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            CONNECTIONS_REFUSED.inc();
            continue;
        };
        let service = service.load_full();
        let under_way = service.under_way.clone();
        tokio::spawn(async move {
            if let Err(error) = serve(stream, client, &service).await {
                tracing::debug!(%client, %error, "a connection ended");
            }
            drop((place, under_way));
        });
    }
}

async fn serve(stream: TcpStream, client: SocketAddr, service: &StreamService) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let local = canonical(stream.local_addr()?);
    let client = canonical(client);
    match &service.tls {
        None => {
            converse(
                stream,
                Peers {
                    client,
                    local,
                    transport: Transport::Tcp,
                },
                service,
            )
            .await
        }
        Some(config) => {
            let handshake = TlsAcceptor::from(Arc::clone(config)).accept(stream);
            let stream = timeout(service.timeouts.read, handshake).await??;
            converse(
                stream,
                Peers {
                    client,
                    local,
                    transport: Transport::Tls,
                },
                service,
            )
            .await
        }
    }
}

#[derive(Clone, Copy)]
struct Peers {
    client: SocketAddr,
    local: SocketAddr,
    transport: Transport,
}

async fn converse<S>(stream: S, peers: Peers, service: &StreamService) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(stream);
    let (replies, queue) = mpsc::channel(REPLIES_QUEUED_CAPACITY);
    // Ends when the last sender is gone: this loop's, or that of a query still waiting.
    let writing = tokio::spawn(write_all(writer, queue, service.timeouts.write));
    let read = read_all(reader, peers, service, replies).await;
    let written = writing.await.map_err(io::Error::other)?;
    read.and(written)
}

async fn read_all<R: AsyncRead + Unpin>(
    reader: R,
    peers: Peers,
    service: &StreamService,
    replies: mpsc::Sender<Vec<u8>>,
) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(READ_AHEAD_OCTETS, reader);
    let places = Arc::new(Semaphore::new(QUERIES_PIPELINED_CAPACITY));
    let mut packet = Vec::new();
    let mut patience = service.timeouts.read;
    let mut stop = service.stop.clone();
    let queries_max = service.timeouts.queries_max.unwrap_or(u64::MAX);
    for _ in 0..queries_max {
        let mut length = [0; 2];
        let read = tokio::select! {
            read = timeout(patience, reader.read_exact(&mut length)) => read,
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        };
        match read {
            // Silence, or a client that has all it wants.
            Err(_) | Ok(Err(_)) => return Ok(()),
            Ok(Ok(_)) => patience = service.timeouts.idle,
        }
        packet.resize(usize::from(u16::from_be_bytes(length)), 0);
        timeout(service.timeouts.read, reader.read_exact(&mut packet)).await??;
        if packet.len() < HEADER_OCTETS {
            return Ok(());
        }
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        let mut exchange = Box::new(Exchange::default());
        let intake = take_in(&mut exchange.request, &packet, peers);
        let routes = service.routes.load();
        let (handled, route) = routes.handle(&mut exchange, intake);
        let series = routes.series(route);
        drop(routes);
        match handled {
            Handled::NoQuery => {}
            Handled::Silent => report(series, &exchange, false),
            Handled::Reply => {
                send(&exchange, &replies).await?;
                report(series, &exchange, true);
            }
            Handled::Waiting(chain, at) => {
                let replies = replies.clone();
                tokio::spawn(async move {
                    let outcome = guard::resume(&mut exchange, &chain, at).await;
                    let replied = matches!(conclude(&mut exchange, outcome), Handled::Reply);
                    if replied {
                        let _client_has_gone = send(&exchange, &replies).await;
                    }
                    report(series, &exchange, replied);
                    drop(place);
                });
            }
        }
    }
    Ok(())
}

fn report(series: Option<SeriesId>, exchange: &Exchange, replied: bool) {
    if let Some(series) = series {
        count(series, exchange, replied);
        observe_duration(series, exchange.request.received.elapsed());
    }
}

fn take_in(request: &mut Request, packet: &[u8], peers: Peers) -> Intake {
    request.transport = peers.transport;
    request.source = peers.client;
    request.local = peers.local;
    request.received = Instant::now();
    request.read(packet)
}

/// Queues a reply, and what follows it in a zone transfer.
async fn send(exchange: &Exchange, replies: &mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    let messages = std::iter::once(&exchange.reply).chain(&exchange.more);
    for message in messages {
        let octets = message.octets();
        let length = u16::try_from(octets.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], octets].concat();
        replies.send(framed).await.map_err(io::Error::other)?;
    }
    Ok(())
}

async fn write_all<W: AsyncWrite + Unpin>(
    mut writer: W,
    mut queue: mpsc::Receiver<Vec<u8>>,
    patience: Duration,
) -> io::Result<()> {
    while let Some(framed) = queue.recv().await {
        timeout(patience, writer.write_all(&framed)).await??;
        if queue.is_empty() {
            timeout(patience, writer.flush()).await??;
        }
    }
    let _peer_has_gone = timeout(patience, writer.shutdown()).await;
    Ok(())
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
