use std::collections::HashMap;

use crate::object::{Kind, ObjectName};
use crate::update::{Problem, Update};

/// What was said about objects that are not as they should be, so that each thing is said
/// once and not again with every change and every list. Holds only such objects.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    said: HashMap<ObjectName, Vec<Problem>>,
    /// What was said before the list that is being read.
    before: HashMap<ObjectName, Vec<Problem>>,
}

impl Complaints {
    /// A list begins: who is not in it is forgotten at its end.
    pub(super) fn list_started(&mut self) {
        let said = std::mem::take(&mut self.said);
        self.before.extend(said);
    }

    /// The list is complete.
    pub(super) fn list_done(&mut self) {
        self.before = HashMap::new();
    }

    /// The object is gone.
    pub(super) fn removed(&mut self, name: &ObjectName) {
        self.said.remove(name);
    }

    /// What is new about an object with these problems, possibly none.
    pub(super) fn news(
        &mut self,
        kind: Kind,
        name: &ObjectName,
        problems: Vec<Problem>,
        readable: bool,
    ) -> Vec<Update> {
        let before = self.before.remove(name);
        let old = self.said.remove(name).or(before).unwrap_or_default();
        let new = problems.iter().filter(|problem| !old.contains(problem));
        let updates = new
            .map(|problem| {
                let (name, problem) = (name.clone(), problem.clone());
                if readable {
                    Update::Odd(kind, name, problem)
                } else {
                    Update::Unreadable(kind, name, problem)
                }
            })
            .collect();
        if !problems.is_empty() {
            self.said.insert(name.clone(), problems);
        }
        updates
    }
}
