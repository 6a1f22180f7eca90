//! Removing what a mode wrote, and nothing that the mode in force wants.

use super::batch::Batch;
use super::read::RuleHash;
use super::table::{Jump, Table};
use super::tool::{Tool, ToolError};

/// Jumps and chains that stay: those of the mode in force, which has some in common with the
/// one that is removed.
#[derive(Debug, Default)]
pub struct Kept {
    pub(in crate::backend) jumps: Vec<Jump>,
    pub(in crate::backend) chains: Vec<(Table, &'static str)>,
}

impl Kept {
    fn jump(&self, jump: &Jump) -> bool {
        self.jumps.contains(jump)
    }

    fn chain(&self, table: Table, name: &str) -> bool {
        self.chains.contains(&(table, name))
    }
}

/// Removes from one table those of these jumps that are there, and the chains that `is_ours`
/// names. True if there were any.
///
/// # Errors
/// When the table can't be read or written.
pub(in crate::backend) fn remove(
    tool: &Tool,
    table: Table,
    jumps: &[Jump],
    is_ours: impl Fn(&str) -> bool,
    kept: &Kept,
) -> Result<bool, ToolError> {
    let state = tool.save(table)?;
    let mut batch = Batch::default();
    for jump in jumps {
        if jump.table != table || kept.jump(jump) {
            continue;
        }
        // Every one of them: with a jump left its chain could not go.
        let wanted = RuleHash::of(&jump.rule);
        let there = state
            .rules(jump.from)
            .iter()
            .filter(|rule| **rule == wanted);
        for _ in there {
            batch.section(table);
            batch.delete(jump.from, &jump.rule);
        }
    }
    let chains: Vec<String> = state
        .chains
        .keys()
        .filter(|name| is_ours(name) && !kept.chain(table, name))
        .cloned()
        .collect();
    batch.delete_chains(table, chains.iter());
    let script = batch.finish();
    if script.is_empty() {
        return Ok(false);
    }
    tool.restore(script.text()).map(|()| true)
}
