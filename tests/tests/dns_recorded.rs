//! What a real CoreDNS answered for the recorded objects, asked of ours under the same Corefile.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use switchyard_tests::dns::oracle::{Oracle, OracleConfig};
use switchyard_tests::dns::{Client, DnsServer, Query, Record, Reply, Setup, namespace_object};
use switchyard_tests::recorded;

/// An answer of the recording.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recorded {
    q: String,
    t: String,
    rcode: String,
    flags: String,
    answer: Vec<String>,
    authority: Vec<String>,
    additional: Vec<String>,
}

/// A difference that is meant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    ask: String,
    #[serde(default)]
    reference: BTreeSet<String>,
    #[serde(default)]
    ours: BTreeSet<String>,
    reason: String,
}

fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/coredns-1.14")
}

fn read(name: &str) -> Result<String> {
    let path = data_dir().join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

fn objects() -> Result<Vec<Value>> {
    let mut objects = recorded::objects()?;
    let more = [
        read("extra-objects.yaml")?,
        recorded::default_kubernetes_text()?,
    ];
    for text in more {
        let read: Vec<Value> = serde_saphyr::from_multiple(&text)?;
        objects.extend(read);
    }
    objects.push(namespace_object("default", &Default::default()));
    Ok(objects)
}

/// The recorded Corefile with our ports, and without the API server of the recording.
fn corefile() -> Result<String> {
    let recorded = read("Corefile")?;
    let ours: Vec<String> = recorded
        .lines()
        .filter(|line| !line.trim_start().starts_with("kubeconfig "))
        .map(|line| {
            line.replace(".:1853 {", ".:$DNS {\n    bind 127.0.0.1")
                .replace("18080", "$HEALTH")
                .replace("18181", "$READY")
                .replace("19153", "$METRICS")
        })
        .collect();
    Ok(ours.join("\n"))
}

/// A reply as the set of its parts. SOA serials are times: what they are is not compared.
fn parts<'a>(
    rcode: &str,
    flags: &str,
    sections: impl IntoIterator<Item = (&'static str, &'a String)>,
) -> BTreeSet<String> {
    let records = sections.into_iter().map(|(section, record)| {
        let mut words: Vec<&str> = record.split(' ').collect();
        if words.get(2) == Some(&"SOA") {
            words[5] = "SERIAL";
        }
        format!("{section} {}", words.join(" "))
    });
    let flags = flags.split(' ').map(|flag| format!("flag {flag}"));
    records
        .chain(flags)
        .chain([format!("rcode {rcode}")])
        .collect()
}

impl Recorded {
    fn parts(&self) -> BTreeSet<String> {
        let sections = self.answer.iter().map(|record| ("answer", record));
        let sections = sections
            .chain(self.authority.iter().map(|record| ("authority", record)))
            .chain(self.additional.iter().map(|record| ("additional", record)));
        parts(&self.rcode, &self.flags, sections)
    }
}

fn parts_of(reply: &Reply) -> BTreeSet<String> {
    let text =
        |records: &[Record]| -> Vec<String> { records.iter().map(Record::to_string).collect() };
    let (answer, authority, additional) = (
        text(&reply.answer),
        text(&reply.authority),
        text(&reply.additional),
    );
    let sections = answer.iter().map(|record| ("answer", record));
    let sections = sections
        .chain(authority.iter().map(|record| ("authority", record)))
        .chain(additional.iter().map(|record| ("additional", record)));
    parts(&reply.rcode, &reply.flags, sections)
}

fn ask(client: &Client, recorded: &Recorded) -> Result<Reply> {
    let query = Query::new(&recorded.q, &recorded.t)?;
    // What the reference cut is compared with all there is.
    let reply = if recorded.flags.contains("TC") {
        client.query_tcp(&query)?
    } else {
        client.query(&query)?
    };
    let count = reply.answer.len() + reply.authority.len() + reply.additional.len();
    let flags = reply.flags.split(' ').count();
    ensure!(
        parts_of(&reply).len() == count + flags + 1,
        "a record stands there twice: {reply}"
    );
    Ok(reply)
}

#[test]
fn every_recorded_answer_is_ours_too() -> Result<()> {
    let server = DnsServer::start(Setup::new(&corefile()?).with_objects(&objects()?))?;
    let client = server.client();
    let mut meant: Vec<Difference> = serde_saphyr::from_str(&read("differences.yaml")?)?;
    let answers = read("answers.jsonl")?;
    let mut wrong = Vec::new();
    for line in answers.lines() {
        let recorded: Recorded = serde_json::from_str(line)?;
        let question = format!("{} {}", recorded.q, recorded.t);
        let reply = match ask(&client, &recorded) {
            Ok(reply) => reply,
            Err(error) => {
                wrong.push(format!("{question}: {error:#}"));
                continue;
            }
        };
        let (theirs, ours) = (recorded.parts(), parts_of(&reply));
        let reference: BTreeSet<String> = theirs.difference(&ours).cloned().collect();
        let ours: BTreeSet<String> = ours.difference(&theirs).cloned().collect();
        if reference.is_empty() && ours.is_empty() {
            continue;
        }
        let known = meant.iter().position(|difference| {
            difference.ask == question
                && difference.reference == reference
                && difference.ours == ours
        });
        match known {
            Some(known) => drop(meant.swap_remove(known)),
            None => wrong.push(format!(
                "{question}\n    only the reference: {reference:?}\n    only ours: {ours:?}"
            )),
        }
    }
    for difference in meant {
        wrong.push(format!(
            "{}: `{}` is no difference any more",
            difference.ask, difference.reason
        ));
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} answers differ:\n{}",
        wrong.len(),
        answers.lines().count(),
        wrong.join("\n")
    );
    Ok(())
}

/// The judge of the generated clusters is judged by a real CoreDNS.
#[test]
fn the_oracle_says_what_the_reference_said() -> Result<()> {
    let config = OracleConfig {
        zone: "cluster.local.".to_owned(),
        ttl: 30,
        pods: "insecure",
        endpoint_pod_names: false,
        ignore_empty_service: false,
        own: Vec::new(),
    };
    let oracle = Oracle::new(config, &objects()?);
    // Answers that were cut, of a cluster with more Services; own addresses; a TTL that the recording's cache cut; names of which the cluster knows nothing.
    let others = [
        "11.1.244.10.",
        "21.2.244.10.",
        "cluster.local. NS",
        "ns.dns.",
        "dns-version.",
        "99.99.99.10.",
        "5.1.1.0.0.",
        "www.example.org. ",
    ];
    let mut compared = 0;
    for line in read("answers.jsonl")?.lines() {
        let recorded: Recorded = serde_json::from_str(line)?;
        let question = format!("{} {}", recorded.q, recorded.t);
        if others.iter().any(|start| question.starts_with(start)) {
            continue;
        }
        let ours = oracle.answer(&recorded.q, &recorded.t);
        let flags = recorded.flags.replace(" TC", "");
        let theirs = Recorded { flags, ..recorded };
        let ours = Recorded {
            q: theirs.q.clone(),
            t: theirs.t.clone(),
            rcode: ours.rcode,
            flags: ours.flags,
            answer: ours.answer,
            authority: ours.authority,
            additional: ours.additional,
        };
        ensure!(
            ours.parts() == theirs.parts(),
            "{question}:\n{:?}\n{:?}",
            ours.parts(),
            theirs.parts()
        );
        compared += 1;
    }
    ensure!(compared > 80, "only {compared} answers");
    Ok(())
}
