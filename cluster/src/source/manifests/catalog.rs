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
