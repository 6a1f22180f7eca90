//! What must hold for any text: no panic, and what was read can be written and read again.

use std::fmt::Write;

use proptest::prelude::*;

use super::super::{Corefile, Line, Token, check_duplicates};
use super::{parsed, shown};

/// Writes a word so that it reads as itself.
fn word(token: &Token) -> String {
    let text = &*token.text;
    let special = ["", "{", "}", "import"].contains(&text)
        || text.starts_with('"')
        || text.ends_with('{')
        || text.ends_with("{}")
        || text.contains(|c: char| c == '#' || c.is_whitespace());
    if !special {
        return text.to_owned();
    }
    let mut out = "\"".to_owned();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.extend([Some(c), chars.next()].into_iter().flatten()),
            _ => out.push(c),
        }
    }
    out + "\""
}

fn write_lines(lines: &[Line], out: &mut String) {
    for line in lines {
        let words: Vec<_> = line.tokens.iter().map(word).collect();
        out.push_str(&words.join(" "));
        if let Some(body) = &line.body {
            out.push_str(" {\n");
            write_lines(body, out);
            out.push('}');
        }
        out.push('\n');
    }
}

fn written(corefile: &Corefile) -> String {
    // A newline first, so that no byte order mark can be.
    let mut out = "\n".to_owned();
    for block in &corefile.blocks {
        let keys: Vec<_> = block.keys.iter().map(word).collect();
        writeln!(out, "{} {{", keys.join(" ")).unwrap();
        write_lines(&block.directives, &mut out);
        out.push_str("}\n");
    }
    out
}

/// Pieces that mean something to the parser, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => Just(" ".to_owned()),
        3 => Just("\n".to_owned()),
        4 => "[a-z.:/0-9]{1,6}",
        2 => Just(" { ".to_owned()),
        2 => Just(" }\n".to_owned()),
        1 => prop::sample::select(vec!["(s)", "import s", "\nimport s\n", "\"", "\\", "\\\"", "#", ",", "\r\n", "{{", "}}", "\u{a0}", "\u{feff}", "\"\"", "\"a b\"", "\"{\"", "import"]).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = parsed(&text);
    }

    #[test]
    fn pieces_in_any_order_do_not_make_it_panic(text in pieces(), extra in "(\\{\\$[A-Z]{0,4}\\}?|\\{%[A-Z]{0,4}%?\\}?)?") {
        if let Ok(corefile) = parsed(&(text + &extra)) {
            let _ = check_duplicates(&corefile, 53);
        }
    }

    #[test]
    fn what_was_read_reads_the_same_when_it_is_written(text in pieces()) {
        if let Ok(corefile) = parsed(&text) {
            let text = written(&corefile);
            let again = parsed(&text);
            prop_assert_eq!(again.as_ref().map(shown), Ok(shown(&corefile)), "{}", &text);
            prop_assert_eq!(again.unwrap().hash, corefile.hash);
        }
    }
}
