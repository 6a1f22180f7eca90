//! `/health`, `/ready` and `/metrics`: small answers that are ready at once.

mod address;
mod endpoints;
mod page;
mod self_check;

pub use address::listen_address;
pub use endpoints::{EndpointError, Endpoints, Prepared};
pub use page::{Page, Readiness};
pub use self_check::SelfCheck;
pub(crate) use self_check::register as register_self_check;
