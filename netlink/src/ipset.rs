//! IP sets: create, fill, list, swap and destroy them.
//!
//! Source: `linux/netfilter/ipset/ip_set.h`, nfnetlink subsystem 6, protocol 6 (spoken by
//! every kernel since 3.1 and still by those that know 7). Needs CAP_NET_ADMIN.
//!
//! A set type is a [`SetType`] and an element of a set an [`Entry`]; a further type is a
//! variant of each and its attributes in `entry.rs`. Elements have no comments, counters or
//! time-outs; those that others gave to elements are not read.
//!
//! A set can't be given more room. [`Ipset::make_room`] fills a larger one and swaps the two;
//! there is no renaming, which the kernel refuses for a set that a rule uses.

#[cfg(any(test, fuzzing))]
pub(crate) mod any_bytes;
mod codec;
mod entry;
mod error;
#[cfg(test)]
mod properties;
mod set_type;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST};

use crate::error::NetlinkError;
use crate::nfnl::{Answer, NfnlSocket};
use crate::writer::Writer;
use codec::Command;

pub use codec::SetHeader;
pub use entry::{Entry, IpPort};
pub use error::IpsetError;
pub use set_type::{SetSpec, SetType};

const SUBSYSTEM_IPSET: u8 = 6;

/// Longest name of a set, in bytes (`IPSET_MAXNAMELEN` without its NUL).
pub const NAME_BYTES_MAX: usize = 31;
/// Elements in one message. A refusal echoes its whole message, which at 84 bytes for an IPv6
/// element of `hash:ip,port,net` stays below 20 KiB.
pub const ENTRIES_PER_MESSAGE_MAX: usize = 240;
/// Messages sent at once, so that even if all are refused the answers fit into the default
/// receive buffer of 208 KiB.
pub const MESSAGES_PER_SEND_MAX: usize = 4;
/// What is put behind a set's name for the set that is filled to take its place.
const REPLACEMENT_SUFFIX: &str = "~";

/// Talks to the sets of the network namespace it was opened in.
#[derive(Debug)]
pub struct Ipset {
    socket: NfnlSocket,
    writer: Writer,
}

