//! Running the server: changes, an API server that goes away, reload, the end and a new start,
//! wrong configuration, HTTP, TLS.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use switchyard_tests::apiserver::Resource;
use switchyard_tests::dns::{
    ApiServer, Client, DnsServer, Query, Reply, Script, Setup, Upstream, namespace_object,
};
use switchyard_tests::testbed::wait_for;

const NAME: &str = "svc1.default.svc.cluster.local.";
const POLL: Duration = Duration::from_millis(5);
/// What does not happen within this time does not happen.
const PATIENCE: Duration = Duration::from_secs(15);
const COREFILE: &str = "\
.:$DNS {
    bind 127.0.0.1
    errors
    health 127.0.0.1:$HEALTH
    ready 127.0.0.1:$READY
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    prometheus 127.0.0.1:$METRICS
    cache 30 {
        disable success cluster.local
        disable denial cluster.local
    }
    loadbalance
}
";

fn namespace() -> Value {
    namespace_object("default", &BTreeMap::new())
}

fn service(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": {}},
        "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
    })
}

fn objects() -> Vec<Value> {
    vec![namespace(), service("svc1", "10.96.0.1")]
}

fn setup() -> Setup {
    Setup::new(COREFILE).with_objects(&objects())
}

/// The Corefile for a server that is told by an API server.
fn with_api(api: &ApiServer) -> Setup {
    let corefile = COREFILE.replace(
        "        ttl 30\n",
        "        ttl 30\n        kubeconfig $DIR/kubeconfig\n",
    );
    Setup::new(&corefile).with_file("kubeconfig", &api.kubeconfig())
}

fn address_of(client: &Client, name: &str) -> Result<String> {
    let reply = client.ask(&format!("{name}.default.svc.cluster.local."), "A")?;
    Ok(match reply.data("A").as_slice() {
        [] => reply.rcode,
        all => all.join(" "),
    })
}

fn wait_address(client: &Client, name: &str, expected: &str) -> Result<()> {
    wait_for(&format!("{name} at {expected}"), PATIENCE, POLL, || {
        Ok(address_of(client, name)? == expected)
    })
}

#[test]
fn a_change_of_the_manifests_is_visible() -> Result<()> {
    let server = DnsServer::start(setup())?;
    let client = server.client();
    let serial = |client: &Client| -> Result<u64> {
        let reply = client.ask("cluster.local.", "SOA")?;
        let data = reply.data("SOA").join("");
        data.split(' ')
            .nth(2)
            .context("no serial")?
            .parse()
            .context("serial")
    };
    ensure!(address_of(&client, "svc1")? == "10.96.0.1");
    let before = serial(&client)?;
    // Serials are seconds.
    std::thread::sleep(Duration::from_millis(1100));
    server.manifests().replace(&[
        namespace(),
        service("svc1", "10.96.0.2"),
        service("new", "10.96.0.3"),
    ])?;
    wait_address(&client, "new", "10.96.0.3")?;
    wait_address(&client, "svc1", "10.96.0.2")?;
    ensure!(serial(&client)? > before, "the serial did not grow");
    server
        .manifests()
        .replace(&[namespace(), service("new", "10.96.0.3")])?;
    wait_address(&client, "svc1", "NXDOMAIN")
}

#[test]
fn a_broken_manifest_keeps_what_was_known() -> Result<()> {
    let server = DnsServer::start(setup())?;
    let client = server.client();
    server
        .manifests()
        .replace_text("kind: Service\nmetadata: [\n")?;
    server.wait_log("cluster.yaml", PATIENCE)?;
    ensure!(address_of(&client, "svc1")? == "10.96.0.1");
    server
        .manifests()
        .replace(&[namespace(), service("svc1", "10.96.0.9")])?;
    wait_address(&client, "svc1", "10.96.0.9")
}

#[test]
fn an_api_server_is_followed() -> Result<()> {
    let api = ApiServer::start()?;
    api.put(&objects())?;
    let server = DnsServer::start(with_api(&api))?;
    let client = server.client();
    ensure!(address_of(&client, "svc1")? == "10.96.0.1");
    let began = Instant::now();
    api.put(&[service("new", "10.96.0.4")])?;
    wait_address(&client, "new", "10.96.0.4")?;
    let took = began.elapsed();
    ensure!(
        took < Duration::from_secs(1),
        "a new Service was visible after {took:?}"
    );
    let services = Resource::of_kind("Service", "v1").context("no Services")?;
    api.server()
        .delete(services, "default", "svc1")
        .context("nothing deleted")?;
    wait_address(&client, "svc1", "NXDOMAIN")?;
    let listed: BTreeSet<String> = api
        .server()
        .requests()
        .iter()
        .map(|seen| seen.resource().to_owned())
        .collect();
    for needed in ["services", "endpointslices", "namespaces"] {
        ensure!(
            listed.contains(needed),
            "{needed} were never asked for: {listed:?}"
        );
    }
    ensure!(
        !listed.contains("pods"),
        "pods are followed although `pods insecure` needs none"
    );
    Ok(())
}

