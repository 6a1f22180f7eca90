//! Removing everything of ours, and nothing else.

use std::collections::HashSet;
use std::sync::Arc;

use switchyard_cluster::object::{IpFamily, IpvsScheduler};
use switchyard_netlink::ipset::{Ipset, IpsetError};
use switchyard_netlink::ipvs::{Change, Ipvs as Kernel, IpvsError, Service};

use super::config::{Config, NodeAddresses, netlink_family};
use super::device::{self, Device};
use super::error::IpvsModeError;
use super::read::{self, Ownership};
use super::rules;
use super::sets::Set;
use crate::addresses::LocalAddresses;
use crate::backend::xtables::{self, Jump, Kept, Table, Tool, ToolError};
use crate::plan::LocalDetector;

/// Removes our virtual services, the device, rules and sets, in both families. Rules that the
/// mode in force keeps stay, and the sets they use. True if there were any.
///
/// # Errors
/// The first one; what can be removed is, all the same.
pub fn cleanup(kept: &Kept) -> Result<bool, IpvsModeError> {
    let mut first_error = None;
    let mut any = false;
    let mut note = |result: Result<bool, IpvsModeError>| match result {
        Ok(there) => any |= there,
        Err(error) => drop(first_error.get_or_insert(error)),
    };
    for family in IpFamily::BOTH {
        note(remove_services(family));
    }
    note(remove_device());
    for family in IpFamily::BOTH {
        note(remove_rules(family, kept));
        note(remove_sets(family));
    }
    first_error.map_or(Ok(any), Err)
}

/// What stays when another mode's rules are removed while this one is in force.
#[must_use]
pub fn kept() -> Kept {
    Kept {
        jumps: rules::jumps(),
        chains: rules::CHAINS.to_vec(),
    }
}

fn remove_services(family: IpFamily) -> Result<bool, IpvsModeError> {
    let mut kernel = match Kernel::open() {
        Ok(kernel) => kernel,
        Err(IpvsError::Absent) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let of_family = |service: &Service| service.key.family() == netlink_family(family);
    let mut services = kernel.services()?;
    services.retain(of_family);
    if services.is_empty() {
        return Ok(false);
    }
    let node = NodeAddresses::of(&LocalAddresses::list()?, device::device_index());
    let config = Config {
        family,
        masquerade_mark: 0,
        masquerade_all: false,
        detector: LocalDetector::NONE,
        node_addresses: Vec::new(),
        node_ports_are_restricted: false,
        held_elsewhere: Arc::new(node.all),
        scheduler: IpvsScheduler::RoundRobin,
        available: Arc::default(),
        excluded: Vec::new(),
    };
    let members = match Ipset::open() {
        Ok(mut ipset) => read::members(&mut ipset, &config)?,
        Err(_) => std::collections::BTreeMap::new(),
    };
    let addresses = match Device::find()? {
        Some(device) => device.addresses(family)?.ours,
        None => std::collections::BTreeSet::new(),
    };
    let ownership = Ownership::of(&members, addresses, HashSet::new());
    let ours = services
        .iter()
        .filter(|service| ownership.includes(&service.key, &config));
    let changes: Vec<Change> = ours
        .map(|service| Change::DeleteService(service.key))
        .collect();
    let failures = kernel.apply(&changes)?;
    let failed = failures.len();
    match failures.into_iter().next() {
        None => Ok(!changes.is_empty()),
        Some(failure) => Err(IpvsModeError::Refused {
            failed,
            of: changes.len(),
            first: failure.error,
        }),
    }
}

fn remove_device() -> Result<bool, IpvsModeError> {
    match Device::find()? {
        None => Ok(false),
        Some(device) => device.delete().map(|()| true),
    }
}

fn remove_rules(family: IpFamily, kept: &Kept) -> Result<bool, IpvsModeError> {
    let tool = match Tool::find(family) {
        Ok(tool) => tool,
        Err(ToolError::Missing(_)) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut any = false;
    for table in Table::ALL {
        any |= xtables::remove(
            &tool,
            table,
            &cleaned_jumps(),
            |name| is_chain_cleaned(table, name),
            kept,
        )?;
    }
    Ok(any)
}

/// The jumps that are removed.
pub(in crate::backend) fn cleaned_jumps() -> Vec<Jump> {
    rules::jumps()
}

/// Whether a chain is removed.
pub(in crate::backend) fn is_chain_cleaned(table: Table, name: &str) -> bool {
    rules::CHAINS.contains(&(table, name))
}

fn remove_sets(family: IpFamily) -> Result<bool, IpvsModeError> {
    let mut ipset = match Ipset::open() {
        Ok(ipset) => ipset,
        Err(IpsetError::NoIpset) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut any = false;
    for set in Set::ALL {
        match ipset.destroy(&set.name(family)) {
            Ok(()) => any = true,
            Err(IpsetError::Missing { .. } | IpsetError::NoIpset) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(any)
}
