use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::Uid;

/// Runs a test in a thread that has a fresh network namespace, which dies with the thread.
pub(crate) fn in_own_network(test: impl FnOnce() + Send + 'static) {
    assert!(
        Uid::effective().is_root(),
        "needs root: run as root, or with sudo -E cargo test"
    );
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of its own");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command in the calling thread's namespace; it must succeed. Returns its output.
pub(crate) fn run(command: &str) -> String {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program)
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "`{command}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8 output")
}
