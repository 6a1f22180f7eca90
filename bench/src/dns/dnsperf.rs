//! Runs of dnsperf.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cpus::{Cpus, Role};

/// Sockets it sends from: a server with one socket per CPU sees several clients.
const CLIENTS: &str = "8";
/// Queries under way at most, unless paced.
const OUTSTANDING: &str = "100";
/// A reply that takes longer is lost.
const TIMEOUT_S: &str = "2";

/// How fast to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pace {
    /// As fast as dnsperf goes.
    Full,
    /// So many a second.
    Steady(u32),
}

/// What dnsperf counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Count {
    pub(super) sent: u64,
    pub(super) completed: u64,
    pub(super) lost: u64,
    pub(super) per_second: f64,
    pub(super) mean_latency: Duration,
    pub(super) worst_latency: Duration,
    /// Responses by their code.
    pub(super) rcodes: Vec<(String, u64)>,
}

/// Asks a list of queries for so long.
///
/// # Errors
/// dnsperf can't be run, or says something unexpected.
pub(super) fn ask(
    cpus: Cpus,
    server: SocketAddr,
    queries: &Path,
    pace: Pace,
    time: Duration,
) -> Result<Count> {
    let mut command = prepared(server, queries);
    command.arg("-l").arg(time.as_secs().max(1).to_string());
    if let Pace::Steady(per_second) = pace {
        command.arg("-Q").arg(per_second.to_string());
    }
    run(cpus, command)
}

/// Asks each query of a list once.
///
/// # Errors
/// As [`ask`].
pub(super) fn ask_once(cpus: Cpus, server: SocketAddr, queries: &Path) -> Result<Count> {
    let mut command = prepared(server, queries);
    command.args(["-n", "1"]);
    run(cpus, command)
}

fn prepared(server: SocketAddr, queries: &Path) -> Command {
    let mut command = Command::new("dnsperf");
    command
        .arg("-s")
        .arg(server.ip().to_string())
        .arg("-p")
        .arg(server.port().to_string())
        .arg("-d")
        .arg(queries)
        .args(["-f", "inet", "-T", "1", "-W"])
        .args(["-c", CLIENTS, "-q", OUTSTANDING, "-t", TIMEOUT_S]);
    command
}

fn run(cpus: Cpus, mut command: Command) -> Result<Count> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = cpus.spawn(Role::Load, &mut command)?;
    let output = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("dnsperf ended with {}: {errors}{text}", output.status);
    }
    parse(&text).with_context(|| format!("dnsperf says:\n{text}"))
}

/// Reads dnsperf's summary.
fn parse(text: &str) -> Result<Count> {
    let value = |name: &str| -> Result<&str> {
        let line = text.lines().map(str::trim);
        let found = line.filter_map(|line| line.strip_prefix(name)).next_back();
        found.map(str::trim).with_context(|| format!("no `{name}`"))
    };
    let first = |name: &str| -> Result<&str> {
        value(name)?.split_whitespace().next().context("no number")
    };
    let number = |name: &str| -> Result<u64> { Ok(first(name)?.parse()?) };
    let sent = number("Queries sent:")?;
    let completed = number("Queries completed:")?;
    if completed == 0 {
        bail!("no query was answered");
    }
    let latency = value("Average Latency (s):")?;
    let seconds =
        |text: &str| -> Result<Duration> { Ok(Duration::try_from_secs_f64(text.parse()?)?) };
    let worst = latency
        .rsplit_once("max ")
        .context("no worst latency")?
        .1
        .trim_end_matches(')');
    let rcodes = value("Response codes:")?
        .split(", ")
        .filter_map(|part| {
            let mut words = part.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect();
    Ok(Count {
        sent,
        completed,
        lost: number("Queries lost:")?,
        per_second: first("Queries per second:")?.parse()?,
        mean_latency: seconds(first("Average Latency (s):")?)?,
        worst_latency: seconds(worst)?,
        rcodes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = "Statistics:

  Queries sent:         15001
  Queries completed:    15000 (99.99%)
  Queries lost:         1 (0.01%)

  Response codes:       NOERROR 14000 (93.33%), NXDOMAIN 1000 (6.67%)
  Average packet size:  request 53, response 69
  Run time (s):         3.000068
  Queries per second:   4999.886670

  Average Latency (s):  0.000052 (min 0.000015, max 0.004321)
  Latency StdDev (s):   0.000031
";

    #[test]
    fn a_summary_is_read() {
        let count = parse(SUMMARY).unwrap();
        assert_eq!(
            (count.sent, count.completed, count.lost),
            (15_001, 15_000, 1)
        );
        assert!((count.per_second - 4_999.886_67).abs() < 1e-6);
        assert_eq!(count.mean_latency, Duration::from_micros(52));
        assert_eq!(count.worst_latency, Duration::from_micros(4321));
        assert_eq!(
            count.rcodes,
            [
                ("NOERROR".to_owned(), 14_000),
                ("NXDOMAIN".to_owned(), 1000)
            ]
        );
    }

    #[test]
    fn no_answer_at_all_is_an_error() {
        let text = SUMMARY.replace("completed:    15000", "completed:    0");
        assert!(parse(&text).is_err());
    }
}
