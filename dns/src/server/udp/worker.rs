use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::UdpSocket;
use super::batch::{Arrival, Inbox, Outbox};
use crate::plugin::{Chain, Exchange, Outcome};
use crate::server::guard;
use crate::server::routes::{Handled, Routes, conclude};
use crate::wire::{Intake, Rcode, Transport};

/// Queries that wait for somebody at one time, over all sockets; each holds about 3 kB. More
/// are dropped and counted: their clients ask again.
pub(crate) const QUERIES_WAITING_CAPACITY: usize = 4096;
/// After an error of the socket, so as not to spin.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Where queries wait that can't be answered at once.
#[derive(Clone, Debug)]
pub(crate) struct Waiters {
    runtime: Handle,
    places: Arc<Semaphore>,
}

impl Waiters {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self {
            runtime,
            places: Arc::new(Semaphore::new(QUERIES_WAITING_CAPACITY)),
        }
    }

    pub(crate) const fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// A thread that answers what one socket receives. Ends when dropped.
#[derive(Debug)]
pub(crate) struct UdpWorker {
    socket: Arc<UdpSocket>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl UdpWorker {
    pub(crate) fn start(
        socket: UdpSocket,
        routes: Arc<ArcSwap<Routes>>,
        waiters: Waiters,
    ) -> io::Result<Self> {
        let socket = Arc::new(socket);
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work {
            socket: Arc::clone(&socket),
            stop: Arc::clone(&stop),
            routes,
            waiters,
            exchange: Exchange::default(),
            outbox: Outbox::default(),
        };
        let thread = std::thread::Builder::new()
            .name("dns-udp".to_owned())
            .spawn(move || work.run())?;
        Ok(Self {
            socket,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for UdpWorker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.socket.wake();
        if let Some(thread) = self.thread.take() {
            let _panicked_and_said_so = thread.join();
        }
    }
}

struct Work {
    socket: Arc<UdpSocket>,
    stop: Arc<AtomicBool>,
    routes: Arc<ArcSwap<Routes>>,
    waiters: Waiters,
    exchange: Exchange,
    outbox: Outbox,
}

impl Work {
    fn run(mut self) {
        let mut inbox = Inbox::new();
        while !self.stop.load(Ordering::Acquire) {
            match inbox.receive(&self.socket) {
                Ok(number) => self.answer_all(&inbox, number),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // ICMP errors of earlier replies may come up here; they are nobody's loss.
                Err(error) => {
                    tracing::debug!(%error, "receiving queries");
                    std::thread::sleep(ERROR_PAUSE);
                }
            }
        }
    }

    fn answer_all(&mut self, inbox: &Inbox, number: usize) {
        let now = Instant::now();
        let routes = self.routes.load();
        for index in 0..number {
            let Some(packet) = inbox.packet(index) else {
                continue;
            };
            let local = self.socket.local();
            let request = &mut self.exchange.request;
            request.transport = Transport::Udp;
            request.source = SocketAddr::new(plain(packet.source.ip()), packet.source.port());
            let address = packet.arrival.address().map_or(local.ip(), plain);
            request.local = SocketAddr::new(address, local.port());
            request.received = now;
            let mut intake = request.read(packet.octets);
            if packet.cut && intake == Intake::Query {
                intake = Intake::Refuse(Rcode::FORMERR);
            }
            let (handled, _route) = routes.handle(&mut self.exchange, intake);
            match handled {
                Handled::Silent => {}
                Handled::Reply => {
                    let octets = self.exchange.reply.octets();
                    self.outbox.push(octets, packet.source, packet.arrival);
                }
                Handled::Waiting(chain, at) => {
                    let exchange = std::mem::take(&mut self.exchange);
                    self.wait(exchange, chain, at, packet.source, packet.arrival);
                }
            }
        }
        self.outbox.flush(&self.socket);
    }

    fn wait(
        &self,
        mut exchange: Exchange,
        chain: Arc<Chain>,
        at: usize,
        to: SocketAddr,
        arrival: Arrival,
    ) {
        let Ok(place) = Arc::clone(&self.waiters.places).try_acquire_owned() else {
            return;
        };
        let socket = Arc::clone(&self.socket);
        self.waiters.runtime.spawn(async move {
            let outcome: Outcome = guard::resume(&mut exchange, &chain, at).await;
            if matches!(conclude(&mut exchange, outcome), Handled::Reply) {
                let mut outbox = Outbox::default();
                outbox.push(exchange.reply.octets(), to, arrival);
                outbox.flush(&socket);
            }
            drop(place);
        });
    }
}

/// IPv4 clients of a dual-stack socket as what they are.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
