//! Running cases against one backend.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::expand::expand_service;
use super::expect::{Expect, judge, wrong_source};
use super::format::{Case, PacketSpec, ProxyAction, ServiceSpec, Step};
use super::manifests::{Manifests, node_objects};
use super::rules::{line_matches, per_service_chains, save_rules};
use crate::testbed::{
    Connection, Family, IptablesTool, Outcome, Place, Probe, Protocol, Proxy, ProxyOptions,
    Testbed, endpoint_place, wait_for,
};

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
/// Packets sent at once for one expectation, and how often again until every endpoint was seen.
const PACKETS_A_ROUND: usize = 6;
const MAX_ROUNDS: usize = 40;
/// Packets for an expectation that costs its whole time-out.
const PACKETS_IN_VAIN: usize = 2;
/// "Dropped" must outlast the first retry of a TCP client, at which a refusal would show.
const DROP_TIMEOUT_TCP: Duration = Duration::from_millis(1300);
const DROP_TIMEOUT_UDP: Duration = Duration::from_millis(600);

/// A backend: how the proxy is started to use it.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    /// For reports.
    pub name: &'static str,
    /// `--proxy-mode`.
    pub mode: &'static str,
    /// The iptables tool in its `PATH`.
    pub tool: IptablesTool,
}

impl Backend {
    /// All backends there are.
    pub const ALL: [Self; 2] = [
        Self {
            name: "iptables over iptables-nft",
            mode: "iptables",
            tool: IptablesTool::Nft,
        },
        Self {
            name: "iptables over iptables-legacy",
            mode: "iptables",
            tool: IptablesTool::Legacy,
        },
    ];
}

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
    manifests: Manifests,
    proxy: Option<Proxy>,
    flags: Vec<String>,
    generation: usize,
}

/// The cluster of a case as it stands after the steps so far.
struct State<'c> {
    case: &'c Case,
    services: BTreeMap<String, ServiceSpec>,
    objects: Vec<Value>,
    flows: Mutex<HashMap<(String, Family), Connection>>,
    remembered: Mutex<HashMap<(String, Family), SocketAddr>>,
}

impl<'c> State<'c> {
    fn new(case: &'c Case) -> Self {
        Self {
            case,
            services: case.services.clone(),
            objects: case.objects.clone(),
            flows: Mutex::new(HashMap::new()),
            remembered: Mutex::new(HashMap::new()),
        }
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
            manifests,
            proxy: None,
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
        let state = State::new(case);
        let mut wrong = Vec::new();
        for step in &case.steps {
            wrong.extend(self.check_packets(&state, &step.packets)?);
        }
        Ok(wrong)
    }

    /// Runs one case from an empty cluster to an empty cluster.
    pub fn run(&mut self, case: &Case) -> Result<(), CaseFailure> {
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
        let mut state = State::new(case);
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
        let mut wrong = self.check_packets(state, &step.packets)?;
        wrong.extend(self.check_rules(state, step)?);
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
        let mut options = ProxyOptions::new(self.bed, self.manifests.dir(), self.backend.mode)?;
        options.tool = Some(self.backend.tool);
        options.flags = vec!["--iptables-min-sync-period=0s".to_owned()];
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

    /// An empty cluster, and no chain of any Service left in it.
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
        for family in [Family::IPv4, Family::IPv6] {
            let mut left = String::new();
            let gone = wait_for(
                "the removal of their chains",
                PROGRAMMED_LIMIT,
                POLL_EVERY,
                || {
                    let saved = save_rules(self.bed, self.backend.tool, family)?;
                    left = per_service_chains(&saved).join(" ");
                    Ok(left.is_empty())
                },
            );
            gone.with_context(|| format!("left in {family}: {left}"))?;
        }
        Ok(())
    }

