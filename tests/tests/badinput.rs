//! Bad flags, bad files, bad objects, missing tools and rights: what is said, and that nothing is lost.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use switchyard_tests::cases::{Manifests, ServiceSpec, expand_service, node_objects};
use switchyard_tests::testbed::{
    Family, IptablesTool, Outcome, Place, Probe, Protocol, Proxy, ProxyOptions, Testbed,
    find_binary, wait_for,
};

const POLL: Duration = Duration::from_millis(30);
const SOON: Duration = Duration::from_secs(10);
const NOBODY: u32 = 65_534;

/// What a run that must end by itself said.
struct Ended {
    code: Option<i32>,
    said: String,
}

/// Runs the proxy in node1, with a change to its command, until it ends.
fn run(bed: &Testbed, flags: &[&str], change: impl FnOnce(&mut Command)) -> Result<Ended> {
    let mut command = Command::new(find_binary()?);
    command.args(flags);
    change(&mut command);
    let output = bed.in_place(Place::Node1, move || -> Result<_> {
        let mut child = command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()?;
        let ended = wait_for("the end of the proxy", SOON, POLL, || {
            Ok(child.try_wait()?.is_some())
        });
        if ended.is_err() {
            child.kill()?;
        }
        let output = child.wait_with_output()?;
        ended.with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok(output)
    })??;
    let said = [output.stdout, output.stderr].concat();
    Ok(Ended {
        code: output.status.code(),
        said: String::from_utf8_lossy(&said).into_owned(),
    })
}

#[test]
fn bad_usage_ends_with_2_and_says_what_was_expected() -> Result<()> {
    let bed = Testbed::build()?;
    let manifests = format!("--manifests={}", bed.work_dir().display());
    for (flags, named) in [
        (vec!["--no-such-flag"], "--no-such-flag"),
        (vec![&manifests, "--proxy-mode=bogus"], "bogus"),
        (
            vec![&manifests, "--cluster-cidr=10.244.0.0/99"],
            "10.244.0.0/99",
        ),
        (
            vec![&manifests, "--nodeport-addresses=everywhere"],
            "everywhere",
        ),
        (vec![&manifests, "--iptables-sync-period=soon"], "soon"),
        (vec![&manifests, "--iptables-masquerade-bit=99"], "99"),
        (
            vec![&manifests, "--healthz-bind-address=nowhere"],
            "nowhere",
        ),
        (
            vec!["--manifests=/no/such/directory", "--proxy-mode=iptables"],
            "/no/such/directory",
        ),
        (vec!["--config=/no/such/file"], "/no/such/file"),
    ] {
        let ended = run(&bed, &flags, |_| {}).with_context(|| format!("{flags:?}"))?;
        ensure!(
            ended.code == Some(2),
            "{flags:?} ended with {:?}: {}",
            ended.code,
            ended.said
        );
        ensure!(
            ended.said.contains(named),
            "{flags:?} did not name `{named}`: {}",
            ended.said
        );
    }
    Ok(())
}

#[test]
fn without_iptables_it_ends_with_1_and_names_it() -> Result<()> {
    let bed = Testbed::build()?;
    let manifests = format!("--manifests={}", bed.work_dir().display());
    let empty = bed.work_dir().join("empty-path");
    fs::create_dir(&empty)?;
    let flags = [
        manifests.as_str(),
        "--proxy-mode=iptables",
        "--hostname-override=node1",
    ];
    let ended = run(&bed, &flags, |command| {
        command.env("PATH", &empty);
    })?;
    ensure!(
        ended.code == Some(1),
        "ended with {:?}: {}",
        ended.code,
        ended.said
    );
    ensure!(
        ended.said.contains("iptables"),
        "did not name what is missing: {}",
        ended.said
    );
    Ok(())
}

