//! The text of a file → the configuration, and everything that is wrong with it.

mod document;

use std::path::Path;

use serde_json::Value;
use serde_path_to_error::{Path as FieldPath, Segment};

use super::{API_VERSION, Configuration, KIND};

/// A bigger file is refused.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// A file that could be read, if with trouble.
#[derive(Clone, Debug, PartialEq)]
pub struct Read {
    /// What it says, and defaults for all else.
    pub configuration: Configuration,
    /// Fields that are unknown or given twice, by their paths, which do not count: the
    /// reference passes over them, too.
    pub passed_over: Vec<String>,
    /// Fields that can't be understood.
    pub troubles: Vec<Trouble>,
}

/// A field whose value is not what it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Path of the field; empty: the whole file.
    pub path: String,
    /// What is there.
    pub value: String,
    /// What should be.
    pub expected: String,
}

/// Reads a file.
///
/// # Errors
/// With what is wrong, if nothing can be known of what it means to say: it can't be read, is no
/// YAML (nor JSON, which is YAML), or something else than a [`Configuration`].
pub fn read(path: &Path) -> Result<Read, Vec<Trouble>> {
    let whole = |value: String, expected: &str| {
        vec![Trouble {
            path: String::new(),
            value,
            expected: expected.to_owned(),
        }]
    };
    let readable = "a configuration file that can be read";
    let size = std::fs::metadata(path).map_err(|error| whole(error.to_string(), readable))?;
    if size.len() > MAX_FILE_BYTES {
        return Err(whole(
            format!("{} bytes", size.len()),
            "a file of at most 1 MiB",
        ));
    }
    let text = std::fs::read_to_string(path);
    parse(&text.map_err(|error| whole(error.to_string(), readable))?)
}

/// Reads the text of a file.
fn parse(text: &str) -> Result<Read, Vec<Trouble>> {
    let trouble = |path: &str, value: String, expected: &str| Trouble {
        path: path.to_owned(),
        value,
        expected: expected.to_owned(),
    };
    let document = document::first(text).map_err(|error| vec![trouble("", error, "YAML")])?;
    let Value::Object(fields) = &document.value else {
        let found = document.value.to_string();
        return Err(vec![trouble("", found, "a KubeProxyConfiguration")]);
    };
    let wrong = [("apiVersion", API_VERSION), ("kind", KIND)].map(|(name, expected)| {
        let given = fields.get(name).map(shown).unwrap_or_default();
        (given != expected).then(|| trouble(name, given, expected))
    });
    let wrong: Vec<Trouble> = wrong.into_iter().flatten().collect();
    if wrong.is_empty() {
        Ok(decode(document.value, document.passed_over))
    } else {
        Err(wrong)
    }
}

/// Takes out what can't be understood until all the rest can.
fn decode(mut value: Value, mut passed_over: Vec<String>) -> Read {
    let mut troubles = Vec::new();
    without_nulls(&mut value);
    let mut configuration = loop {
        let error = match serde_path_to_error::deserialize(&value) {
            Ok(configuration) => break configuration,
            Err(error) => error,
        };
        let path = error.path().to_string();
        let Some(removed) = remove(&mut value, error.path()) else {
            // Can't be: an error is at a place of the value.
            troubles.push(Trouble {
                path,
                value: String::new(),
                expected: error.inner().to_string(),
            });
            break Configuration::default();
        };
        let message = error.inner().to_string();
        if message.starts_with("unknown field") {
            passed_over.push(path);
        } else if troubles
            .last()
            .is_none_or(|last: &Trouble| last.path != path)
        {
            troubles.push(Trouble {
                path,
                value: shown(&removed),
                expected: expected(&message).to_owned(),
            });
        }
    };
    Configuration::fill_in(&mut configuration);
    passed_over.sort();
    Read {
        configuration,
        passed_over,
        troubles,
    }
}

/// Go takes `null` for a field that is not given.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Takes the value at a path out; out of a list, so that the others keep their numbers.
fn remove(value: &mut Value, path: &FieldPath) -> Option<Value> {
    let segments: Vec<&Segment> = path.iter().collect();
    let (last, parents) = segments.split_last()?;
    let mut parent = value;
    for segment in parents {
        parent = match segment {
            Segment::Map { key } => parent.get_mut(key)?,
            Segment::Seq { index } => parent.get_mut(index)?,
            Segment::Enum { .. } | Segment::Unknown => return None,
        };
    }
    match (last, parent) {
        (Segment::Map { key }, Value::Object(fields)) => fields.remove(key),
        (Segment::Seq { index }, parent) => {
            let element = parent.get_mut(index)?;
            if element != "" {
                Some(std::mem::replace(element, Value::String(String::new())))
            } else {
                // Not even a text fits there: the whole list goes.
                Some(std::mem::replace(parent, Value::Array(Vec::new())))
            }
        }
        _ => None,
    }
}

/// A value as the operator wrote it, about.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What serde says it expected, in words that are not Rust's.
fn expected(message: &str) -> &str {
    match message
        .rsplit_once("expected ")
        .map_or(message, |(_, expected)| expected)
    {
        "a boolean" => "true or false",
        "i64" | "u8" => "a whole number",
        "a string" | "path string" => "text",
        "a sequence" => "a list",
        "a map" => "a section of fields",
        "a JSON number" => "a number",
        other => other,
    }
}

#[cfg(test)]
mod tests;
