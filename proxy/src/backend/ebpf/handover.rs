//! Connections that another mode's rules have begun: connection tracking goes on translating them,
//! and programs leave them alone, and their places, until none is left.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use switchyard_datapath::layout::FlowKey;
use switchyard_netlink::conntrack::Conntrack;
use switchyard_netlink::{Family, NetlinkError};

use super::flows::Flows;
use super::kept::{Kept, place_of};

/// How often it is looked whether any is left: a list of all connections each time.
const LOOK: Duration = Duration::from_secs(1);
/// It does not end before: what the kernel is in the middle of may not be listed yet.
const LEAST: Duration = Duration::from_secs(3);

/// Whether programs leave connections alone that they have not seen begin.
#[derive(Debug)]
pub(super) struct Handover {
    is_on: bool,
    since: Instant,
    look_at: Instant,
    /// Connections can't be listed, and that was said.
    is_blind: bool,
    /// Places in FLOWS that no flow may have.
    kept: Kept,
}

impl Handover {
    /// None is known of.
    pub(super) fn none() -> Self {
        Self {
            is_on: false,
            since: Instant::now(),
            look_at: Instant::now(),
            is_blind: false,
            kept: Kept::default(),
        }
    }

    /// Nothing of ours was attached: whatever is under way, others have begun it.
    pub(super) fn begin(&mut self) {
        self.is_on = true;
        self.since = Instant::now();
        self.look_at = self.since;
    }

    /// An earlier run is attached: it may not have come to the end of it. Whether what is translated
    /// is ours is told at the first look.
    pub(super) fn resume(&mut self) {
        if self.look(Look::AtAll).is_some_and(|found| found.any) {
            self.begin();
        }
    }

    /// Forgets connections that are over, and keeps the places of those that are open, before
    /// programs take new ones. `is_ours` tells addresses and TCP ports of Services.
    pub(super) fn make_ready(&mut self, flows: &mut Flows, is_ours: impl Fn(SocketAddr) -> bool) {
        let found = if self.is_on {
            self.look(Look::AtOurs(&is_ours))
        } else {
            Some(Found::default())
        };
        if let Some(found) = found {
            self.keep(flows, &found);
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether it has come to its end just now; looks if it is time to, as [`Self::make_ready`].
    pub(super) fn ends(
        &mut self,
        now: Instant,
        flows: &mut Flows,
        is_ours: impl Fn(SocketAddr) -> bool,
    ) -> bool {
        if !self.is_on || now < self.look_at {
            return false;
        }
        self.look_at = now + LOOK;
        let Some(found) = self.look(Look::AtOurs(&is_ours)) else {
            return false;
        };
        self.keep(flows, &found);
        self.is_on = found.any || now.saturating_duration_since(self.since) < LEAST;
        if !self.is_on {
            tracing::info!("no connection of an earlier proxy mode is left");
        }
        !self.is_on
    }

    fn keep(&mut self, flows: &mut Flows, found: &Found) {
        if let Err(error) = self.kept.become_those(flows, &found.places) {
            tracing::warn!(%error, "some connections of an earlier proxy mode may end");
        }
    }

    /// `None` where it can't be told.
    fn look(&mut self, look: Look<'_>) -> Option<Found> {
        match translated(look) {
            Ok(found) => Some(found),
            Err(error) => {
                if !std::mem::replace(&mut self.is_blind, true) {
                    tracing::warn!(
                        %error,
                        "connections of an earlier proxy mode can't be listed: those that are not \
                         known are left alone until the next start"
                    );
                }
                None
            }
        }
    }
}

/// What is there of connections that connection tracking translates.
#[derive(Debug, Default)]
struct Found {
    /// One is open.
    any: bool,
    /// Those that are open have these places; only where they are looked at for that.
    places: HashSet<FlowKey>,
}

/// Which connections are looked at.
#[derive(Clone, Copy)]
enum Look<'a> {
    /// All that are translated, whoever's they are.
    AtAll,
    /// Those to addresses and ports of Services. Such as are over are forgotten at once: behind a
    /// bridge, the kernel would take answers to a port that programs masquerade with for theirs.
    AtOurs(&'a dyn Fn(SocketAddr) -> bool),
}

/// What connection tracking translates.
fn translated(look: Look<'_>) -> Result<Found, NetlinkError> {
    let mut kernel = Conntrack::open()?;
    let (mut found, mut over) = (Found::default(), Vec::new());
    for family in [Family::V4, Family::V6] {
        kernel.for_each_tcp(family, |connection| {
            if !connection.is_answered_elsewhere() {
                return;
            }
            let is_of_service = match look {
                Look::AtAll => false,
                Look::AtOurs(is_ours) if is_ours(connection.original.destination) => true,
                Look::AtOurs(_) => return,
            };
            if connection.is_over {
                over.extend(is_of_service.then_some(*connection));
            } else if connection.has_destination_nat {
                // Those of IPVS end with it; the kernel goes on only with its own.
                found.any = true;
                found
                    .places
                    .extend(is_of_service.then(|| place_of(connection)));
            }
        })?;
    }
    kernel.delete_connections(&over)?;
    Ok(found)
}
