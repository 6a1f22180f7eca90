//! What others ask about the agent and about Services on this node, over HTTP.
//!
//! - [`State`]: whether the agent keeps up, as a pure function of what it was told and when.
//! - [`proxy_health`]: `/healthz` and `/livez`, for load balancers and the kubelet.
//! - [`metrics_server`]: `/metrics`, `/metrics/slis`, `/proxyMode`, `/configz` and a plain
//!   `/healthz`.
//! - [`Bind`]: the address of either, tried again until it is free.
//! - [`ServiceChecks`]: the health-check node ports of Services with
//!   `externalTrafficPolicy: Local`.

mod access;
mod bind;
pub mod metrics_server;
pub mod proxy_health;
mod service_checks;
mod state;

pub use access::{Access, TokensError};
pub use bind::{BIND_RETRY_S, Bind, BindError};
pub use service_checks::{ListenFailure, ServiceChecks};
pub use state::{FamilyReport, Moment, Report, SharedState, State};
pub use switchyard_operation::http::{CONNECTION_LIFETIME_S, HEADER_TIMEOUT_S, MAX_CONNECTIONS};
