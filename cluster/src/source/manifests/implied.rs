use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::object::{Kind, Namespace, Object, ObjectName};
use crate::update::Update;

/// Namespaces that no file gives, but that objects live in. Whoever writes manifests by hand
/// seldom writes the Namespace `default`; an API server always has it.
#[derive(Debug, Default)]
pub(super) struct ImpliedNamespaces {
    /// What lives in each, by kind and name.
    residents: HashMap<Arc<str>, HashSet<(Kind, Arc<str>)>>,
    /// The Namespaces that files give.
    given: HashSet<Arc<str>>,
}

impl ImpliedNamespaces {
    /// What to say in place of one update.
    pub(super) fn with_namespaces(&mut self, update: Update) -> Vec<Update> {
        match &update {
            Update::Upsert(Object::Namespace(namespace)) => {
                self.given.insert(Arc::clone(&namespace.name.name));
                vec![update]
            }
            Update::Remove(Kind::Namespace, name) => {
                self.given.remove(&name.name);
                let stays = self.residents.contains_key(&name.name);
                if stays { Vec::new() } else { vec![update] }
            }
            Update::Upsert(object) if !object.name().namespace.is_empty() => {
                let ObjectName { namespace, name } = object.name();
                let residents = self.residents.entry(Arc::clone(namespace)).or_default();
                let first = residents.is_empty() && !self.given.contains(namespace);
                residents.insert((object.kind(), Arc::clone(name)));
                let implied = first.then(|| implied(namespace));
                implied.into_iter().chain([update]).collect()
            }
            Update::Remove(kind, ObjectName { namespace, name }) if !namespace.is_empty() => {
                let Some(residents) = self.residents.get_mut(namespace) else {
                    return vec![update];
                };
                residents.remove(&(*kind, Arc::clone(name)));
                if !residents.is_empty() {
                    return vec![update];
                }
                self.residents.remove(namespace);
                let last = !self.given.contains(namespace);
                let gone = last.then(|| {
                    let name = ObjectName::cluster_wide(Arc::clone(namespace));
                    Update::Remove(Kind::Namespace, name)
                });
                [update].into_iter().chain(gone).collect()
            }
            _ => vec![update],
        }
    }
}

fn implied(namespace: &Arc<str>) -> Update {
    Update::Upsert(Object::Namespace(Arc::new(Namespace {
        name: ObjectName::cluster_wide(Arc::clone(namespace)),
    })))
}
