use super::{Class, Name, Rtype};

/// What is asked: a name, also in lower case, a type and a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    name: Name,
    lower: Name,
    /// The type asked for.
    pub rtype: Rtype,
    /// The class, nearly always IN.
    pub class: Class,
}

impl Question {
    /// A question of class IN.
    #[must_use]
    pub fn new(name: Name, rtype: Rtype) -> Self {
        Self {
            lower: name.to_lower(),
            name,
            rtype,
            class: Class::IN,
        }
    }

    /// The name in the case it was asked in.
    #[must_use]
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The name in lower case, for comparisons.
    #[must_use]
    pub const fn lower(&self) -> &Name {
        &self.lower
    }

    /// Asks for another name.
    pub fn set_name(&mut self, name: &Name) {
        self.name.set(name);
        self.lower.set_lower(name);
    }

    /// Becomes a copy of `other`, octet for octet and no more.
    pub fn set(&mut self, other: &Self) {
        self.name.set(&other.name);
        self.lower.set(&other.lower);
        (self.rtype, self.class) = (other.rtype, other.class);
    }

    /// Octets of the question section.
    #[must_use]
    pub fn wire_len(&self) -> usize {
        self.name.wire_len() + 4
    }

    /// Reads the question at `at`; says where it ends.
    pub(crate) fn read(&mut self, message: &[u8], at: usize) -> Option<usize> {
        let length = self.name.set_plain(message.get(at..)?).ok()?;
        let end = at + length;
        self.rtype = Rtype(super::u16_at(message, end)?);
        self.class = Class(super::u16_at(message, end + 2)?);
        self.lower.set_lower(&self.name);
        Some(end + 4)
    }
}

impl Default for Question {
    /// The root, any type: a place to read a question into.
    fn default() -> Self {
        Self::new(Name::ROOT, Rtype::ANY)
    }
}
