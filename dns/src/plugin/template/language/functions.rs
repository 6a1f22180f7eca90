use super::Value;

/// What a template can call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    And,
    Or,
    Not,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Index,
    Len,
    ParseInt,
    Print,
    Printf,
    Println,
    Slice,
}

const KNOWN: &str =
    "and, or, not, eq, ne, lt, le, gt, ge, index, len, parseInt, print, printf, println, slice";
/// Width that `printf` pads to at most.
const WIDTH_MAX: usize = 255;

impl Function {
    /// The function of this name. The error is a sentence.
    pub(super) fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "and" => Self::And,
            "or" => Self::Or,
            "not" => Self::Not,
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "lt" => Self::Lt,
            "le" => Self::Le,
            "gt" => Self::Gt,
            "ge" => Self::Ge,
            "index" => Self::Index,
            "len" => Self::Len,
            "parseInt" => Self::ParseInt,
            "print" => Self::Print,
            "printf" => Self::Printf,
            "println" => Self::Println,
            "slice" => Self::Slice,
            _ => return Err(format!("there is no function `{name}`; known are: {KNOWN}")),
        })
    }

    /// How many arguments it takes: at least, at most.
    pub(super) const fn arity(self) -> (usize, usize) {
        match self {
            Self::Not | Self::Len => (1, 1),
            Self::Ne | Self::Lt | Self::Le | Self::Gt | Self::Ge => (2, 2),
            Self::Eq => (2, usize::MAX),
            Self::ParseInt => (3, 3),
            Self::Slice => (1, 3),
            Self::And | Self::Or | Self::Index | Self::Printf => (1, usize::MAX),
            Self::Print | Self::Println => (0, usize::MAX),
        }
    }

    /// Calls it. `and` and `or` do not come here: they stop where they know. The error is a
    /// sentence.
    pub(super) fn call(self, args: &[Value]) -> Result<Value, String> {
        match (self, args) {
            (Self::Not, [value]) => Ok(Value::Truth(!value.is_true())),
            (Self::Eq, [one, others @ ..]) => {
                for other in others {
                    if same(one, other)? {
                        return Ok(Value::Truth(true));
                    }
                }
                Ok(Value::Truth(false))
            }
            (Self::Ne, [one, other]) => Ok(Value::Truth(!same(one, other)?)),
            (Self::Lt, [one, other]) => Ok(Value::Truth(order(one, other)?.is_lt())),
            (Self::Le, [one, other]) => Ok(Value::Truth(order(one, other)?.is_le())),
            (Self::Gt, [one, other]) => Ok(Value::Truth(order(one, other)?.is_gt())),
            (Self::Ge, [one, other]) => Ok(Value::Truth(order(one, other)?.is_ge())),
            (Self::Index, [of, keys @ ..]) => index(of, keys),
            (Self::Len, [of]) => length(of).map(number),
            (Self::ParseInt, [text, base, bits]) => parse_int(text, base, bits),
            (Self::Print, _) => Ok(Value::text(&print(args))),
            (Self::Println, _) => {
                let texts: Vec<_> = args.iter().map(ToString::to_string).collect();
                Ok(Value::text(&format!("{}\n", texts.join(" "))))
            }
            (Self::Printf, [Value::Text(format), values @ ..]) => {
                printf(format, values).map(|text| Value::text(&text))
            }
            (Self::Slice, [of, bounds @ ..]) => slice(of, bounds),
            _ => Err(format!("{self:?} cannot take these arguments")),
        }
    }
}

fn number(number: usize) -> Value {
    Value::Number(i128::try_from(number).unwrap_or(i128::MAX))
}

fn same(one: &Value, other: &Value) -> Result<bool, String> {
    match (one, other) {
        (Value::Text(_), Value::Text(_))
        | (Value::Number(_), Value::Number(_))
        | (Value::Truth(_), Value::Truth(_))
        | (Value::Nothing, _)
        | (_, Value::Nothing) => Ok(one == other),
        _ => Err(format!("`{one}` and `{other}` cannot be compared")),
    }
}

fn order(one: &Value, other: &Value) -> Result<std::cmp::Ordering, String> {
    match (one, other) {
        (Value::Text(one), Value::Text(other)) => Ok(one.cmp(other)),
        (Value::Number(one), Value::Number(other)) => Ok(one.cmp(other)),
        _ => Err(format!("`{one}` and `{other}` have no order")),
    }
}

fn index(of: &Value, keys: &[Value]) -> Result<Value, String> {
    let mut value = of.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::List(list), Value::Number(at)) => {
                let found = usize::try_from(*at).ok().and_then(|at| list.get(at));
                found
                    .cloned()
                    .ok_or_else(|| format!("index out of range: {at}"))?
            }
            (Value::Text(text), Value::Number(at)) => {
                let found = usize::try_from(*at)
                    .ok()
                    .and_then(|at| text.as_bytes().get(at));
                let octet = found.ok_or_else(|| format!("index out of range: {at}"))?;
                Value::Number((*octet).into())
            }
            // A group that is not there is an empty text, as in the reference's map of texts.
            (Value::Map(map), Value::Text(key)) => {
                map.get(&**key).cloned().unwrap_or_else(|| Value::text(""))
            }
            (of, key) => return Err(format!("`{of}` has no index `{key}`")),
        };
    }
    Ok(value)
}

fn length(of: &Value) -> Result<usize, String> {
    match of {
        Value::Text(text) => Ok(text.len()),
        Value::List(list) => Ok(list.len()),
        Value::Map(map) => Ok(map.len()),
        _ => Err(format!("`{of}` has no length")),
    }
}

