//! A small DNS client: one question, and how it was answered.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::workload::Query;

/// Header, question and a little more; what we ask fits in 512.
const REPLY_BYTES: usize = 4096;
/// Names have at most this many bytes in a label (RFC 1035, 2.3.4).
const LABEL_BYTES: usize = 63;

/// What a reply says, as far as the bench looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) id: u16,
    pub(super) rcode: u8,
    pub(super) answers: u16,
}

impl Reply {
    /// Whether there is something in it.
    pub(super) const fn has_answer(self) -> bool {
        self.rcode == 0 && self.answers > 0
    }

    fn parse(packet: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
        let flags = word(2)?;
        let is_reply = flags & 0x8000 != 0;
        is_reply.then_some(Self {
            id: word(0)?,
            rcode: u8::try_from(flags & 0xf).ok()?,
            answers: word(6)?,
        })
    }
}

/// A query's packet, without EDNS, recursion desired: as a stub resolver sends it.
///
/// # Errors
/// A name that is none, or a type we do not know.
pub(super) fn encode(id: u16, query: &Query) -> Result<Vec<u8>> {
    let rtype: u16 = match query.rtype {
        "A" => 1,
        "PTR" => 12,
        "AAAA" => 28,
        "SRV" => 33,
        other => bail!("type {other}"),
    };
    let mut packet = Vec::with_capacity(18 + query.name.len());
    packet.extend(id.to_be_bytes());
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in query.name.split('.') {
        if label.is_empty() || label.len() > LABEL_BYTES {
            bail!("{}: odd label", query.name);
        }
        packet.push(u8::try_from(label.len())?);
        packet.extend(label.bytes());
    }
    packet.push(0);
    packet.extend(rtype.to_be_bytes());
    packet.extend([0, 1]);
    Ok(packet)
}

/// A socket to one server.
pub(super) struct Client {
    socket: UdpSocket,
    id: u16,
}

impl Client {
    pub(super) fn new(server: SocketAddr, timeout: Duration) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(timeout))?;
        Ok(Self { socket, id: 0 })
    }

    /// Asks; None where no reply came in time.
    ///
    /// # Errors
    /// A question that can't be asked. That nobody listens is no error.
    pub(super) fn ask(&mut self, query: &Query) -> Result<Option<Reply>> {
        self.id = self.id.wrapping_add(1);
        let packet = encode(self.id, query)?;
        if self.socket.send(&packet).is_err() {
            // Nobody listens yet.
            return Ok(None);
        }
        let mut buffer = [0; REPLY_BYTES];
        loop {
            let Ok(length) = self.socket.recv(&mut buffer) else {
                return Ok(None);
            };
            let reply = Reply::parse(buffer.get(..length).context("a long reply")?);
            if let Some(reply) = reply.filter(|reply| reply.id == self.id) {
                return Ok(Some(reply));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_encoded_and_a_reply_read() {
        let query = Query {
            name: "a.example".to_owned(),
            rtype: "AAAA",
        };
        let mut packet = encode(0x1234, &query).unwrap();
        assert_eq!(packet[12..], *b"\x01a\x07example\x00\x00\x1c\x00\x01");
        assert_eq!(Reply::parse(&packet), None, "that is no reply");
        packet[2] |= 0x80;
        packet[3] = 3;
        let reply = Reply::parse(&packet).unwrap();
        assert_eq!((reply.id, reply.rcode, reply.answers), (0x1234, 3, 0));
        assert!(!reply.has_answer());
    }
}
