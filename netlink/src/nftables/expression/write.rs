//! Attributes of each expression: `enum nft_*_attributes` of `linux/netfilter/nf_tables.h`,
//! in the order in which nft writes them.

use std::time::Duration;

use super::super::numbers::{LIST_ELEM, bits, rule};
use super::super::verdict::write_data;
use super::{Expression, FibFlags, Find, LogTarget, NatFlags, Rejection};
use crate::writer::Writer;

/// `NFT_REG_VERDICT`.
pub(super) const REGISTER_VERDICT: u32 = 0;
pub(super) const LOOKUP_INVERTED: u32 = 1;
pub(super) const NAT_RANDOM: u32 = 1 << 2;
pub(super) const NAT_PERSISTENT: u32 = 1 << 3;
pub(super) const NAT_FULLY_RANDOM: u32 = 1 << 4;
pub(super) const FIB_SOURCE: u32 = 1;
pub(super) const FIB_DESTINATION: u32 = 1 << 1;
pub(super) const FIB_MARK: u32 = 1 << 2;
pub(super) const FIB_INCOMING: u32 = 1 << 3;
pub(super) const FIB_OUTGOING: u32 = 1 << 4;
pub(super) const FIB_PRESENT: u32 = 1 << 5;

impl Expression {
    /// Its name in the kernel.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::SetMeta { .. } => "meta",
            Self::Connection { .. } | Self::SetConnection { .. } => "ct",
            Self::Compare { .. } => "cmp",
            Self::Range { .. } => "range",
            Self::Bitwise { .. } => "bitwise",
            Self::Lookup { .. } => "lookup",
            Self::Constant { .. } | Self::Verdict(_) => "immediate",
            Self::Nat { .. } => "nat",
            Self::Masquerade { .. } => "masq",
            Self::NumberGenerator { .. } => "numgen",
            Self::Hash { .. } => "hash",
            Self::Fib { .. } => "fib",
            Self::Update { .. } => "dynset",
            Self::Reject(_) => "reject",
            Self::Counter { .. } => "counter",
            Self::Log { .. } => "log",
            Self::Other { name, .. } => name,
        }
    }

    /// One element of a rule's list of expressions.
    pub(in super::super) fn write(&self, writer: &mut Writer) {
        writer.nest(LIST_ELEM, |writer| {
            writer.text(rule::EXPRESSION_NAME, self.name());
            writer.nest(rule::EXPRESSION_DATA, |writer| self.write_data(writer));
        });
    }

    fn write_data(&self, writer: &mut Writer) {
        match self {
            Self::Payload {
                base,
                offset,
                length,
                to,
            } => numbers(
                writer,
                &[
                    (1, to.code()),
                    (2, base.number()),
                    (3, *offset),
                    (4, *length),
                ],
            ),
            Self::Meta { key, to } => numbers(writer, &[(2, key.number()), (1, to.code())]),
            Self::SetMeta { key, from } => numbers(writer, &[(2, key.number()), (3, from.code())]),
            Self::Connection { key, direction, to } => {
                numbers(writer, &[(2, key.number()), (1, to.code())]);
                if let Some(direction) = direction {
                    writer.u8(3, u8::try_from(direction.number()).unwrap_or(u8::MAX));
                }
            }
            Self::SetConnection { key, from } => {
                numbers(writer, &[(2, key.number()), (4, from.code())]);
            }
            Self::Compare {
                from,
                comparison,
                with,
            } => {
                numbers(writer, &[(1, from.code()), (2, comparison.number())]);
                write_data(writer, 3, with);
            }
            Self::Range {
                from,
                outside,
                low,
                high,
            } => {
                numbers(writer, &[(1, from.code()), (2, u32::from(*outside))]);
                write_data(writer, 3, low);
                write_data(writer, 4, high);
            }
            Self::Bitwise {
                from,
                to,
                mask,
                xor,
            } => {
                let length = u32::try_from(mask.bytes().len()).unwrap_or(u32::MAX);
                numbers(writer, &[(1, from.code()), (2, to.code()), (3, length)]);
                write_data(writer, 4, mask);
                write_data(writer, 5, xor);
            }
            Self::Constant { to, value } => {
                writer.u32_be(1, to.code());
                write_data(writer, 2, value);
            }
            Self::Verdict(verdict) => {
                writer.u32_be(1, REGISTER_VERDICT);
                writer.nest(2, |writer| verdict.write(writer));
            }
            Self::Other { attributes, .. } => writer.fixed(attributes),
            _ => self.write_more(writer),
        }
    }

    fn write_more(&self, writer: &mut Writer) {
        match self {
            Self::Lookup { set, key, find } => write_lookup(writer, set, key.code(), *find),
            Self::Nat {
                kind,
                family,
                address,
                port,
                flags,
            } => {
                numbers(
                    writer,
                    &[(1, kind.number()), (2, u32::from(family.number()))],
                );
                for (kind, register) in [(3, address), (5, port)] {
                    if let Some(register) = register {
                        writer.u32_be(kind, register.code());
                    }
                }
                write_bits(writer, 7, flags.bits());
            }
            Self::Masquerade { flags } => write_bits(writer, 1, flags.bits()),
            Self::NumberGenerator {
                kind,
                modulus,
                offset,
                to,
            } => numbers(
                writer,
                &[
                    (1, to.code()),
                    (2, *modulus),
                    (3, kind.number()),
                    (4, *offset),
                ],
            ),
            Self::Hash {
                from,
                length,
                modulus,
                seed,
                offset,
                to,
            } => {
                numbers(
                    writer,
                    &[
                        (1, from.code()),
                        (2, to.code()),
                        (3, *length),
                        (4, *modulus),
                    ],
                );
                if let Some(seed) = seed {
                    writer.u32_be(5, *seed);
                }
                write_bits(writer, 6, *offset);
                writer.u32_be(7, 0);
            }
            Self::Fib { result, flags, to } => numbers(
                writer,
                &[(3, flags.bits()), (2, result.number()), (1, to.code())],
            ),
            Self::Update {
                set,
                operation,
                key,
                value,
                timeout,
            } => {
                numbers(writer, &[(4, key.code())]);
                if let Some(value) = value {
                    writer.u32_be(5, value.code());
                }
                writer.u32_be(3, operation.number());
                if let Some(timeout) = timeout {
                    writer.attribute(6, &milliseconds(*timeout).to_be_bytes());
                }
                writer.text(1, set);
            }
            Self::Reject(rejection) => write_rejection(writer, *rejection),
            Self::Counter { packets, bytes } => {
                writer.attribute(1, &bytes.to_be_bytes());
                writer.attribute(2, &packets.to_be_bytes());
            }
            Self::Log { prefix, to } => {
                if let Some(prefix) = prefix {
                    writer.text(2, prefix);
                }
                match to {
                    LogTarget::Kernel { level } => writer.u32_be(5, *level),
                    LogTarget::Group(group) => writer.u16_be(1, *group),
                }
            }
            _ => {}
        }
    }
}

