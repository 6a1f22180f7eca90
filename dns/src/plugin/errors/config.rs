use std::time::Duration;

use regex::Regex;

use crate::corefile::{ConfigError, Line};
use crate::lines::Level;

/// The longest pattern taken, as in the reference.
const PATTERN_OCTETS_MAX: usize = 10_000;

/// Which errors are counted and not printed.
#[derive(Clone, Debug)]
pub(super) struct Consolidate {
    pub(super) period: Duration,
    pub(super) pattern: Regex,
    pub(super) level: Level,
    pub(super) show_first: bool,
}

/// Reads `errors`, with the patterns in their order.
pub(super) fn read(line: &Line) -> Result<Vec<Consolidate>, ConfigError> {
    if let Some(file) = line.between(0, 1, "nothing or `stdout`")?.first()
        && &**file != "stdout"
    {
        return Err(file.error(format!(
            "errors are printed to `stdout` only, not to `{file}`"
        )));
    }
    let mut patterns = Vec::new();
    for option in line.options() {
        option.no_body()?;
        match &**option.name() {
            "stacktrace" => option.no_args()?,
            "consolidate" => patterns.push(consolidate(option)?),
            _ => return Err(option.unknown_option(&["stacktrace", "consolidate"])),
        }
    }
    Ok(patterns)
}

fn consolidate(option: &Line) -> Result<Consolidate, ConfigError> {
    let what = "a duration, a regular expression, and perhaps a level and `show_first`";
    let args = option.between(2, 4, what)?;
    let [period, pattern, rest @ ..] = args else {
        return Err(option.error("`consolidate` is not complete"));
    };
    if pattern.len() > PATTERN_OCTETS_MAX {
        return Err(pattern.error(format!(
            "a pattern has at most {PATTERN_OCTETS_MAX} octets, this one {}",
            pattern.len()
        )));
    }
    let mut consolidate = Consolidate {
        period: period.duration("the period of `consolidate`")?,
        pattern: Regex::new(pattern).map_err(|problem| pattern.error(problem.to_string()))?,
        level: Level::Error,
        show_first: false,
    };
    for (index, arg) in rest.iter().enumerate() {
        consolidate.level = match &**arg {
            "show_first" => {
                consolidate.show_first = true;
                continue;
            }
            _ if index > 0 => {
                return Err(arg.error(format!(
                    "expected one level, and then `show_first`; found `{arg}`"
                )));
            }
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warning" => Level::Warning,
            "error" => Level::Error,
            _ => {
                return Err(arg.error(format!(
                    "`{arg}` is neither a level (warning, error, info, debug) nor `show_first`"
                )));
            }
        };
    }
    Ok(consolidate)
}
