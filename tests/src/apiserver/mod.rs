//! A stand-in API server: the list and watch protocol of kube-apiserver 1.36 over real
//! HTTP/1.1 and HTTP/2, with TLS or without, as the recorded exchanges in
//! `data/kube-apiserver-1.36` show it; and the means to make it fail in every way a client
//! must survive.
//!
//! It keeps whatever JSON it is given and validates nothing, so that tests can hand out
//! objects a real server would never store.

mod answer;
mod connection;
mod page;
mod resource;
mod review;
mod selector;
mod state;
mod stream;
mod tls;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};

pub use self::resource::{RESOURCES, Resource};
pub use self::state::Key;
pub use self::tls::Identities;

use self::state::State;

/// Requests beyond this many are forgotten, oldest first.
const MAX_REQUESTS_KEPT: usize = 10_000;
/// Raw lines waiting for a watch that does not read.
const MAX_RAW_LINES: usize = 64;

/// How a server starts.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// With TLS (and then HTTP/2 as well as HTTP/1.1).
    pub tls: bool,
    /// The bearer tokens that are let in. With none and no TLS client certificate asked
    /// for, everybody is.
    pub tokens: Vec<String>,
    /// Let holders of our client certificate in, and nobody else but token holders.
    pub client_certificates: bool,
    /// The server's certificate has expired.
    pub expired: bool,
    /// Our client certificate has.
    pub client_expired: bool,
    /// Offer HTTP/1.1 only.
    pub only_http1: bool,
    /// A watch gets a bookmark this often.
    pub bookmark_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: true,
            tokens: Vec::new(),
            client_certificates: false,
            expired: false,
            client_expired: false,
            only_http1: false,
            bookmark_every: Duration::from_secs(60),
        }
    }
}

/// A request that came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Query parameters, decoded.
    pub query: BTreeMap<String, String>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub version: String,
}

impl Seen {
    /// Whether it begins a watch.
    #[must_use]
    pub fn is_watch(&self) -> bool {
        self.query
            .get("watch")
            .is_some_and(|on| on == "1" || on == "true")
    }

