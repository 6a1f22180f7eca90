//! What stands between kube's client and the line: limits, and a new line when needed.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use kube::client::Body;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tower::{BoxError, Service, ServiceExt};

use super::line::{self, Line};
use super::{Access, Options, RequestDone, RequestObserver, Timing};
use crate::source::SourceError;

/// The API server, as all kinds share it.
pub(super) struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    access: Access,
    timing: Timing,
    observer: Option<RequestObserver>,
    line: Mutex<Numbered>,
}

/// A line, and how many there were before it.
#[derive(Clone)]
struct Numbered {
    line: Line,
    number: u64,
}

impl Server {
    /// Reads what leads to the server; connects to nothing yet.
    pub(super) async fn open(options: &Options) -> Result<Self, SourceError> {
        let Options { access, timing, .. } = options;
        let line = line::open(access, timing).await?;
        let shared = Shared {
            access: access.clone(),
            timing: timing.clone(),
            observer: options.observer.clone(),
            line: Mutex::new(Numbered { line, number: 0 }),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// A client for one kind, and a count of its good answers.
    pub(super) fn client(&self) -> (kube::Client, watch::Receiver<u64>) {
        let (answered, answers) = watch::channel(0);
        let transport = Transport {
            shared: Arc::clone(&self.shared),
            answered: Arc::new(answered),
            next_watch: Arc::default(),
        };
        // No request of ours is made within a default namespace.
        (kube::Client::new(transport, ""), answers)
    }
}

impl Shared {
    fn line(&self) -> Numbered {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.clone()
    }

    /// After a failure of this line: reads kubeconfig, certificates and tokens again, which
    /// may have been replaced, and lets requests from now on make a new connection. What
    /// still flows over the old line goes on.
    async fn renew(&self, failed: u64) {
        if self.line().number != failed {
            return;
        }
        match line::open(&self.access, &self.timing).await {
            Ok(line) => {
                let mut current = self.line.lock().unwrap_or_else(PoisonError::into_inner);
                if current.number == failed {
                    let number = failed + 1;
                    *current = Numbered { line, number };
                }
            }
            Err(error) => tracing::warn!(%error, "keeping the old way to the API server"),
        }
    }
}

/// Carries the requests of one kind.
#[derive(Clone)]
struct Transport {
    shared: Arc<Shared>,
    answered: Arc<watch::Sender<u64>>,
    /// When the next watch may begin.
    next_watch: Arc<Mutex<Option<Instant>>>,
}

impl Transport {
    /// The moment at which a watch may begin, which is then taken.
    fn turn(&self) -> Instant {
        let mut next = self
            .next_watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + self.shared.timing.watch_gap);
        turn
    }

    async fn carry(self, mut request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        ask_for_the_newest(&mut request)?;
        if asks(&request, "watch=true") {
            // The watcher begins a watch again at once when the server ends it: a server
            // that ends every watch at once must not be asked in a tight loop.
            sleep_until(self.turn()).await;
        }
        let Numbered { line, number } = self.shared.line();
        let limit = self.shared.timing.answer;
        let (began, method) = (Instant::now(), request.method().clone());
        let answer = timeout(limit, line.carrier.oneshot(request)).await;
        let answer = answer.unwrap_or_else(|_| {
            let seconds = limit.as_secs_f32();
            Err(format!("no answer within {seconds} s").into())
        });
        if let Some(observer) = &self.shared.observer {
            observer.observe(&RequestDone {
                method: method.as_str(),
                host: &line.host,
                code: answer.as_ref().ok().map(|answer| answer.status().as_u16()),
                took: began.elapsed(),
            });
        }
        match &answer {
            Ok(answer) if answer.status().is_success() => {
                self.answered.send_modify(|count| *count += 1);
            }
            Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                self.shared.renew(number).await;
            }
            Ok(_) => {}
            Err(_) => self.shared.renew(number).await,
        }
        answer
    }
}

/// The watcher lets a streamed list begin with whatever the server has in its cache. After
/// a watch that was too old this can be older than what we know already, where several
/// servers share the work; without a version, the server waits until its cache is new
/// enough, as the reference asks it to.
fn ask_for_the_newest(request: &mut Request<Body>) -> Result<(), BoxError> {
    const ANY: &str = "&resourceVersion=0";
    let uri = request.uri().to_string();
    if asks(request, "sendInitialEvents=true") && uri.ends_with(ANY) {
        *request.uri_mut() = uri.trim_end_matches(ANY).parse()?;
    }
    Ok(())
}

fn asks(request: &Request<Body>, parameter: &str) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair == parameter)
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().carry(request))
    }
}
