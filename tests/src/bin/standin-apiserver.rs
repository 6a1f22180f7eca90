//! The stand-in API server as a program: serves the objects of a folder of manifests, and
//! whatever is PUT, POSTed and DELETEd afterwards.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Parser;
use serde_json::{Value, json};
use switchyard_tests::apiserver::{Resource, Settings, StandIn};

/// A stand-in for kube-apiserver's list and watch protocol.
#[derive(Parser)]
struct Arguments {
    /// Serve the objects in this folder's *.yaml, *.yml and *.json files.
    #[arg(long)]
    manifests: Option<PathBuf>,
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:6443")]
    listen: SocketAddr,
    /// Serve HTTPS, and write ca.crt, client.crt, client.key and kubeconfig into this folder.
    #[arg(long)]
    tls_dir: Option<PathBuf>,
    /// Let in only who shows this bearer token.
    #[arg(long)]
    token: Option<String>,
    /// Refuse streamed lists, as a server without the WatchList feature does.
    #[arg(long)]
    no_watch_list: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = Settings {
        listen: arguments.listen,
        tls: arguments.tls_dir.is_some(),
        tokens: arguments.token.iter().cloned().collect(),
        ..Settings::default()
    };
    let server = StandIn::start(settings).await?;
    server.refuse_watch_list(arguments.no_watch_list);
    if let Some(folder) = &arguments.manifests {
        load(&server, folder)?;
    }
    if let Some(folder) = &arguments.tls_dir {
        write_access(&server, folder, arguments.token.as_deref())?;
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", server.url())?;
    out.flush()?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}

fn load(server: &StandIn, folder: &Path) -> anyhow::Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("{}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            matches!(ending, Some("yaml" | "yml" | "json")) && path.is_file()
        })
        .collect();
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file)?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("{}", file.display()))?;
        for document in documents {
            put(server, document).with_context(|| format!("{}", file.display()))?;
        }
    }
    Ok(())
}

fn put(server: &StandIn, mut object: Value) -> anyhow::Result<()> {
    if !object.is_object() {
        bail!("found {object}: expected an object");
    }
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    if let (Some(of), Value::Array(items)) = (kind.strip_suffix("List"), object["items"].take()) {
        for mut item in items {
            if item["kind"].is_null() {
                item["kind"] = json!(of);
                item["apiVersion"] = json!(version);
            }
            put(server, item)?;
        }
        return Ok(());
    }
    if let Some(resource) = Resource::of_kind(&kind, &version) {
        if !object["metadata"]["name"].is_string() {
            bail!("a {kind} without metadata.name");
        }
        server.set(resource, object);
    }
    Ok(())
}

fn write_access(server: &StandIn, folder: &Path, token: Option<&str>) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let identities = server.identities();
    let user = match token {
        Some(token) => json!({"token": token}),
        None => identities.client_certificate_user(),
    };
    fs::write(folder.join("ca.crt"), &identities.ca_pem)?;
    fs::write(folder.join("client.crt"), &identities.client_pem)?;
    fs::write(folder.join("client.key"), &identities.client_key_pem)?;
    let kubeconfig = identities.kubeconfig(&server.url(), &user);
    fs::write(folder.join("kubeconfig"), kubeconfig)?;
    Ok(())
}