fn slice(of: &Value, bounds: &[Value]) -> Result<Value, String> {
    let length = length(of)?;
    let bound = |at: usize, default: usize| match bounds.get(at) {
        None => Ok(default),
        Some(Value::Number(number)) => usize::try_from(*number)
            .ok()
            .filter(|bound| *bound <= length)
            .ok_or_else(|| format!("slice out of range: {number}")),
        Some(other) => Err(format!("`{other}` is not a number to slice at")),
    };
    let (from, to) = (bound(0, 0)?, bound(1, length)?);
    let wrong = || format!("`{of}` cannot be sliced from {from} to {to}");
    match of {
        Value::Text(text) => text.get(from..to).map(Value::text).ok_or_else(wrong),
        Value::List(list) => list
            .get(from..to)
            .map(|part| Value::List(part.into()))
            .ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// Go's `strconv.ParseUint`.
fn parse_int(text: &Value, base: &Value, bits: &Value) -> Result<Value, String> {
    let (Value::Text(text), Value::Number(base), Value::Number(bits)) = (text, base, bits) else {
        return Err("parseInt takes a text, a base and a number of bits".to_owned());
    };
    let (digits, base) = match (base, text.get(..2).map(str::to_ascii_lowercase).as_deref()) {
        (0, Some("0x")) => (&text[2..], 16),
        (0, Some("0o")) => (&text[2..], 8),
        (0, Some("0b")) => (&text[2..], 2),
        (0, _) if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        (0, _) => (&**text, 10),
        (base, _) => (&**text, u32::try_from(*base).unwrap_or_default()),
    };
    if !(2..=36).contains(&base) {
        return Err(format!("parseInt has no base {base}"));
    }
    let bits = if *bits == 0 { 64 } else { *bits };
    let Some(bits) = u32::try_from(bits)
        .ok()
        .filter(|bits| (1..=64).contains(bits))
    else {
        return Err(format!("parseInt has no size of {bits} bits"));
    };
    // `from_str_radix` takes a sign, ParseUint does not.
    let number = Some(digits).filter(|digits| !digits.starts_with(['+', '-']));
    let number = number.and_then(|digits| u64::from_str_radix(digits, base).ok());
    match number.filter(|number| bits == 64 || *number >> bits == 0) {
        Some(number) => Ok(Value::Number(number.into())),
        None => Err(format!(
            "`{text}` is not a number of {bits} bits to base {base}"
        )),
    }
}

/// As Go: a space between two arguments when neither is a text.
fn print(args: &[Value]) -> String {
    let mut out = String::new();
    let mut after_other = false;
    for arg in args {
        let other = !matches!(arg, Value::Text(_));
        if other && after_other {
            out.push(' ');
        }
        out += &arg.to_string();
        after_other = other;
    }
    out
}

/// The verbs `%s %v %d %x %X %o %b %t %q %%` with `-`, `0` and a width.
fn printf(format: &str, values: &[Value]) -> Result<String, String> {
    let mut values = values.iter();
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let (mut left, mut zeros, mut width) = (false, false, 0_usize);
        let verb = loop {
            match chars.next() {
                Some('-') => left = true,
                Some('0') if width == 0 => zeros = true,
                Some(digit @ '0'..='9') => {
                    let digit = digit
                        .to_digit(10)
                        .and_then(|digit| usize::try_from(digit).ok());
                    width = (width * 10 + digit.unwrap_or_default()).min(WIDTH_MAX);
                }
                Some(verb) => break verb,
                None => return Err("printf: `%` at the end".to_owned()),
            }
        };
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = values
            .next()
            .ok_or_else(|| format!("printf: no value for %{verb}"))?;
        let text = verb_text(verb, value)?;
        let pad = width.saturating_sub(text.chars().count());
        match (left, zeros, text.strip_prefix('-')) {
            (true, ..) => out += &format!("{text}{}", " ".repeat(pad)),
            (_, true, Some(digits)) => out += &format!("-{}{digits}", "0".repeat(pad)),
            (_, true, None) => out += &format!("{}{text}", "0".repeat(pad)),
            _ => out += &format!("{}{text}", " ".repeat(pad)),
        }
    }
    match values.next() {
        None => Ok(out),
        Some(extra) => Err(format!(
            "printf: `{extra}` is more than the format asks for"
        )),
    }
}

fn verb_text(verb: char, value: &Value) -> Result<String, String> {
    match (verb, value) {
        ('v', _) | ('s', Value::Text(_)) | ('d', Value::Number(_)) | ('t', Value::Truth(_)) => {
            Ok(value.to_string())
        }
        ('x', Value::Number(number)) => Ok(signed(*number, |number| format!("{number:x}"))),
        ('X', Value::Number(number)) => Ok(signed(*number, |number| format!("{number:X}"))),
        ('o', Value::Number(number)) => Ok(signed(*number, |number| format!("{number:o}"))),
        ('b', Value::Number(number)) => Ok(signed(*number, |number| format!("{number:b}"))),
        ('x', Value::Text(text)) => Ok(text.bytes().map(|octet| format!("{octet:02x}")).collect()),
        ('X', Value::Text(text)) => Ok(text.bytes().map(|octet| format!("{octet:02X}")).collect()),
        ('q', Value::Text(text)) => Ok(format!("{text:?}")),
        _ => Err(format!("printf: %{verb} cannot write `{value}`")),
    }
}

fn signed(number: i128, write: impl Fn(u128) -> String) -> String {
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{}", write(number.unsigned_abs()))
}
