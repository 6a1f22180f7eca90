//! A running guest: QEMU, what comes out of it, and its end.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::kernel::Kernel;
use crate::programs::command;

/// The program that runs guests.
pub(super) const QEMU: &str = "qemu-system-x86_64";
/// The guest's kind of processor: all that QEMU knows but CMPXCHG16B, after which QEMU 7.2, Debian
/// 12's, leaves garbage in the flags, so that Linux 6.12 breaks at every third boot or so.
const PROCESSOR: &str = "max,cx16=off";
/// The guest's processors: two, so that what is kept per processor is seen to be.
const PROCESSORS: u32 = 2;
/// How often we look whether the guest has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How many of the console's last lines are shown when the guest fails.
const CONSOLE_LINES: usize = 40;
/// How many of the kernel's complaints are shown.
const MAX_COMPLAINTS: usize = 10;
/// What the kernel's complaints have in them.
const COMPLAINTS: [&str; 5] = ["BUG: ", "Oops", "Kernel panic", "WARNING: ", "rcu: INFO"];

/// What a guest is made of.
pub(super) struct Guest<'a> {
    pub(super) qemu: &'a Path,
    pub(super) kernel: &'a Kernel,
    pub(super) initramfs: &'a Path,
    /// A folder for the files that come out of it.
    pub(super) dir: &'a Path,
}

/// How much a guest may use.
pub(super) struct Limits {
    pub(super) memory_mib: u32,
    /// From power-on, of this machine's clock.
    pub(super) time: Duration,
}

/// How a guest ended.
#[derive(Debug)]
pub(super) enum End {
    /// The command ended by itself.
    Command { status: u8, times: Times },
    /// We ended it.
    Limit { had_started: bool },
}

/// The guest's uptime, in seconds, when the command started and ended.
#[derive(Debug, PartialEq)]
pub(super) struct Times {
    started: f64,
    ended: f64,
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ran = self.ended - self.started;
        write!(f, "boot {:.1} s, command {ran:.1} s", self.started)
    }
}

impl Guest<'_> {
    /// Boots the guest, passes the command's output on, and waits for its end.
    ///
    /// # Errors
    /// QEMU can't be started, or the guest ends before the command does.
    pub(super) fn run(&self, limits: &Limits) -> Result<End> {
        let start = Instant::now();
        let mut qemu = Ended(
            self.command(limits)?
                .spawn()
                .context("start `setpriv` (package util-linux), which starts QEMU")?,
        );
        let output = qemu.0.stdout.take().context("QEMU has no output")?;
        let output = thread::spawn(move || pass_on(output));
        let ended = wait(&mut qemu.0, start + limits.time)?;
        // Also once it was ended: its output ends with it.
        drop(qemu);
        finish_output(output)?;
        self.show_complaints();
        let report = self.report();
        let Some(status) = ended else {
            return Ok(End::Limit {
                had_started: report.started.is_some(),
            });
        };
        if let Some((times, status)) = report.end() {
            return Ok(End::Command { status, times });
        }
        let what = match report.started {
            Some(_) => "went down before the command ended",
            None => "did not get as far as the command",
        };
        bail!(
            "the guest {what} (QEMU: {status}); its console's last lines:\n{}",
            last_lines(&self.console(), CONSOLE_LINES)
        )
    }

    /// QEMU, which the kernel ends should we be killed.
    fn command(&self, limits: &Limits) -> Result<Command> {
        let mut qemu = command("setpriv")?;
        qemu.args(["--pdeathsig", "KILL", "--"]).arg(self.qemu);
        // Nothing but what is named here; above all no network.
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args([
                "-nic",
                "none",
                "-no-reboot",
                "-accel",
                "tcg",
                "-cpu",
                PROCESSOR,
            ])
            .args(["-m", &format!("{}M", limits.memory_mib)])
            .args(["-smp", &PROCESSORS.to_string()])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .args([
                "-append",
                "console=ttyS0 quiet loglevel=5 panic=-1 oops=panic",
            ]);
        let file = |id: &str, path: &Path| {
            // QEMU reads a comma as two.
            let path = path.display().to_string().replace(',', ",,");
            format!("file,id={id},path={path}")
        };
        let console = file("console", &self.console_path());
        qemu.args(["-chardev", &console, "-serial", "chardev:console"])
            // Not `stdio`: that ends when there is nothing to read.
            .args(["-chardev", "file,id=output,path=/dev/stdout,append=on"])
            .args(["-chardev", &file("report", &self.report_path())])
            .args(["-device", "virtio-serial-pci"])
            .args(["-device", "virtserialport,nr=1,chardev=output"])
            .args(["-device", "virtserialport,nr=2,chardev=report"])
            .stdout(Stdio::piped());
        Ok(qemu)
    }

    fn console_path(&self) -> PathBuf {
        self.dir.join("console")
    }

    fn report_path(&self) -> PathBuf {
        self.dir.join("report")
    }

    fn console(&self) -> String {
        let console = std::fs::read(self.console_path()).unwrap_or_default();
        String::from_utf8_lossy(&console).into_owned()
    }

    fn report(&self) -> Report {
        Report::read(&std::fs::read_to_string(self.report_path()).unwrap_or_default())
    }

    fn show_complaints(&self) {
        for line in complaints(&self.console()).take(MAX_COMPLAINTS) {
            eprintln!("vm: the guest's kernel: {}", line.trim());
        }
    }
}

