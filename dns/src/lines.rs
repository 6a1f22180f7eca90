//! Lines for operators on standard output, as the reference prints them: the query log and
//! errors. Whoever writes one never waits: lines queue up, and over the queue's bound they are
//! dropped and counted.

use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock};

use prometheus::IntCounterVec;

use crate::plugin::{Environment, counter_vec};

/// Lines that wait to be written, over all plugins; about 150 octets each.
const LINES_QUEUED_CAPACITY: usize = 16_384;
/// Octets gathered before they are written, while more lines wait.
const WRITE_OCTETS: usize = 64 << 10;

static DROPPED: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Lines of the query log or of errors dropped because standard output was too slow.";
    counter_vec("switchyard_dns_log_lines_dropped_total", help, &[])
});

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// For those who look for mistakes; printed where `debug` is on.
    Debug,
    /// As it should be.
    Info,
    /// Worth a look.
    Warning,
    /// Somebody got no answer.
    Error,
}

impl Level {
    /// As it stands at the beginning of a line.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Debug => "[DEBUG] ",
            Self::Info => "[INFO] ",
            Self::Warning => "[WARNING] ",
            Self::Error => "[ERROR] ",
        }
    }
}

/// Where lines go.
#[derive(Debug)]
pub struct Lines {
    queue: SyncSender<String>,
}

impl Lines {
    /// The process' standard output: one for all plugins, and over reloads.
    #[must_use]
    pub fn of(environment: &Environment) -> Arc<Self> {
        LazyLock::force(&DROPPED);
        environment.carried.keep("lines", || {
            Self::writing_to(io::stdout(), LINES_QUEUED_CAPACITY)
        })
    }

    /// Written to `sink` by a thread of its own, that ends with the last owner.
    pub(crate) fn writing_to(sink: impl Write + Send + 'static, capacity: usize) -> Self {
        let (queue, lines) = sync_channel(capacity);
        let write = move || write_all(&lines, sink);
        let thread = std::thread::Builder::new().name("dns-lines".to_owned());
        if let Err(error) = thread.spawn(write) {
            // Every line is counted as dropped then.
            tracing::error!(%error, "no thread to write the query log with");
        }
        Self { queue }
    }

    /// Queues a line, without a newline at its end.
    pub fn write(&self, level: Level, text: &str) {
        let label = level.label();
        let mut line = String::with_capacity(label.len() + text.len() + 1);
        line.push_str(label);
        line.push_str(text);
        line.push('\n');
        if self.queue.try_send(line).is_err()
            && let Some(dropped) = &*DROPPED
        {
            dropped.with_label_values::<&str>(&[]).inc();
        }
    }
}

fn write_all(lines: &Receiver<String>, mut sink: impl Write) {
    let mut gathered = Vec::with_capacity(WRITE_OCTETS);
    while let Ok(line) = lines.recv() {
        gathered.extend_from_slice(line.as_bytes());
        while gathered.len() < WRITE_OCTETS
            && let Ok(line) = lines.try_recv()
        {
            gathered.extend_from_slice(line.as_bytes());
        }
        let written = sink.write_all(&gathered).and_then(|()| sink.flush());
        if let Err(error) = written {
            tracing::debug!(%error, "writing to standard output");
        }
        gathered.clear();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;
    use std::time::{Duration, Instant};

    use super::*;

    /// Keeps what is written to it.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("unpoisoned").extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Kept {
        /// An environment whose lines are kept here.
        pub(crate) fn environment(&self) -> Environment {
            let environment = Environment::default();
            let lines = || Lines::writing_to(self.clone(), LINES_QUEUED_CAPACITY);
            let _kept = environment.carried.keep("lines", lines);
            environment
        }

        /// The lines so far, once there are `number` of them.
        pub(crate) fn lines(&self, number: usize) -> Vec<String> {
            let patience = Instant::now() + Duration::from_secs(5);
            loop {
                let text = String::from_utf8(self.0.lock().expect("unpoisoned").clone());
                let text = text.expect("UTF-8");
                let lines: Vec<_> = text.lines().map(str::to_owned).collect();
                if lines.len() >= number || Instant::now() > patience {
                    return lines;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    #[test]
    fn a_sink_that_is_stuck_keeps_nobody_waiting() {
        struct Stuck(Arc<Mutex<()>>);
        impl Write for Stuck {
            fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
                let _go = self.0.lock();
                Ok(octets.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let dropped = || {
            let dropped = DROPPED.as_ref().expect("registered");
            dropped.with_label_values::<&str>(&[]).get()
        };
        let before = dropped();
        let stuck = Arc::new(Mutex::new(()));
        let held = stuck.lock().expect("unpoisoned");
        let lines = Lines::writing_to(Stuck(Arc::clone(&stuck)), 4);
        for _ in 0..100 {
            lines.write(Level::Info, "a line");
        }
        // The thread may have taken a few before it got stuck.
        assert!(dropped() - before >= 90, "{}", dropped() - before);
        drop(held);
    }
}
