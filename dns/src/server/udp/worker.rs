use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use super::UdpSocket;
use super::batch::{Arrival, Inbox, Outbox};
use crate::metrics::count::{QUERIES_SHED, REPLIES_NOT_SENT};
use crate::metrics::queries::{SeriesId, count, observe_duration};
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
    /// Held by whatever is under way.
    under_way: UnderWay,
}

/// Something the server has to finish before it may end: [`super::super::Listeners::stop`]
/// waits until the last of these is gone.
pub(crate) type UnderWay = mpsc::Sender<std::convert::Infallible>;

impl Waiters {
    pub(crate) fn new(runtime: Handle, under_way: UnderWay) -> Self {
        Self {
            runtime,
            places: Arc::new(Semaphore::new(QUERIES_WAITING_CAPACITY)),
            under_way,
        }
    }

    pub(crate) const fn under_way(&self) -> &UnderWay {
        &self.under_way
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
            answered: Vec::new(),
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

/// A query that a plugin has to wait with.
struct Waiting {
    exchange: Exchange,
    chain: Arc<Chain>,
    at: usize,
    series: Option<SeriesId>,
}

struct Work {
    socket: Arc<UdpSocket>,
    stop: Arc<AtomicBool>,
    routes: Arc<ArcSwap<Routes>>,
    waiters: Waiters,
    exchange: Exchange,
    outbox: Outbox,
    /// What of a batch is to be counted with its duration once its replies are sent.
    answered: Vec<SeriesId>,
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
            let (handled, route) = routes.handle(&mut self.exchange, intake);
            let series = routes.series(route);
            match handled {
                Handled::NoQuery => {}
                Handled::Silent => self.count(series, false),
                Handled::Reply => {
                    self.count(series, true);
                    let octets = self.exchange.reply.octets();
                    self.outbox.push(octets, packet.source, packet.arrival);
                }
                Handled::Waiting(chain, at) => {
                    let exchange = std::mem::take(&mut self.exchange);
                    let waiting = Waiting {
                        exchange,
                        chain,
                        at,
                        series,
                    };
                    self.wait(waiting, packet.source, packet.arrival);
                }
            }
        }
        drop(routes);
        send(&mut self.outbox, &self.socket);
        if !self.answered.is_empty() {
            let took = now.elapsed();
            for series in self.answered.drain(..) {
                observe_duration(series, took);
            }
        }
    }

    fn count(&mut self, series: Option<SeriesId>, replied: bool) {
        if let Some(series) = series {
            count(series, &self.exchange, replied);
            self.answered.push(series);
        }
    }

    fn wait(&self, waiting: Waiting, to: SocketAddr, arrival: Arrival) {
        let Ok(place) = Arc::clone(&self.waiters.places).try_acquire_owned() else {
            QUERIES_SHED.inc();
            return;
        };
        let socket = Arc::clone(&self.socket);
        let under_way = self.waiters.under_way.clone();
        self.waiters.runtime.spawn(async move {
            let Waiting {
                mut exchange,
                chain,
                at,
                series,
            } = waiting;
            let outcome: Outcome = guard::resume(&mut exchange, &chain, at).await;
            let replied = matches!(conclude(&mut exchange, outcome), Handled::Reply);
            if replied {
                let mut outbox = Outbox::default();
                outbox.push(exchange.reply.octets(), to, arrival);
                send(&mut outbox, &socket);
            }
            if let Some(series) = series {
                count(series, &exchange, replied);
                observe_duration(series, exchange.request.received.elapsed());
            }
            drop((place, under_way));
        });
    }
}

fn send(outbox: &mut Outbox, socket: &UdpSocket) {
    let lost = outbox.flush(socket);
    if lost > 0 {
        REPLIES_NOT_SENT.add(u64::try_from(lost).unwrap_or_default());
    }
}

/// IPv4 clients of a dual-stack socket as what they are.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}
