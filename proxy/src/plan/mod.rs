//! Policy: from the cluster and this node to what every Service port does with packets.
//!
//! Nothing here does I/O, reads a clock or knows a backend. `verdict` says what one packet
//! may do; every backend is tested against it.

mod node;
mod service_plan;

pub use node::{LocalDetector, NodeContext, NodePortAddresses};
pub use service_plan::{Frontend, HealthCheck, PlanId, PlannedService, ServicePlan, Target};
