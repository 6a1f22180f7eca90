//! Measures DNS servers over loopback: ours, CoreDNS where it is given, and Debian's.
//!
//! The server under measurement has one CPU, dnsperf and all else another. nsd and knot answer
//! the cluster's names from zone files, unbound and dnsmasq cache names outside, which another
//! nsd knows; ours and CoreDNS do both, fed by a stand-in API server.

mod api;
mod changes;
mod client;
mod cluster;
mod cpus;
mod dnsperf;
mod echo;
mod flood;
mod peers;
mod relay;
mod report;
mod rounds;
mod server;
mod subject;
mod workload;
mod zone;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use switchyard_tests::testbed::wait_for;

use self::api::{ApiServer, write_kubeconfig};
use self::client::Client;
use self::cluster::Service;
use self::cpus::{Cpus, Role};
use self::dnsperf::Pace;
use self::peers::ZoneFile;
use self::rounds::{Contender, Effort, Lists};
use self::server::Server;
use self::subject::{Sources, Subject};
use self::workload::Query;

pub use self::echo::serve as serve_echo;
pub use self::subject::Program;

/// What our server is called in tables.
pub const OURS: &str = "switchyard-dns";
/// What CoreDNS is called in tables.
pub const COREDNS: &str = "coredns";
/// What the server that only echoes is called in tables.
pub const ECHO: &str = "echo";
/// The steady pace, queries a second.
const STEADY_PER_S: u32 = 5000;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// CPU time per query, queries a second, latency, beside all peers
    Speed,
    /// Memory, start, changes: of servers that follow an API server
    Changes,
    /// A flood of more than can be answered: of servers that follow an API server
    Flood,
}

/// How the bench is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Services of the cluster.
    pub services: usize,
    /// Endpoints, over all its Services.
    pub endpoints: usize,
    /// Rounds of the speed part.
    pub rounds: usize,
    /// Time of one run of dnsperf.
    pub time: Duration,
    /// What is measured.
    pub parts: Vec<Part>,
    /// Only servers of these names, all if empty.
    pub only: Vec<String>,
    /// The programs that follow an API server: ours, and CoreDNS where it is given.
    pub programs: Vec<Program>,
    /// The stand-in API server.
    pub api_server: PathBuf,
    /// A program and its first arguments that, with an address as the last one, runs
    /// [`serve_echo`].
    pub echo: (PathBuf, Vec<String>),
}

impl Settings {
    fn takes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    fn programs(&self) -> impl Iterator<Item = &Program> {
        self.programs
            .iter()
            .filter(|program| self.takes(program.name))
    }
}

/// Measures, and returns the tables as Markdown. All servers are ended then.
///
/// # Errors
/// A server could not be started, does not answer as the others do, or answers wrongly.
pub fn run(settings: &Settings) -> Result<String> {
    let cpus = Cpus::choose()?;
    cpus.pin(Role::Load)?;
    let work = tempfile::Builder::new()
        .prefix("switchyard-bench-dns-")
        .tempdir()?;
    let bed = Bed::lay(cpus, work.path(), settings)?;
    let mut text = format!(
        "### {} Services, {} endpoints\n\n",
        settings.services, settings.endpoints
    );
    for part in &settings.parts {
        text += &match part {
            Part::Speed => speed(&bed, settings)?,
            Part::Changes => each(&bed, settings, changes::measure)?,
            Part::Flood => each(&bed, settings, flood::measure)?,
        };
        text.push('\n');
    }
    Ok(text)
}

/// What every part needs: a cluster, the names outside, and who serves them.
struct Bed<'a> {
    cpus: Cpus,
    work: &'a Path,
    services: Vec<Service>,
    lists: Lists,
    cluster_zones: Vec<ZoneFile>,
    outside: Server,
    echo: (PathBuf, Vec<String>),
    api: Option<ApiServer>,
}

impl<'a> Bed<'a> {
    fn lay(cpus: Cpus, work: &'a Path, settings: &Settings) -> Result<Self> {
        let services = cluster::services(settings.services, settings.endpoints)?;
        let lists = Lists::write(work, &services)?;
        let zone_file = |zone, text: String| -> Result<ZoneFile> {
            let path = work.join(format!("{zone}.zone"));
            fs::write(&path, text).with_context(|| path.display().to_string())?;
            Ok(ZoneFile { zone, path })
        };
        let cluster_zones = vec![
            zone_file(cluster::ZONE, zone::forward(&services))?,
            zone_file(zone::REVERSE_ZONE, zone::reverse(&services))?,
        ];
        let outside_zone = [zone_file(zone::OUTSIDE_ZONE, zone::outside())?];
        let mut outside = peers::nsd(cpus, Role::Load, "authority", work, &outside_zone)?;
        outside.wait_until_it_answers(&outside_query())?;
        let api = if settings.programs().next().is_some() {
            let manifests = work.join("manifests");
            cluster::write_manifests(&manifests, &services)?;
            println!("starting a stand-in API server with the cluster");
            Some(ApiServer::start(
                cpus,
                &settings.api_server,
                work,
                &manifests,
            )?)
        } else {
            None
        };
        Ok(Self {
            cpus,
            work,
            services,
            lists,
            cluster_zones,
            outside,
            echo: settings.echo.clone(),
            api,
        })
    }

