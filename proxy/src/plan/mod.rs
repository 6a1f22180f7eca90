//! Policy: from the cluster and this node to what every Service port does with packets.
//!
//! Nothing here does I/O, reads a clock or knows a backend. [`verdict`] says what one packet
//! may do; every backend is tested against it.
//!
//! - [`plan_service`] turns one Service and its slices into a [`PlannedService`].
//! - [`PlanTable`] holds the plans of all Services, settles who owns an address that two of
//!   them claim, and says which plans an update changed.

mod endpoints;
#[cfg(test)]
pub(crate) mod generated;
mod node;
mod service;
mod service_plan;
mod table;
mod verdict;

pub use node::{LocalDetector, NodeContext, NodePortAddresses};
pub use service::plan_service;
pub use service_plan::{
    Frontend, HealthCheck, PlanId, PlannedService, ServicePlan, Target, is_api_server,
};
pub use table::{Conflict, PlanChange, PlanTable};
pub use verdict::{Packet, Verdict, verdict};
