//! Which directives there are, and the order in which their plugins are asked.

use std::sync::Arc;

use super::setup::SetupFn;
use super::{Plugin, Setup};
use crate::corefile::{ConfigError, Line};

/// How far we know a directive.
#[derive(Clone, Copy, Debug)]
pub enum Support {
    /// It works.
    Ours(SetupFn),
    /// Accepted with one warning: leaving it out changes no answer.
    LeftOut(&'static str),
    /// Refused: without it answers would be others.
    Refused(&'static str),
}

/// One directive.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// As the Corefile writes it.
    pub name: &'static str,
    /// What we make of it.
    pub support: Support,
}

const fn ours(name: &'static str, setup: SetupFn) -> Entry {
    Entry {
        name,
        support: Support::Ours(setup),
    }
}

const fn left_out(name: &'static str, missing: &'static str) -> Entry {
    Entry {
        name,
        support: Support::LeftOut(missing),
    }
}

const fn refused(name: &'static str, reason: &'static str) -> Entry {
    Entry {
        name,
        support: Support::Refused(reason),
    }
}

const TRANSPORT: &str = "only DNS over UDP, TCP and TLS is served";
const BACK_END: &str = "this source of answers is not built in";

/// Every directive in the reference's order (`core/dnsserver/zdirectives.go`): settings
/// first, then whoever wraps answers, then whoever answers.
pub const ENTRIES: &[Entry] = &[
    ours("root", super::root::setup),
    left_out(
        "metadata",
        "no plugin of ours publishes metadata; `{/…}` in logs stays empty",
    ),
    refused("geoip", "answers and views can depend on its metadata"),
    left_out(
        "cancel",
        "queries are given up by the time limits of the plugins that wait",
    ),
    refused("proxyproto", "client addresses would be those of the proxy"),
    left_out("quic", TRANSPORT),
    left_out("grpc_server", TRANSPORT),
    left_out("https", TRANSPORT),
    left_out("https3", TRANSPORT),
    ours("timeouts", super::timeouts::setup),
    left_out("multisocket", "there is always a socket for each CPU"),
    ours("reload", super::reload::setup),
    ours("nsid", super::nsid::setup),
    ours("bufsize", super::bufsize::setup),
    ours("bind", super::bind::setup),
    ours("debug", super::debug::setup),
    left_out("trace", "no traces are sent"),
    ours("ready", super::ready::setup),
    ours("health", super::health::setup),
    left_out("pprof", "there are no profiles to fetch"),
    left_out("shed", "queries over the limit are always shed"),
    ours("prometheus", super::prometheus::setup),
    ours("errors", super::errors::setup),
    ours("log", super::log::setup),
    left_out("dnstap", "no dnstap messages are sent"),
    ours("local", super::local::setup),
    ours("dns64", super::dns64::setup),
    ours("any", super::any::setup),
    ours("chaos", super::chaos::setup),
    ours("loadbalance", super::loadbalance::setup),
    refused("tsig", "requests would not be authenticated"),
    ours("rewrite", super::rewrite::setup),
    ours("autopath", super::autopath::setup),
    ours("acl", super::acl::setup),
    ours("cache", super::cache::setup),
    ours("header", super::header::setup),
    refused("dnssec", "answers would not be signed"),
    ours("tls", super::tls::setup),
    ours("minimal", super::minimal::setup),
    ours("template", super::template::setup),
    ours("transfer", super::transfer::setup),
    ours("hosts", super::hosts::setup),
    refused("route53", BACK_END),
    refused("azure", BACK_END),
    refused("clouddns", BACK_END),
    refused(
        "k8s_external",
        "names of external addresses are not answered yet",
    ),
    ours("kubernetes", super::kubernetes::setup),
    ours("file", super::file::setup),
    refused("auto", "use `file` for each zone"),
    refused("secondary", "zones are not transferred in"),
    refused("etcd", BACK_END),
    ours("loop", super::loop_probe::setup),
    ours("forward", super::forward::setup),
    refused("grpc", BACK_END),
    refused("erratic", "made for tests of the reference"),
    refused("whoami", "made for tests of the reference"),
    refused("on", "no commands are run"),
    refused("sign", "zones are not signed"),
    refused("view", "server blocks can't be chosen by client yet"),
    refused("nomad", BACK_END),
];

/// Sets up all directives of a block, in the order of [`ENTRIES`].
///
/// # Errors
/// With file and line: an unknown directive, a refused one, or what a set-up function says.
pub fn set_up(
    directives: &[Line],
    block: &mut super::BlockSettings,
    environment: &super::Environment,
) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    for line in directives {
        if entry(line.name()).is_none() {
            let known: Vec<_> = known().collect();
            return Err(line.error(format!(
                "unknown plugin `{}`; known are: {}",
                line.name(),
                known.join(", ")
            )));
        }
    }
    let mut plugins = Vec::new();
    for entry in ENTRIES {
        let lines: Vec<&Line> = directives
            .iter()
            .filter(|line| line.name().text.as_ref() == entry.name)
            .collect();
        let Some(first) = lines.first() else {
            continue;
        };
        match entry.support {
            Support::Ours(setup) => plugins.extend(setup(&mut Setup {
                lines: &lines,
                block,
                environment,
            })?),
            Support::LeftOut(missing) => {
                tracing::warn!(
                    "{}: `{}` is left out: {missing}",
                    first.name().at,
                    entry.name
                );
            }
            Support::Refused(reason) => {
                return Err(first.error(format!("`{}` can't be had: {reason}", entry.name)));
            }
        }
    }
    Ok(plugins)
}

/// The directive of this name.
#[must_use]
pub fn entry(name: &str) -> Option<&'static Entry> {
    ENTRIES.iter().find(|entry| entry.name == name)
}

/// The names of the directives that work or are accepted.
pub fn known() -> impl Iterator<Item = &'static str> {
    let known = ENTRIES
        .iter()
        .filter(|entry| !matches!(entry.support, Support::Refused(_)));
    known.map(|entry| entry.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `core/dnsserver/zdirectives.go` of the reference, 1.14.
    const REFERENCE_ORDER: &str = "root metadata geoip cancel proxyproto quic grpc_server https \
        https3 timeouts multisocket reload nsid bufsize bind debug trace ready health pprof shed \
        prometheus errors log dnstap local dns64 any chaos loadbalance tsig rewrite autopath acl \
        cache header dnssec tls minimal template transfer hosts route53 azure clouddns \
        k8s_external kubernetes file auto secondary etcd loop forward grpc erratic whoami on sign \
        view nomad";

    #[test]
    fn every_entry_is_where_the_reference_has_it() {
        let mut order = REFERENCE_ORDER.split_ascii_whitespace();
        for entry in ENTRIES {
            let found = order.any(|name| name == entry.name);
            assert!(found, "`{}` is in the wrong place or unknown", entry.name);
        }
    }
}
