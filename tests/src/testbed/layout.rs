//! Laying the cluster down: namespaces, links, addresses, routes, kernel switches.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::Testbed;
use super::place::{Family, Place};

/// The gateway all pods and clients use, on the node's or fabric's end of their link.
/// Link scope: it never becomes the source of masqueraded traffic.
const GATEWAY_V4: &str = "169.254.1.1";
const GATEWAY_V6: &str = "fe80::1";

/// Networks that only a service proxy gives a meaning to.
const SERVICE_NETS: [(&str, &str); 2] = [
    ("10.96.0.0/16", "fd00:96::/112"),
    ("203.0.113.0/24", "2001:db8:113::/64"),
];

const CLIENT_NETS: [(Place, &str, &str); 2] = [
    (Place::Client, "198.51.100.0/25", "2001:db8:51::/121"),
    (Place::Blocked, "198.51.100.128/25", "2001:db8:51::100/120"),
];

/// Longest time to wait for the kernel to take one batch is its own; this bounds the names:
/// an interface name has at most 15 characters.
pub(super) fn namespace_name(id: &str, place: Place) -> String {
    format!("{id}-{place}")
}

/// Runs lines of `ip` in one go, in namespace `namespace` if given.
pub(super) fn ip_batch(namespace: Option<&str>, lines: &str) -> Result<()> {
    ip_batch_with(&[], namespace, lines)
}

fn ip_batch_with(options: &[&str], namespace: Option<&str>, lines: &str) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(options);
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start `ip`")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let numbered: String =
            lines
                .lines()
                .enumerate()
                .fold(String::new(), |mut all, (number, line)| {
                    let _ = writeln!(all, "{:3} {line}", number + 1);
                    all
                });
        bail!(
            "ip -batch in {namespace:?}: {}\n{numbered}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

pub(super) fn add_namespaces(id: &str) -> Result<()> {
    let lines: String = Place::ALL.iter().fold(String::new(), |mut all, place| {
        let _ = writeln!(all, "netns add {}", namespace_name(id, *place));
        all
    });
    ip_batch(None, &lines)
}

/// Adds or deletes one address on the loopback device.
pub(super) fn change_loopback(namespace: &str, verb: &str, address: IpAddr) -> Result<()> {
    let line = match address {
        IpAddr::V4(v4) => format!("addr {verb} {v4}/32 dev lo\n"),
        IpAddr::V6(v6) if verb == "add" => {
            format!("addr add {v6}/128 dev lo nodad preferred_lft 0\n")
        }
        IpAddr::V6(v6) => format!("addr {verb} {v6}/128 dev lo\n"),
    };
    ip_batch(Some(namespace), &line)
}

/// Switches set in every namespace before any device exists.
pub(super) fn set_sysctls(bed: &Testbed) -> Result<()> {
    for place in Place::ALL {
        let routes = matches!(place, Place::Node1 | Place::Node2 | Place::Fabric);
        bed.in_place(place, move || -> Result<()> {
            for all in ["all", "default"] {
                sysctl(&format!("net/ipv4/conf/{all}/rp_filter"), "0")?;
                sysctl(&format!("net/ipv4/conf/{all}/send_redirects"), "0")?;
                // No duplicate address detection: an address is usable as soon as it is set.
                sysctl(&format!("net/ipv6/conf/{all}/accept_dad"), "0")?;
                sysctl(&format!("net/ipv6/conf/{all}/accept_ra"), "0")?;
                sysctl(&format!("net/ipv6/conf/{all}/disable_ipv6"), "0")?;
                if routes {
                    sysctl(&format!("net/ipv6/conf/{all}/forwarding"), "1")?;
                }
            }
            if routes {
                sysctl("net/ipv4/ip_forward", "1")?;
            }
            if place == Place::Fabric {
                // Its own answers for service addresses come by again on their way through node1.
                sysctl("net/ipv4/conf/all/accept_local", "1")?;
                // And what clients send to service addresses must pass through node1 first, even
                // where a socket here is at the other end.
                sysctl("net/ipv4/tcp_early_demux", "0")?;
            }
            // Many probes are refused at once; none of the refusals may be swallowed.
            sysctl("net/ipv4/icmp_ratelimit", "0")?;
            sysctl("net/ipv6/icmp/ratelimit", "0")?;
            // Before Linux 6.13 these two are the host's, and stay as they are.
            drop(sysctl("net/ipv4/icmp_msgs_per_sec", "100000"));
            drop(sysctl("net/ipv4/icmp_msgs_burst", "100000"));
            Ok(())
        })??;
    }
    Ok(())
}

fn sysctl(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).with_context(|| format!("write {value} to {path}"))
}

