//! Typed handles: what one can do with a metric, and nothing else.

use std::marker::PhantomData;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{
    CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec,
    Opts, Registry,
};

use switchyard_cluster::source::api::RequestDone;
use switchyard_operation::build;

use super::definition::{Definition, MetricType};
use super::label::Label;
use crate::plan::PlanId;

/// A kind of handle: how it is registered and described.
pub(super) trait Handle: Sized {
    const TYPE: MetricType;
    const LABELS: &'static [&'static str];
    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error>;
}

fn opts(definition: &Definition) -> Opts {
    Opts::new(definition.name, definition.help.clone())
}

/// Something that is counted and never goes down. A series appears with its first count;
/// one without labels is there from the start.
#[derive(Clone, Debug)]
pub struct Counter<L>(IntCounterVec, PhantomData<L>);

impl<L: Label> Counter<L> {
    /// Counts one.
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// Counts several; 0 makes the series appear.
    pub fn add(&self, label: L, count: u64) {
        self.0
            .with_label_values(label.values().as_ref())
            .inc_by(count);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self, label: L) -> u64 {
        self.0.with_label_values(label.values().as_ref()).get()
    }
}

impl<L: Label> Handle for Counter<L> {
    const TYPE: MetricType = MetricType::Counter;
    const LABELS: &'static [&'static str] = L::NAMES;

    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error> {
        let vec = IntCounterVec::new(opts(definition), L::NAMES)?;
        registry.register(Box::new(vec.clone()))?;
        if L::NAMES.is_empty() {
            vec.with_label_values::<&str>(&[]);
        }
        Ok(Self(vec, PhantomData))
    }
}

/// A total that somebody else counts (the kernel, mostly) and that we pass on. Absent until
/// it has been read once.
#[derive(Clone, Debug)]
pub struct ForeignTotal<L>(IntCounterVec, PhantomData<L>);

impl<L: Label> ForeignTotal<L> {
    /// The total as just read. One lower than the last means that the counting began anew.
    pub fn set(&self, label: L, total: u64) {
        follow(&self.0.with_label_values(label.values().as_ref()), total);
    }
}

fn follow(counter: &IntCounter, total: u64) {
    if total < counter.get() {
        counter.reset();
    }
    counter.inc_by(total.saturating_sub(counter.get()));
}

impl<L: Label> Handle for ForeignTotal<L> {
    const TYPE: MetricType = MetricType::Counter;
    const LABELS: &'static [&'static str] = L::NAMES;

    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error> {
        let vec = IntCounterVec::new(opts(definition), L::NAMES)?;
        registry.register(Box::new(vec.clone()))?;
        Ok(Self(vec, PhantomData))
    }
}

/// A total of each Service port, which somebody else counts. A series is there from when it
/// is set until it is removed.
#[derive(Clone, Debug)]
pub struct ServicePortTotal(IntCounterVec);

impl ServicePortTotal {
    /// The total as just read. One lower than the last means that the counting began anew.
    pub fn set(&self, id: &PlanId, total: u64) {
        follow(&self.0.with_label_values(&Self::values(id)), total);
    }

    /// The Service port is gone.
    pub fn remove(&self, id: &PlanId) {
        // One that was never set has nothing to remove.
        let _ = self.0.remove_label_values(&Self::values(id));
    }

    fn values(id: &PlanId) -> [&str; 5] {
        [
            &id.service.namespace,
            &id.service.name,
            &id.port_name,
            id.protocol.as_str(),
            id.family.as_str(),
        ]
    }
}

impl Handle for ServicePortTotal {
    const TYPE: MetricType = MetricType::Counter;
    const LABELS: &'static [&'static str] = &["namespace", "service", "port", "protocol", "family"];

    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error> {
        let vec = IntCounterVec::new(opts(definition), Self::LABELS)?;
        registry.register(Box::new(vec.clone()))?;
        Ok(Self(vec))
    }
}

/// CPU time that the kernel counts, in seconds.
#[derive(Clone, Debug)]
pub struct CpuTime(CounterVec);

impl CpuTime {
    /// The time as just read. It never goes down.
    pub fn set(&self, total: Duration) {
        let counter = self.0.with_label_values::<&str>(&[]);
        counter.inc_by((total.as_secs_f64() - counter.get()).max(0.0));
    }
}

impl Handle for CpuTime {
    const TYPE: MetricType = MetricType::Counter;
    const LABELS: &'static [&'static str] = &[];

    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error> {
        let vec = CounterVec::new(opts(definition), &[])?;
        registry.register(Box::new(vec.clone()))?;
        Ok(Self(vec))
    }
}

/// How many of something there are now. A series appears once it is set; one without labels
/// is there from the start.
#[derive(Clone, Debug)]
pub struct Amount<L>(IntGaugeVec, PhantomData<L>);

impl<L: Label> Amount<L> {
    /// Says how many there are.
    pub fn set(&self, label: L, amount: usize) {
        self.0
            .with_label_values(label.values().as_ref())
            .set(i64::try_from(amount).unwrap_or(i64::MAX));
    }

    /// One more.
    pub fn inc(&self, label: L) {
        self.0.with_label_values(label.values().as_ref()).inc();
    }

    /// One less.
    pub fn dec(&self, label: L) {
        self.0.with_label_values(label.values().as_ref()).dec();
    }

    /// How many there are.
    #[must_use]
    pub fn get(&self, label: L) -> i64 {
        self.0.with_label_values(label.values().as_ref()).get()
    }
}

