//! A record written as in a zone file.
//!
//! The reader of zone files in `domain` 0.12 panics when a parenthesis is not closed, and takes
//! `a..b` for a name. Our release build aborts on a panic, so text is first split into words
//! here, and only what is well-formed so far, on one line, is given to it.

use std::iter::Peekable;
use std::str::Chars;

use domain::base::Name as ZoneName;
use domain::base::iana::Class as ZoneClass;
use domain::base::name::ToName;
use domain::base::rdata::ComposeRecordData;
use domain::zonefile::inplace::{Entry, Zonefile};

use crate::wire::{Class, Name, Record, Rtype};

/// The longest text of a record, in octets: twice the longest message.
const TEXT_OCTETS_MAX: usize = 128 << 10;
/// The longest word: what RDATA can hold, with every octet escaped.
const WORD_OCTETS_MAX: usize = 64 << 10;

/// Reads the first record of a text as a zone file has it (RFC 1035 §5.1). Names are relative to
/// the root, the class is IN and the TTL an hour unless given. `None` for a text that says
/// nothing.
///
/// # Errors
/// A sentence about what is no record.
pub fn record_from_text(text: &str) -> Result<Option<Record>, String> {
    let wrong = |problem: &str| format!("`{text}` is not a record: {problem}");
    if text.len() > TEXT_OCTETS_MAX {
        return Err(format!("a record of more than {TEXT_OCTETS_MAX} octets"));
    }
    let words = words(text).map_err(wrong)?;
    if words.is_empty() {
        return Ok(None);
    }
    let line = words.join(" ");
    let mut zone = Zonefile::with_capacity(line.len() + 1).allow_invalid();
    zone.extend_from_slice(line.as_bytes());
    zone.extend_from_slice(b"\n");
    zone.set_origin(ZoneName::root_bytes());
    zone.set_default_class(ZoneClass::IN);
    let record = match zone.next_entry() {
        Ok(Some(Entry::Record(record))) => record,
        Ok(_) => return Err(wrong("expected a name, a type and data")),
        Err(problem) => return Err(wrong(&problem.to_string())),
    };
    let rtype = Rtype(record.rtype().to_int());
    let free_text = matches!(rtype, Rtype::TXT | Rtype::SPF | Rtype::HINFO);
    // The owner is a name whatever the type is.
    let names = if free_text {
        words.get(..1).unwrap_or_default()
    } else {
        &words
    };
    if names.iter().any(|word| has_empty_label(word)) {
        return Err(wrong("a name has an empty label"));
    }
    let no_room = |_| wrong("it is too long");
    let (mut owner, mut data) = (Vec::new(), Vec::new());
    record.owner().compose(&mut owner).map_err(no_room)?;
    record.data().compose_rdata(&mut data).map_err(no_room)?;
    u16::try_from(data.len()).map_err(|_| wrong("it is too long"))?;
    let (owner, _) = Name::read_plain(&owner, 0).map_err(|problem| wrong(&problem.to_string()))?;
    Ok(Some(Record {
        owner,
        rtype,
        class: Class(record.class().to_int()),
        ttl: record.ttl().as_secs(),
        data,
    }))
}

/// Checks what the reader of zone files must not be given: parentheses and quotes that are not
/// closed.
///
/// # Errors
/// A sentence with the line in front: `12: a `(` is not closed`.
pub fn check_zone_text(text: &str) -> Result<(), String> {
    let mut scanner = Scanner::new(text);
    while scanner
        .next_piece()
        .map_err(|problem| format!("{}: {problem}", scanner.begun))?
        .is_some()
    {}
    Ok(())
}

/// The words of the first line that has any: parentheses join lines, comments go. Quotes and
/// escapes stay as they are.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut scanner = Scanner::new(text);
    let mut words = Vec::new();
    while let Some(piece) = scanner.next_piece()? {
        match piece {
            Piece::Word(word) if word.len() > WORD_OCTETS_MAX => return Err("a word is too long"),
            Piece::Word(word) if word.contains('\n') => return Err("a line ends within quotes"),
            Piece::Word(word) => words.push(word),
            // The rest only has to be well-formed, so that it is not taken for this record's.
            Piece::LineEnd if words.is_empty() => {}
            Piece::LineEnd => break,
        }
    }
    Ok(words)
}

enum Piece {
    Word(String),
    /// Outside parentheses.
    LineEnd,
}

struct Scanner<'t> {
    chars: Peekable<Chars<'t>>,
    line: u32,
    depth: u32,
    /// The line where the word, or the outermost parenthesis, began.
    begun: u32,
}

impl<'t> Scanner<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            chars: text.chars().peekable(),
            line: 1,
            depth: 0,
            begun: 1,
        }
    }

    fn next_piece(&mut self) -> Result<Option<Piece>, &'static str> {
        while let Some(c) = self.chars.next() {
            if self.depth == 0 {
                self.begun = self.line;
            }
            match c {
                '\n' => {
                    self.line += 1;
                    if self.depth == 0 {
                        return Ok(Some(Piece::LineEnd));
                    }
                }
                c if c.is_whitespace() => {}
                ';' => while self.chars.next_if(|&c| c != '\n').is_some() {},
                '(' => self.depth += 1,
                ')' => self.depth = self.depth.checked_sub(1).ok_or("a `)` without `(`")?,
                first => return self.word(first).map(|word| Some(Piece::Word(word))),
            }
        }
        if self.depth > 0 {
            Err("a `(` is not closed")
        } else {
            Ok(None)
        }
    }

    fn word(&mut self, first: char) -> Result<String, &'static str> {
        let mut word = first.to_string();
        let mut escaped = first == '\\';
        let quoted = first == '"';
        loop {
            let ends = |c: char| c.is_whitespace() || "();\"".contains(c);
            let Some(c) = self.chars.next_if(|&c| quoted || escaped || !ends(c)) else {
                return match (quoted, escaped) {
                    (true, _) => Err("a `\"` is not closed"),
                    (_, true) => Err("a `\\` escapes nothing"),
                    _ => Ok(word),
                };
            };
            self.line += u32::from(c == '\n');
            word.push(c);
            if quoted && !escaped && c == '"' {
                return Ok(word);
            }
            escaped = c == '\\' && !escaped;
        }
    }
}

