//! An agent whose maps have an earlier layout, and this one after it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use switchyard_tests::testbed::Place;

use super::killed::Open;
use super::stage::{ENDPOINTS, MAPS, Stage, main_service};

/// The schema before, and how long its values of FLOWS were.
const MAPS_BEFORE: &str = "v1";
const VALUE_BYTES_BEFORE: usize = 40;
const FLOWS: &str = "FLOWS";

/// As `bpftool` shows an entry: bytes, in hexadecimal.
#[derive(Deserialize)]
struct Entry {
    key: Vec<String>,
    value: Vec<String>,
}

fn bpftool(stage: &Stage, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = vec!["bpftool"];
    command.extend(arguments);
    let done = stage.bed.run(Place::Node1, &command, input)?;
    done.success(&command.join(" "))
}

/// Makes the pins what an agent of the schema before would have left, with the same flows.
fn turn_back(stage: &Stage) -> Result<usize> {
    let (now, before) = (
        stage.roots.bpf.join(MAPS),
        stage.roots.bpf.join(MAPS_BEFORE),
    );
    let (flows, old) = (now.join(FLOWS), before.join(FLOWS));
    let text = |path: &Path| path.display().to_string();
    let listed = bpftool(
        stage,
        &["--json", "map", "dump", "pinned", &text(&flows)],
        "",
    )?;
    let entries: Vec<Entry> = serde_json::from_str(&listed).context("bpftool's list of FLOWS")?;
    fs::create_dir(&before)?;
    let size = VALUE_BYTES_BEFORE.to_string();
    let make = [
        "map",
        "create",
        &text(&old),
        "type",
        "hash",
        "key",
        "40",
        "value",
        &size,
    ];
    let rest = ["entries", "1024", "name", FLOWS];
    bpftool(stage, &[&make[..], &rest].concat(), "")?;
    for entry in &entries {
        let (at, value) = (text(&old), &entry.value[..VALUE_BYTES_BEFORE]);
        let mut update = vec!["map", "update", "pinned", &at, "key"];
        update.extend(entry.key.iter().map(String::as_str));
        update.push("value");
        update.extend(value.iter().map(String::as_str));
        bpftool(stage, &update, "")?;
    }
    fs::remove_file(&flows)?;
    for pin in fs::read_dir(&now)? {
        let pin = pin?;
        fs::rename(pin.path(), before.join(pin.file_name()))?;
    }
    fs::remove_dir(&now)?;
    Ok(entries.len())
}

#[test]
fn connections_of_an_agent_with_an_earlier_layout_go_on() -> Result<()> {
    let stage = Stage::new()?;
    stage.put(&[main_service(&ENDPOINTS)?], 0)?;
    let mut proxy = stage.start()?;
    let open = Open::new(&stage)?;
    open.expect(&stage)?;
    proxy.terminate()?;
    let flows = turn_back(&stage)?;
    ensure!(flows >= 4, "only {flows} entries of flows");
    let proxy = stage.start()?;
    open.expect(&stage)
        .with_context(|| format!("the log ends:\n{}", proxy.log_tail(20)))?;
    let left = stage.roots.bpf.join(MAPS_BEFORE);
    ensure!(!left.exists(), "{} is still there", left.display());
    Ok(())
}

/// What is left of an earlier layout goes with the rest.
#[test]
fn cleanup_removes_an_earlier_layout_too() -> Result<()> {
    let stage = Stage::new()?;
    stage.put(&[main_service(&ENDPOINTS)?], 0)?;
    let mut proxy = stage.start()?;
    proxy.terminate()?;
    turn_back(&stage)?;
    stage.cleanup()?;
    let left = stage.pins()?;
    ensure!(left.is_empty(), "left by --cleanup: {left:?}");
    Ok(())
}
