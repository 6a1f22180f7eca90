//! The grammar as data, imports from real files, and what must hold for any text.

mod any_text;
mod grammar;
mod imports;
mod keys;
mod real;

use std::fmt::Write;
use std::path::Path;

use super::{Corefile, Line, Token, parser};

/// Parses with three variables set and no files.
fn parsed(text: &str) -> Result<Corefile, String> {
    parsed_in(text, Path::new("/nowhere"))
}

/// Parses as the file `Corefile` of `folder`.
fn parsed_in(text: &str, folder: &Path) -> Result<Corefile, String> {
    let env = |name: &str| match name {
        "ZONE" => Some("example.org".to_owned()),
        "PORT" => Some("1053".to_owned()),
        "BRACE" => Some("{".to_owned()),
        "SPACED" => Some("a b".to_owned()),
        _ => None,
    };
    parser::parse(text, "Corefile", folder, 1 << 20, &env).map_err(|error| error.to_string())
}

/// One line for a whole configuration: `[key key] name arg { name arg; }; | [key] …`.
fn shown(corefile: &Corefile) -> String {
    let block =
        |block: &super::Block| format!("[{}]{}", joined(&block.keys), lines(&block.directives));
    corefile
        .blocks
        .iter()
        .map(block)
        .collect::<Vec<_>>()
        .join(" | ")
}

fn lines(of: &[Line]) -> String {
    let mut out = String::new();
    for line in of {
        let body = line
            .body
            .as_ref()
            .map(|body| format!(" {{{} }}", lines(body)));
        write!(
            out,
            " {}{};",
            joined(&line.tokens),
            body.unwrap_or_default()
        )
        .unwrap();
    }
    out
}

fn joined(tokens: &[Token]) -> String {
    let word = |token: &Token| {
        let plain = !token.is_empty() && !token.contains([' ', '"', '\n', '{', '}', ';']);
        if plain {
            token.to_string()
        } else {
            format!("{:?}", &*token.text)
        }
    };
    tokens.iter().map(word).collect::<Vec<_>>().join(" ")
}