/// No cgroup2 directory: a place that no socket program can be attached to.
#[test]
fn ebpf_mode_where_it_cannot_work_ends_with_1_and_says_what_to_use() -> Result<()> {
    let bed = Testbed::build()?;
    let directory = bed.work_dir().display();
    let flags = [
        format!("--manifests={directory}"),
        format!("--cgroup-root={directory}"),
        format!("--bpf-root={directory}/pins"),
        "--proxy-mode=ebpf".to_owned(),
        "--hostname-override=node1".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let ended = run(&bed, &flags, |_| {})?;
    ensure!(
        ended.code == Some(1),
        "ended with {:?}: {}",
        ended.code,
        ended.said
    );
    for named in ["this machine lacks", "--proxy-mode=iptables"] {
        ensure!(ended.said.contains(named), "{named:?}: {}", ended.said);
    }
    Ok(())
}

#[test]
fn without_root_it_ends_with_1_and_says_so() -> Result<()> {
    let bed = Testbed::build()?;
    // A copy that somebody else may run.
    let dir = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()?;
    let binary = dir.path().join("switchyard-proxy");
    fs::copy(find_binary()?, &binary)?;
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755))?;
    let manifests = format!("--manifests={}", dir.path().display());
    let output = bed.in_place(Place::Node1, move || {
        Command::new(&binary)
            .args([
                manifests.as_str(),
                "--proxy-mode=iptables",
                "--hostname-override=node1",
            ])
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
    })??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(1),
        "ended with {}: {said}",
        output.status
    );
    ensure!(
        said.contains("root") || said.contains("CAP_NET_ADMIN"),
        "did not say what is missing: {said}"
    );
    Ok(())
}

struct Stage {
    bed: Testbed,
    manifests: Manifests,
}

impl Stage {
    fn new() -> Result<Self> {
        let bed = Testbed::build()?;
        let manifests = Manifests::create(bed.work_dir(), "manifests")?;
        for endpoint in ["10.244.1.31:8080", "10.244.2.51:8080"] {
            bed.serve_endpoint(Protocol::Tcp, endpoint.parse()?)?;
        }
        let stage = Self { bed, manifests };
        stage.manifests.replace(&node_objects())?;
        Ok(stage)
    }

    fn options(&self) -> Result<ProxyOptions> {
        let mut options = ProxyOptions::new(&self.bed, self.manifests.dir(), "iptables")?;
        options.tool = Some(IptablesTool::Nft);
        options.flags = vec![
            "--iptables-sync-period=2s".to_owned(),
            "--iptables-min-sync-period=0s".to_owned(),
        ];
        Ok(options)
    }

    fn put(&self, file: &str, services: &[(&str, &str, &str)]) -> Result<()> {
        self.manifests.replace_file(file, &text_of(services)?)
    }

    fn outcome(&self, vip: &str) -> Result<Outcome> {
        let to = format!("{vip}:80").parse()?;
        self.bed.probe(
            &Probe::new(Place::Pod12, Protocol::Tcp, to).timeout(Duration::from_millis(1300)),
        )
    }

    fn wait_for_answer(&self, vip: &str, by: &str, proxy: &Proxy) -> Result<()> {
        let what = format!("{vip} answered by {by}");
        wait_for(&what, SOON, POLL, || {
            Ok(matches!(self.outcome(vip)?, Outcome::Answered(answer) if answer.by.ip().to_string() == by))
        })
        .with_context(|| format!("log:\n{}", proxy.log_tail(20)))
    }
}

/// Services by name, ClusterIP and endpoint.
fn text_of(services: &[(&str, &str, &str)]) -> Result<String> {
    let mut text = String::new();
    for (name, vip, endpoint) in services {
        let spec = ServiceSpec {
            cluster_ip: Some((*vip).to_owned()),
            ports: vec!["80->8080".parse()?],
            endpoints: Some(vec![endpoint.parse()?]),
            ..ServiceSpec::default()
        };
        for object in expand_service(name, &spec, &[Family::IPv4])? {
            text.push_str("---\n");
            text.push_str(&serde_json::to_string(&object)?);
            text.push('\n');
        }
    }
    Ok(text)
}

