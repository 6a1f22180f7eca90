//! A part of Go's template language (`text/template`), enough for records made of a query.
//!
//! [`Program::parse`] refuses whatever is not in the part, and fields that are not there, so
//! that what is loaded fails only for values: an index out of range, a text that is no number.

mod functions;
mod parse;
mod run;
mod scan;
mod value;

#[cfg(test)]
mod tests;

pub(super) use value::{Data, Value};

/// A template, ready to be run.
#[derive(Debug)]
pub(super) struct Program {
    nodes: Vec<parse::Node>,
}

impl Program {
    /// Reads a template. The error is a sentence.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let nodes = parse::parse(scan::scan(text)?)?;
        Ok(Self { nodes })
    }

    /// Whether it says the same to every query.
    pub(super) fn is_constant(&self) -> bool {
        self.nodes
            .iter()
            .all(|node| matches!(node, parse::Node::Text(_)))
    }

    /// Whether it asks for metadata.
    pub(super) fn uses_metadata(text: &str) -> bool {
        text.contains(".Meta")
    }

    /// Runs it. The error is a sentence.
    pub(super) fn run(&self, data: &Data) -> Result<String, String> {
        run::run(&self.nodes, data)
    }
}
