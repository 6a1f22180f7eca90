use std::sync::{Arc, OnceLock, Weak};

use futures::future::BoxFuture;

use super::{Exchange, Plugin, Step};
use crate::server::Routes;
use crate::wire::{EdeCode, Question, Rcode};

/// Questions the server asks itself on behalf of one query, one within the other.
const RESOLVE_DEPTH_MAX: u8 = 8;

/// The plugins of one server block in their fixed order.
#[derive(Debug)]
pub struct Chain {
    plugins: Vec<Arc<dyn Plugin>>,
    routes: OnceLock<Weak<Routes>>,
}

/// How far a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The exchange holds the reply.
    Answered,
    /// Nothing is to be said.
    Dropped,
}

/// How far a query came without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Done(Outcome),
    /// This plugin wants [`Plugin::wait`].
    Waiting(usize),
}

/// Where in its chain a plugin is called.
#[derive(Clone, Copy, Debug)]
pub struct Position<'a> {
    chain: &'a Arc<Chain>,
    index: usize,
}

impl Chain {
    /// A chain of these, asked in this order.
    #[must_use]
    pub fn new(plugins: Vec<Arc<dyn Plugin>>) -> Arc<Self> {
        let chain = Arc::new(Self {
            plugins,
            routes: OnceLock::new(),
        });
        for (index, plugin) in chain.plugins.iter().enumerate() {
            plugin.placed(Position {
                chain: &chain,
                index,
            });
        }
        chain
    }

    /// The plugins in order.
    #[must_use]
    pub fn plugins(&self) -> &[Arc<dyn Plugin>] {
        &self.plugins
    }

    /// Tells the chain which server it is part of, for [`Position::resolve`].
    pub(crate) fn set_routes(&self, routes: &Arc<Routes>) {
        // A chain that serves several listeners asks the first of them.
        let _already_set = self.routes.set(Arc::downgrade(routes));
    }

    /// Goes as far as it can without waiting.
    pub(crate) fn descend(self: &Arc<Self>, exchange: &mut Exchange) -> Progress {
        self.descend_from(exchange, 0, 0)
    }

    /// Goes on where [`Chain::descend`] stopped.
    pub(crate) async fn resume(self: &Arc<Self>, exchange: &mut Exchange, at: usize) -> Outcome {
        self.run_on(exchange, Progress::Waiting(at), 0).await
    }

    /// The whole way, waiting where needed.
    pub async fn run(self: &Arc<Self>, exchange: &mut Exchange) -> Outcome {
        self.run_from(exchange, 0).await
    }

    async fn run_from(self: &Arc<Self>, exchange: &mut Exchange, top: usize) -> Outcome {
        let progress = self.descend_from(exchange, top, top);
        self.run_on(exchange, progress, top).await
    }

    async fn run_on(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        mut progress: Progress,
        top: usize,
    ) -> Outcome {
        loop {
            let index = match progress {
                Progress::Done(outcome) => return outcome,
                Progress::Waiting(index) => index,
            };
            let Some(plugin) = self.plugins.get(index) else {
                return self.nobody(exchange, top);
            };
            let position = Position { chain: self, index };
            let step = plugin.wait(exchange, position).await;
            progress = match self.take(step, exchange, index, top) {
                Some(progress) => progress,
                None => self.descend_from(exchange, index + 1, top),
            };
        }
    }

    /// Asks the plugins from `from` on; those from `top` on see the reply.
    fn descend_from(
        self: &Arc<Self>,
        exchange: &mut Exchange,
        from: usize,
        top: usize,
    ) -> Progress {
        for (index, plugin) in self.plugins.iter().enumerate().skip(from) {
            let position = Position { chain: self, index };
            let step = plugin.query(exchange, position);
            if let Some(progress) = self.take(step, exchange, index, top) {
                return progress;
            }
        }
        Progress::Done(self.nobody(exchange, top))
    }

    /// What a step means; `None` to go on.
    fn take(
        self: &Arc<Self>,
        step: Step,
        exchange: &mut Exchange,
        index: usize,
        top: usize,
    ) -> Option<Progress> {
        match step {
            Step::Next => return None,
            Step::Wait => return Some(Progress::Waiting(index)),
            Step::Drop => return Some(Progress::Done(Outcome::Dropped)),
            Step::Answered => {
                exchange.answered_by = self.plugins.get(index).map_or("", |plugin| plugin.name());
            }
            Step::Fail(rcode) => exchange.fail(rcode),
        }
        self.ascend(exchange, index, top);
        Some(Progress::Done(Outcome::Answered))
    }

    fn ascend(self: &Arc<Self>, exchange: &mut Exchange, index: usize, top: usize) {
        let above = self.plugins.get(top..index).unwrap_or_default();
        for (offset, plugin) in above.iter().enumerate().rev() {
            let index = top + offset;
            plugin.response(exchange, Position { chain: self, index });
        }
    }

    /// No plugin of the block answers this name.
    fn nobody(self: &Arc<Self>, exchange: &mut Exchange, top: usize) -> Outcome {
        exchange.explain(
            EdeCode::OTHER,
            "no plugin of this server block answers the name",
        );
        exchange.fail(Rcode::SERVFAIL);
        self.ascend(exchange, self.plugins.len(), top);
        Outcome::Answered
    }
}

impl<'a> Position<'a> {
    /// Which plugin of the chain this is.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The plugins below this one.
    #[must_use]
    pub fn plugins_below(&self) -> &'a [Arc<dyn Plugin>] {
        self.chain.plugins.get(self.index + 1..).unwrap_or_default()
    }

    /// Runs the rest of the chain below this plugin for `exchange`, which may be another
    /// than the one it was called with. The plugins above do not see the reply.
    #[must_use]
    pub fn below(self, exchange: &'a mut Exchange) -> BoxFuture<'a, Outcome> {
        Box::pin(self.chain.run_from(exchange, self.index + 1))
    }

    /// The same for a task of its own, that outlives the query (a prefetch).
    #[must_use]
    pub fn below_later(self) -> Below {
        Below {
            chain: Arc::clone(self.chain),
            index: self.index,
        }
    }

    /// Asks the whole server, as the client of `on_behalf_of` would; `None` where questions
    /// lead to questions without end, or the query is to be dropped.
    #[must_use]
    pub fn resolve(
        self,
        question: &'a Question,
        on_behalf_of: &'a Exchange,
    ) -> BoxFuture<'a, Option<Exchange>> {
        Box::pin(async move {
            if on_behalf_of.depth >= RESOLVE_DEPTH_MAX {
                return None;
            }
            let routes = self.chain.routes.get()?.upgrade()?;
            let mut exchange = on_behalf_of.asking(question);
            exchange.depth += 1;
            let chain = routes.find(question)?;
            let outcome = chain.chain().run(&mut exchange).await;
            (outcome == Outcome::Answered).then_some(exchange)
        })
    }
}

/// The rest of a chain, to be run after the query that led to it is answered.
#[derive(Clone, Debug)]
pub struct Below {
    chain: Arc<Chain>,
    index: usize,
}

impl Below {
    /// Runs it.
    pub async fn run(&self, exchange: &mut Exchange) -> Outcome {
        self.chain.run_from(exchange, self.index + 1).await
    }
}
