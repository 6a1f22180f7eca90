//! What a program sees of its own socket: the Service's address, never the endpoint's.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};

use anyhow::{Context, Result, anyhow, ensure};
use switchyard_tests::testbed::{Family, Place};

use super::clients::{answered_by, spawn_in, udp_socket};
use super::stage::{
    ANSWER_TIMEOUT, ENDPOINTS, Stage, TCP_NODE_PORT, UDP_NODE_PORT, VIP, cluster_ip_service,
    main_service,
};

const OTHER_VIP: &str = "10.96.5.2";
const OTHER_ENDPOINT: &str = "10.244.2.52";

fn stage() -> Result<Stage> {
    let stage = Stage::new()?;
    stage.serve(&[OTHER_ENDPOINT])?;
    let other = cluster_ip_service(OTHER_VIP, &[OTHER_ENDPOINT])?;
    stage.put(&[main_service(&ENDPOINTS)?, ("other".to_owned(), other)], 0)?;
    Ok(stage)
}

/// An address as IPv4, as IPv6, and as IPv4 through a socket of IPv6.
fn forms(address: &str, port: u16) -> Result<[SocketAddr; 3]> {
    let v4: IpAddr = address.parse()?;
    let IpAddr::V4(octets) = v4 else {
        anyhow::bail!("{address} is not IPv4");
    };
    let mapped: Ipv6Addr = octets.to_ipv6_mapped();
    Ok([v4, Family::IPv6.twin(v4), mapped.into()].map(|ip| SocketAddr::new(ip, port)))
}

/// Runs `job` in each of the places.
fn in_each(stage: &Stage, places: &[Place], job: fn() -> Result<()>) -> Result<()> {
    for place in places {
        spawn_in(&stage.bed, *place, job)?
            .join()
            .map_err(|_| anyhow!("the client in {place} panicked"))?
            .with_context(|| format!("in {place}"))?;
    }
    Ok(())
}

#[test]
fn the_peer_of_a_connected_socket_is_the_service() -> Result<()> {
    let stage = stage()?;
    let _proxy = stage.start()?;
    in_each(&stage, &[Place::Pod12, Place::Node1], || {
        for to in forms(VIP, 80)? {
            let stream = TcpStream::connect_timeout(&to, ANSWER_TIMEOUT)?;
            let peer = stream.peer_addr()?;
            ensure!(peer == to, "TCP to {to} has the peer {peer}");
        }
        for to in forms(VIP, 53)? {
            let socket = udp_socket(to.is_ipv4())?;
            socket.connect(to)?;
            let peer = socket.peer_addr()?;
            ensure!(peer == to, "UDP to {to} has the peer {peer}");
            socket.send(b"?\n")?;
            socket.recv(&mut [0; 256]).with_context(|| to.to_string())?;
        }
        Ok(())
    })
}

/// A socket that is connected again, to another Service and then past all Services.
#[test]
fn a_socket_connected_again_forgets_its_first_service() -> Result<()> {
    let stage = stage()?;
    let _proxy = stage.start()?;
    in_each(&stage, &[Place::Pod12], || {
        for family in [Family::IPv4, Family::IPv6] {
            let in_family = |address: &str, port| -> Result<SocketAddr> {
                Ok(SocketAddr::new(family.twin(address.parse()?), port))
            };
            let socket = udp_socket(family == Family::IPv4)?;
            for to in [
                in_family(VIP, 53)?,
                in_family(OTHER_VIP, 53)?,
                in_family(OTHER_ENDPOINT, super::stage::UDP_TARGET)?,
                in_family(VIP, 53)?,
            ] {
                socket.connect(to)?;
                let peer = socket.peer_addr()?;
                ensure!(peer == to, "connected to {to}, the peer is {peer}");
                socket.send(b"?\n")?;
                let mut buffer = [0; 256];
                let (_, from) = socket.recv_from(&mut buffer)?;
                ensure!(from == to, "sent to {to}, answered by {from}");
            }
        }
        Ok(())
    })
}

/// Datagrams of an unconnected socket come back from where they were sent.
#[test]
fn answers_to_an_unconnected_socket_come_from_the_service() -> Result<()> {
    let stage = stage()?;
    let _proxy = stage.start()?;
    in_each(&stage, &[Place::Pod12, Place::Node1], || {
        for to in forms(VIP, 53)? {
            let socket = udp_socket(to.is_ipv4())?;
            for _ in 0..10 {
                let from = exchange(&socket, to)?.0;
                ensure!(from == to, "sent to {to}, answered by {from}");
            }
        }
        Ok(())
    })
}

#[test]
fn one_socket_talks_to_two_services() -> Result<()> {
    let stage = stage()?;
    let _proxy = stage.start()?;
    in_each(&stage, &[Place::Pod12], || {
        for (first, second) in forms(VIP, 53)?.into_iter().zip(forms(OTHER_VIP, 53)?) {
            let socket = udp_socket(first.is_ipv4())?;
            // Both are under way before the first answer is read.
            socket.send_to(b"?\n", first)?;
            socket.send_to(b"?\n", second)?;
            let mut answers = [receive(&socket)?, receive(&socket)?];
            answers.sort_by_key(|(from, _)| *from != first);
            let [(from_first, by_first), (from_second, by_second)] = answers;
            ensure!(
                from_first == first && from_second == second,
                "sent to {first} and {second}, answered by {from_first} and {from_second}"
            );
            ensure!(
                by_first.ip() != by_second.ip(),
                "both were answered by {}",
                by_first.ip()
            );
        }
        Ok(())
    })
}

#[test]
fn node_ports_answer_on_localhost_under_that_address() -> Result<()> {
    let stage = stage()?;
    let _proxy = stage.start()?;
    in_each(&stage, &[Place::Node1], || {
        for to in forms("127.0.0.1", TCP_NODE_PORT)? {
            let stream =
                TcpStream::connect_timeout(&to, ANSWER_TIMEOUT).with_context(|| to.to_string())?;
            let peer = stream.peer_addr()?;
            ensure!(peer == to, "TCP to {to} has the peer {peer}");
        }
        for to in forms("127.0.0.1", UDP_NODE_PORT)? {
            let socket = udp_socket(to.is_ipv4())?;
            let from = exchange(&socket, to).with_context(|| to.to_string())?.0;
            ensure!(from == to, "sent to {to}, answered by {from}");
        }
        Ok(())
    })
}

/// Sends one datagram; who the answer came from, and who says it is the sender.
fn exchange(socket: &std::net::UdpSocket, to: SocketAddr) -> io::Result<(SocketAddr, SocketAddr)> {
    socket.send_to(b"?\n", to)?;
    receive(socket)
}

fn receive(socket: &std::net::UdpSocket) -> io::Result<(SocketAddr, SocketAddr)> {
    let mut buffer = [0; 256];
    let (length, from) = socket.recv_from(&mut buffer)?;
    let by = answered_by(&String::from_utf8_lossy(&buffer[..length]))?;
    Ok((from, by))
}