fn wait_for_log(proxy: &Proxy, words: &[&str]) -> Result<()> {
    let what = format!("a log line with {words:?}");
    wait_for(&what, SOON, POLL, || {
        Ok(proxy
            .log()
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word))))
    })
    .with_context(|| format!("log:\n{}", proxy.log_tail(20)))
}

#[test]
fn a_broken_file_keeps_its_last_good_content_and_stops_nothing_else() -> Result<()> {
    let stage = Stage::new()?;
    stage.put("one.yaml", &[("one", "10.96.6.1", "10.244.1.31")])?;
    stage.put("two.yaml", &[("two", "10.96.6.2", "10.244.1.31")])?;
    let proxy = Proxy::start(&stage.bed, stage.options()?)?;
    stage.wait_for_answer("10.96.6.1", "10.244.1.31", &proxy)?;

    // The second document is cut off in its middle.
    let good = text_of(&[("one", "10.96.6.1", "10.244.2.51")])?;
    stage
        .manifests
        .replace_file("one.yaml", &good[..good.len() - 40])?;
    wait_for_log(&proxy, &["one.yaml", "document"])?;
    stage.put("two.yaml", &[("two", "10.96.6.2", "10.244.2.51")])?;
    stage.wait_for_answer("10.96.6.2", "10.244.2.51", &proxy)?;
    stage
        .wait_for_answer("10.96.6.1", "10.244.1.31", &proxy)
        .context("the broken file's last good content")?;

    stage.manifests.replace_file("one.yaml", &good)?;
    stage.wait_for_answer("10.96.6.1", "10.244.2.51", &proxy)?;
    stage.manifests.remove_file("one.yaml")?;
    let gone = |outcome: &Outcome| matches!(outcome, Outcome::Answered(answer) if answer.place == Place::Fabric.name());
    wait_for("the removal of one", SOON, POLL, || {
        Ok(gone(&stage.outcome("10.96.6.1")?))
    })?;
    stage.wait_for_answer("10.96.6.2", "10.244.2.51", &proxy)
}

#[test]
fn a_file_broken_from_the_start_stops_nothing_else() -> Result<()> {
    let stage = Stage::new()?;
    stage
        .manifests
        .replace_file("broken.yaml", "kind: Service\n  metadata: [\n")?;
    stage.put("good.yaml", &[("good", "10.96.6.1", "10.244.1.31")])?;
    let proxy = Proxy::start(&stage.bed, stage.options()?)?;
    stage.wait_for_answer("10.96.6.1", "10.244.1.31", &proxy)?;
    wait_for_log(&proxy, &["broken.yaml"])
}

/// A value that cannot be is named with object and field, once; the rest of the cluster goes on.
#[test]
fn a_bad_object_is_named_once_and_the_rest_goes_on() -> Result<()> {
    let stage = Stage::new()?;
    for (number, (field, good, bad)) in [
        ("clusterIP", "10.96.6.9", "10.96.6.999"),
        ("port", "\"port\":80", "\"port\":70000"),
        ("protocol", "\"TCP\"", "\"ICMP\""),
        ("addresses", "10.244.1.31", "10.244.1.311"),
    ]
    .into_iter()
    .enumerate()
    {
        let text = text_of(&[("bad", "10.96.6.9", "10.244.1.31")])?.replace(good, bad);
        ensure!(text.contains(bad), "nothing was broken by {bad}");
        stage.manifests.replace_file("bad.yaml", &text)?;
        let vip = format!("10.96.6.{}", 10 + number);
        stage.put("good.yaml", &[("good", &vip, "10.244.1.31")])?;
        let mut options = stage.options()?;
        options.log = stage.bed.work_dir().join(format!("{field}.log"));
        let proxy = Proxy::start(&stage.bed, options)?;
        stage.wait_for_answer(&vip, "10.244.1.31", &proxy)?;
        wait_for_log(&proxy, &["bad", field]).with_context(|| format!("{field} = {bad}"))?;
        // Another change of another file must not bring the warning again.
        stage.put("good.yaml", &[("good", &vip, "10.244.2.51")])?;
        stage.wait_for_answer(&vip, "10.244.2.51", &proxy)?;
        let warnings = proxy
            .log()
            .lines()
            .filter(|line| line.contains("WARN") && line.contains("bad"))
            .count();
        ensure!(
            warnings <= 2,
            "{field}: {warnings} warnings about one object:\n{}",
            proxy.log()
        );
    }
    Ok(())
}

