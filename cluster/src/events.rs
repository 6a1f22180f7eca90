//! Events: what an operator sees of us at a Node or a Service, by `kubectl get events` and
//! `kubectl describe`.
//!
//! Telling never waits: events go through a queue to a task that writes them, as many as
//! [`BURST`] at once and then one in [`REFILL`], each tried [`TRIES_MAX`] times. The same again
//! within six minutes becomes a series of the first.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event as Written, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::object::ObjectName;
use crate::source::SourceError;
use crate::source::api::{self, Options};

/// Who reports, as tools look for it.
const CONTROLLER: &str = "kube-proxy";
/// Events that may wait to be written.
const QUEUE: usize = 64;
/// Events written one after the other.
pub const BURST: u32 = 25;
/// Time until one more may be written.
pub const REFILL: Duration = Duration::from_secs(10);
/// How often writing one is tried.
pub const TRIES_MAX: u32 = 5;
/// The first pause between two tries; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a note that the API takes.
const NOTE_MAX: usize = 1024;
/// Bytes of a name of who reports that the API takes.
const INSTANCE_MAX: usize = 128;
/// Notes remembered, to tell the same event from another of its kind.
const NOTES_MAX: usize = 256;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// A Node, by its name.
    Node(String),
    /// A Service.
    Service(ObjectName),
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub about: About,
    /// Somebody should look at it.
    pub is_warning: bool,
    /// What happened, in one word.
    pub reason: &'static str,
    /// What was being done, in one word.
    pub action: &'static str,
    /// What happened, in a sentence; what does not fit in 1,024 bytes is cut off.
    pub note: String,
}

/// Where events are told.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    lost: Lost,
}

/// Called for each event that will not be written.
type Lost = std::sync::Arc<dyn Fn() + Send + Sync>;

/// The task that writes.
#[derive(Debug)]
pub struct Writing(JoinHandle<()>);

impl Events {
    /// Tells of something. Where too much waits already, it is lost and counted.
    pub fn tell(&self, event: Event) {
        if let Err(error) = self.queue.try_send(event) {
            tracing::debug!(%error, "an event is lost");
            (self.lost)();
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Events")
    }
}

impl Writing {
    /// Waits until all that was told is written, but for no longer than this. Where an
    /// [`Events`] is still held, it waits for just that long.
    pub async fn finish(self, limit: Duration) {
        // What is not written by then stays unwritten: the program ends.
        let _ = timeout(limit, self.0).await;
    }
}

/// Starts writing events to the API server; needs to run within a tokio runtime. `host_name` is
/// this machine's, `lost` is called for each event that can't be written.
///
/// # Errors
/// If kubeconfig, certificates, tokens or URL can't be read or make no sense.
pub async fn start(
    options: &Options,
    host_name: &str,
    lost: impl Fn() + Send + Sync + 'static,
) -> Result<(Events, Writing), SourceError> {
    let client = api::client(options).await?;
    let (queue, events) = mpsc::channel(QUEUE);
    let lost: Lost = std::sync::Arc::new(lost);
    let instance = cut(format!("{CONTROLLER}-{}", host_name.trim()), INSTANCE_MAX);
    let writer = Writer {
        client,
        reporter: Reporter {
            controller: CONTROLLER.to_owned(),
            instance: Some(instance),
        },
        recorder: None,
        notes: HashMap::new(),
        budget: Budget::new(Instant::now()),
        lost: lost.clone(),
    };
    let task = tokio::spawn(writer.run(events));
    Ok((Events { queue, lost }, Writing(task)))
}

/// Writes one event after the other.
struct Writer {
    client: kube::Client,
    reporter: Reporter,
    /// Knows what was written lately.
    recorder: Option<Recorder>,
    /// What was last said of something, in these words.
    notes: HashMap<(About, &'static str), String>,
    budget: Budget,
    lost: Lost,
}

impl Writer {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            if !self.budget.take(Instant::now()) {
                tracing::debug!(?event, "too many events: this one is not written");
                (self.lost)();
                continue;
            }
            self.write(event).await;
        }
    }

