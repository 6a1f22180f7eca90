//! Whether objects are what Kubernetes describes: a checker for the part of JSON Schema that its
//! descriptions use, offline.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// Schemas by `apiVersion/kind`, and what they refer to.
#[derive(Debug)]
pub struct Schemas {
    kinds: Map<String, Value>,
    definitions: Map<String, Value>,
}

impl Schemas {
    /// Those of Kubernetes 1.36 and of the Prometheus operator, from `tests/data/`.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn load() -> Result<Self> {
        let mut all = Self {
            kinds: Map::new(),
            definitions: Map::new(),
        };
        for file in ["schemas.json", "operator.json"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("data/kubernetes-1.36")
                .join(file);
            let text = fs::read(&path).with_context(|| path.display().to_string())?;
            let mut read: Value = serde_json::from_slice(&text)?;
            for (name, into) in [
                ("kinds", &mut all.kinds),
                ("definitions", &mut all.definitions),
            ] {
                let part = read[name].as_object_mut().context(name)?;
                into.append(part);
            }
        }
        Ok(all)
    }

    /// What is wrong with an object: one line each, with the path of the field.
    #[must_use]
    pub fn problems(&self, object: &Value) -> Vec<String> {
        let text = |field| object.get(field).and_then(Value::as_str).unwrap_or("?");
        let kind = format!("{}/{}", text("apiVersion"), text("kind"));
        let Some(schema) = self.kinds.get(&kind) else {
            return vec![format!("{kind}: a kind that is not described")];
        };
        let mut found = Vec::new();
        self.check(object, schema, "", &mut found);
        found
    }

    fn check(&self, value: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let name = name.trim_start_matches("#/definitions/");
            match self.definitions.get(name) {
                Some(schema) => self.check(value, schema, path, found),
                None => found.push(format!("{path}: {name} is not described")),
            }
            return;
        }
        for schema in schema
            .get("allOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            self.check(value, schema, path, found);
        }
        if schema.get("x-kubernetes-int-or-string").is_some()
            && !(value.is_i64() || value.is_string())
        {
            found.push(format!("{path}: {value}: expected a whole number or text"));
        }
        if let Some(kind) = schema.get("type").and_then(Value::as_str)
            && !is_of(value, kind)
        {
            found.push(format!("{path}: {value}: expected {kind}"));
            return;
        }
        match value {
            Value::Object(fields) => self.check_fields(fields, schema, path, found),
            Value::Array(items) => {
                let schema = schema.get("items");
                for (index, item) in items.iter().enumerate() {
                    if let Some(schema) = schema {
                        self.check(item, schema, &format!("{path}[{index}]"), found);
                    }
                }
            }
            _ => {}
        }
    }

    fn check_fields(
        &self,
        fields: &Map<String, Value>,
        schema: &Value,
        path: &str,
        found: &mut Vec<String>,
    ) {
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                found.push(format!("{path}: no field {name}"));
            }
        }
        for (name, value) in fields {
            let at = format!("{path}.{name}");
            let known = schema.get("properties").and_then(|all| all.get(name));
            match known.or_else(|| schema.get("additionalProperties")) {
                Some(Value::Bool(false)) => found.push(format!("{at}: no such field")),
                Some(schema) => self.check(value, schema, &at, found),
                None => {}
            }
        }
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn budget(spec: &Value) -> Vec<String> {
        let object = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "a", "labels": {"b": "c"}}, "spec": spec});
        Schemas::load().unwrap().problems(&object)
    }

    #[test]
    fn what_is_as_described_passes() {
        let selector = json!({"matchLabels": {"a": "b"}});
        assert_eq!(
            budget(&json!({"minAvailable": 1, "selector": selector})),
            [""; 0]
        );
        assert_eq!(
            budget(&json!({"minAvailable": "10%", "selector": selector})),
            [""; 0]
        );
    }

    #[test]
    fn each_kind_of_mistake_is_named_with_its_path() {
        for (spec, expected) in [
            (json!({"minimum": 1}), ".spec.minimum: no such field"),
            (
                json!({"minAvailable": [1]}),
                ".spec.minAvailable: [1]: expected a whole number or text",
            ),
            (
                json!({"selector": []}),
                ".spec.selector: []: expected object",
            ),
            (
                json!({"selector": {"matchLabels": {"a": 1}}}),
                ".spec.selector.matchLabels.a: 1: expected string",
            ),
            (
                json!({"selector": {"matchExpressions": [{"key": "a"}]}}),
                ".spec.selector.matchExpressions[0]: no field operator",
            ),
        ] {
            assert_eq!(budget(&spec), [expected]);
        }
        let unknown = json!({"apiVersion": "v1", "kind": "Sevice"});
        let problems = Schemas::load().unwrap().problems(&unknown);
        assert_eq!(problems, ["v1/Sevice: a kind that is not described"]);
    }
}
