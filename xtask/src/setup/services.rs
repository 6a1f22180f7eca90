//! Installing a server's package without its service being started, now or at the next boot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::programs::{command, is_installed, succeeds};

/// What Debian's packages ask before they start a service (invoke-rc.d, deb-systemd-invoke).
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Where the machine's own policy waits while ours stands in its place.
const SET_ASIDE: &str = "/usr/sbin/policy-rc.d.set-aside-by-switchyard";
/// The policy's word for "no".
const FORBIDDEN: i32 = 101;

/// While it lives, no package starts a service. The machine's own policy is back afterwards.
pub(super) struct NoStart {
    policy: PathBuf,
    set_aside: PathBuf,
    /// Whether the policy that stands is ours.
    is_ours: bool,
}

impl NoStart {
    pub(super) fn begin() -> Result<Self> {
        Self::begin_at(Path::new(POLICY), Path::new(SET_ASIDE))
    }

    fn begin_at(policy: &Path, set_aside: &Path) -> Result<Self> {
        if set_aside.exists() {
            // A set-up that was killed left it.
            fs::rename(set_aside, policy).context("put the machine's own policy back")?;
        }
        let mut guard = Self {
            policy: policy.to_owned(),
            set_aside: set_aside.to_owned(),
            is_ours: false,
        };
        if policy.exists() {
            if forbids(policy) {
                return Ok(guard);
            }
            fs::rename(policy, set_aside).context("set the machine's own policy aside")?;
        }
        guard.is_ours = true;
        // Should we be killed, it says no for no longer than we lived.
        let script = format!(
            "#!/bin/sh\n# Written by `cargo xtask setup`, which removes it again.\n\
             kill -0 {} 2>/dev/null && exit {FORBIDDEN}\nexit 0\n",
            std::process::id()
        );
        fs::write(policy, script).with_context(|| format!("write {}", policy.display()))?;
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoStart {
    fn drop(&mut self) {
        if !self.is_ours {
            return;
        }
        let restored = if self.set_aside.exists() {
            fs::rename(&self.set_aside, &self.policy)
        } else {
            fs::remove_file(&self.policy)
        };
        if let Err(error) = restored {
            eprintln!("setup: {}: {error}", self.policy.display());
        }
    }
}

/// Whether the policy that stands forbids a start.
fn forbids(policy: &Path) -> bool {
    command(policy)
        .and_then(|mut policy| Ok(policy.args(["nsd", "start"]).status()?))
        .is_ok_and(|status| status.code() == Some(FORBIDDEN))
}

/// Whether this service's package is installed.
pub(super) fn has_service(name: &str) -> bool {
    ["/lib/systemd/system", "/usr/lib/systemd/system"]
        .iter()
        .any(|dir| Path::new(dir).join(format!("{name}.service")).exists())
        || Path::new("/etc/init.d").join(name).exists()
}

/// Keeps services that were just installed from being started at the next boot.
///
/// # Errors
/// The one that is still enabled.
pub(super) fn disable(services: &[&str]) -> Result<()> {
    for service in services {
        // Both work on links alone, whether or not the machine was started by systemd.
        let mut disable = if is_installed("systemctl") {
            let mut disable = command("systemctl")?;
            disable.args(["--quiet", "disable", &format!("{service}.service")]);
            disable
        } else {
            let mut disable = command("update-rc.d")?;
            disable.args([service, "disable"]);
            disable
        };
        // Where there is no manager of services at all, nothing starts it either.
        let has_manager = is_installed("systemctl") || is_installed("update-rc.d");
        disable.current_dir("/");
        if has_manager && !succeeds(disable) {
            anyhow::bail!("`{service}` was installed and may start at the next boot: disable it");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (policy, aside) = (dir.path().join("policy"), dir.path().join("aside"));
        (dir, policy, aside)
    }

    fn write_policy(path: &Path, code: i32) {
        fs::write(path, format!("#!/bin/sh\nexit {code}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn starts_are_forbidden_while_it_lives_and_no_policy_is_left() {
        let (_dir, policy, aside) = paths();
        let guard = NoStart::begin_at(&policy, &aside).unwrap();
        assert!(forbids(&policy));
        drop(guard);
        assert!(!policy.exists() && !aside.exists());
    }

    #[test]
    fn a_policy_that_allows_is_put_back() {
        let (_dir, policy, aside) = paths();
        write_policy(&policy, 0);
        let before = fs::read(&policy).unwrap();
        let guard = NoStart::begin_at(&policy, &aside).unwrap();
        assert!(forbids(&policy));
        drop(guard);
        assert_eq!(fs::read(&policy).unwrap(), before);
        assert!(!aside.exists());
    }

    #[test]
    fn a_policy_that_forbids_is_not_touched() {
        let (_dir, policy, aside) = paths();
        write_policy(&policy, FORBIDDEN);
        let before = fs::metadata(&policy).unwrap().modified().unwrap();
        drop(NoStart::begin_at(&policy, &aside).unwrap());
        assert_eq!(fs::metadata(&policy).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn what_a_killed_setup_set_aside_comes_back() {
        let (_dir, policy, aside) = paths();
        write_policy(&aside, 0);
        let before = fs::read(&aside).unwrap();
        fs::write(&policy, "left over").unwrap();
        drop(NoStart::begin_at(&policy, &aside).unwrap());
        assert_eq!(fs::read(&policy).unwrap(), before);
    }
}
