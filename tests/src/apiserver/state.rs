//! The objects and their history.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::resource::Resource;

/// Older changes are forgotten: a watch from before them is too old.
const MAX_HISTORY: usize = 200_000;

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Path root and plural of the resource.
    resource: (&'static str, &'static str),
    /// Empty for cluster-wide resources.
    namespace: String,
    name: String,
}

impl Key {
    /// The key of an object.
    #[must_use]
    pub fn new(resource: &Resource, namespace: &str, name: &str) -> Self {
        let namespace = if resource.namespaced { namespace } else { "" };
        Self {
            resource: (resource.root, resource.plural),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(super) fn is_of(&self, resource: &Resource) -> bool {
        self.resource == (resource.root, resource.plural)
    }

    /// Namespace and name as lists are ordered and continued by.
    pub(super) fn path(&self) -> String {
        if self.namespace.is_empty() {
            format!("/{}", self.name)
        } else {
            format!("/{}/{}", self.namespace, self.name)
        }
    }
}

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
}

/// What is asked for is not in the history any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooOld {
    /// The oldest version that can be asked for.
    pub(super) oldest: u64,
}

/// The objects, and how they came to be.
#[derive(Debug, Default)]
pub(super) struct State {
    version: u64,
    /// History begins after this version.
    compacted: u64,
    objects: BTreeMap<Key, Arc<Value>>,
    history: VecDeque<Change>,
}

impl State {
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) const fn skip_to(&mut self, version: u64) {
        if version > self.version {
            self.version = version;
        }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    pub(super) fn all(&self, resource: &Resource) -> Vec<Value> {
        let of_it = self.objects.iter().filter(|(key, _)| key.is_of(resource));
        of_it.map(|(_, object)| Value::clone(object)).collect()
    }

    /// Puts an object. What the server sets itself is set where the object does not bring
    /// it: uid and creationTimestamp stay what they were.
    pub(super) fn set(&mut self, resource: &Resource, mut object: Value) -> u64 {
        let text = |object: &Value, field: &str| {
            object["metadata"][field]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        let mut namespace = text(&object, "namespace");
        if resource.namespaced && namespace.is_empty() {
            "default".clone_into(&mut namespace);
        }
        let key = Key::new(resource, &namespace, &text(&object, "name"));
        self.version += 1;
        let version = self.version;
        let before = self.objects.get(&key).cloned();
        object["kind"] = json!(resource.kind);
        object["apiVersion"] = json!(resource.api_version);
        let now = jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string();
        let meta = &mut object["metadata"];
        if resource.namespaced {
            meta["namespace"] = json!(namespace);
        }
        for (field, new) in [("uid", uid(version)), ("creationTimestamp", now)] {
            if meta[field].is_null() {
                let old = before.as_ref().map(|old| old["metadata"][field].clone());
                meta[field] = old.unwrap_or_else(|| json!(new));
            }
        }
        meta["resourceVersion"] = json!(version.to_string());
        let after = Arc::new(object);
        self.objects.insert(key.clone(), Arc::clone(&after));
        self.remember(key, before, Some(after));
        version
    }

    pub(super) fn delete(&mut self, key: &Key) -> Option<u64> {
        let before = self.objects.remove(key)?;
        self.version += 1;
        self.remember(key.clone(), Some(before), None);
        Some(self.version)
    }

    /// Forgets all history.
    pub(super) fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.version;
    }

    /// The objects of a resource as they were at a version, in the order of their paths.
    pub(super) fn at(
        &self,
        resource: &Resource,
        version: u64,
    ) -> Result<BTreeMap<String, Arc<Value>>, TooOld> {
        self.known_since(version)?;
        let mut objects: BTreeMap<String, Arc<Value>> = self
            .objects
            .iter()
            .filter(|(key, _)| key.is_of(resource))
            .map(|(key, object)| (key.path(), Arc::clone(object)))
            .collect();
        let undone = self.history.iter().rev();
        let undone = undone.take_while(|change| change.version > version);
        for change in undone.filter(|change| change.key.is_of(resource)) {
            match &change.before {
                Some(before) => objects.insert(change.key.path(), Arc::clone(before)),
                None => objects.remove(&change.key.path()),
            };
        }
        Ok(objects)
    }

    /// The changes of a resource after a version.
    pub(super) fn since(&self, resource: &Resource, version: u64) -> Result<Vec<Change>, TooOld> {
        self.known_since(version)?;
        let first = self
            .history
            .partition_point(|change| change.version <= version);
        let changes = self.history.range(first..);
        let changes = changes.filter(|change| change.key.is_of(resource));
        Ok(changes.cloned().collect())
    }

    const fn known_since(&self, version: u64) -> Result<(), TooOld> {
        if version < self.compacted {
            return Err(TooOld {
                oldest: self.compacted,
            });
        }
        Ok(())
    }

    fn remember(&mut self, key: Key, before: Option<Arc<Value>>, after: Option<Arc<Value>>) {
        if self.history.len() >= MAX_HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.compacted = oldest.version;
        }
        self.history.push_back(Change {
            version: self.version,
            key,
            before,
            after,
        });
    }
}

/// Looks like a UUID and is one of a kind in this server.
fn uid(version: u64) -> String {
    format!("00000000-0000-4000-8000-{version:012x}")
}

#[cfg(test)]
mod tests {
    use super::super::RESOURCES;
    use super::*;

    fn named(name: &str) -> Value {
        json!({"metadata": {"name": name}})
    }

    #[test]
    fn the_past_can_be_listed_until_it_is_compacted() {
        let services = &RESOURCES[0];
        let mut state = State::default();
        state.set(services, named("a"));
        let then = state.set(services, named("b"));
        state.delete(&Key::new(services, "default", "a"));
        state.set(services, named("c"));
        state.set(services, named("b"));
        let names = |state: &State, at| -> Vec<String> {
            state.at(services, at).unwrap().into_keys().collect()
        };
        assert_eq!(names(&state, then), ["/default/a", "/default/b"]);
        assert_eq!(names(&state, state.version()), ["/default/b", "/default/c"]);
        assert_eq!(state.since(services, then).unwrap().len(), 3);
        state.compact();
        let oldest = state.version();
        assert_eq!(state.at(services, then).unwrap_err(), TooOld { oldest });
        assert_eq!(state.since(services, then).unwrap_err(), TooOld { oldest });
        assert!(state.since(services, oldest).unwrap().is_empty());
    }
}
