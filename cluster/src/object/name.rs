use std::fmt;
use std::sync::Arc;

/// Namespace and name of an object; the namespace is empty for cluster-wide kinds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// The namespace, `""` for Nodes and other cluster-wide objects.
    pub namespace: Arc<str>,
    /// The name within the namespace.
    pub name: Arc<str>,
}

impl ObjectName {
    /// A name in a namespace.
    #[must_use]
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The name of a cluster-wide object.
    #[must_use]
    pub fn cluster_wide(name: impl Into<Arc<str>>) -> Self {
        Self::new("", name)
    }
}

/// `namespace/name`, or the bare name of a cluster-wide object.
impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// An object of any kind, known by its name.
pub trait Named {
    /// Its namespace and name.
    fn name(&self) -> &ObjectName;
}
