//! Floods of more than a server can answer: of names it knows, and of names whose upstream is
//! silent.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::api::write_kubeconfig;
use super::client::{Client, Reply, encode};
use super::cpus::{Cpus, Role};
use super::subject::{Program, SILENT_ZONE, Sources, Subject};
use super::workload::{Query, Workload};
use super::{Bed, mebibytes};
use crate::process::Process;

/// How long each flood lasts.
const FLOOD: Duration = Duration::from_secs(5);
/// Sockets it comes from. Nobody reads what is answered: the kernel drops it.
const SOCKETS: usize = 64;
/// Datagrams between two looks at the clock.
const BURST: usize = 256;
/// Threads that compute beside the server on its CPU during the flood of known names, so that
/// it can answer a tenth of what it could: one CPU can't send ten times what another answers.
const RIVALS: usize = 9;
/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// After a flood, before memory is read again.
const AFTER: Duration = Duration::from_secs(2);
/// Queries right after a flood.
const QUERIES_AFTER: usize = 100;
/// The first of them is asked again so often: until then it may lie behind the flood.
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// A server that does not answer by then has failed.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What is sent.
#[derive(Clone, Copy)]
enum Flood<'a> {
    /// Names the server knows, while rivals take nine tenths of its CPU.
    Known(&'a [Query]),
    /// A new name each time, whose upstream says nothing.
    Silent,
}

/// Floods one program in both ways; the table as Markdown.
pub(super) fn measure(bed: &Bed<'_>, program: &Program) -> Result<String> {
    println!("{}: floods", program.name);
    // Bound and never read: neither a reply nor a refusal comes from it.
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let kubeconfig = write_kubeconfig(bed.work, "kubeconfig", bed.api()?.address())?;
    let sources = Sources {
        kubeconfig: &kubeconfig,
        outside: bed.outside.address,
        silent: Some(silent.local_addr()?),
    };
    let mut subject = Subject::start(bed.cpus, program, bed.work, sources)?;
    subject.server.wait_until_it_answers(&bed.last_query()?)?;
    std::thread::sleep(AFTER);
    let mut table = format!(
        "| flood, {} | sent a second | taken by the server | RSS before, MiB | during, at most | after | \
         first answer after it | slowest of the {QUERIES_AFTER} after that |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|\n",
        program.name
    );
    let known = Flood::Known(bed.lists.of(Workload::Mixed)?);
    for (name, flood) in [("known names", known), ("a silent upstream", Flood::Silent)] {
        let row = one(bed, &mut subject, flood).with_context(|| name)?;
        table += &format!("| {name} | {row} |\n");
    }
    Ok(table)
}

fn one(bed: &Bed<'_>, subject: &mut Subject, flood: Flood<'_>) -> Result<String> {
    let server = subject.server.address;
    let process = subject.server.process();
    let before = process.rss_kib()?;
    let dropped_before = dropped(server)?;
    let rivals = match flood {
        Flood::Known(_) => RIVALS,
        Flood::Silent => 0,
    };
    let rivals = Background::start(rivals, bed.cpus);
    let peak = PeakWatch::start(process);
    let sent = send(server, flood)?;
    let during = peak.stop();
    drop(rivals);
    subject.server.check()?;
    let (first, slowest) = right_after(server, &bed.last_query()?)?;
    let dropped = dropped(server)?.saturating_sub(dropped_before);
    std::thread::sleep(AFTER);
    subject.server.check()?;
    let taken = (sent.saturating_sub(dropped) * 1000)
        .checked_div(sent)
        .unwrap_or(0);
    Ok(format!(
        "{} | {}.{} % | {} | {} | {} | {:.2} ms | {:.2} ms",
        sent / FLOOD.as_secs(),
        taken / 10,
        taken % 10,
        mebibytes(before),
        mebibytes(during),
        mebibytes(process.rss_kib()?),
        first.as_secs_f64() * 1e3,
        slowest.as_secs_f64() * 1e3,
    ))
}

/// Threads that compute on the server's CPU until stopped.
struct Background(Arc<AtomicBool>);

impl Background {
    fn start(threads: usize, cpus: Cpus) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let stopped = Arc::clone(&stop);
            std::thread::spawn(move || {
                if cpus.pin(Role::Server).is_ok() {
                    while !stopped.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                }
            });
        }
        Self(stop)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Looks at a process' memory until stopped.
