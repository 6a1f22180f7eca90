//! Configuration files, as data: `golden/` and `invalid.yaml`.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser as _;
use serde_json::Value;

use super::*;

const HEAD: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
const HOST_NAME: &str = "host";
/// Set to write the expectations of `golden/` anew.
const WRITE: &str = "SWITCHYARD_WRITE_GOLDEN";

fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/settings")
        .join(name)
}

fn recorded(name: &str) -> String {
    let folder = "../tests/data/kube-proxy-1.36";
    fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(folder)
            .join(name),
    )
    .unwrap()
}

fn flags(args: &[&str]) -> Flags {
    let words = [&["switchyard-proxy"], args].concat();
    Flags::from_arguments(words.into_iter().map(Into::into).collect()).unwrap()
}

fn read_file(file: &Path, args: &[&str]) -> Result<(Settings, Notices), Vec<SettingError>> {
    let config = format!("--config={}", file.display());
    Settings::read(&flags(&[&[config.as_str()], args].concat()), HOST_NAME)
}

fn read_text(text: &str, args: &[&str]) -> Result<(Settings, Notices), Vec<SettingError>> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, format!("{HEAD}{text}\n")).unwrap();
    read_file(&file, args)
}

/// The fields of the settings, one a text, without the configuration they come from.
fn fields(settings: &Settings) -> Vec<String> {
    let shown = format!("{settings:#?}\n");
    let mut fields: Vec<String> = Vec::new();
    for line in shown
        .lines()
        .skip(1)
        .filter(|line| line.starts_with("    "))
    {
        let begins = !line.starts_with("     ")
            && !line.starts_with("    }")
            && !line.starts_with("    ]")
            && !line.starts_with("    )");
        match fields.last_mut() {
            Some(field) if !begins => field.push_str(&format!("\n{}", &line[4..])),
            _ => fields.push(line[4..].to_owned()),
        }
    }
    fields.retain(|field| !field.starts_with("configuration: "));
    fields
}

/// What a file changes of the settings, and what is said about it.
fn expectation(file: &Path) -> String {
    let (settings, notices) = read_file(file, &[]).unwrap();
    let usual = fields(&read_text("", &[]).unwrap().0);
    let mut text = String::new();
    for field in fields(&settings) {
        if !usual.contains(&field) {
            text.push_str(&format!("{field}\n"));
        }
    }
    let said = [
        ("passed over", notices.passed_over),
        ("ignored flags", notices.ignored_flags),
        ("without effect", notices.without_effect),
    ];
    for (what, names) in said.into_iter().filter(|(_, names)| !names.is_empty()) {
        text.push_str(&format!("{what}: {}\n", names.join(", ")));
    }
    text
}

#[test]
fn files_as_they_are_in_the_world_become_these_settings() {
    let mut seen = 0;
    for entry in fs::read_dir(here("golden")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|ending| ending != "yaml") {
            continue;
        }
        seen += 1;
        let (found, golden) = (expectation(&file), file.with_extension("txt"));
        if std::env::var_os(WRITE).is_some() {
            fs::write(&golden, &found).unwrap();
        }
        assert_eq!(
            found,
            fs::read_to_string(golden).unwrap(),
            "{}",
            file.display()
        );
    }
    assert!(seen >= 12, "{seen}");
}

#[derive(serde::Deserialize)]
struct Wrong {
    given: String,
    says: Vec<String>,
}

#[test]
fn all_that_is_wrong_in_a_file_is_said_at_once() {
    let text = fs::read_to_string(here("invalid.yaml")).unwrap();
    let cases: Vec<Wrong> = serde_saphyr::from_str(&text).unwrap();
    for Wrong { given, says } in cases {
        let errors = read_text(&given, &[]).map(|_| ()).unwrap_err();
        let said: Vec<String> = errors
            .iter()
            .map(|error| {
                error
                    .to_string()
                    .split_once("config.yaml: ")
                    .unwrap()
                    .1
                    .to_owned()
            })
            .collect();
        assert_eq!(said, says, "{given}");
    }
}

