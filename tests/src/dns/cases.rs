//! The case files of `tests/cases/dns`: a cluster, a Corefile, questions, what must come back.
//! `tests/cases/dns/README.md` describes them for their readers.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::client::Client;
use super::cluster::Cluster;
use super::expect::{Expected, report};
use super::query::{Edns, Query};
use super::server::Setup;
use super::upstream::{Script, Upstream};

const DEFAULT_ZONE: &str = "cluster.local.";
const DEFAULT_ZONES: &str = "cluster.local in-addr.arpa ip6.arpa";
/// TTL of the kubernetes plugin where its `ttl` is not given, in seconds.
const DEFAULT_TTL: u32 = 5;
/// A negative answer's SOA has no longer TTL, in seconds.
const MAX_NEGATIVE_TTL: u32 = 300;
/// The order in which flags are shown.
const FLAGS: [&str; 8] = ["QR", "AA", "TC", "RD", "RA", "Z", "AD", "CD"];
const CLASS_CHAOS: u16 = 3;

/// One server and the questions it is asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServerCases {
    /// What is special about this server.
    pub name: String,
    /// The zones of the kubernetes block.
    #[serde(default = "default_zones")]
    zones: String,
    /// What `@` stands for.
    #[serde(default = "default_zone")]
    zone: String,
    /// The addresses it listens on; the first is asked.
    #[serde(default = "loopback")]
    bind: Vec<IpAddr>,
    /// `ttl` of the kubernetes block.
    ttl: Option<u32>,
    /// Lines of the kubernetes block.
    #[serde(default)]
    kubernetes: Vec<String>,
    /// Further plugins of the server block.
    #[serde(default)]
    plugins: Vec<String>,
    /// The whole Corefile instead of all that.
    corefile: Option<String>,
    /// Added to the file's cluster.
    #[serde(default)]
    cluster: Cluster,
    /// What the upstream says; `$UPSTREAM` in `plugins` is its address.
    upstream: Option<BTreeMap<String, Script>>,
    /// Whether the first list of the cluster ever comes in.
    #[serde(default = "yes")]
    pub synced: bool,
    /// The questions.
    cases: Vec<Case>,
}

/// One question.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Case {
    name: String,
    /// `name TYPE` or `name CH TYPE`.
    ask: String,
    #[serde(default)]
    over: Over,
    /// The client's UDP payload size.
    edns: Option<u16>,
    #[serde(default)]
    cd: bool,
    #[serde(default)]
    no_rd: bool,
    /// NOERROR unless given.
    rcode: Option<String>,
    /// Flags beside QR and what is copied from the question; AA unless given.
    flags: Option<Vec<String>>,
    #[serde(default)]
    answer: Vec<String>,
    #[serde(default)]
    authority: Vec<String>,
    #[serde(default)]
    additional: Vec<String>,
    /// Why the reply is to be this one, where that needs words.
    #[serde(default)]
    #[expect(dead_code, reason = "for the reader of the file only")]
    why: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Over {
    #[default]
    Udp,
    Tcp,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    #[serde(default)]
    cluster: Cluster,
    servers: Vec<ServerCases>,
}

fn loopback() -> Vec<IpAddr> {
    vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]
}

fn yes() -> bool {
    true
}

fn default_zone() -> String {
    DEFAULT_ZONE.to_owned()
}

fn default_zones() -> String {
    DEFAULT_ZONES.to_owned()
}

/// Reads every `*.yaml` file of a folder. A server's name begins with its file's.
///
/// # Errors
/// A file does not follow the notation; the message names it.
pub fn load_dir(dir: &Path) -> Result<Vec<ServerCases>> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .with_context(|| format!("read {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .collect();
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path)?;
        let file: CaseFile =
            serde_saphyr::from_str(&text).with_context(|| path.display().to_string())?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        for mut server in file.servers {
            server.cluster = file.cluster.with(&server.cluster);
            server.name = format!("{stem}: {}", server.name);
            server
                .check()
                .with_context(|| format!("server `{}`", server.name))?;
            all.push(server);
        }
    }
    Ok(all)
}

