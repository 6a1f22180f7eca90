//! What is done on a way, by blocking sockets: the client's side and the server's.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, gettid};
use socket2::{Domain, Protocol, Socket, Type};
use switchyard_tests::testbed::{Place, Resident, Testbed};

/// Bytes of a request and of its answer.
const MESSAGE_BYTES: usize = 64;
/// A connection or an answer that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(3);
/// Requests before the clock starts: caches and neighbours are known then.
const WARM_UP: u32 = 5;
/// A slice ends after so many requests at the latest.
const MAX_REQUESTS: u32 = 200_000;
/// Connections that wait for the server.
const BACKLOG: i32 = 64;
/// Ports a client takes, one after the other: no flow is as another was for long, so conntrack
/// knows none of them.
const CLIENT_PORTS: std::ops::Range<u16> = 10_000..65_000;

/// What is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Workload {
    /// TCP: connect, request, response, close.
    Connect,
    /// TCP: request and response over one connection.
    Request,
    /// UDP: request and response over one connected socket.
    Datagram,
    /// UDP: a new connected socket for each request.
    NewSocket,
}

impl Workload {
    pub(super) const ALL: [Self; 4] = [
        Self::Connect,
        Self::Request,
        Self::Datagram,
        Self::NewSocket,
    ];
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "TCP, connect–request–close",
            Self::Request => "TCP, one connection",
            Self::Datagram => "UDP, one socket",
            Self::NewSocket => "UDP, a socket a request",
        })
    }
}

/// The one CPU on which client and server take turns. With one each, every request would wait for
/// two wake-ups of an idle CPU, which on a virtual machine cost more than the way that is measured,
/// and vary more. So one turn is all the work of it: both ends and the kernel between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu(usize);

impl Cpu {
    /// The last one we may use: the first has most of the machine's interrupts.
    pub(super) fn choose() -> Result<Self> {
        let set = sched_getaffinity(Pid::from_raw(0))?;
        let mut usable = (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false));
        usable.next_back().map(Self).context("no CPU to use")
    }

    /// Keeps the calling thread there.
    fn keep(self) -> io::Result<()> {
        let mut set = CpuSet::new();
        set.set(self.0)?;
        Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
    }
}

/// How much was done, and what it cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slice {
    requests: u32,
    /// Time on the CPU, of both ends and what the kernel did between them. On an idle machine it
    /// is the time that passed; on a busy one it leaves out what others took.
    cpu: Duration,
}

impl Slice {
    /// Seconds a request took.
    pub(super) fn seconds(self) -> f64 {
        self.cpu.as_secs_f64() / f64::from(self.requests.max(1))
    }
}

/// A client's own addresses and ports, a new pair for each socket.
#[derive(Clone, Default)]
pub(super) struct Sources(Arc<AtomicUsize>);

impl Sources {
    fn next(&self, addresses: &[Ipv4Addr]) -> SocketAddr {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let ports = CLIENT_PORTS.len();
        // The ranges are not empty: neither default is ever taken.
        let port = CLIENT_PORTS.clone().nth(number % ports).unwrap_or(0);
        let turn = number / ports % addresses.len().max(1);
        let address = addresses.get(turn).copied();
        SocketAddr::from((address.unwrap_or(Ipv4Addr::UNSPECIFIED), port))
    }
}

/// One client: where it is, whom it asks and how.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) workload: Workload,
    pub(super) from: Place,
    pub(super) to: SocketAddr,
    pub(super) sources: Sources,
    pub(super) cpu: Cpu,
}

impl Client {
    /// Asks these servers for so long, in a thread of its own.
    ///
    /// # Errors
    /// A request that was not answered in time.
    pub(super) fn run(&self, bed: &Testbed, servers: &Servers, time: Duration) -> Result<Slice> {
        let client = self.clone();
        let threads = servers.threads.clone();
        let slice = bed
            .spawn(self.from, move || client.ask(&threads, time))?
            .join()?;
        slice.with_context(|| format!("{}: {} asks {}", self.workload, self.from, self.to))
    }

    fn ask(&self, servers: &[Pid], time: Duration) -> io::Result<Slice> {
        self.cpu.keep()?;
        let repeat = |once: &mut dyn FnMut() -> io::Result<()>| repeat(servers, time, once);
        let addresses = addresses(self.from);
        let source = || self.sources.next(&addresses);
        match self.workload {
            Workload::Connect => repeat(&mut || turn(&mut self.connect(source())?)),
            Workload::Request => {
                let mut stream = self.connect(source())?;
                repeat(&mut || turn(&mut stream))
            }
            Workload::Datagram => {
                let socket = self.connected(source())?;
                repeat(&mut || datagram(&socket))
            }
            Workload::NewSocket => repeat(&mut || datagram(&self.connected(source())?)),
        }
    }

    /// A TCP connection. It is closed by RST, so that neither end keeps its port in TIME_WAIT.
    fn connect(&self, source: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(true)?;
        self.tie(&socket, source)?;
        Ok(socket)
    }

    fn connected(&self, source: SocketAddr) -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        self.tie(&socket, source)?;
        Ok(socket.into())
    }

    fn tie(&self, socket: &Socket, source: SocketAddr) -> io::Result<()> {
        // Of a connect() too.
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.bind(&source.into())?;
        socket.connect(&self.to.into())
    }
}

