use std::fmt;

use super::error::IpvsError;

/// Longest name of a scheduler, in bytes (`IP_VS_SCHEDNAME_MAXLEN` without its NUL).
pub const SCHEDULER_BYTES_MAX: usize = 15;

/// The name of a scheduler: how IPVS chooses among the destinations of a service. A kernel may
/// have others than the [`SchedulerName::KNOWN`] ones, and need not have all of these.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SchedulerName {
    /// NUL behind the name.
    bytes: [u8; SCHEDULER_BYTES_MAX],
}

impl SchedulerName {
    /// What IPVS takes where nothing is wished: each in turn.
    pub const ROUND_ROBIN: Self = Self::known("rr");

    /// The schedulers of Linux, `mh` being the youngest (4.18), each in a module `ip_vs_NAME`
    /// that the kernel loads when a service asks for it.
    pub const KNOWN: [Self; 13] = [
        Self::ROUND_ROBIN,
        Self::known("wrr"),
        Self::known("lc"),
        Self::known("wlc"),
        Self::known("lblc"),
        Self::known("lblcr"),
        Self::known("dh"),
        Self::known("sh"),
        Self::known("sed"),
        Self::known("nq"),
        Self::known("fo"),
        Self::known("ovf"),
        Self::known("mh"),
    ];

    /// A scheduler by name; whether the kernel has it shows when a service is made.
    ///
    /// # Errors
    /// [`IpvsError::BadScheduler`]: empty, longer than [`SCHEDULER_BYTES_MAX`], or with other
    /// characters than ASCII letters, digits, `_` and `-` (the kernel makes the name of a module
    /// of it).
    pub fn new(name: &str) -> Result<Self, IpvsError> {
        let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let mut bytes = [0; SCHEDULER_BYTES_MAX];
        match bytes.get_mut(..name.len()) {
            Some(place) if !name.is_empty() && name.bytes().all(is_fine) => {
                place.copy_from_slice(name.as_bytes());
                Ok(Self { bytes })
            }
            _ => Err(IpvsError::BadScheduler {
                name: name.to_owned(),
            }),
        }
    }

    /// As the kernel wrote it.
    pub(super) fn read(name: &str) -> Result<Self, String> {
        Self::new(name).map_err(|error| error.to_string())
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "in constants only: a name that is too long does not compile"
    )]
    const fn known(name: &str) -> Self {
        let mut bytes = [0; SCHEDULER_BYTES_MAX];
        let mut at = 0;
        while at < name.len() {
            bytes[at] = name.as_bytes()[at];
            at += 1;
        }
        Self { bytes }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let name = self.bytes.split(|byte| *byte == 0).next();
        std::str::from_utf8(name.unwrap_or_default()).unwrap_or_default()
    }
}

impl fmt::Display for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SchedulerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept() {
        for name in ["rr", "lblcr", "a_name-15_bytes"] {
            assert_eq!(SchedulerName::new(name).unwrap().as_str(), name);
        }
        assert_eq!(
            SchedulerName::new("rr").unwrap(),
            SchedulerName::ROUND_ROBIN
        );
        let known: Vec<_> = SchedulerName::KNOWN.map(|name| name.to_string()).to_vec();
        assert_eq!(
            known.join(" "),
            "rr wrr lc wlc lblc lblcr dh sh sed nq fo ovf mh"
        );
    }

    #[test]
    fn what_cannot_be_a_module_is_refused() {
        for bad in ["", "a_name-16__bytes", "r r", "r\0r", "../rr", "rä"] {
            let error = SchedulerName::new(bad).unwrap_err();
            assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
        }
    }
}
