//! `recvmmsg` and `sendmmsg`, the only unsafe code of this crate.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::ptr;

use super::UdpSocket;

/// Packets received by one system call.
pub(super) const BATCH_PACKETS: usize = 32;
/// The largest query taken; a larger one is malformed or an attack.
pub(super) const QUERY_OCTETS_MAX: usize = 4096;
/// Room for one address of the receiving interface (PKTINFO), and to spare.
const CONTROL_OCTETS: usize = 64;

/// The address a packet was sent to, where the socket tells, and by which interface it
/// came: what a reply must be sent from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrival {
    info: Option<(IpAddr, u32)>,
}

impl Arrival {
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.info.map(|(address, _)| address)
    }
}

/// One packet of a received batch.
pub(super) struct Packet<'a> {
    pub(super) octets: &'a [u8],
    /// As the socket says it: IPv4 clients of a dual-stack socket are mapped.
    pub(super) source: SocketAddr,
    pub(super) arrival: Arrival,
    /// It was longer than [`QUERY_OCTETS_MAX`].
    pub(super) cut: bool,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_OCTETS]);

/// Buffers for receiving; allocated once.
pub(super) struct Inbox {
    octets: Vec<[u8; QUERY_OCTETS_MAX]>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    /// `recvmmsg` is forbidden here (a seccomp profile): packets are taken one by one.
    one_by_one: bool,
}

