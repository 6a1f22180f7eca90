//! Label selectors, as `kubectl get -l` takes them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What the labels of an object must be like. The API server applies selectors itself; this
/// is for sources that have nobody to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    /// All must hold; with none, everything is selected.
    requirements: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    holds: Holds,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Holds {
    Exists,
    Missing,
    In(Vec<String>),
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

/// Why a selector makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label selector {selector:?}: {message}")]
pub struct LabelSelectorError {
    /// The selector as it was given.
    selector: String,
    /// What is wrong and what was expected.
    message: String,
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let holds = |requirement: &Requirement| {
            let value = labels.get(&requirement.key).map(String::as_str);
            requirement.holds.for_value(value)
        };
        self.requirements.iter().all(holds)
    }
}

impl Holds {
    fn for_value(&self, value: Option<&str>) -> bool {
        let is_one_of = |values: &[String]| value.is_some_and(|it| values.iter().any(|v| v == it));
        let number = || value.and_then(|it| it.parse::<i64>().ok());
        match self {
            Self::Exists => value.is_some(),
            Self::Missing => value.is_none(),
            Self::In(values) => is_one_of(values),
            Self::NotIn(values) => !is_one_of(values),
            Self::Greater(than) => number().is_some_and(|it| it > *than),
            Self::Less(than) => number().is_some_and(|it| it < *than),
        }
    }
}

impl FromStr for LabelSelector {
    type Err = LabelSelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = Parts { rest: text };
        let mut requirements = Vec::new();
        let mut read = || -> Result<(), String> {
            while let Some(part) = parts.next()? {
                requirements.push(requirement(part)?);
            }
            Ok(())
        };
        read().map_err(|message| LabelSelectorError {
            selector: text.to_owned(),
            message,
        })?;
        Ok(Self { requirements })
    }
}

/// Splits at the commas outside of parentheses.
struct Parts<'a> {
    rest: &'a str,
}

impl<'a> Parts<'a> {
    fn next(&mut self) -> Result<Option<&'a str>, String> {
        if self.rest.trim().is_empty() {
            return Ok(None);
        }
        let mut depth = 0_u32;
        for (at, sign) in self.rest.char_indices() {
            match sign {
                '(' => depth += 1,
                ')' => depth = depth.checked_sub(1).ok_or("unexpected \")\"")?,
                ',' if depth == 0 => {
                    let (part, rest) = self.rest.split_at(at);
                    self.rest = &rest[1..];
                    if self.rest.trim().is_empty() {
                        return Err("nothing after the last comma".to_owned());
                    }
                    return Ok(Some(part));
                }
                _ => {}
            }
        }
        if depth > 0 {
            return Err("expected \")\"".to_owned());
        }
        Ok(Some(std::mem::take(&mut self.rest)))
    }
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let part = part.trim();
    let new = |key: &str, holds: Holds| {
        Ok(Requirement {
            key: checked_key(key.trim())?.to_owned(),
            holds,
        })
    };
    if let Some(list) = part.strip_suffix(')') {
        let (head, list) = list.split_once('(').ok_or("expected \"(\"")?;
        let mut words = head.split_whitespace();
        let (key, operator) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let values = list.split(',').map(|value| checked_value(value.trim()));
        let values: Vec<String> = values.collect::<Result<_, String>>()?;
        return match (operator, words.next()) {
            ("in", None) => new(key, Holds::In(values)),
            ("notin", None) => new(key, Holds::NotIn(values)),
            _ => Err(format!(
                "{part:?}: expected KEY in (A,B) or KEY notin (A,B)"
            )),
        };
    }
    if let Some(key) = part.strip_prefix('!') {
        return new(key, Holds::Missing);
    }
    for (sign, negated) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((key, value)) = part.split_once(sign) {
            let values = vec![checked_value(value.trim())?];
            let holds = if negated {
                Holds::NotIn(values)
            } else {
                Holds::In(values)
            };
            return new(key, holds);
        }
    }
    let than = |value: &str| {
        let value = value.trim();
        let number: Result<i64, _> = value.parse();
        number.map_err(|_| format!("{value:?} is not a number"))
    };
    if let Some((key, value)) = part.split_once('>') {
        return new(key, Holds::Greater(than(value)?));
    }
    if let Some((key, value)) = part.split_once('<') {
        return new(key, Holds::Less(than(value)?));
    }
    new(part, Holds::Exists)
}

/// A key is a name with an optional domain before it.
fn checked_key(key: &str) -> Result<&str, String> {
    let (domain, name) = key.rsplit_once('/').unwrap_or(("", key));
    let plain = |text: &str| text.bytes().all(is_name_byte);
    if name.is_empty() || !plain(name) || !plain(domain) || key.starts_with('/') {
        return Err(format!("{key:?} is not a label's key"));
    }
    Ok(key)
}

fn checked_value(value: &str) -> Result<String, String> {
    if value.bytes().all(is_name_byte) {
        Ok(value.to_owned())
    } else {
        Err(format!("{value:?} is not a label's value"))
    }
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, Requirement { key, holds }) in self.requirements.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match holds {
                Holds::Exists => write!(f, "{comma}{key}")?,
                Holds::Missing => write!(f, "{comma}!{key}")?,
                Holds::In(values) => write!(f, "{comma}{key} in ({})", values.join(","))?,
                Holds::NotIn(values) => write!(f, "{comma}{key} notin ({})", values.join(","))?,
                Holds::Greater(than) => write!(f, "{comma}{key}>{than}")?,
                Holds::Less(than) => write!(f, "{comma}{key}<{than}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let selector: LabelSelector = selector.parse().unwrap();
        assert_eq!(selector.to_string().parse(), Ok(selector.clone()));
        selector.selects(&labels)
    }

    #[test]
    fn each_form_selects_what_it_says() {
        let prod = [
            ("env", "prod"),
            ("app.example.org/tier", "2"),
            ("empty", ""),
        ];
        for yes in [
            "",
            "env",
            "!stage",
            "env=prod",
            "env == prod",
            "env!=test",
            "stage!=test",
            "env in (test, prod)",
            "env notin (test)",
            "stage notin (test)",
            "app.example.org/tier>1",
            "app.example.org/tier < 3",
            "empty=",
            "env in (prod,test),!stage,empty",
        ] {
            assert!(selects(yes, &prod), "{yes}");
        }
        for no in [
            "stage",
            "!env",
            "env=test",
            "stage=",
            "env!=prod",
            "env in (test)",
            "stage in (prod)",
            "env notin (test,prod)",
            "env>1",
            "stage<1",
            "app.example.org/tier>2",
            "env=prod,stage",
        ] {
            assert!(!selects(no, &prod), "{no}");
        }
    }

    #[test]
    fn nonsense_is_refused_with_a_reason() {
        for bad in [
            ",",
            "env,",
            "=prod",
            "env in prod",
            "env in (prod",
            "env prod)",
            "env of (prod)",
            "in (prod)",
            "env=a b",
            "env=a=b",
            "env>x",
            "!",
            "a b",
            "/env",
            "env in (a) x",
            "env in (a))",
            "env in really (a)",
        ] {
            let error = LabelSelector::from_str(bad).unwrap_err().to_string();
            assert!(error.starts_with("label selector \""), "{bad}: {error}");
        }
    }
}
