//! Shell completions and manual pages, from the definition of a command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Command, CommandFactory, FromArgMatches, Parser};
use clap_complete::Shell;

use crate::build::VERSION;

/// Write a script to standard output that completes this program's command line in a shell
#[derive(Clone, Debug, Parser)]
#[command(name = "completions")]
struct Completions {
    /// The shell
    shell: Shell,
}

/// Write the manual
#[derive(Clone, Debug, Parser)]
#[command(name = "man")]
struct Manual {
    /// Folder for a page of each command; without it, the page of the program goes to standard
    /// output
    directory: Option<PathBuf>,
}

/// Whether this is the name of one of the commands of [`run`].
#[must_use]
pub fn is_command(name: &str) -> bool {
    name == "completions" || name == "man"
}

/// Does what `completions` or `man` asks for, of a program with all its other commands. Ends the
/// process where the arguments make no sense.
///
/// # Errors
/// Standard output, or the folder, can't be written to.
pub fn run(program: Command, arguments: Vec<OsString>) -> io::Result<()> {
    let mut program = program
        .version(VERSION)
        .subcommand(Completions::command())
        .subcommand(Manual::command());
    let matches = program.clone().get_matches_from(arguments);
    let mut text = Vec::new();
    match matches.subcommand() {
        Some(("completions", asked)) => {
            let Completions { shell } =
                Completions::from_arg_matches(asked).unwrap_or_else(|error| error.exit());
            let name = program.get_name().to_owned();
            clap_complete::generate(shell, &mut program, name, &mut text);
        }
        Some((_, asked)) => {
            let manual = Manual::from_arg_matches(asked).unwrap_or_else(|error| error.exit());
            match manual.directory {
                Some(directory) => clap_mangen::generate_to(program, directory)?,
                None => clap_mangen::Man::new(program).render(&mut text)?,
            }
        }
        None => {}
    }
    match io::stdout().write_all(&text) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_written_to_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let program = Command::new("thing").about("Does it").version("1\n2");
        let arguments = ["thing", "man"].map(OsString::from);
        let path = folder.path().as_os_str().to_owned();
        run(program, arguments.into_iter().chain([path]).collect()).unwrap();
        let page = std::fs::read_to_string(folder.path().join("thing.1")).unwrap();
        assert!(
            page.contains(&format!(".TH thing 1  \"thing {VERSION}\"")),
            "{page}"
        );
        assert!(folder.path().join("thing-completions.1").exists());
    }
}
