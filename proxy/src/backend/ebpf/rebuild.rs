//! A new set of maps and programs in the place of the one that is there.

use super::flows::Pressure;
use super::identities::Identities;
use super::live::{Live, Step, StepError, fit, need_of, services_after};
use super::shared::Shared;
use super::tables::Sizes;
use super::{Ebpf, EbpfError};
use crate::backend::Refusal;

impl Ebpf {
    /// Loads a new set, fills it, and puts it in the place of the one that is there.
    pub(super) fn rebuild(&mut self, mut steps: Vec<Step>) -> Result<(), EbpfError> {
        steps.retain(|step| step.new.is_some());
        let (steps, left) = fit(steps, &Sizes::MAX);
        for id in left {
            let message = format!(
                "no room: the maps of ebpf mode hold {:?} at most",
                Sizes::MAX
            );
            self.refused.insert(id, Refusal { message });
        }
        let needs = |identities: Option<&Identities>| {
            let compiled = steps.iter().filter_map(|step| step.new.as_ref());
            Sizes {
                services: services_after(&steps, identities),
                ..need_of(compiled.map(|(_, compiled)| compiled))
            }
        };
        let needed = needs(self.shared.as_ref().map(|shared| &shared.identities));
        let mut live = match self.spare.take() {
            Some(spare) if spare.tables.sizes().hold(&needed) => spare,
            _ => Live::load(&self.pins, needed, &self.features, self.config.forwarding)?,
        };
        let shared = match &mut self.shared {
            Some(shared) => shared,
            none => none.insert(Shared::of(&mut live.loaded)?),
        };
        shared.carry_over(self.former.as_ref())?;
        // Indexes of an earlier run may be higher than there are Services.
        let needed = needs(Some(&shared.identities));
        if !live.tables.sizes().hold(&needed) {
            live = Live::load(&self.pins, needed, &self.features, self.config.forwarding)?;
        }
        if self.is_first {
            self.handover.begin();
        } else if self.live.is_none() {
            self.handover.resume();
        }
        let filled = live
            .write_settings(&self.config, self.host_cookie, self.handover.is_on())
            .and_then(|()| live.make(steps, &mut shared.identities));
        match filled {
            // Connections go on also where their Service went while no agent ran.
            Ok(()) => {
                let swept = shared.sweep_flows(&self.config.conntrack, false, Pressure::None)?;
                live.tables.drain(&swept.vips)?;
            }
            Err(StepError::Failed(error)) => return Err(error),
            Err(StepError::NoRoom) => {
                return Err(EbpfError::Full {
                    what: "slots in one piece",
                    needed: needed.slots.into(),
                    limit: live.tables.sizes().slots.into(),
                });
            }
        }
        self.put_in_place(live)
    }

    /// Has the programs of a set take the place of those that are attached.
    fn put_in_place(&mut self, mut live: Live) -> Result<(), EbpfError> {
        // A flow that begins needs the programs of all its devices.
        live.rest(self.is_first);
        // From here on some programs may be of the new set, and others of the one before.
        self.is_torn = true;
        self.attached
            .attach(&mut live.loaded, &self.config.devices)?;
        self.make_ready(&live);
        live.rest(false);
        self.is_first = false;
        // What began while those that are over were forgotten.
        self.make_ready(&live);
        if let Some(shared) = &mut self.shared {
            // What began while the old programs were still there.
            shared.carry_over(self.former.as_ref())?;
            self.has_stale_flows |= shared.follow_all(&live.programmed);
        }
        self.live = Some(live);
        self.is_torn = false;
        self.due.affinity.hasten();
        self.due.counters.hasten();
        Ok(())
    }

    /// What earlier rules have begun is prepared for.
    fn make_ready(&mut self, live: &Live) {
        if let Some(shared) = &mut self.shared {
            let has_tcp = |to| live.tables.has_tcp(to);
            self.handover.make_ready(&mut shared.flows, has_tcp);
        }
    }
}
