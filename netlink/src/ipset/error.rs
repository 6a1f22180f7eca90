use nix::libc::{EBUSY, EEXIST, EINVAL, ENOENT};

use super::NAME_BYTES_MAX;
use super::codec::SetHeader;
use super::entry::Entry;
use super::set_type::SetSpec;
use crate::error::NetlinkError;
use crate::family::Family;

// `enum ipset_errno` of `linux/netfilter/ipset/ip_set.h`.
const ERR_PROTOCOL: i32 = 4097;
const ERR_FIND_TYPE: i32 = 4098;
const ERR_MAX_SETS: i32 = 4099;
const ERR_BUSY: i32 = 4100;
const ERR_EXIST_SETNAME2: i32 = 4101;
const ERR_TYPE_MISMATCH: i32 = 4102;
pub(super) const ERR_EXIST: i32 = 4103;
const ERR_INVALID_CIDR: i32 = 4104;
const ERR_INVALID_FAMILY: i32 = 4106;
const ERR_REFERENCED: i32 = 4108;
const ERR_IPADDR_IPV4: i32 = 4109;
const ERR_IPADDR_IPV6: i32 = 4110;
// Of hash types (`linux/netfilter/ipset/ip_set_hash.h`).
const ERR_HASH_FULL: i32 = 4352;
const ERR_HASH_ELEM: i32 = 4353;
// Of bitmap types, from the same number on.
const ERR_BITMAP_RANGE: i32 = 4352;

/// Why a set could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum IpsetError {
    /// Not a name the kernel takes.
    #[error("{name:?} cannot name a set: 1 to {NAME_BYTES_MAX} bytes without NUL are needed")]
    BadName {
        /// The name.
        name: String,
    },
    /// No such set.
    #[error("there is no set {name}")]
    Missing {
        /// Its name.
        name: String,
    },
    /// There is a set of that name already.
    #[error("there is a set {name} already")]
    Exists {
        /// Its name.
        name: String,
    },
    /// A set of that name is something else.
    #[error(
        "the set {name} is a {}, where a {} is needed; remove or rename it",
        type_in_words(found_type, *found_family),
        type_in_words(wanted_type, *wanted_family)
    )]
    TypeMismatch {
        /// The set.
        name: String,
        /// Its type.
        found_type: String,
        /// Its family, if it has one.
        found_family: Option<Family>,
        /// The type it should have.
        wanted_type: &'static str,
        /// The family it should have, if any.
        wanted_family: Option<Family>,
    },
    /// The two sets cannot take each other's place.
    #[error("the set {name} and the one to be swapped with it are of different types")]
    SwapMismatch {
        /// One of them.
        name: String,
    },
    /// The kernel, or this crate, does not know the type.
    #[error(
        "the set type {type_name} is not known (a kernel needs the module of that name: ip_set_…)"
    )]
    TypeUnknown {
        /// The type.
        type_name: String,
    },
    /// The kernel has no ipset at all.
    #[error("this kernel has no ipset (module ip_set)")]
    NoIpset,
    /// A rule, or another set, still uses the set.
    #[error("the set {name} is still used by a rule")]
    InUse {
        /// The set.
        name: String,
    },
    /// The set has as many elements as it may hold.
    #[error("the set {name} is full{}", at_entry(*entry))]
    Full {
        /// The set.
        name: String,
        /// The element that found no room, where the kernel says.
        entry: Option<Entry>,
    },
    /// The kernel does not take this element.
    #[error("the set {name} does not take the element {entry}: {reason}")]
    BadEntry {
        /// The set.
        name: String,
        /// The element.
        entry: Entry,
        /// Why not.
        reason: &'static str,
    },
    /// The kernel has no room for another set.
    #[error("no further set can be made: the kernel's limit (ip_set max_sets) is reached")]
    TooManySets,
    /// Anything else.
    #[error(transparent)]
    Refused(NetlinkError),
}

fn type_in_words(name: &str, family: Option<Family>) -> String {
    match family {
        Some(family) => format!("{name} of {family}"),
        None => name.to_owned(),
    }
}

fn at_entry(entry: Option<Entry>) -> String {
    entry
        .map(|entry| format!(", no room for {entry}"))
        .unwrap_or_default()
}

impl IpsetError {
    pub(super) fn missing(name: &str) -> Self {
        Self::Missing {
            name: name.to_owned(),
        }
    }

