use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use switchyard_cluster::object::Protocol;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::pick::Picker;
use crate::metrics::Metrics;
use crate::plan::{ServicePlan, Target};

/// Seconds without a datagram in either direction after which a client is forgotten; what
/// the kernel gives a stream of datagrams by default.
pub const UDP_IDLE_TIMEOUT_S: u64 = 120;
/// The largest datagram there is, in bytes.
const MAX_DATAGRAM_BYTES: usize = 65_535;
/// Milliseconds to wait after an error of the listening socket itself.
const RECEIVE_PAUSE_MS: u64 = 10;

/// The clients of all ports together.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    max: usize,
    taken: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// One of them; given back when dropped.
#[derive(Debug)]
struct Slot(Slots);

impl Slots {
    pub(super) fn new(clients: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            max: clients,
            taken: Arc::default(),
            metrics,
        }
    }

    fn take(&self) -> Option<Slot> {
        let free = |taken| (taken < self.max).then_some(taken + 1);
        let ordering = Ordering::Relaxed;
        if self.taken.fetch_update(ordering, ordering, free).is_err() {
            self.metrics.relay_refused.inc(Protocol::Udp);
            return None;
        }
        self.metrics.relay_connections.inc(Protocol::Udp);
        Some(Slot(self.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.relay_connections.dec(Protocol::Udp);
    }
}

/// One node port that is listened on. Dropping it closes the socket and forgets its clients.
#[derive(Debug)]
pub(super) struct UdpPort {
    receiving: AbortHandle,
    flows: Flows,
    /// The only lasting hold on the socket, so that the port is free the moment this goes.
    _socket: Arc<UdpSocket>,
}

/// Clients of one port and where their datagrams go.
#[derive(Clone, Debug, Default)]
struct Flows(Arc<Mutex<HashMap<SocketAddr, Flow>>>);

#[derive(Debug)]
struct Flow {
    target: Target,
    /// Connected to the target.
    socket: Arc<UdpSocket>,
    last_used: Arc<Mutex<Instant>>,
    answering: AbortHandle,
    _slot: Slot,
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Flows {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Flow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets a client, unless it has begun anew with another socket.
    fn forget(&self, client: SocketAddr, socket: &Arc<UdpSocket>) {
        let mut flows = self.lock();
        if flows
            .get(&client)
            .is_some_and(|flow| Arc::ptr_eq(&flow.socket, socket))
        {
            flows.remove(&client);
        }
    }
}

impl UdpPort {
    /// Listens; within a runtime.
    pub(super) fn open(address: SocketAddr, picker: Picker, slots: &Slots) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let flows = Flows::default();
        let port = Receiver {
            socket: Arc::downgrade(&socket),
            picker,
            slots: slots.clone(),
            flows: flows.clone(),
        };
        let receiving = tokio::spawn(port.run()).abort_handle();
        Ok(Self {
            receiving,
            flows,
            _socket: socket,
        })
    }

    /// Forgets clients whose endpoint no longer serves: their next datagram picks another.
    pub(super) fn end_stale_flows(&self, plan: &ServicePlan) {
        let serves = |target: &Target| {
            let is_same = |t: &Target| t.socket() == target.socket();
            plan.serving.iter().any(is_same) || plan.cluster.iter().any(is_same)
        };
        self.flows.lock().retain(|_, flow| serves(&flow.target));
    }

    /// Forgets every client.
    pub(super) fn end_all_flows(&self) {
        self.flows.lock().clear();
    }
}

impl Drop for UdpPort {
    fn drop(&mut self) {
        self.receiving.abort();
        self.end_all_flows();
    }
}

/// The task behind one port.
struct Receiver {
    socket: Weak<UdpSocket>,
    picker: Picker,
    slots: Slots,
    flows: Flows,
}

impl Receiver {
    async fn run(self) {
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        loop {
            let (length, client) = match self.receive(&mut buffer).await {
                Some(Ok(received)) => received,
                Some(Err(error)) => {
                    let service = self.picker.service();
                    tracing::debug!(service, %error, "receiving on localhost");
                    tokio::time::sleep(Duration::from_millis(RECEIVE_PAUSE_MS)).await;
                    continue;
                }
                None => return,
            };
            let Some(datagram) = buffer.get(..length) else {
                continue;
            };
            if let Err(error) = self.pass_on(client, datagram).await {
                let service = self.picker.service();
                tracing::debug!(service, %client, %error, "datagram not passed on");
            }
        }
    }

    /// The next datagram; `None` once the port is closed. Holds the socket only while it
    /// looks, not while it waits.
    async fn receive(&self, buffer: &mut [u8]) -> Option<io::Result<(usize, SocketAddr)>> {
        poll_fn(|context| {
            let Some(socket) = self.socket.upgrade() else {
                return Poll::Ready(None);
            };
            let mut read = ReadBuf::new(buffer);
            let polled = socket.poll_recv_from(context, &mut read);
            polled.map(|result| Some(result.map(|client| (read.filled().len(), client))))
        })
        .await
    }

    async fn pass_on(&self, client: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let Some(socket) = self.socket_for(client).await? else {
            return Ok(());
        };
        let sent = socket.send(datagram).await;
        if sent.is_err() {
            // Nobody listens at the endpoint (any more): the next datagram picks anew.
            self.flows.forget(client, &socket);
        }
        sent.map(drop)
    }

    /// The socket for a client's datagrams; `None` when there is no endpoint or no room.
    async fn socket_for(&self, client: SocketAddr) -> io::Result<Option<Arc<UdpSocket>>> {
        if let Some(flow) = self.flows.lock().get(&client) {
            *flow
                .last_used
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Instant::now();
            return Ok(Some(Arc::clone(&flow.socket)));
        }
        let Some(slot) = self.slots.take() else {
            return Ok(None);
        };
        let Some(target) = self.picker.pick(Instant::now()) else {
            return Ok(None);
        };
        let any: IpAddr = match target.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = Arc::new(UdpSocket::bind((any, 0)).await?);
        socket.connect(target.socket()).await?;
        let last_used = Arc::new(Mutex::new(Instant::now()));
        let answering = Answering {
            client,
            listening: Weak::clone(&self.socket),
            endpoint: Arc::clone(&socket),
            last_used: Arc::clone(&last_used),
            flows: self.flows.clone(),
        };
        let flow = Flow {
            target,
            socket: Arc::clone(&socket),
            last_used,
            answering: tokio::spawn(answering.run()).abort_handle(),
            _slot: slot,
        };
        self.flows.lock().insert(client, flow);
        Ok(Some(socket))
    }
}

/// The task that carries an endpoint's answers back to one client.
struct Answering {
    client: SocketAddr,
    listening: Weak<UdpSocket>,
    endpoint: Arc<UdpSocket>,
    last_used: Arc<Mutex<Instant>>,
    flows: Flows,
}

impl Answering {
    async fn run(self) {
        let idle = Duration::from_secs(UDP_IDLE_TIMEOUT_S);
        let mut buffer = vec![0; MAX_DATAGRAM_BYTES];
        loop {
            let unused = self.last_used().elapsed();
            let Some(remaining) = idle.checked_sub(unused).filter(|left| !left.is_zero()) else {
                break;
            };
            match timeout(remaining, self.endpoint.recv(&mut buffer)).await {
                Ok(Ok(length)) => {
                    *self.last_used() = Instant::now();
                    let answer = buffer.get(..length).unwrap_or_default();
                    let Some(listening) = self.listening.upgrade() else {
                        break;
                    };
                    // Datagrams may get lost: a full buffer or a client that is gone is no
                    // reason to stop.
                    let _ = listening.try_send_to(answer, self.client);
                }
                // Nobody listens at the endpoint.
                Ok(Err(_)) => break,
                // Used meanwhile by the client, or really idle: the loop's head tells.
                Err(_) => {}
            }
        }
        self.flows.forget(self.client, &self.endpoint);
    }

    fn last_used(&self) -> MutexGuard<'_, Instant> {
        self.last_used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
