//! What the fuzz targets in `netlink/fuzz/` do with any bytes, and tests with those that are kept
//! there. No part of the library: it is built for them only.

use crate::{conntrack, ipset, ipvs, nftables, sock_diag, transport};

/// As the attributes of an object of nf_tables.
pub fn nftables(bytes: &[u8]) {
    nftables::any_bytes::read_in_every_way(bytes);
}

/// As the attributes of whatever the other families list.
pub fn listings(bytes: &[u8]) {
    ipset::any_bytes::read_everything(bytes);
    ipvs::any_bytes::read_everything(bytes);
    conntrack::read_any_bytes(bytes);
    sock_diag::read_any_bytes(bytes);
}

/// As what a socket receives at once.
pub fn datagram(bytes: &[u8]) {
    transport::read_any_bytes(bytes);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    fn each_kept(target: &str, read: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/corpus")
            .join(target);
        let files: Vec<_> = fs::read_dir(&folder).unwrap().collect();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for file in files {
            read(&fs::read(file.unwrap().path()).unwrap());
        }
    }

    #[test]
    fn the_corpus_of_the_fuzz_targets_is_read_without_a_panic() {
        each_kept("nftables", super::nftables);
        each_kept("listings", super::listings);
        each_kept("datagram", super::datagram);
    }
}
