//! Expressions out of a listing. Whatever is not quite as [`Expression`] can say it becomes
//! [`Expression::Other`], so reading never fails within an expression.

use std::time::Duration;

use super::super::data::{Data, Register};
use super::super::numbers::{LIST_ELEM, rule};
use super::super::verdict::{Value, read_data};
use super::write::{
    FIB_DESTINATION, FIB_INCOMING, FIB_MARK, FIB_OUTGOING, FIB_PRESENT, FIB_SOURCE,
    LOOKUP_INVERTED, NAT_FULLY_RANDOM, NAT_PERSISTENT, NAT_RANDOM, REGISTER_VERDICT,
};
use super::{
    Comparison, ConnectionKey, Direction, Expression, FibFlags, FibResult, Find, LogTarget,
    MetaKey, Name, NatFlags, NatKind, NumberKind, PayloadBase, Rejection, UpdateOperation,
};
use crate::attribute::{self, Detail, attributes};
use crate::family::Family;

/// Attributes beyond those that any expression has.
const KINDS: usize = 16;

/// The expressions of `NFTA_RULE_EXPRESSIONS`.
pub(in super::super) fn read_all(bytes: &[u8]) -> Result<Vec<Expression>, Detail> {
    let mut expressions = Vec::new();
    for element in attributes(bytes) {
        if let (LIST_ELEM, expression) = element? {
            expressions.push(read_one(expression)?);
        }
    }
    Ok(expressions)
}

fn read_one(bytes: &[u8]) -> Result<Expression, Detail> {
    let name =
        attribute::find(bytes, rule::EXPRESSION_NAME)?.ok_or("an expression without a name")?;
    let name = attribute::text(name, "NFTA_EXPR_NAME")?;
    let data = attribute::find(bytes, rule::EXPRESSION_DATA)?.unwrap_or_default();
    Ok(known(name, data).unwrap_or_else(|| Expression::Other {
        name: name.into(),
        attributes: data.into(),
    }))
}

/// `None` for one that is not known, or has an attribute that is not.
fn known(name: &str, data: &[u8]) -> Option<Expression> {
    let mut fields = Fields::of(data)?;
    let expression = match name {
        "payload" => payload(&mut fields),
        "meta" => meta(&mut fields),
        "ct" => connection(&mut fields),
        "cmp" => compare(&mut fields),
        "range" => range(&mut fields),
        "bitwise" => bitwise(&mut fields),
        "lookup" => lookup(&mut fields),
        "immediate" => immediate(&mut fields),
        "nat" => nat(&mut fields),
        "masq" => masquerade(&mut fields),
        "numgen" => number_generator(&mut fields),
        "hash" => hash(&mut fields),
        "fib" => fib(&mut fields),
        "dynset" => update(&mut fields),
        "reject" => reject(&mut fields),
        "counter" => counter(&mut fields),
        "log" => log(&mut fields),
        _ => None,
    }?;
    fields.is_empty().then_some(expression)
}

/// Attributes by their kind, each to be taken once.
struct Fields<'a>([Option<&'a [u8]>; KINDS]);

impl<'a> Fields<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut fields = [None; KINDS];
        for attribute in attributes(bytes) {
            let (kind, value) = attribute.ok()?;
            // Empty ones fill up to a multiple of 8 bytes, on some machines.
            if !value.is_empty() {
                *fields.get_mut(usize::from(kind))? = Some(value);
            }
        }
        Some(Self(fields))
    }

    fn take(&mut self, kind: usize) -> Option<&'a [u8]> {
        self.0.get_mut(kind)?.take()
    }

    fn number(&mut self, kind: usize) -> Option<u32> {
        attribute::u32_be(self.take(kind)?, "").ok()
    }

    fn number_64(&mut self, kind: usize) -> Option<u64> {
        attribute::u64_be(self.take(kind)?, "").ok()
    }

    fn register(&mut self, kind: usize) -> Option<Register> {
        Register::from_code(self.number(kind)?)
    }

    fn data(&mut self, kind: usize) -> Option<Data> {
        read_data(self.take(kind)?)
    }

    fn name(&mut self, kind: usize) -> Option<Name> {
        attribute::text(self.take(kind)?, "").ok().map(Name::from)
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }
}

