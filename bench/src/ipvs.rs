//! The proxy's ipvs mode beside the tools that others script: what the agent has written is saved
//! by `ipvsadm` and `ipset`, cleared, and restored by them. Needs a kernel with IPVS.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use switchyard_tests::testbed::{
    IptablesTool, Place, Proxy, ProxyOptions, Testbed, require_root, require_tools, wait_for,
};

use crate::cluster::{Side, Size, change_manifest, write_manifests};

/// Each measures both once.
const ROUNDS: usize = 3;
/// Changes whose mean counts, in each round.
const CHANGES: u32 = 5;
/// A first sync that takes longer has failed. Emulated processors are slow.
const FIRST_SYNC_LIMIT: Duration = Duration::from_secs(240);
/// A change or a cleanup that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// Pause before each change: longer than the agent's between two syncs.
const BEFORE_CHANGE: Duration = Duration::from_millis(1200);

/// Lines of the agent's log.
const LISTS_ARE_IN: &str = "the first lists of the cluster's objects are in";
const SYNCED: &str = "compared all virtual services, sets and rules with the kernel";
const CHANGED: &str = "wrote the changes";
/// Metrics of the agent.
const FULL_SYNCS: &str = "kubeproxy_sync_full_proxy_rules_duration_seconds_sum{ip_family=\"IPv4\"}";
const CHANGES_TOOK: &str =
    "kubeproxy_sync_partial_proxy_rules_duration_seconds_sum{ip_family=\"IPv4\"}";
const CHANGES_MADE: &str =
    "kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}";

/// What one round found; times in seconds.
struct Round {
    /// From the list's arrival until all is in the kernel, of both families.
    first_sync: f64,
    /// The part of it in which IPv4 is read, compared and written.
    kernel_part: f64,
    /// `ipvsadm --restore` and `ipset restore`.
    restore: f64,
    /// `ip -batch` of the addresses, which the agent binds in its first sync too.
    addresses: f64,
    /// One change of an endpoint, mean: from the plan until in the kernel.
    change: f64,
    /// One process of `ipvsadm` that adds a destination.
    one_ipvsadm: f64,
    /// Lines that `ipvsadm` and `ipset` restore.
    lines: usize,
    /// What one change wrote, by the agent's log.
    written: usize,
}

/// A ratio of what a round found.
type Ratio = fn(&Round) -> f64;

/// Measures, in a testbed of this machine (a guest); returns a table of ratios.
///
/// # Errors
/// A tool is missing, the agent did not do its work in time, or what was restored is not what the
/// agent had written.
pub fn measure(size: Size) -> Result<String> {
    require_root()?;
    require_tools(&["ipvsadm", "ipset", "ip"])?;
    let bed = Testbed::build()?;
    let manifests = bed.work_dir().join("manifests");
    write_manifests(&manifests, size, Side::Here)?;
    let mut rounds = Vec::new();
    for number in 1..=ROUNDS {
        let round = round(&bed, &manifests, number).with_context(|| format!("round {number}"))?;
        rounds.push(round);
    }
    markdown(size, &rounds)
}

fn round(bed: &Testbed, manifests: &Path, number: usize) -> Result<Round> {
    let mut options = ProxyOptions::new(bed, manifests, "ipvs")?;
    options.tool = Some(IptablesTool::Nft);
    options.flags = vec!["--ipvs-sync-period=1h".to_owned()];
    options.log = bed.work_dir().join(format!("proxy-{number}.log"));
    let mut proxy = Proxy::spawn(bed, options.clone())?;
    wait_for("the first sync", FIRST_SYNC_LIMIT, POLL, || {
        Ok(proxy.healthz(bed).is_ok_and(|answer| answer.status == 200))
    })
    .with_context(|| proxy.log_tail(20))?;
    let log = proxy.log();
    let first_sync = last_time(&log, SYNCED)? - first_time(&log, LISTS_ARE_IN)?;
    let kernel_part = proxy.metric(bed, FULL_SYNCS)?;
    let saved = Saved::take(bed)?;
    let change = changes(bed, &proxy, manifests)?;
    let written = proxy
        .log()
        .lines()
        .rev()
        .find_map(|line| {
            line.split_once(CHANGED)?
                .1
                .split_once("changes=")?
                .1
                .parse::<usize>()
                .ok()
        })
        .context("the log says nothing of what a change wrote")?;
    ensure!(proxy.terminate()?.success(), "{}", proxy.log_tail(20));
    drop(proxy);
    options.flags = vec!["--cleanup".to_owned()];
    let ended = Proxy::spawn(bed, options)?.wait_exit(LIMIT)?;
    ensure!(ended.success(), "--cleanup ended with {ended}");
    let (restore, addresses) = saved.restore(bed)?;
    let one_ipvsadm = one_ipvsadm(bed)?;
    clear(bed)?;
    Ok(Round {
        first_sync,
        kernel_part,
        restore,
        addresses,
        change,
        one_ipvsadm,
        lines: saved.services.lines().count() + saved.sets.lines().count(),
        written,
    })
}

