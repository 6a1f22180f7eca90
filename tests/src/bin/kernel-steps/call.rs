//! Which system calls are steps.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::libc;
use nix::unistd::Pid;

use super::registers::Entry;

/// Commands of bpf(2) by their number (`enum bpf_cmd`).
const COMMANDS: [&str; 36] = [
    "MAP_CREATE",
    "MAP_LOOKUP_ELEM",
    "MAP_UPDATE_ELEM",
    "MAP_DELETE_ELEM",
    "MAP_GET_NEXT_KEY",
    "PROG_LOAD",
    "OBJ_PIN",
    "OBJ_GET",
    "PROG_ATTACH",
    "PROG_DETACH",
    "PROG_TEST_RUN",
    "PROG_GET_NEXT_ID",
    "MAP_GET_NEXT_ID",
    "PROG_GET_FD_BY_ID",
    "MAP_GET_FD_BY_ID",
    "OBJ_GET_INFO_BY_FD",
    "PROG_QUERY",
    "RAW_TRACEPOINT_OPEN",
    "BTF_LOAD",
    "BTF_GET_FD_BY_ID",
    "TASK_FD_QUERY",
    "MAP_LOOKUP_AND_DELETE_ELEM",
    "MAP_FREEZE",
    "BTF_GET_NEXT_ID",
    "MAP_LOOKUP_BATCH",
    "MAP_LOOKUP_AND_DELETE_BATCH",
    "MAP_UPDATE_BATCH",
    "MAP_DELETE_BATCH",
    "LINK_CREATE",
    "LINK_UPDATE",
    "LINK_GET_FD_BY_ID",
    "LINK_GET_NEXT_ID",
    "ENABLE_STATS",
    "ITER_CREATE",
    "LINK_DETACH",
    "PROG_BIND_MAP",
];
/// Those that change nothing anybody else could see.
const QUESTIONS: [&str; 17] = [
    "MAP_LOOKUP_ELEM",
    "MAP_GET_NEXT_KEY",
    "OBJ_GET",
    "PROG_TEST_RUN",
    "PROG_GET_NEXT_ID",
    "MAP_GET_NEXT_ID",
    "PROG_GET_FD_BY_ID",
    "MAP_GET_FD_BY_ID",
    "OBJ_GET_INFO_BY_FD",
    "PROG_QUERY",
    "BTF_GET_FD_BY_ID",
    "TASK_FD_QUERY",
    "BTF_GET_NEXT_ID",
    "MAP_LOOKUP_BATCH",
    "LINK_GET_FD_BY_ID",
    "LINK_GET_NEXT_ID",
    "ITER_CREATE",
];
/// What is sent to netlink sockets, questions but those for lists included. Counted only where it
/// is asked for by this name.
pub(crate) const NETLINK: &str = "netlink";
/// Of `linux/netlink.h`: the longest message that is taken for one, and bits of its flags.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;

/// Bytes of a path that are read.
const PATH_BYTES: usize = 256;

/// A call that may be a step.
pub(crate) struct Call {
    pub(crate) name: &'static str,
    /// The path it is about, where it is about one.
    pub(crate) path: String,
    /// It only asks.
    pub(crate) is_question: bool,
    /// Made by bpf(2), so that it can be made to fail.
    pub(crate) is_bpf: bool,
}

impl Call {
    /// What a thread is about to do, if it concerns us.
    pub(crate) fn of(thread: Pid, entry: &Entry) -> Option<Self> {
        let [first, second] = entry.arguments;
        if entry.number == libc::SYS_bpf {
            let name = COMMANDS.get(usize::try_from(first & 0xffff_ffff).ok()?)?;
            let path = match *name {
                "OBJ_PIN" | "OBJ_GET" => word(thread, second).map(|at| text(thread, at)),
                _ => None,
            };
            return Some(Self {
                name,
                path: path.unwrap_or_default(),
                is_question: QUESTIONS.contains(name),
                is_bpf: true,
            });
        }
        if entry.number == libc::SYS_membarrier {
            return Some(Self {
                name: "membarrier",
                path: String::new(),
                is_question: false,
                is_bpf: false,
            });
        }
        if entry.number == libc::SYS_sendto {
            let flags = netlink_flags(thread, second)?;
            return Some(Self {
                name: NETLINK,
                path: String::new(),
                is_question: flags & DUMP == DUMP,
                is_bpf: false,
            });
        }
        let (name, path) = of_file(entry.number, first, second)?;
        Some(Self {
            name,
            path: text(thread, path),
            is_question: false,
            is_bpf: false,
        })
    }
}

/// The name, and where the path is, of a call that makes or removes a name.
fn of_file(number: i64, first: u64, second: u64) -> Option<(&'static str, u64)> {
    #[cfg(target_arch = "x86_64")]
    match number {
        libc::SYS_unlink => return Some(("unlink", first)),
        libc::SYS_mkdir => return Some(("mkdir", first)),
        libc::SYS_rmdir => return Some(("rmdir", first)),
        _ => {}
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = first;
    match number {
        libc::SYS_unlinkat => Some(("unlinkat", second)),
        libc::SYS_mkdirat => Some(("mkdirat", second)),
        _ => None,
    }
}

/// The flags of what begins like a message of netlink: its length, kind and flags.
fn netlink_flags(thread: Pid, at: u64) -> Option<u16> {
    let header = word(thread, at)?.to_ne_bytes();
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
    let flags = u16::from_ne_bytes([header[6], header[7]]);
    let is_message = (16..=MESSAGE_BYTES_MAX).contains(&length) && flags & REQUEST != 0;
    is_message.then_some(flags)
}

fn memory(thread: Pid, at: u64, bytes: &mut [u8]) -> std::io::Result<usize> {
    File::open(format!("/proc/{thread}/mem"))?.read_at(bytes, at)
}

fn word(thread: Pid, at: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    (memory(thread, at, &mut bytes).ok()? == bytes.len()).then(|| u64::from_ne_bytes(bytes))
}

fn text(thread: Pid, at: u64) -> String {
    let mut bytes = [0; PATH_BYTES];
    let length = memory(thread, at, &mut bytes).unwrap_or(0);
    let text = bytes[..length].split(|byte| *byte == 0).next();
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}
