//! Links: a program's place at a hook.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::object::{info, open_pinned, pin};
use crate::syscall::{LINK_CREATE, LINK_DETACH, LINK_UPDATE, bpf, descriptor, number};

/// Where at its target a program is attached (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttachType {
    /// connect on an IPv4 socket.
    Connect4,
    /// connect on an IPv6 socket.
    Connect6,
    /// sendmsg on an unconnected UDP socket, IPv4.
    SendMsg4,
    /// The same for IPv6.
    SendMsg6,
    /// recvmsg on a UDP socket, IPv4.
    RecvMsg4,
    /// The same for IPv6.
    RecvMsg6,
    /// getpeername, IPv4.
    GetPeerName4,
    /// The same for IPv6.
    GetPeerName6,
    /// A socket is closed (Linux 5.9).
    SockRelease,
    /// Packets that come in from a device (Linux 6.6).
    TcxIngress,
    /// Packets that go out to a device (Linux 6.6).
    TcxEgress,
}

impl AttachType {
    const fn number(self) -> u32 {
        match self {
            Self::Connect4 => 10,
            Self::Connect6 => 11,
            Self::SendMsg4 => 14,
            Self::SendMsg6 => 15,
            Self::RecvMsg4 => 19,
            Self::RecvMsg6 => 20,
            Self::GetPeerName4 => 29,
            Self::GetPeerName6 => 30,
            Self::SockRelease => 34,
            Self::TcxIngress => 46,
            Self::TcxEgress => 47,
        }
    }
}

/// What a program is attached to.
#[derive(Clone, Copy, Debug)]
pub enum LinkTarget<'a> {
    /// An open cgroup2 directory.
    Cgroup(BorrowedFd<'a>),
    /// A network device by its index, in the caller's network namespace.
    Device(u32),
}

/// A program's place at a hook. It stays while the link is open or pinned.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// `struct bpf_link_info`, as far as it concerns us.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkInfo {
    /// `enum bpf_link_type`.
    pub kind: u32,
    /// The kernel's number of the link.
    pub id: u32,
    /// The kernel's number of the program.
    pub program: u32,
    padding: u32,
    /// The device (its low half), 0 once the device is gone; or the cgroup's number.
    pub target: u64,
    rest: [u64; 2],
}

impl LinkInfo {
    /// The index of the device a tcx link is at; 0 once that is gone.
    #[must_use]
    pub fn device(&self) -> u32 {
        let [a, b, c, d, ..] = self.target.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }
}

#[repr(C)]
struct CreateAttributes {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct UpdateAttributes {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

impl Link {
    /// Attaches a program (cgroups: Linux 5.7, devices: Linux 6.6).
    ///
    /// # Errors
    /// As bpf(2): EINVAL where the kernel does not know the kind of link.
    #[expect(unsafe_code, reason = "a system call")]
    pub fn create(
        program: BorrowedFd<'_>,
        target: LinkTarget<'_>,
        attach_type: AttachType,
    ) -> io::Result<Self> {
        let mut attributes = CreateAttributes {
            program: number(program.as_raw_fd()),
            target: match target {
                LinkTarget::Cgroup(directory) => number(directory.as_raw_fd()),
                LinkTarget::Device(index) => index,
            },
            attach_type: attach_type.number(),
            flags: 0,
        };
        // SAFETY: numbers only; the command makes a descriptor that is nobody's yet.
        unsafe { descriptor(bpf(LINK_CREATE, &mut attributes)?) }.map(Self)
    }

    /// Opens a pinned link.
    ///
    /// # Errors
    /// As bpf(2): nothing is there, or it is no link.
    pub fn open(path: &Path) -> io::Result<Self> {
        let link = Self(open_pinned(path)?);
        let name = std::fs::read_link(format!("/proc/self/fd/{}", link.0.as_raw_fd()))?;
        // `bpf_link` up to Linux 6.8, `bpf-link` then.
        let kind = name.to_string_lossy().replace('_', "-");
        if !kind.contains("bpf-link") {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it is {}, not a link", name.display()),
            ));
        }
        Ok(link)
    }

    /// Puts another program in place of the one that is there, at once.
    ///
    /// # Errors
    /// As bpf(2): ENOLINK or EINVAL where the target is gone.
    #[expect(unsafe_code, reason = "a system call")]
    pub fn update(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attributes = UpdateAttributes {
            link: number(self.0.as_raw_fd()),
            program: number(program.as_raw_fd()),
            flags: 0,
            old_program: 0,
        };
        // SAFETY: numbers only.
        unsafe { bpf(LINK_UPDATE, &mut attributes) }.map(drop)
    }

    /// Takes the program away from its target, at once and whoever else holds the link (Linux 5.9).
    /// Of a link that only loses its last name or descriptor the kernel does so a moment later.
    ///
    /// # Errors
    /// As bpf(2).
    #[expect(unsafe_code, reason = "a system call")]
    pub fn detach(&self) -> io::Result<()> {
        let mut attributes = number(self.0.as_raw_fd());
        // SAFETY: a number only.
        unsafe { bpf(LINK_DETACH, &mut attributes) }.map(drop)
    }

    /// Gives it a name, by which it stays attached when the process ends.
    ///
    /// # Errors
    /// As [`pin`].
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.0.as_fd(), path)
    }

    /// What the kernel tells of it.
    ///
    /// # Errors
    /// As bpf(2).
    pub fn info(&self) -> io::Result<LinkInfo> {
        info(self.0.as_fd())
    }
}
