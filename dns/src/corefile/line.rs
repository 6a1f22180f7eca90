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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::corefile::parse;

    fn line(text: &str) -> Line {
        let corefile = parse(&format!(". {{\n{text}\n}}"), "Corefile", Path::new("")).unwrap();
        corefile.blocks[0].directives[0].clone()
    }

    fn said<T>(result: Result<T, ConfigError>) -> String {
        result.err().expect("an error").to_string()
    }

    #[test]
    fn helpers_take_what_is_allowed() {
        assert_eq!(line("loop").no_args(), Ok(()));
        assert_eq!(line("loop").no_body(), Ok(()));
        let ttl = line("ttl 3600");
        let [value] = ttl.exactly("seconds").unwrap();
        assert_eq!(value.number("ttl", 0_u32..=3600), Ok(3600));
        assert_eq!(
            line("a b c").between(1, 2, "names").map(<[Token]>::len),
            Ok(2)
        );
        assert_eq!(
            line("x 1m30s").args()[0].duration("it"),
            Ok(Duration::from_secs(90))
        );
        assert_eq!(line("x {\n a\n b\n}").options().len(), 2);
    }

    #[test]
    fn helpers_say_what_is_wrong_where() {
        let cases = [
            (
                said(line("loop a b").no_args()),
                "`loop` takes no argument, but has `a`",
            ),
            (
                said(line("loop {\n}").no_body()),
                "`loop` takes no block in braces",
            ),
            (
                said(line("ttl").exactly::<1>("seconds")),
                "`ttl` takes seconds, but has no argument",
            ),
            (
                said(line("a b").exactly::<2>("two")),
                "`a` takes two, but has one argument",
            ),
            (
                said(line("a b c d").between(0, 2, "a few")),
                "`a` takes a few, but has 3 arguments",
            ),
            (
                said(line("ttl 3601").args()[0].number("ttl", 0_u32..=3600)),
                "ttl must be a number from 0 to 3600, not `3601`",
            ),
            (
                said(line("ttl -1").args()[0].number("ttl", 0_u32..=3600)),
                "ttl must be a number from 0 to 3600, not `-1`",
            ),
            (
                said(line("lameduck 5").args()[0].duration("lameduck")),
                "lameduck must be a duration such as 30s, 1m30s or 500ms, but `5` has no unit",
            ),
            (
                line("suces 1")
                    .unknown_option(&["success", "denial"])
                    .to_string(),
                "unknown option `suces`; known are: success, denial",
            ),
            (
                line("x").unknown_option(&[]).to_string(),
                "unknown option `x`; there are none here",
            ),
        ];
        for (said, expected) in cases {
            assert_eq!(said, format!("Corefile:2: {expected}"));
        }
    }
}
