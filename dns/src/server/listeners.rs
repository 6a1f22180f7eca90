use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::routes::Routes;
use super::stream::{StreamService, StreamTimeouts, accept};
use super::udp::{UdpSocket, UdpWorker, UnderWay, Waiters};

/// Connections that the kernel keeps for us until they are accepted.
const ACCEPT_BACKLOG: i32 = 1024;

/// One address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenAddress {
    /// Address and port.
    pub address: SocketAddr,
    /// Whether it is a TLS stream (DoT); else UDP and TCP.
    pub tls: bool,
}

/// What one address is to serve.
#[derive(Clone)]
pub struct Plan {
    /// Who answers what.
    pub routes: Arc<Routes>,
    /// Certificates, where the address is one for TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// For its streams.
    pub timeouts: StreamTimeouts,
}

/// An address that can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    /// Which, and how.
    pub address: ListenAddress,
    /// The system's reason.
    pub source: io::Error,
}

/// All sockets of the server. A new configuration keeps those it has in common with the old
/// one: nothing that is on its way to them is lost.
#[derive(Debug)]
pub struct Listeners {
    open: HashMap<ListenAddress, Listener>,
    waiters: Waiters,
    udp_threads: usize,
    /// Ends when nothing is under way any more.
    idle: mpsc::Receiver<std::convert::Infallible>,
}

#[derive(Debug)]
struct Listener {
    routes: Arc<ArcSwap<Routes>>,
    streams: Arc<ArcSwap<StreamService>>,
    accepting: JoinHandle<()>,
    stop: watch::Sender<bool>,
    /// None for TLS. Kept for their end: dropping one stops its thread.
    _datagrams: Vec<UdpWorker>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.accepting.abort();
        let _nobody_is_connected = self.stop.send(true);
    }
}

impl Listeners {
    /// None yet. As many threads for each UDP address as the process may use CPUs (cgroup
    /// quota included).
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        let cpus = std::thread::available_parallelism();
        let (under_way, idle) = mpsc::channel(1);
        Self {
            open: HashMap::new(),
            waiters: Waiters::new(runtime, under_way),
            idle,
            udp_threads: cpus.map_or(1, std::num::NonZero::get),
        }
    }

    /// Listens on just the addresses of `plans`. Either all of them can be had, or
    /// everything stays as it was.
    ///
    /// # Errors
    /// Names the address that can't be had.
    pub fn apply(&mut self, plans: HashMap<ListenAddress, Plan>) -> Result<(), ListenError> {
        let mut new = HashMap::new();
        for (address, plan) in &plans {
            if !self.open.contains_key(address) {
                let opened = self.open_one(*address, plan);
                let opened = opened.map_err(|source| ListenError {
                    address: *address,
                    source,
                })?;
                new.insert(*address, opened);
            }
        }
        self.open.retain(|address, _| plans.contains_key(address));
        for (address, plan) in plans {
            if let Some(listener) = self.open.get(&address) {
                listener.change(plan, self.waiters.under_way());
            }
        }
        self.open.extend(new);
        Ok(())
    }

    /// Where it listens, in order.
    #[must_use]
    pub fn addresses(&self) -> Vec<ListenAddress> {
        let mut addresses: Vec<_> = self.open.keys().copied().collect();
        addresses.sort();
        addresses
    }

    /// Whether the addresses of `plans` that are not open yet can be had.
    ///
    /// # Errors
    /// Names the first that can't.
    pub fn check(&self, plans: &HashMap<ListenAddress, Plan>) -> Result<(), ListenError> {
        let mut addresses: Vec<_> = plans.keys().collect();
        addresses.sort();
        for address in addresses {
            if self.open.contains_key(address) {
                continue;
            }
            let free = stream_socket(address.address).and_then(|_stream| {
                if address.tls {
                    return Ok(());
                }
                UdpSocket::check_free(address.address)
            });
            free.map_err(|source| ListenError {
                address: *address,
                source,
            })?;
        }
        Ok(())
    }

    /// Takes no more queries, and waits until those under way are answered, up to
    /// `patience`. Says whether they were.
    pub async fn stop(self, patience: Duration) -> bool {
        let Self {
            open,
            waiters,
            mut idle,
            ..
        } = self;
        drop(open);
        drop(waiters);
        tokio::time::timeout(patience, idle.recv()).await.is_ok()
    }

    fn open_one(&self, address: ListenAddress, plan: &Plan) -> io::Result<Listener> {
        let routes = Arc::new(ArcSwap::from(Arc::clone(&plan.routes)));
        let (stop, stopped) = watch::channel(false);
        let service = StreamService::new(&routes, plan, stopped, self.waiters.under_way());
        let streams = Arc::new(ArcSwap::from_pointee(service));
        // First the socket that nobody can share: so a port that another server of ours has
        // is noticed before any of its queries come here.
        let _in_runtime = self.waiters.runtime().enter();
        let listener = TcpListener::from_std(stream_socket(address.address)?)?;
        let mut sockets = Vec::new();
        if !address.tls {
            UdpSocket::check_free(address.address)?;
            for _ in 0..self.udp_threads {
                sockets.push(UdpSocket::bind(address.address)?);
            }
        }
        let accepting = self
            .waiters
            .runtime()
            .spawn(accept(listener, Arc::clone(&streams)));
        let mut datagrams = Vec::new();
        for socket in sockets {
            let (routes, waiters) = (Arc::clone(&routes), self.waiters.clone());
            datagrams.push(UdpWorker::start(socket, routes, waiters)?);
        }
        Ok(Listener {
            routes,
            streams,
            accepting,
            stop,
            _datagrams: datagrams,
        })
    }
}

impl Listener {
    fn change(&self, plan: Plan, under_way: &UnderWay) {
        let stop = self.stop.subscribe();
        let service = StreamService::new(&self.routes, &plan, stop, under_way);
        self.streams.store(Arc::new(service));
        self.routes.store(plan.routes);
    }
}

impl StreamService {
    fn new(
        routes: &Arc<ArcSwap<Routes>>,
        plan: &Plan,
        stop: watch::Receiver<bool>,
        under_way: &UnderWay,
    ) -> Self {
        Self {
            stop,
            under_way: under_way.clone(),
            routes: Arc::clone(routes),
            tls: plan.tls.clone(),
            timeouts: plan.timeouts,
        }
    }
}

fn stream_socket(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(
        domain,
        Type::STREAM.cloexec().nonblocking(),
        Some(Protocol::TCP),
    )?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    Ok(socket.into())
}

/// `udp and tcp 10.0.0.1:53`, `tls [::]:853`.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.tls { "tls" } else { "udp and tcp" };
        write!(f, "{how} {}", self.address)
    }
}
