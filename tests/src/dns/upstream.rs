//! A DNS server of the tests' own that says what it is told: where `forward` sends to.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::query::encode_name;
use super::server::free_udp_and_tcp;

/// How often its threads look whether they should end.
const POLL_EVERY: Duration = Duration::from_millis(50);
const CLASS_IN: u16 = 1;
/// Longer than any query a test sends.
const QUERY_BYTES: usize = 4096;
const HEADER_BYTES: usize = 12;

/// What it says to one question.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// NOERROR unless given.
    #[serde(default)]
    pub rcode: Option<String>,
    /// Set the TC flag.
    #[serde(default)]
    pub tc: bool,
    /// Records: `owner ttl TYPE data`, of the types A, AAAA, CNAME, TXT and SOA.
    #[serde(default)]
    pub answer: Vec<String>,
    /// The authority section.
    #[serde(default)]
    pub authority: Vec<String>,
    /// Say nothing.
    #[serde(default)]
    pub silent: bool,
    /// Wait so many milliseconds first.
    #[serde(default)]
    pub wait_ms: u64,
}

/// A running upstream on 127.0.0.1, UDP and TCP. Questions without a script get NXDOMAIN.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    scripts: Mutex<BTreeMap<String, Script>>,
    asked: AtomicUsize,
    stop: AtomicBool,
}

impl Upstream {
    /// Starts one with a script for each question, `www.example.org. A`.
    ///
    /// # Errors
    /// No port is free, or a record is not understood.
    pub fn start(scripts: &BTreeMap<String, Script>) -> Result<Self> {
        for (question, script) in scripts {
            for record in script.answer.iter().chain(&script.authority) {
                encode_record(record).with_context(|| format!("upstream: {question}"))?;
            }
        }
        let (_, (udp, tcp)) = free_udp_and_tcp()?;
        let address = udp.local_addr()?;
        udp.set_read_timeout(Some(POLL_EVERY))?;
        tcp.set_nonblocking(true)?;
        let lowered = scripts
            .iter()
            .map(|(question, script)| (question.to_ascii_lowercase(), script.clone()));
        let shared = Arc::new(Shared {
            scripts: Mutex::new(lowered.collect()),
            asked: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let (one, two) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            std::thread::spawn(move || serve_udp(&one, &udp)),
            std::thread::spawn(move || serve_tcp(&two, &tcp)),
        ];
        Ok(Self {
            address,
            shared,
            threads,
        })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many questions came in.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::Relaxed)
    }

    /// Gives one question another script.
    pub fn set(&self, question: &str, script: Script) {
        let mut scripts = self
            .shared
            .scripts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        scripts.insert(question.to_ascii_lowercase(), script);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has shown why.
            drop(thread.join());
        }
    }
}

fn serve_udp(shared: &Arc<Shared>, socket: &UdpSocket) {
    let mut buffer = [0; QUERY_BYTES];
    while !shared.stop.load(Ordering::Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let query = buffer.get(..length).unwrap_or_default().to_vec();
        let (shared, socket) = (Arc::clone(shared), socket.try_clone());
        // A thread a question: a slow script holds up nobody else.
        std::thread::spawn(move || {
            if let (Some(reply), Ok(socket)) = (shared.reply(&query), socket) {
                // A client that has gone is its own business.
                drop(socket.send_to(&reply, client));
            }
        });
    }
}

fn serve_tcp(shared: &Arc<Shared>, listener: &TcpListener) {
    while !shared.stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = Arc::clone(shared);
                std::thread::spawn(move || drop(serve_connection(&shared, stream)));
            }
            Err(_) => std::thread::sleep(POLL_EVERY),
        }
    }
}

fn serve_connection(shared: &Shared, mut stream: TcpStream) -> Result<()> {
    stream.set_nonblocking(false)?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        if let Some(reply) = shared.reply(&query) {
            let mut framed = u16::try_from(reply.len())?.to_be_bytes().to_vec();
            framed.extend(reply);
            stream.write_all(&framed)?;
        }
    }
}

impl Shared {
    fn reply(&self, query: &[u8]) -> Option<Vec<u8>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (question, end) = question_of(query)?;
        let script = {
            let scripts = self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
            scripts.get(&question).cloned().unwrap_or_else(|| Script {
                rcode: Some("NXDOMAIN".to_owned()),
                ..Script::default()
            })
        };
        std::thread::sleep(Duration::from_millis(script.wait_ms));
        if script.silent {
            return None;
        }
        script.message(query, end).ok()
    }
}

