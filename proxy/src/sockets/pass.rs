use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use switchyard_netlink::Family;
use switchyard_netlink::sock_diag::{Destroyed, Diag, DiagError, UdpSocket};
use tracing::debug;

use super::namespaces::NamespaceSources;
use super::{GivenEndpoint, Recall};

/// Sockets that one pass looks for.
const SOCKETS_MAX: usize = 1_048_576;
/// How often a namespace's sockets are listed while the kernel does not find all that it
/// lists: of sockets with the same addresses on both ends it destroys one at a time.
const ROUNDS_MAX: u32 = 16;

/// What one pass did.
#[derive(Debug, Default)]
pub struct Pass {
    /// How long it took.
    pub duration: Duration,
    /// Sockets of stale endpoints that the socket programs remember. Some may be closed or
    /// connected elsewhere.
    pub remembered: u64,
    /// Network namespaces that were searched: none if nothing was remembered, and no further
    /// ones once all sockets were found.
    pub namespaces: u64,
    /// Namespaces that could not be entered.
    pub skipped: u64,
    /// Connected UDP sockets looked at.
    pub sockets: u64,
    /// Sockets destroyed, by the endpoint they sent to.
    pub destroyed: BTreeMap<GivenEndpoint, u64>,
    /// What stopped it, or kept it from searching some namespace. It is tried again, unless
    /// the kernel lacks what is needed.
    pub failure: Option<JanitorError>,
}

/// Why stale sockets may be left.
#[derive(Debug, thiserror::Error)]
pub enum JanitorError {
    /// Nothing is known about any socket.
    #[error("cannot read which endpoints sockets were given: {0}")]
    Recall(io::Error),
    /// More than one pass may deal with.
    #[error("more than {SOCKETS_MAX} sockets send to endpoints that are gone")]
    TooMany,
    /// The kernel did not list or destroy.
    #[error("in the network namespace {namespace}: {source}")]
    Diag {
        /// Where it was found.
        namespace: String,
        /// What went wrong.
        source: DiagError,
    },
    /// The thread stays in another network namespace until the next pass.
    #[error("cannot return to the own network namespace: {0}")]
    Return(Errno),
}

impl JanitorError {
    /// The kernel lacks what is needed.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(self, Self::Diag { source, .. } if source.is_permanent())
    }
}

impl Pass {
    /// How many sockets were destroyed.
    #[must_use]
    pub fn destroyed_count(&self) -> u64 {
        self.destroyed.values().sum()
    }
}

/// Destroys every socket whose endpoint is stale, in the agent's `own` namespace and all that
/// `sources` know, and returns to `own`.
pub(super) fn run(
    recall: &mut Recall,
    is_stale: &dyn Fn(GivenEndpoint) -> bool,
    own: &File,
    sources: &NamespaceSources,
) -> Pass {
    let mut search = Search {
        is_stale,
        wanted: HashMap::new(),
        pass: Pass::default(),
    };
    search.recall(recall);
    if search.wanted.is_empty() {
        return search.pass;
    }
    sources.visit(own, |namespace, path| search.clean(namespace, path));
    if let Err(error) = setns(own, CloneFlags::CLONE_NEWNET) {
        search.fail(JanitorError::Return(error));
    }
    search.pass
}

struct Search<'a> {
    is_stale: &'a dyn Fn(GivenEndpoint) -> bool,
    /// By cookie: what is still to be found.
    wanted: HashMap<u64, GivenEndpoint>,
    pass: Pass,
}

impl Search<'_> {
    fn recall(&mut self, recall: &mut Recall) {
        let mut is_too_many = false;
        let result = recall(&mut |cookie, given| {
            if !(self.is_stale)(given) {
                return;
            }
            self.pass.remembered += 1;
            if self.wanted.len() < SOCKETS_MAX {
                self.wanted.insert(cookie, given);
            } else {
                is_too_many = true;
            }
        });
        if let Err(error) = result {
            self.fail(JanitorError::Recall(error));
        } else if is_too_many {
            self.fail(JanitorError::TooMany);
        }
    }

    /// The first failure is kept: further ones tend to have the same cause.
    fn fail(&mut self, error: JanitorError) {
        debug!("{error}");
        self.pass.failure.get_or_insert(error);
    }

    /// One namespace. Breaks when there is nothing left to do in others.
    fn clean(&mut self, namespace: &File, path: &Path) -> ControlFlow<()> {
        if let Err(error) = setns(namespace, CloneFlags::CLONE_NEWNET) {
            debug!(path = %path.display(), "cannot enter the network namespace: {error}");
            self.pass.skipped += 1;
            return ControlFlow::Continue(());
        }
        self.pass.namespaces += 1;
        if let Err(source) = self.destroy_all(path) {
            let is_permanent = source.is_permanent();
            let namespace = path.display().to_string();
            self.fail(JanitorError::Diag { namespace, source });
            if is_permanent {
                return ControlFlow::Break(());
            }
        }
        if self.wanted.is_empty() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    /// In the namespace the thread is in.
    fn destroy_all(&mut self, path: &Path) -> Result<(), DiagError> {
        let mut diag = Diag::open()?;
        for _ in 0..ROUNDS_MAX {
            let found = self.find(&mut diag)?;
            let mut all_found = true;
            for (socket, given) in found {
                // It may serve again by now.
                if !(self.is_stale)(given) {
                    self.wanted.remove(&socket.cookie());
                    continue;
                }
                match diag.destroy(&socket)? {
                    Destroyed::NotFound => all_found = false,
                    Destroyed::Now => {
                        debug!(namespace = %path.display(), %socket, endpoint = %given, "destroyed");
                        *self.pass.destroyed.entry(given).or_default() += 1;
                        self.wanted.remove(&socket.cookie());
                    }
                }
            }
            if all_found {
                break;
            }
        }
        Ok(())
    }

    fn find(&mut self, diag: &mut Diag) -> Result<Vec<(UdpSocket, GivenEndpoint)>, DiagError> {
        let mut found = Vec::new();
        for family in Family::BOTH {
            diag.for_each_connected_udp(family, |socket| {
                self.pass.sockets += 1;
                let given = self.wanted.get(&socket.cookie());
                // One that was connected elsewhere since is not ours.
                if let Some(given) = given
                    && given.address == socket.destination()
                {
                    found.push((socket, *given));
                }
            })?;
        }
        Ok(found)
    }
}
