//! Connections that another mode's rules have begun: connection tracking goes on translating them,
//! and programs leave them alone until none is left.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use switchyard_netlink::conntrack::Conntrack;
use switchyard_netlink::{Family, NetlinkError};

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
}

impl Handover {
    /// None is known of.
    pub(super) fn none() -> Self {
        Self {
            is_on: false,
            since: Instant::now(),
            look_at: Instant::now(),
            is_blind: false,
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
        if self.any_left(Look::AtAll) {
            self.begin();
        }
    }

    /// Forgets connections that are over, before programs take new ones.
    pub(super) fn forget_closed(&mut self, is_ours: impl Fn(SocketAddr) -> bool) {
        if self.is_on {
            self.any_left(Look::AtOurs(&is_ours));
        }
    }

    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether it has come to its end just now; looks if it is time to. `is_ours` tells addresses
    /// and TCP ports of Services.
    pub(super) fn ends(&mut self, now: Instant, is_ours: impl Fn(SocketAddr) -> bool) -> bool {
        if !self.is_on || now < self.look_at {
            return false;
        }
        self.look_at = now + LOOK;
        let any_left = self.any_left(Look::AtOurs(&is_ours));
        self.is_on = any_left || now.saturating_duration_since(self.since) < LEAST;
        if !self.is_on {
            tracing::info!("no connection of an earlier proxy mode is left");
        }
        !self.is_on
    }

    /// Where it can't be told, it stays as it is.
    fn any_left(&mut self, look: Look<'_>) -> bool {
        match translated(look) {
            Ok(any) => any,
            Err(error) => {
                if !std::mem::replace(&mut self.is_blind, true) {
                    tracing::warn!(
                        %error,
                        "connections of an earlier proxy mode can't be listed: those that are not \
                         known are left alone until the next start"
                    );
                }
                self.is_on
            }
        }
    }
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

/// Whether connection tracking translates an open connection.
fn translated(look: Look<'_>) -> Result<bool, NetlinkError> {
    let mut kernel = Conntrack::open()?;
    let (mut any, mut over) = (false, Vec::new());
    for family in [Family::V4, Family::V6] {
        kernel.for_each_tcp(family, |connection| {
            if !connection.is_answered_elsewhere {
                return;
            }
            let forgets = match look {
                Look::AtAll => false,
                Look::AtOurs(is_ours) if is_ours(connection.original.destination) => true,
                Look::AtOurs(_) => return,
            };
            // Those of IPVS end with it; the kernel goes on only with its own.
            any |= connection.has_destination_nat && !connection.is_over;
            if forgets && connection.is_over {
                over.push(*connection);
            }
        })?;
    }
    kernel.delete_connections(&over)?;
    Ok(any)
}
