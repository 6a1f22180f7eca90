//! A DNS client that sends what it is told and hides nothing of what comes back.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::query::Query;
use super::reply::Reply;

/// What has not come within this time does not come.
const PATIENCE: Duration = Duration::from_secs(5);
/// Larger than any UDP message.
const RECEIVE_BYTES: usize = 65_535;

/// Asks one server, from where the calling thread is.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    server: SocketAddr,
    patience: Duration,
}

impl Client {
    /// A client of the server at this address.
    pub const fn new(server: SocketAddr) -> Self {
        Self {
            server,
            patience: PATIENCE,
        }
    }

    /// The same, waiting this long for each answer.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The server.
    pub const fn server(&self) -> SocketAddr {
        self.server
    }

    /// Asks over UDP as a stub resolver without EDNS does.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub fn ask(&self, name: &str, rtype: &str) -> Result<Reply> {
        self.query(&Query::new(name, rtype)?)
    }

    /// Sends a query over UDP and returns the reply to it.
    ///
    /// # Errors
    /// Silence; a reply that is broken, has another id, or repeats another question than the one
    /// sent, its case included.
    pub fn query(&self, query: &Query) -> Result<Reply> {
        let what = || format!("{} TYPE{} over UDP", query.name, query.rtype);
        let bytes = self.udp(&query.encode()?).with_context(what)?;
        checked(query, bytes.context("no reply").with_context(what)?).with_context(what)
    }

    /// Sends a query over a TCP connection of its own and returns the reply to it.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub fn query_tcp(&self, query: &Query) -> Result<Reply> {
        let what = || format!("{} TYPE{} over TCP", query.name, query.rtype);
        let mut stream = self.tcp().with_context(what)?;
        stream.send(&query.encode()?)?;
        let bytes = stream.receive().with_context(what)?;
        checked(query, bytes.context("no reply").with_context(what)?).with_context(what)
    }

    /// Sends one datagram; what comes back, or `None` after the client's patience.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn udp(&self, message: &[u8]) -> Result<Option<Vec<u8>>> {
        let socket = self.socket()?;
        socket.send(message)?;
        let mut buffer = vec![0; RECEIVE_BYTES];
        match socket.recv(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                Ok(Some(buffer))
            }
            Err(error) if is_timeout(error.kind()) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("UDP to {}", self.server)),
        }
    }

    /// A UDP socket connected to the server, with the client's patience.
    ///
    /// # Errors
    /// The system gives none.
    pub fn socket(&self) -> Result<UdpSocket> {
        let any: SocketAddr = if self.server.is_ipv4() {
            ([0u8; 4], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(self.server)?;
        socket.set_read_timeout(Some(self.patience))?;
        Ok(socket)
    }

    /// Opens a TCP connection.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn tcp(&self) -> Result<TcpStreamClient> {
        let stream = TcpStream::connect_timeout(&self.server, self.patience)
            .with_context(|| format!("TCP to {}", self.server))?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_nodelay(true)?;
        Ok(TcpStreamClient { stream })
    }
}

/// A connection that carries messages behind their length (RFC 1035 4.2.2).
#[derive(Debug)]
pub struct TcpStreamClient {
    stream: TcpStream,
}

impl TcpStreamClient {
    /// Sends one message behind its length, in one write.
    ///
    /// # Errors
    /// The server closed the connection, or the message is longer than 65,535 octets.
    pub fn send(&mut self, message: &[u8]) -> Result<()> {
        let mut framed = u16::try_from(message.len())?.to_be_bytes().to_vec();
        framed.extend(message);
        self.send_raw(&framed)
    }

    /// Sends a query and returns the reply to it; nothing else may be under way.
    ///
    /// # Errors
    /// As [`Client::query`].
    pub fn ask(&mut self, query: &Query) -> Result<Reply> {
        self.send(&query.encode()?)?;
        checked(query, self.receive()?.context("no reply")?)
    }

    /// Sends octets as they are.
    ///
    /// # Errors
    /// The server closed the connection.
    pub fn send_raw(&mut self, octets: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(octets)?)
    }

    /// The next message; `None` if the server closes the connection, or says nothing for the
    /// client's patience.
    ///
    /// # Errors
    /// The connection ends inside a message.
    pub fn receive(&mut self) -> Result<Option<Vec<u8>>> {
        let mut length = [0; 2];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if is_timeout(error.kind()) || is_end(error.kind()) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        self.stream
            .read_exact(&mut message)
            .context("the connection ended inside a message")?;
        Ok(Some(message))
    }

    /// Whether the server closes the connection within the client's patience, saying nothing more.
    ///
    /// # Errors
    /// It says something.
    pub fn is_closed(&mut self) -> Result<bool> {
        let mut octet = [0; 1];
        match self.stream.read(&mut octet) {
            Ok(0) => Ok(true),
            Ok(_) => anyhow::bail!("the server said something more"),
            Err(error) if is_timeout(error.kind()) => Ok(false),
            Err(error) if is_end(error.kind()) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

fn checked(query: &Query, bytes: Vec<u8>) -> Result<Reply> {
    let reply = Reply::decode(bytes)?;
    ensure!(
        reply.id == query.id,
        "asked with id {}, answered with id {}",
        query.id,
        reply.id
    );
    ensure!(reply.has_flag("QR"), "the reply is no reply: QR is not set");
    let sent = query.encode()?;
    let question = sent.get(12..).unwrap_or_default();
    let asked = reply.bytes.get(12..).unwrap_or_default();
    let length = super::encode_name(&query.name)?.len() + 4;
    ensure!(
        reply.question.is_some() && question.get(..length) == asked.get(..length),
        "the reply is to another question: {reply}"
    );
    Ok(reply)
}

fn is_timeout(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
