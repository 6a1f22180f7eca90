//! Tokens to blocks of lines.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::environment::Lookup;
use super::lexer::{Lexed, lex};
use super::{Block, ConfigError, Corefile, Line, Location, Token, hash, import};

/// How deep braces may stand in braces.
const NESTING_LIMIT: usize = 16;
/// How deep an import may stand in an import. Reached by one that imports itself.
const IMPORT_DEPTH_LIMIT: usize = 64;
/// Imports in all; the reference ends at as many of a snippet.
const IMPORTS_LIMIT: usize = 10_000;
/// Tokens in all, imports in place: snippets that import snippets twice grow fast.
const TOKENS_LIMIT: usize = 1 << 20;

/// Parses `text`; imports may have `budget` bytes.
pub(super) fn parse(
    text: &str,
    file: &str,
    folder: &Path,
    budget: u64,
    env: Lookup<'_>,
) -> Result<Corefile, ConfigError> {
    let size = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let mut parser = Parser {
        sources: Vec::new(),
        snippets: HashMap::new(),
        budget: budget.saturating_sub(size),
        imports: 0,
        taken: 0,
        env,
    };
    parser.enter(lex(text, &Arc::from(file), env)?.into(), folder.into(), 0);
    let mut blocks = Vec::new();
    while let Some(block) = parser.block()? {
        blocks.push(block);
    }
    let hash = hash::of(&blocks);
    Ok(Corefile { blocks, hash })
}

/// Tokens that are being read: of the file, of an imported file, or of a snippet.
struct Source {
    tokens: Rc<[Lexed]>,
    next: usize,
    /// Imports around it.
    depth: usize,
    /// Where its relative imports start from.
    folder: Rc<Path>,
}

/// A snippet: its lines as tokens, and the folder of the file it stands in.
struct Snippet {
    tokens: Rc<[Lexed]>,
    folder: Rc<Path>,
    at: Location,
}

struct Parser<'e> {
    /// The innermost import last.
    sources: Vec<Source>,
    snippets: HashMap<Arc<str>, Snippet>,
    /// Bytes that imports may still read.
    budget: u64,
    imports: usize,
    taken: usize,
    env: Lookup<'e>,
}

