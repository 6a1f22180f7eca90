//! Which kernel modules the guest gets: those wanted, and what they depend on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;

/// Wanted, below the modules' folder: whole folders end with a slash. What a kernel has built in
/// or lacks is left out.
const WANTED: [&str; 31] = [
    "kernel/arch/x86/crypto/",
    "kernel/crypto/",
    "kernel/drivers/char/virtio_console.ko",
    "kernel/drivers/net/bonding/",
    "kernel/drivers/net/dummy.ko",
    "kernel/drivers/net/geneve.ko",
    "kernel/drivers/net/ifb.ko",
    "kernel/drivers/net/ipvlan/",
    "kernel/drivers/net/macvlan.ko",
    "kernel/drivers/net/macvtap.ko",
    "kernel/drivers/net/team/",
    "kernel/drivers/net/tun.ko",
    "kernel/drivers/net/veth.ko",
    "kernel/drivers/net/vrf.ko",
    "kernel/drivers/net/vxlan/",
    "kernel/drivers/net/wireguard/",
    "kernel/drivers/virtio/",
    "kernel/fs/overlayfs/",
    "kernel/lib/",
    "kernel/net/802/",
    "kernel/net/8021q/",
    "kernel/net/bridge/",
    "kernel/net/core/",
    "kernel/net/ipv4/",
    "kernel/net/ipv6/",
    "kernel/net/llc/",
    "kernel/net/netfilter/",
    "kernel/net/packet/",
    "kernel/net/sched/",
    "kernel/net/sctp/",
    "kernel/net/unix/",
];

/// The guest's modules and their indexes.
///
/// # Errors
/// The kernel's list of modules can't be read.
pub(super) fn files(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let list = kernel.modules.join("modules.dep");
    let list = fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
    let mut files: Vec<PathBuf> = closure(&list, &WANTED)?
        .into_iter()
        .map(|module| kernel.modules.join(module))
        .collect();
    for entry in fs::read_dir(&kernel.modules)? {
        let path = entry?.path();
        if is_index(&path) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Whether a file is one that modprobe reads.
fn is_index(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("modules.")) && path.is_file()
}

/// The wanted modules of a `modules.dep` and all they depend on, by path.
///
/// # Errors
/// A line of another form, or nothing that is wanted.
fn closure<'a>(list: &'a str, wanted: &[&str]) -> Result<BTreeSet<&'a str>> {
    let mut needs = BTreeMap::new();
    for line in list.lines() {
        let Some((module, depends)) = line.split_once(':') else {
            bail!("modules.dep: expected `module: modules it needs`, got `{line}`");
        };
        needs.insert(module, depends);
    }
    let is_wanted = |module: &&str| {
        wanted.iter().any(|wanted| {
            wanted
                .strip_suffix('/')
                .map_or(module == wanted, |_| module.starts_with(wanted))
        })
    };
    let mut open: Vec<&str> = needs.keys().copied().filter(is_wanted).collect();
    let mut found = BTreeSet::new();
    while let Some(module) = open.pop() {
        if found.insert(module) {
            let depends = needs.get(module).copied().unwrap_or_default();
            open.extend(depends.split_whitespace());
        }
    }
    if found.is_empty() {
        bail!("modules.dep has none of the wanted modules");
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "\
kernel/net/sched/cls_bpf.ko:
kernel/net/netfilter/xt_set.ko: kernel/net/netfilter/ip_set.ko kernel/net/x_tables.ko
kernel/net/netfilter/ip_set.ko: kernel/net/nfnetlink.ko
kernel/net/x_tables.ko:
kernel/net/nfnetlink.ko:
kernel/drivers/net/veth.ko:
kernel/drivers/net/veth2.ko:
kernel/fs/btrfs.ko: kernel/net/x_tables.ko
";

    #[test]
    fn dependencies_of_dependencies_come_along_and_nothing_else() {
        let found = closure(
            LIST,
            &["kernel/net/netfilter/", "kernel/drivers/net/veth.ko"],
        );
        let found: Vec<&str> = found.unwrap().into_iter().collect();
        assert_eq!(
            found,
            [
                "kernel/drivers/net/veth.ko",
                "kernel/net/netfilter/ip_set.ko",
                "kernel/net/netfilter/xt_set.ko",
                "kernel/net/nfnetlink.ko",
                "kernel/net/x_tables.ko",
            ]
        );
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        assert!(closure("kernel/a.ko kernel/b.ko\n", &["kernel/"]).is_err());
        assert!(closure("", &["kernel/"]).is_err());
    }
}
