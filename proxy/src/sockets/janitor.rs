use std::fmt;
use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::namespaces::{self, NamespaceSources};
use super::pass::{self, Pass};
use super::queue::{Outcome, Queue, STALE_ENDPOINTS_MAX};
use super::{GivenEndpoint, Recall};

/// Least rest between two passes. What is asked for meanwhile is served by one pass.
const REST_MIN: Duration = Duration::from_millis(100);
/// After a pass, rest this many times as long as it took: however many sockets and
/// namespaces, searching takes a fifth of one CPU at most.
const REST_PER_WORK: u32 = 4;
/// When to look again for what was looked for once.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Back-off after a failed pass: first this, then doubled.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest back-off.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Endpoints named in a line of the log.
const NAMED_MAX: usize = 8;

/// Destroys connected UDP sockets of endpoints that no longer serve, in a thread of its own.
///
/// Tell it of changes *after* they are in the kernel: a socket destroyed before would be given
/// the old endpoint again. What is asked for during a pass is served by the next one. Dropping
/// it ends the thread after the pass that is going on.
///
/// Needs CAP_SYS_ADMIN to enter namespaces and CAP_NET_ADMIN in each; Linux 4.9.
pub struct Janitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    queue: Queue,
    /// Something was asked for since the last pass began.
    is_due: bool,
    stop: bool,
}

impl Janitor {
    /// Starts the thread. The caller's network namespace is the agent's own. `recall` and
    /// `report`, which is called after every pass, are called in the new thread.
    ///
    /// # Errors
    /// When the own namespace cannot be opened, or the system gives no thread.
    pub fn start(
        sources: NamespaceSources,
        recall: Recall,
        report: impl Fn(&Pass) + Send + 'static,
    ) -> io::Result<Self> {
        let own = namespaces::open_own()?;
        let shared = Arc::<Shared>::default();
        let worker = Worker {
            shared: Arc::clone(&shared),
            own,
            sources,
            recall,
            report: Box::new(report),
            retry_after: None,
            said_hopeless: false,
        };
        let thread = thread::Builder::new()
            .name("sockets".to_owned())
            .spawn(move || worker.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// These endpoints no longer serve: destroy the sockets that were given them, also those
    /// that are just being connected. At most [`STALE_ENDPOINTS_MAX`] can wait; of further
    /// ones it is logged that their sockets stay.
    pub fn stale(&self, endpoints: &[GivenEndpoint]) {
        if endpoints.is_empty() {
            return;
        }
        let mut state = self.shared.lock();
        state.queue.add(endpoints);
        self.wake(state);
    }

    /// These endpoints serve again: sockets that were given them are left alone.
    pub fn serving(&self, endpoints: &[GivenEndpoint]) {
        self.shared.lock().queue.withdraw(endpoints);
    }

    /// Destroys every socket that was given an endpoint which does not serve, whenever that
    /// was: for the start, when endpoints may have left while no agent ran. `serves` is asked
    /// repeatedly until some seconds from now and must answer for the present, quickly, and
    /// without calling the janitor. A later call takes the place of an earlier one.
    pub fn retain(&self, serves: impl Fn(GivenEndpoint) -> bool + Send + 'static) {
        let mut state = self.shared.lock();
        state.queue.retain(Box::new(serves));
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        state.is_due = true;
        drop(state);
        self.shared.wake.notify_one();
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed already; there is nothing to be saved from it.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for Janitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Janitor").finish_non_exhaustive()
    }
}

impl Shared {
    /// The state is whole between any two statements, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pass begins: what was asked for until now is what it is for.
    fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.is_due = false;
        state.queue.asked()
    }

    /// Waits until `is_over`, at most for `timeout`; false to stop the thread.
    fn wait(&self, timeout: Option<Duration>, is_over: impl Fn(&State) -> bool) -> bool {
        let waits = |state: &mut State| !state.stop && !is_over(state);
        let state = self.lock();
        let state = match timeout {
            None => self.wake.wait_while(state, waits),
            Some(timeout) => self
                .wake
                .wait_timeout_while(state, timeout, waits)
                .map(|(state, _)| state)
                .map_err(|error| PoisonError::new(error.into_inner().0)),
        };
        !state.unwrap_or_else(PoisonError::into_inner).stop
    }
}

struct Worker {
    shared: Arc<Shared>,
    own: File,
    sources: NamespaceSources,
    recall: Recall,
    report: Box<dyn Fn(&Pass) + Send>,
    retry_after: Option<Duration>,
    said_hopeless: bool,
}

impl Worker {
    fn run(mut self) {
        let mut again_after = None;
        while self.shared.wait(again_after, |state| state.is_due) {
            let start = Instant::now();
            let outcome = self.work();
            let rest = REST_MIN.max(start.elapsed() * REST_PER_WORK);
            if !self.shared.wait(Some(rest), |_| false) {
                return;
            }
            let delay = self.delay_after(outcome);
            let has_more = !self.shared.lock().queue.is_empty();
            again_after = has_more.then_some(delay);
        }
    }

