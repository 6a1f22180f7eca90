//! Asking one upstream server, with raw messages in and out.
//!
//! UDP queries share a few sockets ([`udp`]), TCP and TLS queries share connections ([`stream`]);
//! either way a query waits for its own reply only ([`waiting`]), and a message that does not
//! match it ([`question`]) is counted and ignored, never taken and never an error.

mod error;
mod health;
mod metrics;
mod question;
mod stream;
mod tls;
mod udp;
mod waiting;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

pub use error::ExchangeError;
pub use health::HealthCheck;
pub use tls::{TlsError, TlsFiles, TlsPeer};

use health::Health;
use metrics::UpstreamMetrics;
use question::question_of;
use stream::{Dial, Keep, StreamPool};
use udp::UdpPool;

/// Where the rcode is in a header's fourth byte.
const RCODE: u8 = 0b0000_1111;

/// The transport of one query. An upstream with TLS is asked over TLS whatever is said here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A datagram; the reply may come truncated.
    Udp,
    /// A kept connection.
    Tcp,
}

/// How an upstream is spoken to.
#[derive(Debug, Clone)]
pub struct UpstreamOptions {
    /// The local address to send from. `None`: the kernel's choice.
    pub source: Option<IpAddr>,
    /// TLS and the name in the certificate; `None`: plain DNS.
    pub tls: Option<TlsPeer>,
    /// How long a socket or connection without queries is kept.
    pub expire: Duration,
    /// How long a connection takes new queries. `None`: no limit.
    pub max_age: Option<Duration>,
    /// How many connections may be open with nothing to do. 0: no limit.
    pub max_idle_connections: usize,
    /// When it counts as down.
    pub health: HealthCheck,
    /// The transport of the health checks.
    pub health_how: How,
}

impl Default for UpstreamOptions {
    /// Plain DNS with the documented defaults.
    fn default() -> Self {
        Self {
            source: None,
            tls: None,
            expire: Duration::from_secs(10),
            max_age: None,
            max_idle_connections: 0,
            health: HealthCheck::default(),
            health_how: How::Udp,
        }
    }
}

/// One upstream server: its sockets and connections, its health and its counters. Dropping it
/// lets queries under way finish and closes the rest.
#[derive(Debug)]
pub struct Upstream {
    to: SocketAddr,
    has_tls: bool,
    udp: UdpPool,
    stream: StreamPool,
    health: Health,
    metrics: Arc<UpstreamMetrics>,
}

impl Upstream {
    /// Opens nothing and sends nothing yet. The error is a metric that cannot be registered.
    pub fn new(to: SocketAddr, options: UpstreamOptions) -> Result<Arc<Self>, prometheus::Error> {
        let metrics = UpstreamMetrics::new(&to.to_string())?;
        let has_tls = options.tls.is_some();
        let dial = Dial {
            to,
            source: options.source,
            tls: options.tls,
            idle: options.expire,
            metrics: Arc::clone(&metrics),
        };
        let keep = Keep {
            max_age: options.max_age,
            max_idle: options.max_idle_connections,
        };
        Ok(Arc::new(Self {
            to,
            has_tls,
            udp: UdpPool::new(to, options.source, options.expire, Arc::clone(&metrics)),
            stream: StreamPool::new(dial, keep),
            health: Health::new(options.health, options.health_how),
            metrics,
        }))
    }

    /// Sends one query and gives back the first reply that matches it, with the query's id.
    ///
    /// `query` is a complete message; on the wire it gets a random id. The reply may be
    /// truncated, and may have any rcode. Waits until `deadline` at the latest. Needs a tokio
    /// runtime.
    pub async fn exchange(
        &self,
        query: &[u8],
        how: How,
        deadline: Instant,
    ) -> Result<Vec<u8>, ExchangeError> {
        let started = Instant::now();
        let reply = self.ask(query, how, deadline).await?;
        self.health.answered();
        let rcode = reply.get(3).map_or(0, |flags| flags & RCODE);
        self.metrics.observe(rcode, started.elapsed());
        Ok(reply)
    }

    async fn ask(
        &self,
        query: &[u8],
        how: How,
        deadline: Instant,
    ) -> Result<Vec<u8>, ExchangeError> {
        let question = question_of(query).ok_or(ExchangeError::NotAQuery)?;
        let mut reply = match how {
            How::Udp if !self.has_tls => self.udp.exchange(query, question, deadline).await?,
            How::Udp | How::Tcp => self.stream.exchange(query, question, deadline).await?,
        };
        if let (Some(theirs), Some(ours)) = (reply.get_mut(..2), query.get(..2)) {
            theirs.copy_from_slice(ours);
        }
        Ok(reply)
    }

    /// Whether so many health checks failed that it should not be asked.
    pub fn is_down(&self) -> bool {
        self.health.is_down()
    }

    /// Address and port.
    pub const fn address(&self) -> SocketAddr {
        self.to
    }
}

/// Address and port, after `tls://` where TLS is spoken.
impl fmt::Display for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.has_tls { "tls://" } else { "" };
        write!(formatter, "{scheme}{}", self.to)
    }
}
