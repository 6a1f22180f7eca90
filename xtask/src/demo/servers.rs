//! A server behind each endpoint that the manifests name.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;
use switchyard_tests::testbed::{Protocol, Testbed};

/// Starts an echo server for each endpoint of each EndpointSlice; returns how many.
pub(super) fn start(bed: &Testbed, manifests: &Path) -> Result<usize> {
    let mut started = 0;
    for entry in fs::read_dir(manifests)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        for endpoint in endpoints(&text).with_context(|| path.display().to_string())? {
            bed.serve_endpoint(Protocol::Tcp, endpoint)?;
            started += 1;
        }
    }
    Ok(started)
}

/// The endpoints of all EndpointSlices among YAML documents.
fn endpoints(text: &str) -> Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for object in serde_saphyr::from_multiple::<Value>(text)? {
        let is_slice = object.get("kind").and_then(Value::as_str) == Some("EndpointSlice");
        // Behind that one is no server of ours that says who it is, but the DNS server.
        if !is_slice || service(&object) == Some("kube-dns") {
            continue;
        }
        let list = |name: &str| {
            let list = object.get(name).and_then(Value::as_array);
            list.with_context(|| format!("an EndpointSlice without {name}"))
        };
        for port in list("ports")? {
            let port = port
                .get("port")
                .and_then(Value::as_u64)
                .context("a port without number")?;
            let port = u16::try_from(port)?;
            for endpoint in list("endpoints")? {
                let address = endpoint
                    .get("addresses")
                    .and_then(|addresses| addresses.get(0))
                    .and_then(Value::as_str)
                    .context("an endpoint without address")?;
                let address: IpAddr = address.parse().context(address.to_owned())?;
                all.push(SocketAddr::new(address, port));
            }
        }
    }
    Ok(all)
}

/// The Service an EndpointSlice belongs to.
fn service(slice: &Value) -> Option<&str> {
    let labels = slice.get("metadata")?.get("labels")?;
    labels.get("kubernetes.io/service-name")?.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_slices_are_found_and_other_objects_passed_over() {
        let text = "kind: Service\nspec: {ports: [{port: 80}]}\n---\nkind: EndpointSlice\n\
                    ports: [{port: 8080}]\nendpoints:\n- addresses: [10.244.1.11]\n\
                    - addresses: ['fd00:244:1::11']\n";
        let found: Vec<_> = endpoints(text)
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, ["10.244.1.11:8080", "[fd00:244:1::11]:8080"]);
        assert!(endpoints("kind: EndpointSlice\nports: [{port: 80}]\n").is_err());
    }
}
