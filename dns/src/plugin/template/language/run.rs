use std::sync::Arc;

use super::functions::Function;
use super::parse::{Command, Node, Pipe, Term};
use super::value::Object;
use super::{Data, Value};

/// Octets that a template may write: no record is longer.
const OUTPUT_OCTETS_LIMIT: usize = 128 << 10;

/// Runs a template. The error is a sentence.
pub(super) fn run(nodes: &[Node], data: &Data) -> Result<String, String> {
    let mut run = Run {
        data,
        variables: Vec::new(),
        out: String::new(),
    };
    run.nodes(nodes, &Value::Object(Object::Root))?;
    Ok(run.out)
}

struct Run<'d> {
    data: &'d Data,
    /// The innermost last.
    variables: Vec<(String, Value)>,
    out: String,
}

impl Run<'_> {
    fn nodes(&mut self, nodes: &[Node], dot: &Value) -> Result<(), String> {
        let declared = self.variables.len();
        for node in nodes {
            self.node(node, dot)?;
            if self.out.len() > OUTPUT_OCTETS_LIMIT {
                return Err(format!("more than {OUTPUT_OCTETS_LIMIT} octets written"));
            }
        }
        self.variables.truncate(declared);
        Ok(())
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<(), String> {
        let declared = self.variables.len();
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Action(pipe) => {
                let value = self.pipe(pipe, dot)?;
                // The variable goes on to the end of the list that the action is in.
                if !pipe.names.is_empty() {
                    return Ok(());
                }
                if matches!(value, Value::Object(_)) {
                    return Err("a whole message or question cannot be written".to_owned());
                }
                self.out += &value.to_string();
            }
            Node::If { arms, otherwise } => {
                for (pipe, body) in arms {
                    if self.pipe(pipe, dot)?.is_true() {
                        self.nodes(body, dot)?;
                        self.variables.truncate(declared);
                        return Ok(());
                    }
                }
                self.nodes(otherwise, dot)?;
            }
            Node::With {
                pipe,
                body,
                otherwise,
            } => {
                let value = self.pipe(pipe, dot)?;
                if value.is_true() {
                    self.nodes(body, &value)?;
                } else {
                    self.nodes(otherwise, dot)?;
                }
            }
            Node::Range {
                pipe,
                body,
                otherwise,
            } => self.range(pipe, body, otherwise, dot)?,
        }
        self.variables.truncate(declared);
        Ok(())
    }

    fn range(
        &mut self,
        pipe: &Pipe,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<(), String> {
        let over = self.commands(&pipe.commands, dot)?;
        let items: Vec<(Value, Value)> = match &over {
            Value::List(list) => {
                let keys = (0_i128..).map(Value::Number);
                keys.zip(list.iter().cloned()).collect()
            }
            Value::Map(map) => map
                .iter()
                .map(|(key, value)| (Value::text(key), value.clone()))
                .collect(),
            Value::Nothing => Vec::new(),
            other => return Err(format!("`{other}` cannot be ranged over")),
        };
        if items.is_empty() {
            return self.nodes(otherwise, dot);
        }
        let declared = self.variables.len();
        for (key, item) in items {
            match pipe.names.as_slice() {
                [name] => self.set(name, item.clone(), pipe.declares),
                [first, second] => {
                    self.set(first, key, pipe.declares);
                    self.set(second, item.clone(), pipe.declares);
                }
                _ => {}
            }
            self.nodes(body, &item)?;
            self.variables.truncate(declared);
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: Value, new: bool) {
        let known = self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| known == name);
        match known.filter(|_| !new) {
            Some((_, old)) => *old = value,
            None => self.variables.push((name.to_owned(), value)),
        }
    }

    fn pipe(&mut self, pipe: &Pipe, dot: &Value) -> Result<Value, String> {
        let value = self.commands(&pipe.commands, dot)?;
        if let [name] = pipe.names.as_slice() {
            self.set(name, value.clone(), pipe.declares);
        }
        Ok(value)
    }

    fn commands(&mut self, commands: &[Command], dot: &Value) -> Result<Value, String> {
        let mut piped = None;
        for command in commands {
            piped = Some(match command {
                Command::Term(term) => self.term(term, dot)?,
                Command::Call(function, args) => self.call(*function, args, piped, dot)?,
                Command::Metadata(args) => {
                    for arg in args {
                        self.term(arg, dot)?;
                    }
                    Value::text("")
                }
            });
        }
        Ok(piped.unwrap_or(Value::Nothing))
    }

    fn call(
        &mut self,
        function: Function,
        args: &[Term],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, String> {
        // These two look no further than they have to.
        let stops_at = match function {
            Function::And => Some(false),
            Function::Or => Some(true),
            _ => None,
        };
        let mut values = Vec::with_capacity(args.len() + 1);
        for arg in args {
            let value = self.term(arg, dot)?;
            if stops_at == Some(value.is_true()) {
                return Ok(value);
            }
            values.push(value);
        }
        values.extend(piped);
        match stops_at {
            Some(_) => Ok(values.pop().unwrap_or(Value::Nothing)),
            None => function.call(&values),
        }
    }

    fn term(&mut self, term: &Term, dot: &Value) -> Result<Value, String> {
        match term {
            Term::Dot => Ok(dot.clone()),
            Term::Literal(value) => Ok(value.clone()),
            Term::Variable(name) if name.is_empty() => Ok(Value::Object(Object::Root)),
            Term::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                found
                    .map(|(_, value)| value.clone())
                    .ok_or_else(|| format!("no variable ${name}"))
            }
            Term::Fields(of, fields) => {
                let of = self.term(of, dot)?;
                fields
                    .iter()
                    .try_fold(of, |value, field| self.data.field(&value, field))
            }
            Term::Pipe(pipe) => self.pipe(pipe, dot),
        }
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}
