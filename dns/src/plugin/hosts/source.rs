use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::time::SystemTime;

use super::metrics;
use super::table::{Rules, Table, parse_address};

/// The longest file that is read.
const FILE_OCTETS_LIMIT: u64 = 256 << 20;
/// Lines that are not understood, of which the log tells one by one.
const BAD_LINES_LOGGED_MAX: usize = 20;

/// A file of names, and what was read of it last.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    rules: Rules,
    /// Records that the Corefile adds, for the metric.
    inline_entries: u32,
    seen: Option<(SystemTime, u64)>,
    failed: bool,
    /// Lines that the log has told of.
    bad: HashSet<String>,
}

impl Source {
    pub(super) fn new(path: PathBuf, rules: Rules, inline_entries: u32) -> Self {
        Self {
            path,
            rules,
            inline_entries,
            seen: None,
            failed: false,
            bad: HashSet::new(),
        }
    }

    /// Reads the file if its time or its size is another than at the last time. `None` if not,
    /// or if it cannot be read: then what was there goes on.
    pub(super) fn refresh(&mut self) -> Option<Table> {
        match self.read_if_changed() {
            Ok(None) => {
                self.failed = false;
                None
            }
            Ok(Some((octets, time))) => {
                self.failed = false;
                let table = self.parse(&octets);
                let entries = table.entries().saturating_add(self.inline_entries);
                metrics::read(&self.path, entries, time);
                Some(table)
            }
            Err(problem) => {
                // Said once, not at every look.
                if !self.failed {
                    let path = self.path.display();
                    tracing::warn!("cannot read {path}, what it said goes on: {problem}");
                }
                self.failed = true;
                None
            }
        }
    }

    fn read_if_changed(&mut self) -> std::io::Result<Option<(Vec<u8>, SystemTime)>> {
        let file = File::open(&self.path)?;
        let found = file.metadata()?;
        let time = found.modified()?;
        if self.seen == Some((time, found.len())) {
            return Ok(None);
        }
        if found.len() > FILE_OCTETS_LIMIT {
            return Err(std::io::Error::other("it is longer than 256 MiB"));
        }
        let mut octets = Vec::new();
        file.take(FILE_OCTETS_LIMIT).read_to_end(&mut octets)?;
        self.seen = Some((time, found.len()));
        Ok(Some((octets, time)))
    }

    /// Takes in all lines; tells the log of those that are not understood, unless it has.
    pub(super) fn parse(&mut self, octets: &[u8]) -> Table {
        let mut table = Table::default();
        let mut bad = HashSet::new();
        let mut more = 0_u32;
        for (index, line) in octets.split(|&octet| octet == b'\n').enumerate() {
            let Err(problem) = add_line(&mut table, line, &self.rules) else {
                continue;
            };
            if bad.len() == BAD_LINES_LOGGED_MAX {
                more += 1;
                continue;
            }
            let problem = format!("{}:{}: {problem}", self.path.display(), index + 1);
            if !self.bad.contains(&problem) {
                tracing::warn!("{problem}");
            }
            bad.insert(problem);
        }
        if more > 0 && self.bad.len() < BAD_LINES_LOGGED_MAX {
            tracing::warn!(
                "{}: {more} more lines are not understood",
                self.path.display()
            );
        }
        self.bad = bad;
        table
    }
}

fn add_line(table: &mut Table, line: &[u8], rules: &Rules) -> Result<(), String> {
    let comment = line.iter().position(|&octet| octet == b'#');
    let line = line
        .get(..comment.unwrap_or(line.len()))
        .unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| "a line that is not UTF-8".to_owned())?;
    let mut words = line.split_whitespace();
    let Some(address) = words.next() else {
        return Ok(());
    };
    let Some(address) = parse_address(address) else {
        return Err(format!("expected an address, found `{address}`"));
    };
    table.add(address, words, rules)
}
