//! The iptables programs of the machine.

use std::env;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use switchyard_cluster::object::IpFamily;
use switchyard_netlink::ipset::IpsetError;

use super::read::TableState;
use super::table::Table;

/// How long one run of a tool waits for the xtables lock, in seconds.
const LOCK_WAIT_S: &str = "5";
/// How often a run that could not get the lock is tried again before it is an error.
const LOCK_TRIES: usize = 6;
/// Pause between such tries.
const LOCK_PAUSE: Duration = Duration::from_millis(200);
/// The oldest version whose `iptables-restore` waits for the lock and knows
/// `--random-fully`.
const OLDEST_VERSION: (u32, u32, u32) = (1, 6, 2);
/// Exit status of all tools when the lock or something of the kernel's could not be had.
const STATUS_RESOURCE: i32 = 4;

/// Which kernel interface a tool speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// nf_tables, with the compatibility expressions.
    Nft,
    /// x_tables: every change replaces the whole table.
    Legacy,
}

/// The iptables programs of one IP family.
#[derive(Clone, Debug)]
pub struct Tool {
    /// The family they are for.
    pub family: IpFamily,
    /// What they speak.
    pub variant: Variant,
    /// What `--version` printed.
    pub version: String,
    restore: PathBuf,
    save: PathBuf,
}

/// Why a tool could not be used or did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// Not installed.
    #[error("no `{0}` in PATH: install iptables (Debian package `iptables`)")]
    Missing(String),
    /// Installed but of no use.
    #[error("`{program} --version` printed {output:?}: expected version 1.6.2 or later")]
    Version {
        /// Which program.
        program: String,
        /// What it printed.
        output: String,
    },
    /// Could not be started or talked to.
    #[error("`{program}` could not be run: {source}")]
    Run {
        /// Which program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// Somebody else kept the lock all the while.
    #[error("`{program}` could not get the xtables lock in {LOCK_TRIES} tries of {LOCK_WAIT_S} s")]
    Locked {
        /// Which program.
        program: String,
    },
    /// A set that rules match could not be read or written.
    #[error("ipset: {0}")]
    Ipset(#[from] IpsetError),
    /// It ran and failed.
    #[error("`{program}` failed: {message}")]
    Failed {
        /// Which program.
        program: String,
        /// What it said.
        message: String,
        /// The line of its input it complained of, counted from 1, where it named one.
        line: Option<usize>,
    },
}

impl Tool {
    /// Finds the tools of a family in PATH.
    ///
    /// # Errors
    /// When one of them is missing, too old, or does not start.
    pub fn find(family: IpFamily) -> Result<Self, ToolError> {
        let prefix = match family {
            IpFamily::V4 => "iptables",
            IpFamily::V6 => "ip6tables",
        };
        let program = in_path(prefix)?;
        let restore = in_path(&format!("{prefix}-restore"))?;
        let save = in_path(&format!("{prefix}-save"))?;
        let output = Command::new(&program)
            .arg("--version")
            .output()
            .map_err(|source| ToolError::Run {
                program: prefix.to_owned(),
                source,
            })?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if parse_version(&version).is_none_or(|version| version < OLDEST_VERSION) {
            return Err(ToolError::Version {
                program: prefix.to_owned(),
                output: version,
            });
        }
        let variant = if version.contains("nf_tables") {
            Variant::Nft
        } else {
            Variant::Legacy
        };
        Ok(Self {
            family,
            variant,
            version,
            restore,
            save,
        })
    }

    /// Feeds a script to `iptables-restore --noflush`. What its sections hold takes effect
    /// section by section, each as one.
    ///
    /// # Errors
    /// When the tool can't be run, can't get the lock, or refuses a line; sections before
    /// the refused one have taken effect then.
    pub(in crate::backend) fn restore(&self, script: &str) -> Result<(), ToolError> {
        for attempt in 1..=LOCK_TRIES {
            let program = self.restore.display().to_string();
            let run = |source| ToolError::Run {
                program: program.clone(),
                source,
            };
            let mut child = Command::new(&self.restore)
                .args(["--noflush", "-w", LOCK_WAIT_S])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(run)?;
            let stdin = child.stdin.take();
            let output = thread::scope(|scope| {
                // From a thread of its own: the tool may complain at length before it has
                // read everything. It may also stop reading; its status says why.
                scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(script.as_bytes())));
                child.wait_with_output()
            })
            .map_err(run)?;
            if output.status.success() {
                return Ok(());
            }
            let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if output.status.code() != Some(STATUS_RESOURCE) || !is_contention(&message) {
                let line = failed_line(&message);
                let message = if message.is_empty() {
                    output.status.to_string()
                } else {
                    message
                };
                return Err(ToolError::Failed {
                    program,
                    message,
                    line,
                });
            }
            tracing::warn!(%program, attempt, %message, "another program holds the xtables lock");
            thread::sleep(LOCK_PAUSE);
        }
        Err(ToolError::Locked {
            program: self.restore.display().to_string(),
        })
    }

    /// Has the tool load the kernel modules of tables where it does that itself, which takes
    /// CAP_SYS_MODULE. Changes nothing else.
    pub fn load_modules(&self) {
        if self.variant == Variant::Legacy
            && let Err(error) = self.restore("*nat\nCOMMIT\n*filter\nCOMMIT\n*mangle\nCOMMIT\n")
        {
            tracing::debug!(%error, "the modules of iptables can't be loaded");
        }
    }

    /// Whether a rule can be had at all: puts it into a chain of its own that nothing jumps
    /// to, and removes that.
    pub(in crate::backend) fn probe(&self, rule: &str) -> Result<(), ToolError> {
        let chain = "SWITCHYARD-PROBE";
        let tried = self.restore(&format!(
            "*filter\n:{chain} - [0:0]\n-A {chain} {rule}\nCOMMIT\n"
        ));
        if tried.is_ok() {
            self.restore(&format!("*filter\n:{chain} - [0:0]\n-X {chain}\nCOMMIT\n"))?;
        }
        tried
    }

    /// Reads one table.
    ///
    /// # Errors
    /// When the tool can't be run or fails.
    pub(in crate::backend) fn save(&self, table: Table) -> Result<TableState, ToolError> {
        self.read(table, TableState::parse)
    }

    /// The rules of one table whose text has these words in it, each with its chain.
    ///
    /// # Errors
    /// As [`Self::save`].
    pub(in crate::backend) fn rules_with(
        &self,
        table: Table,
        words: &str,
    ) -> Result<Vec<(String, String)>, ToolError> {
        self.read(table, |text| {
            let mut found = Vec::new();
            for line in text.lines() {
                let line = line?;
                let rule = line
                    .strip_prefix("-A ")
                    .and_then(|rest| rest.split_once(' '));
                let rule = rule.filter(|(_, rule)| rule.contains(words));
                found.extend(rule.map(|(chain, rule)| (chain.to_owned(), rule.to_owned())));
            }
            Ok(found)
        })
    }

    /// Has `understand` read what `iptables-save` prints of one table.
    fn read<T: Default>(
        &self,
        table: Table,
        understand: impl FnOnce(BufReader<ChildStdout>) -> io::Result<T>,
    ) -> Result<T, ToolError> {
        let program = self.save.display().to_string();
        let run = |source| ToolError::Run {
            program: program.clone(),
            source,
        };
        let mut child = Command::new(&self.save)
            .args(["-t", table.as_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(run)?;
        let read = match child.stdout.take() {
            Some(stdout) => understand(BufReader::new(stdout)).map_err(run)?,
            None => T::default(),
        };
        let output = child.wait_with_output().map_err(run)?;
        if output.status.success() {
            return Ok(read);
        }
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(ToolError::Failed {
            program,
            message,
            line: None,
        })
    }
}

fn in_path(program: &str) -> Result<PathBuf, ToolError> {
    env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| ToolError::Missing(program.to_owned()))
}

