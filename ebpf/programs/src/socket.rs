//! Programs at the socket, attached to a cgroup: connect, sendmsg, recvmsg, getpeername.

use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval};
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use switchyard_datapath::layout::{Address, Connected, SocketRecord, TCP, UDP};
use switchyard_datapath::socket::{
    Call, Outcome, Socket, left_alone, restore, restore_connected, translate,
};

use crate::globals::has_set_retval;
use crate::maps::{CONNECTED, KernelMaps, SOCKETS, is_opted_out};

const ALLOW: i32 = 1;
const DENY: i32 = 0;
const ECONNREFUSED: i32 = 111;

#[cgroup_sock_addr(connect4)]
fn connect4(context: SockAddrContext) -> i32 {
    call(Caller::V4(&context), false)
}

#[cgroup_sock_addr(connect6)]
fn connect6(context: SockAddrContext) -> i32 {
    call(Caller::V6(&context), false)
}

#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(context: SockAddrContext) -> i32 {
    call(Caller::V4(&context), true)
}

#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(context: SockAddrContext) -> i32 {
    call(Caller::V6(&context), true)
}

#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(context: SockAddrContext) -> i32 {
    peer(Caller::V4(&context), true)
}

#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(context: SockAddrContext) -> i32 {
    peer(Caller::V6(&context), true)
}

#[cgroup_sock_addr(getpeername4)]
fn getpeername4(context: SockAddrContext) -> i32 {
    peer(Caller::V4(&context), false)
}

#[cgroup_sock_addr(getpeername6)]
fn getpeername6(context: SockAddrContext) -> i32 {
    peer(Caller::V6(&context), false)
}

/// A socket is closed: what is remembered outside of it goes.
#[cgroup_sock(sock_release)]
fn sock_release(context: SockContext) -> i32 {
    // SAFETY: the context of this very call, and a field of it.
    unsafe {
        let protocol = (*context.sock).protocol;
        if protocol == u32::from(TCP) || protocol == u32::from(UDP) {
            forget_connected(bpf_get_socket_cookie(context.sock.cast()));
        }
    }
    ALLOW
}

