//! Addresses of upstreams that the configuration gives by name, looked up once at start.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use crate::wire::{Malformed, Name, Question, Rcode, Reply, Rtype};

/// How long one server of `resolver` is waited for, each of the two times it is asked.
const RESOLVER_TIMEOUT: Duration = Duration::from_secs(2);
const RESOLVER_TRIES: usize = 2;
const REPLY_BYTES_MAX: usize = 4096;

/// All addresses of `host`, by the servers of `resolver`, or where there are none by the
/// system. Blocks. The error is a sentence.
pub(super) fn addresses(host: &str, resolver: &[SocketAddr]) -> Result<Vec<IpAddr>, String> {
    if resolver.is_empty() {
        let found = (host, 0)
            .to_socket_addrs()
            .map_err(|error| format!("can't look up `{host}`: {error}"))?;
        return some(host, found.map(|address| address.ip()).collect());
    }
    let name = Name::from_text(host).map_err(|error| error.to_string())?;
    let mut failure = String::new();
    for server in resolver {
        match ask_both(&name, *server) {
            Ok(found) => return some(host, found),
            Err(error) => failure = format!("can't look up `{host}`: {server}: {error}"),
        }
    }
    Err(failure)
}

fn some(host: &str, mut found: Vec<IpAddr>) -> Result<Vec<IpAddr>, String> {
    let mut seen = std::collections::HashSet::new();
    found.retain(|address| seen.insert(*address));
    if found.is_empty() {
        return Err(format!("`{host}` has no address"));
    }
    Ok(found)
}

#[derive(Debug, thiserror::Error)]
enum LookupError {
    #[error(transparent)]
    Socket(#[from] std::io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("it answers {0}")]
    Refused(Rcode),
    #[error("no reply")]
    Silence,
}

fn ask_both(name: &Name, server: SocketAddr) -> Result<Vec<IpAddr>, LookupError> {
    let mut addresses = ask(&Question::new(name.clone(), Rtype::A), server)?;
    addresses.extend(ask(&Question::new(name.clone(), Rtype::AAAA), server)?);
    Ok(addresses)
}

fn ask(question: &Question, server: SocketAddr) -> Result<Vec<IpAddr>, LookupError> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => ([0_u8; 4], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(local)?;
    socket.connect(server)?;
    let id = fastrand::u16(..).to_be_bytes();
    let mut query = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend_from_slice(question.name().as_wire());
    query.extend_from_slice(&question.rtype.0.to_be_bytes());
    query.extend_from_slice(&question.class.0.to_be_bytes());
    for _ in 0..RESOLVER_TRIES {
        socket.send(&query)?;
        if let Some(message) = receive(&socket, &query)? {
            return addresses_in(question, &message);
        }
    }
    Err(LookupError::Silence)
}

/// The reply to `query`; what is none is passed over. `None` when the time is out.
fn receive(socket: &UdpSocket, query: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + RESOLVER_TIMEOUT;
    let mut buffer = vec![0; REPLY_BYTES_MAX];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let reply = buffer.get(..length).unwrap_or_default();
        if is_reply(reply, query) {
            return Ok(Some(reply.to_vec()));
        }
    }
}

fn is_reply(reply: &[u8], query: &[u8]) -> bool {
    let question = query.get(12..).unwrap_or_default();
    reply.get(..2) == query.get(..2)
        && reply.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && reply
            .get(12..12 + question.len())
            .is_some_and(|theirs| theirs.eq_ignore_ascii_case(question))
}

fn addresses_in(question: &Question, message: &[u8]) -> Result<Vec<IpAddr>, LookupError> {
    let mut reply = Reply::default();
    reply.take_message(question, message)?;
    if reply.rcode != Rcode::NOERROR {
        return Err(LookupError::Refused(reply.rcode));
    }
    let records = reply.records()?.answer;
    Ok(records
        .iter()
        .filter_map(|record| match record.rtype {
            Rtype::A => <[u8; 4]>::try_from(&*record.data).ok().map(IpAddr::from),
            Rtype::AAAA => <[u8; 16]>::try_from(&*record.data).ok().map(IpAddr::from),
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_localhost() {
        let found = addresses("localhost", &[]).unwrap();
        assert!(found.iter().all(IpAddr::is_loopback), "{found:?}");
    }

    #[test]
    fn a_resolver_is_asked_for_both_families() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let answering = std::thread::spawn(move || {
            for data in [
                &[192, 0, 2, 7][..],
                &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
            ] {
                let mut buffer = [0; 512];
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                let mut stranger = buffer[..length].to_vec();
                stranger[0] ^= 1;
                stranger[2] |= 0x80;
                server.send_to(&stranger, from).unwrap();
                let mut reply = buffer[..length].to_vec();
                reply[2] |= 0x80;
                reply[7] = 1;
                let rtype = [reply[length - 4], reply[length - 3]];
                reply.extend_from_slice(&[0xc0, 12, rtype[0], rtype[1], 0, 1, 0, 0, 0, 9, 0]);
                reply.push(u8::try_from(data.len()).unwrap());
                reply.extend_from_slice(data);
                server.send_to(&reply, from).unwrap();
            }
        });
        let found = addresses("dns.example", &[address]).unwrap();
        answering.join().unwrap();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.7", "2001:db8::7"]);
    }

    #[test]
    fn a_resolver_that_is_not_there_is_named() {
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = gone.local_addr().unwrap();
        drop(gone);
        let error = addresses("dns.example", &[address]).unwrap_err();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains("refused"), "{error}");
    }
}