/// Connects all places: links first, then what each namespace needs of its own.
pub(super) fn connect(id: &str) -> Result<()> {
    let name = |place| namespace_name(id, place);
    ip_batch(Some(&name(Place::Fabric)), &fabric_links(id))?;
    for (node, pods) in [
        (Place::Node1, [Place::Pod11, Place::Pod12]),
        (Place::Node2, [Place::Pod21, Place::Pod22]),
    ] {
        ip_batch(Some(&name(node)), &node_links(id, node, pods))?;
        for pod in pods {
            ip_batch(Some(&name(pod)), &leaf(pod))?;
        }
    }
    for (client, ..) in CLIENT_NETS {
        ip_batch(Some(&name(client)), &leaf(client))?;
    }
    let fabric = name(Place::Fabric);
    ip_batch(Some(&fabric), &fabric_routes())?;
    // `ip rule` takes its family from the option alone, not from the addresses.
    for family in [Family::IPv4, Family::IPv6] {
        let option = if family == Family::IPv4 { "-4" } else { "-6" };
        ip_batch_with(&[option], Some(&fabric), &fabric_rules(family))?;
    }
    Ok(())
}

fn fabric_links(id: &str) -> String {
    let mut lines = String::from(
        "link set lo up\nlink add br0 type bridge forward_delay 0\nlink set br0 up\n\
         addr add 192.168.100.1/24 dev br0\naddr add fd00:100::1/64 dev br0 nodad\n",
    );
    for node in [Place::Node1, Place::Node2] {
        let peer = namespace_name(id, node);
        let _ = writeln!(
            lines,
            "link add {node} type veth peer name eth0 netns {peer}\nlink set {node} master br0 up"
        );
    }
    for (client, ..) in CLIENT_NETS {
        let peer = namespace_name(id, client);
        let _ = writeln!(
            lines,
            "link add {client} type veth peer name eth0 netns {peer}\nlink set {client} up"
        );
        gateway(&mut lines, client.name());
    }
    lines
}

/// Clients' packets for services go to node1. The same addresses coming from a node are answered
/// here, and the answers go back through that node, where conntrack expects them.
fn fabric_routes() -> String {
    let mut lines = String::new();
    for (client, v4, v6) in CLIENT_NETS {
        let _ = writeln!(
            lines,
            "route add {v4} dev {client}\nroute add {v6} dev {client}"
        );
    }
    for (v4, v6) in SERVICE_NETS {
        let _ = write!(
            lines,
            "route add {v4} via 192.168.100.11 table 100\nroute add {v6} via fd00:100::11 table 100\n\
             route add local {v4} dev lo\nroute add local {v6} dev lo\n"
        );
    }
    lines.push_str(
        "route add default via 192.168.100.11 table 101\nroute add default via fd00:100::11 table 101\n\
         route add 10.244.1.0/24 via 192.168.100.11\nroute add fd00:244:1::/64 via fd00:100::11\n\
         route add 10.244.2.0/24 via 192.168.100.12\nroute add fd00:244:2::/64 via fd00:100::12\n\
         route add 192.168.200.11 via 192.168.100.11\nroute add fd00:200::11 via fd00:100::11\n\
         route add 192.168.200.12 via 192.168.100.12\nroute add fd00:200::12 via fd00:100::12\n",
    );
    lines
}

fn fabric_rules(family: Family) -> String {
    // The table of local addresses, which owns the service addresses too, comes after the clients'.
    let mut lines = String::from("rule add pref 200 lookup local\nrule del pref 0\n");
    for (client, ..) in CLIENT_NETS {
        let _ = writeln!(lines, "rule add pref 100 iif {client} lookup 100");
    }
    for (v4, v6) in SERVICE_NETS {
        let net = if family == Family::IPv4 { v4 } else { v6 };
        let _ = writeln!(lines, "rule add pref 101 iif lo from {net} lookup 101");
    }
    lines
}

