use std::net::IpAddr;

use crate::plugin::Exchange;

/// EDNS options in order, each as code and content.
pub(super) type Options = Vec<(u16, Vec<u8>)>;

/// `rewrite edns0`
#[derive(Clone, Debug)]
pub(super) struct EdnsRule {
    pub(super) action: Action,
    pub(super) code: u16,
    pub(super) content: Content,
    /// Not to be seen in the reply.
    pub(super) revert: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Change it, or add it.
    Set,
    /// Add it unless it is there.
    Append,
    /// Change it if it is there.
    Replace,
    Unset,
}

/// What the option says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Fixed(Vec<u8>),
    /// The name asked for, as text.
    QueryName,
    QueryType,
    ClientIp,
    ClientPort,
    Protocol,
    ServerIp,
    ServerPort,
    /// Metadata, which nobody publishes: the rule does nothing.
    Nothing,
    /// The client's network (RFC 7871 §6), by prefix lengths.
    Subnet {
        v4: u8,
        v6: u8,
    },
}

/// NSID (RFC 5001).
pub(super) const NSID: u16 = 3;
/// Client subnet (RFC 7871).
pub(super) const SUBNET: u16 = 8;

impl EdnsRule {
    /// Changes the options of the request, and unless it reverts those that the reply shows.
    /// Says whether it did anything.
    pub(super) fn apply(
        &self,
        exchange: &Exchange,
        sent: &mut Options,
        shown: &mut Options,
    ) -> bool {
        if self.action == Action::Unset {
            sent.retain(|(code, _)| *code != self.code);
            shown.retain(|(code, _)| *code != self.code);
            return true;
        }
        let Some(content) = self.content.of(exchange) else {
            return false;
        };
        let there = sent.iter().any(|(code, _)| *code == self.code);
        match (self.action, there) {
            (Action::Append, true) | (Action::Replace, false) => return false,
            _ => {}
        }
        put(sent, self.code, &content);
        if !self.revert {
            put(shown, self.code, &content);
        }
        true
    }
}

fn put(options: &mut Options, code: u16, content: &[u8]) {
    match options.iter_mut().find(|(there, _)| *there == code) {
        Some((_, old)) => *old = content.to_vec(),
        None => options.push((code, content.to_vec())),
    }
}

impl Content {
    fn of(&self, exchange: &Exchange) -> Option<Vec<u8>> {
        let request = &exchange.request;
        let address = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        Some(match self {
            Self::Fixed(content) => content.clone(),
            Self::QueryName => exchange.question.name().to_string().into_bytes(),
            Self::QueryType => exchange.question.rtype.0.to_be_bytes().to_vec(),
            Self::ClientIp => address(request.source.ip()),
            Self::ClientPort => request.source.port().to_be_bytes().to_vec(),
            Self::Protocol => request.transport.proto().as_bytes().to_vec(),
            Self::ServerIp => address(request.local.ip()),
            Self::ServerPort => request.local.port().to_be_bytes().to_vec(),
            Self::Nothing => return None,
            Self::Subnet { v4, v6 } => subnet(&address(request.source.ip()), *v4, *v6),
        })
    }
}

/// Family, prefix length, scope 0, and as many octets of the address as the prefix reaches into,
/// zero behind it (RFC 7871 §6).
fn subnet(address: &[u8], v4: u8, v6: u8) -> Vec<u8> {
    let (family, prefix) = if address.len() == 4 { (1, v4) } else { (2, v6) };
    let mut content = vec![0, family, prefix, 0];
    let mut bits = prefix;
    for octet in address {
        if bits == 0 {
            break;
        }
        let kept = bits.min(8);
        content.push(octet & !(u8::MAX.checked_shr(kept.into()).unwrap_or_default()));
        bits -= kept;
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_has_no_bit_behind_its_prefix() {
        let v4 = [192, 0, 2, 255];
        let mut v6 = [0xff; 16];
        v6[..2].copy_from_slice(&[0x20, 0x01]);
        assert_eq!(subnet(&v4, 24, 56), [0, 1, 24, 0, 192, 0, 2]);
        assert_eq!(subnet(&v4, 25, 56), [0, 1, 25, 0, 192, 0, 2, 128]);
        assert_eq!(subnet(&v4, 32, 0), [0, 1, 32, 0, 192, 0, 2, 255]);
        assert_eq!(subnet(&v4, 0, 0), [0, 1, 0, 0]);
        assert_eq!(subnet(&v6, 0, 20), [0, 2, 20, 0, 0x20, 0x01, 0xf0]);
    }
}
