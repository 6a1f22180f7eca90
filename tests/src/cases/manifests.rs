//! The directory the proxy under test reads its cluster from.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::testbed::{Family, Place};

const FILE_NAME: &str = "cluster.yaml";

/// A manifests directory whose one file is replaced as a whole.
#[derive(Debug, Clone)]
pub struct Manifests {
    dir: PathBuf,
    next: PathBuf,
}

impl Manifests {
    /// An empty directory `name` below `parent`.
    pub fn create(parent: &Path, name: &str) -> Result<Self> {
        let dir = parent.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        Ok(Self {
            dir,
            next: parent.join(format!("{name}.next")),
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Replaces the cluster by these objects, by an atomic rename.
    pub fn replace(&self, objects: &[Value]) -> Result<()> {
        let mut text = String::new();
        for object in objects {
            let _ = writeln!(text, "---\n{}", serde_json::to_string_pretty(object)?);
        }
        self.replace_text(&text)
    }

    /// The same for text that is written as it is.
    pub fn replace_text(&self, text: &str) -> Result<()> {
        self.replace_file(FILE_NAME, text)
    }

    /// Puts a file of any name in place, by an atomic rename.
    pub fn replace_file(&self, name: &str, text: &str) -> Result<()> {
        fs::write(&self.next, text)?;
        fs::rename(&self.next, self.dir.join(name))
            .with_context(|| format!("put {name} into {}", self.dir.display()))
    }

    /// Deletes one file.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        fs::remove_file(self.dir.join(name)).with_context(|| format!("delete {name}"))
    }
}

/// The two Node objects, as the recorded cluster has them.
pub fn node_objects() -> Vec<Value> {
    [(Place::Node1, "zone-a", "1"), (Place::Node2, "zone-b", "2")]
        .into_iter()
        .map(|(place, zone, number)| {
            let addresses: Vec<Value> = [Family::IPv4, Family::IPv6]
                .into_iter()
                .map(|family| json!({ "type": "InternalIP", "address": place.address(family) }))
                .chain([json!({ "type": "Hostname", "address": place.name() })])
                .collect();
            let pod_cidrs = [
                format!("10.244.{number}.0/24"),
                format!("fd00:244:{number}::/64"),
            ];
            json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": place.name(),
                    "resourceVersion": "1",
                    "labels": {
                        "topology.kubernetes.io/zone": zone,
                        "kubernetes.io/hostname": place.name(),
                    },
                },
                "spec": { "podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs },
                "status": { "addresses": addresses },
            })
        })
        .collect()
}
