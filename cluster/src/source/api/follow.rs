//! Follows one kind, whatever the server does.

use std::pin::pin;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::StreamExt;
use kube::Api;
use kube::runtime::utils::ResetTimerBackoff;
use kube::runtime::watcher::{self, Event, ExponentialBackoff, watcher};
use tokio::sync::mpsc::Sender;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::complaints::Complaints;
use super::reason::{Failure, failure};
use super::transport::Server;
use super::watched::{Seen, Watched};
use super::{FirstList, Options, PAGE_OBJECTS, Selection, Timing};
use crate::decode::{Decoded, Undecodable};
use crate::source::SourceError;
use crate::update::{Problem, Update};

/// After this long without a failure the pauses begin short again.
const PAUSES_RESET_AFTER: Duration = Duration::from_secs(120);
/// Statuses by which a server refuses a streamed list: it does not know the parameter, or
/// the feature is off.
const STREAM_REFUSED: [u16; 3] = [400, 406, 422];

/// Sends every update of one kind; ends only when nobody listens.
pub(super) async fn follow<W: Watched>(
    server: &Server,
    options: &Options,
    selection: &Selection,
    sender: &Sender<Update>,
) -> SourceError {
    let (client, answers) = server.client();
    let timing = &options.timing;
    let mut follower = Follower {
        options,
        selection,
        sender,
        client,
        answers,
        streamed: options.first_list == FirstList::Streamed,
        listed: false,
        trouble: None,
        pauses: pauses(timing.first_pause, timing.longest_pause),
        absent_pauses: pauses(timing.first_absent_pause, timing.longest_absent_pause),
        complaints: Complaints::default(),
    };
    loop {
        if let Err(end) = follower.attempt::<W>().await {
            return end;
        }
    }
}

type Pauses = ResetTimerBackoff<ExponentialBackoff>;

fn pauses(first: Duration, longest: Duration) -> Pauses {
    let growing = ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(longest)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times();
    ResetTimerBackoff::new(growing.into(), PAUSES_RESET_AFTER)
}

struct Follower<'a> {
    options: &'a Options,
    selection: &'a Selection,
    sender: &'a Sender<Update>,
    client: kube::Client,
    /// Counts good answers: tells that trouble is over even if nothing changes.
    answers: watch::Receiver<u64>,
    /// First lists are still tried as a stream.
    streamed: bool,
    /// A first list was completed.
    listed: bool,
    /// The trouble that was said last.
    trouble: Option<String>,
    pauses: Pauses,
    absent_pauses: Pauses,
    complaints: Complaints,
}

/// What to do after a failure.
enum Next {
    /// Go on where the watch ended.
    Resume,
    /// Begin again with a list.
    Relist,
}