fn payload(fields: &mut Fields<'_>) -> Option<Expression> {
    Some(Expression::Payload {
        to: fields.register(1)?,
        base: PayloadBase::from_number(fields.number(2)?),
        offset: fields.number(3)?,
        length: fields.number(4)?,
    })
}

fn meta(fields: &mut Fields<'_>) -> Option<Expression> {
    let key = MetaKey::from_number(fields.number(2)?);
    match fields.register(1) {
        Some(to) => Some(Expression::Meta { key, to }),
        None => fields
            .register(3)
            .map(|from| Expression::SetMeta { key, from }),
    }
}

fn connection(fields: &mut Fields<'_>) -> Option<Expression> {
    let key = ConnectionKey::from_number(fields.number(2)?);
    let Some(to) = fields.register(1) else {
        let from = fields.register(4)?;
        return Some(Expression::SetConnection { key, from });
    };
    let direction = match fields.take(3) {
        Some(value) => Some(Direction::from_number(
            attribute::u8(value, "").ok()?.into(),
        )),
        None => None,
    };
    Some(Expression::Connection { key, direction, to })
}

fn compare(fields: &mut Fields<'_>) -> Option<Expression> {
    Some(Expression::Compare {
        from: fields.register(1)?,
        comparison: Comparison::from_number(fields.number(2)?),
        with: fields.data(3)?,
    })
}

fn range(fields: &mut Fields<'_>) -> Option<Expression> {
    Some(Expression::Range {
        from: fields.register(1)?,
        outside: match fields.number(2)? {
            0 => false,
            1 => true,
            _ => return None,
        },
        low: fields.data(3)?,
        high: fields.data(4)?,
    })
}

fn bitwise(fields: &mut Fields<'_>) -> Option<Expression> {
    let operation = fields.number(6).unwrap_or_default();
    let length = usize::try_from(fields.number(3)?).ok()?;
    let (mask, xor) = (fields.data(4)?, fields.data(5)?);
    let whole = operation == 0 && mask.bytes().len() == length;
    let (from, to) = (fields.register(1)?, fields.register(2)?);
    whole.then_some(Expression::Bitwise {
        from,
        to,
        mask,
        xor,
    })
}

fn lookup(fields: &mut Fields<'_>) -> Option<Expression> {
    let flags = fields.number(5).unwrap_or_default();
    let find = match (fields.number(3), flags) {
        (None, 0) => Find::Present,
        (None, LOOKUP_INVERTED) => Find::Absent,
        (Some(REGISTER_VERDICT), 0) => Find::Verdict,
        (Some(code), 0) => Find::Value(Register::from_code(code)?),
        _ => return None,
    };
    Some(Expression::Lookup {
        set: fields.name(1)?,
        key: fields.register(2)?,
        find,
    })
}

fn immediate(fields: &mut Fields<'_>) -> Option<Expression> {
    let code = fields.number(1)?;
    match (code, Value::read(fields.take(2)?)?) {
        (REGISTER_VERDICT, Value::Verdict(verdict)) => Some(Expression::Verdict(verdict)),
        (code, Value::Data(value)) => {
            let to = Register::from_code(code)?;
            Some(Expression::Constant { to, value })
        }
        _ => None,
    }
}

fn nat(fields: &mut Fields<'_>) -> Option<Expression> {
    /// `NF_NAT_RANGE_MAP_IPS` and `_PROTO_SPECIFIED`, which the kernel sets by itself.
    const IMPLIED: u32 = 0b11;
    let kind = NatKind::from_number(fields.number(1)?);
    let family = Family::from_number(u8::try_from(fields.number(2)?).ok()?)?;
    let (address, address_end) = (fields.register(3), fields.register(4));
    let (port, port_end) = (fields.register(5), fields.register(6));
    let flags = nat_flags(fields.number(7).unwrap_or_default() & !IMPLIED)?;
    let single = |from, to: Option<Register>| to.is_none() || to == from;
    (single(address, address_end) && single(port, port_end)).then_some(Expression::Nat {
        kind,
        family,
        address,
        port,
        flags,
    })
}

