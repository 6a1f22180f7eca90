use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use socket2::{Domain, Protocol, Socket, Type};
use switchyard_operation::http::{Reply, serve};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::page::{Page, Readiness};
use crate::metrics::count::HTTP_REFUSED;

/// Connections that the kernel keeps for us until they are accepted.
const ACCEPT_BACKLOG: i32 = 64;

/// An address that an endpoint can't have.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on tcp {address} for {pages}: {source}")]
pub struct EndpointError {
    /// Which.
    pub address: SocketAddr,
    /// What for: `/health`.
    pub pages: String,
    /// The system's reason.
    pub source: io::Error,
}

/// All HTTP endpoints. A new configuration keeps those whose address it has in common with
/// the old one, connections included.
#[derive(Debug, Default)]
pub struct Endpoints {
    open: HashMap<SocketAddr, Endpoint>,
}

/// Endpoints about to be opened: see [`Endpoints::prepare`].
#[derive(Debug)]
pub struct Prepared {
    pages: HashMap<SocketAddr, BTreeSet<Page>>,
    new: HashMap<SocketAddr, TcpListener>,
}

#[derive(Debug)]
struct Endpoint {
    shown: Arc<ArcSwap<Shown>>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shown {
    pages: BTreeSet<Page>,
    readiness: Arc<Readiness>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Endpoints {
    /// Takes the addresses that are not open yet; nothing changes before
    /// [`Endpoints::apply`]. Must be called within the runtime.
    ///
    /// # Errors
    /// Names the address that can't be had.
    pub fn prepare(
        &self,
        pages: impl IntoIterator<Item = (SocketAddr, Page)>,
    ) -> Result<Prepared, EndpointError> {
        let mut by_address = HashMap::<SocketAddr, BTreeSet<Page>>::new();
        for (address, page) in pages {
            by_address.entry(address).or_default().insert(page);
        }
        let mut new = HashMap::new();
        for (address, pages) in &by_address {
            if !self.open.contains_key(address) {
                let listener = listen(*address).map_err(|source| EndpointError {
                    address: *address,
                    pages: paths(pages),
                    source,
                })?;
                new.insert(*address, listener);
            }
        }
        Ok(Prepared {
            pages: by_address,
            new,
        })
    }

    /// Serves just what was prepared.
    pub fn apply(&mut self, prepared: Prepared, readiness: &Arc<Readiness>) {
        let Prepared { mut pages, new } = prepared;
        self.open.retain(|address, _| pages.contains_key(address));
        let shown = |pages| Shown {
            pages,
            readiness: Arc::clone(readiness),
        };
        for (address, endpoint) in &self.open {
            let pages = pages.remove(address).unwrap_or_default();
            endpoint.shown.store(Arc::new(shown(pages)));
        }
        for (address, listener) in new {
            let pages = pages.remove(&address).unwrap_or_default();
            let shown = Arc::new(ArcSwap::from_pointee(shown(pages)));
            let answering = Arc::clone(&shown);
            let answer = move |path: &str| answering.load().answer(path);
            let serving = tokio::spawn(serve(listener, || HTTP_REFUSED.inc(), answer));
            self.open.insert(address, Endpoint { shown, serving });
        }
    }
}

impl Shown {
    fn answer(&self, path: &str) -> Reply {
        let page = self.pages.iter().find(|page| page.path() == path);
        page.map_or_else(Reply::not_found, |page| page.answer(&self.readiness))
    }
}

fn paths(pages: &BTreeSet<Page>) -> String {
    let paths: Vec<_> = pages.iter().map(|page| page.path()).collect();
    paths.join(", ")
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let kind = Type::STREAM.cloexec().nonblocking();
    let socket = Socket::new(domain, kind, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("somebody listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("received");
        reply
    }

    fn free() -> SocketAddr {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.local_addr().expect("it is bound")
    }

    #[tokio::test]
    async fn an_address_may_have_several_pages_and_changes_them_in_place() {
        let (address, readiness) = (free(), Arc::new(Readiness::default()));
        readiness.serve();
        let mut endpoints = Endpoints::default();
        let pages = [(address, Page::Health), (address, Page::Metrics)];
        let prepared = endpoints.prepare(pages).expect("a free port");
        endpoints.apply(prepared, &readiness);
        assert!(get(address, "/health").await.starts_with("HTTP/1.1 200 OK"));
        let metrics = get(address, "/metrics").await;
        assert!(metrics.contains("\ncoredns_build_info{"), "{metrics}");
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 404"));

        let prepared = endpoints
            .prepare([(address, Page::Ready)])
            .expect("our own");
        endpoints.apply(prepared, &readiness);
        assert!(get(address, "/ready").await.ends_with("\r\n\r\nOK"));
        assert!(get(address, "/health").await.starts_with("HTTP/1.1 404"));

        let prepared = endpoints.prepare([]).expect("nothing");
        endpoints.apply(prepared, &readiness);
        tokio::task::yield_now().await;
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn an_address_that_is_taken_changes_nothing_and_is_named() {
        let held = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let taken = held.local_addr().expect("it is bound");
        let (address, readiness) = (free(), Arc::new(Readiness::default()));
        let mut endpoints = Endpoints::default();
        let prepared = endpoints.prepare([(address, Page::Health)]).expect("free");
        endpoints.apply(prepared, &readiness);
        let error = endpoints
            .prepare([(taken, Page::Ready)])
            .expect_err("taken");
        let expected = format!("cannot listen on tcp {taken} for /ready: ");
        assert!(error.to_string().starts_with(&expected), "{error}");
        assert!(get(address, "/health").await.starts_with("HTTP/1.1 200"));
    }
}