/// A process that is ended with us.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits for an end, until the deadline.
fn wait(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Passes the guest's output on as it comes.
fn pass_on(mut from: ChildStdout) -> io::Result<()> {
    // Not `Stdout` itself, which waits for the ends of lines.
    let mut to = io::stdout().lock();
    let mut buffer = [0; 16 << 10];
    loop {
        let count = io::Read::read(&mut from, &mut buffer)?;
        let Some(part) = buffer.get(..count).filter(|part| !part.is_empty()) else {
            return Ok(());
        };
        to.write_all(part)?;
        to.flush()?;
    }
}

fn finish_output(output: JoinHandle<io::Result<()>>) -> Result<()> {
    match output.join() {
        Ok(passed) => passed.context("pass the guest's output on"),
        Err(_) => bail!("the thread that passes the guest's output on broke"),
    }
}

/// What the guest's first process said of the command.
#[derive(Debug, Default, PartialEq)]
struct Report {
    started: Option<f64>,
    ended: Option<(f64, u8)>,
}

impl Report {
    /// Reads lines `started UPTIME` and `ended UPTIME STATUS`. A line that was cut short is none.
    fn read(text: &str) -> Self {
        let mut report = Self::default();
        let lines = text
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'));
        for line in lines {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["started", at] => report.started = at.parse().ok(),
                ["ended", at, status] => {
                    report.ended = at.parse().ok().zip(status.parse().ok());
                }
                _ => {}
            }
        }
        report
    }

    fn end(&self) -> Option<(Times, u8)> {
        let (ended, status) = self.ended?;
        let started = self.started?;
        Some((Times { started, ended }, status))
    }
}

/// The lines in which the kernel complains.
fn complaints(console: &str) -> impl Iterator<Item = &str> {
    console
        .lines()
        .filter(|line| COMPLAINTS.iter().any(|word| line.contains(word)))
}

/// The last lines, without those that the kernel says it guessed.
fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("]  ? "))
        .collect();
    let from = lines.len().saturating_sub(count);
    lines.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_when_the_command_started_and_ended_and_how() {
        let report = Report::read("started 3.21\nended 5.50 3\n");
        let (times, status) = report.end().unwrap();
        assert_eq!(status, 3);
        assert_eq!(times.to_string(), "boot 3.2 s, command 2.3 s");
    }

    #[test]
    fn a_report_that_was_cut_short_has_no_end() {
        assert_eq!(Report::read("").end(), None);
        assert_eq!(Report::read("started 3.21\n").end(), None);
        // The status may have been 12.
        assert_eq!(Report::read("started 3.21\nended 5.50 1").end(), None);
        assert!(Report::read("started 3.21\nended").started.is_some());
    }

    #[test]
    fn the_kernels_complaints_are_found() {
        let console = "[ 1.0] fine\n[ 2.0] BUG: kernel NULL pointer\n[ 3.0] rcu: INFO: stall\n";
        assert_eq!(complaints(console).count(), 2);
        assert_eq!(last_lines(console, 1), "[ 3.0] rcu: INFO: stall");
        assert_eq!(last_lines("a\n[ 1.0]  ? guessed+0x1\nb\n", 2), "a\nb");
    }
}
