use super::data::Data;
use super::expression::Name;
use super::numbers::data;
use crate::attribute;
use crate::writer::Writer;

/// What happens to a packet (`enum nft_verdicts`, `NF_*` of `linux/netfilter.h`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// It goes on to the next chain of its hook.
    Accept,
    /// It is gone.
    Drop,
    /// The next rule.
    Continue,
    /// Back to the rule after the jump, or the policy.
    Return,
    /// The rules of a chain, then back.
    Jump(Name),
    /// The rules of a chain, and not back here.
    Goto(Name),
}

const CODE_DROP: i32 = 0;
const CODE_ACCEPT: i32 = 1;
const CODE_CONTINUE: i32 = -1;
const CODE_JUMP: i32 = -3;
const CODE_GOTO: i32 = -4;
const CODE_RETURN: i32 = -5;

impl Verdict {
    /// `NFTA_DATA_VERDICT` within an attribute that holds data.
    pub(super) fn write(&self, writer: &mut Writer) {
        let (code, chain) = match self {
            Self::Accept => (CODE_ACCEPT, None),
            Self::Drop => (CODE_DROP, None),
            Self::Continue => (CODE_CONTINUE, None),
            Self::Return => (CODE_RETURN, None),
            Self::Jump(chain) => (CODE_JUMP, Some(chain)),
            Self::Goto(chain) => (CODE_GOTO, Some(chain)),
        };
        writer.nest(data::VERDICT, |writer| {
            writer.u32_be(data::VERDICT_CODE, code.cast_unsigned());
            if let Some(chain) = chain {
                writer.text(data::VERDICT_CHAIN, chain);
            }
        });
    }

    /// `None` for others, and what is none.
    fn read(bytes: &[u8]) -> Option<Self> {
        let code = attribute::find(bytes, data::VERDICT_CODE).ok()??;
        let code = attribute::u32_be(code, "NFTA_VERDICT_CODE").ok()?;
        let chain = attribute::find(bytes, data::VERDICT_CHAIN).ok()?;
        let chain = || -> Option<Name> {
            let chain = attribute::text(chain?, "NFTA_VERDICT_CHAIN").ok()?;
            Some(chain.into())
        };
        match code.cast_signed() {
            CODE_ACCEPT => Some(Self::Accept),
            CODE_DROP => Some(Self::Drop),
            CODE_CONTINUE => Some(Self::Continue),
            CODE_RETURN => Some(Self::Return),
            CODE_JUMP => chain().map(Self::Jump),
            CODE_GOTO => chain().map(Self::Goto),
            _ => None,
        }
    }
}

/// What a map has for a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    /// Bytes.
    Data(Data),
    /// A verdict.
    Verdict(Verdict),
}

impl Value {
    /// An attribute that holds either.
    pub(super) fn write(&self, writer: &mut Writer, kind: u16) {
        match self {
            Self::Data(value) => write_data(writer, kind, value),
            Self::Verdict(verdict) => writer.nest(kind, |writer| verdict.write(writer)),
        }
    }

    /// `None` for what is neither.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        if let Some(value) = attribute::find(bytes, data::VALUE).ok()? {
            return Some(Self::Data(Data::new(value)));
        }
        let verdict = attribute::find(bytes, data::VERDICT).ok()??;
        Verdict::read(verdict).map(Self::Verdict)
    }
}

/// An attribute that holds bytes.
pub(super) fn write_data(writer: &mut Writer, kind: u16, value: &Data) {
    writer.nest(kind, |writer| writer.attribute(data::VALUE, value.bytes()));
}

/// The bytes that an attribute holds.
pub(super) fn read_data(bytes: &[u8]) -> Option<Data> {
    match Value::read(bytes)? {
        Value::Data(value) => Some(value),
        Value::Verdict(_) => None,
    }
}
