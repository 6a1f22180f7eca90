//! Why the API server can't be followed, in words for an operator.

use std::error::Error as StdError;

use std::io;

use kube::core::Status;
use kube::runtime::watcher::Error;
use rustls::CertificateError;

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
            reason: match of_tls(other) {
                Some(sentence) => format!("{doing}: {sentence}: {}", whole_chain(other)),
                None => format!("{doing}: {}", whole_chain(other)),
            },
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
    let meaning = match status.code {
        401 => {
            "the API server does not know us: the token or client certificate is wrong, or has expired: "
        }
        403 => "the API server knows us, and we may not: our account lacks the right: ",
        _ => "",
    };
    Failure {
        reason: format!(
            "{doing}: {meaning}the server says {} {}",
            status.code,
            said.join(": ")
        ),
        code: Some(status.code),
        garbled: false,
    }
}

/// What a failure of TLS means for an operator.
fn of_tls(error: &(dyn StdError + 'static)) -> Option<&'static str> {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
        NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    let Some(rustls::Error::InvalidCertificate(wrong)) = tls_error(error) else {
        return of_alert(&whole_chain(error));
    };
    Some(match wrong {
        Expired | ExpiredContext { .. } => {
            "the API server's certificate has expired, or this machine's clock is wrong"
        }
        NotValidYet | NotValidYetContext { .. } => {
            "the API server's certificate is not valid yet, or this machine's clock is wrong"
        }
        // Authorities of all clusters that were made alike have one name.
        UnknownIssuer | BadSignature => {
            "the API server's certificate is of another authority than the one we trust \
             (certificate-authority of the kubeconfig): is it that of another cluster?"
        }
        NotValidForName | NotValidForNameContext { .. } => {
            "the API server's certificate is for other names than the one we asked for"
        }
        _ => "the API server's certificate can't be trusted",
    })
}

/// What the server's last word means. HTTP/2 hands it on as text only.
fn of_alert(words: &str) -> Option<&'static str> {
    let (_, alert) = words.split_once("received fatal alert: ")?;
    let name = alert.split(|letter: char| !letter.is_ascii_alphanumeric());
    Some(match name.into_iter().next()? {
        "CertificateExpired" => "the API server refuses our client certificate: it has expired",
        "UnknownCA" => {
            "the API server refuses our client certificate: it is of an authority that the server \
             does not trust"
        }
        "CertificateRequired" => "the API server wants a client certificate, and we have none",
        "BadCertificate"
        | "CertificateUnknown"
        | "CertificateRevoked"
        | "UnsupportedCertificate"
        | "DecryptError"
        | "AccessDenied" => "the API server refuses our client certificate",
        _ => return None,
    })
}

/// The failure of TLS among the causes, if there is one. I/O errors hold it where `source` does
/// not show it.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls) = error.downcast_ref() {
        return Some(tls);
    }
    let held = error.downcast_ref().and_then(io::Error::get_ref);
    if let Some(held) = held
        && let Some(tls) = tls_error(held)
    {
        return Some(tls);
    }
    tls_error(error.source()?)
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
