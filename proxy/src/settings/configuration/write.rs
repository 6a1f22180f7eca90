use std::fmt::Write as _;

use serde_json::Value;

use super::Configuration;

/// The configuration as a file that [`super::read`] reads.
///
/// # Errors
/// None that can come from these types.
pub fn yaml(configuration: &Configuration) -> serde_json::Result<String> {
    let mut text = String::new();
    section(&mut text, &serde_json::to_value(configuration)?, 0);
    Ok(text)
}

/// The fields of an object or the elements of a list, one a line.
fn section(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                text.push_str(&indent);
                text.push_str(&scalar(&Value::String(name.clone())));
                text.push(':');
                below(text, value, depth + 1);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                text.push_str(&indent);
                text.push('-');
                below(text, element, depth + 1);
            }
        }
        _ => {}
    }
}

/// What comes after a colon or a dash: on the same line, or on lines of its own.
fn below(text: &mut String, value: &Value, depth: usize) {
    let is_empty = match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        _ => true,
    };
    if is_empty {
        // Writing to a String can't fail.
        let _ = writeln!(text, " {}", scalar(value));
    } else {
        text.push('\n');
        section(text, value, depth);
    }
}

/// JSON's spelling is YAML's, too; words that mean nothing else do without quotes.
fn scalar(value: &Value) -> String {
    const OTHER_MEANING: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    match value {
        Value::String(word)
            if word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
                && word
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
                && !OTHER_MEANING.contains(&word.to_ascii_lowercase().as_str()) =>
        {
            word.clone()
        }
        value => value.to_string(),
    }
}
