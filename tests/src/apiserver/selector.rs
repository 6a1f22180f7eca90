//! `labelSelector` and `fieldSelector`.

use serde_json::Value;

/// What an object must be like to be listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selectors {
    labels: Vec<Term>,
    fields: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    Exists(String),
    Missing(String),
    Is(String, String),
    IsNot(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl Selectors {
    /// Reads both; `None` for forms the stand-in does not know.
    pub(super) fn read(labels: &str, fields: &str) -> Option<Self> {
        let fields = terms(fields)?;
        let bare = |term: &Term| !matches!(term, Term::Is(..) | Term::IsNot(..));
        if fields.iter().any(bare) {
            return None;
        }
        Some(Self {
            labels: terms(labels)?,
            fields,
        })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn match_object(&self, object: &Value) -> bool {
        let label = |key: &str| {
            object["metadata"]["labels"]
                .get(key)
                .and_then(Value::as_str)
        };
        // A field that is not set counts as empty.
        let field = |path: &str| {
            let pointer = format!("/{}", path.replace('.', "/"));
            Some(
                object
                    .pointer(&pointer)
                    .and_then(Value::as_str)
                    .unwrap_or(""),
            )
        };
        self.labels.iter().all(|term| term.holds(label))
            && self.fields.iter().all(|term| term.holds(field))
    }
}

impl Term {
    fn holds<'a>(&self, value: impl Fn(&str) -> Option<&'a str>) -> bool {
        match self {
            Self::Exists(key) => value(key).is_some(),
            Self::Missing(key) => value(key).is_none(),
            Self::Is(key, wanted) => value(key) == Some(wanted),
            Self::IsNot(key, unwanted) => value(key) != Some(unwanted),
            Self::In(key, any) => value(key).is_some_and(|it| any.iter().any(|v| v == it)),
            Self::NotIn(key, none) => !value(key).is_some_and(|it| none.iter().any(|v| v == it)),
        }
    }
}

fn terms(text: &str) -> Option<Vec<Term>> {
    let mut depth = 0_i32;
    let outer_comma = |sign: char| {
        depth += match sign {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        sign == ',' && depth == 0
    };
    let parts = text
        .split(outer_comma)
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts.map(term).collect()
}

/// `KEY in (A,B)` and `KEY notin (A,B)`.
fn set_term(text: &str) -> Option<Term> {
    let (head, values) = text.strip_suffix(')')?.split_once('(')?;
    let (key, operator) = head.trim().split_once(' ')?;
    let values = values.split(',').map(|value| value.trim().to_owned());
    match operator.trim() {
        "in" => Some(Term::In(key.to_owned(), values.collect())),
        "notin" => Some(Term::NotIn(key.to_owned(), values.collect())),
        _ => None,
    }
}

fn term(text: &str) -> Option<Term> {
    if text.ends_with(')') {
        return set_term(text);
    }
    if text.contains(['(', ' ', '<', '>']) {
        return None;
    }
    let two = |text: &str, sign: &str| {
        let (key, value) = text.split_once(sign)?;
        Some((key.to_owned(), value.to_owned()))
    };
    if let Some((key, value)) = two(text, "!=") {
        return Some(Term::IsNot(key, value));
    }
    if let Some((key, value)) = two(text, "==").or_else(|| two(text, "=")) {
        return Some(Term::Is(key, value));
    }
    Some(match text.strip_prefix('!') {
        Some(key) => Term::Missing(key.to_owned()),
        None => Term::Exists(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_selectors_of_a_service_proxy_and_a_dns_server() {
        let object =
            json!({"metadata": {"name": "a", "labels": {"x": "1"}}, "spec": {"clusterIP": "None"}});
        let cases = [
            ("", "", true),
            ("!x", "", false),
            ("!y", "", true),
            ("x", "", true),
            ("x=1,!y", "", true),
            ("x!=1", "", false),
            ("y!=1", "", true),
            ("x in (2, 1),!y", "", true),
            ("x notin (2,1)", "", false),
            ("y notin (1)", "", true),
            ("y in (1),x", "", false),
            ("", "spec.clusterIP!=None", false),
            ("", "spec.clusterIP=None", true),
            ("", "metadata.name=a", true),
            ("", "metadata.name==b", false),
            ("", "spec.type!=LoadBalancer", true),
        ];
        for (labels, fields, expected) in cases {
            let selectors = Selectors::read(labels, fields).unwrap();
            assert_eq!(
                selectors.match_object(&object),
                expected,
                "{labels} {fields}"
            );
        }
        assert_eq!(Selectors::read("x of (1,2)", ""), None);
        assert_eq!(Selectors::read("x > 1", ""), None);
        assert_eq!(Selectors::read("", "!spec.clusterIP"), None);
    }
}