/// `iptables v1.8.9 (nf_tables)` to `(1, 8, 9)`.
fn parse_version(text: &str) -> Option<(u32, u32, u32)> {
    let number = text.split(' ').find_map(|word| word.strip_prefix('v'))?;
    let mut parts = number.split('.').map(|part| part.parse().ok());
    let (major, minor) = (parts.next()??, parts.next()??);
    Some((major, minor, parts.next().flatten().unwrap_or(0)))
}

/// Status 4 also stands for refusals of the kernel's: only these words are about others who
/// are at it too.
fn is_contention(message: &str) -> bool {
    ["xtables lock", "temporarily unavailable"]
        .iter()
        .any(|words| message.contains(words))
}

/// The number in `line 12 failed`, `Error occurred at line: 12` or `line 12: RULE_APPEND…`.
fn failed_line(message: &str) -> Option<usize> {
    message.match_indices("line").find_map(|(at, word)| {
        let rest = message
            .get(at + word.len()..)?
            .trim_start_matches([':', ' ']);
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest.get(..digits)?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood() {
        assert_eq!(
            parse_version("iptables v1.8.9 (nf_tables)"),
            Some((1, 8, 9))
        );
        assert_eq!(parse_version("ip6tables v1.6 (legacy)"), Some((1, 6, 0)));
        assert_eq!(parse_version("no such program"), None);
    }

    #[test]
    fn complaints_name_their_line() {
        assert_eq!(failed_line("iptables-restore: line 7 failed"), Some(7));
        let parser = "iptables-restore v1.8.9 (nf_tables): unknown option \"--x\"\n\
                      Error occurred at line: 12\nTry `iptables-restore -h'";
        assert_eq!(failed_line(parser), Some(12));
        let commit = "line 5: RULE_APPEND failed (No such file or directory): rule in chain X";
        assert_eq!(failed_line(commit), Some(5));
        assert_eq!(failed_line("Permission denied (you must be root)"), None);
    }
}
