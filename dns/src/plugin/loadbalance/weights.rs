use std::collections::HashMap;
use std::net::IpAddr;

use super::order::address;
use crate::wire::{Name, Record};

/// The largest weight file that is read.
pub(super) const WEIGHT_FILE_OCTETS_LIMIT: u64 = 16 << 20;

/// Weights of addresses by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Weights {
    names: HashMap<Box<[u8]>, Vec<(IpAddr, u8)>>,
}

/// A line of a weight file that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct WeightError {
    line: usize,
    problem: String,
}

impl Weights {
    /// Reads a weight file.
    pub(super) fn parse(text: &str) -> Result<Self, WeightError> {
        let mut weights = Self::default();
        let mut current: Option<Name> = None;
        for (index, line) in text.lines().enumerate() {
            let error = |problem: String| WeightError {
                line: index + 1,
                problem,
            };
            let words: Vec<_> = line.split_whitespace().collect();
            match words[..] {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                [name] if name.parse::<IpAddr>().is_ok() => {
                    return Err(error(format!("the address `{name}` has no weight")));
                }
                [name] => {
                    let name = Name::from_text(name).map_err(|it| error(it.to_string()))?;
                    current = Some(name.to_lower());
                }
                [address, weight] => {
                    let address = address
                        .parse()
                        .map_err(|_| error(format!("`{address}` is not an address")))?;
                    let weight = weight.parse().ok().filter(|weight| *weight > 0);
                    let weight = weight.ok_or_else(|| {
                        error(format!("a weight is from 1 to 255, not `{}`", words[1]))
                    })?;
                    let name = current
                        .as_ref()
                        .ok_or_else(|| error("a weight before the first name".to_owned()))?;
                    let of_name = weights.names.entry(name.as_wire().into()).or_default();
                    of_name.push((address, weight));
                }
                _ => {
                    return Err(error(
                        "expected a name, or an address and a weight".to_owned(),
                    ));
                }
            }
        }
        Ok(weights)
    }

    fn of(&self, record: &Record) -> usize {
        let weights = self.names.get(record.owner.to_lower().as_wire());
        let listed = weights
            .zip(address(record))
            .and_then(|(weights, address)| weights.iter().find(|(listed, _)| *listed == address));
        listed.map_or(1, |(_, weight)| usize::from(*weight))
    }

    /// Which of these addresses comes first. `below` gives a random number below its argument.
    pub(super) fn choose(&self, records: &[Record], below: impl FnOnce(usize) -> usize) -> usize {
        let total: usize = records.iter().map(|record| self.of(record)).sum();
        if total == 0 {
            return 0;
        }
        let mut left = below(total);
        for (index, record) in records.iter().enumerate() {
            match left.checked_sub(self.of(record)) {
                Some(rest) => left = rest,
                None => return index,
            }
        }
        0
    }
}
