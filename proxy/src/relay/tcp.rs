use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use switchyard_cluster::object::Protocol;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::pick::Picker;
use crate::listen::{Closer, listen};
use crate::metrics::Metrics;

/// Seconds an endpoint has to accept a connection; then the client's is reset.
pub const CONNECT_TIMEOUT_S: u64 = 10;
/// Seconds of silence after which we ask the other side whether it is still there, so that
/// connections of endpoints that vanished do not hold their slots for ever.
const KEEPALIVE_S: u64 = 60;
/// Milliseconds to wait when the kernel can't give us a connection (no descriptors left).
const ACCEPT_PAUSE_MS: u64 = 100;

/// The connections of all ports together.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    semaphore: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// One of them; given back when dropped.
struct Slot {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Slots {
    pub(super) fn new(connections: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            semaphore: Arc::new(Semaphore::new(connections)),
            metrics,
        }
    }

    fn take(&self) -> Option<Slot> {
        let Ok(permit) = Arc::clone(&self.semaphore).try_acquire_owned() else {
            self.metrics.relay_refused.inc(Protocol::Tcp);
            return None;
        };
        self.metrics.relay_connections.inc(Protocol::Tcp);
        Some(Slot {
            _permit: permit,
            metrics: Arc::clone(&self.metrics),
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.relay_connections.dec(Protocol::Tcp);
    }
}

/// One node port that is listened on. Dropping it closes the listener; connections live on.
#[derive(Debug)]
pub(super) struct TcpPort {
    accepting: AbortHandle,
    _closer: Closer,
}

impl TcpPort {
    /// Listens; within a runtime.
    pub(super) fn open(address: SocketAddr, picker: Picker, slots: &Slots) -> io::Result<Self> {
        let (listener, closer) = listen(address)?;
        let accepting = tokio::spawn(accept(listener, picker, slots.clone())).abort_handle();
        Ok(Self {
            accepting,
            _closer: closer,
        })
    }
}

impl Drop for TcpPort {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, picker: Picker, slots: Slots) {
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                let service = picker.service();
                tracing::warn!(service, %error, "no connection could be accepted on localhost");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        let Some(slot) = slots.take() else {
            reset(client);
            continue;
        };
        let picker = picker.clone();
        tokio::spawn(async move {
            relay(client, &picker).await;
            drop(slot);
        });
    }
}

async fn relay(mut client: TcpStream, picker: &Picker) {
    let Some(target) = picker.pick(Instant::now()) else {
        return reset(client);
    };
    let connecting = TcpStream::connect(target.socket());
    let connected = timeout(Duration::from_secs(CONNECT_TIMEOUT_S), connecting).await;
    let mut endpoint = match connected.map_err(io::Error::from).flatten() {
        Ok(endpoint) => endpoint,
        Err(error) => {
            let service = picker.service();
            tracing::debug!(service, endpoint = %target.socket(), %error, "endpoint does not answer");
            return reset(client);
        }
    };
    for stream in [&client, &endpoint] {
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(KEEPALIVE_S));
        // Only a saving of time and of slots: the connection works without.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
    }
    if copy_bidirectional(&mut client, &mut endpoint)
        .await
        .is_err()
    {
        // One side broke off: so does the other, rather than seem to end in good order.
        reset(client);
        reset(endpoint);
    }
}

/// Closes a connection so that the other side sees an error and not an end.
fn reset(stream: TcpStream) {
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    drop(stream);
}
