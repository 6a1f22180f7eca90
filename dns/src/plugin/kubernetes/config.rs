use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use switchyard_cluster::source::LabelSelector;

use super::index::IndexOptions;
use crate::corefile::{ConfigError, Line, Token, zone_name, zones_from_args};
use crate::feed::{Access, DnsNeeds, FeedSource, FeedSpec, TlsFiles};
use crate::plugin::Setup;
use crate::wire::Name;

/// Seconds that answers may be kept where the Corefile does not say.
const TTL_DEFAULT_S: u32 = 5;
const TTL_MAX_S: u32 = 3600;
/// How long to wait for the first lists before serving without them.
const STARTUP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

const KNOWN: &[&str] = &[
    "apiserver_burst",
    "apiserver_max_inflight",
    "apiserver_qps",
    "endpoint",
    "endpoint_pod_names",
    "fallthrough",
    "ignore",
    "kubeconfig",
    "labels",
    "namespace_labels",
    "namespaces",
    "noendpoints",
    "pods",
    "startup_timeout",
    "tls",
    "ttl",
    "zonal",
];

/// Options that there were once, and what became of them.
const REMOVED: &[(&str, &str)] = &[
    (
        "resyncperiod",
        "changes are followed, and nothing is read again by the clock; remove the line",
    ),
    (
        "upstream",
        "external names are looked up through this server itself; remove the line",
    ),
    (
        "transfer",
        "write `transfer { to … }` beside `kubernetes` instead",
    ),
    (
        "federation",
        "Kubernetes has no federation any more; remove the line",
    ),
];

/// Which names of pods are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum PodMode {
    /// None.
    #[default]
    Disabled,
    /// Any address in a namespace that exists.
    Insecure,
    /// Addresses of pods, in their namespace.
    Verified,
}

/// A `kubernetes` directive.
#[derive(Clone, Debug)]
pub(super) struct Config {
    /// Fully qualified, in lower case, longest first.
    pub(super) zones: Vec<Name>,
    /// The zone that names in PTR records are in.
    pub(super) primary: Name,
    /// Where missing names are handed on.
    pub(super) fallthrough: Vec<Name>,
    /// Names of pods.
    pub(super) pods: PodMode,
    /// What decides how answers are kept.
    pub(super) options: IndexOptions,
    /// What to follow.
    pub(super) feed: FeedSpec,
    /// How long the start waits for the first lists.
    pub(super) startup_timeout: Duration,
    /// Addresses that queries come to; those of the interfaces where empty.
    pub(super) bind: Vec<IpAddr>,
}

/// What options say, before it is put together.
#[derive(Default)]
struct Draft {
    fallthrough: Vec<String>,
    pods: PodMode,
    ttl: Option<u32>,
    startup_timeout: Option<Duration>,
    endpoint_pod_names: bool,
    ignore_empty_service: bool,
    zonal: Option<Token>,
    no_endpoints: bool,
    namespaces: Option<BTreeSet<String>>,
    labels: Option<String>,
    namespace_labels: Option<Token>,
    namespace_selector: Option<String>,
    access: Access,
}

impl Config {
    /// Reads the directive.
    ///
    /// # Errors
    /// With file and line of what is wrong.
    pub(super) fn new(setup: &Setup<'_>) -> Result<Self, ConfigError> {
        let line = setup.only_line()?;
        let zones = zones_from_args(line.args(), &setup.block.zones)?;
        let primary = zones.iter().find(|zone| !is_reverse(zone));
        let primary = primary.ok_or_else(|| {
            line.error(
                "non-reverse zone name must be used: expected a zone such as cluster.local \
                 beside the reverse zones, for names in PTR records",
            )
        })?;
        let mut draft = Draft::default();
        for option in line.options() {
            draft.read(option, setup)?;
        }
        draft.check()?;
        let name =
            |text: &str| Name::from_text(text).map_err(|error| line.error(error.to_string()));
        let names = |texts: &[String]| {
            texts
                .iter()
                .map(|text| name(text))
                .collect::<Result<Vec<_>, _>>()
        };
        let mut own = names(&zones)?;
        own.sort_by_key(|zone| std::cmp::Reverse(zone.label_count()));
        let config = Self {
            primary: name(primary)?,
            zones: own,
            fallthrough: names(&draft.fallthrough)?,
            pods: draft.pods,
            startup_timeout: draft.startup_timeout.unwrap_or(STARTUP_TIMEOUT_DEFAULT),
            bind: setup.block.bind.clone(),
            feed: draft.feed(setup),
            options: draft.options(setup),
        };
        let checked = config.feed.check();
        checked.map_err(|error| line.error(error.to_string()))?;
        Ok(config)
    }
}

