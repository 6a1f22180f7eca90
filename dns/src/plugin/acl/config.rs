use std::net::IpAddr;

use ipnet::IpNet;

use crate::corefile::{ConfigError, Line, Token};
use crate::plugin::Zones;
use crate::wire::Rtype;

/// One `acl`.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) zones: Zones,
    pub(super) policies: Vec<Policy>,
}

/// One line of it.
#[derive(Clone, Debug)]
pub(super) struct Policy {
    pub(super) action: Action,
    /// `None` for all.
    types: Option<Vec<Rtype>>,
    /// `None` for all.
    networks: Option<Vec<IpNet>>,
}

/// What a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Block,
    Filter,
    Drop,
}

impl Policy {
    pub(super) fn fits(&self, rtype: Rtype, client: IpAddr) -> bool {
        let types = self.types.as_ref();
        let networks = self.networks.as_ref();
        types.is_none_or(|types| types.contains(&rtype))
            && networks.is_none_or(|networks| networks.iter().any(|it| it.contains(&client)))
    }
}

/// Reads one `acl`.
pub(super) fn read(line: &Line, of_block: &[String]) -> Result<List, ConfigError> {
    let policies = line.options().iter().map(policy);
    Ok(List {
        zones: Zones::from_args(line.args(), of_block)?,
        policies: policies.collect::<Result<_, _>>()?,
    })
}

fn policy(line: &Line) -> Result<Policy, ConfigError> {
    line.no_body()?;
    let action = match line.name().to_ascii_lowercase().as_str() {
        "allow" => Action::Allow,
        "block" => Action::Block,
        "filter" => Action::Filter,
        "drop" => Action::Drop,
        _ => return Err(line.unknown_option(&["allow", "block", "filter", "drop"])),
    };
    let mut policy = Policy {
        action,
        types: None,
        networks: None,
    };
    let is_word = |arg: &Token| arg.eq_ignore_ascii_case("type") || arg.eq_ignore_ascii_case("net");
    let mut rest = line.args();
    while let [word, after @ ..] = rest {
        if !is_word(word) {
            return Err(word.error(format!("expected `type` or `net`, found `{word}`")));
        }
        let end = after.iter().position(is_word).unwrap_or(after.len());
        let (values, next) = after.split_at_checked(end).unwrap_or_default();
        if values.is_empty() {
            return Err(word.error(format!("nothing follows `{word}`")));
        }
        let all = values.iter().any(|value| &**value == "*");
        if word.eq_ignore_ascii_case("type") {
            let types = values.iter().filter(|value| &***value != "*").map(rtype);
            let types = types.collect::<Result<Vec<_>, _>>()?;
            policy.types = (!all).then_some(types);
        } else {
            let networks = values.iter().filter(|value| &***value != "*").map(network);
            let networks = networks.collect::<Result<Vec<_>, _>>()?;
            policy.networks = (!all).then_some(networks);
        }
        rest = next;
    }
    Ok(policy)
}

fn rtype(token: &Token) -> Result<Rtype, ConfigError> {
    Rtype::from_text(token).ok_or_else(|| token.error(format!("`{token}` is not a record type")))
}

fn network(token: &Token) -> Result<IpNet, ConfigError> {
    let address = token.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| token.parse()).map_err(|_| {
        token.error(format!(
            "`{token}` is neither an address nor a network such as 10.0.0.0/8"
        ))
    })
}
