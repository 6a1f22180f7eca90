use std::iter::Peekable;
use std::str::Chars;

/// A template in pieces.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    Text(String),
    /// What stands between `{{` and `}}`.
    Action(Vec<Lexeme>),
}

/// The words and signs of an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Lexeme {
    /// `.`
    Dot,
    /// `.A.B`
    Fields(Vec<String>),
    /// `$name.A.B`; the name is empty for `$`.
    Variable(String, Vec<String>),
    Word(String),
    Text(String),
    Number(i128),
    Open,
    /// `)` with `.A.B` right behind it.
    Close(Vec<String>),
    Pipe,
    /// `:=`
    Declare,
    /// `=`
    Assign,
    Comma,
}

/// Splits a template. The error is a sentence.
pub(super) fn scan(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim = false;
    loop {
        let (before, action) = match rest.split_once("{{") {
            Some((before, action)) => (before, Some(action)),
            None => (rest, None),
        };
        let mut before = if trim { before.trim_start() } else { before };
        let action = action.map(|action| match action.strip_prefix('-') {
            Some(trimmed) if trimmed.starts_with(char::is_whitespace) => {
                before = before.trim_end();
                trimmed
            }
            _ => action,
        });
        if !before.is_empty() {
            pieces.push(Piece::Text(before.to_owned()));
        }
        let Some(action) = action else {
            return Ok(pieces);
        };
        (rest, trim) = match action.trim_start().strip_prefix("/*") {
            Some(comment) => after_comment(comment)?,
            None => {
                let mut scanner = Scanner {
                    chars: action.chars().peekable(),
                };
                let (lexemes, trim) = scanner.action()?;
                pieces.push(Piece::Action(lexemes));
                // What the scanner has not taken, in octets.
                let left: usize = scanner.chars.map(char::len_utf8).sum();
                (action.get(action.len() - left..).unwrap_or_default(), trim)
            }
        };
    }
}

/// What follows a comment, and whether white space after it is trimmed.
fn after_comment(comment: &str) -> Result<(&str, bool), String> {
    let (_, after) = comment
        .split_once("*/")
        .ok_or("a comment is not closed by `*/`")?;
    let after = after.trim_start();
    let (after, trim) = after
        .strip_prefix('-')
        .map_or((after, false), |after| (after, true));
    let after = after
        .strip_prefix("}}")
        .ok_or("expected `}}` after a comment")?;
    Ok((after, trim))
}

struct Scanner<'t> {
    chars: Peekable<Chars<'t>>,
}

impl Scanner<'_> {
    /// Reads up to `}}`; says whether white space after it is to be trimmed.
    fn action(&mut self) -> Result<(Vec<Lexeme>, bool), String> {
        let mut lexemes = Vec::new();
        let mut after_space = true;
        loop {
            let Some(c) = self.chars.next() else {
                return Err("`{{` is not closed by `}}`".to_owned());
            };
            let space_before = std::mem::replace(&mut after_space, c.is_whitespace());
            let lexeme = match c {
                c if c.is_whitespace() => continue,
                '}' => return self.expect('}').map(|()| (lexemes, false)),
                '-' if space_before && self.chars.peek() == Some(&'}') => {
                    self.chars.next();
                    return self.expect('}').map(|()| (lexemes, true));
                }
                '.' if self.chars.peek().is_some_and(|&c| starts_word(c)) => {
                    Lexeme::Fields(self.fields('.')?)
                }
                '.' => Lexeme::Dot,
                '$' => {
                    let name = self.word(String::new());
                    Lexeme::Variable(name, self.fields_behind()?)
                }
                '(' => Lexeme::Open,
                ')' => Lexeme::Close(self.fields_behind()?),
                '|' => Lexeme::Pipe,
                ',' => Lexeme::Comma,
                '=' => Lexeme::Assign,
                ':' => self.expect('=').map(|()| Lexeme::Declare)?,
                '"' => Lexeme::Text(self.quoted()?),
                '`' => Lexeme::Text(self.raw()?),
                c if c.is_ascii_digit() || "+-".contains(c) => self.number(c)?,
                c if starts_word(c) => Lexeme::Word(self.word(c.to_string())),
                other => return Err(format!("unexpected `{other}` in an action")),
            };
            lexemes.push(lexeme);
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        match self.chars.next() {
            Some(c) if c == wanted => Ok(()),
            Some(other) => Err(format!("expected `{wanted}`, found `{other}`")),
            None => Err(format!("expected `{wanted}` before the end")),
        }
    }

    fn word(&mut self, mut word: String) -> String {
        while let Some(c) = self
            .chars
            .next_if(|&c| starts_word(c) || c.is_ascii_digit())
        {
            word.push(c);
        }
        word
    }

    /// `.A.B` right behind something else.
    fn fields_behind(&mut self) -> Result<Vec<String>, String> {
        match self.chars.next_if_eq(&'.') {
            Some(dot) => self.fields(dot),
            None => Ok(Vec::new()),
        }
    }

    /// The names after a dot, dots between them.
    fn fields(&mut self, _dot: char) -> Result<Vec<String>, String> {
        let mut fields = Vec::new();
        loop {
            let name = self.word(String::new());
            if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
                return Err(
                    "expected the name of a field after `.`; for a number, use `index`".to_owned(),
                );
            }
            fields.push(name);
            if self.chars.next_if_eq(&'.').is_none() {
                return Ok(fields);
            }
        }
    }

    fn number(&mut self, first: char) -> Result<Lexeme, String> {
        let text = self.word(first.to_string());
        let (sign, digits) = match text.split_at_checked(1) {
            Some(("-", digits)) => (-1, digits),
            Some(("+", digits)) => (1, digits),
            _ => (1, &*text),
        };
        let digits = digits.replace('_', "");
        let number = match digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
            Some(hex) => i128::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        let in_range = number.ok().filter(|number| u64::try_from(*number).is_ok());
        let fraction = self.chars.peek() == Some(&'.');
        match in_range.filter(|_| !fraction) {
            Some(number) => Ok(Lexeme::Number(sign * number)),
            None => Err(format!("`{text}` is not a whole number")),
        }
    }

    fn raw(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.chars.next() {
                Some('`') => return Ok(text),
                Some(c) => text.push(c),
                None => return Err("a string in backquotes is not closed".to_owned()),
            }
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.chars.next() {
                Some('"') => return Ok(text),
                Some('\\') => text.push(self.escape()?),
                Some(c) if c != '\n' => text.push(c),
                _ => return Err("a string is not closed".to_owned()),
            }
        }
    }

    fn escape(&mut self) -> Result<char, String> {
        match self.chars.next() {
            Some('n') => Ok('\n'),
            Some('t') => Ok('\t'),
            Some('r') => Ok('\r'),
            Some(c @ ('\\' | '"')) => Ok(c),
            Some(other) => Err(format!("`\\{other}` in a string is not supported")),
            None => Err("a string is not closed".to_owned()),
        }
    }
}

fn starts_word(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}
