//! Running cases against one backend.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::backend::Backend;
use super::differences::{Differences, Situation};
use super::expand::expand_service;
use super::format::{Case, ProxyAction, Step};
use super::leftovers::Emptiness;
use super::manifests::{Manifests, node_objects};
use super::packets::Sender;
use super::rules::check_rules;
use super::servers::serve_endpoints_of;
use super::service::ServiceSpec;
use crate::testbed::{Family, Outcome, Place, Probe, Protocol, Proxy, Testbed, wait_for};

/// The Service that tells when a change is in the kernel: its endpoint's port changes with it.
const MARKER: &str = "testbed/marker";
const MARKER_CLUSTER_IP: &str = "10.96.0.99";
const MARKER_ENDPOINT: &str = "10.244.2.22";
const MARKER_PORTS: [u16; 2] = [7001, 7002];

/// A change must be in the kernel by then.
const PROGRAMMED_LIMIT: Duration = Duration::from_secs(15);
const POLL_EVERY: Duration = Duration::from_millis(15);
/// A marker probe that meets a passing refusal would else wait for TCP's retry.
const MARKER_TIMEOUT: Duration = Duration::from_millis(250);

/// A case that did not do what it says.
#[derive(Debug)]
pub struct CaseFailure {
    /// The case, with its file.
    pub case: String,
    /// The step, counted from 1, with its name.
    pub step: String,
    /// What came back instead.
    pub what: Vec<String>,
    /// The end of the proxy's log.
    pub log: String,
}

impl fmt::Display for CaseFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "FAILED {} [{}]", self.case, self.step)?;
        for line in &self.what {
            writeln!(f, "    {line}")?;
        }
        for line in self.log.lines() {
            writeln!(f, "      log| {line}")?;
        }
        Ok(())
    }
}

/// Runs cases one after the other on one testbed, restarting the proxy only for other flags.
pub struct CaseRunner<'a> {
    bed: &'a Testbed,
    backend: Backend,
    differences: Differences,
    manifests: Manifests,
    proxy: Option<Proxy>,
    /// What stands without any Service, since the proxy has these flags.
    emptiness: Option<Emptiness>,
    flags: Vec<String>,
    generation: usize,
}

/// The cluster of a case as it stands after the steps so far.
struct State<'c> {
    case: &'c Case,
    services: BTreeMap<String, ServiceSpec>,
    objects: Vec<Value>,
    sender: Sender<'c>,
}

impl<'c> State<'c> {
    fn new(
        bed: &'c Testbed,
        backend: Backend,
        differences: &'c Differences,
        case: &'c Case,
    ) -> Self {
        Self {
            case,
            services: case.services.clone(),
            objects: case.objects.clone(),
            sender: Sender::new(bed, backend, differences),
        }
    }

    /// Sends a step's packets; returns a line for each kind that did not meet what it must.
    fn check_packets(&self, step: &Step) -> Vec<String> {
        let situation = Situation {
            flags: &self.case.flags,
            services: &self.services,
        };
        self.sender
            .check(&step.packets, &self.case.families, situation)
    }
}

impl<'a> CaseRunner<'a> {
    /// A runner without a proxy yet: the first case starts it.
    pub fn new(bed: &'a Testbed, backend: Backend) -> Result<Self> {
        for port in MARKER_PORTS {
            for family in [Family::IPv4, Family::IPv6] {
                let endpoint = SocketAddr::new(family.twin(MARKER_ENDPOINT.parse()?), port);
                bed.serve_endpoint(Protocol::Tcp, endpoint)?;
            }
        }
        let manifests = Manifests::create(bed.work_dir(), "manifests")?;
        Ok(Self {
            bed,
            backend,
            differences: Differences::of(backend)?,
            manifests,
            proxy: None,
            emptiness: None,
            flags: Vec::new(),
            generation: 0,
        })
    }

    /// Sends a case's packets at the rules that stand in node1, whoever wrote them; changes nothing
    /// and starts no proxy. `objects` are served by echo servers.
    pub fn check_standing(&self, case: &Case, objects: &[Value]) -> Result<Vec<String>> {
        for object in objects {
            serve_endpoints_of(self.bed, object)?;
        }
        let state = State::new(self.bed, self.backend, &self.differences, case);
        let mut wrong = Vec::new();
        for step in &case.steps {
            wrong.extend(state.check_packets(step));
        }
        Ok(wrong)
    }