/// Whether a zone is below `in-addr.arpa` or `ip6.arpa`, or one of them.
pub(super) fn is_reverse(zone: &str) -> bool {
    ["in-addr.arpa.", "ip6.arpa."]
        .iter()
        .any(|tree| zone == *tree || zone.ends_with(&format!(".{tree}")))
}

impl Draft {
    fn read(&mut self, option: &Line, setup: &Setup<'_>) -> Result<(), ConfigError> {
        option.no_body()?;
        match &*option.name().text {
            "endpoint_pod_names" => self.endpoint_pod_names = flag(option)?,
            "noendpoints" => self.no_endpoints = flag(option)?,
            "zonal" => self.zonal = flag(option)?.then(|| option.name().clone()),
            "pods" => self.pods = pod_mode(option)?,
            "ttl" => {
                let [ttl] = option.exactly("seconds from 0 to 3600")?;
                self.ttl = Some(ttl.number("ttl", 0..=TTL_MAX_S)?);
            }
            "startup_timeout" => {
                let [time] = option.exactly("a duration")?;
                self.startup_timeout = Some(time.duration("startup_timeout")?);
            }
            "ignore" => {
                let [what] = option.exactly("`empty_service`")?;
                if &*what.text != "empty_service" {
                    return Err(what.error(format!(
                        "unable to parse ignore value: expected `empty_service`, not `{what}`"
                    )));
                }
                self.ignore_empty_service = true;
            }
            "fallthrough" => self.fallthrough = fallthrough(option, setup)?,
            "namespaces" => {
                let names = option.between(1, usize::MAX, "names of namespaces")?;
                let known = self.namespaces.get_or_insert_default();
                known.extend(names.iter().map(|name| name.text.to_string()));
            }
            "labels" => self.labels = Some(selector(option)?),
            "namespace_labels" => {
                self.namespace_selector = Some(selector(option)?);
                self.namespace_labels = Some(option.name().clone());
            }
            "endpoint" | "kubeconfig" | "tls" => self.read_access(option, setup)?,
            "apiserver_qps" => {
                let [limit] = option.exactly("a number")?;
                limit.number("apiserver_qps", 0.0..=f32::MAX)?;
            }
            limit @ ("apiserver_burst" | "apiserver_max_inflight") => {
                let [number] = option.exactly("a number")?;
                number.number(limit, 0..=u32::MAX)?;
            }
            _ => return Err(unknown(option)),
        }
        Ok(())
    }

