//! A line of a Corefile, and what every plugin does with the lines it is given.

use super::{ConfigError, Token};

/// A directive of a server block, or a line within a directive's braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The name and the arguments; at least the name.
    pub tokens: Vec<Token>,
    /// The lines within the braces, if there are braces.
    pub body: Option<Vec<Self>>,
}

impl Line {
    /// The first token: the name of the directive or option.
    pub fn name(&self) -> &Token {
        &self.tokens[0]
    }

    /// The tokens after the name.
    pub fn args(&self) -> &[Token] {
        self.tokens.get(1..).unwrap_or_default()
    }

    /// The lines within the braces; none without braces.
    pub fn options(&self) -> &[Self] {
        self.body.as_deref().unwrap_or_default()
    }

    /// An error at this line.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        self.name().error(message)
    }

    /// The error for a line whose name is none of `known`.
    pub fn unknown_option(&self, known: &[&str]) -> ConfigError {
        let known = if known.is_empty() {
            "there are none here".to_owned()
        } else {
            format!("known are: {}", known.join(", "))
        };
        self.error(format!("unknown option `{}`; {known}", self.name()))
    }

    /// Refuses arguments.
    ///
    /// # Errors
    /// When there is one.
    pub fn no_args(&self) -> Result<(), ConfigError> {
        match self.args() {
            [] => Ok(()),
            [first, ..] => Err(first.error(format!(
                "`{}` takes no argument, but has `{first}`",
                self.name()
            ))),
        }
    }

    /// Takes exactly `N` arguments. `what` describes them in the error: "a duration".
    ///
    /// # Errors
    /// When there are more or fewer.
    pub fn exactly<const N: usize>(&self, what: &str) -> Result<[&Token; N], ConfigError> {
        let args: Vec<&Token> = self.args().iter().collect();
        let count = args.len();
        <[&Token; N]>::try_from(args).map_err(|_| {
            self.error(format!(
                "`{}` takes {what}, but has {}",
                self.name(),
                arguments(count)
            ))
        })
    }

    /// Takes from `least` to `most` arguments. `what` describes them in the error.
    ///
    /// # Errors
    /// When there are more or fewer.
    pub fn between(&self, least: usize, most: usize, what: &str) -> Result<&[Token], ConfigError> {
        let args = self.args();
        if (least..=most).contains(&args.len()) {
            return Ok(args);
        }
        Err(self.error(format!(
            "`{}` takes {what}, but has {}",
            self.name(),
            arguments(args.len())
        )))
    }

    /// Refuses braces.
    ///
    /// # Errors
    /// When there are braces, even empty ones.
    pub fn no_body(&self) -> Result<(), ConfigError> {
        match &self.body {
            None => Ok(()),
            Some(_) => Err(self.error(format!("`{}` takes no block in braces", self.name()))),
        }
    }
}

fn arguments(count: usize) -> String {
    match count {
        0 => "no argument".to_owned(),
        1 => "one argument".to_owned(),
        more => format!("{more} arguments"),
    }
}
