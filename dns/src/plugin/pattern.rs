use regex::Regex;

use crate::corefile::{ConfigError, Token};

/// The longest regular expression, in octets; the reference's limit.
const PATTERN_OCTETS_MAX: usize = 10_000;

/// Compiles a regular expression of the Corefile. The syntax is that of the `regex` crate, which
/// is Go's but for rarities: a `{` that begins no repetition must be escaped.
///
/// # Errors
/// When it is too long or not understood.
pub fn pattern(token: &Token) -> Result<Regex, ConfigError> {
    if token.len() > PATTERN_OCTETS_MAX {
        return Err(token.error(format!(
            "a regular expression has at most {PATTERN_OCTETS_MAX} octets, this one {}",
            token.len()
        )));
    }
    Regex::new(token).map_err(|problem| {
        // The last line is the message, the others show where.
        let problem = problem.to_string();
        let problem = problem
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ");
        token.error(format!("`{token}` is not a regular expression: {problem}"))
    })
}
