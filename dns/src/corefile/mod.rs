//! The configuration file, parsed: CoreDNS' Corefile as it is.
//!
//! [`load`] reads a file and everything it imports and gives [`Block`]s of [`Line`]s of
//! [`Token`]s. Nothing here knows a plugin: each reads its own lines, with the helpers of
//! [`Line`] and [`Token`], which make errors that name the file and the line.
//!
//! The grammar is that of the reference (coredns/caddy `caddyfile`):
//!
//! - A token is a run of characters without white space, or a string in `"`, in which `\"` is a
//!   quote, every other backslash stands for itself, and a newline may occur. There is no
//!   continuation of a line by a backslash.
//! - `#` begins a comment, which goes to the end of the line.
//! - A server block is its keys (separated by spaces, or by commas, after which a newline may
//!   follow), then `{`, lines, `}`. The last block of a file may do without the braces.
//! - `(name) { … }` keeps lines under a name; `import name` puts them in its place, and so
//!   does `import path`, with a path relative to the importing file and perhaps one `*` or `?`.
//! - `{$NAME}` and `{%NAME%}` anywhere in a token is the environment variable's value.
//!
//! Where we are more lenient: `{ … }` may be written on one line, `{` may stand on the line
//! after a directive, a quoted brace is an argument, and a snippet imported twice in a row does
//! not run together into one line. A comment that begins within a word goes to the end of the
//! line, too. Where we are stricter: a quoted string that is never closed and a `}` too many are
//! errors, a value from the environment is not expanded again.

mod duration;
mod environment;
mod hash;
mod import;
mod key;
mod lexer;
mod line;
mod parser;
mod token;
mod zones;

#[cfg(test)]
mod tests;

use std::path::Path;

pub use key::{ServerKey, Transport, check_duplicates, server_keys};
pub use line::Line;
pub use token::{ConfigError, Location, Token};
pub use zones::{reverse_zones, zone_name, zones_from_args};

/// Bytes of configuration that we read at most, all imports together.
pub const CONFIG_BYTES_LIMIT: u64 = 16 << 20;

/// A configuration file, with what it imports in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corefile {
    /// The server blocks, in the order of the file. None for an empty file.
    pub blocks: Vec<Block>,
    /// SHA-512 of the tokens and their structure, imports and environment in place: two files
    /// that differ in comments and white space alone have the same.
    pub hash: [u8; 64],
}

/// A server block: what it serves, and with which directives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The keys as written, without commas; at least one. [`server_keys`] reads them.
    pub keys: Vec<Token>,
    /// The directives in the order of the file.
    pub directives: Vec<Line>,
}

/// Reads and parses the configuration at `path`.
///
/// # Errors
/// When a file cannot be read, is not UTF-8 or is not a Corefile; with the place in it.
pub fn load(path: &Path) -> Result<Corefile, ConfigError> {
    let mut budget = CONFIG_BYTES_LIMIT;
    let text = import::read(path, &mut budget).map_err(ConfigError::without_place)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    parser::parse(
        &text,
        &path.display().to_string(),
        folder,
        budget,
        &environment::of_process,
    )
}

/// Parses `text`, which errors call `file` and whose relative imports start from `folder`.
///
/// # Errors
/// When it, or a file that it imports, is not a Corefile; with the place.
pub fn parse(text: &str, file: &str, folder: &Path) -> Result<Corefile, ConfigError> {
    parser::parse(
        text,
        file,
        folder,
        CONFIG_BYTES_LIMIT,
        &environment::of_process,
    )
}
