use switchyard_netlink::nfacct::{Acct, AcctError, Counts};

use crate::namespace::{in_own_network, run};

const NAME: &str = "ct_state_invalid_dropped_pkts";

#[test]
fn counts_what_a_rule_matches() {
    in_own_network(|| {
        run("ip link set lo up");
        let mut acct = Acct::open().unwrap();
        assert!(matches!(acct.read(NAME), Err(AcctError::Missing { name }) if name == NAME));
        assert!(acct.ensure(NAME).unwrap());
        assert_eq!(acct.read(NAME).unwrap(), Counts::default());
        run(&format!(
            "iptables-nft -A OUTPUT -o lo -p udp --dport 9999 -m nfacct --nfacct-name {NAME}"
        ));
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..3 {
            // Nobody listens: the refusal comes back as an error of a later send.
            socket.send_to(b"12345", "127.0.0.1:9999").ok();
        }
        let counts = acct.read(NAME).unwrap();
        assert_eq!(
            counts,
            Counts {
                packets: 3,
                bytes: 3 * (20 + 8 + 5)
            }
        );
        // An object that is there keeps its counts.
        assert!(!acct.ensure(NAME).unwrap());
        assert_eq!(acct.read(NAME).unwrap(), counts);

        assert!(matches!(acct.remove(NAME), Err(AcctError::InUse { .. })));
        run("iptables-nft -F OUTPUT");
        acct.remove(NAME).unwrap();
        assert!(matches!(acct.read(NAME), Err(AcctError::Missing { .. })));
    });
}

#[test]
fn objects_with_the_same_beginning_are_told_apart() {
    in_own_network(|| {
        let mut acct = Acct::open().unwrap();
        acct.ensure("localhost_nps_accepted_pkts").unwrap();
        assert!(matches!(
            acct.read("localhost_nps"),
            Err(AcctError::Missing { .. })
        ));
        assert!(matches!(acct.ensure(""), Err(AcctError::BadName { .. })));
        assert!(matches!(
            acct.ensure(&"x".repeat(32)),
            Err(AcctError::BadName { .. })
        ));
    });
}
