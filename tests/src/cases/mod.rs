//! Case tables: objects in, packets sent, what must come back.
//!
//! The tables are the YAML files of `tests/cases/`, described for their readers in
//! `tests/cases/README.md`. [`load_dir`] reads them, [`CaseRunner`] runs one after the other against
//! one backend on one testbed.

mod backend;
mod differences;
mod expand;
mod expect;
mod format;
mod leftovers;
mod manifests;
mod packets;
mod rules;
mod runner;
mod servers;
mod service;

pub use self::backend::Backend;
pub use self::differences::{Differences, Leeway};
pub use self::expand::expand_service;
pub use self::expect::{Expect, Target};
pub use self::format::{Case, PacketSpec, Step, load_dir, load_file};
pub use self::leftovers::{Emptiness, MAPS_OF_SERVICES, map_entries};
pub use self::manifests::{Manifests, node_objects};
pub use self::rules::{line_matches, per_service_chains, save_rules};
pub use self::runner::{CaseFailure, CaseRunner};
pub use self::servers::serve_endpoints_of;
pub use self::service::{EndpointSpec, IngressSpec, PortSpec, ServiceSpec};
