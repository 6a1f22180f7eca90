//! What is to be done now and then.

use std::time::Instant;

use switchyard_datapath::layout::limits;

use super::flows::Pressure;
use super::tables::Sizes;
use super::{DropReason, Ebpf, Housekeeping, MapLevel, MapName};
use crate::plan::PlanId;

/// From how full on it is said of a map that does not grow any more.
const HIGH_PERCENT: usize = 80;

impl Ebpf {
    /// What is to be done now and then: called after each sync, and about once a second while
    /// there is nothing else to do. Cheap.
    pub fn housekeep(&mut self, now: Instant) -> Housekeeping {
        let mut kept = Housekeeping::default();
        let (Some(live), Some(shared)) = (&mut self.live, &mut self.shared) else {
            return kept;
        };
        #[cfg(kernel_log)]
        live.log.tell();
        live.tables.settle();
        shared.identities.drop_staying();
        if self.attached.has_refused() && self.due.devices.is_due(now) {
            let devices = &self.config.devices;
            if let Err(error) = self.attached.attach_devices(&mut live.loaded, devices) {
                tracing::warn!(%error, "devices without programs stay so for now");
            }
        }
        let has_tcp = |to| live.tables.has_tcp(to);
        if self.handover.ends(now, &mut shared.flows, has_tcp) {
            let (config, cookie) = (&self.config, self.host_cookie);
            if live.write_settings(config, cookie, false).is_err() {
                tracing::debug!("written at the next comparison");
            }
        }
        kept.hands_over = self.handover.is_on();
        let identities = &shared.identities;
        live.events
            .tell(now, |index| identities.name(index).map(PlanId::to_string));
        kept.drops = shared.drops();
        kept.sockets_destroyed = shared.take_destroyed();
        let lost_for_room = lost_for_room(&kept.drops);
        let is_pressed = lost_for_room > self.lost_for_room;
        self.lost_for_room = lost_for_room;
        let is_wanted = is_pressed || self.has_stale_flows || live.tables.has_draining();
        if is_wanted || self.due.flows.is_due(now) {
            let pressure = if is_pressed {
                Pressure::Room
            } else {
                Pressure::None
            };
            match shared.sweep_flows(&self.config.conntrack, self.has_stale_flows, pressure) {
                Ok(swept) => {
                    kept.flows_expired = swept.expired;
                    self.levels.flows = swept.entries;
                    self.has_stale_flows = false;
                    if let Err(error) = live.tables.drain(&swept.vips) {
                        tracing::warn!(%error, "addresses of Services that are gone stay");
                    }
                }
                Err(error) => tracing::warn!(%error, "flows that are over stay for now"),
            }
        }
        if self.due.affinity.is_due(now) {
            match shared.sweep_affinity(&live.programmed) {
                Ok(entries) => self.levels.affinity = entries,
                Err(error) => tracing::warn!(%error, "affinity that is over stays for now"),
            }
            match shared.connected_sockets() {
                Ok(entries) => self.levels.connected = entries,
                Err(error) => tracing::warn!(%error, "connected sockets can't be counted"),
            }
        }
        if self.due.counters.is_due(now) {
            match shared.totals(&live.programmed) {
                Ok((totals, entries)) => {
                    kept.service_ports = Some(totals);
                    self.levels.counters = entries;
                }
                Err(error) => tracing::warn!(%error, "counters can't be read for now"),
            }
        }
        kept.map_entries = self.map_levels();
        self.warn_of_high(&kept.map_entries);
        kept
    }

    fn map_levels(&self) -> Vec<MapLevel> {
        let (Some(live), Some(shared)) = (&self.live, &self.shared) else {
            return Vec::new();
        };
        let (tables, max) = (&live.tables, Sizes::MAX);
        let services = live.programmed.len();
        // What holds for all Services takes slots too, but is none of theirs.
        let slots = tables.slots_taken().saturating_sub(live.settings_slots());
        [
            (MapName::Addresses, tables.address_count(), max.frontends),
            (MapName::Frontends, tables.frontend_count(), max.frontends),
            (MapName::Words, services, max.services),
            (MapName::Slots, room(slots), max.slots),
            (MapName::Ranges, room(tables.range_count()), max.ranges),
            (
                MapName::Devices,
                tables.device_count(),
                limits::DEVICE_ENTRIES_MAX,
            ),
            (MapName::Flows, self.levels.flows, limits::FLOW_ENTRIES_MAX),
            (
                MapName::Affinity,
                self.levels.affinity,
                limits::AFFINITY_ENTRIES_MAX,
            ),
            (
                MapName::Connected,
                self.levels.connected,
                limits::CONNECTED_ENTRIES_MAX,
            ),
            (
                MapName::Counters,
                self.levels.counters,
                limits::COUNTER_ENTRIES_MAX,
            ),
            (
                MapName::Identities,
                shared.identities.len(),
                limits::SERVICES_MAX,
            ),
        ]
        .map(|(map, used, limit)| MapLevel {
            map,
            used,
            limit: room(limit),
        })
        .to_vec()
    }

    /// Says once that a map is nearly full, and again when it was not for a while.
    fn warn_of_high(&mut self, levels: &[MapLevel]) {
        for level in levels {
            let is_high =
                level.used.saturating_mul(100) >= level.limit.saturating_mul(HIGH_PERCENT);
            if !is_high {
                self.said_high.remove(&level.map);
            } else if self.said_high.insert(level.map) {
                tracing::warn!(
                    map = level.map.as_str(),
                    used = level.used,
                    limit = level.limit,
                    "an eBPF map is nearly full"
                );
            }
        }
    }
}

/// Packets that were lost because FLOWS or the ports to masquerade with are used up.
fn lost_for_room(drops: &[(DropReason, u64)]) -> u64 {
    let for_room = [DropReason::FlowTableFull, DropReason::NoMasqueradePort];
    let lost = drops.iter().filter(|(reason, _)| for_room.contains(reason));
    lost.map(|(_, count)| *count).sum()
}

fn room(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
