//! Telling cheaply whether somebody else changed rules since our last write.

use switchyard_netlink::NetlinkError;
use switchyard_netlink::nft_generation::{Generation, GenerationReader};

use super::tool::Variant;

/// What the kernel's rule set looked like right after our last write.
#[derive(Debug)]
pub(super) struct Tampering {
    reader: Option<GenerationReader>,
    settled: Option<Generation>,
}

impl Tampering {
    pub(super) fn new(variant: Variant) -> Self {
        let reader = match variant {
            Variant::Nft => GenerationReader::open().ok(),
            Variant::Legacy => None,
        };
        Self {
            reader,
            settled: None,
        }
    }

    /// We have just written: what is there now is ours.
    pub(super) fn settle(&mut self) {
        self.settled = self.read().ok().flatten();
    }

    /// What is there now may be anybody's.
    pub(super) const fn unsettle(&mut self) {
        self.settled = None;
    }

    /// Whether anything changed since. Where that can't be told, it may have.
    pub(super) fn is_suspected(&mut self) -> bool {
        match (self.read(), self.settled) {
            (Ok(Some(now)), Some(then)) => now != then,
            _ => true,
        }
    }

    fn read(&mut self) -> Result<Option<Generation>, NetlinkError> {
        self.reader.as_mut().map(GenerationReader::read).transpose()
    }
}
