use std::fmt;

use super::attributes as attr;
use crate::attribute::{self, Detail, attributes};
use crate::writer::Writer;

/// What IPVS says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its version, the same 1.2.1 for all kernels of these years.
    pub version: Version,
    /// Buckets of the connection table, of the kernel's or the module's configuration; it does
    /// not limit the connections.
    pub connection_buckets: u32,
}

/// A version of IPVS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Major, minor and patch number.
    pub numbers: [u8; 3],
}

/// `1.2.1`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl Info {
    pub(super) fn read(message: &[u8]) -> Result<Self, Detail> {
        let number = |kind, what: &str| {
            let value = attribute::find(message, kind)?.ok_or_else(|| format!("no {what}"))?;
            attribute::u32_native(value, what)
        };
        let [_, major, minor, patch] =
            number(attr::INFO_VERSION, "IPVS_INFO_ATTR_VERSION")?.to_be_bytes();
        Ok(Self {
            version: Version {
                numbers: [major, minor, patch],
            },
            connection_buckets: number(attr::INFO_CONN_TAB_SIZE, "IPVS_INFO_ATTR_CONN_TAB_SIZE")?,
        })
    }
}

/// How long connections are remembered without packets, in seconds, for all services of a
/// network namespace.
///
/// Read: `None` where the kernel was built without the protocol. Written: `None`, as 0, leaves
/// what is there; the kernel takes up to `i32::MAX` jiffies, 24 days at 1000 a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP connections.
    pub tcp: Option<u32>,
    /// TCP connections after a FIN.
    pub tcp_fin: Option<u32>,
    /// UDP.
    pub udp: Option<u32>,
}

/// `tcp 900 s, tcp fin -, udp 300 s`: `-` for what is left as it is.
impl fmt::Display for Timeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |seconds: Option<u32>| match seconds {
            Some(seconds) => format!("{seconds} s"),
            None => "-".to_owned(),
        };
        let (tcp, fin, udp) = (shown(self.tcp), shown(self.tcp_fin), shown(self.udp));
        write!(f, "tcp {tcp}, tcp fin {fin}, udp {udp}")
    }
}

impl Timeouts {
    pub(super) fn write(&self, writer: &mut Writer) {
        let pairs = [
            (attr::CMD_TIMEOUT_TCP, self.tcp),
            (attr::CMD_TIMEOUT_TCP_FIN, self.tcp_fin),
            (attr::CMD_TIMEOUT_UDP, self.udp),
        ];
        for (kind, seconds) in pairs {
            if let Some(seconds) = seconds {
                writer.u32_native(kind, seconds);
            }
        }
    }

    pub(super) fn read(message: &[u8]) -> Result<Self, Detail> {
        let mut timeouts = Self::default();
        for attribute in attributes(message) {
            let (kind, value) = attribute?;
            let place = match kind {
                attr::CMD_TIMEOUT_TCP => &mut timeouts.tcp,
                attr::CMD_TIMEOUT_TCP_FIN => &mut timeouts.tcp_fin,
                attr::CMD_TIMEOUT_UDP => &mut timeouts.udp,
                _ => continue,
            };
            *place = Some(attribute::u32_native(value, "a time-out")?);
        }
        Ok(timeouts)
    }
}
