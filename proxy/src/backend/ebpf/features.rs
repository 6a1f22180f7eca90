use std::fmt;

use super::Paths;

/// What the machine can do beyond what is needed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {}

/// Something that is needed and not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What.
    pub feature: &'static str,
    /// What would have it, such as a version of Linux or an option of the kernel's build.
    pub needs: String,
    /// What the system said when it was tried.
    pub said: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            feature,
            needs,
            said,
        } = self;
        write!(f, "no {feature} (needs {needs}; the system said: {said})")
    }
}

/// Tries whether the machine has all that is needed. Leaves nothing behind.
///
/// # Errors
/// Everything that is missing.
pub fn probe(paths: &Paths) -> Result<Features, Vec<Missing>> {
    let _ = paths;
    Err(vec![Missing {
        feature: "eBPF programs",
        needs: "a build that has them".to_owned(),
        said: "not in this build yet".to_owned(),
    }])
}
