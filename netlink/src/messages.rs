//! Made-up answers of a kernel, for tests of what reads them.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::writer::Writer;

/// Kinds beyond those that any family here knows.
const KINDS: u16 = 30;

/// An attribute with a value, or with attributes.
#[derive(Clone, Debug)]
enum Node {
    Value(u16, Vec<u8>),
    Nest(u16, Vec<Self>),
}

impl Node {
    fn write(&self, writer: &mut Writer) {
        match self {
            Self::Value(kind, value) => writer.attribute(*kind, value),
            Self::Nest(kind, nodes) => writer.nest(*kind, |writer| {
                for node in nodes {
                    node.write(writer);
                }
            }),
        }
    }
}

/// Attributes in attributes, whole or damaged, and bytes that are none.
pub(crate) fn any_attributes() -> impl Strategy<Value = Vec<u8>> {
    let value = prop_oneof![
        // The sizes that numbers and addresses have.
        select(&[1_usize, 2, 4, 8, 16][..]).prop_flat_map(|size| vec(any::<u8>(), size)),
        vec(any::<u8>(), 0..20),
    ];
    let node = (0..KINDS, value)
        .prop_map(|(kind, value)| Node::Value(kind, value))
        .prop_recursive(3, 40, 10, |inner| {
            (0..KINDS, vec(inner, 0..10)).prop_map(|(kind, nodes)| Node::Nest(kind, nodes))
        });
    let tree = vec(node, 0..6).prop_map(|nodes| {
        let mut writer = Writer::new();
        for node in &nodes {
            node.write(&mut writer);
        }
        writer.bytes().unwrap_or_default().to_vec()
    });
    prop_oneof![
        tree.clone(),
        tree.prop_flat_map(damaged),
        vec(any::<u8>(), 0..200),
    ]
}

/// A message with some bytes changed, or cut off.
pub(crate) fn damaged(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let places = 0..bytes.len().max(1);
    (vec((places.clone(), any::<u8>()), 0..4), places).prop_map(move |(changes, end)| {
        let mut bytes = bytes.clone();
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        // Half of them whole.
        if end % 2 == 1 {
            bytes.truncate(end);
        }
        bytes
    })
}
