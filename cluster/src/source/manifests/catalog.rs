//! What all files together say, and what changed by reading one of them again.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::document::Item;
use crate::object::{Kind, Object, ObjectName};
use crate::update::{Problem, Update};

type Key = (Kind, ObjectName);

/// The last good content of every file, and what was already said about it.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// Those with objects in them.
    files: HashSet<Arc<str>>,
    objects: HashMap<Kind, HashSet<Known>>,
}

/// What is known of an object, found by its name. Nearly all stand in one file, without a fault:
/// a cluster may have a hundred thousand of them.
#[derive(Debug)]
enum Known {
    /// As it stands in this one file, and as it was said.
    Plain {
        file: Arc<str>,
        object: Object,
    },
    Other(Box<(ObjectName, Account)>),
}

/// Everything about an object.
#[derive(Debug, Default)]
struct Account {
    /// By file name; the later name wins where two have the same object.
    holders: BTreeMap<Arc<str>, Entry>,
    said: Said,
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
        let file: Arc<str> = match self.files.get(file) {
            Some(file) => Arc::clone(file),
            None => file.into(),
        };
        let mut new: BTreeMap<Key, Entry> = BTreeMap::new();
        for item in items {
            let key = (item.kind, item.name);
            let earlier = new.remove(&key);
            let twice = earlier.as_ref().map(|_| Problem {
                place: item.place,
                field: "metadata.name".to_owned(),
                message: "the same object stands earlier in this file: this one counts".to_owned(),
            });
            let last_good = || match earlier {
                Some(earlier) => earlier.form,
                None => self.form_in(&file, &key),
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
        let mut touched: BTreeSet<Key> = self.keys_in(&file);
        touched.extend(new.keys().cloned());
        if new.is_empty() {
            self.files.remove(&file);
        } else {
            self.files.insert(Arc::clone(&file));
        }
        let mut updates = Vec::new();
        for key in touched {
            let mut account = self.take(&key);
            match new.remove(&key) {
                Some(entry) => drop(account.holders.insert(Arc::clone(&file), entry)),
                None => drop(account.holders.remove(&file)),
            }
            account.settle(&key, &mut updates);
            self.keep(key, account);
        }
        updates
    }

    fn known(&self, key: &Key) -> Option<&Known> {
        self.objects.get(&key.0)?.get(&key.1)
    }

    /// The last good form of an object in a file.
    fn form_in(&self, file: &str, key: &Key) -> Option<Object> {
        match self.known(key)? {
            Known::Plain { file: own, object } => (**own == *file).then(|| object.clone()),
            Known::Other(other) => other.1.holders.get(file)?.form.clone(),
        }
    }

    /// The objects that a file had until now.
    fn keys_in(&self, file: &str) -> BTreeSet<Key> {
        if !self.files.contains(file) {
            return BTreeSet::new();
        }
        let all = self.objects.iter();
        let all = all.flat_map(|(kind, known)| known.iter().map(|known| (*kind, known)));
        all.filter(|(_, known)| known.is_in(file))
            .map(|(kind, known)| (kind, known.name().clone()))
            .collect()
    }

    /// Takes out what is known of an object.
    fn take(&mut self, (kind, name): &Key) -> Account {
        let known = self.objects.get_mut(kind);
        known
            .and_then(|known| known.take(name))
            .map_or_else(Account::default, Account::from)
    }

    /// Puts it back; one that no file names is forgotten.
    fn keep(&mut self, (kind, name): Key, account: Account) {
        if !account.holders.is_empty() {
            let known = Known::new(name, account);
            self.objects.entry(kind).or_default().insert(known);
        }
    }
}

impl Known {
    fn new(name: ObjectName, mut account: Account) -> Self {
        if account.holders.len() == 1
            && let Some((file, entry)) = account.holders.pop_first()
        {
            match entry {
                Entry {
                    form: Some(object),
                    problems,
                    readable: true,
                } if problems.is_empty() => return Self::Plain { file, object },
                entry => drop(account.holders.insert(file, entry)),
            }
        }
        Self::Other(Box::new((name, account)))
    }

    fn name(&self) -> &ObjectName {
        match self {
            Self::Plain { object, .. } => object.name(),
            Self::Other(other) => &other.0,
        }
    }

    fn is_in(&self, file: &str) -> bool {
        match self {
            Self::Plain { file: own, .. } => **own == *file,
            Self::Other(other) => other.1.holders.contains_key(file),
        }
    }
}

impl Borrow<ObjectName> for Known {
    fn borrow(&self) -> &ObjectName {
        self.name()
    }
}

impl Hash for Known {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl PartialEq for Known {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Known {}

impl From<Known> for Account {
    fn from(known: Known) -> Self {
        let (file, object) = match known {
            Known::Plain { file, object } => (file, object),
            Known::Other(other) => return other.1,
        };
        let entry = Entry {
            form: Some(object.clone()),
            problems: Vec::new(),
            readable: true,
        };
        Self {
            holders: BTreeMap::from([(file, entry)]),
            said: Said {
                form: Some(object),
                ..Said::default()
            },
        }
    }
}

impl Account {
    /// Says what is new about the object.
    fn settle(&mut self, key: &Key, updates: &mut Vec<Update>) {
        let Self { holders, said } = self;
        let mut by_rank = holders.iter().rev();
        let Some((winner, entry)) = by_rank.next() else {
            if said.form.is_some() {
                updates.push(Update::Remove(key.0, key.1.clone()));
            }
            return;
        };
        // A winner that never was readable leaves the place to the next one that was.
        let mut forms = holders.values().rev();
        let form = forms.find_map(|entry| entry.form.as_ref());
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
        let duplicate = by_rank.next();
        if let (Some((loser, _)), false) = (duplicate, said.duplicate) {
            let problem = Problem {
                place: loser.to_string(),
                field: "metadata.name".to_owned(),
                message: format!("the same object is in {winner}, which wins by its name"),
            };
            updates.push(Update::Odd(key.0, key.1.clone(), problem));
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

    /// What each object of a folder costs beside its form.
    #[test]
    fn an_object_costs_little() {
        assert!(size_of::<Known>() <= 32, "{}", size_of::<Known>());
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
