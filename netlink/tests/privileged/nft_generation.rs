use switchyard_netlink::nft_generation::GenerationReader;

use crate::namespace::{in_own_network, run};

#[test]
fn changes_with_every_commit_by_anybody_and_only_then() {
    in_own_network(|| {
        let mut reader = GenerationReader::open().unwrap();
        let start = reader.read().unwrap();
        assert_eq!(reader.read().unwrap(), start);
        run("nft list ruleset");
        run("iptables-nft-save -t nat");
        let listed = reader.read().unwrap();
        assert_eq!(reader.read().unwrap(), listed);

        run("iptables-nft -t nat -N KUBE-SERVICES");
        let chain = reader.read().unwrap();
        assert_ne!(chain, listed);
        run("iptables-nft -t nat -A KUBE-SERVICES -j RETURN");
        let rule = reader.read().unwrap();
        assert_ne!(rule, chain);
        run("nft add table ip somebody-else");
        assert_ne!(reader.read().unwrap(), rule);
    });
}

#[test]
fn is_of_the_namespace_it_was_opened_in() {
    in_own_network(|| {
        let mut here = GenerationReader::open().unwrap();
        let before = here.read().unwrap();
        in_own_network(|| {
            run("nft add table ip elsewhere");
        });
        assert_eq!(here.read().unwrap(), before);
    });
}