#[test]
fn an_api_server_that_goes_away_and_comes_back_is_followed_again() -> Result<()> {
    const AWAY: Duration = Duration::from_secs(4);
    let api = ApiServer::start()?;
    api.put(&objects())?;
    let server = DnsServer::start(with_api(&api))?;
    let client = server.client();
    api.server().close(true);
    let began = Instant::now();
    api.put(&[service("meanwhile", "10.96.0.5")])?;
    let services = Resource::of_kind("Service", "v1").context("no Services")?;
    while began.elapsed() < AWAY {
        ensure!(
            address_of(&client, "svc1")? == "10.96.0.1",
            "what was known is forgotten"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(server.ready()?.status == 200 && server.health()?.status == 200);
    // And what it missed is not in the history any more.
    api.server()
        .delete(services, "default", "svc1")
        .context("nothing deleted")?;
    api.server().expire();
    api.server().close(false);
    wait_for(
        "what changed meanwhile",
        Duration::from_secs(40),
        POLL,
        || Ok(address_of(&client, "meanwhile")? == "10.96.0.5"),
    )?;
    wait_address(&client, "svc1", "NXDOMAIN")
}

#[test]
fn a_cluster_that_is_not_known_yet_is_no_reason_to_say_no() -> Result<()> {
    let api = ApiServer::start()?;
    api.put(&objects())?;
    api.server().silence(true);
    let mut setup = with_api(&api);
    setup.corefile = setup.corefile.replace(
        "        ttl 30\n",
        "        ttl 30\n        startup_timeout 300ms\n",
    );
    setup.do_not_wait_for_ready = true;
    let server = DnsServer::start(setup)?;
    let client = server.client();
    ensure!(address_of(&client, "svc1")? == "SERVFAIL");
    let ready = server.ready()?;
    ensure!(
        ready.status == 503 && ready.body.contains("kubernetes"),
        "{ready:?}"
    );
    ensure!(server.health()?.status == 200);
    api.server().silence(false);
    wait_for("the cluster", Duration::from_secs(60), POLL, || {
        Ok(address_of(&client, "svc1")? == "10.96.0.1")
    })?;
    wait_for("/ready", PATIENCE, POLL, || {
        Ok(server.ready()?.status == 200)
    })?;
    ensure!(address_of(&client, "nope")? == "NXDOMAIN");
    Ok(())
}

/// Clients that ask without a pause; each question must be answered, and rightly.
struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(client: Client) -> Self {
        let (stop, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let clients = (0..4)
            .map(|number| {
                let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
                std::thread::spawn(move || Self::ask(client, number, &stop, &asked))
            })
            .collect();
        Self {
            stop,
            asked,
            clients,
        }
    }

    /// Two ask over UDP, one over TCP with a connection a query, one over one connection.
    fn ask(client: Client, number: usize, stop: &AtomicBool, asked: &AtomicUsize) -> Result<()> {
        let mut kept = client.tcp()?;
        while !stop.load(Ordering::Relaxed) {
            let query = Query::new(NAME, "A")?;
            let reply = match number {
                0 | 1 => client.query(&query)?,
                2 => client.query_tcp(&query)?,
                _ => match kept.ask(&query) {
                    Ok(reply) => reply,
                    // A server may end an idle connection, or one it hands over; a new one must do.
                    Err(_) => {
                        kept = client.tcp()?;
                        kept.ask(&query)?
                    }
                },
            };
            ensure!(reply.data("A") == ["10.96.0.1"], "{reply}");
            asked.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    fn stop(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(self.asked.load(Ordering::Relaxed))
    }
}

fn ttl(client: &Client) -> Result<u32> {
    Ok(client
        .ask(NAME, "A")?
        .answer
        .first()
        .context("no answer")?
        .ttl)
}

#[test]
fn a_reload_loses_no_query_by_signal() -> Result<()> {
    let mut server = DnsServer::start(setup())?;
    let client = server.client();
    ensure!(ttl(&client)? == 30);
    let load = Load::start(client);
    for seconds in [7, 8, 9] {
        server.replace_corefile(&COREFILE.replace("ttl 30", &format!("ttl {seconds}")))?;
        server.signal(Signal::SIGUSR1)?;
        wait_for("the new TTL", PATIENCE, POLL, || {
            Ok(ttl(&client)? == seconds)
        })?;
        ensure!(
            server.ready()?.status == 200,
            "/ready is gone after a reload"
        );
        ensure!(
            server.health()?.status == 200,
            "/health is gone after a reload"
        );
    }
    let asked = load.stop()?;
    ensure!(asked > 100, "only {asked} questions");
    ensure!(server.is_running()?);
    Ok(())
}

#[test]
fn a_reload_loses_no_query_by_file_change() -> Result<()> {
    let corefile = COREFILE.replace("    loadbalance\n", "    loadbalance\n    reload 2s 1s\n");
    let server = DnsServer::start(Setup::new(&corefile).with_objects(&objects()))?;
    let client = server.client();
    let load = Load::start(client);
    server.replace_corefile(&corefile.replace("ttl 30", "ttl 11"))?;
    wait_for("the new TTL", PATIENCE, POLL, || Ok(ttl(&client)? == 11))?;
    let asked = load.stop()?;
    ensure!(asked > 100, "only {asked} questions");
    Ok(())
}

#[test]
fn a_reload_keeps_the_cluster_and_the_cache() -> Result<()> {
    let script = Script {
        answer: vec!["www.example.org. 300 A 192.0.2.1".to_owned()],
        ..Script::default()
    };
    let upstream = Upstream::start(&BTreeMap::from([("www.example.org. A".to_owned(), script)]))?;
    let api = ApiServer::start()?;
    api.put(&objects())?;
    let mut setup = with_api(&api);
    setup.corefile = setup.corefile.replace(
        "    loadbalance\n",
        &format!("    loadbalance\n    forward . {}\n", upstream.address()),
    );
    let corefile = setup.corefile.clone();
    let server = DnsServer::start(setup)?;
    let client = server.client();
    ensure!(client.ask("www.example.org.", "A")?.data("A") == ["192.0.2.1"]);
    let watches = |api: &ApiServer| api.server().requests().len();
    let (asked, requests) = (upstream.asked(), watches(&api));
    server.replace_corefile(&corefile.replace("ttl 30", "ttl 12"))?;
    server.signal(Signal::SIGUSR1)?;
    wait_for("the new TTL", PATIENCE, POLL, || Ok(ttl(&client)? == 12))?;
    ensure!(client.ask("www.example.org.", "A")?.data("A") == ["192.0.2.1"]);
    ensure!(
        upstream.asked() == asked,
        "the cache is empty after a reload"
    );
    ensure!(watches(&api) == requests, "the cluster was listed again");
    api.put(&[service("after", "10.96.0.8")])?;
    wait_address(&client, "after", "10.96.0.8")
}

/// As the kubelet replaces a ConfigMap: the file is a link, and what it leads through changes.
#[test]
fn a_corefile_behind_links_is_noticed() -> Result<()> {
    use std::os::unix::fs::symlink;
    let corefile = COREFILE.replace(
        "    loadbalance\n",
        "    loadbalance\n    reload 2s 1s\n    import $DIR/mount/extra\n",
    );
    let setup = Setup::new(&corefile).with_objects(&objects());
    let dir = tempfile::tempdir()?;
    let corefile = corefile.replace("$DIR/mount", &dir.path().display().to_string());
    for (version, seconds) in [
        ("one", "template ANY ANY one.example {\n rcode REFUSED\n}\n"),
        ("two", "template ANY ANY two.example {\n rcode REFUSED\n}\n"),
    ] {
        fs::create_dir(dir.path().join(version))?;
        fs::write(dir.path().join(version).join("extra"), seconds)?;
    }
    symlink("one", dir.path().join("..data"))?;
    symlink("..data/extra", dir.path().join("extra"))?;
    let server = DnsServer::start(Setup { corefile, ..setup })?;
    let client = server.client();
    ensure!(client.ask("a.one.example.", "A")?.rcode == "REFUSED");
    ensure!(client.ask("a.two.example.", "A")?.rcode == "SERVFAIL");
    symlink("two", dir.path().join("..data_tmp"))?;
    fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data"))?;
    wait_for("the new import", PATIENCE, POLL, || {
        Ok(client.ask("a.two.example.", "A")?.rcode == "REFUSED")
    })?;
    ensure!(client.ask("a.one.example.", "A")?.rcode == "SERVFAIL");
    Ok(())
}

#[test]
fn a_reload_opens_new_ports_and_closes_old_ones() -> Result<()> {
    let server = DnsServer::start(setup())?;
    let client = server.client();
    let other = Client::new(SocketAddr::from(([127, 0, 0, 1], server.ports().dot)));
    let load = Load::start(client);
    let block = ".:$DOT {\n    bind 127.0.0.1\n    kubernetes cluster.local\n}\n";
    server.replace_corefile(&format!("{COREFILE}{block}"))?;
    server.signal(Signal::SIGUSR1)?;
    wait_for("the new port", PATIENCE, POLL, || {
        Ok(other
            .with_patience(Duration::from_millis(200))
            .ask(NAME, "A")
            .is_ok_and(|reply| reply.data("A") == ["10.96.0.1"]))
    })?;
    ensure!(other.query_tcp(&Query::new(NAME, "A")?)?.data("A") == ["10.96.0.1"]);
    server.replace_corefile(COREFILE)?;
    server.signal(Signal::SIGUSR1)?;
    wait_for("the end of the port", PATIENCE, POLL, || {
        Ok(other
            .with_patience(Duration::from_millis(200))
            .ask(NAME, "A")
            .is_err()
            && other.tcp().is_err())
    })?;
    load.stop()?;
    Ok(())
}

#[test]
fn a_reload_that_wants_a_taken_port_changes_nothing() -> Result<()> {
    let server = DnsServer::start(setup())?;
    let client = server.client();
    let taken = TcpListener::bind(("127.0.0.1", server.ports().dot))?;
    let block = ".:$DOT {\n    bind 127.0.0.1\n    kubernetes cluster.local\n}\n";
    server.replace_corefile(&format!("{}{block}", COREFILE.replace("ttl 30", "ttl 14")))?;
    server.signal(Signal::SIGUSR1)?;
    wait_for("the failed reload in the metrics", PATIENCE, POLL, || {
        Ok(server.metric_sum("coredns_reload_failed_total", &[])? > 0.0)
    })?;
    server.wait_log(&taken.local_addr()?.to_string(), PATIENCE)?;
    ensure!(ttl(&client)? == 30);
    ensure!(server.ready()?.status == 200 && server.health()?.status == 200);
    Ok(())
}

#[test]
fn a_thousand_pipelined_queries_are_all_answered() -> Result<()> {
    const QUERIES: usize = 1000;
    let server = DnsServer::start(setup())?;
    let mut stream = server.client().tcp()?;
    let (mut octets, mut ids) = (Vec::new(), BTreeSet::new());
    for _ in 0..QUERIES {
        let query = Query::new(NAME, "A")?;
        let message = query.encode()?;
        octets.extend(u16::try_from(message.len())?.to_be_bytes());
        octets.extend(message);
        ids.insert(query.id);
    }
    stream.send_raw(&octets)?;
    for left in (0..QUERIES).rev() {
        let bytes = stream
            .receive()?
            .with_context(|| format!("{} replies are missing", left + 1))?;
        let reply = Reply::decode(bytes)?;
        ensure!(
            reply.data("A") == ["10.96.0.1"] && ids.remove(&reply.id),
            "{reply}"
        );
    }
    Ok(())
}

#[test]
fn the_log_has_the_reference_s_form() -> Result<()> {
    let corefile = COREFILE.replace("    errors\n", "    errors\n    log\n");
    let server = DnsServer::start(Setup::new(&corefile).with_objects(&objects()))?;
    let client = server.client();
    let mut query = Query::new(NAME, "A")?;
    query.id = 12345;
    client.query(&query)?;
    client.query_tcp(&query.with_edns(1232))?;
    for (id, start) in [
        (
            12345,
            format!("\"A IN {NAME} udp 48 false 512\" NOERROR qr,aa,rd "),
        ),
        (
            12345,
            format!("\"A IN {NAME} tcp 59 false 65535\" NOERROR qr,aa,rd "),
        ),
    ] {
        server.wait_log(&format!(" - {id} {start}"), PATIENCE)?;
    }
    let log = server.log();
    let line = log
        .lines()
        .find(|line| line.contains(" udp 48 "))
        .context("no line")?;
    ensure!(
        line.starts_with("[INFO] 127.0.0.1:") && line.ends_with('s'),
        "{line}"
    );
    Ok(())
}

#[test]
fn a_bad_corefile_on_reload_keeps_the_old_one() -> Result<()> {
    let server = DnsServer::start(setup())?;
    let client = server.client();
    server.replace_corefile(&COREFILE.replace("pods insecure", "pods sometimes"))?;
    server.signal(Signal::SIGUSR1)?;
    wait_for("the failed reload in the metrics", PATIENCE, POLL, || {
        Ok(server.metric_sum("coredns_reload_failed_total", &[])? > 0.0)
    })?;
    server.wait_log("Corefile:7", PATIENCE)?;
    ensure!(ttl(&client)? == 30);
    ensure!(server.ready()?.status == 200 && server.health()?.status == 200);
    server.replace_corefile(&COREFILE.replace("ttl 30", "ttl 13"))?;
    server.signal(Signal::SIGUSR1)?;
    wait_for("the good one after it", PATIENCE, POLL, || {
        Ok(ttl(&client)? == 13)
    })
}

#[test]
fn killed_and_started_again_it_answers() -> Result<()> {
    let mut server = DnsServer::start(setup())?;
    for _ in 0..3 {
        let client = server.client();
        // A connection that was open does not keep the port.
        let mut open = client.tcp()?;
        open.ask(&Query::new(NAME, "A")?)?;
        server.kill()?;
        let began = Instant::now();
        server.start_again()?;
        ensure!(address_of(&client, "svc1")? == "10.96.0.1");
        ensure!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
    }
    Ok(())
}

/// A Corefile and what the one line about it must contain.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BadCorefile {
    name: String,
    corefile: String,
    says: Vec<String>,
}

#[test]
fn a_bad_corefile_ends_it_with_code_2_and_says_where() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/dns/bad-corefiles/list.yaml");
    let all: Vec<BadCorefile> = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
    let mut wrong = Vec::new();
    for bad in all {
        let mut server = DnsServer::spawn(Setup::new(&bad.corefile).with_objects(&objects()))?;
        let status = server.wait_exit(PATIENCE).with_context(|| bad.name.clone());
        let code = status.map(|status| status.code());
        if !matches!(code, Ok(Some(2))) {
            wrong.push(format!("{}: ended with {code:?}, not 2", bad.name));
        }
        let log = server.log();
        for word in bad.says.iter().filter(|word| !log.contains(*word)) {
            wrong.push(format!("{}: `{word}` is not in: {}", bad.name, log.trim()));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn an_import_that_is_missing_and_an_unknown_flag_end_it_with_code_2() -> Result<()> {
    let mut setup = Setup::new("import $DIR/nowhere\n").with_objects(&objects());
    let mut server = DnsServer::spawn(setup.clone())?;
    let code = server.wait_exit(PATIENCE)?.code();
    ensure!(
        code == Some(2) && server.log().contains("nowhere"),
        "{code:?}: {}",
        server.log()
    );
    setup.flags = vec!["-no-such-flag".to_owned()];
    let mut server = DnsServer::spawn(setup)?;
    let code = server.wait_exit(PATIENCE)?.code();
    ensure!(
        code == Some(2) && server.log().contains("no-such-flag"),
        "{code:?}: {}",
        server.log()
    );
    Ok(())
}

#[test]
fn the_flags_of_the_reference_are_taken() -> Result<()> {
    let mut version = setup();
    version.flags = vec!["-version".to_owned()];
    let mut server = DnsServer::spawn(version)?;
    ensure!(
        server.wait_exit(PATIENCE)?.code() == Some(0),
        "{}",
        server.log()
    );
    ensure!(
        server.log().to_lowercase().contains("switchyard"),
        "{}",
        server.log()
    );
    let mut plugins = setup();
    plugins.flags = vec!["-plugins".to_owned()];
    let mut server = DnsServer::spawn(plugins)?;
    ensure!(
        server.wait_exit(PATIENCE)?.code() == Some(0),
        "{}",
        server.log()
    );
    for plugin in ["kubernetes", "forward", "cache", "hosts"] {
        ensure!(
            server.log().contains(plugin),
            "no {plugin} in: {}",
            server.log()
        );
    }
    // A block that names no port listens on that of the flag.
    let mut port = setup();
    port.corefile = port.corefile.replace(".:$DNS {", ". {");
    port.flags = vec!["-dns.port".to_owned(), "$DNS".to_owned()];
    let server = DnsServer::start(port)?;
    ensure!(address_of(&server.client(), "svc1")? == "10.96.0.1");
    Ok(())
}

#[test]
fn a_taken_port_ends_it_with_code_1_and_names_it() -> Result<()> {
    let mut wrong = Vec::new();
    for kind in ["udp", "tcp", "health", "ready", "metrics"] {
        let ports = switchyard_tests::dns::Ports::free()?;
        let port = match kind {
            "udp" | "tcp" => ports.dns,
            "health" => ports.health,
            "ready" => ports.ready,
            _ => ports.metrics,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let (mut udp, mut tcp) = (None, None);
        if kind == "udp" {
            udp = Some(UdpSocket::bind(address)?);
        } else {
            tcp = Some(TcpListener::bind(address)?);
        }
        let mut setup = setup();
        setup.ports = Some(ports);
        let mut server = DnsServer::spawn(setup)?;
        let code = server.wait_exit(PATIENCE).map(|status| status.code());
        if !matches!(code, Ok(Some(1))) || !server.log().contains(&address.to_string()) {
            wrong.push(format!(
                "{kind} {address}: {code:?}: {}",
                server.log().trim()
            ));
        }
        drop((udp, tcp));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn health_and_ready_say_ok() -> Result<()> {
    let server = DnsServer::start(setup())?;
    for answer in [server.health()?, server.ready()?] {
        ensure!(answer.status == 200 && answer.body == "OK", "{answer:?}");
    }
    let other = switchyard_tests::testbed::http_get_here(
        SocketAddr::from(([127, 0, 0, 1], server.ports().health)),
        "/nothing",
    )?;
    ensure!(other.status == 404, "{other:?}");
    Ok(())
}

#[test]
fn it_drains_before_it_ends_and_follows_the_cluster_meanwhile() -> Result<()> {
    let corefile = COREFILE.replace(
        "health 127.0.0.1:$HEALTH",
        "health 127.0.0.1:$HEALTH {\n        lameduck 2s\n    }",
    );
    let mut server = DnsServer::start(Setup::new(&corefile).with_objects(&objects()))?;
    let client = server.client();
    let load = Load::start(client);
    server.signal(Signal::SIGTERM)?;
    let began = Instant::now();
    server.manifests().replace(&[
        namespace(),
        service("svc1", "10.96.0.1"),
        service("late", "10.96.0.6"),
    ])?;
    wait_address(&client, "late", "10.96.0.6")?;
    ensure!(server.health()?.status == 200, "/health while it drains");
    ensure!(
        server.ready().map_or(503, |answer| answer.status) == 503,
        "/ready while it drains"
    );
    std::thread::sleep(Duration::from_millis(1500).saturating_sub(began.elapsed()));
    load.stop().context("while it drained")?;
    let status = server.wait_exit(PATIENCE)?;
    let took = began.elapsed();
    ensure!(status.success(), "{status}");
    ensure!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(8),
        "it ended after {took:?}"
    );
    Ok(())
}

#[test]
fn without_lameduck_it_ends_at_once() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = DnsServer::start(setup())?;
        server.signal(signal)?;
        let began = Instant::now();
        let status = server.wait_exit(PATIENCE)?;
        ensure!(status.success(), "{signal}: {status}");
        ensure!(
            began.elapsed() < Duration::from_secs(6),
            "{signal}: {:?}",
            began.elapsed()
        );
    }
    Ok(())
}

#[test]
fn pipelined_queries_are_answered_as_they_finish() -> Result<()> {
    let script = Script {
        answer: vec!["slow.example.org. 60 A 192.0.2.1".to_owned()],
        wait_ms: 800,
        ..Script::default()
    };
    let upstream = Upstream::start(&BTreeMap::from([(
        "slow.example.org. A".to_owned(),
        script,
    )]))?;
    let corefile = COREFILE.replace(
        "    loadbalance\n",
        &format!("    loadbalance\n    forward . {}\n", upstream.address()),
    );
    let server = DnsServer::start(Setup::new(&corefile).with_objects(&objects()))?;
    let mut stream = server.client().tcp()?;
    let slow = Query::new("slow.example.org.", "A")?;
    stream.send(&slow.encode()?)?;
    let mut fast = Vec::new();
    for _ in 0..20 {
        let query = Query::new(NAME, "A")?;
        stream.send(&query.encode()?)?;
        fast.push(query.id);
    }
    let mut order = Vec::new();
    for _ in 0..21 {
        let reply = Reply::decode(stream.receive()?.context("no reply")?)?;
        ensure!(!reply.answer.is_empty(), "{reply}");
        order.push(reply.id);
    }
    ensure!(
        order.last() == Some(&slow.id),
        "the slow query was not the last to be answered"
    );
    ensure!(fast.iter().all(|id| order.contains(id)));
    Ok(())
}

/// A name and its labels' names, for each sample of the metrics' text.
fn shapes(text: &str) -> BTreeSet<String> {
    let mut shapes = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("coredns_")) {
        let sample = line.rsplit_once(' ').map_or(line, |(sample, _)| sample);
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let names: BTreeSet<&str> = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0))
            .collect();
        let names: Vec<&str> = names.into_iter().collect();
        shapes.insert(format!("{name}{{{}}}", names.join(",")));
    }
    shapes
}

/// The type of each metric.
fn types(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| name.starts_with("coredns_"))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetricDifference {
    metric: String,
    #[expect(dead_code, reason = "for the reader of the file")]
    reason: String,
}

#[test]
fn metrics_have_the_reference_s_names_and_labels() -> Result<()> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/coredns-1.14");
    let reference = fs::read_to_string(data.join("metrics.txt"))?;
    let meant: Vec<MetricDifference> =
        serde_saphyr::from_str(&fs::read_to_string(data.join("metrics-differences.yaml"))?)?;
    let api = ApiServer::start()?;
    api.put(&objects())?;
    let server = DnsServer::start(with_api(&api))?;
    let client = server.client();
    for (name, rtype) in [
        (NAME, "A"),
        ("nope.default.svc.cluster.local.", "A"),
        ("www.example.org.", "A"),
        ("1.0.96.10.in-addr.arpa.", "PTR"),
        ("1.0.96.10.in-addr.arpa.", "PTR"),
    ] {
        client.ask(name, rtype)?;
        client.query_tcp(&Query::new(name, rtype)?)?;
    }
    let ours = server.metrics()?;
    let (missing, known) = (shapes(&reference), shapes(&ours));
    let wrong: Vec<String> = missing
        .difference(&known)
        .filter(|shape| !meant.iter().any(|meant| shape.starts_with(&meant.metric)))
        .cloned()
        .collect();
    ensure!(
        wrong.is_empty(),
        "missing:\n{}\nours:\n{}",
        wrong.join("\n"),
        known.into_iter().collect::<Vec<_>>().join("\n")
    );
    let (theirs, ours_types) = (types(&reference), types(&ours));
    for (name, kind) in &theirs {
        if let Some(own) = ours_types.get(name) {
            ensure!(own == kind, "{name} is a {own}, not a {kind}");
        }
    }
    let label = format!("server=\"dns://:{}\"", server.ports().dns);
    let bound = format!("server=\"dns://127.0.0.1:{}\"", server.ports().dns);
    let count = |labels: &[&str]| server.metric_sum("coredns_dns_requests_total", labels);
    let server_label = if count(&[&label])? > 0.0 {
        label
    } else {
        bound
    };
    ensure!(
        count(&[
            &server_label,
            "proto=\"udp\"",
            "type=\"A\"",
            "family=\"1\"",
            "zone=\".\""
        ])? >= 3.0,
        "{ours}"
    );
    ensure!(
        count(&[&server_label, "proto=\"tcp\"", "type=\"PTR\""])? >= 2.0,
        "{ours}"
    );
    let codes = |rcode: &str| {
        server.metric_sum(
            "coredns_dns_responses_total",
            &[&format!("rcode=\"{rcode}\"")],
        )
    };
    ensure!(
        codes("NOERROR")? >= 6.0 && codes("NXDOMAIN")? >= 2.0 && codes("SERVFAIL")? >= 2.0,
        "{ours}"
    );
    Ok(())
}

#[test]
fn metrics_count_each_query_once() -> Result<()> {
    let server = DnsServer::start(setup())?;
    let client = server.client();
    let count = || server.metric_sum("coredns_dns_requests_total", &["type=\"SRV\""]);
    ensure!(count()? == 0.0);
    for _ in 0..250 {
        client.ask(NAME, "SRV")?;
    }
    ensure!(count()? == 250.0, "{}", count()?);
    let durations = server.metric_sum("coredns_dns_request_duration_seconds_count", &[])?;
    ensure!(durations >= 250.0, "{durations}");
    Ok(())
}

/// Resident memory in bytes.
fn resident(server: &DnsServer) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .context("no VmRSS")?
        .parse()?;
    Ok(kib * 1024)
}