    pub(super) fn from_command(error: NetlinkError, name: &str) -> Self {
        let name = || name.to_owned();
        match error.refused_code() {
            Some(ENOENT | ERR_EXIST_SETNAME2) => Self::Missing { name: name() },
            Some(EEXIST) => Self::Exists { name: name() },
            Some(EBUSY | ERR_BUSY | ERR_REFERENCED) => Self::InUse { name: name() },
            Some(ERR_TYPE_MISMATCH) => Self::SwapMismatch { name: name() },
            Some(ERR_MAX_SETS) => Self::TooManySets,
            _ => Self::Refused(error),
        }
    }

    pub(super) fn from_type_query(error: NetlinkError, spec: &SetSpec) -> Self {
        match error.refused_code() {
            Some(ERR_FIND_TYPE | EEXIST | ENOENT) => Self::TypeUnknown {
                type_name: spec.set_type.name().to_owned(),
            },
            // nfnetlink says this where a subsystem is not there.
            Some(EINVAL) => Self::NoIpset,
            _ => Self::Refused(error),
        }
    }

    pub(super) fn from_change(code: i32, doing: &str, name: &str, entry: Option<&Entry>) -> Self {
        let is_port = matches!(entry, Some(Entry::Port(_)));
        let reason = match code {
            ERR_BITMAP_RANGE if is_port => "it is outside of the set's range",
            ERR_INVALID_CIDR => "the kernel takes no network with a prefix of 0 bits",
            ERR_INVALID_FAMILY | ERR_PROTOCOL => {
                "its address is of another family or its form wrong"
            }
            ERR_IPADDR_IPV4 => "the set holds IPv4 addresses",
            ERR_IPADDR_IPV6 => "the set holds IPv6 addresses",
            ERR_HASH_ELEM => "an address 0.0.0.0 (or ::) cannot be in such a set",
            ERR_EXIST => "the kernel says it is (or is not) there already",
            _ => "",
        };
        match (code, entry) {
            (ERR_HASH_FULL, entry) if !is_port => Self::Full {
                name: name.to_owned(),
                entry: entry.copied(),
            },
            (_, Some(entry)) if !reason.is_empty() => Self::BadEntry {
                name: name.to_owned(),
                entry: *entry,
                reason,
            },
            (code, entry) => {
                let request = match entry {
                    Some(entry) => format!("{doing}, at {entry}"),
                    None => doing.to_owned(),
                };
                Self::from_command(NetlinkError::Refused { request, code }, name)
            }
        }
    }
}

pub(super) fn check_name(name: &str) -> Result<(), IpsetError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0') {
        return Err(IpsetError::BadName {
            name: name.to_owned(),
        });
    }
    Ok(())
}

pub(super) fn check_type(
    name: &str,
    wanted: &SetSpec,
    found: &SetHeader,
) -> Result<(), IpsetError> {
    let wanted_family = wanted.set_type.has_family().then_some(wanted.family);
    if found.type_name == wanted.set_type.name() && found.family == wanted_family {
        return Ok(());
    }
    Err(IpsetError::TypeMismatch {
        name: name.to_owned(),
        found_type: found.type_name.clone(),
        found_family: found.family,
        wanted_type: wanted.set_type.name(),
        wanted_family,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_the_kernel_cuts_them() {
        assert!(check_name("KUBE-CLUSTER-IP").is_ok());
        assert!(check_name(&"x".repeat(NAME_BYTES_MAX)).is_ok());
        for bad in ["", "a\0b", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(
                matches!(check_name(bad), Err(IpsetError::BadName { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_full_set_names_set_and_element() {
        let entry = Entry::Ip([10, 0, 0, 1].into());
        let error = IpsetError::from_change(ERR_HASH_FULL, "add", "S", Some(&entry));
        assert_eq!(error.to_string(), "the set S is full, no room for 10.0.0.1");
    }

    #[test]
    fn a_port_out_of_range_is_not_taken_for_a_full_set() {
        let error = IpsetError::from_change(4352, "add", "S", Some(&Entry::Port(7)));
        assert_eq!(
            error.to_string(),
            "the set S does not take the element 7: it is outside of the set's range"
        );
    }

    #[test]
    fn an_unknown_code_is_kept_as_a_number() {
        let error = IpsetError::from_change(4999, "add 1 elements of the set S", "S", None);
        assert_eq!(
            error.to_string(),
            "add 1 elements of the set S: the kernel refused it with error 4999"
        );
    }
}
