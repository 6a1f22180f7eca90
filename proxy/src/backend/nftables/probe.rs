//! Whether the kernel can do what the mode needs: found out by doing it, in a table of its own
//! that no packet gets into.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use switchyard_cluster::object::{IpFamily, Protocol};
use switchyard_netlink::nftables::{Change, NftError, Nftables, TableId};

use super::config::Config;
use super::error::NftablesModeError;
use super::fixed;
use super::form::{AffinitySet, Chain, Element, Key, Rule, ServiceKey, Shared, Statement, Value};
use super::lower;
use crate::plan::LocalDetector;

/// The table, deleted when all is known.
const TABLE: &str = "switchyard-probe";

/// What differs between kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// A chain can be deleted together with the elements that lead to it (Linux 6.2).
    pub(super) releases_at_once: bool,
}

/// That the kernel takes every kind of set and rule of ours, in one family.
///
/// # Errors
/// What it refused.
pub fn probe(family: IpFamily) -> Result<Features, NftablesModeError> {
    let lacking = |cause| NftablesModeError::Lacking {
        release: nix::sys::utsname::uname().map_or_else(
            |_| "unknown".to_owned(),
            |name| name.release().to_string_lossy().into_owned(),
        ),
        cause,
    };
    let mut kernel = Nftables::open().map_err(lacking)?;
    let config = config(family);
    let table = TableId::new(config.netlink_family(), TABLE);
    let result = try_all(&mut kernel, &table, &config);
    let removed = kernel.apply(&table, &[Change::DeleteTable]);
    let features = result.map_err(lacking)?;
    removed?;
    Ok(features)
}

fn config(family: IpFamily) -> Config {
    Config {
        family,
        masquerade_mark: 1,
        masquerade_all: false,
        detector: LocalDetector::InterfacePrefix("probe".to_owned()),
        node_port_addresses: None,
        service_cidrs: Vec::new(),
    }
}

fn try_all(kernel: &mut Nftables, table: &TableId, config: &Config) -> Result<Features, NftError> {
    let family = config.netlink_family();
    let mut changes = vec![
        Change::AddTable { comment: None },
        Change::DeleteTable,
        Change::AddTable { comment: None },
    ];
    let sets = Shared::ALL.map(|shared| Change::AddSet(lower::shared_set(shared, family)));
    changes.extend(sets);
    let affinity = AffinitySet {
        name: Arc::from("affinity"),
        timeout_s: 1,
    };
    changes.push(Change::AddSet(lower::affinity_set(&affinity, family)));
    let mut chains = fixed::chains(config);
    let last = service(&affinity.name, config);
    let element = Element {
        set: Shared::ServiceIps,
        key: Key::Vip(key(config)),
        value: Value::Goto(Arc::clone(&last.name)),
        comment: None,
    };
    let goal = Arc::clone(&last.name);
    chains.push(last);
    changes.extend(
        chains
            .iter()
            .map(|chain| Change::AddChain(lower::chain(chain))),
    );
    for chain in &chains {
        for rule in &chain.rules {
            changes.push(Change::AddRule(lower::rule(&chain.name, rule, family)));
        }
    }
    let name: Arc<str> = Arc::from(Shared::ServiceIps.name());
    let elements = vec![lower::element(&element)];
    changes.push(Change::AddElements {
        set: Arc::clone(&name),
        elements: elements.clone(),
    });
    kernel.apply(table, &changes)?;
    let removal = [
        Change::DeleteElements {
            set: name,
            elements,
        },
        Change::FlushChain(Arc::clone(&goal)),
        Change::DeleteChain(goal),
    ];
    match kernel.apply(table, &removal) {
        Ok(_) => Ok(Features {
            releases_at_once: true,
        }),
        Err(error) if error.code() == Some(nix::libc::EBUSY) => Ok(Features {
            releases_at_once: false,
        }),
        Err(error) => Err(error),
    }
}

/// A chain with every kind of rule that Services have.
fn service(affinity: &Arc<str>, config: &Config) -> Chain {
    let address = key(config).address;
    let rules = vec![
        Rule::new([
            Statement::RememberedIn(Arc::clone(affinity)),
            Statement::Return,
        ]),
        Rule::new([Statement::Source(true, address.into()), Statement::Return]),
        Rule::new([Statement::FromNode, Statement::OneIn(2), Statement::Return]),
        Rule::new([Statement::Remember(Arc::clone(affinity), 1)]),
        Rule::new([
            Statement::Protocol(Protocol::Tcp),
            Statement::TranslateByMap {
                map: Shared::ServiceEndpoints,
                service: key(config),
                count: 2,
            },
        ]),
        Rule::new([Statement::Translate((address, 1).into())]),
    ];
    Chain {
        name: Arc::from("service"),
        rules,
    }
}

fn key(config: &Config) -> ServiceKey {
    let address = match config.family {
        IpFamily::V4 => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpFamily::V6 => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    ServiceKey {
        address,
        protocol: Protocol::Tcp,
        port: 1,
    }
}
