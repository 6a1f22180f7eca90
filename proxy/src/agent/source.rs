//! Where the cluster's objects come from.

use std::path::{Path, PathBuf};

use switchyard_cluster::decode::Keep;
use switchyard_cluster::object::Kind;
use switchyard_cluster::source::api::RequestObserver;
use switchyard_cluster::source::{self, SourceError};
use switchyard_cluster::update::Update;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::error::StartError;
use crate::settings::{Settings, Source};

pub(crate) type SourceTask = JoinHandle<SourceError>;

/// Says what is wrong with where the objects are to come from, before anything is touched.
pub(crate) async fn check_source(settings: &Settings) -> Result<(), SourceError> {
    match &settings.source {
        Source::Manifests(folder) => source::manifests::validate(&of_folder(folder)),
        Source::Api { kubeconfig, master } => {
            let options = of_api(settings, kubeconfig.as_ref(), master.as_ref(), None);
            source::api::validate(&options).await
        }
    }
}

/// Starts what tells of the cluster's objects: [`check_source`] has said that it can.
pub(crate) fn start_source(
    settings: &Settings,
    sender: mpsc::Sender<Update>,
    observer: Option<RequestObserver>,
) -> SourceTask {
    match &settings.source {
        Source::Manifests(folder) => {
            let options = of_folder(folder);
            tokio::spawn(async move {
                let Err(error) = source::manifests::run(options, sender).await;
                error
            })
        }
        Source::Api { kubeconfig, master } => {
            let options = of_api(settings, kubeconfig.as_ref(), master.as_ref(), observer);
            tokio::spawn(async move {
                let Err(error) = source::api::run(options, sender).await;
                error
            })
        }
    }
}

pub(super) fn ended_source(ended: Result<SourceError, tokio::task::JoinError>) -> StartError {
    match ended {
        Ok(error) => error.into(),
        Err(error) => StartError::Worker(error.to_string()),
    }
}

/// How the API server is reached; `None` where there is none.
pub(super) fn api_options(
    settings: &Settings,
    observer: Option<RequestObserver>,
) -> Option<source::api::Options> {
    match &settings.source {
        Source::Manifests(_) => None,
        Source::Api { kubeconfig, master } => Some(of_api(
            settings,
            kubeconfig.as_ref(),
            master.as_ref(),
            observer,
        )),
    }
}

fn of_folder(folder: &Path) -> source::manifests::Options {
    source::manifests::Options {
        folder: folder.to_owned(),
        selections: Kind::FOR_PROXY.map(source::Selection::all).to_vec(),
        keep: Keep::FOR_PROXY,
    }
}

fn of_api(
    settings: &Settings,
    kubeconfig: Option<&PathBuf>,
    master: Option<&String>,
    observer: Option<RequestObserver>,
) -> source::api::Options {
    source::api::Options {
        access: source::api::Access {
            kubeconfig: kubeconfig.cloned(),
            master: master.cloned(),
            ..source::api::Access::default()
        },
        selections: source::Selection::for_proxy(&settings.node_name),
        keep: Keep::FOR_PROXY,
        first_list: source::api::FirstList::default(),
        timing: source::api::Timing::default(),
        observer,
    }
}
