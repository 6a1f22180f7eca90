use std::fs;
use std::io::ErrorKind;

use switchyard_netlink::Family;
use switchyard_netlink::xtables_info::table_size;

use crate::namespace::{in_own_network, run};

fn names(family: Family) -> String {
    let names = fs::read_to_string(match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    });
    match names {
        // The kernel has not loaded what would list them, so there are none.
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        names => names.unwrap(),
    }
}

#[test]
fn a_table_nobody_uses_is_none_and_asking_does_not_make_it() {
    in_own_network(|| {
        for family in Family::BOTH {
            assert_eq!(table_size(family, "nat").unwrap(), None);
            assert_eq!(table_size(family, "nonsense").unwrap(), None);
            assert_eq!(names(family), "", "asking made a table");
        }
        // What iptables-nft makes is none of these tables.
        run("iptables-nft -t nat -N KUBE-SERVICES");
        assert_eq!(table_size(Family::V4, "nat").unwrap(), None);
    });
}

#[test]
fn the_size_follows_what_the_tool_does() {
    for (family, tool) in [
        (Family::V4, "iptables-legacy"),
        (Family::V6, "ip6tables-legacy"),
    ] {
        in_own_network(move || {
            run(&format!("{tool} -t nat -N KUBE-SERVICES"));
            let empty = table_size(family, "nat").unwrap().unwrap();
            assert_eq!(table_size(family, "nat").unwrap(), Some(empty));
            run(&format!("{tool} -t nat -A KUBE-SERVICES -j RETURN"));
            let one = table_size(family, "nat").unwrap().unwrap();
            assert_eq!(one.entries, empty.entries + 1);
            assert!(one.bytes > empty.bytes);
            run(&format!("{tool} -t nat -F KUBE-SERVICES"));
            assert_eq!(table_size(family, "nat").unwrap(), Some(empty));
            assert_eq!(table_size(family, "mangle").unwrap(), None);
        });
    }
}
