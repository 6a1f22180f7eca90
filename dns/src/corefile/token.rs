//! The smallest piece of a Corefile, its place, and the error that names the place.

use std::fmt::{self, Display};
use std::ops::{Deref, RangeInclusive};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::duration;

/// A place in a configuration file. Shown as `Corefile:12`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Location {
    /// The file as it was named: on the command line, or by an `import`.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
}

impl Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A word or a quoted string of a Corefile, environment variables in place. Shown as its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// What is written, without quotes and escapes.
    pub text: Arc<str>,
    /// Where it begins.
    pub at: Location,
}

impl Token {
    /// An error at this token.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError {
            at: Some(self.at.clone()),
            message: message.into(),
        }
    }

    /// Reads the token as a duration in Go's form (`30s`, `1m30s`, `500ms`, `2.5s`, `0`).
    /// `what` names the value in the error.
    ///
    /// # Errors
    /// When it is none, is negative, or does not fit.
    pub fn duration(&self, what: &str) -> Result<Duration, ConfigError> {
        duration::parse(&self.text).map_err(|problem| {
            self.error(format!(
                "{what} must be a duration such as 30s, 1m30s or 500ms, but `{self}` {problem}"
            ))
        })
    }

    /// Reads the token as a whole number within `range`. `what` names the value in the error.
    ///
    /// # Errors
    /// When it is not a number, or is out of the range.
    pub fn number<N>(&self, what: &str, range: RangeInclusive<N>) -> Result<N, ConfigError>
    where
        N: FromStr + PartialOrd + Display,
    {
        self.text
            .parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                let (least, most) = (range.start(), range.end());
                self.error(format!(
                    "{what} must be a number from {least} to {most}, not `{self}`"
                ))
            })
    }
}

impl Deref for Token {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is wrong with a configuration, and where. Shown as `Corefile:12: message`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", match at { Some(at) => format!("{at}: "), None => String::new() })]
pub struct ConfigError {
    /// Where, if it has a place.
    pub at: Option<Location>,
    /// What was found, and what was expected.
    pub message: String,
}

impl ConfigError {
    /// An error without a place in a file.
    pub fn without_place(message: impl Into<String>) -> Self {
        Self {
            at: None,
            message: message.into(),
        }
    }
}
