use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A request to the API server whose answer has begun, or that has failed.
#[derive(Clone, Copy, Debug)]
pub struct RequestDone<'a> {
    /// `GET`.
    pub method: &'a str,
    /// Host and port of the server.
    pub host: &'a str,
    /// The HTTP status; `None` where there was no answer.
    pub code: Option<u16>,
    /// From the request to the head of the answer.
    pub took: Duration,
}

/// Somebody who counts requests.
#[derive(Clone)]
pub struct RequestObserver(Arc<dyn Fn(&RequestDone<'_>) + Send + Sync>);

impl RequestObserver {
    /// Calls `observe` for each request, on the source's task: it must be quick.
    pub fn new(observe: impl Fn(&RequestDone<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    pub(super) fn observe(&self, request: &RequestDone<'_>) {
        (self.0)(request);
    }
}

impl fmt::Debug for RequestObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestObserver")
    }
}