impl Parser<'_> {
    /// The next block; `None` at the end of the file. Snippets on the way are kept.
    fn block(&mut self) -> Result<Option<Block>, ConfigError> {
        loop {
            let (keys, opened) = self.keys()?;
            let Some(first) = keys.first() else {
                let Some(opened) = opened else {
                    return Ok(None);
                };
                return Err(ConfigError {
                    at: Some(opened),
                    message:
                        "expected what the server block serves (a zone such as `.`), found `{`"
                            .to_owned(),
                });
            };
            if let ([name], Some(snippet)) = (keys.as_slice(), snippet_name(first)) {
                let Some(opened) = opened else {
                    return Err(name.error(format!("expected `{{` after the snippet `{name}`")));
                };
                self.snippet(Arc::from(snippet), name, &opened)?;
                continue;
            }
            let directives = self.lines(opened.as_ref(), 0)?;
            return Ok(Some(Block { keys, directives }));
        }
    }

    /// The keys of a block, and where its brace was opened, if it was.
    fn keys(&mut self) -> Result<(Vec<Token>, Option<Location>), ConfigError> {
        let mut keys: Vec<Token> = Vec::new();
        let mut comma: Option<Token> = None;
        loop {
            let ends = match self.peek() {
                None => true,
                Some(next) if next.is("{") => false,
                Some(next) => next.starts_line && !keys.is_empty() && comma.is_none(),
            };
            if ends {
                return match comma {
                    Some(last) => Err(last.error("expected another key after the comma")),
                    None => Ok((keys, None)),
                };
            }
            let Some(next) = self.take()? else {
                return Ok((keys, None));
            };
            if next.is("{") {
                return match comma {
                    Some(last) => {
                        Err(last.error("expected another key after the comma, found `{`"))
                    }
                    None => Ok((keys, Some(next.token.at))),
                };
            }
            if next.is("}") {
                return Err(next.token.error("unexpected `}`: no block is open here"));
            }
            if next.is("import") && next.starts_line {
                self.import(&next.token)?;
                continue;
            }
            let brace = next.token.ends_with('{') || next.token.ends_with("{}");
            if next.plain && brace {
                let message = format!("expected spaces around the brace of `{}`", next.token);
                return Err(next.token.error(message));
            }
            comma = next.token.ends_with(',').then(|| next.token.clone());
            // An empty key comes of a variable that is not set.
            let names = next.token.split(',').filter(|name| !name.is_empty());
            keys.extend(names.map(|name| Token {
                text: name.into(),
                at: next.token.at.clone(),
            }));
        }
    }

    /// Keeps the snippet whose brace was just taken.
    fn snippet(
        &mut self,
        key: Arc<str>,
        name: &Token,
        opened: &Location,
    ) -> Result<(), ConfigError> {
        if let Some(first) = self.snippets.get(&key) {
            let first = &first.at;
            return Err(name.error(format!("the snippet `{key}` is already defined at {first}")));
        }
        let mut tokens = Vec::new();
        let mut open = 1_usize;
        loop {
            let Some(next) = self.take()? else {
                return Err(never_closed(opened));
            };
            if next.is("{") {
                open += 1;
            } else if next.is("}") {
                open -= 1;
                if open == 0 {
                    break;
                }
            }
            tokens.push(next);
        }
        if let Some(first) = tokens.first_mut() {
            first.starts_line = true;
        }
        let folder = self.folder();
        let snippet = Snippet {
            tokens: tokens.into(),
            folder,
            at: name.at.clone(),
        };
        self.snippets.insert(key, snippet);
        Ok(())
    }

    /// Lines up to the brace that closes them, or to the end of the file if none was opened.
    fn lines(&mut self, opened: Option<&Location>, depth: usize) -> Result<Vec<Line>, ConfigError> {
        let mut lines: Vec<Line> = Vec::new();
        let mut after_brace = false;
        loop {
            let Some(next) = self.take()? else {
                return match opened {
                    Some(opened) => Err(never_closed(opened)),
                    None => Ok(lines),
                };
            };
            if next.is("}") {
                return match opened {
                    Some(_) => Ok(lines),
                    None => Err(next.token.error("unexpected `}`: no block is open here")),
                };
            }
            if next.is("{") {
                let Some(line) = lines.last_mut().filter(|line| line.body.is_none()) else {
                    return Err(next
                        .token
                        .error("expected the name of a directive, found `{`"));
                };
                if depth == NESTING_LIMIT {
                    let message = format!("more than {NESTING_LIMIT} blocks within each other");
                    return Err(next.token.error(message));
                }
                line.body = Some(self.lines(Some(&next.token.at), depth + 1)?);
                after_brace = true;
                continue;
            }
            if after_brace && !next.starts_line {
                return Err(next.token.error(format!(
                    "expected a new line after `}}`, found `{next}`",
                    next = next.token
                )));
            }
            after_brace = false;
            if next.is("import") {
                self.import(&next.token)?;
            } else {
                lines.push(self.line(next.token)?);
            }
        }
    }

    /// The rest of the line that begins with `first`, up to a brace.
    fn line(&mut self, first: Token) -> Result<Line, ConfigError> {
        let mut tokens = vec![first];
        while self
            .peek()
            .is_some_and(|next| !next.starts_line && !next.is("{") && !next.is("}"))
        {
            tokens.extend(self.take()?.map(|next| next.token));
        }
        Ok(Line { tokens, body: None })
    }

    /// Puts what the rest of an import's line names in its place.
    fn import(&mut self, word: &Token) -> Result<(), ConfigError> {
        let line = self.line(word.clone())?;
        let [what] = line.exactly("the name of a snippet, a file or a pattern")?;
        if what.is_empty() {
            return Err(what.error(
                "`import` needs the name of a snippet, a file or a pattern, not an empty one",
            ));
        }
        if let Some(brace) = self.peek().filter(|next| next.is("{") && !next.starts_line) {
            return Err(brace.token.error("`import` takes no block in braces"));
        }
        self.imports += 1;
        if self.imports > IMPORTS_LIMIT {
            return Err(what.error(format!("more than {IMPORTS_LIMIT} imports in all")));
        }
        let depth = self.sources.last().map_or(0, |source| source.depth) + 1;
        if depth > IMPORT_DEPTH_LIMIT {
            return Err(what.error(format!(
                "more than {IMPORT_DEPTH_LIMIT} imports within each other; does `{what}` import itself?"
            )));
        }
        if let Some(snippet) = self.snippets.get(&what.text) {
            let (tokens, folder) = (Rc::clone(&snippet.tokens), Rc::clone(&snippet.folder));
            self.enter(tokens, folder, depth);
            return Ok(());
        }
        self.import_files(what, depth)
    }

    fn import_files(&mut self, what: &Token, depth: usize) -> Result<(), ConfigError> {
        let files = import::files(what, &self.folder()).map_err(|problem| {
            what.error(format!(
                "cannot import `{what}`: no snippet has this name, and {problem}"
            ))
        })?;
        if files.is_empty() {
            tracing::warn!("{}: no file is of the pattern `{what}`", what.at);
        }
        // The last goes in first, so that the first comes out first.
        for path in files.iter().rev() {
            let text = import::read(path, &mut self.budget)
                .map_err(|problem| what.error(format!("cannot import `{what}`: {problem}")))?;
            let tokens = lex(&text, &Arc::from(path.display().to_string()), self.env)?;
            let folder = path.parent().map(PathBuf::from).unwrap_or_default();
            self.enter(tokens.into(), folder.into(), depth);
        }
        Ok(())
    }

    /// Reads `tokens` before what is left.
    fn enter(&mut self, tokens: Rc<[Lexed]>, folder: Rc<Path>, depth: usize) {
        self.sources.push(Source {
            tokens,
            next: 0,
            depth,
            folder,
        });
    }

    /// The folder of the file that is being read.
    fn folder(&self) -> Rc<Path> {
        self.sources
            .last()
            .map_or_else(|| Path::new("").into(), |source| Rc::clone(&source.folder))
    }

    /// The next token. The first of an import starts a line, and so does the one after it: an
    /// import is a line of its own. Exhausted sources stay, so that the depth of imports counts.
    fn peek(&self) -> Option<&Lexed> {
        self.sources
            .iter()
            .rev()
            .find_map(|source| source.tokens.get(source.next))
    }

    /// Takes the next token.
    fn take(&mut self) -> Result<Option<Lexed>, ConfigError> {
        while let Some(source) = self.sources.last_mut() {
            if let Some(next) = source.tokens.get(source.next) {
                source.next += 1;
                self.taken += 1;
                if self.taken > TOKENS_LIMIT {
                    return Err(next
                        .token
                        .error(format!("more than {TOKENS_LIMIT} words in all")));
                }
                return Ok(Some(next.clone()));
            }
            self.sources.pop();
        }
        Ok(None)
    }
}

/// The name within `(name)`.
fn snippet_name(key: &str) -> Option<&str> {
    key.strip_prefix('(')?.strip_suffix(')')
}

fn never_closed(opened: &Location) -> ConfigError {
    let message = "the `{` opened here is never closed; expected `}` before the end of the file";
    ConfigError {
        at: Some(opened.clone()),
        message: message.to_owned(),
    }
}