/// More than it can answer, about names that an upstream never answers for: what waits is
/// bounded, names of the cluster are answered meanwhile, and all is well again at once.
#[test]
fn a_flood_costs_neither_memory_nor_cluster_names() -> Result<()> {
    const FLOOD: Duration = Duration::from_secs(4);
    const GROWTH_LIMIT_BYTES: u64 = 96 << 20;
    // Bound and never read: a silent upstream.
    let never = UdpSocket::bind(("127.0.0.1", 0))?;
    let corefile = COREFILE.replace(
        "    loadbalance\n",
        &format!(
            "    loadbalance\n    forward . {} {{\n        max_concurrent 1000\n    }}\n",
            never.local_addr()?
        ),
    );
    let server = DnsServer::start(Setup::new(&corefile).with_objects(&objects()))?;
    let client = server.client();
    ensure!(address_of(&client, "svc1")? == "10.96.0.1");
    let before = resident(&server)?;
    let stop = Arc::new(AtomicBool::new(false));
    let flooding = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || -> Result<usize> {
            let socket = client.socket()?;
            socket.set_nonblocking(true)?;
            let mut sent = 0;
            let mut buffer = [0; 512];
            while !stop.load(Ordering::Relaxed) {
                let query = Query::new(&format!("n{sent}.example.org."), "A")?.encode()?;
                sent += usize::from(socket.send(&query).is_ok());
                while socket.recv(&mut buffer).is_ok() {}
            }
            Ok(sent)
        })
    };
    let began = Instant::now();
    let (mut most, mut answered, mut lost) = (before, 0, 0);
    let patient = client.with_patience(Duration::from_secs(1));
    while began.elapsed() < FLOOD {
        match patient.ask(NAME, "A") {
            Ok(reply) if reply.data("A") == ["10.96.0.1"] => answered += 1,
            _ => lost += 1,
        }
        most = most.max(resident(&server)?);
        std::thread::sleep(Duration::from_millis(10));
    }
    stop.store(true, Ordering::Relaxed);
    let sent = flooding
        .join()
        .map_err(|_| anyhow::anyhow!("the flood panicked"))??;
    println!(
        "{sent} sent, {answered} answered, {lost} lost, {} MB more",
        (most - before) >> 20
    );
    ensure!(sent > 10_000, "that was no flood: {sent}");
    ensure!(
        most - before < GROWTH_LIMIT_BYTES,
        "{} bytes more",
        most - before
    );
    ensure!(answered > lost, "{answered} answered, {lost} lost");
    // Whatever still waits for the upstream waits alone.
    for _ in 0..50 {
        ensure!(address_of(&client, "svc1")? == "10.96.0.1");
    }
    Ok(())
}

