//! Plugins: what a server block is made of.
//!
//! One folder a plugin: its docs and set-up in `mod.rs`, `config.rs` (from the Corefile),
//! `handler.rs`, `metrics.rs` where it has any, and a README whose Corefile examples a test
//! loads. [`registry`] lists them in the order in which they are asked, which is the
//! reference's and does not depend on the Corefile.
//!
//! A query goes down the chain by [`Plugin::query`] until one answers; then the plugins
//! above see the reply, last first, by [`Plugin::response`]. Whoever can answer at once does
//! so there and then, on the thread that received the packet. Who has to wait says
//! [`Step::Wait`] and is called again, as [`Plugin::wait`], on the runtime.

pub mod acl;
pub mod any;
pub mod autopath;
pub mod bind;
pub mod bufsize;
pub mod cache;
mod chain;
pub mod chaos;
mod counters;
pub mod debug;
pub mod dns64;
pub mod errors;
mod exchange;
mod fatal;
pub mod file;
pub mod forward;
pub mod header;
pub mod health;
mod hostname;
mod hosts;
pub mod kubernetes;
pub mod loadbalance;
pub mod local;
pub mod log;
mod loop_probe;
pub mod minimal;
pub mod nsid;
mod pattern;
mod process;
pub mod prometheus;
#[cfg(test)]
mod readmes;
pub mod ready;
mod record_text;
pub mod registry;
pub mod reload;
mod reverse;
mod rewrite;
pub mod root;
mod setup;
mod template;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod timeouts;
pub mod tls;
pub mod transfer;
#[cfg(test)]
pub(crate) mod trial;
mod zones;

pub(crate) use chain::Progress;
pub use chain::{Below, Chain, Outcome, Position};
pub(crate) use counters::counter_vec;
pub use exchange::Exchange;
pub use fatal::Fatal;
pub use pattern::pattern;
pub use process::{HealthSettings, ProcessSettings, ReadySettings, ReloadSettings};
pub use record_text::{check_zone_text, record_from_text};
pub use reverse::address_of_reverse_name;
pub use setup::{BlockSettings, Carried, Environment, Setup, SetupFn};
pub use zones::{Fallthrough, Zones};

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::wire::{Name, Rcode, Record};

/// What a plugin makes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Not mine: ask the next.
    Next,
    /// The exchange's reply is the answer.
    Answered,
    /// Nobody will answer: send this bare code.
    Fail(Rcode),
    /// Say nothing at all.
    Drop,
    /// I have to wait for somebody: call [`Plugin::wait`].
    Wait,
}

/// One part of a server block.
pub trait Plugin: Debug + Send + Sync + 'static {
    /// The directive's name; also the `plugin` label of metrics.
    fn name(&self) -> &'static str;

    /// A query on its way down. Must not block.
    fn query(&self, exchange: &mut Exchange, at: Position<'_>) -> Step;

    /// Called after [`Step::Wait`], on the runtime. The default has nothing to wait for.
    fn wait<'a>(&'a self, exchange: &'a mut Exchange, at: Position<'a>) -> BoxFuture<'a, Step> {
        let _nothing_to_wait_for = (exchange, at);
        Box::pin(std::future::ready(Step::Next))
    }

    /// A reply on its way up, from a plugin below, or made from a code
    /// ([`Exchange::failed`]). Must not block.
    fn response(&self, exchange: &mut Exchange, at: Position<'_>) {
        let _unchanged = (exchange, at);
    }

    /// Whether questions of other classes than IN pass through it, too.
    fn any_class(&self) -> bool {
        self.answers_any_class()
    }

    /// Whether it answers questions of other classes than IN.
    fn answers_any_class(&self) -> bool {
        false
    }

    /// Begins background work, once the whole configuration is accepted. Dropping the plugin
    /// ends it.
    fn start(&self) {}

    /// Told once where it is, before [`Plugin::start`]. For those who must reach their chain
    /// without a query.
    fn placed(&self, at: Position<'_>) {
        let _not_needed = at;
    }

    /// The serial of a zone that it is the authority for and that may be transferred.
    fn zone_serial(&self, zone: &Name) -> Option<u32> {
        let _no_zone = zone;
        None
    }

    /// All records of such a zone, the SOA first and once (RFC 5936).
    fn zone_records(&self, zone: &Name) -> Option<Vec<Record>> {
        let _no_zone = zone;
        None
    }

    /// The search domains of a client that asks for `name` (in lower case), if it knows the
    /// client and answers for the name; without what the server's own search path adds.
    fn search_path(&self, name: &Name, client: IpAddr) -> Option<Vec<Name>> {
        let _nobody_known = (name, client);
        None
    }

    /// Whether it can do its work; `/ready` names those that can't yet.
    fn ready(&self) -> bool {
        true
    }

    /// How long a server that starts, or a new configuration, may wait for it to be ready
    /// before it serves all the same.
    fn startup_timeout(&self) -> Duration {
        Duration::ZERO
    }
}