impl Follower<'_> {
    /// Lists and watches until it is better to begin anew.
    async fn attempt<W: Watched>(&mut self) -> Result<(), SourceError> {
        let api: Api<Seen<W>> = Api::all(self.client.clone());
        let mut events = pin!(watcher(api, self.config()));
        // Between ListStarted and ListDone; before the first event, too.
        let mut listing = true;
        let mut begun = false;
        loop {
            let limit = self.options.timing.list_silence;
            let event = tokio::select! {
                biased;
                Ok(()) = self.answers.changed(), if self.trouble.is_some() => {
                    self.trouble(None).await?;
                    continue;
                }
                event = next_within(listing.then_some(limit), events.next()) => event,
            };
            match event {
                Some(Ok(Event::Init)) => {
                    if begun && listing {
                        // The stream of a first list was cut; the watcher would ask for it
                        // again at once.
                        self.pause().await;
                    }
                    (listing, begun) = (true, true);
                    self.complaints.list_started();
                    self.say(Update::ListStarted(W::KIND)).await?;
                }
                Some(Ok(Event::InitDone)) => {
                    listing = false;
                    self.listed = true;
                    self.complaints.list_done();
                    self.say(Update::ListDone(W::KIND)).await?;
                }
                Some(Ok(Event::InitApply(seen) | Event::Apply(seen))) => self.seen(seen).await?,
                Some(Ok(Event::Delete(seen))) => self.gone(seen).await?,
                Some(Err(error)) => match self.failed(&error).await? {
                    Next::Resume => {}
                    Next::Relist => return Ok(()),
                },
                None => return self.silent().await,
            }
        }
    }

    fn config(&self) -> watcher::Config {
        let seconds = self.options.timing.watch.as_secs().max(1);
        let config = watcher::Config {
            label_selector: self.selection.labels.clone(),
            field_selector: self.selection.fields.clone(),
            timeout: Some(u32::try_from(seconds).unwrap_or(u32::MAX)),
            ..watcher::Config::default()
        };
        match self.options.first_list {
            FirstList::Streamed if self.streamed => config.streaming_lists(),
            FirstList::Streamed => config.page_size(PAGE_OBJECTS),
            FirstList::Paged(objects) => config.page_size(objects),
        }
    }

    async fn seen<W: Watched>(&mut self, seen: Seen<W>) -> Result<(), SourceError> {
        let news = match seen.body {
            Ok(Decoded {
                object, oddities, ..
            }) => {
                let news = self.complaints.news(W::KIND, object.name(), oddities, true);
                self.say(Update::Upsert(object)).await?;
                news
            }
            Err(Undecodable {
                name: Some(name),
                problem,
                ..
            }) => {
                let news = self
                    .complaints
                    .news(W::KIND, &name, vec![problem.clone()], false);
                if news.is_empty() {
                    // Said before; but a list must still name it, or it would be removed.
                    vec![Update::Unreadable(W::KIND, name, problem)]
                } else {
                    news
                }
            }
            Err(Undecodable { problem, .. }) => vec![Update::Malformed(Problem {
                place: format!("API server, a {}", W::KIND),
                ..problem
            })],
        };
        for update in news {
            self.say(update).await?;
        }
        Ok(())
    }

    async fn gone<W: Watched>(&mut self, seen: Seen<W>) -> Result<(), SourceError> {
        let name = match seen.body {
            Ok(decoded) => Some(decoded.object.name().clone()),
            Err(undecodable) => undecodable.name,
        };
        let Some(name) = name else {
            // One without a name was never handed on.
            return Ok(());
        };
        self.complaints.removed(&name);
        self.say(Update::Remove(W::KIND, name)).await
    }

    /// Decides what a failure means, says it, and waits as long as is fitting.
    async fn failed(&mut self, error: &watcher::Error) -> Result<Next, SourceError> {
        let Failure {
            reason,
            code,
            garbled,
        } = failure(error);
        let kind = self.selection.kind;
        tracing::debug!(%kind, reason, "can't follow the API server");
        let starting = matches!(error, watcher::Error::WatchStartFailed(_));
        if starting && self.streamed && code.is_some_and(|code| STREAM_REFUSED.contains(&code)) {
            tracing::info!(%kind, reason, "the server streams no lists: reading them in pages");
            self.streamed = false;
            return Ok(Next::Relist);
        }
        if self.selection.optional && matches!(code, Some(403 | 404)) {
            self.absent(reason).await?;
            return Ok(Next::Relist);
        }
        if code == Some(410) {
            // Too old to resume is nothing to worry about, unless it goes on.
            tracing::info!(%kind, reason, "listing again");
            self.pause().await;
            return Ok(Next::Relist);
        }
        self.trouble(Some(reason)).await?;
        self.pause().await;
        Ok(if garbled { Next::Relist } else { Next::Resume })
    }

    /// The server does not have an optional kind, or does not show it to us.
    async fn absent(&mut self, reason: String) -> Result<(), SourceError> {
        let kind = self.selection.kind;
        self.trouble(Some(reason)).await?;
        if !self.listed {
            self.listed = true;
            self.say(Update::ListStarted(kind)).await?;
            self.say(Update::ListDone(kind)).await?;
        }
        let pause = self.absent_pauses.next();
        sleep(pause.unwrap_or(self.options.timing.longest_absent_pause)).await;
        Ok(())
    }

    /// A first list said nothing for too long.
    async fn silent(&mut self) -> Result<(), SourceError> {
        let Timing { list_silence, .. } = self.options.timing;
        let seconds = list_silence.as_secs_f32();
        let how = if self.streamed {
            "streamed list"
        } else {
            "list"
        };
        self.trouble(Some(format!("{how}: nothing came for {seconds} s")))
            .await?;
        // A server too old to know streamed lists begins a plain watch, which never says
        // that the list is complete.
        self.streamed = false;
        self.pause().await;
        Ok(())
    }

    /// Says that the kind can't be followed, and why, or that it can again; once each.
    async fn trouble(&mut self, trouble: Option<String>) -> Result<(), SourceError> {
        // Only answers from now on tell that it is over.
        self.answers.mark_unchanged();
        if self.trouble == trouble {
            return Ok(());
        }
        self.trouble.clone_from(&trouble);
        self.say(Update::Trouble(self.selection.kind, trouble))
            .await
    }

    async fn pause(&mut self) {
        let pause = self.pauses.next();
        sleep(pause.unwrap_or(self.options.timing.longest_pause)).await;
    }

    async fn say(&self, update: Update) -> Result<(), SourceError> {
        let sent = self.sender.send(update).await;
        sent.map_err(|_| SourceError::NobodyListens)
    }
}

/// `None` where nothing comes in time.
async fn next_within<T>(
    limit: Option<Duration>,
    next: impl Future<Output = Option<T>>,
) -> Option<T> {
    match limit {
        Some(limit) => timeout(limit, next).await.ok().flatten(),
        None => next.await,
    }
}