struct PeakWatch {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u64>,
}

impl PeakWatch {
    fn start(process: Process) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut peak_kib = 0;
            while !stopped.load(Ordering::Relaxed) {
                peak_kib = peak_kib.max(process.rss_kib().unwrap_or(0));
                std::thread::sleep(SAMPLE_EVERY);
            }
            peak_kib
        });
        Self { stop, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        // It only looks and can't fail.
        self.thread.join().unwrap_or(0)
    }
}

/// Sends for [`FLOOD`] without waiting; returns how many datagrams the kernel took.
fn send(server: SocketAddr, flood: Flood<'_>) -> Result<u64> {
    let mut sockets = Vec::with_capacity(SOCKETS);
    for _ in 0..SOCKETS {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    let mut packets = match flood {
        Flood::Known(queries) => queries
            .iter()
            .map(|query| encode(0x5359, query))
            .collect::<Result<Vec<_>>>()?,
        Flood::Silent => vec![encode(0x5359, &silent_query())?],
    };
    let start = Instant::now();
    let (mut sent, mut number) = (0_u64, 0_u32);
    let mut next_socket = sockets.iter().cycle();
    while start.elapsed() < FLOOD {
        for _ in 0..BURST {
            let index = usize::try_from(number)? % packets.len();
            let packet = packets.get_mut(index).context("no packet")?;
            if matches!(flood, Flood::Silent) {
                renumber(packet, number);
            }
            let socket = next_socket.next().context("no socket")?;
            // A full buffer of the kernel's is a flood's nature.
            sent += u64::from(socket.send(packet).is_ok());
            number = number.wrapping_add(1);
        }
    }
    Ok(sent)
}

/// Its first label is eight digits, which [`renumber`] changes.
fn silent_query() -> Query {
    Query {
        name: format!("00000000.{SILENT_ZONE}"),
        rtype: "A",
    }
}

/// Writes a number into the first label, which begins after header and length.
fn renumber(packet: &mut [u8], number: u32) {
    let digits = format!("{number:08x}");
    for (byte, digit) in packet.iter_mut().skip(13).zip(digits.bytes()) {
        *byte = digit;
    }
}

/// Datagrams the kernel dropped because the server did not take them in time.
fn dropped(server: SocketAddr) -> Result<u64> {
    let port = format!(":{:04X}", server.port());
    let mut sum = 0;
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        sum += dropped_in(&text, &port)?;
    }
    Ok(sum)
}

fn dropped_in(table: &str, port: &str) -> Result<u64> {
    let mut sum = 0;
    for line in table.lines().skip(1) {
        let mut fields = line.split_whitespace();
        if fields.nth(1).is_some_and(|local| local.ends_with(port)) {
            sum += fields.next_back().context("no drops")?.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// After a flood: how long until the first answer, and the slowest of the next ones.
///
/// # Errors
/// None came, or one of the next ones did not.
fn right_after(server: SocketAddr, query: &Query) -> Result<(Duration, Duration)> {
    let start = Instant::now();
    let mut impatient = Client::new(server, RETRY_EVERY)?;
    while !impatient.ask(query)?.is_some_and(Reply::has_answer) {
        if start.elapsed() > ANSWER_LIMIT {
            bail!("no answer within {ANSWER_LIMIT:?} after the flood");
        }
    }
    let first = start.elapsed();
    let mut client = Client::new(server, ANSWER_LIMIT)?;
    let mut slowest = Duration::ZERO;
    for _ in 0..QUERIES_AFTER {
        let start = Instant::now();
        if !client.ask(query)?.is_some_and(Reply::has_answer) {
            bail!("answered once, then not within {ANSWER_LIMIT:?}");
        }
        slowest = slowest.max(start.elapsed());
    }
    Ok((first, slowest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_silent_name_is_another() {
        let mut packet = encode(1, &silent_query()).unwrap();
        let before = packet.clone();
        renumber(&mut packet, 0xab);
        assert_eq!(packet[12..21], *b"\x08000000ab");
        assert_eq!(packet[21..], before[21..]);
    }

    #[test]
    fn drops_of_one_port_are_added_up() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
                     100: 0100007F:3039 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5 2 0 17\n\
                     101: 0100007F:3040 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 6 2 0 99\n";
        assert_eq!(dropped_in(table, ":3039").unwrap(), 17);
    }
}
