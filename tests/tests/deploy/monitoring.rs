//! Alerts and dashboards: on metrics that there are, and as Prometheus takes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use switchyard_tests::deploy::tools::said;
use switchyard_tests::deploy::{objects, path};

use crate::{text, texts};

const PROGRAMS: [(&str, &str); 2] = [("proxy", "metrics.md"), ("dns", "dns-metrics.md")];
/// What each scrape has, whatever is scraped.
const OF_PROMETHEUS: [&str; 1] = ["up"];

/// Metrics of a program by its page, each with its type.
fn documented(page: &str) -> BTreeMap<String, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(page);
    let text = fs::read_to_string(file).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let name = cells.next()?.trim_end_matches('`').to_owned();
        Some((name, cells.next()?.to_owned()))
    });
    rows.collect()
}

/// Words of a PromQL expression that are names of metrics, by what ours begin with.
fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_metric = |word: &&str| {
        OF_PROMETHEUS.contains(word)
            || ["kubeproxy_", "switchyard_", "coredns_", "process_"]
                .iter()
                .any(|start| word.starts_with(start))
    };
    words.filter(is_metric).map(str::to_owned).collect()
}

fn alerts_file(program: &str) -> PathBuf {
    path(program).join("chart/alerts.yaml")
}

fn rules(program: &str) -> Vec<Value> {
    let text = fs::read_to_string(alerts_file(program)).unwrap();
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = read["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

fn dashboard(program: &str) -> Value {
    let text = fs::read_to_string(path(program).join("chart/dashboard.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// All expressions of a dashboard, with the titles of their panels.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.push((
                text(panel, "/title").to_owned(),
                text(target, "/expr").to_owned(),
            ));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        all.push((
            text(variable, "/name").to_owned(),
            text(variable, "/query/query").to_owned(),
        ));
    }
    all
}

/// What is wrong with the metrics of an expression.
fn unknown(expression: &str, documented: &BTreeMap<String, String>) -> Vec<String> {
    let histogram = |name: &str| {
        let parts = ["_bucket", "_sum", "_count"];
        let base = parts.iter().find_map(|part| name.strip_suffix(part));
        base.and_then(|base| documented.get(base))
            .is_some_and(|kind| kind == "histogram")
    };
    let known = |name: &str| {
        let whole = documented.get(name).is_some_and(|kind| kind != "histogram");
        whole || histogram(name) || OF_PROMETHEUS.contains(&name)
    };
    metrics_in(expression)
        .into_iter()
        .filter(|name| !known(name))
        .collect()
}

#[test]
fn every_metric_that_is_named_is_there() {
    for (program, page) in PROGRAMS {
        let documented = documented(page);
        assert!(
            documented.len() > 20,
            "{page} lists {} metrics",
            documented.len()
        );
        let mut expressions = queries(&dashboard(program));
        expressions.retain(|(_, expression)| !expression.is_empty() && expression != "prometheus");
        assert!(
            expressions.len() > 20,
            "{program}: a dashboard that shows nothing"
        );
        expressions.extend(rules(program).iter().map(|rule| {
            (
                text(rule, "/alert").to_owned(),
                text(rule, "/expr").to_owned(),
            )
        }));
        for (what, expression) in expressions {
            assert_eq!(
                unknown(&expression, &documented),
                [""; 0],
                "{program}: {what}"
            );
            assert_ne!(
                metrics_in(&expression).len(),
                0,
                "{program}: {what}: {expression}"
            );
        }
    }
}

#[test]
fn metrics_that_are_not_there_would_be_found() {
    let documented = documented("metrics.md");
    let expression = "rate(kubeproxy_sync_proxy_rules_duration_seconds[5m]) + switchyard_object \
                      + kubeproxy_sync_proxy_rules_duration_seconds_count + switchyard_objects_sum";
    assert_eq!(
        unknown(expression, &documented),
        [
            "kubeproxy_sync_proxy_rules_duration_seconds",
            "switchyard_object",
            "switchyard_objects_sum"
        ]
    );
}

#[test]
fn prometheus_takes_every_expression() {
    for (program, _) in PROGRAMS {
        said(
            Command::new("promtool")
                .args(["check", "rules"])
                .arg(alerts_file(program)),
        )
        .unwrap();
        // Expressions of dashboards as rules of a file: promtool parses nothing else.
        let expressions = queries(&dashboard(program));
        let panels = expressions.iter().filter(|(_, expression)| {
            expression.contains("rate_interval") || expression.contains('{')
        });
        let rules: Vec<Value> = panels
            .filter(|(_, expression)| !expression.starts_with("label_values"))
            .enumerate()
            .map(|(index, (title, expression))| {
                let expression = expression.replace("$__rate_interval", "5m");
                serde_json::json!({"record": format!("panel:{index}"), "expr": expression, "labels": {"title": title}})
            })
            .collect();
        assert!(rules.len() > 20);
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        let group = serde_json::json!({"groups": [{"name": program, "rules": rules}]});
        fs::write(file.path(), group.to_string()).unwrap();
        said(
            Command::new("promtool")
                .args(["check", "rules"])
                .arg(file.path()),
        )
        .unwrap();
    }
}

/// `promtool test rules`, of every alert.
#[test]
fn every_alert_fires_where_it_should_and_only_there() {
    for (program, _) in PROGRAMS {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/deploy/alerts")
            .join(format!("{program}.yaml"));
        said(Command::new("promtool").args(["test", "rules"]).arg(&tests)).unwrap();
        let read: Value = serde_saphyr::from_str(&fs::read_to_string(&tests).unwrap()).unwrap();
        let mut tried = BTreeSet::new();
        for test in read["tests"].as_array().unwrap() {
            for case in test["alert_rule_test"].as_array().unwrap() {
                if case["exp_alerts"].is_array() {
                    tried.insert(text(case, "/alertname").to_owned());
                }
            }
        }
        let all: BTreeSet<String> = rules(program)
            .iter()
            .map(|rule| text(rule, "/alert").to_owned())
            .collect();
        assert_eq!(tried, all, "{program}");
    }
}

#[test]
fn every_alert_says_how_bad_it_is_and_what_it_means() {
    for (program, _) in PROGRAMS {
        for rule in rules(program) {
            let name = text(&rule, "/alert");
            assert!(
                ["warning", "critical"].contains(&text(&rule, "/labels/severity")),
                "{name}"
            );
            for annotation in ["/annotations/summary", "/annotations/description"] {
                assert_ne!(text(&rule, annotation), "", "{name} {annotation}");
            }
        }
    }
}

/// Kustomize reads no file outside of its folder, so the rules are there once more.
#[test]
fn the_kustomize_component_carries_the_same_alerts() {
    for (program, _) in PROGRAMS {
        let file = path(program).join("kustomize/monitoring/prometheus-rule.yaml");
        let rules = fs::read_to_string(alerts_file(program)).unwrap();
        let there = fs::read_to_string(&file).unwrap();
        let (head, _) = there.split_once("spec:\n").unwrap();
        let spec: Vec<String> = rules
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| format!("  {line}\n"))
            .collect();
        let expected = format!("{head}spec:\n{}", spec.concat());
        if std::env::var_os("SWITCHYARD_WRITE_GOLDEN").is_some() {
            fs::write(&file, &expected).unwrap();
        } else {
            assert!(
                there == expected,
                "{} is not as it should be: SWITCHYARD_WRITE_GOLDEN=1 writes it",
                file.display()
            );
        }
        let object = objects::read(&expected).unwrap();
        let read: Value = serde_saphyr::from_str(&rules).unwrap();
        assert_eq!(object[0]["spec"], read);
    }
}

#[test]
fn panels_of_a_dashboard_have_their_own_places() {
    for (program, _) in PROGRAMS {
        let dashboard = dashboard(program);
        let mut ids = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = text(panel, "/title");
            assert!(
                ids.insert(panel["id"].as_u64().unwrap()),
                "{program}: {title}"
            );
            let place = |field: &str| panel["gridPos"][field].as_u64().unwrap();
            for x in place("x")..place("x") + place("w") {
                assert!(x < 24, "{program}: {title}");
                for y in place("y")..place("y") + place("h") {
                    assert!(
                        taken.insert((x, y)),
                        "{program}: {title} covers another panel"
                    );
                }
            }
        }
        assert_eq!(texts(&dashboard, "/tags"), ["switchyard"]);
    }
}