    /// Runs one case from an empty cluster to an empty cluster.
    pub fn run(&mut self, case: &Case) -> Result<(), CaseFailure> {
        self.prepare(case)
            .map_err(|error| self.failure(case, "set-up", vec![format!("{error:#}")]))?;
        for address in &case.node_addresses {
            for family in &case.families {
                self.bed
                    .add_node_address(Place::Node1, family.twin(*address))
                    .map_err(|error| self.failure(case, "set-up", vec![format!("{error:#}")]))?;
            }
        }
        let result = self.run_steps(case);
        for address in &case.node_addresses {
            for family in &case.families {
                if let Err(error) = self
                    .bed
                    .remove_node_address(Place::Node1, family.twin(*address))
                {
                    eprintln!("{error:#}");
                }
            }
        }
        let emptied = self.empty().map_err(|error| {
            self.failure(case, "emptying the cluster", vec![format!("{error:#}")])
        });
        result.and(emptied)
    }

    fn failure(&self, case: &Case, step: &str, what: Vec<String>) -> CaseFailure {
        let log = self
            .proxy
            .as_ref()
            .map(|proxy| proxy.log_tail(12))
            .unwrap_or_default();
        CaseFailure {
            case: case.name.clone(),
            step: step.to_owned(),
            what,
            log,
        }
    }

    fn run_steps(&mut self, case: &Case) -> Result<(), CaseFailure> {
        let differences = self.differences.clone();
        let mut state = State::new(self.bed, self.backend, &differences, case);
        for (number, step) in case.steps.iter().enumerate() {
            let what = match self.run_step(&mut state, step, number == 0) {
                Ok(wrong) if wrong.is_empty() => continue,
                Ok(wrong) => wrong,
                Err(error) => vec![format!("{error:#}")],
            };
            return Err(self.failure(case, &format!("step {} {}", number + 1, step.name), what));
        }
        Ok(())
    }

    fn run_step(&mut self, state: &mut State<'_>, step: &Step, first: bool) -> Result<Vec<String>> {
        if let Some(action) = step.proxy {
            self.act(action)?;
        }
        state.services.extend(step.set.clone());
        for key in &step.delete {
            state
                .services
                .remove(key)
                .with_context(|| format!("delete: there is no Service {key}"))?;
        }
        if let Some(objects) = &step.objects {
            state.objects.clone_from(objects);
        }
        let changed =
            first || !step.set.is_empty() || !step.delete.is_empty() || step.objects.is_some();
        if changed {
            self.write(state)?;
        }
        if let Some(action) = step.then_proxy {
            self.act(action)?;
        }
        if first {
            self.ensure_proxy(&state.case.flags)?;
        }
        if changed || step.proxy.is_some() || step.then_proxy.is_some() {
            self.wait_programmed()?;
        }
        std::thread::sleep(step.wait);
        let mut wrong = state.check_packets(step);
        if let Some(tool) = self.backend.tool
            && self.backend.has_rules_for_each()
            && !(step.rules.has.is_empty() && step.rules.has_not.is_empty())
        {
            wrong.extend(check_rules(
                self.bed,
                tool,
                &step.rules,
                &state.case.families,
            )?);
        }
        Ok(wrong)
    }

    fn act(&mut self, action: ProxyAction) -> Result<()> {
        if let Some(mut proxy) = self.proxy.take() {
            match action {
                ProxyAction::Crash => proxy.kill()?,
                ProxyAction::Restart | ProxyAction::Stop => {
                    let status = proxy.terminate()?;
                    if !status.success() {
                        bail!("the proxy ended with {status} after SIGTERM");
                    }
                }
                ProxyAction::Start => bail!("start: the proxy runs already"),
            }
        }
        if action != ProxyAction::Stop {
            self.start_proxy()?;
        }
        Ok(())
    }

    /// Where only the proxy can tell what is in the kernel, it must first be seen with an empty cluster.
    fn prepare(&mut self, case: &Case) -> Result<()> {
        let known = self.emptiness.is_some() && self.flags == case.flags;
        if known || !self.backend.is_at_the_socket() {
            return Ok(());
        }
        self.manifests.replace(&node_objects())?;
        self.ensure_proxy(&case.flags)?;
        if let Some(proxy) = &self.proxy {
            self.emptiness = Some(Emptiness::of(self.bed, self.backend, proxy)?);
        }
        Ok(())
    }

    fn ensure_proxy(&mut self, flags: &[String]) -> Result<()> {
        if self.proxy.is_some() && self.flags == flags {
            return Ok(());
        }
        if let Some(mut proxy) = self.proxy.take() {
            proxy.terminate()?;
        }
        self.flags = flags.to_vec();
        self.start_proxy()
    }

