use super::Value;
use super::functions::Function;
use super::scan::{Lexeme, Piece};
use super::value::{Kind, Object};

/// How deep parentheses and blocks may stand in each other.
const NESTING_LIMIT: usize = 32;

/// A part of a template.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Text(String),
    Action(Pipe),
    If {
        arms: Vec<(Pipe, Vec<Node>)>,
        otherwise: Vec<Node>,
    },
    With {
        pipe: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        pipe: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// `$x := a | b | c`
#[derive(Clone, Debug)]
pub(super) struct Pipe {
    /// Names of variables that take the value; two in a `range`.
    pub(super) names: Vec<String>,
    /// Whether the variables are new.
    pub(super) declares: bool,
    pub(super) commands: Vec<Command>,
}

/// A value, or a call.
#[derive(Clone, Debug)]
pub(super) enum Command {
    Term(Term),
    Call(Function, Vec<Term>),
    /// `.Meta name`: empty, as without the `metadata` plugin.
    Metadata(Vec<Term>),
}

#[derive(Clone, Debug)]
pub(super) enum Term {
    Dot,
    Literal(Value),
    Variable(String),
    Fields(Box<Term>, Vec<String>),
    Pipe(Box<Pipe>),
}

/// What ends a list of nodes.
enum Ending {
    Text,
    End,
    Else,
    ElseIf(Vec<Lexeme>),
}

/// Reads the pieces of a template. The error is a sentence.
pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, String> {
    let mut parser = Parser {
        pieces: pieces.into_iter(),
        variables: Vec::new(),
        dot_is_root: true,
        depth: 0,
    };
    match parser.list()? {
        (nodes, Ending::Text) => Ok(nodes),
        (_, Ending::End) => Err("`end` without `if`, `with` or `range`".to_owned()),
        (_, Ending::Else | Ending::ElseIf(_)) => {
            Err("`else` without `if`, `with` or `range`".to_owned())
        }
    }
}

struct Parser {
    pieces: std::vec::IntoIter<Piece>,
    /// Those that are declared here.
    variables: Vec<String>,
    /// Whether `.` is what the template began with; `with` and `range` change it.
    dot_is_root: bool,
    depth: usize,
}

impl Parser {
    fn list(&mut self) -> Result<(Vec<Node>, Ending), String> {
        self.depth += 1;
        if self.depth > NESTING_LIMIT {
            return Err(format!(
                "more than {NESTING_LIMIT} blocks within each other"
            ));
        }
        let declared = self.variables.len();
        let mut nodes = Vec::new();
        let mut end = Ending::Text;
        while let Some(piece) = self.pieces.next() {
            let lexemes = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(lexemes) => lexemes,
            };
            match word_at_start(&lexemes) {
                Some("if") => nodes.push(self.if_block(lexemes)?),
                Some(word @ ("with" | "range")) => {
                    let range = word == "range";
                    nodes.push(self.block(lexemes, range)?);
                }
                Some("end") => end = Ending::End,
                Some("else") => match lexemes.get(1) {
                    None => end = Ending::Else,
                    Some(Lexeme::Word(word)) if word == "if" => {
                        end = Ending::ElseIf(lexemes.get(1..).unwrap_or_default().to_vec());
                    }
                    Some(_) => return Err("expected nothing or `if` after `else`".to_owned()),
                },
                Some(word @ ("define" | "block" | "template" | "break" | "continue")) => {
                    return Err(format!("`{word}` is not supported"));
                }
                _ => nodes.push(Node::Action(self.whole_pipe(lexemes)?)),
            }
            if !matches!(end, Ending::Text) {
                break;
            }
        }
        self.variables.truncate(declared);
        self.depth -= 1;
        Ok((nodes, end))
    }

    fn if_block(&mut self, lexemes: Vec<Lexeme>) -> Result<Node, String> {
        let declared = self.variables.len();
        let mut arms = Vec::new();
        let mut lexemes = lexemes;
        let otherwise = loop {
            let pipe = self.whole_pipe(lexemes.split_off(1))?;
            let (body, end) = self.list()?;
            arms.push((pipe, body));
            match end {
                Ending::End => break Vec::new(),
                Ending::Else => break self.rest_after_else()?,
                Ending::ElseIf(next) => lexemes = next,
                Ending::Text => return Err("`if` without `end`".to_owned()),
            }
        };
        self.variables.truncate(declared);
        Ok(Node::If { arms, otherwise })
    }

    fn block(&mut self, mut lexemes: Vec<Lexeme>, range: bool) -> Result<Node, String> {
        let declared = self.variables.len();
        let pipe = self.pipe(
            &mut lexemes.split_off(1).into_iter().peekable(),
            range,
            false,
        )?;
        let dot_is_root = std::mem::replace(&mut self.dot_is_root, false);
        let (body, end) = self.list()?;
        self.dot_is_root = dot_is_root;
        let otherwise = match end {
            Ending::End => Vec::new(),
            Ending::Else => self.rest_after_else()?,
            Ending::ElseIf(_) => return Err("`else if` belongs to `if`".to_owned()),
            Ending::Text => return Err("`with` or `range` without `end`".to_owned()),
        };
        self.variables.truncate(declared);
        Ok(if range {
            Node::Range {
                pipe,
                body,
                otherwise,
            }
        } else {
            Node::With {
                pipe,
                body,
                otherwise,
            }
        })
    }

    fn rest_after_else(&mut self) -> Result<Vec<Node>, String> {
        match self.list()? {
            (nodes, Ending::End) => Ok(nodes),
            _ => Err("`else` without `end`".to_owned()),
        }
    }

    fn whole_pipe(&mut self, lexemes: Vec<Lexeme>) -> Result<Pipe, String> {
        self.pipe(&mut lexemes.into_iter().peekable(), false, false)
    }

    /// Reads a pipeline to its end, or to the parenthesis that closes it.
    fn pipe(&mut self, lexemes: &mut Lexemes, range: bool, within: bool) -> Result<Pipe, String> {
        let (names, declares) = variables_at_start(lexemes, range)?;
        let mut commands = Vec::new();
        loop {
            let command = self.command(lexemes, commands.is_empty())?;
            commands.push(command);
            match lexemes.peek() {
                Some(Lexeme::Pipe) => {
                    lexemes.next();
                }
                Some(Lexeme::Close(_)) if within => break,
                None if !within => break,
                None => return Err("`(` is not closed".to_owned()),
                Some(other) => return Err(format!("unexpected {other:?}")),
            }
        }
        if declares {
            self.variables.extend(names.iter().cloned());
        } else if let Some(unknown) = names.iter().find(|name| !self.variables.contains(name)) {
            return Err(format!("there is no variable ${unknown}"));
        }
        Ok(Pipe {
            names,
            declares,
            commands,
        })
    }

    fn command(&mut self, lexemes: &mut Lexemes, first: bool) -> Result<Command, String> {
        let piped = usize::from(!first);
        let function = match lexemes.peek() {
            Some(Lexeme::Word(word)) if !["true", "false", "nil"].contains(&&**word) => {
                Some(Function::named(word)?)
            }
            _ => None,
        };
        if let Some(function) = function {
            lexemes.next();
            let args = self.terms(lexemes)?;
            let (least, most) = function.arity();
            if !(least..=most).contains(&(args.len() + piped)) {
                return Err(format!(
                    "{function:?} does not take {} arguments",
                    args.len() + piped
                ));
            }
            return Ok(Command::Call(function, args));
        }
        if let Some(Lexeme::Fields(fields)) = lexemes.peek()
            && self.dot_is_root
            && let [meta] = fields.as_slice()
            && Object::Root.kind(meta) == Ok(Kind::Metadata)
        {
            lexemes.next();
            let args = self.terms(lexemes)?;
            if args.len() + piped != 1 {
                return Err(".Meta takes one argument, a name".to_owned());
            }
            return Ok(Command::Metadata(args));
        }
        let mut terms = self.terms(lexemes)?;
        match (terms.pop(), terms.is_empty(), first) {
            (Some(term), true, true) => Ok(Command::Term(term)),
            (None, ..) => Err("expected a value".to_owned()),
            (Some(_), true, false) => Err("only a function can follow `|`".to_owned()),
            (Some(_), false, _) => Err("something that is no function has arguments".to_owned()),
        }
    }

    fn terms(&mut self, lexemes: &mut Lexemes) -> Result<Vec<Term>, String> {
        let mut terms = Vec::new();
        while let Some(lexeme) =
            lexemes.next_if(|next| !matches!(next, Lexeme::Pipe | Lexeme::Close(_)))
        {
            terms.push(self.term(lexeme, lexemes)?);
        }
        Ok(terms)
    }

    fn term(&mut self, lexeme: Lexeme, lexemes: &mut Lexemes) -> Result<Term, String> {
        match lexeme {
            Lexeme::Dot => Ok(Term::Dot),
            Lexeme::Text(text) => Ok(Term::Literal(Value::text(&text))),
            Lexeme::Number(number) => Ok(Term::Literal(Value::Number(number))),
            Lexeme::Word(word) => match &*word {
                "true" => Ok(Term::Literal(Value::Truth(true))),
                "false" => Ok(Term::Literal(Value::Truth(false))),
                "nil" => Ok(Term::Literal(Value::Nothing)),
                // A function without arguments would have to be in parentheses.
                other => Err(format!(
                    "unexpected `{other}`; a call as argument needs parentheses"
                )),
            },
            Lexeme::Fields(fields) => {
                if self.dot_is_root {
                    check_fields(&fields)?;
                }
                Ok(Term::Fields(Box::new(Term::Dot), fields))
            }
            Lexeme::Variable(name, fields) => {
                if name.is_empty() {
                    check_fields(&fields)?;
                } else if !self.variables.contains(&name) {
                    return Err(format!("there is no variable ${name}"));
                }
                Ok(with_fields(Term::Variable(name), fields))
            }
            Lexeme::Open => {
                self.depth += 1;
                if self.depth > NESTING_LIMIT {
                    return Err(format!(
                        "more than {NESTING_LIMIT} parentheses within each other"
                    ));
                }
                let pipe = self.pipe(lexemes, false, true)?;
                self.depth -= 1;
                match lexemes.next() {
                    Some(Lexeme::Close(fields)) => {
                        Ok(with_fields(Term::Pipe(Box::new(pipe)), fields))
                    }
                    _ => Err("`(` is not closed".to_owned()),
                }
            }
            other => Err(format!("unexpected {other:?}")),
        }
    }
}

