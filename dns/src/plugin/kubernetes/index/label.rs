//! Addresses as labels: `10-1-2-3`, `2001-db8--1`.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest dashed address: eight groups of four digits.
const DASHED_OCTETS_MAX: usize = 40;

/// A label written in place.
#[derive(Debug)]
pub struct Dashed {
    octets: [u8; DASHED_OCTETS_MAX],
    length: usize,
}

impl Dashed {
    /// The label that an endpoint without a name has.
    #[must_use]
    pub fn new(address: IpAddr) -> Self {
        let mut label = Self {
            octets: [0; DASHED_OCTETS_MAX],
            length: 0,
        };
        match address {
            IpAddr::V4(address) => label.write_v4(address),
            IpAddr::V6(address) => label.write_v6(address),
        }
        label
    }

    fn push(&mut self, octet: u8) {
        if let Some(place) = self.octets.get_mut(self.length) {
            *place = octet;
            self.length += 1;
        }
    }

    fn write_v4(&mut self, address: Ipv4Addr) {
        for (at, octet) in address.octets().into_iter().enumerate() {
            if at > 0 {
                self.push(b'-');
            }
            if octet >= 100 {
                self.push(b'0' + octet / 100);
            }
            if octet >= 10 {
                self.push(b'0' + octet / 10 % 10);
            }
            self.push(b'0' + octet % 10);
        }
    }

    /// RFC 5952 with `-` for `:`; `0` after what would end in a dash, which no label may.
    fn write_v6(&mut self, address: Ipv6Addr) {
        let mut rest = self.octets.as_mut_slice();
        let room = rest.len();
        let mapped = address.to_ipv4_mapped();
        // An address never takes more than 39 octets.
        let _always_fits = match mapped {
            Some(_) => Ok(()),
            None => write!(rest, "{address}"),
        };
        self.length = room - rest.len();
        if let Some(address) = mapped {
            self.write_v4(address);
            return;
        }
        for octet in self.octets.iter_mut().filter(|octet| **octet == b':') {
            *octet = b'-';
        }
        if self.as_bytes().ends_with(b"-") {
            self.push(b'0');
        }
    }

    /// The label's octets, without its length.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }
}

/// The address that a label stands for, if it is just how [`Dashed::new`] would write it.
#[must_use]
pub(super) fn endpoint_address(label: &[u8]) -> Option<IpAddr> {
    let address = pod_address(label).or_else(|| {
        // The added 0 of `2001-db8--0`.
        let cut = label.strip_suffix(b"0").filter(|cut| cut.ends_with(b"--"));
        pod_address(cut?)
    })?;
    (Dashed::new(address).as_bytes() == label).then_some(address)
}

/// The address in the name of a pod, as CoreDNS reads it: dots where there are three dashes
/// and no two in a row, else colons.
#[must_use]
pub fn pod_address(label: &[u8]) -> Option<IpAddr> {
    if !label
        .first()
        .is_some_and(|first| first.is_ascii_hexdigit() || *first == b'-')
    {
        return None;
    }
    let dashes = label.iter().filter(|octet| **octet == b'-').count();
    if dashes == 3 && !label.windows(2).any(|pair| pair == b"--") {
        return v4(label).map(IpAddr::V4);
    }
    let mut text = [0; DASHED_OCTETS_MAX];
    let text = text.get_mut(..label.len())?;
    for (to, from) in text.iter_mut().zip(label) {
        *to = if *from == b'-' { b':' } else { *from };
    }
    let address: Ipv6Addr = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(address.to_canonical())
}

fn v4(label: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut parts = label.split(|octet| *octet == b'-');
    for octet in &mut octets {
        *octet = decimal(parts.next()?)?;
    }
    parts.next().is_none().then_some(Ipv4Addr::from(octets))
}

