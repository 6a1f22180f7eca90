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

/// Which right the process that this is lacks.
const CHILD: &str = "SWITCHYARD_TEST_WITHOUT";

/// Runs a test (which calls this as all it does, `name` being its own) in a process that
/// lacks CAP_NET_ADMIN, in a network namespace of its own.
pub(crate) fn without_net_admin(name: &'static str, test: impl FnOnce()) {
    without_right("net_admin", name, || {}, test);
}

/// The same without any right, as setpriv(1) names it. `prepare` runs with all rights before.
pub(crate) fn without_right(
    right: &'static str,
    name: &'static str,
    prepare: impl FnOnce() + Send + 'static,
    test: impl FnOnce(),
) {
    if std::env::var_os(CHILD).is_some() {
        return test();
    }
    in_own_network(move || {
        run("ip link set lo up"); // which the test itself may not
        prepare();
        let output = Command::new("setpriv")
            .arg(format!("--inh-caps=-{right}"))
            .arg(format!("--bounding-set=-{right}"))
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--include-ignored"])
            .env(CHILD, right)
            .output()
            .expect("setpriv (Debian: util-linux)");
        let text = String::from_utf8_lossy(&output.stdout);
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}{failed}"
        );
    });
}