fn addresses(place: Place) -> Vec<Ipv4Addr> {
    let texts = place.addresses().iter();
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn repeat(
    servers: &[Pid],
    time: Duration,
    once: &mut dyn FnMut() -> io::Result<()>,
) -> io::Result<Slice> {
    for _ in 0..WARM_UP {
        once()?;
    }
    let before = spent(servers)?;
    let start = Instant::now();
    let mut requests = 0;
    while requests == 0 || (start.elapsed() < time && requests < MAX_REQUESTS) {
        once()?;
        requests += 1;
    }
    Ok(Slice {
        requests,
        cpu: spent(servers)?.saturating_sub(before),
    })
}

/// Time on a CPU of the calling thread and of these others, which wait just now.
fn spent(servers: &[Pid]) -> io::Result<Duration> {
    let own = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
    servers.iter().try_fold(own, |sum, server| {
        let stat = fs::read_to_string(format!("/proc/self/task/{server}/schedstat"))?;
        let time = stat.split(' ').next().and_then(|time| time.parse().ok());
        let time = time.ok_or_else(|| io::Error::other("odd schedstat"))?;
        Ok(sum + Duration::from_nanos(time))
    })
}

fn turn(stream: &mut Socket) -> io::Result<()> {
    let mut message = [b'?'; MESSAGE_BYTES];
    stream.write_all(&message)?;
    stream.read_exact(&mut message)
}

fn datagram(socket: &UdpSocket) -> io::Result<()> {
    let mut message = [b'?'; MESSAGE_BYTES];
    socket.send(&message)?;
    if socket.recv(&mut message)? == MESSAGE_BYTES {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::InvalidData, "a short answer"))
}

/// The echo servers of one testbed's endpoints, two threads each. Ended when dropped.
pub(super) struct Servers {
    stop: Arc<AtomicBool>,
    threads: Vec<Pid>,
    running: Vec<(&'static ServerSide, Socket, Resident<()>)>,
}

impl Servers {
    /// Serves TCP and UDP on each address, in its place.
    ///
    /// # Errors
    /// An address is taken.
    pub(super) fn start(
        bed: &Testbed,
        endpoints: &[(Place, SocketAddr)],
        cpu: Cpu,
    ) -> Result<Self> {
        let mut servers = Self {
            stop: Arc::default(),
            threads: Vec::new(),
            running: Vec::new(),
        };
        for &(place, address) in endpoints {
            for side in [&TCP, &UDP] {
                servers.add(bed, place, address, side, cpu)?;
            }
        }
        Ok(servers)
    }

    fn add(
        &mut self,
        bed: &Testbed,
        place: Place,
        address: SocketAddr,
        side: &'static ServerSide,
        cpu: Cpu,
    ) -> Result<()> {
        let socket = bed.in_place(place, move || (side.open)(address))??;
        let (own, stop) = (socket.try_clone()?, Arc::clone(&self.stop));
        let (tell, told) = mpsc::channel();
        let thread = bed.spawn(place, move || {
            // Fails only if the one who waits below has died.
            drop(tell.send(cpu.keep().map(|()| gettid())));
            (side.serve)(own, &stop);
        })?;
        self.running.push((side, socket, thread));
        self.threads.push(told.recv()??);
        Ok(())
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for (side, socket, thread) in self.running.drain(..) {
            // Should it not be woken, it looks by itself after a while.
            drop((side.wake)(&socket));
            drop(thread.join());
        }
    }
}

/// What the server of a protocol does.
struct ServerSide {
    open: fn(SocketAddr) -> io::Result<Socket>,
    serve: fn(Socket, &AtomicBool),
    /// Makes it look whether it is to stop.
    wake: fn(&Socket) -> io::Result<()>,
}

const TCP: ServerSide = ServerSide {
    open: |address| {
        let socket = bound(address, Type::STREAM, Protocol::TCP)?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    },
    serve: serve_tcp,
    wake: |socket| socket.shutdown(Shutdown::Both),
};

const UDP: ServerSide = ServerSide {
    open: |address| bound(address, Type::DGRAM, Protocol::UDP),
    serve: serve_udp,
    // An empty datagram to itself.
    wake: |socket| socket.send_to(&[], &socket.local_addr()?).map(drop),
};

fn bound(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
    // Of accept() too.
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Serves one connection at a time, as there is one client at a time.
#[expect(clippy::needless_pass_by_value, reason = "the thread owns its socket")]
fn serve_tcp(listener: Socket, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok((stream, _)) = listener.accept() {
            // Its end is an error too: the client resets it.
            drop(serve_stream(stream));
        }
    }
}

fn serve_stream(mut stream: Socket) -> io::Result<()> {
    stream.set_tcp_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut message = [0; MESSAGE_BYTES];
    loop {
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
    }
}

fn serve_udp(socket: Socket, stop: &AtomicBool) {
    let socket = UdpSocket::from(socket);
    let mut message = [0; MESSAGE_BYTES];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, peer)) = socket.recv_from(&mut message)
            && length > 0
        {
            // A client that has gone away does not matter.
            drop(socket.send_to(message.get(..length).unwrap_or_default(), peer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_source_is_taken_twice_in_a_row_of_all() {
        let (sources, own) = (Sources::default(), addresses(Place::Client));
        let first = sources.next(&own);
        assert_eq!(first.port(), CLIENT_PORTS.start);
        for _ in 1..CLIENT_PORTS.len() * own.len() {
            assert_ne!(sources.next(&own), first);
        }
        assert_eq!(sources.next(&own), first);
    }

    #[test]
    fn a_slice_is_bounded_in_time_and_fails_with_its_request() {
        let time = Duration::from_millis(5);
        let slice = repeat(&[gettid()], time, &mut || Ok(())).unwrap();
        assert!(slice.requests > 1 && slice.seconds() > 0.0);
        assert!(repeat(&[], time, &mut || Err(ErrorKind::TimedOut.into())).is_err());
    }
}
