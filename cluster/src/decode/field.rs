//! Values of single fields, each with words for what was expected.

use std::fmt::Display;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::object::Protocol;
use crate::update::Problem;

/// More problems than this in one object are counted, not listed.
const MAX_PROBLEMS_PER_OBJECT: usize = 20;

/// What was odd in one object, in the order of its fields.
#[derive(Debug, Default)]
pub(super) struct Oddities {
    problems: Vec<Problem>,
    unlisted: usize,
}

impl Oddities {
    /// Notes that something in a field was left out or replaced.
    pub(super) fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        if self.problems.len() >= MAX_PROBLEMS_PER_OBJECT {
            self.unlisted += 1;
            return;
        }
        self.problems.push(Problem {
            place: String::new(),
            field: field.into(),
            message: message.into(),
        });
    }

    /// Passes a good value on and notes what was wrong with a bad one.
    pub(super) fn keep<T>(
        &mut self,
        read: Result<T, String>,
        field: impl FnOnce() -> String,
    ) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(message) => {
                self.add(field(), message);
                None
            }
        }
    }

    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        if self.unlisted > 0 {
            self.problems.push(Problem {
                place: String::new(),
                field: String::new(),
                message: format!("{} more problems like these", self.unlisted),
            });
        }
        self.problems
    }
}

/// A plain IPv4 or IPv6 address. IPv4 addresses written as IPv6 (`::ffff:1.2.3.4`) are
/// refused: kernel tables of the two families would disagree about what they mean.
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    let wrong = || format!("{text:?} is not an IP address: expected one like 10.0.0.1 or fd00::1");
    let address: IpAddr = text.parse().map_err(|_| wrong())?;
    match address {
        IpAddr::V6(v6) => plain_v6(v6, text).map(IpAddr::V6),
        IpAddr::V4(_) => Ok(address),
    }
}

fn plain_v6(address: Ipv6Addr, text: &str) -> Result<Ipv6Addr, String> {
    if address.to_ipv4_mapped().is_some() {
        return Err(format!(
            "{text:?} is an IPv4 address written as IPv6: expected it as plain IPv4"
        ));
    }
    Ok(address)
}

/// A network like `10.0.0.0/8`; bits beyond the prefix are cleared.
pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    let wrong = || format!("{text:?} is not a network: expected one like 10.0.0.0/8 or fd00::/64");
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let plain_number = !prefix.is_empty()
        && prefix.bytes().all(|byte| byte.is_ascii_digit())
        && (prefix == "0" || !prefix.starts_with('0'));
    if !plain_number {
        return Err(wrong());
    }
    let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
    let net = IpNet::new(ip(address).map_err(|_| wrong())?, prefix).map_err(|_| wrong())?;
    Ok(net.trunc())
}

/// A port number from 1 to 65535.
pub(super) fn port(number: i64) -> Result<u16, String> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| format!("{number} is not a port: expected a number from 1 to 65535"))
}

/// A port that is 0 or missing where there is none.
pub(super) fn optional_port(number: Option<i64>) -> Result<Option<u16>, String> {
    match number {
        None | Some(0) => Ok(None),
        Some(number) => port(number).map(Some),
    }
}

/// A transport protocol, TCP where none is named.
pub(super) fn protocol(text: Option<&str>) -> Result<Protocol, String> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(unknown(other, "TCP, UDP or SCTP")),
    }
}

/// A moment in RFC 3339 form.
pub(super) fn moment(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not a time: expected RFC 3339, like 2026-01-31T12:00:00Z")
    })
}

/// Words for a value that is none of a few.
pub(super) fn unknown(found: impl Display, expected: &str) -> String {
    format!("unknown value \"{found}\": expected {expected}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        for good in ["10.0.0.1", "0.0.0.0", "fd00::1", "64:ff9b::10.0.0.1"] {
            assert!(ip(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "10.0.0",
            "10.0.0.01",
            "010.0.0.1",
            "10.0.0.256",
            "::ffff:10.0.0.1",
            "fe80::1%eth0",
            " 10.0.0.1",
            "web",
            "10.0.0.1/32",
            "[fd00::1]",
        ] {
            assert!(ip(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks_are_read_strictly_and_masked() {
        assert_eq!(cidr("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(cidr("fd00::1/64").unwrap().to_string(), "fd00::/64");
        assert_eq!(cidr("0.0.0.0/0").unwrap().to_string(), "0.0.0.0/0");
        for bad in [
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "fd00::/129",
            "::ffff:10.0.0.0/104",
            "010.0.0.0/8",
            "/8",
            "10.0.0.0/8/8",
            "",
        ] {
            assert!(cidr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ports_are_bounded() {
        assert_eq!(port(1), Ok(1));
        assert_eq!(port(65_535), Ok(65_535));
        for bad in [0, -1, 65_536, i64::MAX] {
            assert!(port(bad).is_err(), "{bad}");
        }
        assert_eq!(optional_port(Some(0)), Ok(None));
    }

    #[test]
    fn many_problems_are_counted_not_listed() {
        let mut oddities = Oddities::default();
        for at in 0..100 {
            oddities.add(format!("endpoints[{at}]"), "bad");
        }
        let problems = oddities.into_problems();
        assert_eq!(problems.len(), MAX_PROBLEMS_PER_OBJECT + 1);
        assert_eq!(
            problems.last().unwrap().message,
            "80 more problems like these"
        );
    }
}
