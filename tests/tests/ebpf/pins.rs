//! Things under the pin path that are not ours, or not what they should be.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use switchyard_tests::testbed::{Place, Proxy};

use super::stage::{ENDPOINTS, MAPS, Stage, main_service};

const CLIENTS: [Place; 3] = [Place::Pod12, Place::Node1, Place::Client];

/// A stage whose proxy ran once, so that its pins' names are known, and was stopped.
fn stage_with_pins() -> Result<(Stage, Vec<PathBuf>)> {
    let stage = Stage::new()?;
    stage.put(&[main_service(&ENDPOINTS)?], 0)?;
    let mut proxy = stage.start()?;
    let pins = stage.pins()?;
    proxy.terminate()?;
    // What this run said is not what the next is asked about.
    fs::remove_file(stage.options()?.log)?;
    Ok((stage, pins))
}

/// The first pin below `directory` of the root with this text in its name, in whatever case.
fn pin_named<'a>(
    stage: &Stage,
    pins: &'a [PathBuf],
    directory: &str,
    text: &str,
) -> Result<&'a Path> {
    pins.iter()
        .find(|pin| {
            let name = pin.file_name().unwrap_or_default().to_string_lossy();
            pin.starts_with(stage.roots.bpf.join(directory)) && name.to_lowercase().contains(text)
        })
        .map(PathBuf::as_path)
        .with_context(|| format!("no pin like {directory}/*{text}* in {pins:?}"))
}

fn expect_reported_and_working(stage: &Stage, proxy: &Proxy, odd: &Path) -> Result<()> {
    stage
        .expect_answers(&CLIENTS, &ENDPOINTS)
        .with_context(|| format!("the log:\n{}", proxy.log_tail(30)))?;
    ensure!(
        proxy.log().contains(&odd.display().to_string()),
        "the log does not name {}:\n{}",
        odd.display(),
        proxy.log_tail(30)
    );
    Ok(())
}

/// A map of another shape under the name of one of ours, as a later version or another program may leave it.
#[test]
fn a_foreign_map_is_reported_and_left_alone() -> Result<()> {
    let (stage, pins) = stage_with_pins()?;
    let odd = pin_named(&stage, &pins, MAPS, "flows")?;
    let other = pin_named(&stage, &pins, MAPS, "counters")?;
    fs::remove_file(odd)?;
    // A second name for another map.
    fs::hard_link(other, odd).context("link one pin under another's name")?;
    let before = fs::metadata(odd)?.ino();
    let proxy = stage.start()?;
    expect_reported_and_working(&stage, &proxy, odd)?;
    ensure!(
        fs::metadata(odd)?.ino() == before,
        "{} was replaced",
        odd.display()
    );
    Ok(())
}

#[test]
fn a_directory_in_place_of_a_map_is_reported_and_left_alone() -> Result<()> {
    let (stage, pins) = stage_with_pins()?;
    stage.cleanup()?;
    let odd = pin_named(&stage, &pins, MAPS, "affinity")?;
    fs::create_dir_all(odd.join("theirs"))?;
    let proxy = stage.start()?;
    expect_reported_and_working(&stage, &proxy, odd)?;
    ensure!(odd.join("theirs").is_dir(), "{} was removed", odd.display());
    Ok(())
}

#[test]
fn a_directory_in_place_of_a_link_is_reported_and_left_alone() -> Result<()> {
    let (stage, pins) = stage_with_pins()?;
    stage.cleanup()?;
    let odd = pin_named(&stage, &pins, "links", "connect4")?;
    fs::create_dir_all(odd.join("theirs"))?;
    let proxy = stage.start()?;
    expect_reported_and_working(&stage, &proxy, odd)?;
    ensure!(odd.join("theirs").is_dir(), "{} was removed", odd.display());
    Ok(())
}
