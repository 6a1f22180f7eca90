use std::time::Duration;

use switchyard_proxy::devices::{Device, DeviceWatch, Devices, LinkLayer};

use crate::namespace::{in_own_network, run};

const WAIT: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(300);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn names(devices: &Devices) -> Vec<&str> {
    let mut names: Vec<&str> = devices.iter().map(|device| &*device.name).collect();
    names.sort_unstable();
    names
}

fn find<'a>(devices: &'a Devices, name: &str) -> &'a Device {
    devices
        .iter()
        .find(|device| &*device.name == name)
        .unwrap_or_else(|| panic!("no {name} among {devices:?}"))
}

#[test]
fn lists_devices_that_have_traffic_of_their_own() {
    in_own_network(|| {
        run("ip link set lo up");
        run("ip link add br0 type bridge");
        run("ip link add eth0 type veth peer name port0");
        run("ip link set port0 master br0");
        run("ip link set eth0 up");
        run("ip tuntap add tun0 mode tun");
        let devices = Devices::list().unwrap();
        assert_eq!(names(&devices), ["br0", "eth0", "tun0"]);
        assert_eq!(devices.len(), 3);
        let eth0 = find(&devices, "eth0");
        assert_eq!((eth0.link_layer, eth0.is_up), (LinkLayer::Ethernet, true));
        assert_eq!(devices.get(eth0.index), Some(eth0));
        assert!(!find(&devices, "br0").is_up);
        assert_eq!(find(&devices, "tun0").link_layer, LinkLayer::Ip);
    });
}

#[test]
fn reports_a_device_that_comes_goes_or_becomes_a_port() {
    in_own_network(|| {
        runtime().block_on(async {
            let mut watch = DeviceWatch::open().unwrap();
            assert!(watch.current().is_empty());
            run("ip link add eth0 type veth peer name port0");
            let new = tokio::time::timeout(WAIT, watch.changed()).await;
            assert_eq!(names(&new.unwrap().unwrap()), ["eth0", "port0"]);

            // What is of no interest is no news.
            run("ip link set eth0 mtu 1400");
            assert!(tokio::time::timeout(QUIET, watch.changed()).await.is_err());

            run("ip link add br0 type bridge");
            run("ip link set port0 master br0");
            let mut seen = Vec::new();
            while seen.len() != 2 {
                let new = tokio::time::timeout(WAIT, watch.changed()).await;
                let new = new.unwrap().unwrap();
                seen = names(&new).into_iter().map(str::to_owned).collect();
            }
            assert_eq!(seen, ["br0", "eth0"]);

            run("ip link del eth0");
            let new = tokio::time::timeout(WAIT, watch.changed()).await;
            assert_eq!(names(&new.unwrap().unwrap()), ["br0"]);
        });
    });
}

#[test]
fn hundreds_of_devices_at_once_end_in_the_right_list() {
    in_own_network(|| {
        runtime().block_on(async {
            let mut watch = DeviceWatch::open().unwrap();
            let commands: String = (0..300)
                .map(|n| format!("link add veth{n} type veth peer name peer{n}\n"))
                .collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), commands).unwrap();
            run(&format!("ip -batch {}", file.path().display()));
            let new = tokio::time::timeout(WAIT, watch.changed()).await;
            assert_eq!(new.unwrap().unwrap().len(), 600);
            assert!(tokio::time::timeout(QUIET, watch.changed()).await.is_err());
        });
    });
}
