//! The manifests of `deploy/`: made into objects by kubectl and helm, checked against what
//! Kubernetes describes, against what the programs ask of a cluster, and against each other.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod charts;
mod corefiles;
mod kustomize;
mod monitoring;
mod rights;

use serde_json::Value;
use switchyard_tests::deploy::objects::name;
use switchyard_tests::deploy::schema::Schemas;

/// Every object is as its kind is described, and none comes twice.
fn check_objects(what: &str, objects: &[Value]) {
    assert!(!objects.is_empty(), "{what} makes no objects");
    let schemas = Schemas::load().unwrap();
    let mut problems = Vec::new();
    let mut names = Vec::new();
    for object in objects {
        let name = name(object);
        problems.extend(
            schemas
                .problems(object)
                .iter()
                .map(|line| format!("{name}: {line}")),
        );
        if names.contains(&name) {
            problems.push(format!("{name}: more than once"));
        }
        names.push(name);
    }
    assert!(problems.is_empty(), "{what}:\n{}", problems.join("\n"));
}

/// The text of a field; empty where there is none.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The texts of a list; none where there is none.
fn texts<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}
