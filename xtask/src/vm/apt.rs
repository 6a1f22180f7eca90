//! Getting a Debian package from a suite this machine does not use, with lists and settings of
//! our own, so that the machine's apt stays as it is.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::programs::command;

/// The suite whose entry says where packages come from.
pub(crate) const BASE_SUITE: &str = "bookworm";
/// Where apt's sources are written.
const MAIN_LIST: &str = "/etc/apt/sources.list";
const LISTS: &str = "/etc/apt/sources.list.d";

/// Where packages come from: the parts of an entry that hold for a mirror's other suites too.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    /// The mirror.
    uri: String,
    /// The key: a path, a fingerprint, or a whole key of several lines.
    signed_by: Option<String>,
}

/// apt with one suite, whose state is all below one folder.
pub(super) struct Apt {
    dir: PathBuf,
}

impl Apt {
    /// Fetches the list of a suite's packages into `dir`.
    ///
    /// # Errors
    /// This machine's sources have no entry of Debian 12, or apt fails.
    pub(super) fn with_suite(dir: &Path, suite: &str) -> Result<Self> {
        let source = find_source()?;
        let apt = Self {
            dir: dir.to_owned(),
        };
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(part))?;
        }
        fs::write(apt.sources(), source.with_suite(suite))?;
        let mut update = apt.command("apt-get")?;
        update.args(["-q", "update", "--error-on=any"]);
        run(update).with_context(|| format!("fetch the list of packages of {suite}"))?;
        Ok(apt)
    }

    /// The value of a field of a package.
    ///
    /// # Errors
    /// There is no such package or field.
    pub(super) fn field(&self, package: &str, field: &str) -> Result<String> {
        let mut show = self.command("apt-cache")?;
        show.args(["show", "--no-all-versions", package]);
        let output = show.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("`apt-cache show {package}` ended with {}", output.status);
        }
        let text = String::from_utf8(output.stdout)?;
        let value = value_of(&text, field)
            .with_context(|| format!("package {package} has no field {field}"))?;
        Ok(value.to_owned())
    }

    /// Fetches a package, without installing it; returns where it is.
    ///
    /// # Errors
    /// apt fails.
    pub(super) fn download(&self, package: &str) -> Result<PathBuf> {
        let mut download = self.command("apt-get")?;
        download
            .args(["-q", "download", package])
            .current_dir(&self.dir);
        run(download).with_context(|| format!("fetch the package {package}"))?;
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "deb") {
                return Ok(path);
            }
        }
        bail!("apt-get left no package file in {}", self.dir.display())
    }

    fn sources(&self) -> PathBuf {
        self.dir.join("one.sources")
    }

    /// A command of apt that knows nothing but our suite. Proxies and the like are still as the
    /// machine has them.
    fn command(&self, program: &str) -> Result<Command> {
        let mut apt = command(program)?;
        let settings = [
            ("Dir::Etc::SourceList", self.sources()),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::Etc::Preferences", "/dev/null".into()),
            ("Dir::Etc::PreferencesParts", "/dev/null".into()),
            ("Dir::State::Lists", self.dir.join("lists")),
            ("Dir::Cache", self.dir.join("cache")),
            // apt's own user may not see our folder.
            ("APT::Sandbox::User", "root".into()),
            // Lists we do not read.
            ("Acquire::Languages", "none".into()),
            (
                "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled",
                "false".into(),
            ),
        ];
        for (name, value) in settings {
            let mut setting = OsString::from(format!("{name}="));
            setting.push(value);
            apt.arg("-o").arg(setting);
        }
        apt.env("LC_ALL", "C");
        Ok(apt)
    }
}

/// Runs a command of apt. Its many settings are not shown when it fails.
fn run(mut apt: Command) -> Result<()> {
    let name = apt.get_program().to_string_lossy().into_owned();
    let status = apt.status().with_context(|| format!("start `{name}`"))?;
    if !status.success() {
        bail!("`{name}` ended with {status}");
    }
    Ok(())
}

impl Source {
    /// An entry for another suite of the mirror, as apt reads it.
    fn with_suite(&self, suite: &str) -> String {
        let mut entry = format!(
            "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n",
            self.uri
        );
        if let Some(key) = &self.signed_by {
            // A whole key begins on a line of its own.
            let is_whole = key.contains('\n');
            entry.push_str(if is_whole {
                "Signed-By:\n "
            } else {
                "Signed-By: "
            });
            entry.push_str(key);
            entry.push('\n');
        }
        entry
    }
}

/// The entry of Debian 12 among this machine's sources.
fn find_source() -> Result<Source> {
    entries()
        .into_iter()
        .next()
        .map(|(_, source)| source)
        .with_context(no_entry)
}

/// The files of this machine's sources that have an entry of Debian 12: with it come those of its
/// updates.
///
/// # Errors
/// There is none.
pub(crate) fn files_with_base_suite() -> Result<Vec<PathBuf>> {
    let files: Vec<PathBuf> = entries().into_iter().map(|(file, _)| file).collect();
    if files.is_empty() {
        bail!("{}", no_entry());
    }
    Ok(files)
}

fn no_entry() -> String {
    format!(
        "neither {MAIN_LIST} nor {LISTS}/ has a source of packages with suite {BASE_SUITE} \
         (Debian 12), which is wanted"
    )
}

