use switchyard_netlink::Family;
use switchyard_netlink::conntrack::Conntrack;
use switchyard_netlink::ipset::{Ipset, SetSpec, SetType};
use switchyard_netlink::nfacct::Acct;
use switchyard_netlink::nft_generation::GenerationReader;
use switchyard_netlink::nft_rules::RuleLister;
use switchyard_netlink::xtables_info::table_size;

use crate::namespace::without_net_admin;

#[test]
fn without_the_right_every_answer_says_which_is_needed() {
    without_net_admin(
        "rights::without_the_right_every_answer_says_which_is_needed",
        || {
            let spec = SetSpec {
                set_type: SetType::HashIp,
                family: Family::V4,
                max_elements: 10,
                hash_size: 64,
            };
            let errors = [
                Conntrack::open()
                    .unwrap()
                    .for_each_udp(Family::V4, |_| {})
                    .unwrap_err()
                    .to_string(),
                Ipset::open()
                    .unwrap()
                    .create("set", &spec)
                    .unwrap_err()
                    .to_string(),
                Acct::open()
                    .unwrap()
                    .read("object")
                    .unwrap_err()
                    .to_string(),
                GenerationReader::open()
                    .unwrap()
                    .read()
                    .unwrap_err()
                    .to_string(),
                RuleLister::open()
                    .unwrap()
                    .for_each_chain(Family::V4, "nat", || (), |(), _| {})
                    .unwrap_err()
                    .to_string(),
            ];
            for error in &errors {
                assert!(error.contains("CAP_NET_ADMIN is needed"), "{error}");
            }
            assert!(
                errors[0].starts_with("list the IPv4 conntrack table: "),
                "{}",
                errors[0]
            );
            assert!(
                errors[2].starts_with("read the nfacct object object: "),
                "{}",
                errors[2]
            );
            // Nobody uses the table, which needs no right to be seen.
            assert_eq!(table_size(Family::V4, "nat").unwrap(), None);
        },
    );
}