    fn api(&self) -> Result<&ApiServer> {
        self.api.as_ref().context("no API server was started")
    }

    /// A question for the last Service: answered once the list has been read.
    fn last_query(&self) -> Result<Query> {
        let services = self.services.iter();
        let last = services.rev().find(|service| !service.is_headless());
        Ok(Query {
            name: last.context("no Service with an address")?.domain(),
            rtype: "A",
        })
    }

    /// Starts a server that only echoes, on the server's CPU.
    fn start_echo(&self) -> Result<Server> {
        let address = server::free_address()?;
        let mut command = Command::new(&self.echo.0);
        command.args(&self.echo.1).arg(address.to_string());
        let echo = Server::start(self.cpus, Role::Server, ECHO, address, command, self.work)?;
        let mut client = Client::new(address, Duration::from_millis(100))?;
        wait_for(
            "an echo",
            Duration::from_secs(10),
            Duration::from_millis(20),
            || Ok(client.ask(&outside_query())?.is_some()),
        )?;
        Ok(echo)
    }

    fn start(&self, program: &Program) -> Result<Subject> {
        let kubeconfig = write_kubeconfig(self.work, "kubeconfig", self.api()?.address())?;
        let sources = Sources {
            kubeconfig: &kubeconfig,
            outside: self.outside.address,
            silent: None,
        };
        let mut subject = Subject::start(self.cpus, program, self.work, sources)?;
        subject.server.wait_until_it_answers(&self.last_query()?)?;
        Ok(subject)
    }
}

fn outside_query() -> Query {
    Query {
        name: zone::outside_domain(0),
        rtype: "A",
    }
}

fn each(
    bed: &Bed<'_>,
    settings: &Settings,
    measure: fn(&Bed<'_>, &Program) -> Result<String>,
) -> Result<String> {
    let mut text = String::new();
    for program in settings.programs() {
        text += &measure(bed, program).with_context(|| program.name)?;
        text.push('\n');
    }
    Ok(text)
}

fn speed(bed: &Bed<'_>, settings: &Settings) -> Result<String> {
    let Bed { cpus, work, .. } = *bed;
    // Everything runs at once, idle but for the one that is asked.
    let mut subjects = Vec::new();
    for program in settings.programs() {
        subjects.push(bed.start(program).with_context(|| program.name)?);
    }
    let mut authorities = Vec::new();
    if settings.takes("nsd") {
        authorities.push(peers::nsd(
            cpus,
            Role::Server,
            "nsd",
            work,
            &bed.cluster_zones,
        )?);
    }
    if settings.takes("knot") {
        authorities.push(peers::knot(cpus, work, &bed.cluster_zones)?);
    }
    let mut caches = Vec::new();
    if settings.takes("unbound") {
        caches.push(peers::unbound(cpus, work, bed.outside.address)?);
    }
    if settings.takes("dnsmasq") {
        caches.push(peers::dnsmasq(cpus, work, bed.outside.address)?);
    }
    for authority in &mut authorities {
        authority.wait_until_it_answers(&bed.last_query()?)?;
    }
    for cache in &mut caches {
        cache.wait_until_it_answers(&outside_query())?;
    }
    let contender = |server: &Server, cluster, outside| Contender {
        name: server.name,
        address: server.address,
        process: server.process(),
        cluster,
        outside,
        answers: true,
    };
    let ours = subjects
        .iter()
        .map(|subject| contender(&subject.server, true, true));
    let echo = settings.takes(ECHO).then(|| bed.start_echo()).transpose()?;
    let echoing = echo.iter().map(|server| Contender {
        answers: false,
        ..contender(server, true, false)
    });
    let contenders: Vec<Contender> = ours
        .chain(
            authorities
                .iter()
                .map(|server| contender(server, true, false)),
        )
        .chain(caches.iter().map(|server| contender(server, false, true)))
        .chain(echoing)
        .collect();
    if contenders.is_empty() {
        bail!("no server to measure: --only names none that there is");
    }
    rounds::compare(&contenders, &bed.lists)?;
    let effort = Effort {
        rounds: settings.rounds,
        time: settings.time,
    };
    let paces = [Pace::Full, Pace::Steady(STEADY_PER_S)];
    let samples = rounds::run(cpus, &contenders, &bed.lists, &paces, effort)?;
    Ok(report::markdown(&samples) + &memory(&contenders)?)
}

/// Memory after all rounds.
fn memory(contenders: &[Contender]) -> Result<String> {
    let mut text = "\n| after all rounds | RSS, MiB | most, MiB |\n|---|---:|---:|\n".to_owned();
    for contender in contenders {
        let (mut rss, mut peak) = (0, 0);
        for process in contender.process.tree() {
            rss += process.rss_kib()?;
            peak += process.peak_rss_kib()?;
        }
        text += &format!(
            "| {} | {} | {} |\n",
            contender.name,
            mebibytes(rss),
            mebibytes(peak)
        );
    }
    Ok(text)
}

/// KiB as MiB, to a tenth.
fn mebibytes(kib: u64) -> String {
    let tenths = (kib * 10 + 512) / 1024;
    format!("{}.{}", tenths / 10, tenths % 10)
}
