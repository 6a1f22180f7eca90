//! Results as tables.

use std::fmt::Write;
use std::fs;
use std::process::Command;
use std::time::Duration;

use super::Settings;
use super::rounds::{Cell, Samples};
use super::subjects::{Kind, Programming};
use super::ways::Way;
use super::workload::Workload;

/// Lines of a reason that stand in the report.
const REASON_LINES: usize = 3;

/// A quantity, and how it is written where it is known.
type Quantity = (&'static str, fn(&Programming) -> Option<String>);

const PROGRAMMING: [Quantity; 5] = [
    ("first sync, from the start", |p| p.from_start.map(time)),
    ("first sync, from the list's arrival", |p| {
        p.from_list.map(time)
    }),
    ("an endpoint change, until new connections follow", |p| {
        p.change.map(time)
    }),
    ("resident memory of the agent", |p| p.rss_kib.map(mebibytes)),
    ("rules and elements", |p| p.entries.map(thousands)),
];

/// What was measured with one number of Services.
pub(super) struct Sized {
    pub(super) services: usize,
    /// The subjects that took part, in their order.
    pub(super) programmed: Vec<Programmed>,
    pub(super) samples: Samples,
    /// Who did not, and why.
    pub(super) left_out: Vec<(Kind, String)>,
}

/// What programming took a subject.
pub(super) struct Programmed {
    pub(super) kind: Kind,
    pub(super) programming: Programming,
}

/// The middle of some values, and the quartiles around it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    low: f64,
    pub(super) median: f64,
    high: f64,
}

impl Spread {
    /// `None` of no values.
    pub(super) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        // Between two values the outer one, so that few values do not look sure.
        let at = |position: usize| sorted.get(position).copied();
        Some(Self {
            low: at(last / 4)?,
            median: at(last.div_ceil(2))?,
            high: at((last * 3).div_ceil(4))?,
        })
    }
}

impl Sized {
    /// The ratio to the baseline.
    pub(super) fn ratio(&self, way: Way, workload: Workload, kind: Kind) -> Option<Spread> {
        let cell = Cell {
            way,
            workload,
            kind,
        };
        Spread::of(self.samples.ratios.get(&cell)?)
    }
}

/// The whole report.
pub(super) fn markdown(machine: &str, settings: &Settings, all: &[Sized]) -> String {
    let mut text = format!(
        "{machine}; {} rounds of slices of {} ms. Ratios of time to the baseline's, medians with \
         quartiles; 1.00 is what the way costs without any proxy.\n",
        settings.rounds,
        settings.slice.as_millis()
    );
    for sized in all {
        text.push('\n');
        text.push_str(&size(sized));
    }
    text
}

/// The tables of one number of Services.
pub(super) fn size(sized: &Sized) -> String {
    let mut text = format!("#### {} Services\n", thousands(sized.services));
    for way in Way::ALL {
        // Writing to a String can't fail.
        let _ = write!(text, "\n| {way} | no proxy |");
        for subject in &sized.programmed {
            let _ = write!(text, " {} |", subject.kind.name());
        }
        let _ = writeln!(
            text,
            "\n|---|---:|{}",
            "---:|".repeat(sized.programmed.len())
        );
        for workload in Workload::ALL {
            row(&mut text, sized, way, workload);
        }
    }
    text.push('\n');
    programming(&mut text, sized);
    for (kind, reason) in &sized.left_out {
        let lines: Vec<&str> = reason.lines().take(REASON_LINES).collect();
        let _ = writeln!(text, "\nLeft out: {}: {}", kind.name(), lines.join(" "));
    }
    if sized.samples.repeated > 0 {
        let repeated = sized.samples.repeated;
        let _ = writeln!(
            text,
            "\nSlices that failed and were measured again: {repeated}."
        );
    }
    text
}

fn row(text: &mut String, sized: &Sized, way: Way, workload: Workload) {
    let baseline = sized.samples.baseline.get(&(way, workload));
    let baseline = baseline.and_then(|seconds| Spread::of(seconds));
    let shown = baseline.map_or_else(|| "–".to_owned(), |spread| micros(spread.median));
    let _ = write!(text, "| {workload} | {shown} |");
    for subject in &sized.programmed {
        let _ = match sized.ratio(way, workload, subject.kind) {
            Some(Spread { low, median, high }) => write!(
                text,
                " **{}** ({}–{}) |",
                factor(median),
                factor(low),
                factor(high)
            ),
            None => write!(text, " – |"),
        };
    }
    text.push('\n');
}