impl<L: Label> Handle for Amount<L> {
    const TYPE: MetricType = MetricType::Gauge;
    const LABELS: &'static [&'static str] = L::NAMES;

    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error> {
        let vec = IntGaugeVec::new(opts(definition), L::NAMES)?;
        registry.register(Box::new(vec.clone()))?;
        if L::NAMES.is_empty() {
            vec.with_label_values::<&str>(&[]);
        }
        Ok(Self(vec, PhantomData))
    }
}

/// A size in bytes. Absent until it is set.
#[derive(Clone, Debug)]
pub struct Bytes(GaugeVec);

impl Bytes {
    /// Sets the size. Sizes past 2⁵³ are rounded, as every number of Prometheus is.
    pub fn set(&self, bytes: u64) {
        let high = u32::try_from(bytes >> 32).unwrap_or(u32::MAX);
        let low = u32::try_from(bytes & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        let value = f64::from(high).mul_add(2_f64.powi(32), f64::from(low));
        self.0.with_label_values::<&str>(&[]).set(value);
    }
}

impl Handle for Bytes {
    const TYPE: MetricType = MetricType::Gauge;
    const LABELS: &'static [&'static str] = &[];

    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error> {
        let vec = GaugeVec::new(opts(definition), &[])?;
        registry.register(Box::new(vec.clone()))?;
        Ok(Self(vec))
    }
}

/// When something happened last, in seconds since 1970. Absent until it has happened: a zero
/// would look like 1970 to an alert on age.
#[derive(Clone, Debug)]
pub struct Timestamp<L>(GaugeVec, PhantomData<L>);

impl<L: Label> Timestamp<L> {
    /// It happened at this time.
    pub fn set(&self, label: L, time: SystemTime) {
        let since_1970 = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0
            .with_label_values(label.values().as_ref())
            .set(since_1970.as_secs_f64());
    }
}

impl<L: Label> Handle for Timestamp<L> {
    const TYPE: MetricType = MetricType::Gauge;
    const LABELS: &'static [&'static str] = L::NAMES;

    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error> {
        let vec = GaugeVec::new(opts(definition), L::NAMES)?;
        registry.register(Box::new(vec.clone()))?;
        Ok(Self(vec, PhantomData))
    }
}

/// How long something took, in seconds, as a histogram. A series appears with its first
/// observation.
#[derive(Clone, Debug)]
pub struct Durations<L>(HistogramVec, PhantomData<L>);

impl<L: Label> Durations<L> {
    /// It took this long once.
    pub fn observe(&self, label: L, duration: Duration) {
        self.0
            .with_label_values(label.values().as_ref())
            .observe(duration.as_secs_f64());
    }
}

impl<L: Label> Handle for Durations<L> {
    const TYPE: MetricType = MetricType::Histogram;
    const LABELS: &'static [&'static str] = L::NAMES;

    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error> {
        let opts = HistogramOpts::from(opts(definition)).buckets(definition.buckets.clone());
        let vec = HistogramVec::new(opts, L::NAMES)?;
        registry.register(Box::new(vec.clone()))?;
        Ok(Self(vec, PhantomData))
    }
}

/// Requests to the API server.
#[derive(Clone, Debug)]
pub struct ApiRequests(IntCounterVec);

/// The reference's word for a request that got no answer.
const NO_ANSWER: &str = "<error>";

impl ApiRequests {
    /// One more.
    pub fn inc(&self, request: &RequestDone<'_>) {
        let code = request.code.map(|code| code.to_string());
        let code = code.as_deref().unwrap_or(NO_ANSWER);
        let values = [code, request.host, request.method];
        self.0.with_label_values(&values).inc();
    }
}

impl Handle for ApiRequests {
    const TYPE: MetricType = MetricType::Counter;
    const LABELS: &'static [&'static str] = &["code", "host", "method"];

    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error> {
        let vec = IntCounterVec::new(opts(definition), Self::LABELS)?;
        registry.register(Box::new(vec.clone()))?;
        Ok(Self(vec))
    }
}

/// How long requests to the API server took.
#[derive(Clone, Debug)]
pub struct ApiDurations(HistogramVec);

impl ApiDurations {
    /// One took this long.
    pub fn observe(&self, request: &RequestDone<'_>) {
        let series = self.0.with_label_values(&[request.host, request.method]);
        series.observe(request.took.as_secs_f64());
    }
}

impl Handle for ApiDurations {
    const TYPE: MetricType = MetricType::Histogram;
    const LABELS: &'static [&'static str] = &["host", "verb"];

    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error> {
        let opts = HistogramOpts::from(opts(definition)).buckets(definition.buckets.clone());
        let vec = HistogramVec::new(opts, Self::LABELS)?;
        registry.register(Box::new(vec.clone()))?;
        Ok(Self(vec))
    }
}

/// What was built.
#[derive(Clone, Debug)]
pub struct BuildInfo;

impl Handle for BuildInfo {
    const TYPE: MetricType = MetricType::Gauge;
    const LABELS: &'static [&'static str] = &["version", "commit"];

    fn register(registry: &Registry, definition: &Definition) -> Result<Self, prometheus::Error> {
        let vec = IntGaugeVec::new(opts(definition), Self::LABELS)?;
        vec.with_label_values(&[build::VERSION, build::COMMIT])
            .set(1);
        registry.register(Box::new(vec))?;
        Ok(Self)
    }
}
