//! Rules and elements in nft's words, for messages.

use std::fmt;

use super::form::{Element, Key, Rule, ServiceKey, Shared, Statement, Value};

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, statement) in self.statements.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{statement}")?;
        }
        if let Some(comment) = &self.comment {
            write!(f, " comment \"{comment}\"")?;
        }
        Ok(())
    }
}

/// The family's own word for addresses stands as `ip`.
impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = |is: &bool| if *is { "" } else { "!= " };
        match self {
            Self::NewConnection => f.write_str("ct state new"),
            Self::DestinationTranslated => f.write_str("ct status dnat"),
            Self::ToNode => f.write_str("fib daddr type local"),
            Self::FromNode => f.write_str("fib saddr type local"),
            Self::Source(is, network) => write!(f, "ip saddr {}{network}", not(is)),
            Self::Destination(is, network) => write!(f, "ip daddr {}{network}", not(is)),
            Self::Interface(is, name) => write!(f, "iifname {}\"{name}\"", not(is)),
            Self::InterfacePrefix(is, prefix) => write!(f, "iifname {}\"{prefix}*\"", not(is)),
            Self::DestinationIn(set) => write!(f, "ip daddr @{}", set.name()),
            Self::IsHairpin => {
                f.write_str("ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections")
            }
            Self::RememberedIn(set) => write!(f, "ip saddr @{set}"),
            Self::Marked(mark) => write!(f, "meta mark & {mark:#010x} != 0"),
            Self::Protocol(protocol) => write!(f, "meta l4proto {protocol}"),
            Self::OneIn(count) => write!(f, "numgen random mod {count} 0"),
            Self::Mark(mark) => write!(f, "meta mark set meta mark | {mark:#010x}"),
            Self::Unmark(mark) => write!(f, "meta mark set meta mark ^ {mark:#010x}"),
            Self::Remember(set, timeout_s) => {
                write!(f, "update @{set} {{ ip saddr timeout {timeout_s}s }}")
            }
            Self::Verdict(map) if map.is_by_port() => {
                write!(f, "meta l4proto . th dport vmap @{}", map.name())
            }
            Self::Verdict(map) => {
                write!(f, "ip daddr . meta l4proto . th dport vmap @{}", map.name())
            }
            Self::Masquerade => f.write_str("masquerade fully-random"),
            Self::Translate(to) => write!(f, "dnat to {to}"),
            Self::TranslateByMap {
                map,
                service,
                count,
            } => write!(
                f,
                "dnat ip to {service} . numgen random mod {count} map @{}",
                map.name()
            ),
            Self::TranslateByVip(count) => write!(
                f,
                "dnat ip to ip daddr . meta l4proto . th dport . numgen random mod {count} map @{}",
                Shared::EndpointsOf(*count).name()
            ),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Return => f.write_str("return"),
            Self::Drop => f.write_str("drop"),
            Self::Reject => f.write_str("reject"),
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {} . {}", self.address, self.protocol, self.port)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Hairpin(address, protocol, port) => {
                write!(f, "{address} . {address} . {protocol} . {port}")
            }
            Self::Vip(vip) => write!(f, "{vip}"),
            Self::NodePort(protocol, port) => write!(f, "{protocol} . {port}"),
            Self::Endpoint(service, number) => write!(f, "{service} . {number}"),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.key)?;
        match &self.value {
            Value::None => Ok(()),
            Value::Drop => f.write_str(" : drop"),
            Value::Goto(chain) => write!(f, " : goto {chain}"),
            Value::To(to) => write!(f, " : {} . {}", to.ip(), to.port()),
        }
    }
}
