//! What a source says about the cluster, one step at a time and in order.

use std::fmt;

use crate::object::{Kind, Object, ObjectName};

/// One step of a source's account of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A full list of this kind begins: what it does not name by its end is gone.
    ListStarted(Kind),
    /// This object exists in this form: part of a list, or added or changed since.
    Upsert(Object),
    /// This object exists, but its new form could not be read. Its last good form, if
    /// there is one, stays.
    Unreadable(Kind, ObjectName, Problem),
    /// This object was read, with something in it left out or replaced.
    Odd(Kind, ObjectName, Problem),
    /// Part of the source's input could not be read, and can't be tied to an object (a file
    /// that is no YAML). Everything that was read from it before stays.
    Malformed(Problem),
    /// This object is gone.
    Remove(Kind, ObjectName),
    /// The list that began last for this kind is complete.
    ListDone(Kind),
    /// The source can't follow this kind right now (or, with `None`, can again). What is
    /// known stays; the source goes on trying.
    Trouble(Kind, Option<String>),
}

/// Something wrong with an object, in words for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was read: `file.yaml, document 3`, or empty for the API server.
    pub place: String,
    /// Path of the field: `spec.ports[1].port`.
    pub field: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}
