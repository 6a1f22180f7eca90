use regex::{Captures, Regex};

/// How a name is matched, as text: fully qualified, special characters escaped. But for `Regex`
/// give the name in lower case.
#[derive(Clone, Debug)]
pub(super) enum Matcher {
    Exact(String),
    Prefix(String),
    Suffix(String),
    Substring(String),
    Regex(Regex),
}

impl Matcher {
    /// Whether it matches.
    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => name.ends_with(suffix.as_str()),
            Self::Substring(part) => name.contains(part.as_str()),
            Self::Regex(pattern) => pattern.is_match(name),
        }
    }

    /// The name with `to` in the place of what matched; `None` when nothing did. The whole name
    /// is replaced by a regular expression, with `{1}` in `to` for its first group.
    pub(super) fn replace(&self, name: &str, to: &str) -> Option<String> {
        match self {
            Self::Exact(exact) => (name == exact).then(|| to.to_owned()),
            Self::Prefix(prefix) => name
                .strip_prefix(prefix.as_str())
                .map(|rest| format!("{to}{rest}")),
            Self::Suffix(suffix) => name
                .strip_suffix(suffix.as_str())
                .map(|rest| format!("{rest}{to}")),
            Self::Substring(part) => name
                .contains(part.as_str())
                .then(|| name.replace(part.as_str(), to)),
            Self::Regex(pattern) => pattern
                .captures(name)
                .map(|groups| with_groups(to, &groups)),
        }
    }
}

/// `to` with the groups in the place of `{0}`, `{1}`, …
fn with_groups(to: &str, groups: &Captures<'_>) -> String {
    let mut out = String::with_capacity(to.len());
    let mut rest = to;
    while let Some((before, reference)) = rest.split_once('{') {
        out.push_str(before);
        match group(reference).filter(|(index, _)| *index < groups.len()) {
            Some((index, after)) => {
                out.push_str(groups.get(index).map_or("", |group| group.as_str()));
                rest = after;
            }
            None => {
                out.push('{');
                rest = reference;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The number in `1}…`, and what follows the brace.
fn group(reference: &str) -> Option<(usize, &str)> {
    let (number, after) = reference.split_once('}')?;
    let digits = !number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit());
    number
        .parse()
        .ok()
        .filter(|_| digits)
        .map(|index| (index, after))
}

/// The highest group that `to` refers to.
pub(super) fn highest_group(to: &str) -> Option<usize> {
    to.split('{')
        .skip(1)
        .filter_map(group)
        .map(|(index, _)| index)
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_replaced_as_text() {
        let exact = Matcher::Exact("a.b.".to_owned());
        let prefix = Matcher::Prefix("foo.".to_owned());
        let suffix = Matcher::Suffix(".com.".to_owned());
        let part = Matcher::Substring("svc.".to_owned());
        let regex = |text: &str| Matcher::Regex(Regex::new(text).unwrap());
        let cases = [
            (&exact, "a.b.", "c.", Some("c.")),
            (&exact, "x.a.b.", "c.", None),
            (&prefix, "foo.x.", "bar.", Some("bar.x.")),
            (&prefix, "x.foo.", "bar.", None),
            (&suffix, "x.com.", ".org.", Some("x.org.")),
            (&suffix, "com.", ".org.", None),
            (&part, "a.svc.svc.x.", "s.", Some("a.s.s.x.")),
            (&part, "a.", "s.", None),
            (
                &regex("(.*)[.]a[.](.*)"),
                "x.a.y.",
                "{2}{1}.{0}.{9}{x}{",
                Some("y.x.x.a.y..{9}{x}{"),
            ),
            (&regex("(a)|(b)"), "b", "{1}{2}.", Some("b.")),
            (&regex("^a"), "b", "c.", None),
        ];
        for (matcher, name, to, expected) in cases {
            assert_eq!(
                matcher.replace(name, to).as_deref(),
                expected,
                "{matcher:?} {name}"
            );
            assert_eq!(
                matcher.matches(name),
                expected.is_some(),
                "{matcher:?} {name}"
            );
        }
        assert_eq!(highest_group("{1}.{3}.{x}.{+4}"), Some(3));
        assert_eq!(highest_group("none"), None);
    }
}