    fn read_access(&mut self, option: &Line, setup: &Setup<'_>) -> Result<(), ConfigError> {
        let path = |token: &Token| -> PathBuf { setup.block.root.join(&*token.text) };
        match &*option.name().text {
            "endpoint" => {
                let urls = option.between(1, usize::MAX, "a URL")?;
                if urls.len() > 1 {
                    tracing::warn!(
                        "{}: only the first of several endpoints is used",
                        option.name().at
                    );
                }
                self.access.master = urls.first().map(|url| url.text.to_string());
            }
            "kubeconfig" => {
                let args = option.between(1, 2, "a file and perhaps a context")?;
                self.access.kubeconfig = args.first().map(path);
                self.access.context = args.get(1).map(|context| context.text.to_string());
            }
            _ => {
                let files = "a certificate, its key, and the file of the authorities";
                let [certificate, key, authorities] = option.exactly(files)?;
                self.access.tls = Some(TlsFiles {
                    certificate: path(certificate),
                    key: path(key),
                    authorities: path(authorities),
                });
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        if let (Some(labels), Some(_)) = (&self.namespace_labels, &self.namespaces) {
            let both = "namespaces and namespace_labels cannot both be set";
            return Err(labels.error(both));
        }
        match &self.zonal {
            Some(zonal) if self.no_endpoints => Err(zonal.error(
                "zonal requires the endpoint cache; remove noendpoints: names of topology \
                 zones are answered from endpoints",
            )),
            _ => Ok(()),
        }
    }

    fn options(&self, setup: &Setup<'_>) -> IndexOptions {
        IndexOptions {
            ttl: self.ttl.unwrap_or(TTL_DEFAULT_S),
            endpoint_pod_names: self.endpoint_pod_names,
            ignore_empty_service: self.ignore_empty_service,
            zonal: self.zonal.is_some(),
            namespaces: self.namespaces.clone(),
            pods: self.follows_pods(setup),
        }
    }

    /// `autopath @kubernetes` looks up its clients, too.
    fn follows_pods(&self, setup: &Setup<'_>) -> bool {
        let autopath = setup.block.directives.iter().any(|name| name == "autopath");
        self.pods == PodMode::Verified || autopath
    }

    fn feed(&self, setup: &Setup<'_>) -> FeedSpec {
        let environment = setup.environment;
        let source = match (&environment.manifests, &environment.kubeconfig) {
            (Some(folder), _) => FeedSource::Manifests(folder.clone()),
            (None, Some(file)) if self.access == Access::default() => FeedSource::Api(Access {
                kubeconfig: Some(file.clone()),
                ..Access::default()
            }),
            _ => FeedSource::Api(self.access()),
        };
        FeedSpec {
            source,
            needs: DnsNeeds {
                no_endpoints: self.no_endpoints,
                pods: self.follows_pods(setup),
                endpoint_pod_names: self.endpoint_pod_names,
                zones: self.zonal.is_some(),
                labels: self.labels.clone(),
                namespace_labels: self.namespace_selector.clone(),
            },
        }
    }

    /// As in the reference, the address in a kubeconfig wins over `endpoint`.
    fn access(&self) -> Access {
        let mut access = self.access.clone();
        if access.kubeconfig.is_some() {
            (access.master, access.tls) = (None, None);
        }
        access
    }
}

fn flag(option: &Line) -> Result<bool, ConfigError> {
    option.no_args().map(|()| true)
}

fn pod_mode(option: &Line) -> Result<PodMode, ConfigError> {
    let [mode] = option.exactly("one of disabled, insecure, verified")?;
    match &*mode.text {
        "disabled" => Ok(PodMode::Disabled),
        "insecure" => Ok(PodMode::Insecure),
        "verified" => Ok(PodMode::Verified),
        other => Err(mode.error(format!(
            "wrong value for pods: expected disabled, insecure or verified, not `{other}`"
        ))),
    }
}

/// Without arguments everything falls through.
fn fallthrough(option: &Line, setup: &Setup<'_>) -> Result<Vec<String>, ConfigError> {
    let _of_the_block_are_never_taken = &setup.block.zones;
    if option.args().is_empty() {
        let root = zone_name(".").map_err(|problem| option.error(problem))?;
        return Ok(vec![root]);
    }
    zones_from_args(option.args(), &[])
}

/// A label selector, which may have blanks.
fn selector(option: &Line) -> Result<String, ConfigError> {
    let parts = option.between(1, usize::MAX, "a label selector")?;
    let parts: Vec<&str> = parts.iter().map(|part| &*part.text).collect();
    let text = parts.join(" ");
    match text.parse::<LabelSelector>() {
        Ok(_) => Ok(text),
        Err(error) => {
            Err(option.error(format!("unable to parse label selector `{text}`: {error}")))
        }
    }
}

fn unknown(option: &Line) -> ConfigError {
    let name = &*option.name().text;
    if name == "multicluster" {
        return option.error(
            "`multicluster` can't be had yet: ServiceImports of other clusters are not \
             followed, and their zones would be answered wrongly",
        );
    }
    match REMOVED.iter().find(|(removed, _)| *removed == name) {
        Some((removed, instead)) => {
            option.error(format!("`{removed}` was removed from CoreDNS: {instead}"))
        }
        None => option.unknown_option(KNOWN),
    }
}
