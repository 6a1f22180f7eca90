//! What is asked.

use std::fmt;

use super::cluster::{NAMESPACES, PORT, Service, ZONE, namespace};
use super::zone::{OUTSIDE_NAMES, outside_domain, reverse_domain};

/// Every list of queries is made from this.
const SEED: u64 = 0x5377_6974_6368;
/// Queries of one list, which dnsperf asks again and again.
const QUERIES: usize = 20_000;

/// A kind of question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Workload {
    ClusterA,
    ClusterAaaa,
    Srv,
    HeadlessA,
    Ptr,
    SearchPath,
    Mixed,
    Outside,
}

impl Workload {
    pub(super) const ALL: [Self; 8] = [
        Self::ClusterA,
        Self::ClusterAaaa,
        Self::Srv,
        Self::HeadlessA,
        Self::Ptr,
        Self::SearchPath,
        Self::Mixed,
        Self::Outside,
    ];

    /// The word for files and tables.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ClusterA => "A",
            Self::ClusterAaaa => "AAAA",
            Self::Srv => "SRV",
            Self::HeadlessA => "headless A",
            Self::Ptr => "PTR",
            Self::SearchPath => "search-path NXDOMAIN",
            Self::Mixed => "mixed",
            Self::Outside => "outside, cached",
        }
    }

    /// The response code that every answer must have; None where there are several.
    pub(super) const fn rcode(self) -> Option<&'static str> {
        match self {
            Self::SearchPath => Some("NXDOMAIN"),
            Self::Mixed => None,
            _ => Some("NOERROR"),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A question: a name without the last dot, and a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) name: String,
    pub(super) rtype: &'static str,
}

impl Query {
    fn new(name: String, rtype: &'static str) -> Self {
        Self { name, rtype }
    }
}

/// The queries of a workload, the same in each run.
pub(super) fn queries(workload: Workload, services: &[Service]) -> Vec<Query> {
    let mut random = fastrand::Rng::with_seed(SEED);
    if workload == Workload::Outside {
        // Each name as often as any other, so that one pass warms a cache.
        let mut numbers: Vec<usize> = (0..QUERIES).map(|n| n % OUTSIDE_NAMES).collect();
        random.shuffle(&mut numbers);
        return numbers
            .into_iter()
            .map(|number| Query::new(outside_domain(number), "A"))
            .collect();
    }
    let (headless, with_ip): (Vec<&Service>, Vec<&Service>) =
        services.iter().partition(|service| service.is_headless());
    let mut pick = Pick {
        random,
        headless,
        with_ip,
    };
    (0..QUERIES).filter_map(|_| pick.query(workload)).collect()
}

struct Pick<'a> {
    random: fastrand::Rng,
    headless: Vec<&'a Service>,
    with_ip: Vec<&'a Service>,
}

impl Pick<'_> {
    fn with_ip(&mut self) -> Option<&Service> {
        self.random.choice(&self.with_ip).copied()
    }

    fn headless(&mut self) -> Option<&Service> {
        self.random.choice(&self.headless).copied()
    }

    fn query(&mut self, workload: Workload) -> Option<Query> {
        Some(match workload {
            Workload::ClusterA => Query::new(self.with_ip()?.domain(), "A"),
            Workload::ClusterAaaa => Query::new(self.with_ip()?.domain(), "AAAA"),
            Workload::Srv => {
                let domain = self.with_ip()?.domain();
                Query::new(format!("_{}._tcp.{domain}", PORT.0), "SRV")
            }
            Workload::HeadlessA => Query::new(self.headless()?.domain(), "A"),
            Workload::Ptr => {
                let address = if self.random.bool() {
                    self.with_ip()?.cluster_ip?
                } else {
                    *self.headless()?.endpoints.first()?
                };
                Query::new(reverse_domain(address), "PTR")
            }
            Workload::SearchPath => Query::new(self.search_path()?, "A"),
            Workload::Mixed => {
                // As pods with ndots:5 ask: misses first, then A and AAAA, little of the rest.
                let workload = match self.random.u8(0..100) {
                    0..40 => Workload::SearchPath,
                    40..65 => Workload::ClusterA,
                    65..85 => Workload::ClusterAaaa,
                    85..90 => Workload::Srv,
                    90..95 => Workload::HeadlessA,
                    _ => Workload::Ptr,
                };
                return self.query(workload);
            }
            Workload::Outside => return None,
        })
    }

    /// A name that is not there, made by a search list from one that is.
    fn search_path(&mut self) -> Option<String> {
        let own = namespace(self.random.usize(0..NAMESPACES));
        let search = match self.random.u8(0..3) {
            0 => format!("{own}.svc.{ZONE}"),
            1 => format!("svc.{ZONE}"),
            _ => ZONE.to_owned(),
        };
        let asked = if self.random.bool() {
            outside_domain(self.random.usize(0..OUTSIDE_NAMES))
        } else {
            self.with_ip()?.domain()
        };
        Some(format!("{asked}.{search}"))
    }
}

/// The queries in dnsperf's form.
pub(super) fn dnsperf_lines(queries: &[Query]) -> String {
    queries
        .iter()
        .map(|query| format!("{}. {}\n", query.name, query.rtype))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::cluster::services;
    use super::*;

    #[test]
    fn a_list_is_the_same_each_time_and_full() {
        let services = services(100, 200).unwrap();
        for workload in Workload::ALL {
            let list = queries(workload, &services);
            assert_eq!(list.len(), QUERIES, "{workload}");
            assert_eq!(list, queries(workload, &services), "{workload}");
        }
    }

    #[test]
    fn search_path_names_are_not_services() {
        let services = services(100, 200).unwrap();
        let names: std::collections::BTreeSet<_> = services.iter().map(Service::domain).collect();
        for query in queries(Workload::SearchPath, &services) {
            assert!(!names.contains(&query.name));
            assert!(query.name.ends_with(".cluster.local"));
        }
    }
}
