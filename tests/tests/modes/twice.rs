//! Ports that a client uses twice, for Services with one endpoint: what the former mode has made of
//! the first connection stays apart from what the new one makes of the second.

use std::net::SocketAddr;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use switchyard_tests::testbed::{Answer, Connection, Family, Outcome, Place, Probe, Protocol};

use super::kept::ANSWER;
use super::left::Left;
use super::stage::{Stage, Switch};
use super::{Backends, Mode};

/// So many connections are open over each switch: a Service with two endpoints chooses the one that
/// matters for half of them.
const COUNT: u16 = 20;
/// Not masqueraded, and one endpoint. The others have it as well.
const LOCAL: &str = "192.168.100.11:30007";
const CLUSTER: &str = "192.168.100.11:30006";
const LOAD_BALANCER: &str = "203.0.113.20:80";

/// What the log says when rules take new connections.
const DRAINS: &str = "ebpf mode takes no new connections";

/// An open connection, and who answered first.
struct Open {
    connection: Connection,
    first: Answer,
}

fn probe(port: u16, to: &str) -> Result<Probe> {
    let own = SocketAddr::new(Place::Client.address(Family::IPv4), port);
    let probe = Probe::new(Place::Client, Protocol::Tcp, to.parse()?);
    Ok(probe.source(own).timeout(ANSWER))
}

impl Stage {
    /// Opens a connection from each of the client's ports.
    fn open_from(&self, ports: Range<u16>, to: &str) -> Result<Vec<Open>> {
        ports
            .map(|port| {
                let connection = self.bed.connect(&probe(port, to)?)?;
                match connection.ask(&self.bed, ANSWER)? {
                    Outcome::Answered(first) => Ok(Open { connection, first }),
                    other => anyhow::bail!("port {port} to {to}: {other}"),
                }
            })
            .collect()
    }

    /// Connections that stay open are answered by whom they were.
    fn check_open(&self, open: &[Open]) -> Result<()> {
        for Open { connection, first } in open {
            let now = connection.ask(&self.bed, ANSWER)?;
            let is_kept = matches!(&now, Outcome::Answered(now) if now == first);
            ensure!(is_kept, "{}: {now}, not {first:?}", first.own);
        }
        Ok(())
    }

    /// What flows of ebpf mode have at their endpoints, the kernel gives to no other.
    fn check_places<'a>(&self, open: impl Iterator<Item = &'a Open>) -> Result<()> {
        let tracked = self.node("conntrack -L -p tcp")?;
        for Open { first, .. } in open {
            let (seen, by) = (first.seen, first.by);
            let place = format!(
                "src={} dst={} sport={} dport={}",
                seen.ip(),
                by.ip(),
                seen.port(),
                by.port()
            );
            ensure!(tracked.contains(&place), "{place} is free:\n{tracked}");
        }
        Ok(())
    }

    /// New connections from the same ports are answered, whatever is open.
    fn check_new(&self, ports: Range<u16>, to: &str) -> Result<()> {
        let probes: Vec<Probe> = ports.map(|port| probe(port, to)).collect::<Result<_>>()?;
        for (probe, outcome) in probes.iter().zip(self.bed.probe_all(&probes)?) {
            let is_answered = matches!(outcome, Outcome::Answered(_));
            ensure!(is_answered, "{:?} to {to}: {outcome}", probe.source);
        }
        Ok(())
    }
}

/// From iptables mode to ebpf mode and back.
pub(super) fn go(backends: Backends, switch: Switch) -> Result<()> {
    let mut stage = Stage::new(backends)?;
    stage.begin(Mode::Iptables, switch)?;
    let (plain, hidden) = (ports(41_000), ports(42_000));
    let open = [
        stage.open_from(plain.clone(), LOCAL)?,
        stage.open_from(hidden.clone(), LOAD_BALANCER)?,
    ];
    stage.switch(Mode::Ebpf, switch)?;
    for (ports, to) in [(&plain, CLUSTER), (&plain, LOAD_BALANCER), (&hidden, LOCAL)] {
        stage
            .check_new(ports.clone(), to)
            .context("into ebpf mode")?;
        for open in &open {
            stage.check_open(open).context("into ebpf mode")?;
        }
    }
    drop(open);
    Left::of_all_but(Mode::Ebpf).wait_gone(&stage)?;

    let (plain, hidden) = (ports(43_000), ports(44_000));
    let open = [
        stage.open_from(plain.clone(), LOCAL)?,
        stage.open_from(hidden.clone(), CLUSTER)?,
    ];
    stage.switch(Mode::Iptables, switch)?;
    stage.wait_until_said(DRAINS)?;
    for (ports, to) in [(&plain, CLUSTER), (&plain, LOAD_BALANCER), (&hidden, LOCAL)] {
        stage
            .check_new(ports.clone(), to)
            .context("out of ebpf mode")?;
        for open in &open {
            stage.check_open(open).context("out of ebpf mode")?;
        }
    }
    stage.check_places(open.iter().flatten())?;
    drop(open);
    Left::of_all_but(Mode::Iptables).wait_gone(&stage)
}

fn ports(first: u16) -> Range<u16> {
    first..first + COUNT
}
