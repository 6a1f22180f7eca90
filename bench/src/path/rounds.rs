//! Short slices of each subject in turn, so that the machine's noise meets all alike.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use super::subjects::{Bed, Kind};
use super::ways::Way;
use super::workload::{Client, Cpu, Sources, Workload};

/// A slice that fails is tried so often in all: a datagram may be lost.
const TRIES: usize = 3;

/// A slice that only sees whether there is an answer.
const CHECK: Duration = Duration::from_millis(5);

/// What is measured, of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cell {
    pub(super) way: Way,
    pub(super) workload: Workload,
    pub(super) kind: Kind,
}

/// What was measured with one number of Services.
#[derive(Default)]
pub(super) struct Samples {
    /// A slice's time a request over that of the baseline's slices before and after it.
    pub(super) ratios: BTreeMap<Cell, Vec<f64>>,
    /// Seconds a request took the baseline.
    pub(super) baseline: BTreeMap<(Way, Workload), Vec<f64>>,
    /// Slices that were tried again.
    pub(super) repeated: usize,
}

/// How much is measured.
#[derive(Clone, Copy)]
pub(super) struct Effort<'a> {
    pub(super) rounds: usize,
    pub(super) slice: Duration,
    /// Only rows (`way: workload`) that have one of these texts in their name; all if there are none.
    pub(super) only: &'a [String],
}

/// The testbeds that take part.
pub(super) struct Field<'a> {
    pub(super) baseline: &'a Bed,
    pub(super) subjects: &'a [Bed],
    pub(super) cpu: Cpu,
}

/// Goes round so many times.
///
/// # Errors
/// A way on which a subject does not answer, even when asked again.
pub(super) fn run(field: &Field<'_>, effort: Effort<'_>) -> Result<Samples> {
    let mut samples = Samples::default();
    let sources = Sources::default();
    for round in 0..effort.rounds {
        println!("  round {} of {}", round + 1, effort.rounds);
        for (way, workload) in pairs().filter(|pair| is_wanted(*pair, effort.only)) {
            let client = Client {
                workload,
                from: way.client(),
                to: way.endpoint(),
                sources: sources.clone(),
                cpu: field.cpu,
            };
            let mut turn = Turn {
                client,
                time: effort.slice,
                repeated: &mut samples.repeated,
            };
            let mut before = turn.slice(field.baseline, way)?;
            let baseline = samples.baseline.entry((way, workload)).or_default();
            baseline.push(before);
            for bed in rotated(field.subjects, round) {
                let seconds = turn.slice(bed, way)?;
                let after = turn.slice(field.baseline, way)?;
                baseline.push(after);
                let kind = bed.kind;
                let cell = Cell {
                    way,
                    workload,
                    kind,
                };
                let ratio = seconds / f64::midpoint(before, after);
                samples.ratios.entry(cell).or_default().push(ratio);
                before = after;
            }
        }
    }
    Ok(samples)
}

/// Goes each way once, shortly.
///
/// # Errors
/// The first way on which there is no answer.
pub(super) fn check(bed: &Bed, cpu: Cpu) -> Result<()> {
    let (sources, mut repeated) = (Sources::default(), 0);
    for (way, workload) in pairs() {
        let client = Client {
            workload,
            from: way.client(),
            to: way.endpoint(),
            sources: sources.clone(),
            cpu,
        };
        let mut turn = Turn {
            client,
            time: CHECK,
            repeated: &mut repeated,
        };
        turn.slice(bed, way)?;
    }
    Ok(())
}

fn pairs() -> impl Iterator<Item = (Way, Workload)> {
    Way::ALL
        .into_iter()
        .flat_map(|way| Workload::ALL.map(|workload| (way, workload)))
}

fn is_wanted((way, workload): (Way, Workload), only: &[String]) -> bool {
    let row = format!("{way}: {workload}");
    only.is_empty() || only.iter().any(|text| row.contains(text.as_str()))
}

/// All beds, each round another one first.
fn rotated(beds: &[Bed], round: usize) -> impl Iterator<Item = &Bed> {
    let first = round.checked_rem(beds.len()).unwrap_or(0);
    let (end, start) = beds.split_at(first);
    start.iter().chain(end)
}

struct Turn<'a> {
    client: Client,
    time: Duration,
    repeated: &'a mut usize,
}

impl Turn<'_> {
    /// Seconds a request takes there.
    fn slice(&mut self, bed: &Bed, way: Way) -> Result<f64> {
        self.client.to = match bed.kind {
            Kind::Nothing => way.endpoint(),
            _ => way.target(),
        };
        let mut tries = 1;
        loop {
            match bed.ask(&self.client, self.time) {
                Ok(slice) => return Ok(slice.seconds()),
                Err(error) if tries == TRIES => {
                    return Err(error).with_context(|| format!("{}, {way}", bed.kind.name()));
                }
                Err(error) => {
                    println!("  once more: {}, {way}: {error:#}", bed.kind.name());
                    *self.repeated += 1;
                    tries += 1;
                }
            }
        }
    }
}