fn masquerade(fields: &mut Fields<'_>) -> Option<Expression> {
    let flags = nat_flags(fields.number(1).unwrap_or_default())?;
    Some(Expression::Masquerade { flags })
}

fn nat_flags(bits: u32) -> Option<NatFlags> {
    let known = NAT_RANDOM | NAT_PERSISTENT | NAT_FULLY_RANDOM;
    (bits & !known == 0).then_some(NatFlags {
        random: bits & NAT_RANDOM != 0,
        fully_random: bits & NAT_FULLY_RANDOM != 0,
        persistent: bits & NAT_PERSISTENT != 0,
    })
}

fn number_generator(fields: &mut Fields<'_>) -> Option<Expression> {
    Some(Expression::NumberGenerator {
        to: fields.register(1)?,
        modulus: fields.number(2)?,
        kind: NumberKind::from_number(fields.number(3)?),
        offset: fields.number(4).unwrap_or_default(),
    })
}

fn hash(fields: &mut Fields<'_>) -> Option<Expression> {
    let jenkins = fields.number(7).unwrap_or_default() == 0;
    let hash = Expression::Hash {
        from: fields.register(1)?,
        to: fields.register(2)?,
        length: fields.number(3)?,
        modulus: fields.number(4)?,
        seed: fields.number(5),
        offset: fields.number(6).unwrap_or_default(),
    };
    jenkins.then_some(hash)
}

fn fib(fields: &mut Fields<'_>) -> Option<Expression> {
    let (to, result) = (fields.register(1)?, fields.number(2)?);
    let bits = fields.number(3)?;
    let flags = FibFlags {
        source: bits & FIB_SOURCE != 0,
        destination: bits & FIB_DESTINATION != 0,
        mark: bits & FIB_MARK != 0,
        incoming_interface: bits & FIB_INCOMING != 0,
        outgoing_interface: bits & FIB_OUTGOING != 0,
        present: bits & FIB_PRESENT != 0,
    };
    (flags.bits() == bits).then_some(Expression::Fib {
        result: FibResult::from_number(result),
        flags,
        to,
    })
}

fn update(fields: &mut Fields<'_>) -> Option<Expression> {
    if fields.number(9).unwrap_or_default() != 0 {
        return None;
    }
    let timeout = fields.number_64(6).filter(|timeout| *timeout != 0);
    Some(Expression::Update {
        set: fields.name(1)?,
        operation: UpdateOperation::from_number(fields.number(3)?),
        key: fields.register(4)?,
        value: fields.register(5),
        timeout: timeout.map(Duration::from_millis),
    })
}

fn reject(fields: &mut Fields<'_>) -> Option<Expression> {
    let code = match fields.take(2) {
        Some(value) => attribute::u8(value, "").ok()?,
        None => 0,
    };
    let rejection = match fields.number(1)? {
        0 => Rejection::Icmp(code),
        1 => Rejection::TcpReset,
        2 => Rejection::IcmpOfEither(code),
        _ => return None,
    };
    Some(Expression::Reject(rejection))
}

fn counter(fields: &mut Fields<'_>) -> Option<Expression> {
    Some(Expression::Counter {
        bytes: fields.number_64(1)?,
        packets: fields.number_64(2)?,
    })
}

fn log(fields: &mut Fields<'_>) -> Option<Expression> {
    let to = match fields.take(1) {
        Some(group) => LogTarget::Group(attribute::u16_be(group, "").ok()?),
        None => LogTarget::Kernel {
            level: fields.number(5)?,
        },
    };
    Some(Expression::Log {
        prefix: fields.name(2),
        to,
    })
}
