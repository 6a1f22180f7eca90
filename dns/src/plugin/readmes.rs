//! The examples in the plugins' READMEs are configurations that work.

use std::fs;
use std::path::Path;

use super::{Environment, registry};
use crate::corefile;
use crate::server::Configuration;

/// Plugins that examples may use before they are there.
const TO_COME: &[&str] = &[
    "cache",
    "errors",
    "forward",
    "kubernetes",
    "log",
    "prometheus",
    "root",
];

/// The parts of `text` in ```` ```corefile ```` fences, each after as many newlines as stand
/// before it, so that errors name the README's lines.
fn examples(text: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let mut example: Option<String> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut example {
            None if line.trim() == "```corefile" => example = Some("\n".repeat(number + 1)),
            Some(_) if line.trim() == "```" => examples.extend(example.take()),
            Some(example) => *example += &format!("{line}\n"),
            None => {}
        }
    }
    examples
}

/// What the examples read.
fn files_of_the_examples() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let zone = "@ 60 IN SOA ns1 hostmaster 1 3600 600 86400 60\n@ 60 IN NS ns1\n";
    fs::write(folder.path().join("db.example.org"), zone).unwrap();
    folder
}

#[test]
fn examples_in_the_readmes_of_plugins_are_accepted() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plugin");
    let files = files_of_the_examples();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let readme = entry.unwrap().path().join("README.md");
        let Ok(text) = fs::read_to_string(&readme) else {
            continue;
        };
        let file = readme.display().to_string();
        for example in examples(&text) {
            let corefile = corefile::parse(&example, &file, Path::new("/nowhere")).unwrap();
            let mut directives = corefile.blocks.iter().flat_map(|block| &block.directives);
            let to_come = |name: &str| registry::entry(name).is_none() && TO_COME.contains(&name);
            if directives.any(|line| to_come(line.name())) {
                continue;
            }
            let environment = Environment {
                folder: files.path().to_owned(),
                ..Environment::default()
            };
            let accepted = Configuration::new(&corefile, &environment);
            assert!(
                accepted.is_ok(),
                "{:?}",
                accepted.err().map(|error| error.to_string())
            );
            count += 1;
        }
    }
    assert!(count > 0, "no README has an example");
}