mod tls {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    use super::*;

    #[test]
    fn dns_over_tls_is_answered() -> Result<()> {
        let certified = rcgen::generate_simple_self_signed(vec!["dns.test".to_owned()])?;
        let corefile = format!(
            "{COREFILE}\ntls://.:$DOT {{\n    bind 127.0.0.1\n    tls $DIR/tls.crt $DIR/tls.key\n    kubernetes cluster.local\n}}\n"
        );
        let setup = Setup::new(&corefile)
            .with_objects(&objects())
            .with_file("tls.crt", &certified.cert.pem())
            .with_file("tls.key", &certified.signing_key.serialize_pem());
        let server = DnsServer::start(setup)?;
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("dns.test")?;
        let connection = ClientConnection::new(Arc::new(config), name)?;
        let tcp = TcpStream::connect(("127.0.0.1", server.ports().dot))?;
        tcp.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut stream = StreamOwned::new(connection, tcp);
        // Two at once, then one more.
        for burst in [2, 1] {
            let query = Query::new(NAME, "A")?.encode()?;
            for _ in 0..burst {
                stream.write_all(&u16::try_from(query.len())?.to_be_bytes())?;
                stream.write_all(&query)?;
            }
            for _ in 0..burst {
                let mut length = [0; 2];
                stream.read_exact(&mut length)?;
                let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut bytes)?;
                let reply = Reply::decode(bytes)?;
                ensure!(reply.data("A") == ["10.96.0.1"], "{reply}");
            }
        }
        // What speaks no TLS is cut off and harms nobody.
        let mut plain = TcpStream::connect(("127.0.0.1", server.ports().dot))?;
        plain.write_all(&[0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])?;
        ensure!(address_of(&server.client(), "svc1")? == "10.96.0.1");
        Ok(())
    }
}

