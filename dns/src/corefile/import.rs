//! Files that an `import` names, and how they are read.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// Reads a configuration file and takes its size from `budget` (bytes). The error is a sentence.
pub(super) fn read(path: &Path, budget: &mut u64) -> Result<String, String> {
    let shown = path.display();
    let cannot = |problem: std::io::Error| format!("cannot read {shown}: {problem}");
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(budget.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(cannot)?;
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    *budget = budget.checked_sub(size).ok_or_else(|| {
        let limit = super::CONFIG_BYTES_LIMIT;
        format!("{shown} is too long: more than {limit} bytes of configuration in all")
    })?;
    String::from_utf8(bytes).map_err(|problem| {
        let before = problem.as_bytes().get(..problem.utf8_error().valid_up_to());
        let line = 1 + before
            .unwrap_or_default()
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count();
        format!("{shown} is not UTF-8 in line {line}")
    })
}

/// The files that `pattern` names, by name. Without a wildcard that is one regular file. A
/// wildcard (`*`, `?`) stands for anything but `/`, and directories it finds are passed over:
/// a mounted ConfigMap has some. The error is a sentence.
pub(super) fn files(pattern: &str, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let full = folder.join(pattern);
    if !pattern.contains(['*', '?']) {
        return match fs::metadata(&full) {
            Ok(found) if found.is_file() => Ok(vec![full]),
            Ok(_) => Err(format!("{} is not a regular file", full.display())),
            Err(problem) => Err(format!("{}: {problem}", full.display())),
        };
    }
    let count = |sign: char| pattern.chars().filter(|&c| c == sign).count();
    if count('*') > 1 || count('?') > 1 {
        return Err(format!(
            "`{pattern}` may have one `*` and one `?`, but has more"
        ));
    }
    let mut found = vec![PathBuf::new()];
    for component in full.components() {
        found = match component {
            Component::Normal(name) => match name.to_str().filter(|name| name.contains(['*', '?']))
            {
                Some(name) => found
                    .iter()
                    .flat_map(|folder| matching(folder, name))
                    .collect(),
                None => joined(found, component),
            },
            _ => joined(found, component),
        };
    }
    found.retain(|path| path.is_file());
    found.sort();
    Ok(found)
}

fn joined(paths: Vec<PathBuf>, component: Component<'_>) -> Vec<PathBuf> {
    paths.into_iter().map(|path| path.join(component)).collect()
}

/// What in `folder` has a name that `pattern` matches. A folder that cannot be read has nothing.
fn matching(folder: &Path, pattern: &str) -> Vec<PathBuf> {
    let here = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let Ok(entries) = fs::read_dir(here) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| {
            entry
                .file_name()
                .to_str()
                .is_some_and(|name| matches(pattern, name))
        })
        .map(|entry| folder.join(entry.file_name()))
        .collect()
}

/// Whether `name` is of `pattern`, in which `?` is one character and `*`, of which there is at
/// most one, any number.
fn matches(pattern: &str, name: &str) -> bool {
    let same = |pattern: &str, name: &str| {
        pattern.chars().count() == name.chars().count()
            && pattern
                .chars()
                .zip(name.chars())
                .all(|(p, n)| p == '?' || p == n)
    };
    let Some((before, after)) = pattern.split_once('*') else {
        return same(pattern, name);
    };
    let name: Vec<char> = name.chars().collect();
    let (first, last) = (before.chars().count(), after.chars().count());
    let Some(tail) = name.len().checked_sub(last).filter(|&tail| tail >= first) else {
        return false;
    };
    let text = |chars: &[char]| chars.iter().collect::<String>();
    same(before, &text(&name[..first])) && same(after, &text(&name[tail..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_a_part_of_a_name() {
        let cases = [
            ("*", "a", true),
            ("*.server", "one.server", true),
            ("*.server", ".server", true),
            ("*.server", "server", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a?c*", "abcd", true),
            ("a?c*", "acd", false),
            ("?", "\u{e9}", true),
            ("?", "ab", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
