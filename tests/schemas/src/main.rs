//! Writes JSON schemas of the Kubernetes kinds in `deploy/` to standard output, with the
//! definitions that they use, for `tests/data/kubernetes-1.36/schemas.json`:
//!
//! ```text
//! cargo run --manifest-path tests/schemas/Cargo.toml > tests/data/kubernetes-1.36/schemas.json
//! ```
//!
//! The schemas are those of Kubernetes' OpenAPI description as k8s-openapi has them, without the
//! prose, and strict: no object takes a field that is not described.

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

fn main() {
    let mut generator = SchemaSettings::draft07().into_generator();
    let mut kinds = Map::new();
    add::<ClusterRole>(&mut generator, &mut kinds);
    add::<ClusterRoleBinding>(&mut generator, &mut kinds);
    add::<ConfigMap>(&mut generator, &mut kinds);
    add::<DaemonSet>(&mut generator, &mut kinds);
    add::<Deployment>(&mut generator, &mut kinds);
    add::<NetworkPolicy>(&mut generator, &mut kinds);
    add::<PodDisruptionBudget>(&mut generator, &mut kinds);
    add::<Service>(&mut generator, &mut kinds);
    add::<ServiceAccount>(&mut generator, &mut kinds);
    let mut definitions = Value::Object(generator.take_definitions(true));
    tidy(&mut definitions);
    print(&kinds, &definitions);
}

fn add<K: Resource + JsonSchema>(generator: &mut SchemaGenerator, kinds: &mut Map<String, Value>) {
    let name = format!("{}/{}", K::API_VERSION, K::KIND);
    let mut schema = generator.subschema_for::<K>().to_value();
    tidy(&mut schema);
    kinds.insert(name, schema);
}

/// Drops what is for people to read, and forbids fields that are not described.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Array(values) => values.iter_mut().for_each(tidy),
        Value::Object(object) => {
            if object.get("description").is_some_and(Value::is_string) {
                object.remove("description");
            }
            if object
                .get("properties")
                .is_some_and(|fields| !fields.get("type").is_some_and(Value::is_string))
                && !object.contains_key("additionalProperties")
            {
                object.insert("additionalProperties".to_owned(), json!(false));
            }
            object.values_mut().for_each(tidy);
        }
        _ => {}
    }
}

/// One line a definition: short, and readable in a diff.
fn print(kinds: &Map<String, Value>, definitions: &Value) {
    let lines = |of: &Map<String, Value>| {
        let lines: Vec<String> = of
            .iter()
            .map(|(name, schema)| format!("    {}: {schema}", json!(name)))
            .collect();
        lines.join(",\n")
    };
    let empty = Map::new();
    let definitions = definitions.as_object().unwrap_or(&empty);
    println!(
        "{{\n  \"kinds\": {{\n{}\n  }},\n  \"definitions\": {{\n{}\n  }}\n}}",
        lines(kinds),
        lines(definitions)
    );
}
