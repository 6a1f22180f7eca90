//! The API server as the account of a cluster.
//!
//! One watch for each kind, all over one HTTP/2 connection where the server speaks it. The
//! first list is streamed (KEP-3157) or, where the server refuses that, read in pages; a
//! watch that ends is resumed where it ended, one that is too old is begun again with a
//! list. What goes wrong becomes an [`Update::Trouble`] and is tried again, with growing
//! pauses; what is known stays.
//!
//! How long silence lasts before it is taken for a dead connection:
//! - HTTP/2: [`Timing::ping_interval`] + [`Timing::ping_timeout`] (45 s), by pings;
//! - HTTP/1.1, peer or path dead: [`TCP_DEAD_AFTER`] (45 s), by TCP keepalive;
//! - HTTP/1.1, peer alive but stuck: [`Timing::watch`] + 5 s (295 s) for a watch,
//!   [`Timing::answer`] (60 s) for the head of an answer.

mod complaints;
mod follow;
mod line;
mod observer;
mod reason;
mod token;
mod transport;
mod watched;

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, select_all};
use tokio::sync::mpsc::Sender;

use self::follow::follow;
use self::transport::Server;
use self::watched::{
    EndpointSlices, LegacyEndpoints, Namespaces, Nodes, Pods, READING, Reading, ServiceCidrs,
    Services,
};
use super::{Selection, SourceError};
use crate::decode::Keep;
use crate::object::Kind;
use crate::update::Update;

pub use self::line::TCP_DEAD_AFTER;
pub use self::observer::{RequestDone, RequestObserver};

/// What to follow, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The way to the API server.
    pub access: Access,
    /// What to ask it for.
    pub selections: Vec<Selection>,
    /// How much of endpoints to keep.
    pub keep: Keep,
    /// How to read a first list.
    pub first_list: FirstList,
    /// Time limits and pauses.
    pub timing: Timing,
    /// Who counts requests, if anybody.
    pub observer: Option<RequestObserver>,
}

/// The way to the API server. With neither kubeconfig nor URL: the service account of the
/// pod that this process runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Access {
    /// A kubeconfig file: server, CA, and who we are.
    pub kubeconfig: Option<PathBuf>,
    /// The context to use of it; else the one that it calls its current one.
    pub context: Option<String>,
    /// The server's URL; overrides that of the kubeconfig.
    pub master: Option<String>,
    /// Who we are, and whom we trust, where there is a URL and no kubeconfig.
    pub tls: Option<TlsFiles>,
}

/// PEM files for TLS. They are read again after a failure.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// Our certificate, with its chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The certificate authorities that the server's certificate may be of.
    pub authorities: PathBuf,
}

/// In words for errors and the log.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.kubeconfig, &self.master) {
            (Some(file), _) => write!(f, "kubeconfig {}", file.display()),
            (None, Some(master)) => write!(f, "URL {master}"),
            (None, None) => f.write_str("in-cluster configuration (there is no kubeconfig or URL)"),
        }
    }
}

/// How a first list is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FirstList {
    /// As the beginning of the watch, object by object: neither side ever holds the whole
    /// list. In pages where the server refuses.
    #[default]
    Streamed,
    /// In pages of so many objects.
    Paged(u32),
}

/// Objects of one page, where a list is read in pages because the server refused to stream.
pub const PAGE_OBJECTS: u32 = 500;

/// Time limits and pauses.
#[derive(Clone, Debug)]
pub struct Timing {
    /// A request whose answer has not begun by then has failed.
    pub answer: Duration,
    /// A first list that says nothing for this long has failed.
    pub list_silence: Duration,
    /// How long the server is asked to keep a watch open, in whole seconds.
    pub watch: Duration,
    /// A quiet HTTP/2 connection is asked this often whether it is alive.
    pub ping_interval: Duration,
    /// One that does not answer within this is dead.
    pub ping_timeout: Duration,
    /// The first pause after a failure; each further one is twice as long. Up to as much
    /// again is added at random, so that a thousand nodes don't come back at once.
    pub first_pause: Duration,
    /// The longest pause, without the random part.
    pub longest_pause: Duration,
    /// The same two for an optional kind that the server does not have.
    pub first_absent_pause: Duration,
    /// See [`Timing::first_absent_pause`].
    pub longest_absent_pause: Duration,
    /// Watches of one kind are not begun more often than this, whatever ends them.
    pub watch_gap: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(60),
            list_silence: Duration::from_secs(120),
            watch: Duration::from_secs(290),
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(15),
            first_pause: Duration::from_millis(400),
            longest_pause: Duration::from_secs(15),
            first_absent_pause: Duration::from_secs(30),
            longest_absent_pause: Duration::from_secs(150),
            watch_gap: Duration::from_secs(1),
        }
    }
}

/// Says at once what is wrong with kubeconfig, certificates, tokens or URL, without asking
/// the server anything.
///
/// # Errors
/// If they can't be read or make no sense.
pub async fn validate(options: &Options) -> Result<(), SourceError> {
    Server::open(options).await?;
    Ok(())
}

/// A client that writes, with time limits, a new connection when needed, and observed, like all
/// requests of these options. It connects when it is first used.
pub(crate) async fn client(options: &Options) -> Result<kube::Client, SourceError> {
    let (client, _) = Server::open(options).await?.client();
    Ok(client)
}

/// Sends what the API server says, and then every change, until the receiver is gone.
///
/// # Errors
/// As [`validate`]; or because the receiver is gone. Never because of what the server does.
pub async fn run(options: Options, sender: Sender<Update>) -> Result<Infallible, SourceError> {
    let server = Server::open(&options).await?;
    let mut followers: Vec<BoxFuture<'_, SourceError>> = Vec::new();
    for selection in &options.selections {
        let (server, options, sender) = (&server, &options, &sender);
        followers.push(match selection.kind {
            Kind::Service => follow::<Services>(server, options, selection, sender).boxed(),
            Kind::EndpointSlice => {
                follow::<EndpointSlices>(server, options, selection, sender).boxed()
            }
            Kind::Endpoints => {
                follow::<LegacyEndpoints>(server, options, selection, sender).boxed()
            }
            Kind::Node => follow::<Nodes>(server, options, selection, sender).boxed(),
            Kind::ServiceCidr => follow::<ServiceCidrs>(server, options, selection, sender).boxed(),
            Kind::Namespace => follow::<Namespaces>(server, options, selection, sender).boxed(),
            Kind::Pod => follow::<Pods>(server, options, selection, sender).boxed(),
        });
    }
    let closed = sender.closed().map(|()| SourceError::NobodyListens);
    followers.push(closed.boxed());
    let reading = Reading::new(options.keep);
    let (end, _, _) = READING.scope(reading, select_all(followers)).await;
    Err(end)
}
