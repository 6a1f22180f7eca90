use std::io;

/// Why a netlink request was not carried out. `request` says in words what was asked and of
/// which object.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket for {subsystem}: {source}")]
    Open {
        /// Which part of the kernel it was to talk to.
        subsystem: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The request did not leave.
    #[error("{request}: cannot send the request to the kernel: {source}")]
    Send {
        /// What was asked.
        request: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The answer could not be taken.
    #[error("{request}: cannot receive the kernel's answer: {source}")]
    Receive {
        /// What was asked.
        request: String,
        /// The system's answer.
        source: io::Error,
    },
    /// No answer in time.
    #[error("{request}: the kernel gave no answer within {seconds} s")]
    Silent {
        /// What was asked.
        request: String,
        /// How long was waited.
        seconds: u64,
    },
    /// Answers were lost because the socket's receive buffer was full (`ENOBUFS`).
    #[error("{request}: answers were lost, the socket's receive buffer was full")]
    Overrun {
        /// What was asked.
        request: String,
    },
    /// The kernel said no.
    #[error("{request}: {}", errno_in_words(*code))]
    Refused {
        /// What was asked, and of which object.
        request: String,
        /// The errno, positive. Some families have their own above 4096.
        code: i32,
    },
    /// The answer is not what the protocol says.
    #[error("{request}: cannot read the kernel's answer: {detail}")]
    Malformed {
        /// What was asked.
        request: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A listing changed so much while it was read that it may be incomplete
    /// (`NLM_F_DUMP_INTR`). Asking again helps.
    #[error("{request}: it was changed by somebody else while it was being read; ask again")]
    Interrupted {
        /// What was asked.
        request: String,
    },
    /// The request does not fit into a message.
    #[error("{request}: the request is larger than a netlink message can be")]
    TooLarge {
        /// What was asked.
        request: String,
    },
}

impl NetlinkError {
    /// The errno, where the kernel refused the request.
    #[must_use]
    pub const fn refused_code(&self) -> Option<i32> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// What an errno of nfnetlink means for whoever operates the node.
pub(crate) fn errno_in_words(code: i32) -> String {
    use nix::errno::Errno;
    let errno = Errno::from_raw(code);
    let hint = match errno {
        Errno::EPERM | Errno::EACCES => {
            "not permitted; root or CAP_NET_ADMIN is needed in this network namespace"
        }
        Errno::ENOENT => "there is no such object",
        Errno::EEXIST => "an object of that name is already there",
        Errno::EBUSY => "it is in use",
        Errno::EINVAL => "the kernel takes the request for invalid, or lacks this family",
        Errno::EOPNOTSUPP | Errno::EPROTONOSUPPORT => "this kernel does not support it",
        Errno::ENOMEM => "the kernel has no memory for it",
        Errno::UnknownErrno => return format!("the kernel refused it with error {code}"),
        _ => errno.desc(),
    };
    format!("{hint} ({errno:?})")
}
