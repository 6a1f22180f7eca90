//! Quantities of Kubernetes, as far as they are configured here: amounts of bytes.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// What a text that is no quantity should have been.
pub(in crate::settings) const EXPECTED: &str = "an amount of bytes such as 0, 4096 or 64Ki";

/// A number, or a text; whether that is a quantity is for [`is_valid`].
pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Number(serde_json::Number),
        Text(String),
    }
    let wrong = |_| D::Error::custom(format!("invalid type, expected {EXPECTED}"));
    match Given::deserialize(from).map_err(wrong)? {
        Given::Number(number) => Ok(number.to_string()),
        Given::Text(text) => Ok(text),
    }
}

/// Whether it is a number with or without a unit.
pub(in crate::settings) fn is_valid(text: &str) -> bool {
    const UNITS: [&str; 13] = [
        "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
    ];
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    number.parse::<f64>().is_ok() && UNITS.contains(&unit)
}