/// A call's socket and address, by family.
enum Caller<'a> {
    V4(&'a SockAddrContext),
    V6(&'a SockAddrContext),
}

#[inline(always)]
fn call(mut caller: Caller<'_>, is_send: bool) -> i32 {
    let Some(protocol) = caller.protocol() else {
        return ALLOW;
    };
    let (address, port) = caller.address();
    let call = Call {
        address,
        port,
        protocol,
        is_send,
    };
    match translate(&KernelMaps::at(0), &mut caller, &call) {
        Outcome::Untouched => {
            left_alone(&mut caller, &call);
            ALLOW
        }
        Outcome::To(endpoint) => {
            #[cfg(feature = "log")]
            crate::log::translated(&call, &endpoint);
            caller.set_address(&endpoint.address, endpoint.port);
            ALLOW
        }
        Outcome::Refuse => {
            if has_set_retval() {
                // SAFETY: takes and returns a number.
                unsafe { bpf_set_retval(-ECONNREFUSED) };
            }
            DENY
        }
        Outcome::Deny => DENY,
    }
}

/// Shows the VIP in place of the endpoint: to recvmsg first what the socket sent to without being
/// connected, then what it is connected to.
#[inline(always)]
fn peer(mut caller: Caller<'_>, is_receive: bool) -> i32 {
    let (address, port) = caller.address();
    if is_receive {
        // SAFETY: the socket of the call, which the kernel holds; null or in its own storage.
        let record = unsafe { SOCKETS.get_ptr_mut(caller.context()).as_ref() };
        if let Some(record) = record
            && let Some((vip, vip_port)) = restore(record, &address, port)
        {
            caller.set_address(&vip, vip_port);
            return ALLOW;
        }
        if !caller.is_connected() {
            return ALLOW;
        }
    }
    let cookie = caller.cookie();
    // SAFETY: an element is replaced as a whole, and never reused under a reader.
    let connected = CONNECTED.get_ptr(&cookie).map(|to| unsafe { &*to });
    if let Some(to) = connected
        && let Some((vip, vip_port)) = restore_connected(to, &address, port)
    {
        caller.set_address(&vip, vip_port);
    }
    ALLOW
}

/// Looking is cheaper than removing, and most sockets have nothing to remove.
#[inline(always)]
fn forget_connected(cookie: u64) {
    if CONNECTED.get_ptr(&cookie).is_some() {
        let _ = CONNECTED.remove(&cookie);
    }
}

impl Caller<'_> {
    #[inline(always)]
    const fn context(&self) -> &SockAddrContext {
        match self {
            Self::V4(context) | Self::V6(context) => context,
        }
    }

    #[inline(always)]
    fn cookie(&self) -> u64 {
        // SAFETY: the context of this very call.
        unsafe { bpf_get_socket_cookie(self.context().sock_addr.cast()) }
    }

    /// Whether its socket has a peer, as far as the kernel tells.
    #[inline(always)]
    fn is_connected(&self) -> bool {
        // SAFETY: fields of the kernel's context and of the socket of this very call.
        unsafe {
            let socket = (*self.context().sock_addr).__bindgen_anon_1.sk;
            socket.is_null() || (*socket).dst_port != 0
        }
    }

    #[inline(always)]
    fn protocol(&self) -> Option<u8> {
        // SAFETY: a field of the kernel's context.
        let protocol = unsafe { (*self.context().sock_addr).protocol };
        u8::try_from(protocol).ok()
    }

    #[inline(always)]
    fn address(&self) -> (Address, u16) {
        // SAFETY: fields of the kernel's context, each read by itself as the verifier wants.
        unsafe {
            let address = self.context().sock_addr;
            let port = core::ptr::addr_of!((*address).user_port).read_volatile() as u16;
            let ip = match self {
                Self::V4(_) => {
                    Address::v4(core::ptr::addr_of!((*address).user_ip4).read_volatile())
                }
                Self::V6(_) => {
                    let words = core::ptr::addr_of!((*address).user_ip6).cast::<u32>();
                    Address([
                        words.read_volatile(),
                        words.add(1).read_volatile(),
                        words.add(2).read_volatile(),
                        words.add(3).read_volatile(),
                    ])
                }
            };
            (ip, port)
        }
    }

    #[inline(always)]
    fn set_address(&mut self, to: &Address, port: u16) {
        // SAFETY: fields of the kernel's context that programs of this kind may write.
        unsafe {
            let address = self.context().sock_addr;
            match self {
                Self::V4(_) => {
                    core::ptr::addr_of_mut!((*address).user_ip4).write_volatile(to.v4_word());
                }
                Self::V6(_) => {
                    let words = core::ptr::addr_of_mut!((*address).user_ip6).cast::<u32>();
                    let [a, b, c, d] = to.words();
                    words.write_volatile(a);
                    words.add(1).write_volatile(b);
                    words.add(2).write_volatile(c);
                    words.add(3).write_volatile(d);
                }
            }
            core::ptr::addr_of_mut!((*address).user_port).write_volatile(u32::from(port));
        }
    }
}

impl Socket for Caller<'_> {
    #[inline(always)]
    fn namespace(&self) -> u64 {
        // SAFETY: the context of this very call.
        unsafe { bpf_get_netns_cookie(self.context().sock_addr.cast()) }
    }

    #[inline(always)]
    fn is_opted_out(&self, namespace: u64) -> bool {
        is_opted_out(namespace)
    }

    #[inline(always)]
    fn record(&mut self) -> Option<&mut SocketRecord> {
        // SAFETY: the socket of the call, which the kernel holds; the storage is null or lives
        // as long as the socket.
        unsafe { SOCKETS.get_or_insert_ptr_mut(self.context(), None).as_mut() }
    }

    #[inline(always)]
    fn known_record(&mut self) -> Option<&mut SocketRecord> {
        // SAFETY: as above.
        unsafe { SOCKETS.get_ptr_mut(self.context()).as_mut() }
    }

    #[inline(always)]
    fn connected(&self, to: Option<&Connected>) {
        // A full map costs the socket its peer's name, and being told when its endpoint goes; the
        // agent sees how full it is.
        match to {
            Some(to) => drop(CONNECTED.insert(self.cookie(), to, 0)),
            None => forget_connected(self.cookie()),
        }
    }
}
