//! A server block set up over a folder of objects, and asked without sockets.

#![allow(dead_code, reason = "each test binary uses some of it")]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use switchyard_dns::corefile;
use switchyard_dns::plugin::{Chain, Environment, Exchange, Outcome};
use switchyard_dns::server::Configuration;
use switchyard_dns::wire::{Intake, Name, Rtype};

/// The first list of a big folder, in a debug build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What every test asks: where each kind of name is.
pub(crate) const COREFILE: &str = ".:5300 {
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
}";

/// A block that answers from memory.
pub(crate) struct Block {
    pub(crate) chain: Arc<Chain>,
    _configuration: Configuration,
    _runtime: tokio::runtime::Runtime,
    _folder: tempfile::TempDir,
}

impl Block {
    /// Sets up the first block of `text` over these objects, and waits until it is ready.
    pub(crate) fn new(text: &str, objects: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("objects.yaml"), objects).expect("written");
        let corefile = corefile::parse(text, "Corefile", Path::new("/nowhere")).expect(text);
        let entered = runtime.enter();
        let environment = Environment {
            manifests: Some(folder.path().to_owned()),
            ..Environment::default()
        };
        let configuration = Configuration::new(&corefile, &environment).expect(text);
        drop(entered);
        let begun = Instant::now();
        for plugin in &configuration.plugins {
            plugin.start();
            while !plugin.ready() {
                assert!(begun.elapsed() < PATIENCE, "never ready");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let plan = configuration.plans.values().next().expect("one plan");
        let chain = Arc::clone(plan.routes.all().first().expect("one route").chain());
        Self {
            chain,
            _configuration: configuration,
            _runtime: runtime,
            _folder: folder,
        }
    }

    /// Takes a packet in and has it answered, as the thread of a socket does.
    pub(crate) fn answer(&self, exchange: &mut Exchange, packet: &[u8]) {
        assert_eq!(exchange.request.read(packet), Intake::Query);
        exchange.begin();
        let outcome = {
            let mut run = pin!(self.chain.run(exchange));
            run.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        };
        assert_eq!(outcome, Poll::Ready(Outcome::Answered));
        let limit = exchange.request.reply_limit();
        exchange.reply.finish(&exchange.request, limit);
    }
}

/// A query with EDNS for 1232 octets.
pub(crate) fn packet(name: &str, rtype: Rtype) -> Vec<u8> {
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    packet.extend_from_slice(Name::from_text(name).expect(name).as_wire());
    packet.extend_from_slice(&rtype.0.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    packet
}

/// `services` Services with an address each and a headless one of ten endpoints.
pub(crate) fn cluster(services: u32) -> String {
    let mut text = String::new();
    for number in 0..services {
        let (high, low) = (number / 256, number % 256);
        write!(
            text,
            "---\n{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{{\"name\":\"s{number}\",\
             \"namespace\":\"default\"}},\"spec\":{{\"type\":\"ClusterIP\",\"clusterIP\":\"10.96.{high}.{low}\",\
             \"clusterIPs\":[\"10.96.{high}.{low}\"],\"ports\":[{{\"name\":\"http\",\"port\":80,\"protocol\":\"TCP\"}}]}}}}\n"
        )
        .expect("a string");
    }
    let endpoints: Vec<String> = (0..10)
        .map(|number| {
            format!("{{\"addresses\":[\"10.244.9.{number}\"],\"hostname\":\"web-{number}\"}}")
        })
        .collect();
    write!(
        text,
        "---\n{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{{\"name\":\"web\",\"namespace\":\"default\"}},\
         \"spec\":{{\"type\":\"ClusterIP\",\"clusterIP\":\"None\",\"clusterIPs\":[\"None\"],\
         \"ports\":[{{\"name\":\"http\",\"port\":80,\"protocol\":\"TCP\"}}]}}}}\n\
         ---\n{{\"apiVersion\":\"discovery.k8s.io/v1\",\"kind\":\"EndpointSlice\",\"addressType\":\"IPv4\",\
         \"metadata\":{{\"name\":\"web-1\",\"namespace\":\"default\",\"labels\":{{\"kubernetes.io/service-name\":\"web\"}}}},\
         \"ports\":[{{\"name\":\"http\",\"port\":8080,\"protocol\":\"TCP\"}}],\"endpoints\":[{}]}}\n",
        endpoints.join(",")
    )
    .expect("a string");
    text
}

/// The questions that a cluster's clients ask most, by what they are.
pub(crate) fn questions() -> Vec<(&'static str, Vec<u8>)> {
    let zone = "default.svc.cluster.local";
    let of = |name: &str, rtype| packet(&format!("{name}.{zone}"), rtype);
    vec![
        ("A", of("s7", Rtype::A)),
        (
            "A, mixed case",
            packet("S7.dEfault.sVc.CLUSTER.local", Rtype::A),
        ),
        ("AAAA, no data", of("s7", Rtype::AAAA)),
        ("SRV of a Service", of("_http._tcp.s7", Rtype::SRV)),
        ("NXDOMAIN", of("www.example.org", Rtype::A)),
        (
            "NXDOMAIN, other label",
            packet("www.example.org.cluster.local", Rtype::A),
        ),
        ("no such Service", of("nope", Rtype::A)),
        ("headless A, 10 endpoints", of("web", Rtype::A)),
        (
            "headless SRV, 10 endpoints",
            of("_http._tcp.web", Rtype::SRV),
        ),
        ("endpoint A", of("web-3.web", Rtype::A)),
        (
            "PTR of a Service",
            packet("7.0.96.10.in-addr.arpa", Rtype::PTR),
        ),
        (
            "PTR of an endpoint",
            packet("3.9.244.10.in-addr.arpa", Rtype::PTR),
        ),
        (
            "pod A",
            packet("10-1-2-3.default.pod.cluster.local", Rtype::A),
        ),
        ("SOA", packet("cluster.local", Rtype::SOA)),
    ]
}
