//! The recorded reference: its objects, the rules it wrote for them, and packets to try both.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::testbed::{Family, IptablesTool, Place, Testbed};

/// The directory of the recording.
pub fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/kube-proxy-1.36")
}

/// The recorded objects, as text.
pub fn objects_text() -> Result<String> {
    read("objects.yaml")
}

/// The Service `default/kubernetes`, which the recording's API server had made itself.
pub fn default_kubernetes_text() -> Result<String> {
    read("default-kubernetes.yaml")
}

/// The recorded objects.
pub fn objects() -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(&objects_text()?).context("objects.yaml")
}

/// The rules the reference wrote for them in one family.
pub fn rules(family: Family) -> Result<String> {
    read(match family {
        Family::IPv4 => "iptables-save.txt",
        Family::IPv6 => "ip6tables-save.txt",
    })
}

/// Loads the reference's rules into node1, in both families. Its packet-counting matches are left
/// out: they need objects in the kernel that only its own process makes.
pub fn load_reference_rules(bed: &Testbed, tool: IptablesTool) -> Result<()> {
    for family in [Family::IPv4, Family::IPv6] {
        let (multi, applet) = (tool.multi(), tool.applet(family, "restore"));
        let rules = without_nfacct(&rules(family)?);
        bed.run(Place::Node1, &[multi, &applet], &rules)?
            .success(&applet)?;
    }
    Ok(())
}

/// The tables the reference wrote for them in nftables mode, as `nft -j list ruleset` shows them.
pub fn nftables() -> Result<String> {
    read("nft-list.json")
}

/// Loads the reference's tables of nftables mode into node1, in both families.
pub fn load_reference_tables(bed: &Testbed) -> Result<()> {
    bed.run(Place::Node1, &["nft", "-f", "-"], &read("nft-list.txt")?)?
        .success("nft -f")?;
    Ok(())
}

/// Puts the reference's rules in force in both families as it does itself when it starts beside rules
/// of these names: its chains filled in one step, and the jumps to them that are missing.
pub fn start_reference_rules(bed: &Testbed, tool: IptablesTool) -> Result<()> {
    for family in [Family::IPv4, Family::IPv6] {
        let rules = without_nfacct(&rules(family)?);
        let is_of_chains = |line: &&str| match line.get(..1) {
            Some(":") => line.starts_with(":KUBE-"),
            Some("-") => line.starts_with("-A KUBE-"),
            _ => true,
        };
        let chains: Vec<&str> = rules.lines().filter(is_of_chains).collect();
        let (multi, applet) = (tool.multi(), tool.applet(family, "restore"));
        bed.run(
            Place::Node1,
            &[multi, &applet, "-w", "--noflush"],
            &(chains.join("\n") + "\n"),
        )?
        .success(&applet)?;
        for (table, jump) in jumps(&rules) {
            ensure_jump(bed, tool, family, table, jump)?;
        }
    }
    Ok(())
}

/// The rules in chains that are not its own, with their tables.
fn jumps(rules: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut table = "";
    rules.lines().filter_map(move |line| {
        table = line.strip_prefix('*').unwrap_or(table);
        let rule = line.strip_prefix("-A ")?;
        (!rule.starts_with("KUBE-")).then_some((table, rule))
    })
}

fn ensure_jump(
    bed: &Testbed,
    tool: IptablesTool,
    family: Family,
    table: &str,
    jump: &str,
) -> Result<()> {
    // A comment is one word.
    let words = jump.split('"').enumerate().flat_map(|(number, part)| {
        let part = part.trim();
        let is_one = number % 2 == 1;
        let words: Vec<&str> = if is_one {
            vec![part]
        } else {
            part.split_whitespace().collect()
        };
        words
    });
    let words: Vec<&str> = words.collect();
    let applet = tool.applet(family, "");
    let run = |verb: &str| {
        let head = [tool.multi(), &applet, "-w", "-t", table, verb];
        let command: Vec<&str> = head.into_iter().chain(words.iter().copied()).collect();
        bed.run(Place::Node1, &command, "")
    };
    if run("-C")?.code != Some(0) {
        run("-I")?.success(jump)?;
    }
    Ok(())
}

/// Puts the reference's tables in the place of those of their names, as it does itself when it starts:
/// in one step.
pub fn start_reference_tables(bed: &Testbed) -> Result<()> {
    let mut text = String::new();
    for table in ["ip kube-proxy", "ip6 kube-proxy"] {
        text += &format!("add table {table}\ndelete table {table}\n");
    }
    text += &read("nft-list.txt")?;
    bed.run(Place::Node1, &["nft", "-f", "-"], &text)?
        .success("nft -f")?;
    Ok(())
}

/// Rules without their `nfacct` matches.
pub fn without_nfacct(rules: &str) -> String {
    let mut text = String::with_capacity(rules.len());
    for line in rules.lines() {
        match line.split_once(" -m nfacct --nfacct-name ") {
            Some((before, after)) => {
                let after = after
                    .trim_start()
                    .split_once(' ')
                    .map_or("", |(_, rest)| rest);
                text.push_str(before);
                text.push(' ');
                text.push_str(after);
            }
            None => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

fn read(name: &str) -> Result<String> {
    let path = data_dir().join(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
