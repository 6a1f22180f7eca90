use std::io;
use std::path::PathBuf;

use aya::EbpfError as LoadError;
use aya::maps::MapError;
use aya::programs::ProgramError;

/// Lines of the verifier's log that an error shows: its end says why.
const VERIFIER_LINES: usize = 12;

/// Why eBPF could not be used or did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum EbpfError {
    /// Something of the system's.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The object file was not taken.
    #[error("loading the eBPF object: {0}")]
    Load(#[from] LoadError),
    /// A program was not taken.
    #[error("the kernel refuses the eBPF program {program}: {reason}")]
    Program {
        /// Which one.
        program: &'static str,
        /// What the kernel said, with the end of the verifier's log.
        reason: String,
    },
    /// A map was not read or written.
    #[error("eBPF map {map}: {source}")]
    Map {
        /// Which one.
        map: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// The object file lacks a map: a mistake in the build.
    #[error("the eBPF object has no usable map {name}: it was built from other sources")]
    NoSuchMap {
        /// Which one.
        name: &'static str,
    },
    /// The object file lacks a program: a mistake in the build.
    #[error("the eBPF object has no program {name}: it was built from other sources")]
    NoSuchProgram {
        /// Which one.
        name: &'static str,
    },
    /// All names for a pin are taken by things that are not ours.
    #[error(
        "{path} and {tries} names like it are taken by things that are not ours; remove them, or \
         give another --bpf-root"
    )]
    PinsTaken {
        /// The first name.
        path: PathBuf,
        /// How many others were tried.
        tries: usize,
    },
    /// The kernel does not say which network namespace is the node's.
    #[error(
        "--ebpf-host-namespace-only needs Linux 5.14, which tells network namespaces apart \
         (SO_NETNS_COOKIE)"
    )]
    HostNamespaceUnknown,
    /// More than the maps can ever hold.
    #[error("{needed} {what} are needed, and ebpf mode has room for {limit}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many are needed.
        needed: u64,
        /// How many there may be.
        limit: u64,
    },
}

impl EbpfError {
    /// A map's error, with the map's name.
    pub(super) const fn map(map: &'static str, source: MapError) -> Self {
        Self::Map { map, source }
    }

    /// A system call's error, with what it was for.
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }

    /// A program's error, with as much of the verifier's log as helps.
    pub(super) fn program(program: &'static str, error: &ProgramError) -> Self {
        let reason = match error {
            ProgramError::LoadError {
                io_error,
                verifier_log,
            } => {
                let log = verifier_log.to_string();
                let lines: Vec<&str> = log.lines().filter(|line| !line.is_empty()).collect();
                let from = lines.len().saturating_sub(VERIFIER_LINES);
                let end = lines.get(from..).unwrap_or_default().join("\n  ");
                format!("{io_error}\n  {end}")
            }
            other => other.to_string(),
        };
        Self::Program { program, reason }
    }
}
