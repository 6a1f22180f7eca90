//! What both programs say of themselves.

use std::process::Command;

use anyhow::{Result, ensure};
use switchyard_tests::binary;

fn said(program: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(binary::find(program)?)
        .args(arguments)
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8(text)?))
}

#[test]
fn the_version_names_commit_and_modes() -> Result<()> {
    let (status, text) = said("switchyard-proxy", &["--version"])?;
    ensure!(status == Some(0), "{text}");
    for word in ["switchyard-proxy 0.", ", commit ", "modes: iptables, "] {
        ensure!(text.contains(word), "{word:?} is not in {text}");
    }
    let (_, text) = said("switchyard-dns", &["-version"])?;
    ensure!(text.contains(", commit "), "{text}");
    Ok(())
}

#[test]
fn completions_and_manual_come_from_the_command_line_itself() -> Result<()> {
    for (program, flag) in [
        ("switchyard-proxy", "metrics-token-file"),
        ("switchyard-dns", "manifests"),
    ] {
        for shell in ["bash", "zsh", "fish"] {
            let (status, script) = said(program, &["completions", shell])?;
            ensure!(status == Some(0) && script.contains(flag), "{script}");
        }
        let (status, page) = said(program, &["man"])?;
        ensure!(status == Some(0), "{page}");
        let name = page.lines().find(|line| line.starts_with(".TH "));
        ensure!(name.is_some_and(|line| line.contains(program)), "{page}");
        ensure!(page.contains(&flag.replace('-', "\\-")), "{page}");
        let (status, text) = said(program, &["completions", "csh"])?;
        ensure!(
            status == Some(2) && text.contains("possible values"),
            "{text}"
        );
    }
    Ok(())
}
