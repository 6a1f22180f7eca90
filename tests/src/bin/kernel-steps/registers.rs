//! Where a system call's number, arguments and result are.

use nix::sys::ptrace::{getregs, setregs};
use nix::unistd::Pid;

/// The number and the first two arguments of the call a stopped thread is about to make.
pub(crate) struct Entry {
    pub(crate) number: i64,
    pub(crate) arguments: [u64; 2],
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn entry(thread: Pid) -> nix::Result<Entry> {
    let registers = getregs(thread)?;
    Ok(Entry {
        number: registers.orig_rax.cast_signed(),
        arguments: [registers.rdi, registers.rsi],
    })
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn set_first_argument(thread: Pid, value: u64) -> nix::Result<()> {
    let mut registers = getregs(thread)?;
    registers.rdi = value;
    setregs(thread, registers)
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn set_result(thread: Pid, value: i64) -> nix::Result<()> {
    let mut registers = getregs(thread)?;
    registers.rax = value.cast_unsigned();
    setregs(thread, registers)
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn entry(thread: Pid) -> nix::Result<Entry> {
    let registers = getregs(thread)?;
    Ok(Entry {
        number: registers.regs[8].cast_signed(),
        arguments: [registers.regs[0], registers.regs[1]],
    })
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn set_first_argument(thread: Pid, value: u64) -> nix::Result<()> {
    let mut registers = getregs(thread)?;
    registers.regs[0] = value;
    setregs(thread, registers)
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn set_result(thread: Pid, value: i64) -> nix::Result<()> {
    let mut registers = getregs(thread)?;
    registers.regs[0] = value.cast_unsigned();
    setregs(thread, registers)
}