#[test]
fn what_is_written_by_default_is_what_the_reference_writes() {
    let (settings, _) = Settings::read(&flags(&[]), HOST_NAME).unwrap();
    let written = configuration::yaml(&settings.configuration).unwrap();
    let written: Value = serde_saphyr::from_str(&written).unwrap();
    let theirs: Value = serde_saphyr::from_str(&recorded("default-config.yaml")).unwrap();
    assert_eq!(written, theirs);
    // What was written is read as what was written.
    let (of_file, notices) = read_text(
        recorded("default-config.yaml").split_once("\n").unwrap().1,
        &[],
    )
    .unwrap();
    assert_eq!(of_file.configuration, settings.configuration);
    assert_eq!(notices.passed_over, ["kind (given twice; the last counts)"]);
}

/// With the flags the recorded one had.
#[test]
fn configz_shows_what_the_references_does() {
    for mode in ["iptables", "nftables"] {
        let text = recorded(&format!("http-{mode}.txt"));
        let (_, answer) = text.split_once("GET /configz on 10249\n").unwrap();
        let mut answer = serde_json::Deserializer::from_str(answer).into_iter::<Value>();
        let answer = answer.next().unwrap().unwrap();
        let theirs: Value = serde_json::from_str(answer[2].as_str().unwrap()).unwrap();
        let flags = flags(&[
            "--kubeconfig=/var/lib/kube-proxy/kubeconfig.conf",
            "--hostname-override=node1",
            "--iptables-min-sync-period=0s",
            "--cluster-cidr=10.244.0.0/16,fd00:244::/32",
            "--nodeport-addresses=0.0.0.0/0,::/0",
            "--conntrack-max-per-core=0",
            &format!("--proxy-mode={mode}"),
        ]);
        let (settings, _) = Settings::read(&flags, HOST_NAME).unwrap();
        let ours: Value = serde_json::from_str(&settings.configuration.configz().unwrap()).unwrap();
        assert_eq!(ours, theirs, "{mode}");
    }
}

#[test]
fn what_is_in_force_can_be_read_again() {
    for entry in fs::read_dir(here("golden")).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|ending| ending == "yaml") {
            let (settings, _) = read_file(&file, &[]).unwrap();
            let text = configuration::yaml(&settings.configuration).unwrap();
            let (again, notices) = read_text(
                text.trim_start_matches("apiVersion: kubeproxy.config.k8s.io/v1alpha1\n"),
                &[],
            )
            .unwrap();
            assert_eq!(
                again.configuration,
                settings.configuration,
                "{}",
                file.display()
            );
            assert_eq!(notices.passed_over.len(), 1, "kind alone, given twice");
        }
    }
}

#[test]
fn beside_a_file_few_flags_count_and_the_others_are_named() {
    let (settings, notices) = read_text(
        "mode: ipvs\nhostnameOverride: of-file\nclusterCIDR: 10.1.0.0/16\n\
         logging: {verbosity: 1}\nclientConnection: {kubeconfig: /a}",
        &[
            "--hostname-override=Of-Flag",
            "--proxy-mode=iptables",
            "--cluster-cidr=10.2.0.0/16",
            "--kubeconfig=/b",
            "--master=https://192.0.2.1",
            "-v=4",
            "--logging-format=json",
        ],
    )
    .unwrap();
    assert_eq!(settings.node_name, "of-flag");
    assert_eq!(settings.configuration.hostname_override, "of-flag");
    assert_eq!(settings.proxy_mode, ProxyMode::Ipvs);
    assert_eq!(settings.configuration.cluster_cidr, "10.1.0.0/16");
    let source = Source::Api {
        kubeconfig: Some("/a".into()),
        master: Some("https://192.0.2.1".to_owned()),
    };
    assert_eq!(settings.source, source);
    assert_eq!(
        settings.logging,
        Logging {
            json: true,
            verbosity: 4
        }
    );
    let mut ignored = notices.ignored_flags;
    ignored.sort();
    assert_eq!(ignored, ["--cluster-cidr", "--kubeconfig", "--proxy-mode"]);

    let (settings, _) =
        read_text("clientConnection: {kubeconfig: /a}", &["--manifests=/m"]).unwrap();
    assert_eq!(settings.source, Source::Manifests("/m".into()));
}

