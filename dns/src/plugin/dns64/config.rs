use std::net::{Ipv4Addr, Ipv6Addr};

use crate::corefile::{ConfigError, Line, Token};

/// What to translate, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) prefix: Prefix,
    pub(super) translate_all: bool,
    pub(super) allow_ipv4: bool,
}

/// Where IPv4 addresses are (RFC 6052 §2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prefix {
    octets: [u8; 16],
    /// Its length in octets, 4 to 12.
    length: usize,
}

impl Prefix {
    const WELL_KNOWN: Self = Self {
        octets: Ipv6Addr::new(0x64, 0xFF9B, 0, 0, 0, 0, 0, 0).octets(),
        length: 12,
    };

    /// The address behind the prefix; octet 8 stays zero.
    pub(super) fn with(&self, address: Ipv4Addr) -> Ipv6Addr {
        let mut octets = [0; 16];
        let prefix = self.octets.iter().take(self.length);
        for (octet, of_prefix) in octets.iter_mut().zip(prefix) {
            *octet = *of_prefix;
        }
        let places = octets.iter_mut().enumerate().skip(self.length);
        let places = places.filter(|(index, _)| *index != 8);
        for ((_, octet), of_address) in places.zip(address.octets()) {
            *octet = of_address;
        }
        octets.into()
    }

    fn read(token: &Token) -> Result<Self, ConfigError> {
        let refuse = || {
            token.error(format!(
                "expected an IPv6 network of 32 to 96 bits, a multiple of 8; found `{token}`"
            ))
        };
        let network: ipnet::Ipv6Net = token.parse().map_err(|_| refuse())?;
        let bits = usize::from(network.prefix_len());
        if bits % 8 != 0 || !(32..=96).contains(&bits) {
            return Err(refuse());
        }
        Ok(Self {
            octets: network.network().octets(),
            length: bits / 8,
        })
    }
}

pub(super) fn read(line: &Line) -> Result<Config, ConfigError> {
    let mut config = Config {
        prefix: Prefix::WELL_KNOWN,
        translate_all: false,
        allow_ipv4: false,
    };
    if let [prefix, ..] = line.between(0, 1, "a prefix")? {
        config.prefix = Prefix::read(prefix)?;
    }
    for option in line.options() {
        option.no_body()?;
        match &**option.name() {
            "prefix" => {
                let [prefix] = option.exactly("a network")?;
                config.prefix = Prefix::read(prefix)?;
            }
            "translate_all" => {
                option.no_args()?;
                config.translate_all = true;
            }
            "allow_ipv4" => {
                option.no_args()?;
                config.allow_ipv4 = true;
            }
            _ => {
                return Err(option.unknown_option(&["prefix", "translate_all", "allow_ipv4"]));
            }
        }
    }
    Ok(config)
}
