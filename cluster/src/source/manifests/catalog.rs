//! What all files together say, and what changed by reading one of them again.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::document::Item;
use crate::object::{Kind, Object, ObjectName};
use crate::update::{Problem, Update};

type Key = (Kind, ObjectName);

/// The last good content of every file, and what was already said about it.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// By file name; the later name wins where two have the same object.
    files: BTreeMap<String, BTreeMap<Key, Entry>>,
    said: HashMap<Key, Said>,
}

/// An object in one file.
#[derive(Clone, Debug, PartialEq)]
struct Entry {
    /// Its last good form.
    form: Option<Object>,
    /// What was left out of that form, or why the present text could not be read.
    problems: Vec<Problem>,
    readable: bool,
}

/// What was last sent about an object.
#[derive(Debug, Default)]
struct Said {
    form: Option<Object>,
    problems: Vec<Problem>,
    duplicate: bool,
}

impl Catalog {
    /// Takes in what a file now says; an empty list once the file is gone.
    pub(super) fn replace(&mut self, file: &str, items: Vec<Item>) -> Vec<Update> {
        let old = self.files.remove(file).unwrap_or_default();
        let mut new = BTreeMap::new();
        for item in items {
            let key = (item.kind, item.name);
            let earlier: Option<Entry> = new.remove(&key);
            let twice = earlier.as_ref().map(|_| Problem {
                place: item.place,
                field: "metadata.name".to_owned(),
                message: "the same object stands earlier in this file: this one counts".to_owned(),
            });
            let last_good = || {
                let before = earlier.as_ref().or_else(|| old.get(&key));
                before.and_then(|entry| entry.form.clone())
            };
            let mut entry = match item.read {
                Ok((object, oddities)) => Entry {
                    form: Some(object),
                    problems: oddities,
                    readable: true,
                },
                Err(problem) => Entry {
                    form: last_good(),
                    problems: vec![problem],
                    readable: false,
                },
            };
            if entry.readable {
                entry.problems.extend(twice);
            }
            new.insert(key, entry);
        }
        let touched: BTreeSet<Key> = old.keys().chain(new.keys()).cloned().collect();
        if !new.is_empty() {
            self.files.insert(file.to_owned(), new);
        }
        let mut updates = Vec::new();
        for key in touched {
            self.settle(key, &mut updates);
        }
        updates
    }

    /// Says what is new about one object.
    fn settle(&mut self, key: Key, updates: &mut Vec<Update>) {
        let holders: Vec<(&String, &Entry)> = self
            .files
            .iter()
            .rev()
            .filter_map(|(file, entries)| Some((file, entries.get(&key)?)))
            .collect();
        let Some((winner, entry)) = holders.first() else {
            if self
                .said
                .remove(&key)
                .is_some_and(|said| said.form.is_some())
            {
                updates.push(Update::Remove(key.0, key.1));
            }
            return;
        };
        let said = self.said.entry(key.clone()).or_default();
        // A winner that never was readable leaves the place to the next one that was.
        let form = holders.iter().find_map(|(_, entry)| entry.form.as_ref());
        if form.is_some() && form != said.form.as_ref() {
            said.form = form.cloned();
            updates.extend(form.cloned().map(Update::Upsert));
        }
        for problem in &entry.problems {
            if said.problems.contains(problem) {
                continue;
            }
            let (kind, name, problem) = (key.0, key.1.clone(), problem.clone());
            updates.push(if entry.readable {
                Update::Odd(kind, name, problem)
            } else {
                Update::Unreadable(kind, name, problem)
            });
        }
        said.problems.clone_from(&entry.problems);
        let duplicate = holders.get(1);
        if let (Some((loser, _)), false) = (duplicate, said.duplicate) {
            let problem = Problem {
                place: (*loser).clone(),
                field: "metadata.name".to_owned(),
                message: format!("the same object is in {winner}, which wins by its name"),
            };
            updates.push(Update::Odd(key.0, key.1, problem));
        }
        said.duplicate = duplicate.is_some();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::object::ServiceCidr;

    fn object(name: u8, value: u8) -> Object {
        Object::ServiceCidr(Arc::new(ServiceCidr {
            name: ObjectName::cluster_wide(name.to_string()),
            cidrs: Box::new([format!("10.{value}.0.0/16").parse().unwrap()]),
        }))
    }

    fn item(name: u8, value: Option<u8>) -> Item {
        let problem = Problem {
            place: "file".to_owned(),
            field: "field".to_owned(),
            message: "message".to_owned(),
        };
        Item {
            place: "file".to_owned(),
            kind: Kind::ServiceCidr,
            name: ObjectName::cluster_wide(name.to_string()),
            read: value
                .map(|value| (object(name, value), Vec::new()))
                .ok_or(problem),
        }
    }

    proptest! {
        /// Whatever is written to a few files in whatever order: the updates lead to what
        /// the last of the files with an object says, an unreadable one keeps its last good
        /// form, and nothing is said that changes nothing.
        #[test]
        fn updates_lead_to_what_the_files_say(
            writes in vec((0_u8..3, vec((0_u8..4, prop::option::weighted(0.8, 0_u8..3)), 0..4)), 1..20)
        ) {
            let mut catalog = Catalog::default();
            let mut files: BTreeMap<u8, BTreeMap<u8, Option<Object>>> = BTreeMap::new();
            let mut seen: BTreeMap<ObjectName, Object> = BTreeMap::new();
            for (file, content) in writes {
                let old = files.remove(&file).unwrap_or_default();
                let mut new: BTreeMap<u8, Option<Object>> = BTreeMap::new();
                for (name, value) in &content {
                    let before = new.get(name).or_else(|| old.get(name)).cloned().flatten();
                    let form = value.map(|value| object(*name, value)).or(before);
                    new.insert(*name, form);
                }
                files.insert(file, new);
                let before = seen.clone();
                let items = content.iter().map(|(name, value)| item(*name, *value)).collect();
                for update in catalog.replace(&file.to_string(), items) {
                    match update {
                        Update::Upsert(object) => {
                            let old = seen.insert(object.name().clone(), object.clone());
                            prop_assert_ne!(old, Some(object));
                        }
                        Update::Remove(_, name) => prop_assert!(seen.remove(&name).is_some()),
                        _ => {}
                    }
                }
                // Where an object is named but nowhere readable, what it was stays.
                let named = |name: &ObjectName| {
                    files.values().flat_map(BTreeMap::keys).any(|other| *other.to_string() == *name.name)
                };
                let mut expected = before;
                expected.retain(|name, _| named(name));
                let entries = files.values().flat_map(BTreeMap::iter);
                for form in entries.filter_map(|(_, form)| form.as_ref()) {
                    expected.insert(form.name().clone(), form.clone());
                }
                prop_assert_eq!(&seen, &expected);
            }
        }
    }
}
