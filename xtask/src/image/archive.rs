//! An image as one file: an OCI image layout in a tar archive.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::files::{File, Kind, complete};
use super::layer::{self, Layer, digest};
use super::spec::{Image, VERSION};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image layout.
pub(super) struct Archive {
    files: Vec<File>,
}

impl Archive {
    /// The image of these layers, the lowest first.
    ///
    /// # Errors
    /// Its time is out of bounds.
    pub(super) fn new(image: &Image, layers: &[Layer], epoch: u64, revision: &str) -> Result<Self> {
        let mut files = Vec::new();
        let mut layer_entries = Vec::new();
        for layer in layers {
            layer_entries.push(add_blob(&mut files, LAYER_TYPE, layer.bytes.clone()));
        }
        let config = config(image, layers, &time(epoch)?);
        let config = add_blob(&mut files, CONFIG_TYPE, config.to_string().into());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": config,
            "layers": layer_entries,
            "annotations": annotations(image, revision),
        });
        let mut entry = add_blob(&mut files, MANIFEST_TYPE, manifest.to_string().into());
        // What skopeo, podman and ctr take for its name.
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": VERSION});
        entry["platform"] = json!({"os": "linux", "architecture": architecture()});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]});
        let text = |path: &str, text: String| File::new(path, Kind::Regular(text.into()));
        files.push(text("index.json", index.to_string()));
        files.push(text("oci-layout", LAYOUT.to_owned()));
        Ok(Self { files })
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// The file can't be written.
    pub(super) fn write(&self, file: &Path, epoch: u64) -> Result<()> {
        let part = file.with_extension("part");
        fs::write(&part, layer::archive(&complete(&self.files), epoch)?)?;
        fs::rename(&part, file)?;
        Ok(())
    }
}

/// Adds what is named by its digest; returns the entry that names it.
fn add_blob(files: &mut Vec<File>, kind: &str, bytes: Vec<u8>) -> Value {
    let digest = digest(&bytes);
    let path = format!("blobs/{}", digest.replace(':', "/"));
    let entry = json!({"mediaType": kind, "digest": digest, "size": bytes.len()});
    if files.iter().all(|file| file.path != path) {
        files.push(File::new(&path, Kind::Regular(bytes)));
    }
    entry
}

fn config(image: &Image, layers: &[Layer], created: &str) -> Value {
    let history: Vec<Value> = layers
        .iter()
        .map(|layer| json!({"created": created, "created_by": layer.name}))
        .collect();
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    json!({
        "created": created,
        "architecture": architecture(),
        "os": "linux",
        "config": {
            "User": image.user,
            "Env": [format!("PATH={}", image.path)],
            "Entrypoint": [image.program],
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    })
}

fn annotations(image: &Image, revision: &str) -> Value {
    json!({
        "org.opencontainers.image.title": image.name,
        "org.opencontainers.image.description": image.description,
        "org.opencontainers.image.version": VERSION,
        "org.opencontainers.image.revision": revision,
        "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
    })
}

/// As Debian and OCI call this machine's processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// As RFC 3339 has it.
fn time(epoch: u64) -> Result<String> {
    Ok(jiff::Timestamp::from_second(i64::try_from(epoch)?)?.to_string())
}