#[test]
fn a_transfer_is_the_whole_zone_and_only_for_whom_it_is_allowed() -> Result<()> {
    let corefile = COREFILE.replace(
        "    loadbalance\n",
        "    loadbalance\n    transfer cluster.local {\n        to *\n    }\n",
    );
    let server = DnsServer::start(Setup::new(&corefile).with_objects(&objects()))?;
    let mut stream = server.client().tcp()?;
    stream.send(&Query::new("cluster.local.", "AXFR")?.encode()?)?;
    let mut records = Vec::new();
    let began = Instant::now();
    while records.iter().filter(|(rtype, _)| rtype == "SOA").count() < 2 {
        let reply = Reply::decode(stream.receive()?.context("the transfer has no end")?)?;
        ensure!(reply.rcode == "NOERROR", "{reply}");
        records.extend(
            reply
                .answer
                .into_iter()
                .map(|record| (record.rtype.clone(), record.to_string())),
        );
        if began.elapsed() > PATIENCE {
            bail!("the transfer has no end");
        }
    }
    let has = |start: &str| records.iter().any(|(_, record)| record.starts_with(start));
    ensure!(records.first().is_some_and(|(rtype, _)| rtype == "SOA"));
    ensure!(
        has("svc1.default.svc.cluster.local. 30 A 10.96.0.1"),
        "{records:?}"
    );
    ensure!(
        has("_http._tcp.svc1.default.svc.cluster.local. 30 SRV"),
        "{records:?}"
    );
    let udp = server.client().ask("cluster.local.", "AXFR")?;
    ensure!(udp.rcode == "REFUSED", "{udp}");
    Ok(())
}