/// A tool that refuses what names one address, as the real one would a rule it does not know.
fn refusing_tool(dir: &Path, refused: &str) -> Result<PathBuf> {
    let tools = dir.join("refusing");
    IptablesTool::Nft.link_into(&tools)?;
    let real = fs::read_link(tools.join("iptables-restore"))?;
    fs::remove_file(tools.join("iptables-restore"))?;
    for command in ["cat", "grep", "sh", "cut", "head"] {
        let found = ["/usr/bin", "/bin"]
            .into_iter()
            .map(|dir| Path::new(dir).join(command))
            .find(|file| file.is_file());
        symlink(
            found.with_context(|| format!("no {command}"))?,
            tools.join(command),
        )?;
    }
    let script = format!(
        "#!/bin/sh\n# Stands before the real tool; refuses every batch that names {refused}.\n\
         input=$(cat; echo .)\ninput=${{input%.}}\n\
         line=$(printf %s \"$input\" | grep -n -F '{refused}' | head -n 1 | cut -d: -f1)\n\
         if [ -n \"$line\" ] && [ ! -e '{}' ]; then\n  echo \"iptables-restore: line $line failed\" >&2\n  exit 1\nfi\n\
         printf %s \"$input\" | exec -a iptables-restore '{}' iptables-restore \"$@\"\n",
        dir.join("accept").display(),
        real.display()
    )
    // `exec -a` is no part of sh; the tool takes its name as first argument as well.
    .replace("exec -a iptables-restore ", "");
    let path = tools.join("iptables-restore");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(tools)
}

/// A batch that the tool refuses costs only the Service it is about, and is tried again.
#[test]
fn a_refused_batch_is_reported_and_costs_no_other_service() -> Result<()> {
    let stage = Stage::new()?;
    let tools = refusing_tool(stage.bed.work_dir(), "10.96.6.66")?;
    stage.put("good.yaml", &[("good", "10.96.6.1", "10.244.1.31")])?;
    let mut options = stage.options()?;
    options.path = Some(tools);
    let proxy = Proxy::start(&stage.bed, options)?;
    stage.wait_for_answer("10.96.6.1", "10.244.1.31", &proxy)?;

    stage.put("refused.yaml", &[("refused", "10.96.6.66", "10.244.1.31")])?;
    wait_for_log(&proxy, &["iptables-restore", "10.96.6.66"]).context("the offending line")?;
    // The same and a new Service go on, in the same cluster as the one that is refused.
    stage.put(
        "good.yaml",
        &[
            ("good", "10.96.6.1", "10.244.2.51"),
            ("new", "10.96.6.2", "10.244.1.31"),
        ],
    )?;
    stage.wait_for_answer("10.96.6.1", "10.244.2.51", &proxy)?;
    stage.wait_for_answer("10.96.6.2", "10.244.1.31", &proxy)?;

    // What was refused is tried again, at the latest with the Service's next change.
    fs::write(stage.bed.work_dir().join("accept"), "")?;
    stage.put("refused.yaml", &[("refused", "10.96.6.66", "10.244.2.51")])?;
    stage
        .wait_for_answer("10.96.6.66", "10.244.2.51", &proxy)
        .context("once it is accepted")
}