impl Script {
    fn message(&self, query: &[u8], question_end: usize) -> Result<Vec<u8>> {
        let rcode = match self.rcode.as_deref() {
            None | Some("NOERROR") => 0,
            Some("FORMERR") => 1,
            Some("SERVFAIL") => 2,
            Some("NXDOMAIN") => 3,
            Some("REFUSED") => 5,
            Some(other) => bail!("no rcode {other}"),
        };
        let header = query.get(..2).context("no id")?;
        let rd = query.get(2).context("no flags")? & 1;
        let mut message = header.to_vec();
        message.push(0x80 | rd | if self.tc { 2 } else { 0 });
        message.push(0x80 | rcode);
        for count in [1, self.answer.len(), self.authority.len(), 0] {
            message.extend(u16::try_from(count)?.to_be_bytes());
        }
        message.extend(query.get(HEADER_BYTES..question_end).context("question")?);
        for record in self.answer.iter().chain(&self.authority) {
            message.extend(encode_record(record)?);
        }
        Ok(message)
    }
}

/// The question in lower case, `name TYPE`, and where it ends.
fn question_of(query: &[u8]) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        let label = query.get(at..at + length)?;
        name.push_str(&String::from_utf8_lossy(label));
        name.push('.');
        at += length;
    }
    if name.is_empty() {
        name.push('.');
    }
    let rtype = query.get(at..at + 2)?.first_chunk::<2>()?;
    let rtype = domain::base::Rtype::from_int(u16::from_be_bytes(*rtype));
    Some((format!("{name} {rtype}").to_ascii_lowercase(), at + 4))
}

fn encode_record(text: &str) -> Result<Vec<u8>> {
    let mut words = text.split_whitespace();
    let mut next = || words.next().with_context(|| format!("`{text}` is short"));
    let (owner, ttl, rtype) = (next()?, next()?.parse::<u32>()?, next()?);
    let (code, data): (u16, Vec<u8>) = match rtype {
        "A" => (1, next()?.parse::<Ipv4Addr>()?.octets().to_vec()),
        "AAAA" => (28, next()?.parse::<std::net::Ipv6Addr>()?.octets().to_vec()),
        "CNAME" => (5, encode_name(next()?)?),
        "TXT" => {
            let string = next()?.trim_matches('"');
            ensure!(string.len() < 256, "a long string");
            let mut data = vec![u8::try_from(string.len())?];
            data.extend(string.as_bytes());
            (16, data)
        }
        "SOA" => {
            let mut data = encode_name(next()?)?;
            data.extend(encode_name(next()?)?);
            for _ in 0..5 {
                data.extend(next()?.parse::<u32>()?.to_be_bytes());
            }
            (6, data)
        }
        _ => bail!("the upstream of the tests has no {rtype}"),
    };
    let mut record = encode_name(owner)?;
    record.extend(code.to_be_bytes());
    record.extend(CLASS_IN.to_be_bytes());
    record.extend(ttl.to_be_bytes());
    record.extend(u16::try_from(data.len())?.to_be_bytes());
    record.extend(data);
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::{Client, Query};

    /// Also the proof that the tests' client reads what it should.
    #[test]
    fn an_upstream_says_what_it_was_told() {
        let script = Script {
            answer: vec![
                "www.example.org. 60 CNAME web.example.org.".to_owned(),
                "web.example.org. 30 AAAA 2001:db8::1".to_owned(),
            ],
            tc: true,
            ..Script::default()
        };
        let scripts = BTreeMap::from([("www.example.org. AAAA".to_owned(), script)]);
        let upstream = Upstream::start(&scripts).unwrap();
        let client = Client::new(upstream.address());
        for reply in [
            client.ask("WWW.example.org.", "AAAA").unwrap(),
            client
                .query_tcp(&Query::new("WWW.example.org.", "AAAA").unwrap())
                .unwrap(),
        ] {
            assert_eq!(reply.flags, "QR TC RD RA");
            assert_eq!(reply.question.as_deref(), Some("WWW.example.org. AAAA"));
            let answer: Vec<String> = reply.answer.iter().map(ToString::to_string).collect();
            assert_eq!(
                answer,
                [
                    "www.example.org. 60 CNAME web.example.org.",
                    "web.example.org. 30 AAAA 2001:db8::1"
                ]
            );
        }
        let reply = client.ask("other.example.org.", "A").unwrap();
        assert_eq!(reply.rcode, "NXDOMAIN");
        assert_eq!(upstream.asked(), 3);
    }
}