type Lexemes = std::iter::Peekable<std::vec::IntoIter<Lexeme>>;

fn word_at_start(lexemes: &[Lexeme]) -> Option<&str> {
    match lexemes.first() {
        Some(Lexeme::Word(word)) => Some(word),
        _ => None,
    }
}

fn with_fields(term: Term, fields: Vec<String>) -> Term {
    if fields.is_empty() {
        term
    } else {
        Term::Fields(Box::new(term), fields)
    }
}

/// `$x :=`, `$x =`, and in a `range` also `$i, $x :=`. The rest is put back.
fn variables_at_start(lexemes: &mut Lexemes, range: bool) -> Result<(Vec<String>, bool), String> {
    let ahead: Vec<_> = lexemes.clone().take(4).collect();
    let plain = |lexeme: &Lexeme| match lexeme {
        Lexeme::Variable(name, fields) if !name.is_empty() && fields.is_empty() => {
            Some(name.clone())
        }
        _ => None,
    };
    let (names, sign) = match ahead.as_slice() {
        [one, sign @ (Lexeme::Declare | Lexeme::Assign), ..] => (vec![plain(one)], sign),
        [
            one,
            Lexeme::Comma,
            two,
            sign @ (Lexeme::Declare | Lexeme::Assign),
        ] if range => (vec![plain(one), plain(two)], sign),
        _ => return Ok((Vec::new(), true)),
    };
    let taken = names.len() * 2;
    let Some(names) = names.into_iter().collect::<Option<Vec<_>>>() else {
        return Err("expected a variable before `:=`".to_owned());
    };
    lexemes.nth(taken - 1);
    Ok((names, *sign == Lexeme::Declare))
}

/// Whether the root has these fields, one within the other.
fn check_fields(fields: &[String]) -> Result<(), String> {
    let mut kind = Kind::Object(Object::Root);
    for field in fields {
        kind = match kind {
            Kind::Object(object) => object.kind(field)?,
            Kind::Map => Kind::Plain,
            Kind::Plain => return Err(format!("there is no field .{field} in a plain value")),
            Kind::Metadata => return Err(".Meta takes an argument".to_owned()),
        };
    }
    match kind {
        Kind::Metadata => Err(".Meta takes an argument, and as one needs parentheses".to_owned()),
        _ => Ok(()),
    }
}
