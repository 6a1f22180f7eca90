use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;

use futures::future::FutureExt;
use switchyard_cluster::object::Kind;
use switchyard_cluster::source::api::{self, Access};
use switchyard_cluster::source::{DnsNeeds, Selection, SourceError, manifests};
use switchyard_cluster::update::Update;
use tokio::sync::mpsc::Sender;

use super::metrics;

/// Which cluster, how to reach it, and what of it. Two plugins with the same spec share a
/// feed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FeedSpec {
    /// Where the objects come from.
    pub source: FeedSource,
    /// Which of them, and how much of each.
    pub needs: DnsNeeds,
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FeedSource {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// An API server.
    Api(Access),
}

impl FeedSpec {
    /// Says at once what is wrong with a path, kubeconfig, certificate, token, URL or label
    /// selector, without asking the API server anything.
    ///
    /// # Errors
    /// If one of them can't be read or makes no sense.
    pub fn check(&self) -> Result<(), SourceError> {
        match &self.source {
            FeedSource::Manifests(folder) => manifests::validate(&self.manifests(folder)),
            // It is a future by its looks only, and does not wait. If it did, the feed would
            // say later what is wrong.
            FeedSource::Api(access) => api::validate(&self.api(access))
                .now_or_never()
                .unwrap_or(Ok(())),
        }
    }

    /// The kinds that the first lists of are needed.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        let selections = Selection::for_dns(&self.needs);
        selections.iter().map(|selection| selection.kind).collect()
    }

    /// Sends what there is and every change, until nobody listens or something is wrong.
    pub(super) async fn run(&self, sender: Sender<Update>) -> Result<Infallible, SourceError> {
        match &self.source {
            FeedSource::Manifests(folder) => manifests::run(self.manifests(folder), sender).await,
            FeedSource::Api(access) => api::run(self.api(access), sender).await,
        }
    }

    fn manifests(&self, folder: &std::path::Path) -> manifests::Options {
        manifests::Options {
            folder: folder.to_owned(),
            selections: Selection::for_dns(&self.needs),
            keep: self.needs.keep(),
        }
    }

    fn api(&self, access: &Access) -> api::Options {
        api::Options {
            access: access.clone(),
            selections: Selection::for_dns(&self.needs),
            keep: self.needs.keep(),
            first_list: api::FirstList::default(),
            timing: api::Timing::default(),
            observer: metrics::request_observer(),
        }
    }
}

/// In words for the log.
impl fmt::Display for FeedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifests(folder) => write!(f, "manifests in {}", folder.display()),
            Self::Api(access) => write!(f, "API server by {access}"),
        }
    }
}
