//! The Corefiles of the manifests: the server starts with them.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};

use switchyard_tests::binary;
use switchyard_tests::deploy::objects::find;
use switchyard_tests::deploy::{path, tools};

use crate::text;

/// In a network namespace of its own: the ports are those of the files, and no query gets out.
const START: &str = r#"ip link set lo up && exec "$@""#;

/// Starts the server with a Corefile; returns what it says if it ends in place of serving.
fn serve(corefile: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("Corefile");
    std::fs::write(&file, corefile).unwrap();
    let mut server = Command::new("unshare")
        .args(["--net", "--kill-child", "--fork", "sh", "-c", START, "sh"])
        .arg(binary::find("switchyard-dns").unwrap())
        .arg("-conf")
        .arg(&file)
        .arg("--manifests")
        .arg(dir.path())
        // What the kubelet tells containers of the Service kube-dns-upstream.
        .env("KUBE_DNS_UPSTREAM_SERVICE_HOST", "192.0.2.1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    // It says its version when it serves.
    let serves = lines
        .map_while(Result::ok)
        .any(|line| line.starts_with("switchyard-dns-"));
    // `unshare` takes the server with it.
    server.kill().unwrap();
    server.wait().unwrap();
    let mut said = String::new();
    server
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut said)
        .unwrap();
    if serves { Ok(()) } else { Err(said) }
}

#[test]
fn the_server_starts_with_every_corefile() {
    let objects = tools::kustomize(&path("dns/kustomize/example")).unwrap();
    for name in ["switchyard-dns", "switchyard-dns-node"] {
        let corefile = text(find(&objects, "ConfigMap", name).unwrap(), "/data/Corefile");
        assert_eq!(serve(corefile), Ok(()), "{name}");
    }
    let kubeadm = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dns/fuzz/corpus/corefile/kubeadm");
    assert_eq!(
        serve(&std::fs::read_to_string(kubeadm).unwrap()),
        Ok(()),
        "kubeadm's"
    );
}

#[test]
fn a_corefile_that_can_not_be_used_would_be_found() {
    let error = serve(".:53 {\n    frowart . 192.0.2.1\n}\n").unwrap_err();
    assert!(error.contains("frowart"), "{error}");
}