    fn check_rules(&self, state: &State<'_>, step: &Step) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        if step.rules.has.is_empty() && step.rules.has_not.is_empty() {
            return Ok(wrong);
        }
        for family in &state.case.families {
            let saved = save_rules(self.bed, self.backend.tool, *family)?;
            let there = |pattern: &String| {
                let pattern = twin_words(pattern, *family);
                saved.lines().any(|line| line_matches(&pattern, line))
            };
            for pattern in step.rules.has.iter().filter(|pattern| !there(pattern)) {
                wrong.push(format!("{family}: no rule is like `{pattern}`"));
            }
            for pattern in step.rules.has_not.iter().filter(|pattern| there(pattern)) {
                wrong.push(format!("{family}: a rule is like `{pattern}`"));
            }
        }
        Ok(wrong)
    }

    fn check_packets(&self, state: &State<'_>, packets: &[PacketSpec]) -> Result<Vec<String>> {
        let wrong = Mutex::new(Vec::new());
        let note = |line: String| {
            wrong
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        };
        std::thread::scope(|scope| {
            for packet in packets {
                if packet
                    .only
                    .as_ref()
                    .is_some_and(|tools| !tools.iter().any(|tool| tool.is(self.backend.tool)))
                {
                    continue;
                }
                for family in packet.families.as_ref().unwrap_or(&state.case.families) {
                    let note = &note;
                    scope.spawn(move || {
                        if let Err(error) = self.check_packet(state, packet, *family) {
                            note(format!(
                                "{} {family} {} {} -> {}: expected {}{}; got: {error:#}",
                                packet.id,
                                packet.proto,
                                packet.from,
                                family.twin_socket(packet.to),
                                packet.expect,
                                match packet.masq {
                                    Some(true) => ", masqueraded",
                                    Some(false) => ", not masqueraded",
                                    None => "",
                                }
                            ));
                        }
                    });
                }
            }
        });
        let mut wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
        wrong.sort();
        Ok(wrong)
    }

    /// Tries until the expectation holds or its time is up.
    fn check_packet(&self, state: &State<'_>, packet: &PacketSpec, family: Family) -> Result<()> {
        let deadline = Instant::now() + packet.within;
        loop {
            let result = self.try_packet(state, packet, family);
            if result.is_ok() || Instant::now() >= deadline {
                return result;
            }
            std::thread::sleep(POLL_EVERY.max(packet.every));
        }
    }

    fn try_packet(&self, state: &State<'_>, packet: &PacketSpec, family: Family) -> Result<()> {
        let probe = probe_of(packet, family);
        let remembered = match &packet.expect {
            Expect::Same(name) | Expect::OtherThan(name) => {
                let remembered = state
                    .remembered
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                remembered.get(&(name.clone(), family)).copied()
            }
            _ => None,
        };
        let mut outcomes = Vec::new();
        for round in 0..MAX_ROUNDS {
            outcomes.extend(self.send(state, packet, &probe, family, round)?);
            let enough = judge(&packet.expect, &outcomes, probe.to, remembered)
                .map_err(anyhow::Error::msg)?;
            for outcome in &outcomes {
                if let Outcome::Answered(answer) = outcome {
                    if let Some(wrong) = wrong_source(answer, packet.masq, packet.flow.is_some()) {
                        bail!(wrong);
                    }
                    if answer.bytes != probe.bytes {
                        bail!("{} of {} bytes arrived", answer.bytes, probe.bytes);
                    }
                }
            }
            let alone = matches!(packet.expect, Expect::OneOf { .. }) && round == 0;
            if enough && !alone {
                if let (
                    Expect::OneOf {
                        remember: Some(name),
                        ..
                    },
                    Some(Outcome::Answered(answer)),
                ) = (&packet.expect, outcomes.first())
                {
                    let mut remembered = state
                        .remembered
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner);
                    remembered.insert((name.clone(), family), answer.by);
                }
                return Ok(());
            }
        }
        let hit: std::collections::BTreeSet<String> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Answered(answer) => Some(answer.by.to_string()),
                _ => None,
            })
            .collect();
        bail!("after {} packets only {hit:?} answered", outcomes.len())
    }

    fn send(
        &self,
        state: &State<'_>,
        packet: &PacketSpec,
        probe: &Probe,
        family: Family,
        round: usize,
    ) -> Result<Vec<Outcome>> {
        let Some(flow) = &packet.flow else {
            let count = match packet.expect {
                Expect::Drop | Expect::Reject => PACKETS_IN_VAIN,
                // The first decides where the others must go; it may not race with them.
                Expect::OneOf { .. } if round == 0 => 1,
                Expect::OtherThan(_) => 1,
                _ => PACKETS_A_ROUND,
            };
            return self.bed.probe_all(&vec![probe.clone(); count]);
        };
        let key = (flow.clone(), family);
        let known = state
            .flows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&key);
        let connection = match known {
            Some(connection) => connection,
            None => self.bed.connect(probe)?,
        };
        let outcome = connection.ask(self.bed, probe.timeout)?;
        state
            .flows
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, connection);
        Ok(vec![outcome])
    }
}

fn probe_of(packet: &PacketSpec, family: Family) -> Probe {
    let mut probe = Probe::new(packet.from, packet.proto, family.twin_socket(packet.to));
    probe.source = packet
        .source
        .map(|address| SocketAddr::new(family.twin(address), 0));
    probe.bytes = packet.bytes;
    match (&packet.expect, packet.proto) {
        (Expect::Drop, Protocol::Tcp) => probe.timeout = DROP_TIMEOUT_TCP,
        (_, Protocol::Udp) => probe.timeout = DROP_TIMEOUT_UDP,
        _ => {}
    }
    probe
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

/// Starts an echo server for every endpoint of a slice that lives in the testbed.
fn serve_endpoints_of(bed: &Testbed, object: &Value) -> Result<()> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    if object["kind"] == "EndpointSlice" {
        for endpoint in list(&object["endpoints"]) {
            for port in list(&object["ports"]) {
                pairs.push((endpoint["addresses"][0].clone(), port));
            }
        }
    } else if object["kind"] == "Endpoints" {
        for subset in list(&object["subsets"]) {
            for address in list(&subset["addresses"])
                .iter()
                .chain(&list(&subset["notReadyAddresses"]))
            {
                for port in list(&subset["ports"]) {
                    pairs.push((address["ip"].clone(), port));
                }
            }
        }
    }
    for (address, port) in pairs {
        let address = address
            .as_str()
            .and_then(|text| text.parse::<IpAddr>().ok());
        let number = port["port"]
            .as_u64()
            .and_then(|number| u16::try_from(number).ok());
        let protocol = match port["protocol"].as_str() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => continue,
            _ => Protocol::Tcp,
        };
        if let (Some(address), Some(number)) = (address, number)
            && endpoint_place(address).is_some()
            && number != 0
        {
            bed.serve_endpoint(protocol, SocketAddr::new(address, number))?;
        }
    }
    Ok(())
}

/// A pattern with every IPv4 address in it (alone, with a port or a prefix length) in `family`.
fn twin_words(pattern: &str, family: Family) -> String {
    let words: Vec<String> = pattern
        .split(' ')
        .map(|word| {
            if let Ok(address) = word.parse::<IpAddr>() {
                return family.twin(address).to_string();
            }
            if let Ok(socket) = word.parse::<SocketAddr>() {
                return family.twin_socket(socket).to_string();
            }
            match word
                .strip_suffix("/32")
                .and_then(|host| host.parse::<IpAddr>().ok())
            {
                Some(host) if family == Family::IPv6 => format!("{}/128", family.twin(host)),
                _ => word.to_owned(),
            }
        })
        .collect();
    words.join(" ")
}
