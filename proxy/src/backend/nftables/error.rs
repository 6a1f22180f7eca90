use switchyard_netlink::NetlinkError;
use switchyard_netlink::nftables::NftError;

/// Why nftables mode could not do something.
#[derive(Debug, thiserror::Error)]
pub enum NftablesModeError {
    /// The kernel, or what it has of nf_tables, is not enough.
    #[error(
        "nftables mode needs Linux 5.13 or later with nf_tables and its expressions ct, fib, \
         masq, nat, numgen and reject; this kernel ({release}) refused one: {cause}"
    )]
    Lacking {
        /// Its release.
        release: String,
        /// What it said.
        cause: NftError,
    },
    /// A transaction or a listing.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The generation of the rule set.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}