impl Inbox {
    pub(super) fn new() -> Self {
        // SAFETY: all-zero is a valid value of these plain C structs.
        let (name, header): (libc::sockaddr_storage, libc::mmsghdr) = unsafe {
            (
                MaybeUninit::zeroed().assume_init(),
                MaybeUninit::zeroed().assume_init(),
            )
        };
        let iovec = libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            octets: vec![[0; QUERY_OCTETS_MAX]; BATCH_PACKETS],
            names: vec![name; BATCH_PACKETS],
            controls: vec![Control([0; CONTROL_OCTETS]); BATCH_PACKETS],
            iovecs: vec![iovec; BATCH_PACKETS],
            headers: vec![header; BATCH_PACKETS],
            one_by_one: false,
        }
    }

    fn prepare(&mut self, number: usize) {
        let parts = self.octets.iter_mut().zip(&mut self.names);
        let parts = parts.zip(&mut self.controls).zip(&mut self.iovecs);
        for (header, (((octets, name), control), iovec)) in
            self.headers.iter_mut().zip(parts).take(number)
        {
            iovec.iov_base = octets.as_mut_ptr().cast();
            iovec.iov_len = QUERY_OCTETS_MAX;
            let message = &mut header.msg_hdr;
            message.msg_name = ptr::from_mut(name).cast();
            message.msg_namelen = socklen(size_of::<libc::sockaddr_storage>());
            message.msg_iov = iovec;
            message.msg_iovlen = 1;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = CONTROL_OCTETS;
            message.msg_flags = 0;
        }
    }

    /// Sleeps until there is a packet, then takes all there are, up to
    /// [`BATCH_PACKETS`]. 0 after [`UdpSocket::wake`].
    pub(super) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        if self.one_by_one {
            return self.receive_one(socket);
        }
        self.prepare(BATCH_PACKETS);
        // SAFETY: `prepare` has just pointed each of the BATCH_PACKETS headers to its own
        // name, buffer and control space, whose lengths it set; all outlive the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                u32::try_from(BATCH_PACKETS).unwrap_or(1),
                libc::MSG_WAITFORONE,
                ptr::null_mut(),
            )
        };
        match usize::try_from(received) {
            Ok(number) => Ok(number),
            Err(_) => {
                let error = io::Error::last_os_error();
                if forbidden(&error) {
                    tracing::info!(%error, "recvmmsg is not allowed: packets are read one by one");
                    self.one_by_one = true;
                    return self.receive_one(socket);
                }
                Err(error)
            }
        }
    }

    fn receive_one(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.prepare(1);
        let Some(header) = self.headers.first_mut() else {
            return Ok(0);
        };
        // SAFETY: `prepare(1)` has pointed the first header to live buffers of the lengths
        // it names.
        let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header.msg_hdr, 0) };
        let length = u32::try_from(length).map_err(|_| io::Error::last_os_error())?;
        header.msg_len = length;
        Ok(1)
    }

    /// Packet `index` of those that [`Inbox::receive`] counted; `None` if its source is no
    /// internet address.
    pub(super) fn packet(&self, index: usize) -> Option<Packet<'_>> {
        let header = self.headers.get(index)?;
        let length = usize::try_from(header.msg_len).ok()?;
        let source = address_of(self.names.get(index)?)?;
        Some(Packet {
            octets: self.octets.get(index)?.get(..length)?,
            source,
            arrival: arrival_of(&header.msg_hdr),
            cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}

/// Replies of one batch, sent together.
#[derive(Default)]
pub(super) struct Outbox {
    octets: Vec<u8>,
    replies: Vec<Outgoing>,
    scratch: Vec<SendSlot>,
    headers: Vec<libc::mmsghdr>,
    one_by_one: bool,
}

struct Outgoing {
    start: usize,
    length: usize,
    to: SocketAddr,
    arrival: Arrival,
}

struct SendSlot {
    name: libc::sockaddr_storage,
    control: Control,
    iovec: libc::iovec,
}

// SAFETY: the raw pointers are only set and used within one call of `flush`.
unsafe impl Send for Outbox {}

impl Outbox {
    /// Adds a reply.
    pub(super) fn push(&mut self, octets: &[u8], to: SocketAddr, arrival: Arrival) {
        self.replies.push(Outgoing {
            start: self.octets.len(),
            length: octets.len(),
            to,
            arrival,
        });
        self.octets.extend_from_slice(octets);
    }

    /// Sends all; says how many the kernel did not take. Those are lost, as datagrams are.
    pub(super) fn flush(&mut self, socket: &UdpSocket) -> usize {
        if self.replies.is_empty() {
            return 0;
        }
        self.prepare();
        let lost = self.send(socket);
        self.replies.clear();
        self.octets.clear();
        lost
    }

    fn prepare(&mut self) {
        self.scratch.clear();
        self.headers.clear();
        for reply in &self.replies {
            let octets = self.octets.get(reply.start..reply.start + reply.length);
            let octets = octets.unwrap_or_default();
            self.scratch.push(SendSlot {
                name: storage_of(reply.to),
                control: Control([0; CONTROL_OCTETS]),
                iovec: libc::iovec {
                    iov_base: octets.as_ptr().cast_mut().cast(),
                    iov_len: octets.len(),
                },
            });
        }
        // The slots don't move any more: point to them.
        for (slot, reply) in self.scratch.iter_mut().zip(&self.replies) {
            // SAFETY: all-zero is a valid value of this plain C struct.
            let mut header: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
            let message = &mut header.msg_hdr;
            message.msg_name = ptr::from_mut(&mut slot.name).cast();
            message.msg_namelen = name_len(reply.to);
            message.msg_iov = &raw mut slot.iovec;
            message.msg_iovlen = 1;
            let used = write_arrival(&mut slot.control, reply);
            if used > 0 {
                message.msg_control = slot.control.0.as_mut_ptr().cast();
                message.msg_controllen = used;
            }
            self.headers.push(header);
        }
    }

    fn send(&mut self, socket: &UdpSocket) -> usize {
        let mut lost = 0;
        let mut from = 0;
        while let Some(rest) = self.headers.get_mut(from..)
            && !rest.is_empty()
        {
            match send_some(socket, rest, self.one_by_one) {
                Ok(sent) => from += sent.max(1),
                Err(error) if forbidden(&error) && !self.one_by_one => {
                    tracing::info!(%error, "sendmmsg is not allowed: replies are sent one by one");
                    self.one_by_one = true;
                }
                // Only the first of the rest has failed: the others get their try.
                Err(_) => (lost, from) = (lost + 1, from + 1),
            }
        }
        lost
    }
}

fn send_some(
    socket: &UdpSocket,
    headers: &mut [libc::mmsghdr],
    one_by_one: bool,
) -> io::Result<usize> {
    let fd = socket.as_raw_fd();
    if one_by_one {
        let Some(first) = headers.first() else {
            return Ok(0);
        };
        // SAFETY: the header points to the buffers that `prepare` laid out for it, alive.
        let sent = unsafe { libc::sendmsg(fd, &raw const first.msg_hdr, libc::MSG_DONTWAIT) };
        return if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(1)
        };
    }
    let number = u32::try_from(headers.len()).unwrap_or(u32::MAX);
    // SAFETY: `number` headers follow each other, each pointing to the buffers that `prepare`
    // laid out for it, which live in the Outbox.
    let sent = unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), number, libc::MSG_DONTWAIT) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// What a seccomp profile or an old kernel says.