fn programming(text: &mut String, sized: &Sized) {
    let subjects: Vec<&Programmed> = sized
        .programmed
        .iter()
        .filter(|subject| subject.kind != Kind::Nothing)
        .collect();
    if subjects.is_empty() {
        return;
    }
    text.push_str("| programming |");
    for subject in &subjects {
        let _ = write!(text, " {} |", subject.kind.name());
    }
    let _ = writeln!(text, "\n|---|{}", "---:|".repeat(subjects.len()));
    for (name, value) in PROGRAMMING {
        let _ = write!(text, "| {name} |");
        for subject in &subjects {
            let value = value(&subject.programming);
            let _ = write!(text, " {} |", value.as_deref().unwrap_or("–"));
        }
        text.push('\n');
    }
}

fn micros(seconds: f64) -> String {
    format!("{:.1} µs", seconds * 1e6)
}

/// Three digits or so.
pub(super) fn factor(ratio: f64) -> String {
    let digits = match ratio {
        ratio if ratio < 10.0 => 2,
        ratio if ratio < 100.0 => 1,
        _ => 0,
    };
    format!("{ratio:.digits$}")
}

fn time(duration: Duration) -> String {
    let ms = duration.as_secs_f64() * 1e3;
    if ms < 1000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}

fn mebibytes(kib: u64) -> String {
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    format!("{:.1} MiB", f64::from(kib) / 1024.0)
}

/// A number with commas between its thousands.
pub(super) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The date, and what the machine says of itself before anything is measured.
pub(super) fn machine() -> String {
    let date = output("date", &["+%F"]);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(": "))
            .map_or("an unknown CPU", |(_, value)| value.trim())
    };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let cpus = cpuinfo.matches("processor\t").count();
    let tools = [
        output("iptables", &["--version"]),
        output("nft", &["--version"]),
    ];
    format!(
        "{date}, Linux {}, {cpus} CPUs ({}), load average {load} at the start, {}",
        kernel.trim(),
        field("model name"),
        tools.join(", ")
    )
}

/// The first line a program prints; it may not be installed.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let line = text.lines().next();
    line.map_or_else(|| format!("no {program}"), |line| line.trim().to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two subjects with these ratios on each way.
    pub(in super::super) fn sized(services: usize, ratios: &[f64]) -> Sized {
        let mut samples = Samples::default();
        for way in Way::ALL {
            for workload in Workload::ALL {
                samples.baseline.insert((way, workload), vec![20e-6]);
                for kind in [Kind::Nothing, Kind::IptablesNft] {
                    let cell = Cell {
                        way,
                        workload,
                        kind,
                    };
                    samples.ratios.insert(cell, ratios.to_vec());
                }
            }
        }
        let programmed = [Kind::Nothing, Kind::IptablesNft].map(|kind| Programmed {
            kind,
            programming: Programming {
                from_start: Some(Duration::from_millis(1500)),
                entries: Some(47_525),
                ..Programming::default()
            },
        });
        Sized {
            services,
            programmed: programmed.into(),
            samples,
            left_out: vec![(Kind::Ebpf, "no such mode\nmore".to_owned())],
        }
    }

    #[test]
    fn quartiles_of_few_and_of_many() {
        assert_eq!(Spread::of(&[]), None);
        let of = |values: &[f64]| Spread::of(values).map(|s| (s.low, s.median, s.high));
        assert_eq!(of(&[2.0]), Some((2.0, 2.0, 2.0)));
        assert_eq!(of(&[2.0, 1.0, 3.0]), Some((1.0, 2.0, 3.0)));
        assert_eq!(of(&[5.0, 1.0, 3.0, 4.0, 2.0]), Some((2.0, 3.0, 4.0)));
    }

    #[test]
    fn the_table_names_ways_subjects_and_reasons() {
        let text = size(&sized(1000, &[1.5, 2.0, 12.5]));
        assert!(text.starts_with("#### 1,000 Services\n"));
        assert!(text.contains("| no proxy | none, again | iptables-nft |\n|---|---:|---:|---:|\n"));
        assert!(text.contains("| TCP, one connection | 20.0 µs | **2.00** (1.50–12.5) |"));
        assert!(text.contains("| first sync, from the start | 1.50 s |\n"));
        assert!(text.contains("| rules and elements | 47,525 |\n"));
        assert!(text.contains("Left out: ebpf: no such mode more\n"));
    }

    #[test]
    fn numbers_as_people_write_them() {
        assert_eq!(thousands(10), "10");
        assert_eq!(thousands(100_000), "100,000");
        assert_eq!(factor(123.4), "123");
        assert!(machine().contains("Linux"));
    }
}
