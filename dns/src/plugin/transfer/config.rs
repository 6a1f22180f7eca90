use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::handler::{Rule, Transfer};
use crate::corefile::{ConfigError, Line, Token, zones_from_args};
use crate::plugin::{Plugin, Setup};
use crate::wire::Name;

const OPTIONS: &[&str] = &["to"];
const DNS_PORT: u16 = 53;

/// `transfer [ZONES…] { to ADDRESS… }`
///
/// # Errors
/// With the line: no `to`, or an address that is none.
pub(in crate::plugin) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let rules = setup.lines.iter().map(|line| rule(line, setup));
    let rules: Result<Vec<_>, _> = rules.collect();
    Ok(vec![Arc::new(Transfer::new(rules?))])
}

fn rule(line: &Line, setup: &Setup<'_>) -> Result<Rule, ConfigError> {
    let zones = zones_from_args(line.args(), &setup.block.zones)?;
    let zones = zones.iter().map(|zone| Name::from_text(zone));
    let zones: Result<_, _> = zones.collect();
    let mut rule = Rule {
        zones: zones.map_err(|error| line.error(error.to_string()))?,
        anyone: false,
        secondaries: Vec::new(),
    };
    for option in line.options() {
        match &*option.name().text {
            "to" if option.args().is_empty() => {
                return Err(option.error("`to` needs addresses, or * for anyone"));
            }
            "to" => option.args().iter().try_for_each(|to| add(&mut rule, to))?,
            "source" => {
                return Err(option.error(
                    "`source` can't be had: notifications leave from the address the route gives",
                ));
            }
            _ => return Err(option.unknown_option(OPTIONS)),
        }
    }
    if !rule.anyone && rule.secondaries.is_empty() {
        return Err(line.error("`transfer` needs a line `to ADDRESS...`"));
    }
    Ok(rule)
}

fn add(rule: &mut Rule, to: &Token) -> Result<(), ConfigError> {
    if &*to.text == "*" {
        rule.anyone = true;
        return Ok(());
    }
    let with_port = to.text.parse::<SocketAddr>().ok();
    let plain = || to.text.parse::<IpAddr>().ok();
    let address = with_port.or_else(|| plain().map(|ip| SocketAddr::new(ip, DNS_PORT)));
    let address = address.ok_or_else(|| {
        to.error(format!(
            "`{to}` is no address: expected an IP address, with or without port, or *"
        ))
    })?;
    rule.secondaries.push(address);
    Ok(())
}