fn node_links(id: &str, node: Place, pods: [Place; 2]) -> String {
    let (own, other, own_number) = match node {
        Place::Node1 => ("11", "12", "1"),
        _ => ("12", "11", "2"),
    };
    let other_number = if own_number == "1" { "2" } else { "1" };
    let mut lines = format!(
        "link set lo up\nlink set eth0 up\n\
         addr add 192.168.100.{own}/24 dev eth0\naddr add fd00:100::{own}/64 dev eth0 nodad\n\
         addr add 192.168.200.{own}/32 dev lo\naddr add fd00:200::{own}/128 dev lo nodad preferred_lft 0\n\
         route add default via 192.168.100.1\nroute add default via fd00:100::1\n\
         route add 10.244.{other_number}.0/24 via 192.168.100.{other}\n\
         route add fd00:244:{other_number}::/64 via fd00:100::{other}\n\
         route add 192.168.200.{other} via 192.168.100.{other}\n\
         route add fd00:200::{other} via fd00:100::{other}\n"
    );
    if node == Place::Node2 {
        // Replies to clients go back the way the packets came, also where nothing was masqueraded.
        for (_, v4, v6) in CLIENT_NETS {
            let _ = writeln!(
                lines,
                "route add {v4} via 192.168.100.11\nroute add {v6} via fd00:100::11"
            );
        }
        // It has no proxy of its own; its pods reach Services through node1's.
        for (v4, v6) in SERVICE_NETS {
            let _ = writeln!(
                lines,
                "route add {v4} via 192.168.100.11\nroute add {v6} via fd00:100::11"
            );
        }
    }
    for pod in pods {
        // pod11 is behind a bridge, the others each behind a veth: local traffic is told by either.
        let number = pod.name().trim_start_matches("pod");
        let peer = namespace_name(id, pod);
        let device = if pod == Place::Pod11 {
            "cbr0".to_owned()
        } else {
            format!("veth{number}")
        };
        if pod == Place::Pod11 {
            let _ = write!(
                lines,
                "link add cbr0 type bridge forward_delay 0\nlink set cbr0 up\n\
                 link add port{number} type veth peer name eth0 netns {peer}\nlink set port{number} master cbr0 up\n\
                 link set port{number} type bridge_slave hairpin on\n"
            );
        } else {
            let _ = writeln!(
                lines,
                "link add {device} type veth peer name eth0 netns {peer}\nlink set {device} up"
            );
        }
        gateway(&mut lines, &device);
        for address in pod.addresses() {
            let v6 = address.parse().map(|v4| Family::IPv6.twin(IpAddr::V4(v4)));
            let Ok(v6) = v6 else { continue };
            let _ = writeln!(
                lines,
                "route add {address} dev {device} src 192.168.100.{own}\n\
                 route add {v6} dev {device} src fd00:100::{own}"
            );
        }
    }
    lines
}

fn gateway(lines: &mut String, device: &str) {
    let _ = writeln!(
        lines,
        "addr add {GATEWAY_V4}/32 dev {device} scope link\naddr add {GATEWAY_V6}/64 dev {device} nodad"
    );
}

/// A namespace with one link: a pod or a client.
fn leaf(place: Place) -> String {
    let mut lines = String::from("link set lo up\nlink set eth0 up\n");
    for address in place.addresses() {
        let v6 = address.parse().map(|v4| Family::IPv6.twin(IpAddr::V4(v4)));
        let Ok(v6) = v6 else { continue };
        let _ = writeln!(
            lines,
            "addr add {address}/32 dev eth0\naddr add {v6}/128 dev eth0 nodad"
        );
    }
    let (v4, v6) = (place.address(Family::IPv4), place.address(Family::IPv6));
    let _ = write!(
        lines,
        "route add {GATEWAY_V4} dev eth0 scope link\nroute add default via {GATEWAY_V4} dev eth0 src {v4}\n\
         route add default via {GATEWAY_V6} dev eth0 src {v6}\n"
    );
    lines
}