    async fn write(&mut self, event: Event) {
        let about = reference(&event.about);
        let reason = event.reason;
        let key = (event.about, reason);
        if self.notes.len() >= NOTES_MAX {
            self.notes.clear();
        }
        let note = cut(event.note, NOTE_MAX);
        let before = self.notes.insert(key, note.clone());
        if before.is_some_and(|before| before != note) {
            // A series keeps the words of its first event: these are others.
            self.recorder = None;
        }
        let written = Written {
            type_: if event.is_warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: reason.to_owned(),
            note: Some(note),
            action: event.action.to_owned(),
            secondary: None,
        };
        let mut pause = PAUSE;
        for attempt in 1..=TRIES_MAX {
            let recorder = self
                .recorder
                .get_or_insert_with(|| Recorder::new(self.client.clone(), self.reporter.clone()));
            let Err(error) = recorder.publish(&written, &about).await else {
                return;
            };
            let next = next(&error);
            tracing::debug!(%error, reason, attempt, "an event can't be written");
            match next {
                Next::Done => return,
                Next::Anew => self.recorder = None,
                Next::GiveUp => break,
                Next::Again => {
                    if attempt < TRIES_MAX {
                        sleep(pause).await;
                        pause *= 2;
                    }
                }
            }
        }
        tracing::info!(reason, note = written.note, "an event could not be written");
        (self.lost)();
    }
}

/// What to do after a failure.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It is there: the answer to an earlier try was lost.
    Done,
    /// The series is gone: as the first of its kind.
    Anew,
    Again,
    GiveUp,
}

fn next(error: &kube::Error) -> Next {
    match error {
        kube::Error::Api(status) => match status.code {
            409 => Next::Done,
            404 => Next::Anew,
            401 | 429 | 500.. => Next::Again,
            // We may not, or the namespace is on its way out.
            _ => Next::GiveUp,
        },
        _ => Next::Again,
    }
}

/// How many may be written.
struct Budget {
    left: u32,
    /// When it was last added to.
    at: Instant,
}

impl Budget {
    const fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            at: now,
        }
    }

    /// Takes one, if there is one.
    fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.duration_since(self.at) >= REFILL {
            self.left += 1;
            self.at += REFILL;
        }
        if self.left == BURST {
            self.at = now;
        }
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        true
    }
}

/// The object as the reference names it in its events.
fn reference(about: &About) -> ObjectReference {
    match about {
        About::Node(name) => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(name.clone()),
            uid: Some(name.clone()),
            ..ObjectReference::default()
        },
        About::Service(service) => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(service.namespace.to_string()),
            name: Some(service.name.to_string()),
            uid: Some(service.to_string()),
            ..ObjectReference::default()
        },
    }
}

/// The first bytes of a text, and of its characters whole ones.
fn cut(mut text: String, bytes: usize) -> String {
    const DOTS: &str = "…";
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes - DOTS.len()));
        text.push_str(DOTS);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_used_up_and_grows_again() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let taken = (0..100).filter(|_| budget.take(start)).count();
        assert_eq!(taken, 25);
        assert!(!budget.take(start + REFILL / 2));
        assert!(budget.take(start + REFILL));
        assert!(!budget.take(start + REFILL + REFILL / 2));
        let late = start + REFILL * 1000;
        assert_eq!((0..100).filter(|_| budget.take(late)).count(), 25);
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        assert_eq!(cut("short".to_owned(), 10), "short");
        assert_eq!(cut("äääääää".to_owned(), 10), "äää…");
        assert!(cut("x".repeat(3000), NOTE_MAX).len() <= NOTE_MAX);
    }

    #[test]
    fn what_may_not_be_written_is_given_up_and_all_else_tried_again() {
        let api = |code| {
            let status = kube::core::Status::failure("", "").with_code(code);
            next(&kube::Error::Api(status.boxed()))
        };
        assert_eq!(api(403), Next::GiveUp);
        assert_eq!(api(409), Next::Done);
        assert_eq!(api(404), Next::Anew);
        assert_eq!(api(503), Next::Again);
    }
}
