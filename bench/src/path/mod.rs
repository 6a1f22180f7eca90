//! What a connection and a request cost on each way to a Service, beside the same way without any.
//!
//! For each number of Services every subject has a testbed of its own with the same cluster in its
//! kernel, and one more has none: the baseline. All stand at the same time, and short slices of
//! each are measured in turn ([`rounds`]), each between two of the baseline. What counts is the
//! ratio, so what disturbs the machine disturbs all.

mod cluster;
mod nft;
mod plot;
mod report;
mod rounds;
mod subjects;
mod ways;
mod workload;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use self::cluster::services;
use self::report::{Programmed, Sized, machine};
use self::rounds::{Effort, Field};
use self::subjects::{Bed, Programs};
use self::workload::Cpu;

pub use self::subjects::Kind;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Numbers of Services, each at least 10.
    pub sizes: Vec<usize>,
    /// Who takes part beside the baseline.
    pub kinds: Vec<Kind>,
    /// Rounds of all subjects, ways and workloads.
    pub rounds: usize,
    /// How long one slice lasts.
    pub slice: Duration,
    /// Only rows (`way: workload`) that have one of these texts in their name; all if there are none.
    pub only: Vec<String>,
    /// Our proxy.
    pub proxy: PathBuf,
    /// The stand-in API server, where it is to feed the cluster in place of manifests.
    pub api_server: Option<PathBuf>,
}

/// The results.
#[derive(Clone, Debug)]
pub struct Results {
    /// Tables, as Markdown.
    pub markdown: String,
    /// The ratios over the number of Services, as SVG.
    pub svg: String,
}

/// Measures everything.
///
/// # Errors
/// A testbed can't be built, or a subject stops answering in the middle. A subject that can't
/// program a cluster in time is left out, and the results say why.
pub fn run(settings: &Settings) -> Result<Results> {
    let cpu = Cpu::choose()?;
    let machine = machine();
    let mut all = Vec::new();
    for &size in &settings.sizes {
        all.push(measure(settings, size, cpu).with_context(|| format!("{size} Services"))?);
        // What there is so far, should a later size fail.
        println!("\n{}", all.last().map(report::size).unwrap_or_default());
    }
    Ok(Results {
        markdown: report::markdown(&machine, settings, &all),
        svg: plot::svg(&all),
    })
}

fn measure(settings: &Settings, size: usize, cpu: Cpu) -> Result<Sized> {
    println!("{size} Services");
    let services = services(size)?;
    let programs = Programs {
        proxy: &settings.proxy,
        api_server: settings.api_server.as_deref(),
    };
    let baseline = Bed::build(Kind::Nothing, &services, &programs, cpu)?;
    let (mut subjects, mut left_out) = (Vec::new(), Vec::new());
    for &kind in &settings.kinds {
        println!("  programming {}", kind.name());
        let built = Bed::build(kind, &services, &programs, cpu)
            .and_then(|bed| rounds::check(&bed, cpu).map(|()| bed));
        match built {
            Ok(bed) => subjects.push(bed),
            Err(error) => {
                println!("  left out: {}: {error:#}", kind.name());
                left_out.push((kind, format!("{error:#}")));
            }
        }
    }
    let field = Field {
        baseline: &baseline,
        subjects: &subjects,
        cpu,
    };
    let effort = Effort {
        rounds: settings.rounds,
        slice: settings.slice,
        only: &settings.only,
    };
    let samples = rounds::run(&field, effort)?;
    let programmed = subjects.iter().map(|bed| Programmed {
        kind: bed.kind,
        programming: bed.programming.clone(),
    });
    Ok(Sized {
        services: size,
        programmed: programmed.collect(),
        samples,
        left_out,
    })
}