/// Files of sources with an entry of Debian 12, and that entry.
fn entries() -> Vec<(PathBuf, Source)> {
    let mut files = vec![PathBuf::from(MAIN_LIST)];
    let parts = fs::read_dir(LISTS).into_iter().flatten().flatten();
    files.extend(parts.map(|entry| entry.path()));
    files.sort();
    let entry = |file: PathBuf| {
        let text = fs::read_to_string(&file).ok()?;
        let found = match file.extension().and_then(|end| end.to_str()) {
            Some("list") => in_lines(&text),
            Some("sources") => in_stanzas(&text),
            _ => None,
        };
        found.map(|source| (file, source))
    };
    files.into_iter().filter_map(entry).collect()
}

/// The wanted entry among stanzas of fields (`*.sources`).
fn in_stanzas(text: &str) -> Option<Source> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines
        .split(|line| line.trim().is_empty())
        .find_map(|stanza| {
            let stanza = stanza.join("\n");
            let has = |field, word| {
                value_of(&stanza, field)
                    .is_some_and(|value| value.split_whitespace().any(|each| each == word))
            };
            let is_off = value_of(&stanza, "Enabled").is_some_and(|value| value == "no");
            if is_off || !has("Types", "deb") || !has("Suites", BASE_SUITE) {
                return None;
            }
            Some(Source {
                uri: value_of(&stanza, "URIs")?
                    .split_whitespace()
                    .next()?
                    .to_owned(),
                signed_by: value_of(&stanza, "Signed-By").map(str::to_owned),
            })
        })
}

/// The wanted entry among lines `deb [option=value …] uri suite component…` (`*.list`).
fn in_lines(text: &str) -> Option<Source> {
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("deb")?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let (options, rest) = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']')?,
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (uri, suite) = (words.next()?, words.next()?);
        let signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="));
        (suite == BASE_SUITE).then(|| Source {
            uri: uri.to_owned(),
            signed_by: signed_by.map(str::to_owned),
        })
    })
}

/// The value of the first field of this name: also the lines that go on, which begin with a space.
fn value_of<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let after = start + line.len();
        let name = line.split_once(':').map(|(name, _)| name);
        if name.is_some_and(|name| name.eq_ignore_ascii_case(field)) {
            let continued = text[after..]
                .split_inclusive('\n')
                .take_while(|line| line.starts_with([' ', '\t']))
                .map(str::len)
                .sum::<usize>();
            let value = start + field.len() + 1..after + continued;
            return text.get(value).map(str::trim);
        }
        start = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(uri: &str, signed_by: Option<&str>) -> Option<Source> {
        Some(Source {
            uri: uri.to_owned(),
            signed_by: signed_by.map(str::to_owned),
        })
    }

    #[test]
    fn the_stanza_of_debian_12_is_found_among_others() {
        let text = "\
Types: deb
URIs: http://mirror.test/security
Suites: bookworm-security
Components: main

Types: deb deb-src
# http://mirror.test/of-some-day
URIs: http://mirror.test/debian http://other.test/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /keys/debian.gpg
";
        assert_eq!(
            in_stanzas(text),
            source("http://mirror.test/debian", Some("/keys/debian.gpg"))
        );
    }

    #[test]
    fn stanzas_that_are_off_of_sources_or_of_others_are_passed_over() {
        for text in [
            "Types: deb\nURIs: http://a.test\nSuites: trixie\n",
            "Types: deb-src\nURIs: http://a.test\nSuites: bookworm\n",
            "Enabled: no\nTypes: deb\nURIs: http://a.test\nSuites: bookworm\n",
            "",
        ] {
            assert_eq!(in_stanzas(text), None, "{text}");
        }
    }

    #[test]
    fn a_key_of_several_lines_is_carried_whole() {
        let text = "Types: deb\nURIs: http://a.test\nSuites: bookworm\n\
                    Signed-By:\n -----BEGIN-----\n .\n abc=\n -----END-----\nComponents: main\n";
        let found = in_stanzas(text).unwrap();
        let entry = found.with_suite("bookworm-backports");
        assert_eq!(
            entry,
            "Types: deb\nURIs: http://a.test\nSuites: bookworm-backports\nComponents: main\n\
             Signed-By:\n -----BEGIN-----\n .\n abc=\n -----END-----\n"
        );
    }

    #[test]
    fn a_line_is_found_with_and_without_options() {
        let text = "# deb http://no.test bookworm main\n\
                    deb-src http://no.test bookworm main\n\
                    deb http://no.test bookworm-updates main\n\
                    deb [ arch=amd64 signed-by=/keys/d.gpg ] http://yes.test bookworm main\n";
        assert_eq!(
            in_lines(text),
            source("http://yes.test", Some("/keys/d.gpg"))
        );
        let plain = "deb\thttp://yes.test  bookworm main contrib";
        assert_eq!(in_lines(plain), source("http://yes.test", None));
        assert_eq!(in_lines("deb http://no.test"), None);
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let text = "Package: a\nPre-Depends: b\nDepends: c (= 1)\nDescription: d\n e\n";
        assert_eq!(value_of(text, "Depends"), Some("c (= 1)"));
        assert_eq!(value_of(text, "Description"), Some("d\n e"));
        assert_eq!(value_of(text, "Version"), None);
    }
}
