use std::net::IpAddr;

use super::ObjectName;

/// A Pod, as far as a DNS server looks at it: which addresses belong to whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `status.podIPs` (or `status.podIP`), one an IP family. Empty where the pod has none
    /// yet, where it is being deleted (`metadata.deletionTimestamp`), and where it has ended
    /// (`status.phase` Succeeded, Failed or Unknown): its addresses may be others' by now.
    pub ips: Box<[IpAddr]>,
    /// `spec.hostNetwork`: the addresses are its node's, so other pods have them, too.
    pub host_network: bool,
}

/// A Namespace: only that it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// The name (cluster-wide, so the object's own namespace is empty).
    pub name: ObjectName,
}