/// `kube-proxy.md` §1.8.
#[test]
fn every_flag_of_the_reference_is_known() {
    let args = [
        "--config=/c",
        "--write-config-to=/w",
        "--cleanup",
        "--feature-gates=A=true,B=false",
        "--kubeconfig=/k",
        "--master=m",
        "--kube-api-content-type=c",
        "--kube-api-burst=20",
        "--kube-api-qps=7.5",
        "--hostname-override=h",
        "--bind-address=::",
        "--healthz-bind-address=127.0.0.1",
        "--metrics-bind-address=[::1]:1",
        "--bind-address-hard-fail",
        "--profiling",
        "--show-hidden-metrics-for-version=1.35",
        "--init-only",
        "--proxy-mode=ipvs",
        "--iptables-masquerade-bit=3",
        "--masquerade-all",
        "--iptables-localhost-nodeports=false",
        "--iptables-sync-period=1m",
        "--iptables-min-sync-period=1s",
        "--ipvs-sync-period=1m",
        "--ipvs-min-sync-period=1s",
        "--ipvs-scheduler=rr",
        "--ipvs-exclude-cidrs=10.0.0.0/8",
        "--ipvs-strict-arp",
        "--ipvs-tcp-timeout=1s",
        "--ipvs-tcpfin-timeout=1s",
        "--ipvs-udp-timeout=1s",
        "--detect-local-mode=NodeCIDR",
        "--pod-bridge-interface=b",
        "--pod-interface-name-prefix=p",
        "--cluster-cidr=10.0.0.0/8",
        "--nodeport-addresses=primary",
        "--oom-score-adj=-5",
        "--conntrack-max-per-core=1",
        "--conntrack-min=1",
        "--conntrack-tcp-timeout-established=1s",
        "--conntrack-tcp-timeout-close-wait=1s",
        "--conntrack-tcp-be-liberal",
        "--conntrack-udp-timeout=1s",
        "--conntrack-udp-timeout-stream=1s",
        "--config-sync-period=1m",
        "--healthz-port=8080",
        "--metrics-port=0",
        "-v=3",
        "--vmodule=a=1,b*=2",
        "--logging-format=json",
        "--log-flush-frequency=1s",
        "--log-text-split-stream",
        "--log-json-split-stream",
        "--log-text-info-buffer-size=1Ki",
        "--log-json-info-buffer-size=1Ki",
        "--boot-id-file=/b",
        "--machine-id-file=/m",
    ];
    let mut flags = flags(&args);
    assert_eq!(flags.given.len(), args.len());
    flags.config = None;
    let (settings, notices) = Settings::read(&flags, HOST_NAME).unwrap();
    // The deprecated ports: one completes an address, zero switches off.
    assert_eq!(
        settings.healthz_address.unwrap().to_string(),
        "127.0.0.1:8080"
    );
    assert_eq!(settings.metrics_address, None);
    assert_eq!(settings.oom_score_adj, -5);
    assert!(settings.configuration.bind_address_hard_fail);
    let expected = [
        "--feature-gates",
        "--kube-api-content-type",
        "--kube-api-qps",
        "--kube-api-burst",
        "--log-flush-frequency",
        "--vmodule",
        "--log-text-… and --log-json-…",
        "--profiling",
        "--show-hidden-metrics-for-version",
        "--config-sync-period",
        "--boot-id-file",
        "--machine-id-file",
    ];
    assert_eq!(notices.without_effect, expected);
}

#[test]
fn flags_of_several_fields_are_said_to_be_wrong_once() {
    let flags = Flags::try_parse_from([
        "switchyard-proxy",
        "--iptables-sync-period=1s",
        "--iptables-min-sync-period=2s",
    ]);
    let errors = Settings::read(&flags.unwrap(), HOST_NAME)
        .map(|_| ())
        .unwrap_err();
    let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let expected = "--iptables-min-sync-period: \"2s\": expected no more than the sync period";
    assert_eq!(said, [expected]);
}
