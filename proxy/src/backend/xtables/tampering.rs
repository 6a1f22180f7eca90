//! Telling cheaply whether somebody else changed rules since our last write.

use switchyard_cluster::object::IpFamily;
use switchyard_netlink::Family;
use switchyard_netlink::nft_generation::{Generation, GenerationReader};
use switchyard_netlink::xtables_info::{TableSize, table_size};

use super::table::Table;
use super::tool::{Tool, Variant};

/// What the kernel's rules looked like right after our last write: the generation of the
/// nf_tables rule set, or the sizes of the three legacy tables.
#[derive(Debug)]
pub(in crate::backend) struct Tampering {
    family: Family,
    reader: Option<GenerationReader>,
    settled: Option<Look>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Generation(Generation),
    Sizes([Option<TableSize>; 3]),
}

impl Tampering {
    pub(in crate::backend) fn new(tool: &Tool) -> Self {
        let reader = match tool.variant {
            Variant::Nft => GenerationReader::open().ok(),
            Variant::Legacy => None,
        };
        let family = match tool.family {
            IpFamily::V4 => Family::V4,
            IpFamily::V6 => Family::V6,
        };
        Self {
            family,
            reader,
            settled: None,
        }
    }

    /// We have just written: what is there now is ours.
    pub(in crate::backend) fn settle(&mut self) {
        self.settled = self.look();
    }

    /// What is there now may be anybody's.
    pub(in crate::backend) const fn unsettle(&mut self) {
        self.settled = None;
    }

    /// Whether anything changed since. Where that can't be told, it may have.
    pub(in crate::backend) fn is_suspected(&mut self) -> bool {
        let now = self.look();
        now.is_none() || now != self.settled
    }

    fn look(&mut self) -> Option<Look> {
        match &mut self.reader {
            Some(reader) => reader.read().ok().map(Look::Generation),
            None => {
                let [mangle, filter, nat] =
                    Table::ALL.map(|table| table_size(self.family, table.as_str()));
                Some(Look::Sizes([mangle.ok()?, filter.ok()?, nat.ok()?]))
            }
        }
    }
}
