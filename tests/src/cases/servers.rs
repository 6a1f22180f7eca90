//! Echo servers for the endpoints of a cluster.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use serde_json::Value;

use crate::testbed::{Protocol, Testbed, endpoint_place};

/// Starts an echo server for every endpoint of a slice that lives in the testbed.
///
/// # Errors
/// An address or port can't be had there.
pub fn serve_endpoints_of(bed: &Testbed, object: &Value) -> Result<()> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    if object["kind"] == "EndpointSlice" {
        for endpoint in list(&object["endpoints"]) {
            for port in list(&object["ports"]) {
                pairs.push((endpoint["addresses"][0].clone(), port));
            }
        }
    } else if object["kind"] == "Endpoints" {
        for subset in list(&object["subsets"]) {
            for address in list(&subset["addresses"])
                .iter()
                .chain(&list(&subset["notReadyAddresses"]))
            {
                for port in list(&subset["ports"]) {
                    pairs.push((address["ip"].clone(), port));
                }
            }
        }
    }
    for (address, port) in pairs {
        let address = address
            .as_str()
            .and_then(|text| text.parse::<IpAddr>().ok());
        let number = port["port"]
            .as_u64()
            .and_then(|number| u16::try_from(number).ok());
        let protocol = match port["protocol"].as_str() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => continue,
            _ => Protocol::Tcp,
        };
        if let (Some(address), Some(number)) = (address, number)
            && endpoint_place(address).is_some()
            && number != 0
        {
            bed.serve_endpoint(protocol, SocketAddr::new(address, number))?;
        }
    }
    Ok(())
}