impl ServerCases {
    /// How many questions there are.
    pub const fn len(&self) -> usize {
        self.cases.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// Keeps only the cases whose name contains `text`.
    pub fn retain(&mut self, text: &str) {
        if !self.name.contains(text) {
            self.cases.retain(|case| case.name.contains(text));
        }
    }

    /// How its server is started, and its upstream, already running.
    ///
    /// # Errors
    /// The cluster is not well written, or no port is free.
    pub fn setup(&self) -> Result<(Setup, Option<Upstream>)> {
        let upstream = match &self.upstream {
            Some(scripts) => Some(Upstream::start(scripts)?),
            None => None,
        };
        let address = upstream
            .as_ref()
            .map_or_else(String::new, |running| running.address().to_string());
        let corefile = self.corefile().replace("$UPSTREAM", &address);
        let mut setup = Setup::new(&corefile);
        setup.address = *self.bind.first().context("`bind` names no address")?;
        if self.synced {
            setup.objects = Some(self.cluster.objects()?);
        } else {
            setup.do_not_wait_for_ready = true;
        }
        Ok((setup, upstream))
    }

    fn corefile(&self) -> String {
        if let Some(whole) = &self.corefile {
            return whole.clone();
        }
        let mut lines = self.kubernetes.clone();
        if let Some(ttl) = self.ttl {
            lines.push(format!("ttl {ttl}"));
        }
        if !self.synced {
            lines.push("kubeconfig $DIR/kubeconfig".to_owned());
            lines.push("startup_timeout 200ms".to_owned());
        }
        let bind: Vec<String> = self.bind.iter().map(ToString::to_string).collect();
        format!(
            ".:$DNS {{\n    bind {}\n    errors\n    ready 127.0.0.1:$READY\n    \
             kubernetes {} {{\n        {}\n    }}\n    {}\n}}\n",
            bind.join(" "),
            self.zones,
            lines.join("\n        "),
            self.plugins.join("\n    "),
        )
    }

    /// Asks every question; what failed, one text a case.
    pub fn run(&self, client: &Client) -> Vec<String> {
        let results = self.cases.iter().map(|case| self.run_case(case, client));
        results.filter_map(Result::err).collect()
    }

    fn run_case(&self, case: &Case, client: &Client) -> Result<(), String> {
        let title = format!("{} / {}: {}", self.name, case.name, case.ask);
        let asked = || -> Result<_> {
            let (query, expected) = (self.query(case)?, self.expected(case)?);
            let reply = match case.over {
                Over::Udp => client.query(&query)?,
                Over::Tcp => client.query_tcp(&query)?,
            };
            Ok((expected, reply))
        };
        let (expected, reply) = asked().map_err(|error| format!("{title}\n    {error:#}\n"))?;
        let differences = expected.differences(&reply);
        if differences.is_empty() {
            return Ok(());
        }
        Err(report(&title, &differences, &reply))
    }

    fn check(&self) -> Result<()> {
        ensure!(self.zone.ends_with('.'), "`zone` must end with a dot");
        for case in &self.cases {
            let check = || -> Result<()> {
                self.query(case)?.encode()?;
                self.expected(case)?;
                Ok(())
            };
            check().with_context(|| format!("case `{}`", case.name))?;
        }
        self.cluster.objects()?;
        Ok(())
    }

    fn query(&self, case: &Case) -> Result<Query> {
        let words: Vec<&str> = case.ask.split_whitespace().collect();
        let (name, class, rtype) = match words.as_slice() {
            [name, rtype] => (name, None, rtype),
            [name, "CH", rtype] => (name, Some(CLASS_CHAOS), rtype),
            _ => bail!("`{}` is not `name TYPE` or `name CH TYPE`", case.ask),
        };
        let mut query = Query::new(&self.spell_out(name, ""), rtype)?;
        query.class = class.unwrap_or(query.class);
        query.rd = !case.no_rd;
        query.cd = case.cd;
        query.edns = case.edns.map(|size| Edns {
            size,
            version: 0,
            dnssec_ok: false,
            options: Vec::new(),
        });
        Ok(query)
    }

    fn expected(&self, case: &Case) -> Result<Expected> {
        let query = self.query(case)?;
        let mut flags = vec!["QR".to_owned()];
        flags.extend(case.flags.clone().unwrap_or_else(|| vec!["AA".to_owned()]));
        flags.extend(query.rd.then(|| "RD".to_owned()));
        flags.extend(query.cd.then(|| "CD".to_owned()));
        if let Some(wrong) = flags.iter().find(|flag| !FLAGS.contains(&flag.as_str())) {
            bail!("no flag `{wrong}`; expected one of {FLAGS:?}");
        }
        let shown = FLAGS
            .into_iter()
            .filter(|flag| flags.iter().any(|set| set == flag));
        let section = |records: &[String]| -> Vec<String> {
            let spelled = records.iter().map(|record| match record.as_str() {
                "SOA" => self.soa(&query.name),
                _ => self.spell_out(record, &query.name),
            });
            spelled.collect()
        };
        Ok(Expected {
            rcode: case.rcode.clone().unwrap_or_else(|| "NOERROR".to_owned()),
            flags: shown.collect::<Vec<_>>().join(" "),
            answer: section(&case.answer),
            authority: section(&case.authority),
            additional: section(&case.additional),
        })
    }

    /// Every `@` that is a word or the end of one becomes the zone, every word `^` the name asked.
    fn spell_out(&self, text: &str, asked: &str) -> String {
        let words = text.split_whitespace().map(|word| {
            if word == "^" {
                return asked.to_owned();
            }
            match word.strip_suffix('@') {
                Some(before) if before.is_empty() || before.ends_with('.') => {
                    format!("{before}{}", self.zone)
                }
                _ => word.to_owned(),
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// The SOA of a negative answer; the zone in the case of the question.
    fn soa(&self, asked: &str) -> String {
        let asked_zone = asked
            .len()
            .checked_sub(self.zone.len())
            .and_then(|at| asked.get(at..))
            .filter(|end| end.eq_ignore_ascii_case(&self.zone));
        let zone = asked_zone.unwrap_or(&self.zone);
        let minimum = self.ttl.unwrap_or(DEFAULT_TTL);
        let ttl = minimum.min(MAX_NEGATIVE_TTL);
        format!("{zone} {ttl} SOA ns.dns.{zone} hostmaster.{zone} * 7200 1800 86400 {minimum}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::oracle::{Oracle, OracleConfig};
    use super::*;

    const KNOWN_OPTIONS: [&str; 5] = [
        "pods disabled",
        "pods insecure",
        "pods verified",
        "endpoint_pod_names",
        "ignore empty_service",
    ];

    impl ServerCases {
        /// An oracle for this server, if it can be one: one forward zone, no option it has not.
        fn oracle(&self) -> Option<Oracle> {
            let has = |option: &str| self.kubernetes.iter().any(|line| line == option);
            let known = self.kubernetes.iter().all(|line| {
                KNOWN_OPTIONS.contains(&line.as_str()) || line.starts_with("fallthrough ")
            });
            if self.corefile.is_some() || !self.synced || !known || self.zones != DEFAULT_ZONES {
                return None;
            }
            let pods = ["verified", "insecure"]
                .into_iter()
                .find(|pods| has(&format!("pods {pods}")));
            let config = OracleConfig {
                zone: self.zone.clone(),
                ttl: self.ttl.unwrap_or(DEFAULT_TTL),
                pods: pods.unwrap_or("disabled"),
                endpoint_pod_names: has("endpoint_pod_names"),
                ignore_empty_service: has("ignore empty_service"),
                own: self.bind.clone(),
            };
            Some(Oracle::new(config, &self.cluster.objects().ok()?))
        }
    }

    /// Two that know nothing of each other say the same: the case files, and the oracle of the
    /// generated clusters. What leaves the cluster is not the oracle's business.
    #[test]
    fn the_oracle_and_the_case_files_agree() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/dns");
        let (mut compared, mut wrong) = (0, Vec::new());
        for server in load_dir(&dir).unwrap() {
            let Some(oracle) = server.oracle() else {
                continue;
            };
            for case in &server.cases {
                let query = server.query(case).unwrap();
                let rtype = case.ask.split(' ').next_back().unwrap();
                let lower = query.name.to_lowercase();
                let elsewhere = !lower.ends_with(&server.zone) && !lower.ends_with(".arpa.");
                let mut ours = server.expected(case).unwrap();
                let flags = case.flags.is_some() || case.cd || case.no_rd;
                let text = format!("{:?}", (&ours, &case.ask));
                let outside = [
                    "interwebs",
                    "-outside.testns",
                    "x.10-240",
                    "outside.testns",
                    " CH ",
                    "192.0.2",
                    "literal",
                ];
                let plugins = server
                    .plugins
                    .iter()
                    .any(|line| !line.starts_with("forward"));
                if elsewhere || flags || plugins || outside.iter().any(|word| text.contains(word)) {
                    continue;
                }
                if lower.starts_with('_') && rtype != "SRV" || text.contains(" SRV 0 * ") {
                    continue;
                }
                let mut theirs = oracle.answer(&query.name, rtype);
                for expected in [&mut ours, &mut theirs] {
                    expected.answer.sort();
                    expected.additional.sort();
                }
                compared += 1;
                if ours != theirs {
                    wrong.push(format!(
                        "{} {}:\n  {ours:?}\n  {theirs:?}",
                        server.name, case.ask
                    ));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(compared > 100, "only {compared}");
    }
}
