//! Environment variables within tokens.

/// How the value of a variable is found. A variable that is not set has none.
pub(super) type Lookup<'e> = &'e dyn Fn(&str) -> Option<String>;

/// The variables of this process; a value that is not UTF-8 is mended with replacement characters.
pub(super) fn of_process(name: &str) -> Option<String> {
    // `var_os` panics for none of these, but documents that it may for such names.
    if name.is_empty() || name.contains(['=', '\0']) {
        return None;
    }
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Puts values in the place of `{$NAME}` and `{%NAME%}`; nothing in the place of one that is not
/// set, as the reference does. `None` when there is no variable in the text. Values are not
/// expanded again, so that a value cannot make this endless.
pub(super) fn expand(text: &str, lookup: Lookup<'_>) -> Option<String> {
    let mut expanded: Option<String> = None;
    let mut rest = text;
    while let Some((before, name, after)) = next_reference(rest) {
        let out = expanded.get_or_insert_default();
        out.push_str(before);
        out.push_str(&lookup(name).unwrap_or_default());
        rest = after;
    }
    let mut out = expanded?;
    out.push_str(rest);
    Some(out)
}

/// Splits at the first reference: what is before it, its name, what is after it.
fn next_reference(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    while let Some(found) = text.get(from..)?.find('{') {
        let start = from + found;
        let rest = text.get(start + 1..)?;
        let reference = match rest.chars().next() {
            Some('$') => rest.get(1..)?.split_once('}'),
            Some('%') => rest.get(1..)?.split_once("%}"),
            _ => None,
        };
        if let Some((name, after)) = reference.filter(|(name, _)| !name.is_empty()) {
            return Some((text.get(..start)?, name, after));
        }
        from = start + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_put_in_place_once() {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "B.C" => Some("2".to_owned()),
            "LOOP" => Some("{$LOOP}".to_owned()),
            _ => None,
        };
        let cases = [
            ("{$A}", Some("1")),
            ("x{$A}y{%B.C%}z", Some("x1y2z")),
            ("{$A}{$A}", Some("11")),
            ("{$UNSET}", Some("")),
            ("{$LOOP}", Some("{$LOOP}")),
            ("{{$A}}", Some("{1}")),
            ("{${$A}", Some("")),
            ("plain", None),
            ("{$}", None),
            ("{%%}", None),
            ("{$A", None),
            ("{%A}", None),
            ("{A}", None),
            ("{$}{$A}", Some("{$}1")),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &lookup).as_deref(), expected, "{text}");
        }
    }
}
