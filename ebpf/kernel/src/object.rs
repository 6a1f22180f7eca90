//! Pins: names in the bpf file system.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::syscall::{OBJ_GET, OBJ_GET_INFO_BY_FD, OBJ_PIN, bpf, descriptor, number};

#[repr(C)]
struct PathAttributes {
    path: u64,
    descriptor: u32,
    flags: u32,
}

#[repr(C)]
pub(crate) struct InfoAttributes {
    pub(crate) descriptor: u32,
    pub(crate) length: u32,
    pub(crate) info: u64,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

pub(crate) fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.addr()).unwrap_or(0)
}

/// Gives an object a name in the bpf file system; it then outlives its descriptors.
///
/// # Errors
/// As bpf(2): the name is taken (EEXIST), or is not in a bpf file system (EPERM).
#[expect(unsafe_code, reason = "a system call")]
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attributes = PathAttributes {
        path: address(path.as_ptr()),
        descriptor: number(object.as_raw_fd()),
        flags: 0,
    };
    // SAFETY: the path is a C string that lives until the call is over.
    unsafe { bpf(OBJ_PIN, &mut attributes) }.map(drop)
}

/// Opens what is pinned at a path.
///
/// # Errors
/// As bpf(2): nothing is there (ENOENT), or it is no BPF object (EACCES and others).
#[expect(unsafe_code, reason = "a system call")]
pub fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attributes = PathAttributes {
        path: address(path.as_ptr()),
        descriptor: 0,
        flags: 0,
    };
    // SAFETY: the path is a C string that lives until the call is over, and the command makes a
    // descriptor that is nobody's yet.
    unsafe { descriptor(bpf(OBJ_GET, &mut attributes)?) }
}

/// What kind of map a descriptor is: `struct bpf_map_info`, as far as it concerns us.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapShape {
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// The kernel's number of the map.
    pub id: u32,
    /// Bytes of a key.
    pub key_bytes: u32,
    /// Bytes of a value.
    pub value_bytes: u32,
    /// Entries at most.
    pub entries_max: u32,
    /// The flags it was made with.
    pub flags: u32,
}

/// The shape of a map.
///
/// # Errors
/// As bpf(2); also where the descriptor is something else than a map.
pub fn map_shape(map: BorrowedFd<'_>) -> io::Result<MapShape> {
    // What a program or a link says of itself is told apart by what links in /proc say.
    let name = std::fs::read_link(format!("/proc/self/fd/{}", map.as_raw_fd()))?;
    if !name.to_string_lossy().contains("bpf-map") {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is {}, not a map", name.display()),
        ));
    }
    info(map)
}

/// What the kernel tells of an object, cut to the size of `T`.
#[expect(unsafe_code, reason = "a system call")]
pub(crate) fn info<T: Default>(object: BorrowedFd<'_>) -> io::Result<T> {
    let mut info = T::default();
    let mut attributes = InfoAttributes {
        descriptor: number(object.as_raw_fd()),
        length: u32::try_from(size_of::<T>()).unwrap_or(0),
        info: address(std::ptr::from_mut(&mut info)),
    };
    // SAFETY: `info` has `length` bytes, and any bytes are a value of the plain numbers in it.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes)? };
    Ok(info)
}
