use core::cell::Cell;

use crate::layout::{Connected, SocketRecord};
use crate::socket::Socket;

/// A socket in memory.
#[derive(Clone, Debug, Default)]
pub struct TableSocket {
    /// The cookie of its network namespace.
    pub namespace: u64,
    /// Its network namespace is to be left alone.
    pub is_opted_out: bool,
    /// There is no memory to remember anything in.
    pub is_forgetful: bool,
    /// What is remembered of it.
    pub record: SocketRecord,
    /// The endpoint it is connected to, where it was given one and speaks UDP.
    pub connected: Cell<Option<Connected>>,
}

impl TableSocket {
    /// A socket in a network namespace, of which nothing is remembered yet.
    #[must_use]
    pub fn new(namespace: u64) -> Self {
        Self {
            namespace,
            ..Self::default()
        }
    }
}

impl Socket for TableSocket {
    fn namespace(&self) -> u64 {
        self.namespace
    }

    fn is_opted_out(&self, _: u64) -> bool {
        self.is_opted_out
    }

    fn record(&mut self) -> Option<&mut SocketRecord> {
        (!self.is_forgetful).then_some(&mut self.record)
    }

    fn known_record(&mut self) -> Option<&mut SocketRecord> {
        self.record()
    }

    fn connected(&self, to: Option<&Connected>) {
        self.connected.set(to.copied());
    }
}
