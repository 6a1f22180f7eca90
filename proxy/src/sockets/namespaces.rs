use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{debug, warn};

/// Network namespaces looked at in one pass. A node has at most some hundred pods.
pub const NAMESPACES_MAX: usize = 4096;
/// Entries of the directories and of /proc looked at in one pass.
const ENTRIES_MAX: usize = 65_536;

/// The calling thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Where the network namespaces of a node are found, besides the agent's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceSources {
    /// Directories with a file for each: where container runtimes and ip-netns(8) mount them.
    pub directories: Vec<PathBuf>,
    /// Where procfs is. Processes of other PID namespaces are not in it, unless the agent runs
    /// in the node's own (`hostPID`).
    pub proc: PathBuf,
}

impl Default for NamespaceSources {
    /// `/run/netns`, `/var/run/netns` and `/proc`.
    fn default() -> Self {
        Self {
            directories: vec!["/run/netns".into(), "/var/run/netns".into()],
            proc: "/proc".into(),
        }
    }
}

impl NamespaceSources {
    /// Hands over every namespace once, whatever number of names it has: the agent's `own`,
    /// then the others, each opened in its turn. What is not there or may not be opened is
    /// passed over. A file that is no namespace is handed over like one.
    pub(super) fn visit(
        &self,
        own: &File,
        mut on_namespace: impl FnMut(&File, &Path) -> ControlFlow<()>,
    ) {
        if on_namespace(own, Path::new(OWN)).is_break() {
            return;
        }
        let in_directories = self.directories.iter().flat_map(|path| entries(path));
        let of_processes = entries(&self.proc)
            .filter(|path| is_process(path))
            .map(|path| path.join("ns/net"));
        let mut seen: HashSet<_> = identity(own).into_iter().collect();
        for (count, path) in in_directories.chain(of_processes).enumerate() {
            if count >= ENTRIES_MAX || seen.len() >= NAMESPACES_MAX {
                warn_once();
                return;
            }
            let opened = open(&path).and_then(|file| Ok((identity(&file)?, file)));
            match opened {
                Ok((identity, file)) => {
                    let is_new = seen.insert(identity);
                    if is_new && on_namespace(&file, &path).is_break() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {} // it just ended
                Err(error) => debug!(path = %path.display(), "no network namespace: {error}"),
            }
        }
    }
}

/// The network namespace of the calling thread.
pub(super) fn open_own() -> io::Result<File> {
    open(Path::new(OWN))
}

/// Opens a namespace's file. One that blocks when opened is none.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    // Nobody makes named namespaces on many nodes, so a missing directory is nothing special.
    let entries = fs::read_dir(directory)
        .inspect_err(|error| debug!(path = %directory.display(), "not searched: {error}"));
    let entries = entries.into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

fn is_process(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    !name.is_empty() && name.iter().all(u8::is_ascii_digit)
}

fn warn_once() {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        warn!(
            "more than {NAMESPACES_MAX} network namespaces, or {ENTRIES_MAX} processes and names \
             of namespaces: UDP sockets in the rest are not cleaned; this is said once"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(own: &File, sources: &NamespaceSources) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        sources.visit(own, |_, path| {
            paths.push(path.to_owned());
            ControlFlow::Continue(())
        });
        assert_eq!(paths.remove(0), Path::new(OWN));
        paths.sort();
        paths
    }

    #[test]
    fn each_is_visited_once_under_its_first_name() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for directory in ["netns", "proc/1/ns", "proc/22/ns", "proc/net/ns", "proc/3"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        fs::write(path("netns/a"), "").unwrap();
        fs::hard_link(path("netns/a"), path("proc/1/ns/net")).unwrap();
        fs::write(path("proc/22/ns/net"), "").unwrap();
        fs::write(path("proc/net/ns/net"), "").unwrap();
        fs::write(path("own"), "").unwrap();
        fs::hard_link(path("own"), path("netns/own")).unwrap();
        std::os::unix::fs::symlink("nowhere", path("netns/dangling")).unwrap();
        nix::unistd::mkfifo(&path("netns/fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        let sources = NamespaceSources {
            directories: vec![path("netns"), path("missing"), path("netns")],
            proc: path("proc"),
        };
        let own = File::open(path("own")).unwrap();
        assert_eq!(
            found(&own, &sources),
            [path("netns/a"), path("netns/fifo"), path("proc/22/ns/net")]
        );
    }

    #[test]
    fn there_is_a_limit() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..NAMESPACES_MAX + 3 {
            fs::write(root.path().join(number.to_string()), "").unwrap();
        }
        let sources = NamespaceSources {
            directories: vec![root.path().to_owned()],
            proc: root.path().join("missing"),
        };
        let own = tempfile::tempfile().unwrap();
        assert_eq!(found(&own, &sources).len(), NAMESPACES_MAX - 1);
    }

    #[test]
    fn the_node_has_one_that_is_everybodys() {
        let own = open_own().unwrap();
        let other = tempfile::tempfile().unwrap();
        let mut times = 0;
        NamespaceSources::default().visit(&other, |namespace, _| {
            times += i32::from(identity(namespace).unwrap() == identity(&own).unwrap());
            ControlFlow::Continue(())
        });
        assert_eq!(times, 1);
    }
}
