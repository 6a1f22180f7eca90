use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use switchyard_netlink::Family;
use switchyard_netlink::Protocol;
use switchyard_netlink::ipvs::{
    Change, Connections, Destination, Ipvs, Persistence, Service, ServiceKey,
};

use super::{at, key, service, tcp, with_ipvs};
use crate::namespace::run;

/// Longer than any packet takes on this machine's own loopback.
const PATIENCE: Duration = Duration::from_secs(20);

fn addresses(addresses: &[&str]) {
    run("ip link set lo up");
    for address in addresses {
        run(&format!("ip address add {address} dev lo nodad"));
    }
}

fn connections(ipvs: &mut Ipvs, key: &ServiceKey) -> Connections {
    let listed = ipvs.destinations(key).unwrap();
    assert_eq!(listed.len(), 1);
    listed[0].connections
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn connections_are_counted_and_outlive_a_weight_of_zero() {
    with_ipvs(|| {
        addresses(&["fd00::1/128", "fd00:1::1/128"]);
        let key = tcp("[fd00::1]:80");
        let wanted = Destination::masqueraded(at("[fd00:1::1]:8080"), 1);
        let sticky = Service {
            persistence: Some(Persistence::per_client(Family::V6, 100)),
            ..service(key)
        };
        let mut ipvs = Ipvs::open().unwrap();
        let changes = [
            Change::NewService(sticky),
            Change::NewDestination(key, wanted),
        ];
        assert!(ipvs.apply(&changes).unwrap().is_empty());
        assert!(connections(&mut ipvs, &key).are_none());

        let listener = TcpListener::bind(wanted.address).unwrap();
        let mut client = TcpStream::connect_timeout(&key.address, PATIENCE).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        for end in [&client, &server] {
            end.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        let expected = Connections {
            active: 1,
            inactive: 0,
            persistent: 1,
        };
        assert_eq!(connections(&mut ipvs, &key), expected);

        let drained = Destination {
            weight: 0,
            ..wanted
        };
        ipvs.apply_one(Change::SetDestination(key, drained))
            .unwrap();
        client.write_all(b"still there").unwrap();
        let mut heard = [0; 11];
        server.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"still there");
        assert_eq!(connections(&mut ipvs, &key), expected);
        assert_eq!(ipvs.destinations(&key).unwrap()[0].destination, drained);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS"]
fn datagrams_count_as_inactive() {
    with_ipvs(|| {
        addresses(&["10.0.0.1/32", "10.1.0.1/32"]);
        let key = key(Protocol::Udp, "10.0.0.1:53");
        let wanted = Destination::masqueraded(at("10.1.0.1:5353"), 1);
        let mut ipvs = Ipvs::open().unwrap();
        let changes = [
            Change::NewService(service(key)),
            Change::NewDestination(key, wanted),
        ];
        assert!(ipvs.apply(&changes).unwrap().is_empty());

        let server = UdpSocket::bind(wanted.address).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let client = UdpSocket::bind("10.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect(key.address).unwrap();
        client.send(b"question").unwrap();
        let mut heard = [0; 16];
        let (length, from) = server.recv_from(&mut heard).unwrap();
        assert_eq!(&heard[..length], b"question");
        server.send_to(b"answer", from).unwrap();
        assert_eq!(client.recv(&mut heard).unwrap(), b"answer".len());
        let expected = Connections {
            inactive: 1,
            ..Connections::default()
        };
        assert_eq!(connections(&mut ipvs, &key), expected);
    });
}
