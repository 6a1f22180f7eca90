//! What is counted about following a cluster.

use std::collections::{HashMap, HashSet};
use std::sync::OnceLock;

use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};
use switchyard_cluster::object::Kind;
use switchyard_cluster::source::api::{RequestDone, RequestObserver};
use switchyard_cluster::store::Store;
use switchyard_cluster::update::Update;

/// The reference's word for a request that got no answer.
const NO_ANSWER: &str = "<error>";

/// The families that all feeds share.
struct Families {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    objects: IntGaugeVec,
    trouble: IntGaugeVec,
    problems: IntCounterVec,
}

impl Families {
    /// The one set of this process; `None` if a name is taken, which is a mistake in the code
    /// and logged once.
    fn get() -> Option<&'static Self> {
        static FAMILIES: OnceLock<Option<Families>> = OnceLock::new();
        let families = FAMILIES.get_or_init(|| {
            let made = Self::new().and_then(|families| {
                families.register()?;
                Ok(families)
            });
            made.inspect_err(|error| tracing::error!("metrics of the cluster: {error}"))
                .ok()
        });
        families.as_ref()
    }

    fn new() -> Result<Self, prometheus::Error> {
        let counter =
            |name, help, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let gauge = |name, help| IntGaugeVec::new(Opts::new(name, help), &["kind"]);
        let seconds = HistogramOpts::new(
            "coredns_kubernetes_rest_client_request_duration_seconds",
            "Time from a request to the API server to the head of its answer.",
        );
        Ok(Self {
            requests: counter(
                "coredns_kubernetes_rest_client_requests_total",
                "Requests to the API server, by the answer's status.",
                &["code", "method", "host"],
            )?,
            request_seconds: HistogramVec::new(seconds, &["verb", "host"])?,
            objects: gauge(
                "switchyard_dns_objects",
                "Objects of the cluster that are known.",
            )?,
            trouble: gauge(
                "switchyard_dns_source_trouble",
                "Feeds that cannot follow this kind right now; what they know stays.",
            )?,
            problems: counter(
                "switchyard_dns_object_problems_total",
                "Objects, or parts of them, that could not be used.",
                &["kind"],
            )?,
        })
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let collectors: [Box<dyn Collector>; 5] = [
            Box::new(self.requests.clone()),
            Box::new(self.request_seconds.clone()),
            Box::new(self.objects.clone()),
            Box::new(self.trouble.clone()),
            Box::new(self.problems.clone()),
        ];
        for collector in collectors {
            crate::metrics::registry().register(collector)?;
        }
        Ok(())
    }
}

/// Makes the metrics known.
pub(super) fn register() {
    let _known = Families::get();
}

/// Counts requests to API servers.
pub(super) fn request_observer() -> Option<RequestObserver> {
    let families = Families::get()?;
    Some(RequestObserver::new(|request| families.count(request)))
}

impl Families {
    fn count(&self, request: &RequestDone<'_>) {
        let RequestDone { method, host, .. } = *request;
        let code = request.code.map(|code| code.to_string());
        let code = code.as_deref().unwrap_or(NO_ANSWER);
        self.requests.with_label_values(&[code, method, host]).inc();
        let seconds = self.request_seconds.with_label_values(&[method, host]);
        seconds.observe(request.took.as_secs_f64());
    }
}

/// One feed's part in the gauges; taken back when it ends.
pub(super) struct FeedMetrics {
    families: Option<&'static Families>,
    objects: HashMap<Kind, i64>,
    trouble: HashSet<Kind>,
}

impl FeedMetrics {
    pub(super) fn new() -> Self {
        Self {
            families: Families::get(),
            objects: HashMap::new(),
            trouble: HashSet::new(),
        }
    }

    /// Counts what is wrong with an update.
    pub(super) fn tell(&mut self, update: &Update) {
        let Some(families) = self.families else {
            return;
        };
        match update {
            Update::Unreadable(kind, ..) | Update::Odd(kind, ..) => {
                families.problems.with_label_values(&[kind.as_str()]).inc();
            }
            Update::Trouble(kind, trouble) => {
                let gauge = families.trouble.with_label_values(&[kind.as_str()]);
                if trouble.is_some() && self.trouble.insert(*kind) {
                    gauge.inc();
                } else if trouble.is_none() && self.trouble.remove(kind) {
                    gauge.dec();
                }
            }
            _ => {}
        }
    }

    /// Shows how many objects there are of these kinds.
    pub(super) fn count(&mut self, kinds: &[Kind], store: &Store) {
        for kind in kinds {
            self.set(*kind, i64::try_from(store.count(*kind)).unwrap_or(i64::MAX));
        }
    }

    fn set(&mut self, kind: Kind, count: i64) {
        let Some(families) = self.families else {
            return;
        };
        let before = self.objects.insert(kind, count).unwrap_or(0);
        let gauge = families.objects.with_label_values(&[kind.as_str()]);
        gauge.add(count - before);
    }
}

impl Drop for FeedMetrics {
    fn drop(&mut self) {
        for kind in Kind::ALL {
            if self.objects.contains_key(&kind) {
                self.set(kind, 0);
            }
            if self.trouble.contains(&kind) {
                self.tell(&Update::Trouble(kind, None));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::super::{Access, DnsNeeds, FeedSource, FeedSpec, Feeds};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(15);

    #[test]
    fn requests_that_get_no_answer_are_counted_as_errors_and_the_kinds_are_in_trouble() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = unused.local_addr().unwrap().to_string();
        drop(unused);
        let spec = FeedSpec {
            source: FeedSource::Api(Access {
                master: Some(format!("http://{host}")),
                ..Access::default()
            }),
            needs: DnsNeeds {
                pods: true,
                ..DnsNeeds::default()
            },
        };
        let feed = Feeds::default().feed(&spec);
        feed.start().unwrap();
        let families = Families::get().unwrap();
        let failed = families
            .requests
            .with_label_values(&[NO_ANSWER, "GET", host.as_str()]);
        // Pods are what no feed of another test follows.
        let trouble = families.trouble.with_label_values(&[Kind::Pod.as_str()]);
        let began = Instant::now();
        while failed.get() < 4 || trouble.get() != 1 {
            assert!(began.elapsed() < PATIENCE, "{} requests", failed.get());
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(feed);
        while trouble.get() != 0 {
            assert!(began.elapsed() < PATIENCE, "still in trouble");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn feeds_add_up_and_take_back_what_they_added() {
        // A kind that no feed of another test follows.
        let kind = Kind::ServiceCidr;
        let families = Families::get().unwrap();
        let objects = families.objects.with_label_values(&[kind.as_str()]);
        let trouble = families.trouble.with_label_values(&[kind.as_str()]);
        let (mut one, mut two) = (FeedMetrics::new(), FeedMetrics::new());
        one.set(kind, 3);
        two.set(kind, 4);
        one.set(kind, 2);
        one.tell(&Update::Trouble(kind, Some("one".to_owned())));
        one.tell(&Update::Trouble(kind, Some("another".to_owned())));
        two.tell(&Update::Trouble(kind, None));
        assert_eq!((objects.get(), trouble.get()), (6, 1));
        drop(one);
        assert_eq!((objects.get(), trouble.get()), (4, 0));
        drop(two);
        assert_eq!(objects.get(), 0);
    }
}
