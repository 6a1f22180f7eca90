//! Why the API server can't be followed, in words for an operator.

use std::error::Error as StdError;

use kube::core::Status;
use kube::runtime::watcher::Error;

/// What went wrong, as far as it decides what to do next.
pub(super) struct Failure {
    /// In words.
    pub(super) reason: String,
    /// The HTTP status, where the server gave one.
    pub(super) code: Option<u16>,
    /// The server's answer made no sense, so it is unknown what was missed.
    pub(super) garbled: bool,
}

/// Takes an error of the watcher apart.
pub(super) fn failure(error: &Error) -> Failure {
    match error {
        Error::InitialListFailed(error) => of_client("list", error),
        Error::WatchStartFailed(error) | Error::WatchFailed(error) => of_client("watch", error),
        Error::WatchError(status) => of_status("watch", status),
        Error::NoResourceVersion => Failure {
            reason: "the server sent an object without metadata.resourceVersion".to_owned(),
            code: None,
            garbled: true,
        },
    }
}

fn of_client(doing: &str, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => of_status(doing, status),
        kube::Error::SerdeError(error) => Failure {
            reason: format!("{doing}: the server's answer is not what was expected: {error}"),
            code: None,
            garbled: true,
        },
        other => Failure {
            reason: format!("{doing}: {}", whole_chain(other)),
            code: None,
            garbled: matches!(other, kube::Error::FromUtf8(_)),
        },
    }
}

fn of_status(doing: &str, status: &Status) -> Failure {
    let said = [&status.reason, &status.message];
    let said: Vec<&str> = said
        .into_iter()
        .map(String::as_str)
        .filter(|text| !text.is_empty())
        .collect();
    Failure {
        reason: format!(
            "{doing}: the server says {} {}",
            status.code,
            said.join(": ")
        ),
        code: Some(status.code),
        garbled: false,
    }
}

/// An error and what caused it: the outer ones alone say no more than "client error".
pub(super) fn whole_chain(error: &(dyn StdError + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words = format!("{words}: {text}");
        }
        cause = error.source();
    }
    words
}
