//! Following the configuration file.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::Agent;
use crate::settings::{Flags, SettingError, Settings};

/// How often the file is looked at. A look is one `stat`; ConfigMaps, symbolic links and all
/// kinds of writers need nothing else.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

/// A configuration file that may change. Made before the file is first read, so that no change
/// is missed.
#[derive(Debug)]
pub struct Reload {
    flags: Flags,
    host_name: String,
    file: PathBuf,
    /// Of the text that was last read.
    read: Option<Stamp>,
    /// As it was at the last look.
    seen: Option<Stamp>,
    look_at: Instant,
}

/// What changes with a file's text, whichever way it is written.
type Stamp = (u64, u64, u64, (i64, i64));

/// What a changed file is worth.
#[derive(Debug)]
enum Changed {
    /// It says something else, and can be used.
    Usable,
    /// It says what it said before.
    Same,
    /// It can't be used.
    Wrong(Vec<SettingError>),
}

impl Reload {
    /// Of the file that the flags name, if they do.
    #[must_use]
    pub fn new(flags: &Flags, host_name: &str) -> Option<Self> {
        let file = flags.config.clone()?;
        let read = stamp(&file);
        Some(Self {
            flags: flags.clone(),
            host_name: host_name.to_owned(),
            seen: read,
            read,
            file,
            look_at: Instant::now() + LOOK_PERIOD,
        })
    }

    /// The file.
    fn file(&self) -> &Path {
        &self.file
    }

    /// Waits until the file has changed and has been left alone for a while: it may be written
    /// piece by piece. Safe to drop and call anew.
    async fn changed(&mut self, now: &Settings) -> Changed {
        loop {
            sleep_until(self.look_at.into()).await;
            self.look_at = Instant::now() + LOOK_PERIOD;
            if self.look() {
                return self.judge(now);
            }
        }
    }

    /// Whether there is a text that was not read, the same as at the last look.
    fn look(&mut self) -> bool {
        let stamp = stamp(&self.file);
        let is_settled = stamp == self.seen;
        self.seen = stamp;
        is_settled && stamp != self.read
    }

    fn judge(&mut self, now: &Settings) -> Changed {
        self.read = self.seen;
        match Settings::read(&self.flags, &self.host_name) {
            Ok((settings, _)) if settings == *now => Changed::Same,
            Ok(_) => Changed::Usable,
            Err(errors) => Changed::Wrong(errors),
        }
    }
}

/// `None` if there is no such file.
fn stamp(file: &Path) -> Option<Stamp> {
    let meta = std::fs::metadata(file).ok()?;
    let changed = (meta.ctime(), meta.ctime_nsec());
    Some((meta.dev(), meta.ino(), meta.size(), changed))
}

/// Waits until the configuration file says something else: what is wrong with it, if anything.
pub(super) async fn unusable_or_changed(
    reload: Option<&mut Reload>,
    now: &Settings,
) -> Option<Vec<SettingError>> {
    let Some(reload) = reload else {
        return std::future::pending().await;
    };
    loop {
        let changed = reload.changed(now).await;
        let file = reload.file().display();
        match changed {
            Changed::Usable => {
                tracing::info!(%file, "the configuration changed: restarting in place");
                return None;
            }
            Changed::Same => tracing::info!(%file, "the configuration file says what it did"),
            Changed::Wrong(errors) => return Some(errors),
        }
    }
}

impl Agent {
    /// A new configuration can't be used: what was in force stays.
    pub(super) fn refuse_configuration(&self, errors: &[SettingError]) {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let errors = errors.join("; ");
        self.metrics.config_reload_failures.inc(());
        self.teller.configuration_refused(&errors);
        tracing::warn!(
            %errors,
            "the new configuration can't be used: the one before it stays in force"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use clap::Parser as _;

    use super::*;

    const HEAD: &str =
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

    /// As the kubelet mounts a ConfigMap: links to a folder that is exchanged.
    #[test]
    fn a_change_counts_once_it_has_settled_and_only_if_it_says_something_else() {
        let mount = tempfile::tempdir().unwrap();
        let at = |name: &str| mount.path().join(name);
        let version = |name: &str, lines: &str| {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("config.conf"), format!("{HEAD}{lines}")).unwrap();
            let _ = fs::remove_file(at("..tmp"));
            symlink(name, at("..tmp")).unwrap();
            fs::rename(at("..tmp"), at("..data")).unwrap();
        };
        version("..1", "mode: ipvs\n");
        symlink("..data/config.conf", at("config.conf")).unwrap();

        let config = format!("--config={}", at("config.conf").display());
        let flags = Flags::try_parse_from(["switchyard-proxy", &config]).unwrap();
        let mut reload = Reload::new(&flags, "node").unwrap();
        let (now, _) = Settings::read(&flags, "node").unwrap();
        assert!(!reload.look(), "nothing changed");

        version("..2", "mode: ipvs # as before\n");
        assert!(!reload.look(), "not settled");
        assert!(reload.look());
        assert!(matches!(reload.judge(&now), Changed::Same));
        assert!(!reload.look(), "it was read");

        version("..3", "mode: [\n");
        assert!(!reload.look());
        assert!(reload.look());
        assert!(matches!(reload.judge(&now), Changed::Wrong(_)));

        fs::remove_file(at("config.conf")).unwrap();
        assert!(!reload.look());
        assert!(reload.look());
        assert!(matches!(reload.judge(&now), Changed::Wrong(_)));

        fs::write(at("config.conf"), format!("{HEAD}mode: iptables\n")).unwrap();
        assert!(!reload.look());
        assert!(reload.look());
        assert!(matches!(reload.judge(&now), Changed::Usable));
    }
}
