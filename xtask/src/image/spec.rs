//! What is in each image and how it is started.

use super::files::{Capability, File, Kind};

/// The images' version: that of all crates here.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The user that containers of the DNS server run as: of no file in the image.
const NOBODY: &str = "65532:65532";

/// An image.
pub(super) struct Image {
    /// Of the program and of the image.
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    /// Debian packages whose files it has, as far as [`super::debian`] keeps them.
    pub(super) packages: &'static [&'static str],
    /// `user:group` by number.
    pub(super) user: &'static str,
    pub(super) path: &'static str,
    /// Where the program is.
    pub(super) program: &'static str,
    capability: Option<Capability>,
    /// Other names: the path, and where it leads.
    links: &'static [(&'static str, &'static str)],
}

/// glibc, libgcc, and what programs look for in /etc; certificates of public authorities, by which
/// API servers of clouds and upstreams over TLS are known.
const COMMON: [&str; 5] = [
    "base-files",
    "ca-certificates",
    "libc6",
    "libgcc-s1",
    "netbase",
];

const NFT: &str = "/usr/sbin/xtables-nft-multi";
const LEGACY: &str = "/usr/sbin/xtables-legacy-multi";

/// Both images.
pub(super) const ALL: [Image; 2] = [
    Image {
        name: "switchyard-proxy",
        description: "A Kubernetes service proxy in kube-proxy's place",
        // iptables for the modes iptables and ipvs; ipset, IPVS, nftables and connection tracking
        // are spoken by netlink.
        packages: &[
            "base-files",
            "ca-certificates",
            "iptables",
            "libc6",
            "libgcc-s1",
            "netbase",
        ],
        user: "0:0",
        path: "/usr/lib/switchyard/iptables-nft:/usr/bin",
        program: "/usr/bin/switchyard-proxy",
        capability: None,
        links: &[
            // So that changing the image of kubeadm's DaemonSet is all there is to do.
            ("usr/local/bin/kube-proxy", "/usr/bin/switchyard-proxy"),
            // The programs go by the name they are called by. PATH chooses the kind.
            ("usr/lib/switchyard/iptables-nft/iptables", NFT),
            ("usr/lib/switchyard/iptables-nft/iptables-restore", NFT),
            ("usr/lib/switchyard/iptables-nft/iptables-save", NFT),
            ("usr/lib/switchyard/iptables-nft/ip6tables", NFT),
            ("usr/lib/switchyard/iptables-nft/ip6tables-restore", NFT),
            ("usr/lib/switchyard/iptables-nft/ip6tables-save", NFT),
            ("usr/lib/switchyard/iptables-legacy/iptables", LEGACY),
            (
                "usr/lib/switchyard/iptables-legacy/iptables-restore",
                LEGACY,
            ),
            ("usr/lib/switchyard/iptables-legacy/iptables-save", LEGACY),
            ("usr/lib/switchyard/iptables-legacy/ip6tables", LEGACY),
            (
                "usr/lib/switchyard/iptables-legacy/ip6tables-restore",
                LEGACY,
            ),
            ("usr/lib/switchyard/iptables-legacy/ip6tables-save", LEGACY),
        ],
    },
    Image {
        name: "switchyard-dns",
        description: "A cluster DNS server in CoreDNS' place",
        packages: &COMMON,
        user: NOBODY,
        path: "/usr/bin",
        program: "/usr/bin/switchyard-dns",
        // Port 53 without root, as CoreDNS' image has it.
        capability: Some(Capability::NetBindService),
        links: &[("coredns", "/usr/bin/switchyard-dns")],
    },
];

impl Image {
    /// The files that don't come from packages.
    pub(super) fn own_files(&self, program: Vec<u8>) -> Vec<File> {
        let text = |path: &str, text: &str| File::new(path, Kind::Regular(text.into()));
        let mut files = vec![
            File {
                mode: 0o755,
                capability: self.capability,
                ..File::new(self.program, Kind::Regular(program))
            },
            text(
                "etc/passwd",
                "root:x:0:0:root:/:/usr/sbin/nologin\nnonroot:x:65532:65532::/:/usr/sbin/nologin\n",
            ),
            text("etc/group", "root:x:0:\nnonroot:x:65532:\n"),
            text("etc/nsswitch.conf", "hosts: files dns\n"),
        ];
        let link = |&(path, target): &(&str, &str)| File::new(path, Kind::Link(target.to_owned()));
        files.extend(self.links.iter().map(link));
        // Where container runtimes and manifests mount something: a read-only root can't be added to.
        let folders = [
            "dev",
            "proc",
            "run",
            "sys",
            "tmp",
            "var/lib/kube-proxy",
            "etc/coredns",
        ];
        files.extend(folders.map(|path| File::new(path, Kind::Folder)));
        files
    }
}
