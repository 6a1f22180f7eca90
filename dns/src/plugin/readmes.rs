//! The examples in the plugins' READMEs are configurations that work.

use std::fs;
use std::path::Path;

use super::{Environment, registry};
use crate::corefile;
use crate::server::Configuration;

/// Plugins that examples may use before they are there.
const TO_COME: &[&str] = &[];

/// Begins an example that works, and one that is refused.
const FENCE: &str = "```corefile";
const FENCE_OF_AN_ERROR: &str = "```corefile,error";

/// The parts of `text` between `fence` and the end of it, each after as many newlines as
/// stand before it, so that errors name the README's lines.
fn examples(text: &str, fence: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let mut example: Option<String> = None;
    for (number, line) in text.lines().enumerate() {
        match &mut example {
            None if line.trim() == fence => example = Some("\n".repeat(number + 1)),
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
    fs::create_dir(folder.path().join("manifests")).unwrap();
    let made = rcgen::generate_simple_self_signed(["dns.example.org".to_owned()]).unwrap();
    for (name, text) in [
        ("cert.pem", made.cert.pem()),
        ("key.pem", made.signing_key.serialize_pem()),
        ("ca.pem", made.cert.pem()),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// Loads every example, those of plugins that are to come apart.
pub(super) fn load_all(fence: &str, judge: impl Fn(Result<Configuration, String>)) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/plugin");
    let files = files_of_the_examples();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let readme = entry.unwrap().path().join("README.md");
        let Ok(text) = fs::read_to_string(&readme) else {
            continue;
        };
        let file = readme.display().to_string();
        for example in examples(&text, fence) {
            let corefile = corefile::parse(&example, &file, files.path()).unwrap();
            let mut directives = corefile.blocks.iter().flat_map(|block| &block.directives);
            let to_come = |name: &str| registry::entry(name).is_none() && TO_COME.contains(&name);
            if directives.any(|line| to_come(line.name())) {
                continue;
            }
            let environment = Environment {
                folder: files.path().to_owned(),
                manifests: Some(files.path().join("manifests")),
                ..Environment::default()
            };
            let loaded = Configuration::new(&corefile, &environment);
            judge(loaded.map_err(|error| error.to_string()));
            count += 1;
        }
    }
    count
}

/// Every example that works, and how many there are.
pub(super) fn load_all_that_work() -> usize {
    load_all(FENCE, |loaded| {
        assert!(loaded.is_ok(), "{:?}", loaded.err());
    })
}

#[tokio::test]
async fn examples_in_the_readmes_of_plugins_are_accepted() {
    assert!(load_all_that_work() > 0, "no README has an example");
}

#[tokio::test]
async fn examples_of_errors_in_the_readmes_of_plugins_are_refused() {
    load_all(FENCE_OF_AN_ERROR, |loaded| {
        let error = loaded.map(|_| "it is accepted").expect_err("an error");
        assert!(error.contains("README.md:"), "{error} names no line");
    });
}