fn write_lookup(writer: &mut Writer, set: &str, key: u32, find: Find) {
    writer.u32_be(2, key);
    match find {
        Find::Present | Find::Absent => {}
        Find::Value(register) => writer.u32_be(3, register.code()),
        Find::Verdict => writer.u32_be(3, REGISTER_VERDICT),
    }
    writer.text(1, set);
    if find == Find::Absent {
        writer.u32_be(5, LOOKUP_INVERTED);
    }
}

fn write_rejection(writer: &mut Writer, rejection: Rejection) {
    let (kind, code) = match rejection {
        Rejection::Icmp(code) => (0, code),
        Rejection::TcpReset => (1, 0),
        Rejection::IcmpOfEither(code) => (2, code),
    };
    writer.u32_be(1, kind);
    writer.u8(2, code);
}

fn numbers(writer: &mut Writer, attributes: &[(u16, u32)]) {
    for (kind, number) in attributes {
        writer.u32_be(*kind, *number);
    }
}

/// Nothing for no bits, as the kernel takes it.
fn write_bits(writer: &mut Writer, kind: u16, bits: u32) {
    if bits != 0 {
        writer.u32_be(kind, bits);
    }
}

/// What the kernel takes as a duration. 0 would be none at all.
pub(in super::super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}

impl NatFlags {
    fn bits(self) -> u32 {
        bits([
            (self.random, NAT_RANDOM),
            (self.persistent, NAT_PERSISTENT),
            (self.fully_random, NAT_FULLY_RANDOM),
        ])
    }
}

impl FibFlags {
    pub(super) fn bits(self) -> u32 {
        bits([
            (self.source, FIB_SOURCE),
            (self.destination, FIB_DESTINATION),
            (self.mark, FIB_MARK),
            (self.incoming_interface, FIB_INCOMING),
            (self.outgoing_interface, FIB_OUTGOING),
            (self.present, FIB_PRESENT),
        ])
    }
}
