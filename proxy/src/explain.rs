//! `switchyard-proxy explain`: what becomes of a packet, by the plan alone.
//!
//! Reads the cluster as the agent does, plans every Service, and asks the oracle. Neither
//! needs nor touches anything in the kernel, so it can be asked beside a running agent, or
//! on another machine with `--manifests`.

use std::fmt::Write as _;
use std::io::{self, BufRead as _};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use switchyard_cluster::object::{Kind, Protocol};
use switchyard_cluster::source;
use switchyard_cluster::store::Store;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::addresses::LocalAddresses;
use crate::agent::{StartError, check_source, node_context, start_source};
use crate::plan::{NodeContext, Packet, PlanTable, Verdict, verdict};
use crate::settings::Settings;

/// How long the first lists of the cluster's objects may take.
const FIRST_LISTS_LIMIT: Duration = Duration::from_secs(60);

/// Why nothing could be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The cluster can't be read.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The cluster was not read in time.
    #[error("no complete list of the cluster's objects within {} s", FIRST_LISTS_LIMIT.as_secs())]
    TooSlow,
    /// Not a packet.
    #[error(
        "{text:?}: expected FROM[@INTERFACE]>TO:PORT[/PROTOCOL], such as \
             10.244.1.11>10.96.0.1:443/tcp or 192.0.2.9@eth0>[fd00:96::1]:53/udp"
    )]
    BadPacket {
        /// What was given.
        text: String,
    },
    /// Standard input or the node's addresses can't be read.
    #[error("{what}: {message}")]
    Read {
        /// What was read.
        what: &'static str,
        /// What went wrong.
        message: String,
    },
}

/// Prints what becomes of each packet, one line each; of those on standard input where none
/// is given.
///
/// # Errors
/// When the cluster can't be read, or a packet is none.
pub async fn run(settings: &Settings, packets: &[String]) -> Result<(), ExplainError> {
    let (table, node) = plans(settings).await?;
    let local = local_addresses()?;
    if packets.is_empty() {
        for line in io::stdin().lock().lines() {
            let line = line.map_err(|error| read("standard input", &error))?;
            if !line.trim().is_empty() {
                println!("{}", explain(&table, &node, &local, line.trim())?);
            }
        }
    }
    for text in packets {
        println!("{}", explain(&table, &node, &local, text)?);
    }
    Ok(())
}

fn read(what: &'static str, error: &dyn std::error::Error) -> ExplainError {
    ExplainError::Read {
        what,
        message: error.to_string(),
    }
}

fn local_addresses() -> Result<Vec<IpAddr>, ExplainError> {
    let listed = LocalAddresses::list().map_err(|error| read("the node's addresses", &error))?;
    Ok(listed.iter().map(|(address, _)| address).collect())
}

async fn plans(settings: &Settings) -> Result<(PlanTable, NodeContext), ExplainError> {
    let (sender, mut updates) = mpsc::channel(source::UPDATES_CAPACITY);
    check_source(settings).await.map_err(StartError::from)?;
    let source = start_source(settings, sender, None);
    let mut store = Store::new(&Kind::FOR_PROXY);
    let listing = async {
        while !store.synced() {
            let Some(update) = updates.recv().await else {
                break;
            };
            store.apply(update, &mut |_| {});
        }
    };
    let in_time = timeout(FIRST_LISTS_LIMIT, listing).await;
    source.abort();
    in_time.map_err(|_| ExplainError::TooSlow)?;
    let node = node_context(settings, store.node(&settings.node_name).map(Arc::as_ref));
    let mut table = PlanTable::default();
    for service in store.services() {
        table.replan(&store, &service.name, &node);
    }
    Ok((table, node))
}

fn explain(
    table: &PlanTable,
    node: &NodeContext,
    local: &[IpAddr],
    text: &str,
) -> Result<String, ExplainError> {
    let bad = || ExplainError::BadPacket {
        text: text.to_owned(),
    };
    let packet = parse(text).ok_or_else(bad)?;
    let says = say(&verdict(table.plans(), node, local, &packet));
    Ok(format!("{text} {says}"))
}

fn parse(text: &str) -> Option<Packet> {
    let (from, to) = text.split_once('>')?;
    let (source, interface) = match from.split_once('@') {
        Some((source, interface)) => (source, Some(interface.to_owned())),
        None => (from, None),
    };
    let (to, protocol) = to.split_once('/').unwrap_or((to, "tcp"));
    let to = SocketAddr::from_str(to.trim()).ok()?;
    Some(Packet {
        source: source.trim().parse().ok()?,
        in_interface: interface,
        destination: to.ip(),
        port: to.port(),
        protocol: match protocol.trim() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => return None,
        },
    })
}

fn say(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Reject => "is rejected: no endpoints, or no such port".to_owned(),
        Verdict::Drop => {
            "is dropped: no local endpoint, or not within the source ranges".to_owned()
        }
        Verdict::NotOurs => "is none of ours".to_owned(),
        Verdict::To(targets) => {
            let mut text = "goes to one of:".to_owned();
            for (target, masqueraded) in targets {
                let how = if *masqueraded { " (masqueraded)" } else { "" };
                let _ = write!(text, " {}{how}", target.socket());
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read() {
        let packet = parse("192.0.2.9@eth0>[fd00:96::1]:53/udp").unwrap();
        assert_eq!(packet.in_interface.as_deref(), Some("eth0"));
        assert_eq!((packet.port, packet.protocol), (53, Protocol::Udp));
        assert_eq!(
            parse("10.0.0.1>10.96.0.1:80").unwrap().protocol,
            Protocol::Tcp
        );
        for bad in [
            "10.0.0.1",
            "10.0.0.1>10.96.0.1",
            "x>10.96.0.1:80",
            "10.0.0.1>10.96.0.1:80/q",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
