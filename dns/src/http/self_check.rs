use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, Instant};

use prometheus::{Histogram, HistogramOpts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};

use crate::metrics::count::HEALTH_REQUEST_FAILURES;
use crate::metrics::registry;

/// From one check to the next.
const INTERVAL: Duration = Duration::from_secs(1);
/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// A check that takes longer is worth a warning: the machine is overloaded.
const SLOW: Duration = Duration::from_secs(1);
/// Octets of an answer that are read; `OK` and its head have fewer.
const ANSWER_OCTETS_MAX: usize = 1024;
/// Seconds.
const BUCKETS: [f64; 5] = [0.000_25, 0.002_5, 0.025, 0.25, 2.5];

/// Asks our own `/health` each second, for the metric of how long that takes. Ends when
/// dropped.
#[derive(Debug)]
pub struct SelfCheck(JoinHandle<()>);

impl SelfCheck {
    /// Checks the endpoint at `address`.
    #[must_use]
    pub fn start(address: SocketAddr) -> Self {
        Self(tokio::spawn(check_for_ever(address)))
    }
}

impl Drop for SelfCheck {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The histogram; `None` if its name is another's, which is logged once.
fn durations() -> Option<&'static Histogram> {
    static DURATIONS: LazyLock<OnceLock<Histogram>> = LazyLock::new(|| {
        let made = OnceLock::new();
        let opts = HistogramOpts::new(
            "coredns_health_request_duration_seconds",
            "How long each self-check of /health took.",
        );
        let histogram = Histogram::with_opts(opts.buckets(BUCKETS.to_vec()));
        let registered = histogram.and_then(|histogram| {
            registry().register(Box::new(histogram.clone()))?;
            let _empty_until_now = made.set(histogram);
            Ok(())
        });
        if let Err(error) = registered {
            tracing::error!("health: {error}");
        }
        made
    });
    DURATIONS.get()
}

/// Makes the metric known before the first check.
pub(crate) fn register() {
    let _made = durations();
}

async fn check_for_ever(address: SocketAddr) {
    let address = reachable(address);
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let begun = Instant::now();
        let result = timeout(PATIENCE, ask(address)).await;
        let took = begun.elapsed();
        let result = result.unwrap_or_else(|elapsed| Err(elapsed.into()));
        if let Err(error) = result {
            HEALTH_REQUEST_FAILURES.inc();
            tracing::warn!(
                "plugin/health: Local health request to http://{address}/health failed: {error}"
            );
            continue;
        }
        if let Some(durations) = durations() {
            durations.observe(took.as_secs_f64());
        }
        if took > SLOW {
            tracing::warn!(
                "plugin/health: Local health request to http://{address}/health took more than 1s: {took:.1?}"
            );
        }
    }
}

/// Where a listener on all addresses can be reached.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        // It takes IPv4 as well, and a machine may have no ::1.
        IpAddr::V6(ip) if ip == Ipv6Addr::UNSPECIFIED => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

async fn ask(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    let limit = u64::try_from(ANSWER_OCTETS_MAX).unwrap_or(u64::MAX);
    stream.take(limit).read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200 ") {
        Ok(())
    } else {
        Err(io::Error::other("the answer is not 200"))
    }
}
