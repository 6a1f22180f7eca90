//! `switchyard-proxy opt-out`: whose sockets ebpf mode leaves alone.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::backend::ebpf::{EbpfError, opt_out};
use crate::settings::BPF_ROOT;

/// Leave the sockets of single network namespaces alone (ebpf mode): for pods with a proxy of
/// their own, such as a service mesh's.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "switchyard-proxy opt-out",
    version = crate::version::TEXT.as_str(),
    disable_help_subcommand = true
)]
pub struct OptOut {
    /// Where the agent pins its maps
    #[arg(long, value_name = "PATH", default_value = BPF_ROOT, global = true)]
    bpf_root: PathBuf,
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Leave the sockets of a network namespace alone from now on
    Add {
        /// Its file, such as /run/netns/NAME or /proc/PID/ns/net
        netns: PathBuf,
    },
    /// Translate at the sockets of a network namespace again
    Remove {
        /// Its file, such as /run/netns/NAME or /proc/PID/ns/net
        netns: PathBuf,
    },
    /// Print the cookies of the network namespaces that are left alone
    List {
        /// The file of one: print only its, if it is left alone
        netns: Option<PathBuf>,
    },
}

/// Does what it says, and prints what came of it.
///
/// # Errors
/// [`EbpfError`], if the namespace or the agent's map is not to be had.
pub fn run(command: &OptOut) -> Result<(), EbpfError> {
    let bpf_root = &command.bpf_root;
    match &command.action {
        Action::Add { netns } => {
            let new = opt_out::add(bpf_root, netns)?;
            let how = if new {
                "is left alone now"
            } else {
                "was left alone already"
            };
            println!("{} {how}", netns.display());
        }
        Action::Remove { netns } => {
            let was_there = opt_out::remove(bpf_root, netns)?;
            let how = if was_there {
                "is served again"
            } else {
                "was not left alone"
            };
            println!("{} {how}", netns.display());
        }
        Action::List { netns } => {
            for cookie in opt_out::list(bpf_root, netns.as_deref())? {
                println!("{cookie}");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Option<OptOut> {
        OptOut::try_parse_from(words.split(' ')).ok()
    }

    #[test]
    fn a_namespace_is_needed_except_for_the_list() {
        let command = parse("opt-out add /run/netns/a --bpf-root=/sys/fs/bpf/b").unwrap();
        assert_eq!(command.bpf_root, PathBuf::from("/sys/fs/bpf/b"));
        assert!(matches!(command.action, Action::Add { .. }));
        assert!(parse("opt-out list").is_some() && parse("opt-out list /a").is_some());
        assert!(parse("opt-out remove").is_none() && parse("opt-out forget /a").is_none());
    }
}
