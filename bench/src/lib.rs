//! Measurements, made side by side with the reference where its binary is given.
//!
//! [`proxy::measure`] measures the service proxy: a generated cluster ([`cluster`]) is fed to
//! each subject in network namespaces of its own, and what counts is measured from outside:
//! when new connections reach the new endpoint, and what the kernel says of CPU and memory.
//!
//! [`path::run`] measures what the kernel does with packets on their way to a Service, as the
//! proxy's modes have programmed it, beside the same way without a Service.
//!
//! [`ipvs::measure`] compares the proxy's ipvs mode with `ipvsadm` and `ipset`.
//!
//! [`dns::run`] measures the DNS server over loopback, beside servers of Debian's.

pub mod cluster;
pub mod dns;
pub mod ipvs;
pub mod path;
mod process;
pub mod proxy;
mod report;
pub mod source;
pub mod subject;

pub use report::markdown;
