//! What the kernel says of our own process, for the `process_…` metrics that every client
//! library of Prometheus has. (The `prometheus` crate's own count CPU time in whole seconds
//! and leave some out.)

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::unistd::{SysconfVar, sysconf};

/// One reading; a field is `None` where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// User and system time, without children.
    pub cpu: Option<Duration>,
    /// When the process started.
    pub started: Option<SystemTime>,
    /// Resident memory.
    pub resident_bytes: Option<u64>,
    /// Address space.
    pub virtual_bytes: Option<u64>,
    /// `u64::MAX` where there is no limit.
    pub max_virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<usize>,
    /// Limit of file descriptors; `u64::MAX` where there is none.
    pub max_fds: Option<u64>,
    /// Received and sent in the process's network namespace.
    pub network_bytes: Option<(u64, u64)>,
}

impl Reading {
    /// Reads what is to be read now.
    #[must_use]
    pub fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ticks_per_s = sysconf(SysconfVar::CLK_TCK).ok().flatten();
        let tick = ticks_per_s
            .and_then(|ticks| u32::try_from(ticks).ok())
            .and_then(|ticks| Duration::from_secs(1).checked_div(ticks))
            .unwrap_or_default();
        let (stat, limits) = (read("/proc/self/stat"), read("/proc/self/limits"));
        let status = read("/proc/self/status");
        Self {
            cpu: stat_ticks(&stat, &[14, 15]).and_then(|ticks| times(tick, ticks)),
            started: stat_ticks(&stat, &[22]).and_then(|ticks| {
                let booted = UNIX_EPOCH + Duration::from_secs(boot_time_s(&read("/proc/stat"))?);
                booted.checked_add(times(tick, ticks)?)
            }),
            resident_bytes: status_bytes(&status, "VmRSS:"),
            virtual_bytes: status_bytes(&status, "VmSize:"),
            max_virtual_bytes: limit(&limits, "Max address space"),
            open_fds: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            max_fds: limit(&limits, "Max open files"),
            network_bytes: octets(&read("/proc/self/net/netstat")),
        }
    }
}

fn times(tick: Duration, ticks: u64) -> Option<Duration> {
    tick.checked_mul(u32::try_from(ticks).ok()?)
}

/// The sum of fields of `/proc/self/stat`, counted from 1. The second one, the name, may
/// hold anything between its parentheses.
fn stat_ticks(stat: &str, fields: &[usize]) -> Option<u64> {
    let (_, numbers) = stat.rsplit_once(')')?;
    let field = |at: usize| numbers.split_whitespace().nth(at - 3)?.parse::<u64>().ok();
    fields.iter().map(|&at| field(at)).sum()
}

fn boot_time_s(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    line.trim().parse().ok()
}

/// `/proc/self/status` counts memory in kB, which are KiB.
fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = rest.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The soft limit of this name.
fn limit(limits: &str, name: &str) -> Option<u64> {
    let rest = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The file has pairs of lines, one of names and one of values, each begun by a group's name.
fn octets(netstat: &str) -> Option<(u64, u64)> {
    let mut lines = netstat.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        if !names.starts_with("IpExt:") {
            continue;
        }
        let field = |wanted: &str| {
            let at = names.split_whitespace().position(|name| name == wanted)?;
            values.split_whitespace().nth(at)?.parse().ok()
        };
        return Some((field("InOctets")?, field("OutOctets")?));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_found_by_name() {
        let text = "TcpExt: A B\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\n\
                    IpExt: 7 81 92\n";
        assert_eq!(octets(text), Some((81, 92)));
        assert_eq!(octets("TcpExt: A\nTcpExt: 1\n"), None);
    }

    #[test]
    fn limit_is_read_with_and_without_a_number() {
        let line = |value: &str| format!("Limit Soft Hard\nMax open files  {value} unlimited\n");
        let of = |text: &str| limit(text, "Max open files");
        assert_eq!(of(&line("unlimited")), Some(u64::MAX));
        assert_eq!(of(&line("4096")), Some(4096));
        assert_eq!(of("nothing"), None);
    }

    #[test]
    fn stat_is_read_past_an_odd_name() {
        let stat = "42 (a ) b) S 7 1 1 0 -1 0 0 0 0 0 11 22 33 44 20 0 1 0 555 9";
        assert_eq!(stat_ticks(stat, &[14, 15]), Some(33));
        assert_eq!(stat_ticks(stat, &[22]), Some(555));
        assert_eq!(stat_ticks("nothing", &[14]), None);
    }

    #[test]
    fn everything_of_our_own_process_can_be_read_and_is_plausible() {
        let reading = Reading::now();
        assert!(reading.cpu.is_some() && reading.network_bytes.is_some());
        assert!(reading.max_fds.unwrap() > 10 && reading.max_virtual_bytes.is_some());
        assert!(reading.open_fds.unwrap() > 2);
        let resident = reading.resident_bytes.unwrap();
        assert!(resident > 100_000 && resident < reading.virtual_bytes.unwrap());
        let age = SystemTime::now().duration_since(reading.started.unwrap());
        // The clock may have been set since the machine booted, but hardly by a day.
        assert!(age.is_ok_and(|age| age < Duration::from_secs(86_400)));
    }
}