    /// One pass, reported.
    fn work(&mut self) -> Outcome {
        let asked = self.shared.begin();
        let start = Instant::now();
        let shared = Arc::clone(&self.shared);
        let is_stale = |given| shared.lock().queue.is_stale(given);
        let mut pass = pass::run(&mut self.recall, &is_stale, &self.own, &self.sources);
        pass.duration = start.elapsed();
        let outcome = match &pass.failure {
            None => Outcome::Complete,
            Some(failure) if failure.is_permanent() => Outcome::Hopeless,
            Some(_) => Outcome::Failed,
        };
        let mut state = self.shared.lock();
        let given_up = state.queue.finish(asked, outcome);
        let forgotten = state.queue.take_forgotten();
        drop(state);
        self.log(&pass, outcome, given_up);
        if forgotten > 0 {
            warn!(
                "more than {STALE_ENDPOINTS_MAX} endpoints went at once; UDP sockets connected to \
                 {forgotten} of them stay until their owners close them"
            );
        }
        (self.report)(&pass);
        outcome
    }

    /// When to look again, unless something new is asked for sooner.
    fn delay_after(&mut self, outcome: Outcome) -> Duration {
        if outcome != Outcome::Failed {
            self.retry_after = None;
            return SECOND_LOOK;
        }
        let doubled = |last: Duration| (last * 2).min(RETRY_MAX);
        let delay = self.retry_after.map_or(RETRY_FIRST, doubled);
        self.retry_after = Some(delay);
        delay
    }

    fn log(&mut self, pass: &Pass, outcome: Outcome, given_up: usize) {
        let destroyed = pass.destroyed_count();
        let (namespaces, milliseconds) = (pass.namespaces, pass.duration.as_millis());
        if destroyed > 0 {
            let endpoints = named(pass);
            info!(
                destroyed,
                endpoints,
                namespaces,
                milliseconds,
                "destroyed UDP sockets connected to endpoints that are gone"
            );
        } else {
            debug!(
                namespaces,
                skipped = pass.skipped,
                sockets = pass.sockets,
                milliseconds,
                "no UDP socket is connected to an endpoint that is gone"
            );
        }
        let Some(failure) = &pass.failure else {
            return;
        };
        let next = match outcome {
            Outcome::Hopeless if self.said_hopeless => return,
            Outcome::Hopeless => "this is said once",
            _ if given_up > 0 => "no longer tried",
            _ => "will try again",
        };
        self.said_hopeless |= outcome == Outcome::Hopeless;
        warn!(
            given_up,
            "UDP sockets may stay connected to endpoints that are gone: {failure}; {next}"
        );
    }
}

/// The endpoints of a pass, in words.
fn named(pass: &Pass) -> String {
    let names: Vec<_> = pass
        .destroyed
        .keys()
        .take(NAMED_MAX)
        .map(ToString::to_string)
        .collect();
    let more = pass.destroyed.len() - names.len();
    let names = names.join(", ");
    if more == 0 {
        names
    } else {
        format!("{names} and {more} more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_endpoints_are_named_and_the_rest_counted() {
        let mut pass = Pass::default();
        for service in 0..10 {
            let address = "10.0.0.5:53".parse().unwrap();
            let given = GivenEndpoint { service, address };
            pass.destroyed.insert(given, 3);
        }
        assert_eq!(pass.destroyed_count(), 30);
        let text = named(&pass);
        assert!(
            text.starts_with("10.0.0.5:53 of service 0, 10.0.0.5:53 of service 1, "),
            "{text}"
        );
        assert!(text.ends_with("of service 7 and 2 more"), "{text}");
    }
}