    /// The resource it asks for: the last part of a list's path.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

/// A running server. Dropping it closes everything.
pub struct StandIn {
    shared: Arc<Shared>,
    address: SocketAddr,
    identities: Identities,
    listener: tokio::task::JoinHandle<()>,
}

/// What requests share.
struct Shared {
    settings: Settings,
    state: Mutex<State>,
    mood: Mutex<Mood>,
    requests: Mutex<VecDeque<Seen>>,
    /// The newest resourceVersion: wakes the watches.
    newest: watch::Sender<u64>,
    /// Counted up to cut every connection.
    cuts: watch::Sender<u64>,
    /// While true, connections are taken and nothing is read or sent.
    silent: watch::Sender<bool>,
    /// Lines to put into every open watch as they are.
    raw_lines: broadcast::Sender<String>,
}

/// In which ways the server misbehaves right now.
#[derive(Clone, Debug, Default)]
struct Mood {
    /// By resource: answer every request with this status.
    refused: BTreeMap<String, u16>,
    /// `sendInitialEvents` is refused, as by a server whose WatchList feature is off.
    no_watch_list: bool,
    /// `sendInitialEvents` means nothing, as to a server from before it.
    ignores_watch_list: bool,
    /// Watches end right after their headers.
    watches_end_at_once: bool,
    /// All history is forgotten once the next page of a list with more to come is out.
    expire_next_page: bool,
    tokens: Vec<String>,
    /// Whose tokens are reviewed well.
    holders: Vec<review::Holder>,
    /// New connections are closed at once.
    closed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl StandIn {
    /// Starts a server on the current runtime.
    ///
    /// # Errors
    /// If the address can't be listened on, or certificates can't be made.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let identities = Identities::new(address.ip(), &settings)?;
        let tls = if settings.tls {
            Some(identities.acceptor(&settings)?)
        } else {
            None
        };
        let mood = Mood {
            tokens: settings.tokens.clone(),
            ..Mood::default()
        };
        let shared = Arc::new(Shared {
            settings,
            state: Mutex::default(),
            mood: Mutex::new(mood),
            requests: Mutex::default(),
            newest: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
            silent: watch::Sender::new(false),
            raw_lines: broadcast::Sender::new(MAX_RAW_LINES),
        });
        let serving = connection::serve(Arc::clone(&shared), listener, tls);
        Ok(Self {
            shared,
            address,
            identities,
            listener: tokio::spawn(serving),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:…`.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.shared.settings.tls {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// The certificates, for a kubeconfig.
    #[must_use]
    pub const fn identities(&self) -> &Identities {
        &self.identities
    }

    /// Puts an object, new or changed, and returns its resourceVersion.
    pub fn set(&self, resource: &Resource, object: Value) -> u64 {
        let version = lock(&self.shared.state).set(resource, object);
        self.shared.newest.send_replace(version);
        version
    }

    /// Every object of a resource.
    #[must_use]
    pub fn objects(&self, resource: &Resource) -> Vec<Value> {
        lock(&self.shared.state).all(resource)
    }

    /// Deletes an object; the version of its deletion, if there was one.
    pub fn delete(&self, resource: &Resource, namespace: &str, name: &str) -> Option<u64> {
        let key = Key::new(resource, namespace, name);
        let version = lock(&self.shared.state).delete(&key)?;
        self.shared.newest.send_replace(version);
        Some(version)
    }

    /// Counts the resourceVersion up to this, as changes of other kinds do.
    pub fn skip_to(&self, version: u64) {
        lock(&self.shared.state).skip_to(version);
        self.shared.newest.send_replace(version);
    }

    /// Forgets all history: a watch or a page from before is too old now.
    pub fn expire(&self) {
        lock(&self.shared.state).compact();
    }

    /// Does so right after the next page that has a continue token.
    pub fn expire_next_page(&self) {
        lock(&self.shared.mood).expire_next_page = true;
    }

    /// Sends every open watch that asked for them a bookmark now.
    pub fn bookmark(&self) {
        // An error only says that there is no watch open.
        let _ = self.shared.raw_lines.send(stream::BOOKMARK_NOW.to_owned());
    }

    /// Puts a line into every open watch as it is.
    pub fn send_line(&self, line: &str) {
        let _ = self.shared.raw_lines.send(line.to_owned());
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|count| *count += 1);
    }

    /// Cuts every connection, and each new one at once, or takes them again.
    pub fn close(&self, closed: bool) {
        lock(&self.shared.mood).closed = closed;
        self.cut();
    }

    /// Goes silent: connections stay, new ones are taken, but nothing is read or sent any
    /// more. Speaking again cuts those that were silenced.
    pub fn silence(&self, silent: bool) {
        self.shared.silent.send_replace(silent);
        if !silent {
            self.cut();
        }
    }

    /// Answers every request for a resource with this HTTP status, or as it should.
    pub fn refuse(&self, resource: &Resource, status: Option<u16>) {
        let mut mood = lock(&self.shared.mood);
        match status {
            Some(status) => mood.refused.insert(resource.plural.to_owned(), status),
            None => mood.refused.remove(resource.plural),
        };
    }

    /// Refuses streamed lists, or takes them.
    pub fn refuse_watch_list(&self, refuse: bool) {
        lock(&self.shared.mood).no_watch_list = refuse;
    }

    /// Overlooks that a list should be streamed, or does it.
    pub fn ignore_watch_list(&self, ignore: bool) {
        lock(&self.shared.mood).ignores_watch_list = ignore;
    }

    /// Ends every watch right after its headers, or lets them run.
    pub fn end_watches_at_once(&self, end: bool) {
        lock(&self.shared.mood).watches_end_at_once = end;
    }

    /// Lets in these tokens from now on.
    pub fn accept_tokens(&self, tokens: &[&str]) {
        lock(&self.shared.mood).tokens = tokens.iter().map(|&token| token.to_owned()).collect();
    }

    /// Says of this token, when it is reviewed, that it is this user's, who may get these paths.
    pub fn know_holder(&self, token: &str, user: &str, paths: &[&str]) {
        lock(&self.shared.mood).holders.push(review::Holder {
            token: token.to_owned(),
            user: user.to_owned(),
            paths: paths.iter().map(|&path| path.to_owned()).collect(),
        });
    }

    /// Every request so far, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        lock(&self.shared.requests).iter().cloned().collect()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.listener.abort();
        self.cut();
    }
}

impl Shared {
    fn note(&self, seen: Seen) {
        let mut requests = lock(&self.requests);
        if requests.len() >= MAX_REQUESTS_KEPT {
            requests.pop_front();
        }
        requests.push_back(seen);
    }
}