/// Whether two dots stand side by side, or one in front.
fn has_empty_label(word: &str) -> bool {
    let (mut escaped, mut after_dot) = (false, true);
    if word == "." || word.starts_with('"') {
        return false;
    }
    for c in word.chars() {
        if c == '.' && !escaped && after_dot {
            return true;
        }
        after_dot = c == '.' && !escaped;
        escaped = c == '\\' && !escaped;
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_read_as_a_zone_file_has_them() {
        let cases = [
            ("a 60 IN A 10.0.0.1", "a. 60 IN A"),
            ("a.example. IN 60 A 10.0.0.1", "a.example. 60 IN A"),
            ("a A 10.0.0.1 ; comment", "a. 3600 IN A"),
            ("a 1 CH TXT \"x y\" z", "a. 1 CH TXT"),
            ("a 1 IN SOA ns.a h.a (1\n 60 60\n 60 60)", "a. 1 IN SOA"),
            ("a 1 IN SRV 1 2 3 b", "a. 1 IN SRV"),
            ("a 1 IN TYPE65280 \\# 2 abcd", "a. 1 IN TYPE65280"),
            ("*.a 1 IN CNAME b.", "*.a. 1 IN CNAME"),
            ("\n\n a A 10.0.0.1\nb A 10.0.0.2", "a. 3600 IN A"),
            ("a TXT x..y ..", "a. 3600 IN TXT"),
            ("a\\..b A 10.0.0.1", "a\\..b. 3600 IN A"),
            (". NS a", ". 3600 IN NS"),
        ];
        for (text, expected) in cases {
            let record = record_from_text(text).unwrap().unwrap();
            let shown = format!(
                "{} {} {} {}",
                record.owner, record.ttl, record.class, record.rtype
            );
            assert_eq!(shown, expected, "{text}");
        }
        for nothing in ["", "  ", "\n", "; comment"] {
            assert_eq!(record_from_text(nothing), Ok(None), "{nothing}");
        }
        for wrong in [
            "a",
            "a IN A",
            "a IN A 10.0.0",
            "a IN A 10.0.0.1 x",
            "$INCLUDE /etc/passwd",
            "a (IN A 10.0.0.1",
            "a IN A 10.0.0.1)",
            "a TXT \"x",
            "a TXT x\\",
            ".a A 10.0.0.1",
            "a CNAME b..c",
            "a TXT \"x\ny\"",
            "a..b A 10.0.0.1",
            "a NOTYPE x",
        ] {
            assert!(record_from_text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn zone_text_that_is_not_closed_is_refused_with_its_line() {
        for good in [
            "",
            "a A 10.0.0.1\n",
            "a TXT (\n \"x\n(\" ; (\n )\nb TXT \\(\n",
            "; \"\n",
        ] {
            assert_eq!(check_zone_text(good), Ok(()), "{good}");
        }
        let cases = [
            ("a A 1\nb SOA (\n1 2\n", "2: a `(` is not closed"),
            ("a A 1\n)\n", "2: a `)` without `(`"),
            ("\n\na TXT \"x\ny", "3: a `\"` is not closed"),
            ("a TXT x\\", "1: a `\\` escapes nothing"),
        ];
        for (text, expected) in cases {
            assert_eq!(
                check_zone_text(text).as_ref().map_err(String::as_str),
                Err(expected),
                "{text}"
            );
        }
    }

    fn pieces() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "a", "IN", "CH", "60", "A", "AAAA", "TXT", "SOA", "MX", "SRV", "CAA", "NAPTR", "HTTPS",
            "TYPE1", "10.0.0.1", "::1", "\"", "\\", "\\#", "(", ")", ";", "\n", "$TTL", "$ORIGIN",
            ".", "..", "@", "1", "alpn=h2", "\\300", "\u{e9}",
        ]);
        prop::collection::vec((word, prop::sample::select(vec![" ", "", "\t"])), 0..12).prop_map(
            |words| {
                words
                    .into_iter()
                    .flat_map(|(word, space)| [word, space])
                    .collect()
            },
        )
    }

    proptest! {
        // A client can put its words into a record: the process must survive them.
        #[test]
        fn no_text_makes_the_reader_of_records_panic(text in any::<String>()) {
            let _ = record_from_text(&text);
        }

        #[test]
        fn checked_zone_text_does_not_make_the_reader_of_zone_files_panic(text in pieces()) {
            if check_zone_text(&text).is_ok() {
                let mut zone = Zonefile::from(&*(text + "\n"));
                zone.set_origin(ZoneName::root_bytes());
                zone.set_default_class(ZoneClass::IN);
                while let Ok(Some(_)) = zone.next_entry() {}
            }
        }

        #[test]
        fn pieces_of_records_do_not_make_it_panic(text in pieces()) {
            let _ = record_from_text(&text);
        }
    }
}