fn forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS))
}

fn socklen(octets: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(octets).unwrap_or_default()
}

fn name_len(address: SocketAddr) -> libc::socklen_t {
    socklen(match address {
        SocketAddr::V4(_) => size_of::<libc::sockaddr_in>(),
        SocketAddr::V6(_) => size_of::<libc::sockaddr_in6>(),
    })
}

fn address_of(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel has written a sockaddr_in, which is
            // smaller than the storage and has no stricter alignment.
            let name = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let address = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddr::new(address.into(), u16::from_be(name.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let name = unsafe { &*ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            Some(SocketAddr::V6(SocketAddrV6::new(
                Ipv6Addr::from(name.sin6_addr.s6_addr),
                u16::from_be(name.sin6_port),
                name.sin6_flowinfo,
                name.sin6_scope_id,
            )))
        }
        _ => None,
    }
}

fn storage_of(address: SocketAddr) -> libc::sockaddr_storage {
    // SAFETY: all-zero is a valid value of this plain C struct.
    let mut storage: libc::sockaddr_storage = unsafe { MaybeUninit::zeroed().assume_init() };
    match address {
        SocketAddr::V4(address) => {
            // SAFETY: sockaddr_storage is large and aligned enough for every sockaddr.
            let name = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in>() };
            name.sin_family = family(libc::AF_INET);
            name.sin_port = address.port().to_be();
            name.sin_addr.s_addr = u32::from(*address.ip()).to_be();
        }
        SocketAddr::V6(address) => {
            // SAFETY: as above.
            let name = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in6>() };
            name.sin6_family = family(libc::AF_INET6);
            name.sin6_port = address.port().to_be();
            name.sin6_flowinfo = address.flowinfo();
            name.sin6_addr.s6_addr = address.ip().octets();
            name.sin6_scope_id = address.scope_id();
        }
    }
    storage
}

fn family(family: i32) -> libc::sa_family_t {
    libc::sa_family_t::try_from(family).unwrap_or_default()
}

/// What IP_PKTINFO or IPV6_PKTINFO say of a received message.
fn arrival_of(message: &libc::msghdr) -> Arrival {
    // SAFETY: the kernel has filled in msg_control and msg_controllen of this header, and the
    // CMSG macros stay within them; the data of each kind is read unaligned.
    unsafe {
        let mut at = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = at.as_ref() {
            let data = libc::CMSG_DATA(at);
            match (header.cmsg_level, header.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    let address = Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr));
                    let index = u32::try_from(info.ipi_ifindex).unwrap_or_default();
                    return Arrival {
                        info: Some((address.into(), index)),
                    };
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    let address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    let index = info.ipi6_ifindex;
                    return Arrival {
                        info: Some((address.into(), index)),
                    };
                }
                _ => at = libc::CMSG_NXTHDR(message, at),
            }
        }
    }
    Arrival::default()
}

/// Writes the control message that makes a reply leave from where its query arrived; says
/// how many octets it takes.
fn write_arrival(control: &mut Control, reply: &Outgoing) -> usize {
    let Some((address, interface)) = reply.arrival.info else {
        return 0;
    };
    match address {
        IpAddr::V4(address) => {
            let info = libc::in_pktinfo {
                // 0: the route decides; the address is what matters.
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from(address).to_be(),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            write_control(control, libc::IPPROTO_IP, libc::IP_PKTINFO, info)
        }
        IpAddr::V6(address) => {
            // Link-local addresses are only good on their interface.
            let index = if address.is_unicast_link_local() {
                interface
            } else {
                0
            };
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: address.octets(),
                },
                ipi6_ifindex: index,
            };
            write_control(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info)
        }
    }
}

fn write_control<T>(control: &mut Control, level: i32, kind: i32, data: T) -> usize {
    let length = u32::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, total) = unsafe { (libc::CMSG_SPACE(length), libc::CMSG_LEN(length)) };
    let (Ok(space), Ok(total)) = (usize::try_from(space), usize::try_from(total)) else {
        return 0;
    };
    if space > CONTROL_OCTETS {
        return 0;
    }
    let header: *mut libc::cmsghdr = control.0.as_mut_ptr().cast();
    // SAFETY: the buffer is aligned for cmsghdr (align(8)), and header and data together are
    // CMSG_SPACE octets, which was checked to fit.
    unsafe {
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = total;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(data);
    }
    space
}