impl Ipset {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`NetlinkError::Open`].
    pub fn open() -> Result<Self, IpsetError> {
        Ok(Self {
            socket: NfnlSocket::open(SUBSYSTEM_IPSET, "ipset")?,
            writer: Writer::new(),
        })
    }

    /// Creates an empty set.
    ///
    /// # Errors
    /// [`IpsetError::Exists`]; [`IpsetError::TypeUnknown`] where the kernel lacks the type;
    /// [`IpsetError::BadName`].
    pub fn create(&mut self, name: &str, spec: &SetSpec) -> Result<(), IpsetError> {
        error::check_name(name)?;
        let revision = self.type_revision(spec)?;
        let doing = format!("create the set {name}");
        self.command(
            Command::Create,
            NLM_F_CREATE | NLM_F_EXCL,
            name,
            &doing,
            |writer| {
                codec::write_create(writer, name, spec, revision);
            },
        )
    }

    /// The set as the kernel knows it, without its elements; `None` if there is none.
    ///
    /// # Errors
    /// Of the kernel only.
    pub fn header(&mut self, name: &str) -> Result<Option<SetHeader>, IpsetError> {
        error::check_name(name)?;
        let mut header = None;
        let found = self.list(Some(name), true, &mut |bytes| {
            header = Some(codec::read_header(bytes)?);
            Ok(())
        })?;
        Ok(header.filter(|_| found))
    }

    /// All sets of the network namespace, without their elements.
    ///
    /// # Errors
    /// Of the kernel only.
    pub fn headers(&mut self) -> Result<Vec<SetHeader>, IpsetError> {
        let mut headers = Vec::new();
        self.list(None, true, &mut |bytes| {
            headers.push(codec::read_header(bytes)?);
            Ok(())
        })?;
        Ok(headers)
    }

    /// Makes sure that the set is there with this type and family and room for at least
    /// `spec.max_elements`, or all ports of a bitmap's range; its elements stay. Returns true if it had to be created.
    ///
    /// # Errors
    /// [`IpsetError::TypeMismatch`] if a set of that name is of another type or family.
    pub fn ensure(&mut self, name: &str, spec: &SetSpec) -> Result<bool, IpsetError> {
        let Some(header) = self.header(name)? else {
            self.create(name, spec)?;
            return Ok(true);
        };
        error::check_type(name, spec, &header)?;
        if !header.has_room_of(spec) {
            let entries = self.entries(name)?;
            self.replace(name, spec, &entries)?;
        }
        Ok(false)
    }

    /// Makes room for so many elements in all, if `spec` has too little: a set of twice that
    /// size takes the place of the present one with all its elements, in one step. `spec` says
    /// the new size then. Returns true if the set had to be replaced.
    ///
    /// # Errors
    /// As [`Self::replace`]; the present set and `spec` are as they were.
    pub fn make_room(
        &mut self,
        name: &str,
        spec: &mut SetSpec,
        elements: usize,
    ) -> Result<bool, IpsetError> {
        let Some(grown) = spec.grown(elements) else {
            return Ok(false);
        };
        self.ensure(name, &grown)?;
        *spec = grown;
        Ok(true)
    }

    /// Adds elements; those already in the set are fine.
    ///
    /// # Errors
    /// [`IpsetError::Full`] once the set holds its `max_elements`; otherwise the first
    /// refusal, with its element. Elements before it in its message were added, those behind
    /// it were not.
    pub fn add(&mut self, name: &str, entries: &[Entry]) -> Result<(), IpsetError> {
        self.change(Command::Add, name, entries)
    }

    /// Removes elements; those not in the set are fine.
    ///
    /// # Errors
    /// The first refusal, with its element.
    pub fn remove(&mut self, name: &str, entries: &[Entry]) -> Result<(), IpsetError> {
        self.change(Command::Del, name, entries)
    }

    /// Whether the set has this element.
    ///
    /// # Errors
    /// [`IpsetError::Missing`] if there is no such set; [`IpsetError::BadEntry`].
    pub fn contains(&mut self, name: &str, entry: &Entry) -> Result<bool, IpsetError> {
        error::check_name(name)?;
        self.writer.clear();
        let head = self.head(Command::Test, NLM_F_ACK);
        self.writer
            .message(&head, |writer| codec::write_test(writer, name, entry));
        let doing = format!("look for an element in the set {name}");
        let asked = self
            .socket
            .request(&self.writer, head.sequence, &doing, |_, _, _| Ok(()));
        match asked.as_ref().map_err(NetlinkError::refused_code) {
            Ok(()) => Ok(true),
            Err(Some(error::ERR_EXIST)) => Ok(false),
            Err(Some(code)) => Err(IpsetError::from_change(code, &doing, name, Some(entry))),
            Err(None) => asked.map(|()| false).map_err(IpsetError::Refused),
        }
    }

    /// All elements, in the kernel's order, without those that no [`Entry`] says: of other
    /// protocols, or networks that are not to match. Adding such a network makes it match.
    ///
    /// # Errors
    /// [`IpsetError::Missing`] if there is no such set; [`IpsetError::TypeUnknown`] for a set
    /// of a type that is not in [`SetType`].
    pub fn entries(&mut self, name: &str) -> Result<Vec<Entry>, IpsetError> {
        let header = self
            .header(name)?
            .ok_or_else(|| IpsetError::missing(name))?;
        let set_type = header.set_type().ok_or(IpsetError::TypeUnknown {
            type_name: header.type_name,
        })?;
        let mut entries = Vec::new();
        let found = self.list(Some(name), false, &mut |bytes| {
            codec::read_entries(bytes, set_type, &mut entries)
        })?;
        if found {
            Ok(entries)
        } else {
            Err(IpsetError::missing(name))
        }
    }

    /// Puts a new set with exactly these elements in the place of the present one, or creates
    /// it. Rules that use the set never see it half filled.
    ///
    /// # Errors
    /// [`IpsetError::TypeMismatch`] if the present set is of another type or family: rules
    /// that use it would break. Then, as after every other error, the present set is as it was.
    pub fn replace(
        &mut self,
        name: &str,
        spec: &SetSpec,
        entries: &[Entry],
    ) -> Result<(), IpsetError> {
        let Some(header) = self.header(name)? else {
            self.create(name, spec)?;
            return self.add(name, entries);
        };
        error::check_type(name, spec, &header)?;
        let replacement = replacement_name(name);
        if self.header(&replacement)?.is_some() {
            self.destroy(&replacement)?; // left by somebody who was killed in the middle
        }
        self.create(&replacement, spec)?;
        let filled = self.add(&replacement, entries);
        let swapped = filled.and_then(|()| self.swap(&replacement, name));
        let destroyed = self.destroy(&replacement);
        swapped.and(destroyed)
    }

    /// Exchanges the contents of two sets of the same type and family in one step.
    ///
    /// # Errors
    /// [`IpsetError::Missing`], [`IpsetError::Refused`].
    pub fn swap(&mut self, first: &str, second: &str) -> Result<(), IpsetError> {
        error::check_name(first)?;
        error::check_name(second)?;
        let doing = format!("swap the sets {first} and {second}");
        self.command(Command::Swap, 0, first, &doing, |writer| {
            codec::write_swap(writer, first, second);
        })
    }

    /// Removes a set with its elements.
    ///
    /// # Errors
    /// [`IpsetError::InUse`] while a rule uses it; [`IpsetError::Missing`].
    pub fn destroy(&mut self, name: &str) -> Result<(), IpsetError> {
        error::check_name(name)?;
        let doing = format!("destroy the set {name}");
        // Without the flag, newer kernels take a missing set for destroyed.
        self.command(Command::Destroy, NLM_F_EXCL, name, &doing, |writer| {
            codec::write_name(writer, name);
        })
    }

    /// The newest revision of a type that both the kernel and we know.
    fn type_revision(&mut self, spec: &SetSpec) -> Result<u8, IpsetError> {
        let (type_name, family) = (spec.set_type.name(), spec.family);
        let doing = format!("ask for the set type {type_name} ({family})");
        self.writer.clear();
        let head = self.head(Command::Type, NLM_F_ACK);
        self.writer
            .message(&head, |writer| codec::write_type(writer, spec));
        let mut newest = None;
        self.socket
            .request(&self.writer, head.sequence, &doing, |_, _, bytes| {
                newest = codec::read_revision(bytes)?;
                Ok(())
            })
            .map_err(|error| IpsetError::from_type_query(error, spec))?;
        Ok(newest.map_or(0, |newest: u8| newest.min(spec.set_type.newest_revision())))
    }

    fn head(&mut self, command: Command, flags: u16) -> crate::writer::MessageHead {
        // The kernel takes the family from attributes; libipset says IPv4 here for all.
        self.socket.head(
            command.number(),
            NLM_F_REQUEST | flags,
            crate::Family::V4.number(),
        )
    }

    fn command(
        &mut self,
        command: Command,
        flags: u16,
        name: &str,
        doing: &str,
        body: impl FnOnce(&mut Writer),
    ) -> Result<(), IpsetError> {
        self.writer.clear();
        let head = self.head(command, flags | NLM_F_ACK);
        self.writer.message(&head, body);
        self.socket
            .request(&self.writer, head.sequence, &doing, |_, _, _| Ok(()))
            .map_err(|error| IpsetError::from_command(error, name))
    }

    /// Dumps one set or all; false if there is none.
    fn list(
        &mut self,
        name: Option<&str>,
        header_only: bool,
        on_set: &mut dyn FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<bool, IpsetError> {
        name.map_or(Ok(()), error::check_name)?;
        self.writer.clear();
        let head = self.head(Command::List, NLM_F_DUMP);
        self.writer
            .message(&head, |writer| codec::write_list(writer, name, header_only));
        let doing = match name {
            Some(name) => format!("list the set {name}"),
            None => "list the sets".to_owned(),
        };
        let result = self
            .socket
            .request(&self.writer, head.sequence, &doing, |_, _, bytes| {
                on_set(bytes)
            });
        match result {
            Ok(()) => Ok(true),
            Err(error) if error.refused_code() == Some(nix::libc::ENOENT) => Ok(false),
            Err(error) => Err(IpsetError::from_command(error, name.unwrap_or("(all)"))),
        }
    }

    fn change(
        &mut self,
        command: Command,
        name: &str,
        entries: &[Entry],
    ) -> Result<(), IpsetError> {
        error::check_name(name)?;
        for part in entries.chunks(ENTRIES_PER_MESSAGE_MAX * MESSAGES_PER_SEND_MAX) {
            self.send_changes(command, name, part)?;
        }
        Ok(())
    }

    fn send_changes(
        &mut self,
        command: Command,
        name: &str,
        entries: &[Entry],
    ) -> Result<(), IpsetError> {
        self.writer.clear();
        let mut last = None;
        for (index, part) in entries.chunks(ENTRIES_PER_MESSAGE_MAX).enumerate() {
            let first_line = index * ENTRIES_PER_MESSAGE_MAX;
            let head = self.head(command, NLM_F_ACK);
            self.writer.message(&head, |writer| {
                codec::write_change(writer, name, part, first_line);
            });
            last = Some(head.sequence);
        }
        let Some(last) = last else { return Ok(()) };
        let doing = format!(
            "{} {} elements of the set {name}",
            command.verb(),
            entries.len()
        );
        let mut refused = None;
        self.socket
            .exchange(&self.writer, last, &doing, &mut |answer| {
                if let Answer::Refused { code, original, .. } = answer {
                    refused.get_or_insert((code, codec::read_failed_line(original)));
                }
                Ok(())
            })?;
        let Some((code, line)) = refused else {
            return Ok(());
        };
        let entry = line.and_then(|line| entries.get(line));
        Err(IpsetError::from_change(code, &doing, name, entry))
    }
}

/// The name under which a set's successor is filled.
fn replacement_name(name: &str) -> String {
    let room = NAME_BYTES_MAX - REPLACEMENT_SUFFIX.len();
    let mut replacement: String = name.to_owned();
    while replacement.len() > room {
        replacement.pop();
    }
    replacement + REPLACEMENT_SUFFIX
}

impl From<NetlinkError> for IpsetError {
    fn from(error: NetlinkError) -> Self {
        Self::Refused(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_name_fits_and_differs() {
        assert_eq!(replacement_name("KUBE-IPVS-IPS"), "KUBE-IPVS-IPS~");
        let long = "K".repeat(NAME_BYTES_MAX);
        assert_eq!(replacement_name(&long), "K".repeat(30) + "~");
    }
}
