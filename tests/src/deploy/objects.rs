//! Objects of manifests, and what they have in common however they were made.

use anyhow::{Context, Result};
use serde_json::Value;

/// The documents of a text, in their order; empty ones are left out.
///
/// # Errors
/// A document is not YAML.
pub fn read(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(documents
        .into_iter()
        .filter(|document| !document.is_null())
        .collect())
}

/// `apps/v1/DaemonSet kube-system/switchyard-proxy`.
#[must_use]
pub fn name(object: &Value) -> String {
    let text = |path| object.pointer(path).and_then(Value::as_str);
    let namespace = text("/metadata/namespace").map_or(String::new(), |name| format!("{name}/"));
    format!(
        "{}/{} {namespace}{}",
        text("/apiVersion").unwrap_or("?"),
        text("/kind").unwrap_or("?"),
        text("/metadata/name").unwrap_or("?"),
    )
}

/// The object of this kind and name.
///
/// # Errors
/// There is none, or more than one.
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Result<&'a Value> {
    let mut found = objects.iter().filter(|object| {
        object["kind"] == kind
            && object
                .pointer("/metadata/name")
                .is_some_and(|own| own == name)
    });
    let object = found.next().with_context(|| format!("no {kind} {name}"))?;
    anyhow::ensure!(found.next().is_none(), "more than one {kind} {name}");
    Ok(object)
}

/// A copy in which texts that are YAML themselves (files of ConfigMaps) are read, lists whose
/// items have names are sorted by them, and nulls are gone: two objects that mean the same are
/// the same then, whoever wrote them.
#[must_use]
pub fn normal(object: &Value) -> Value {
    match object {
        Value::Array(values) => {
            let mut values: Vec<Value> = values.iter().map(normal).collect();
            if values.iter().all(|value| value.get("name").is_some()) {
                values.sort_by_key(|value| value["name"].to_string());
            }
            Value::Array(values)
        }
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), normal_field(name, value)))
            .collect(),
        other => other.clone(),
    }
}

fn normal_field(name: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if name.ends_with(".conf") => {
            serde_saphyr::from_str(text).unwrap_or_else(|_| value.clone())
        }
        Value::String(text) => Value::String(text.trim_end().to_owned()),
        _ => normal(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn order_of_named_things_and_the_form_of_files_mean_nothing() {
        let one = json!({"env": [{"name": "b"}, {"name": "a"}], "config.conf": "{x: 1, y: [2]}", "no": null});
        let other =
            json!({"env": [{"name": "a"}, {"name": "b"}], "config.conf": "y:\n  - 2\nx: 1\n"});
        assert_eq!(normal(&one), normal(&other));
        let third = json!({"env": [{"name": "a"}, {"name": "b"}], "config.conf": "{x: 1}"});
        assert_ne!(normal(&one), normal(&third));
        assert_ne!(
            normal(&json!({"args": ["-a", "-b"]})),
            normal(&json!({"args": ["-b", "-a"]}))
        );
    }

    #[test]
    fn empty_documents_are_no_objects() {
        let objects = read("# nothing\n---\nkind: A\n---\n---\nkind: B\n").unwrap();
        assert_eq!(objects.len(), 2);
        assert_eq!(name(&objects[0]), "?/A ?");
    }
}
