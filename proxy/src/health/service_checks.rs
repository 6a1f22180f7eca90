use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde::Serialize;
use switchyard_cluster::object::ObjectName;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::state::{Moment, SharedState};
use crate::listen::{Closer, listen};
use crate::metrics::Metrics;
use crate::plan::HealthCheck;
use switchyard_operation::http::{self, JSON, Reply};

const WEIGHT_HEADER: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// The health-check node ports of Services: each tells load balancers whether this node has
/// endpoints of the Service.
#[derive(Debug)]
pub struct ServiceChecks {
    runtime: Handle,
    addresses: Vec<IpAddr>,
    state: SharedState,
    metrics: Arc<Metrics>,
    open: BTreeMap<ObjectName, Open>,
}

/// One Service's port.
#[derive(Debug)]
struct Open {
    node_port: u16,
    local_endpoints: Arc<AtomicUsize>,
    servers: BTreeMap<IpAddr, Server>,
}

#[derive(Debug)]
enum Server {
    Running {
        task: AbortHandle,
        _closer: Closer,
    },
    /// Could not listen; this was said in the log.
    Failed(String),
}

/// A port that can't be listened on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("health-check node port {address} can't be listened on: {error}")]
pub struct ListenFailure {
    /// Whose it is.
    pub service: ObjectName,
    address: SocketAddr,
    error: String,
}

impl ServiceChecks {
    /// No ports yet. Those to come are listened on by tasks of the runtime.
    #[must_use]
    pub const fn new(runtime: Handle, state: SharedState, metrics: Arc<Metrics>) -> Self {
        Self {
            runtime,
            addresses: Vec::new(),
            state,
            metrics,
            open: BTreeMap::new(),
        }
    }

    /// Makes the open ports those of the Services in `wanted`, with their counts, at each of
    /// these addresses (`0.0.0.0` and `::`, or those of the node that accept node ports). A port
    /// that can't be listened on is logged and returned once, and tried again at each call. May
    /// be called from any thread.
    pub fn reconcile(
        &mut self,
        wanted: &BTreeMap<ObjectName, HealthCheck>,
        addresses: Vec<IpAddr>,
    ) -> Vec<ListenFailure> {
        let mut failures = Vec::new();
        self.addresses = addresses;
        // Close first: a port may pass from one Service to another.
        self.open.retain(|service, open| {
            let keep = wanted
                .get(service)
                .is_some_and(|check| check.node_port == open.node_port);
            if !keep {
                tracing::info!(%service, port = open.node_port, "health-check node port closed");
            }
            keep
        });
        for (service, check) in wanted {
            if !self.open.contains_key(service) {
                let open = Open {
                    node_port: check.node_port,
                    local_endpoints: Arc::default(),
                    servers: BTreeMap::new(),
                };
                self.open.insert(service.clone(), open);
            }
            if let Some(open) = self.open.get_mut(service) {
                open.local_endpoints
                    .store(check.local_endpoints, Ordering::Relaxed);
            }
            self.start_missing(service, &mut failures);
        }
        self.metrics
            .health_check_not_listening
            .set((), self.not_listening().count());
        failures
    }

    /// The Services and addresses that could not be listened on at the last call.
    pub fn not_listening(&self) -> impl Iterator<Item = (&ObjectName, SocketAddr)> {
        self.open.iter().flat_map(|(service, open)| {
            open.servers
                .iter()
                .filter(|(_, server)| matches!(server, Server::Failed(_)))
                .map(move |(address, _)| (service, SocketAddr::new(*address, open.node_port)))
        })
    }

    /// Listens wherever it is to be and does not yet, and nowhere else.
    fn start_missing(&mut self, service: &ObjectName, failures: &mut Vec<ListenFailure>) {
        let Some(open) = self.open.get_mut(service) else {
            return;
        };
        open.servers
            .retain(|address, _| self.addresses.contains(address));
        for ip in &self.addresses {
            let said = match open.servers.get(ip) {
                Some(Server::Running { .. }) => continue,
                Some(Server::Failed(error)) => Some(error),
                None => None,
            };
            let address = SocketAddr::new(*ip, open.node_port);
            let _runtime = self.runtime.enter();
            let server = match listen(address) {
                Ok((listener, closer)) => {
                    tracing::info!(%service, %address, "health-check node port open");
                    let answer = answer(service, &open.local_endpoints, &self.state);
                    let metrics = Arc::clone(&self.metrics);
                    let refused = move || metrics.http_refused.inc(());
                    let task = http::serve(listener, refused, answer);
                    Server::Running {
                        task: self.runtime.spawn(task).abort_handle(),
                        _closer: closer,
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    if said != Some(&error) {
                        tracing::error!(
                            %service, %address, error,
                            "health-check node port can't be listened on; \
                             trying again at each sync"
                        );
                        failures.push(ListenFailure {
                            service: service.clone(),
                            address,
                            error: error.clone(),
                        });
                    }
                    Server::Failed(error)
                }
            };
            open.servers.insert(*ip, server);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Self::Running { task, .. } = self {
            task.abort();
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: ServiceRef<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Serialize)]
struct ServiceRef<'a> {
    namespace: &'a str,
    name: &'a str,
}

/// What a Service's port answers, at any path.
fn answer(
    service: &ObjectName,
    local_endpoints: &Arc<AtomicUsize>,
    state: &SharedState,
) -> impl Fn(&str) -> Reply + Send + Sync + 'static + use<> {
    let (service, count, state) = (service.clone(), Arc::clone(local_endpoints), state.clone());
    move |_path| {
        let local_endpoints = count.load(Ordering::Relaxed);
        let healthy = state.lock().report(Moment::now()).healthy;
        let body = Body {
            service: ServiceRef {
                namespace: &service.namespace,
                name: &service.name,
            },
            local_endpoints,
            service_proxy_healthy: healthy,
        };
        let status = if local_endpoints > 0 && healthy {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        match tab_indented(&body) {
            Ok(body) => {
                let mut reply = Reply::new(status, JSON, body);
                reply
                    .headers
                    .push((WEIGHT_HEADER, HeaderValue::from(local_endpoints)));
                reply
            }
            Err(error) => Reply::failed(&error),
        }
    }
}

fn tab_indented(body: &impl Serialize) -> serde_json::Result<String> {
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    body.serialize(&mut serde_json::Serializer::with_formatter(
        &mut bytes, formatter,
    ))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}
