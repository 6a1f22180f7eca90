//! Finds out which commit is built, for `--version`.

use std::env;
use std::path::Path;
use std::process::Command;

/// Says the commit where there is no git, and in debug builds.
const GIVEN: &str = "SWITCHYARD_COMMIT";
/// What is said where nobody knows.
const UNKNOWN: &str = "unknown";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={GIVEN}");
    let given = env::var(GIVEN).ok().filter(|commit| !commit.is_empty());
    // A debug build that named its commit would be built anew with every commit.
    let is_debug = env::var("PROFILE").as_deref() == Ok("debug");
    let commit = given.or_else(|| if is_debug { None } else { of_git() });
    let commit = commit.unwrap_or_else(|| UNKNOWN.to_owned());
    println!("cargo::rustc-env={GIVEN}={commit}");
}

/// The commit that is checked out, and a look at it again when it is another one.
fn of_git() -> Option<String> {
    let commit = git(&["rev-parse", "--verify", "HEAD"])?;
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    // A branch may be a file of its own or a line of the packed ones.
    let names = [Some("HEAD".to_owned()), branch, Some("packed-refs".into())];
    for name in names.into_iter().flatten() {
        let path = git(&["rev-parse", "--path-format=absolute", "--git-path", &name]);
        // A file that is missing would have it built anew each time.
        for path in path.iter().filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    Some(commit)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let said = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !said.trim().is_empty()).then(|| said.trim().to_owned())
}
