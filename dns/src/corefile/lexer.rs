//! Text to tokens.

use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

use super::environment::{self, Lookup};
use super::{ConfigError, Location, Token};

/// A token, with what the parser must know of how it was written.
#[derive(Debug, Clone)]
pub(super) struct Lexed {
    pub(super) token: Token,
    /// Whether it is the first token of its line.
    pub(super) starts_line: bool,
    /// Whether it stands in the text as it is: neither quoted nor with a variable in it. Only
    /// such a token can be a brace or the word `import`.
    pub(super) plain: bool,
}

impl Lexed {
    /// Whether this is the word or sign `text` of the grammar.
    pub(super) fn is(&self, text: &str) -> bool {
        self.plain && &*self.token.text == text
    }
}

/// Splits `text` into tokens, variables in place.
pub(super) fn lex(text: &str, file: &Arc<str>, env: Lookup<'_>) -> Result<Vec<Lexed>, ConfigError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lexer = Lexer {
        chars: text.chars().peekable(),
        file,
        line: 1,
    };
    let mut tokens = Vec::new();
    let mut starts_line = true;
    while let Some(&c) = lexer.chars.peek() {
        if c == '\n' {
            starts_line = true;
            lexer.take();
        } else if c.is_whitespace() {
            lexer.take();
        } else if c == '#' {
            lexer.take_while(|c| c != '\n');
        } else {
            let at = Location {
                file: Arc::clone(file),
                line: lexer.line,
            };
            let (raw, quoted) = if c == '"' {
                (lexer.quoted(&at)?, true)
            } else {
                (lexer.take_while(|c| c != '#' && !c.is_whitespace()), false)
            };
            let expanded = environment::expand(&raw, env);
            let plain = !quoted && expanded.is_none();
            let text = Arc::from(expanded.unwrap_or(raw));
            tokens.push(Lexed {
                token: Token { text, at },
                starts_line,
                plain,
            });
            starts_line = false;
        }
    }
    Ok(tokens)
}

struct Lexer<'t> {
    chars: Peekable<Chars<'t>>,
    file: &'t Arc<str>,
    line: u32,
}

impl Lexer<'_> {
    fn take(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.line = self.line.saturating_add(1);
        }
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.chars.next_if(|&c| wanted(c)) {
            taken.push(c);
        }
        taken
    }

    /// The string that begins here. A backslash escapes a quote and nothing else: patterns and
    /// templates are full of backslashes that are not ours.
    fn quoted(&mut self, opened: &Location) -> Result<String, ConfigError> {
        self.take();
        let mut text = String::new();
        while let Some(c) = self.take() {
            match c {
                '"' => return Ok(text),
                '\\' => match self.take() {
                    Some('"') => text.push('"'),
                    Some(other) => text.extend(['\\', other]),
                    None => break,
                },
                other => text.push(other),
            }
        }
        let message = format!(
            "the string that begins here is never closed; expected another `\"` before the end of {}",
            self.file
        );
        Err(ConfigError {
            at: Some(opened.clone()),
            message,
        })
    }
}
