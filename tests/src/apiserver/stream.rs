//! The body of a watch.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::unfold;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until};

use super::answer::{Body, Refusal};
use super::resource::Resource;
use super::selector::Selectors;
use super::state::{Change, TooOld};
use super::{Shared, lock};

/// Stands for a bookmark among the raw lines.
pub(super) const BOOKMARK_NOW: &str = "(bookmark)";
/// A watch that may run for so long ends with a bookmark this long before.
const LAST_BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// Watches whose client gives no limit end after this.
const LONGEST_WATCH: Duration = Duration::from_secs(3600);

/// What a watch asks for.
pub(super) struct Watching {
    pub(super) shared: Arc<Shared>,
    pub(super) resource: &'static Resource,
    pub(super) namespace: Option<String>,
    pub(super) selectors: Selectors,
    /// The version it goes on from; `None` begins with the present objects.
    pub(super) since: Option<u64>,
    /// Say when the present objects are through.
    pub(super) ends_list: bool,
    pub(super) bookmarks: bool,
    pub(super) seconds: Option<u64>,
}

/// A watch under way.
struct Running {
    watching: Watching,
    /// Everything up to this version is in `lines` or was sent.
    version: u64,
    lines: VecDeque<String>,
    newest: watch::Receiver<u64>,
    raw_lines: broadcast::Receiver<String>,
    next_bookmark: Instant,
    end: Instant,
    ended: bool,
}

pub(super) fn stream(watching: Watching) -> Body {
    let running = Running::begin(watching);
    let frames = unfold(running, |mut running| async move {
        let line = running.next().await?;
        let frame: Result<Frame<Bytes>, Infallible> = Ok(Frame::data(Bytes::from(line)));
        Some((frame, running))
    });
    StreamBody::new(frames).boxed_unsync()
}

impl Running {
    fn begin(watching: Watching) -> Self {
        let now = Instant::now();
        let length = watching.seconds.map_or(LONGEST_WATCH, Duration::from_secs);
        let ended = lock(&watching.shared.mood).watches_end_at_once;
        let mut running = Self {
            newest: watching.shared.newest.subscribe(),
            raw_lines: watching.shared.raw_lines.subscribe(),
            version: 0,
            lines: VecDeque::new(),
            next_bookmark: now + watching.first_bookmark(length),
            end: now + length,
            ended,
            watching,
        };
        match running.watching.since {
            Some(version) => running.version = version,
            None => running.present(),
        }
        running
    }

    /// The present objects, as if they had just been added.
    fn present(&mut self) {
        let state = lock(&self.watching.shared.state);
        self.version = state.version();
        let objects = state.at(self.watching.resource, self.version);
        drop(state);
        for object in objects.unwrap_or_default().values() {
            if self.watching.wants(object) {
                self.lines.push_back(line("ADDED", object));
            }
        }
        if self.watching.ends_list {
            let end = self.watching.resource.bookmark(self.version, true);
            self.lines.push_back(line("BOOKMARK", &end));
        }
    }

    async fn next(&mut self) -> Option<String> {
        loop {
            if self.ended && self.lines.is_empty() {
                return None;
            }
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            self.newest.mark_unchanged();
            if self.changes() {
                continue;
            }
            tokio::select! {
                changed = self.newest.changed() => self.ended |= changed.is_err(),
                Ok(raw) = self.raw_lines.recv() => self.raw(&raw),
                () = sleep_until(self.next_bookmark), if self.watching.bookmarks => {
                    self.next_bookmark = Instant::now() + self.watching.shared.settings.bookmark_every;
                    self.bookmark();
                }
                () = sleep_until(self.end) => self.ended = true,
            }
        }
    }

    /// Takes in what changed; says whether there is something to send.
    fn changes(&mut self) -> bool {
        let state = lock(&self.watching.shared.state);
        let newest = state.version();
        let changes = state.since(self.watching.resource, self.version);
        drop(state);
        match changes {
            Ok(changes) => {
                self.version = self.version.max(newest);
                let lines = changes
                    .iter()
                    .filter_map(|change| self.watching.event(change));
                self.lines.extend(lines);
            }
            Err(TooOld { oldest }) => {
                let message = format!("too old resource version: {} ({oldest})", self.version);
                let expired = Refusal::new(410, "Expired", message);
                self.lines.push_back(line("ERROR", &expired.status()));
                self.ended = true;
            }
        }
        !self.lines.is_empty()
    }

    fn raw(&mut self, raw: &str) {
        if raw == BOOKMARK_NOW {
            // What happened before the bookmark was asked for may not have been taken in yet.
            self.changes();
            self.bookmark();
        } else {
            self.lines.push_back(format!("{raw}\n"));
        }
    }

    fn bookmark(&mut self) {
        if self.watching.bookmarks && !self.ended {
            let bookmark = self.watching.resource.bookmark(self.version, false);
            self.lines.push_back(line("BOOKMARK", &bookmark));
        }
    }
}

impl Watching {
    fn wants(&self, object: &Value) -> bool {
        let namespace = self.namespace.as_deref();
        namespace.is_none_or(|namespace| object["metadata"]["namespace"] == namespace)
            && self.selectors.match_object(object)
    }

    /// The event of a change: an object that does not match any more is deleted, one that
    /// only now matches is added.
    fn event(&self, change: &Change) -> Option<String> {
        let wanted = |object: &&Arc<Value>| self.wants(object);
        let before = change.before.as_ref().filter(wanted);
        let after = change.after.as_ref().filter(wanted);
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(line("ADDED", after)),
            (Some(_), Some(after)) => Some(line("MODIFIED", after)),
            (Some(before), None) => {
                let mut last = Value::clone(before);
                last["metadata"]["resourceVersion"] = json!(change.version.to_string());
                Some(line("DELETED", &last))
            }
        }
    }

    fn first_bookmark(&self, length: Duration) -> Duration {
        let before_end = length.saturating_sub(LAST_BOOKMARK_BEFORE_END);
        let regular = self.shared.settings.bookmark_every;
        if before_end.is_zero() {
            regular
        } else {
            regular.min(before_end)
        }
    }
}

/// `type` comes first, as the real server has it: clients rely on it.
fn line(kind: &str, object: &Value) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}