    fn start_proxy(&mut self) -> Result<()> {
        let mut options = self.backend.options(self.bed, self.manifests.dir())?;
        let least = if self.backend.is_ipvs() {
            "--ipvs-min-sync-period=0s"
        } else {
            "--iptables-min-sync-period=0s"
        };
        options.flags.push(least.to_owned());
        // One of the case's takes the place of one of the backend's.
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        let own: Vec<String> = self.flags.iter().map(|flag| name(flag)).collect();
        options.flags.retain(|flag| !own.contains(&name(flag)));
        options.flags.extend(self.flags.iter().cloned());
        self.proxy = Some(Proxy::start(self.bed, options)?);
        Ok(())
    }

    /// Writes the state's objects with the next marker, and starts the endpoints' servers.
    fn write(&mut self, state: &State<'_>) -> Result<()> {
        let mut objects = node_objects();
        for (key, spec) in &state.services {
            objects.extend(expand_service(key, spec, &state.case.families)?);
        }
        // A plain object takes the place of one the testbed would have given.
        let identity = |object: &Value| {
            (
                object["kind"].clone(),
                object["metadata"]["namespace"].clone(),
                object["metadata"]["name"].clone(),
            )
        };
        objects.retain(|object| {
            !state
                .objects
                .iter()
                .any(|own| identity(own) == identity(object))
        });
        objects.extend(state.objects.iter().cloned());
        for object in &objects {
            serve_endpoints_of(self.bed, object)?;
        }
        self.generation += 1;
        let both = [Family::IPv4, Family::IPv6];
        objects.extend(expand_service(MARKER, &self.marker()?, &both)?);
        self.manifests.replace(&objects)
    }

    fn marker_port(&self) -> u16 {
        MARKER_PORTS[self.generation % MARKER_PORTS.len()]
    }

    fn marker(&self) -> Result<ServiceSpec> {
        Ok(ServiceSpec {
            cluster_ip: Some(MARKER_CLUSTER_IP.to_owned()),
            ports: vec![format!("80->{}", self.marker_port()).parse()?],
            endpoints: Some(vec![MARKER_ENDPOINT.parse()?]),
            ..ServiceSpec::default()
        })
    }

    /// Waits until the marker answers as the last written cluster says, in both families.
    fn wait_programmed(&self) -> Result<()> {
        if self.proxy.is_none() {
            return Ok(());
        }
        let goal = self.marker_port();
        let mut last = Vec::new();
        let waited = wait_for(
            "programming the change",
            PROGRAMMED_LIMIT,
            POLL_EVERY,
            || {
                last = self.bed.probe_all(&marker_probes()?)?;
                Ok(last.iter().all(|outcome| {
                    matches!(outcome, Outcome::Answered(answer)
                    if answer.by.port() == goal && answer.place != Place::Fabric.name())
                }))
            },
        );
        waited.with_context(|| {
            let last: Vec<String> = last.iter().map(Outcome::to_string).collect();
            format!("the marker Service answers: {}", last.join("; "))
        })
    }

    /// An empty cluster, and nothing of any Service left in the kernel.
    fn empty(&mut self) -> Result<()> {
        if self.proxy.is_none() {
            self.start_proxy()?;
        }
        self.manifests.replace(&node_objects())?;
        wait_for(
            "the removal of all Services",
            PROGRAMMED_LIMIT,
            POLL_EVERY,
            || {
                Ok(self.bed.probe_all(&marker_probes()?)?.iter().all(|outcome| {
                matches!(outcome, Outcome::Answered(answer) if answer.place == Place::Fabric.name())
            }))
            },
        )?;
        let proxy = self.proxy.as_ref().context("no proxy runs")?;
        let emptiness = match self.emptiness {
            Some(emptiness) => emptiness,
            None => Emptiness::of(self.bed, self.backend, proxy)?,
        };
        let mut left = Vec::new();
        let gone = wait_for(
            "the removal of all that was theirs",
            PROGRAMMED_LIMIT,
            POLL_EVERY,
            || {
                left = emptiness.left(self.bed, proxy)?;
                Ok(left.is_empty())
            },
        );
        gone.with_context(|| format!("left: {}", left.join("; ")))
    }
}

fn marker_probes() -> Result<Vec<Probe>> {
    let address: IpAddr = MARKER_CLUSTER_IP.parse()?;
    Ok([Family::IPv4, Family::IPv6]
        .into_iter()
        .map(|family| {
            Probe::new(
                Place::Node1,
                Protocol::Tcp,
                SocketAddr::new(family.twin(address), 80),
            )
            .timeout(MARKER_TIMEOUT)
        })
        .collect())
}