/// Moves the probed Service's endpoint there and back; the mean time of what follows.
fn changes(bed: &Testbed, proxy: &Proxy, manifests: &Path) -> Result<f64> {
    let mut side = Side::Here;
    let mut took = 0.0;
    for _ in 0..CHANGES {
        std::thread::sleep(BEFORE_CHANGE);
        side = side.other();
        // Not there before the first.
        let made = proxy.metric(bed, CHANGES_MADE).unwrap_or_default();
        let before = proxy.metric(bed, CHANGES_TOOK).unwrap_or_default();
        change_manifest(manifests, side)?;
        wait_for("a change", LIMIT, POLL, || {
            Ok(proxy.metric(bed, CHANGES_MADE).unwrap_or_default() > made)
        })?;
        took += proxy.metric(bed, CHANGES_TOOK)? - before;
    }
    if side != Side::Here {
        std::thread::sleep(BEFORE_CHANGE);
        change_manifest(manifests, Side::Here)?;
        std::thread::sleep(BEFORE_CHANGE);
    }
    Ok(took / f64::from(CHANGES))
}

/// What the agent had written, as the tools save it.
struct Saved {
    services: String,
    sets: String,
    /// Commands for `ip -batch`.
    addresses: String,
}

impl Saved {
    fn take(bed: &Testbed) -> Result<Self> {
        let listed = run(bed, "ip -o -4 address show dev kube-ipvs0", "")?;
        let mut addresses = String::new();
        for line in listed.lines() {
            let mut words = line.split_whitespace().skip_while(|word| *word != "inet");
            let address = words.nth(1).context("a line of `ip` without an address")?;
            writeln!(addresses, "address add {address} dev kube-ipvs0")?;
        }
        Ok(Self {
            services: run(bed, "ipvsadm -Sn", "")?,
            sets: run(bed, "ipset save", "")?,
            addresses,
        })
    }

    /// Restores all; the times of `ipset` with `ipvsadm`, and of `ip`.
    fn restore(&self, bed: &Testbed) -> Result<(f64, f64)> {
        run(bed, "ip link add kube-ipvs0 type dummy", "")?;
        let start = Instant::now();
        run(bed, "ipset restore", &self.sets)?;
        run(bed, "ipvsadm --restore", &self.services)?;
        let restored = start.elapsed().as_secs_f64();
        let start = Instant::now();
        run(bed, "ip -batch -", &self.addresses)?;
        let addresses = start.elapsed().as_secs_f64();
        let (now, before) = (run(bed, "ipvsadm -Sn", "")?, &self.services);
        ensure!(
            sorted(&now) == sorted(before),
            "other services than the agent's"
        );
        let members = |text: &str| text.lines().filter(|line| line.starts_with("add ")).count();
        let now = run(bed, "ipset save", "")?;
        ensure!(
            members(&now) == members(&self.sets),
            "other members than the agent's"
        );
        Ok((restored, addresses))
    }
}

/// Removes what was restored.
fn clear(bed: &Testbed) -> Result<()> {
    for command in ["ipvsadm -C", "ipset destroy", "ip link del kube-ipvs0"] {
        run(bed, command, "")?;
    }
    Ok(())
}

