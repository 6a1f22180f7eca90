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