/// A number up to 255 without zeros in front.
fn decimal(digits: &[u8]) -> Option<u8> {
    if digits.is_empty() || digits.len() > 3 || digits.len() > 1 && digits.first() == Some(&b'0') {
        return None;
    }
    let mut number: u16 = 0;
    for digit in digits {
        number = number * 10 + u16::from(digit.checked_sub(b'0').filter(|digit| *digit <= 9)?);
    }
    u8::try_from(number).ok()
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for (RFC 1035 §3.5,
/// RFC 3596 §2.5). `labels` are all labels of the name, in lower case.
#[must_use]
pub fn reverse_address<'a>(
    mut labels: impl Iterator<Item = &'a [u8]>,
    count: usize,
) -> Option<IpAddr> {
    match count {
        6 => {
            let mut octets = [0; 4];
            for octet in octets.iter_mut().rev() {
                *octet = decimal(labels.next()?)?;
            }
            ends_in(labels, b"in-addr").then(|| Ipv4Addr::from(octets).into())
        }
        34 => {
            let mut octets = [0; 16];
            for octet in octets.iter_mut().rev() {
                let (low, high) = (nibble(labels.next()?)?, nibble(labels.next()?)?);
                *octet = high << 4 | low;
            }
            let address = || Ipv6Addr::from(octets).to_canonical();
            ends_in(labels, b"ip6").then(address)
        }
        _ => None,
    }
}

fn ends_in<'a>(mut labels: impl Iterator<Item = &'a [u8]>, tree: &[u8]) -> bool {
    labels.next() == Some(tree) && labels.next() == Some(b"arpa")
}

fn nibble(label: &[u8]) -> Option<u8> {
    match label {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        [digit @ b'a'..=b'f'] => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dashed(address: &str) -> String {
        let address: IpAddr = address.parse().expect(address);
        String::from_utf8(Dashed::new(address).as_bytes().to_vec()).expect("ASCII")
    }

    #[test]
    fn addresses_are_labels_and_back() {
        for (address, label) in [
            ("10.11.12.13", "10-11-12-13"),
            ("0.0.0.255", "0-0-0-255"),
            (
                "2001:db8:3333:4444:5555:6666:7777:8888",
                "2001-db8-3333-4444-5555-6666-7777-8888",
            ),
            (
                "2001:db8:3333:4444:5555:6666::",
                "2001-db8-3333-4444-5555-6666--0",
            ),
            ("5678:abcd::1", "5678-abcd--1"),
            ("::1", "--1"),
        ] {
            assert_eq!(dashed(address), label);
            let address: IpAddr = address.parse().expect(address);
            assert_eq!(endpoint_address(label.as_bytes()), Some(address), "{label}");
        }
    }

    #[test]
    fn other_spellings_of_an_address_are_no_endpoint() {
        for label in [
            "010-1-1-1",
            "10-1-1",
            "10-1-1-256",
            "2001-0db8--1",
            "web-0",
            "",
            "-",
            "1-1-1-1-",
        ] {
            assert_eq!(endpoint_address(label.as_bytes()), None, "{label}");
        }
    }

    #[test]
    fn pods_are_named_by_dots_or_colons() {
        let read = |label: &str| pod_address(label.as_bytes()).map(|ip| ip.to_string());
        assert_eq!(read("10-244-1-11").as_deref(), Some("10.244.1.11"));
        assert_eq!(read("1234-abcd--1").as_deref(), Some("1234:abcd::1"));
        assert_eq!(read("2001-0db8--1").as_deref(), Some("2001:db8::1"));
        assert_eq!(read("x"), None);
        assert_eq!(read("10-244-1-999"), None);
        assert_eq!(read(&"1-".repeat(31)), None);
    }

    #[test]
    fn reverse_names_are_addresses() {
        let read = |name: &str| {
            let labels: Vec<&[u8]> = name.split('.').map(str::as_bytes).collect();
            reverse_address(labels.iter().copied(), labels.len()).map(|ip| ip.to_string())
        };
        assert_eq!(read("1.1.96.10.in-addr.arpa").as_deref(), Some("10.96.1.1"));
        let six = format!("1.{}8.b.d.0.1.0.0.2.ip6.arpa", "0.".repeat(23));
        assert_eq!(read(&six).as_deref(), Some("2001:db8::1"));
        assert_eq!(read("1.96.10.in-addr.arpa"), None);
        assert_eq!(read("1.1.96.010.in-addr.arpa"), None);
        assert_eq!(read("1.1.96.10.ip6.arpa"), None);
    }
}
