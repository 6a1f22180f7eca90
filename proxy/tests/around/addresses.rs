use std::net::IpAddr;
use std::time::Duration;

use switchyard_proxy::addresses::{AddressWatch, LocalAddresses, Scope};

use crate::namespace::{in_own_network, run};

const WAIT: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_millis(300);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn texts(addresses: &LocalAddresses) -> Vec<String> {
    addresses
        .iter()
        .map(|(address, _)| address.to_string())
        .collect()
}

#[test]
fn lists_what_ip_shows() {
    in_own_network(|| {
        assert!(LocalAddresses::list().unwrap().is_empty());
        run("ip link set lo up");
        run("ip link add br0 type bridge");
        run("ip addr add 10.9.0.1/24 dev br0");
        run("ip addr add 10.9.0.2 peer 10.9.0.3 dev br0");
        run("ip addr add fd00:9::1/64 dev br0 nodad");
        run("ip addr add 169.254.9.9/32 scope link dev br0");
        let addresses = LocalAddresses::list().unwrap();
        assert_eq!(
            texts(&addresses),
            [
                "10.9.0.1",
                "10.9.0.2",
                "127.0.0.1",
                "169.254.9.9",
                "::1",
                "fd00:9::1"
            ]
        );
        let scope = |wanted: &str| {
            let wanted: IpAddr = wanted.parse().unwrap();
            addresses
                .iter()
                .find(|(address, _)| *address == wanted)
                .unwrap()
                .1
                .scope
        };
        assert_eq!(scope("::1"), Scope::Host);
        assert_eq!(scope("169.254.9.9"), Scope::Link);
        assert_eq!(scope("10.9.0.1"), Scope::Global);
    });
}

#[test]
fn reports_the_new_set_when_an_address_comes_or_goes() {
    in_own_network(|| {
        run("ip link add br0 type bridge");
        runtime().block_on(async {
            let mut watch = AddressWatch::open().unwrap();
            assert!(watch.current().is_empty());
            run("ip addr add 10.9.0.1/24 dev br0");
            run("ip addr add fd00:9::1/64 dev br0 nodad");
            let mut seen = Vec::new();
            while seen.len() < 2 {
                let new = tokio::time::timeout(WAIT, watch.changed())
                    .await
                    .unwrap()
                    .unwrap();
                seen = texts(&new);
            }
            assert_eq!(seen, ["10.9.0.1", "fd00:9::1"]);

            // The same set again is no news.
            run("ip addr add 10.9.0.7/24 dev br0");
            run("ip addr del 10.9.0.7/24 dev br0");
            assert!(tokio::time::timeout(QUIET, watch.changed()).await.is_err());

            run("ip addr del 10.9.0.1/24 dev br0");
            let new = tokio::time::timeout(WAIT, watch.changed())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(texts(&new), ["fd00:9::1"]);
        });
    });
}

#[test]
fn many_changes_at_once_end_in_the_right_set() {
    in_own_network(|| {
        run("ip link add br0 type bridge");
        runtime().block_on(async {
            let mut watch = AddressWatch::open().unwrap();
            // Far more notices than a socket's buffer holds, while nobody listens.
            let commands: String = (0..2_000_u32)
                .map(|n| format!("addr add 10.{}.{}.1/32 dev br0\n", 100 + n / 250, n % 250))
                .collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), commands).unwrap();
            run(&format!("ip -batch {}", file.path().display()));
            let new = tokio::time::timeout(WAIT, watch.changed())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(new.len(), 2_000);
            assert!(tokio::time::timeout(QUIET, watch.changed()).await.is_err());
        });
    });
}

#[test]
fn a_change_is_seen_even_if_nobody_waits_long_enough_at_once() {
    in_own_network(|| {
        run("ip link add br0 type bridge");
        runtime().block_on(async {
            let mut watch = AddressWatch::open().unwrap();
            run("ip addr add 10.9.0.1/24 dev br0");
            // As in a select! whose other branches are busy.
            for _ in 0..200 {
                let moment = Duration::from_millis(3);
                if let Ok(news) = tokio::time::timeout(moment, watch.changed()).await {
                    assert_eq!(texts(&news.unwrap()), ["10.9.0.1"]);
                    return;
                }
            }
            panic!("the change was never reported");
        });
    });
}
