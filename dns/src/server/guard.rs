//! A panic in answering one query costs that query a SERVFAIL, not the cluster its DNS.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::FutureExt;

use crate::metrics::count::PANICS;
use crate::plugin::{Chain, Exchange, Outcome, Progress};
use crate::wire::Rcode;

/// How many panics were caught since the start.
#[must_use]
pub fn panics() -> u64 {
    PANICS.get()
}

/// Runs the part of a chain that does not wait.
pub(crate) fn descend(exchange: &mut Exchange, chain: &Arc<Chain>) -> Progress {
    // What a plugin left half done in the exchange is begun anew by `caught`.
    match catch_unwind(AssertUnwindSafe(|| chain.descend(exchange))) {
        Ok(progress) => progress,
        Err(panic) => {
            caught(exchange, &*panic);
            Progress::Done(Outcome::Answered)
        }
    }
}

/// Runs the part of a chain that waits.
pub(crate) async fn resume(exchange: &mut Exchange, chain: &Arc<Chain>, at: usize) -> Outcome {
    let way = AssertUnwindSafe(chain.resume(exchange, at)).catch_unwind();
    match way.await {
        Ok(outcome) => outcome,
        Err(panic) => {
            caught(exchange, &*panic);
            Outcome::Answered
        }
    }
}

fn caught(exchange: &mut Exchange, panic: &(dyn Any + Send)) {
    PANICS.inc();
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    tracing::error!(
        question = %exchange.request.question.name(),
        rtype = %exchange.request.question.rtype,
        panic = text.unwrap_or("not said"),
        "a plugin has panicked; the client gets SERVFAIL"
    );
    exchange.clear();
    exchange.fail(Rcode::SERVFAIL);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::{Plugin, Position, Step};
    use crate::wire::{Intake, Rtype};

    /// Panics at once on A, after waiting on everything else.
    #[derive(Debug)]
    struct Broken;

    impl Plugin for Broken {
        fn name(&self) -> &'static str {
            "broken"
        }

        fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
            assert_ne!(exchange.question.rtype, Rtype::A, "on the way down");
            Step::Wait
        }

        fn wait<'a>(
            &'a self,
            _: &'a mut Exchange,
            _: Position<'a>,
        ) -> futures::future::BoxFuture<'a, Step> {
            Box::pin(async { panic!("while waiting") })
        }
    }

    #[tokio::test]
    async fn a_panic_costs_one_query_a_servfail() {
        let chain = Chain::new(vec![Arc::new(Broken)]);
        let mut exchange = Exchange::default();
        let before = panics();
        for rtype in [1, 28] {
            let packet = [
                0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0, rtype, 0, 1,
            ];
            assert_eq!(exchange.request.read(&packet), Intake::Query);
            exchange.begin();
            let outcome = match descend(&mut exchange, &chain) {
                Progress::Done(outcome) => outcome,
                Progress::Waiting(at) => resume(&mut exchange, &chain, at).await,
            };
            assert_eq!(outcome, Outcome::Answered);
            assert_eq!(exchange.reply.rcode, Rcode::SERVFAIL);
        }
        assert_eq!(panics() - before, 2);
    }
}
