use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::Name;

/// The address whose reverse name this is (RFC 1035 §3.5, RFC 3596 §2.5). Give the name in lower
/// case. Nothing is allocated.
#[must_use]
pub fn address_of_reverse_name(name: &Name) -> Option<IpAddr> {
    // A whole IPv6 name has 34 labels, an IPv4 name 6.
    let mut labels = [&[][..]; 34];
    let mut count = 0;
    for label in name.labels() {
        *labels.get_mut(count)? = label;
        count += 1;
    }
    match labels.get(..count)? {
        [a, b, c, d, b"in-addr", b"arpa"] => {
            let octets = [octet(d)?, octet(c)?, octet(b)?, octet(a)?];
            Some(Ipv4Addr::from(octets).into())
        }
        [nibbles @ .., b"ip6", b"arpa"] if nibbles.len() == 32 => {
            let mut number = 0_u128;
            for label in nibbles.iter().rev() {
                let &[digit] = *label else { return None };
                number = number << 4 | u128::from(char::from(digit).to_digit(16)?);
            }
            Some(Ipv6Addr::from(number).into())
        }
        _ => None,
    }
}

/// A number up to 255 without leading zeros.
fn octet(label: &[u8]) -> Option<u8> {
    let leading_zero = label.len() > 1 && label.first() == Some(&b'0');
    if leading_zero || !label.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(label).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_are_addresses_when_whole_and_well_formed() {
        let v6 = "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.";
        let cases = [
            ("54.119.58.176.in-addr.arpa.", Some("176.58.119.54")),
            ("0.0.0.0.in-addr.arpa.", Some("0.0.0.0")),
            (v6, Some("2001:db8::567:89ab")),
            ("119.58.176.in-addr.arpa.", None),
            ("1.54.119.58.176.in-addr.arpa.", None),
            ("256.0.0.10.in-addr.arpa.", None),
            ("01.0.0.10.in-addr.arpa.", None),
            ("+1.0.0.10.in-addr.arpa.", None),
            (".", None),
            ("example.org.", None),
            ("1.2.3.4.in-addr.arpa.org.", None),
            ("8.b.d.0.1.0.0.2.ip6.arpa.", None),
        ];
        for (text, address) in cases {
            let address = address.map(|address| address.parse().unwrap());
            assert_eq!(
                address_of_reverse_name(&Name::from_text(text).unwrap()),
                address,
                "{text}"
            );
        }
        let not_hex = v6.replacen('b', "g", 1);
        assert_eq!(
            address_of_reverse_name(&Name::from_text(&not_hex).unwrap()),
            None
        );
    }
}
