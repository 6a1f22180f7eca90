//! The size of a table of the older iptables (iptables-legacy), as a cheap sign that somebody
//! changed it.
//!
//! Source: `IPT_SO_GET_INFO` of `linux/netfilter_ipv4/ip_tables.h`, `IP6T_SO_GET_INFO` of
//! `linux/netfilter_ipv6/ip6_tables.h`; every kernel with ip_tables. Needs CAP_NET_ADMIN.

use std::ffi::c_int;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;

use crate::error::errno_in_words;
use crate::family::Family;

/// `IPT_SO_GET_INFO` and `IP6T_SO_GET_INFO` have the same number.
const SO_GET_INFO: c_int = 64;
/// `XT_TABLE_MAXNAMELEN`.
const NAME_BYTES: usize = 32;

/// `struct ipt_getinfo`, which `struct ip6t_getinfo` equals.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct GetInfo {
    name: [u8; NAME_BYTES],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    entries: u32,
    bytes: u32,
}

/// How large a table is. Chains count as entries too. A change that keeps both numbers, such
/// as one rule in another's place, cannot be seen by them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSize {
    /// Rules, chain heads and ends.
    pub entries: u32,
    /// Bytes of the kernel's form.
    pub bytes: u32,
}

/// Why a table's size is not known.
#[derive(Debug, thiserror::Error)]
pub enum XtablesError {
    /// Not a name of a table.
    #[error("{name:?} cannot name a table: 1 to 31 bytes without NUL are needed")]
    BadName {
        /// The name.
        name: String,
    },
    /// No socket.
    #[error("cannot open a socket to ask for the size of the {family} table {table}: {source}")]
    Open {
        /// Its family.
        family: Family,
        /// The table.
        table: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The list of tables could not be read.
    #[error("cannot read {path}: {source}")]
    Names {
        /// The file.
        path: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The kernel said no.
    #[error("ask for the size of the {family} table {table}: {}", errno_in_words(*code))]
    Refused {
        /// Its family.
        family: Family,
        /// The table.
        table: String,
        /// The errno.
        code: i32,
    },
}

/// The size of a table (`filter`, `nat`, …) of iptables-legacy, in the network namespace of
/// the calling thread; `None` if nobody uses the table there. Asking never loads a module and
/// never makes the table come to be, which would cost every packet a look at it.
///
/// # Errors
/// [`XtablesError`].
pub fn table_size(family: Family, table: &str) -> Result<Option<TableSize>, XtablesError> {
    if table.is_empty() || table.len() >= NAME_BYTES || table.contains('\0') {
        return Err(XtablesError::BadName {
            name: table.to_owned(),
        });
    }
    // The kernel would create a table that it is asked for, so look at its own list first.
    if !is_in_use(family, table)? {
        return Ok(None);
    }
    let open = |source| XtablesError::Open {
        family,
        table: table.to_owned(),
        source,
    };
    let socket = match family {
        Family::V4 => UdpSocket::bind(("0.0.0.0", 0)),
        Family::V6 => UdpSocket::bind(("::", 0)),
    }
    .map_err(open)?;
    match get_info(socket.as_fd(), family, table) {
        Ok(info) => Ok(Some(TableSize {
            entries: info.entries,
            bytes: info.bytes,
        })),
        Err(libc::ENOENT) => Ok(None), // gone since
        Err(code) => Err(XtablesError::Refused {
            family,
            table: table.to_owned(),
            code,
        }),
    }
}

fn is_in_use(family: Family, table: &str) -> Result<bool, XtablesError> {
    // Of the thread, not of the process: its network namespace may be another.
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match std::fs::read_to_string(path) {
        Ok(names) => Ok(names.lines().any(|name| name == table)),
        // No file: the kernel has (or has loaded) no ip_tables at all.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(XtablesError::Names { path, source }),
    }
}

fn get_info(socket: BorrowedFd<'_>, family: Family, table: &str) -> Result<GetInfo, i32> {
    let level = match family {
        Family::V4 => libc::IPPROTO_IP,
        Family::V6 => libc::IPPROTO_IPV6,
    };
    let mut info = GetInfo::default();
    for (place, byte) in info.name.iter_mut().zip(table.bytes()) {
        *place = byte;
    }
    let mut length = libc::socklen_t::try_from(size_of::<GetInfo>()).map_err(|_| libc::EINVAL)?;
    // SAFETY: `socket` is open for the length of the call; `info` is a plain C struct of
    // `length` bytes, of which the kernel reads the name and overwrites all.
    #[expect(unsafe_code, reason = "no crate speaks this option")]
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            SO_GET_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(info)
    } else {
        Err(io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EINVAL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_struct_is_as_large_as_the_kernels() {
        assert_eq!(size_of::<GetInfo>(), 84);
    }

    #[test]
    fn a_bad_name_is_refused_before_the_kernel_is_asked() {
        for name in ["", "a\0", &"x".repeat(32)] {
            assert!(matches!(
                table_size(Family::V4, name),
                Err(XtablesError::BadName { .. })
            ));
        }
    }
}
