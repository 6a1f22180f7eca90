use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request};

/// The file is read again when a token is wanted and the last look was this long ago:
/// service account tokens are replaced every few minutes to hours, long before they end.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A file with a bearer token, possibly with white space around it.
pub(super) struct TokenFile {
    path: PathBuf,
    last: Mutex<(HeaderValue, Instant)>,
}

impl TokenFile {
    /// Reads it for the first time.
    pub(super) fn open(path: PathBuf) -> Result<Self, String> {
        let header = read(&path)?;
        Ok(Self {
            path,
            last: Mutex::new((header, Instant::now())),
        })
    }

    /// Adds the token to a request. A file that is gone or makes no sense now leaves the
    /// last token in use: the server says whether it is still good.
    pub(super) fn sign<B>(&self, mut request: Request<B>) -> Request<B> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.1.elapsed() >= LOOK_EVERY {
            last.1 = Instant::now();
            match read(&self.path) {
                Ok(header) => last.0 = header,
                Err(error) => tracing::warn!(error, "keeping the token read before"),
            }
        }
        request.headers_mut().insert(AUTHORIZATION, last.0.clone());
        request
    }
}

fn read(path: &PathBuf) -> Result<HeaderValue, String> {
    let place = format!("token file {}", path.display());
    let text = fs::read_to_string(path).map_err(|error| format!("{place}: {error}"))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(format!("{place} is empty: expected a bearer token"));
    }
    let header = HeaderValue::try_from(format!("Bearer {token}"));
    let mut header = header.map_err(|_| format!("{place}: expected one bearer token in ASCII"))?;
    header.set_sensitive(true);
    Ok(header)
}