/// The mean time of a process that adds a destination.
fn one_ipvsadm(bed: &Testbed) -> Result<f64> {
    let vip = crate::cluster::probe_address();
    let start = Instant::now();
    for number in 1..=CHANGES {
        run(
            bed,
            &format!("ipvsadm -a -t {vip} -r 192.0.2.{number}:8080 -m"),
            "",
        )?;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(CHANGES))
}

fn run(bed: &Testbed, command: &str, stdin: &str) -> Result<String> {
    let words: Vec<&str> = command.split(' ').collect();
    bed.run(Place::Node1, &words, stdin)?.success(command)
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.sort_unstable();
    lines
}

/// The time of the first line of a log that has these words, in seconds of its day.
fn first_time(log: &str, words: &str) -> Result<f64> {
    let line = log.lines().find(|line| line.contains(words));
    time_of(line.with_context(|| format!("the log lacks {words:?}"))?)
}

fn last_time(log: &str, words: &str) -> Result<f64> {
    let line = log.lines().rev().find(|line| line.contains(words));
    time_of(line.with_context(|| format!("the log lacks {words:?}"))?)
}

/// The time that a line begins with: `2026-01-31T23:59:59.123456Z`.
fn time_of(line: &str) -> Result<f64> {
    let time = line
        .split('Z')
        .next()
        .and_then(|stamp| Some(stamp.split_once('T')?.1));
    let time = time.with_context(|| format!("no time in {line:?}"))?;
    let mut seconds = 0.0;
    for part in time.split(':') {
        seconds = seconds * 60.0 + part.parse::<f64>().with_context(|| line.to_owned())?;
    }
    Ok(seconds)
}

fn markdown(size: Size, rounds: &[Round]) -> Result<String> {
    let last = rounds.last().context("no round")?;
    let median = |of: Ratio| -> f64 {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let rows: [(&str, Ratio); 6] = [
        (
            "first sync, from the list's arrival: to `ipvsadm --restore` and `ipset restore`",
            |round| round.first_sync / round.restore,
        ),
        (
            "the same: to these and `ip -batch` of the addresses",
            |round| round.first_sync / (round.restore + round.addresses),
        ),
        (
            "its part that reads, compares and writes IPv4: to `ipvsadm` and `ipset`",
            |round| round.kernel_part / round.restore,
        ),
        ("the same: to these and `ip -batch`", |round| {
            round.kernel_part / (round.restore + round.addresses)
        }),
        (
            "one endpoint moved, compiled and written: to the first sync",
            |round| round.change / round.first_sync,
        ),
        (
            "the same: to one process of `ipvsadm` that adds a destination",
            |round| round.change / round.one_ipvsadm,
        ),
    ];
    let mut text = format!(
        "{} Services, {} endpoints ({} lines to restore), median of {} rounds and all of them:\n\n\
         | | ratio | rounds |\n|---|---:|---|\n",
        size.services,
        size.endpoints,
        last.lines,
        rounds.len()
    );
    for (name, of) in rows {
        let each: Vec<String> = rounds.iter().map(|round| figure(of(round))).collect();
        writeln!(
            text,
            "| {name} | {} | {} |",
            figure(median(of)),
            each.join(", ")
        )?;
    }
    writeln!(
        text,
        "\nOne endpoint moved is {} netlink changes.",
        last.written
    )?;
    Ok(text)
}

/// Two digits that count.
fn figure(ratio: f64) -> String {
    if ratio < 0.1 {
        format!("{ratio:.4}")
    } else {
        format!("{ratio:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_a_log() {
        let log = "2026-01-31T01:00:00.250000Z  INFO a: one\n2026-01-31T01:00:01.5Z  INFO a: two\n\
                   2026-01-31T01:01:02Z  INFO b: two\n";
        assert!((first_time(log, "one").unwrap() - 3600.25).abs() < 1e-6);
        assert!((first_time(log, "two").unwrap() - 3601.5).abs() < 1e-6);
        assert!((last_time(log, "two").unwrap() - 3662.0).abs() < 1e-6);
        assert!(first_time(log, "three").is_err());
        assert!(time_of("no time").is_err());
    }
}
