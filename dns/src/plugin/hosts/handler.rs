use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::config::Config;
use super::source::Source;
use super::table::{Family, Fragment, Rules, Table};
use crate::corefile::ConfigError;
use crate::plugin::reverse::address_of_reverse_name;
use crate::plugin::zones::{Fallthrough, Zones};
use crate::plugin::{Exchange, Plugin, Position, Step};
use crate::wire::{Name, Rcode, Rtype, Section};

/// Answers from a hosts file.
#[derive(Debug)]
pub(super) struct Hosts {
    zones: Zones,
    fallthrough: Fallthrough,
    fallthrough_unsupported: bool,
    reload: Option<Duration>,
    inline: Table,
    file: Arc<ArcSwap<Table>>,
    /// Taken by the task that follows the file.
    source: Mutex<Option<Source>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Hosts {
    /// Takes in the lines of the Corefile and reads the file for the first time.
    pub(super) fn new(config: Config) -> Result<Self, ConfigError> {
        let rules = Rules {
            zones: config.zones.clone(),
            ttl_s: config.ttl_s,
            reverse: config.reverse,
        };
        let mut inline = Table::default();
        for (address, line) in &config.inline {
            let names = line.args().iter().map(|name| &*name.text);
            inline
                .add(*address, names, &rules)
                .map_err(|problem| line.error(problem))?;
        }
        let mut source = Source::new(config.path, rules, inline.entries());
        let file = source.refresh().unwrap_or_default();
        Ok(Self {
            zones: config.zones,
            fallthrough: config.fallthrough,
            fallthrough_unsupported: config.fallthrough_unsupported,
            reload: config.reload,
            inline,
            file: Arc::new(ArcSwap::from_pointee(file)),
            source: Mutex::new(Some(source)),
            task: Mutex::new(None),
        })
    }

    #[cfg(test)]
    pub(super) fn entries_of_file(&self) -> u32 {
        self.file.load().entries()
    }

    fn addresses(&self, exchange: &mut Exchange, family: Family) -> Step {
        let file = self.file.load();
        let name = exchange.question.lower();
        let found = [
            file.addresses(name, family),
            self.inline.addresses(name, family),
        ];
        match found {
            [None, None] => self.without_records(exchange, &file),
            [Some(one), None] | [None, Some(one)] => answer(exchange, one),
            [Some(one), Some(other)] => {
                answer(exchange, one);
                let size = family.octets();
                for record in other.each(size) {
                    if !one.each(size).any(|same| same == record) {
                        exchange.reply.push_wire(Section::Answer, 1, record);
                    }
                }
                Step::Answered
            }
        }
    }

    fn names(&self, exchange: &mut Exchange, address: IpAddr) -> Step {
        let file = self.file.load();
        match [file.names(address), self.inline.names(address)] {
            [None, None] => Step::Next,
            [Some(one), None] | [None, Some(one)] => answer(exchange, one),
            [Some(one), Some(other)] => {
                answer(exchange, one);
                exchange
                    .reply
                    .push_wire(Section::Answer, other.records(), other.octets());
                Step::Answered
            }
        }
    }

    /// A name of the zones without a record of the type asked for.
    fn without_records(&self, exchange: &mut Exchange, file: &Table) -> Step {
        let name = exchange.question.lower();
        let exists = |table: &Table, name: &Name| {
            [Family::V4, Family::V6]
                .into_iter()
                .any(|family| table.addresses(name, family).is_some())
        };
        if exists(file, name) || exists(&self.inline, name) {
            exchange.answer().authoritative = true;
            Step::Answered
        } else if self.fallthrough.lets_through(name) {
            Step::Next
        } else {
            // There is no SOA for an NXDOMAIN.
            Step::Fail(Rcode::SERVFAIL)
        }
    }
}

fn answer(exchange: &mut Exchange, records: &Fragment) -> Step {
    let reply = exchange.answer();
    reply.authoritative = true;
    reply.push_wire(Section::Answer, records.records(), records.octets());
    Step::Answered
}

impl Plugin for Hosts {
    fn name(&self) -> &'static str {
        "hosts"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        let name = exchange.question.lower();
        // Reverse names need not be in the zones.
        if exchange.question.rtype == Rtype::PTR {
            return match address_of_reverse_name(name) {
                Some(address) => self.names(exchange, address.to_canonical()),
                None => Step::Next,
            };
        }
        if self.zones.find(name).is_none() {
            return Step::Next;
        }
        match exchange.question.rtype {
            Rtype::A => self.addresses(exchange, Family::V4),
            Rtype::AAAA => self.addresses(exchange, Family::V6),
            _ if self.fallthrough_unsupported && self.fallthrough.lets_through(name) => Step::Next,
            _ => self.without_records(exchange, &self.file.load()),
        }
    }

    fn start(&self) {
        let Some(every) = self.reload else { return };
        let taken = self
            .source
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let (Some(mut source), Ok(runtime)) = (taken, Handle::try_current()) else {
            return;
        };
        let file = Arc::clone(&self.file);
        let task = runtime.spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let read = tokio::task::spawn_blocking(move || {
                    let table = source.refresh();
                    (source, table)
                });
                let Ok((again, table)) = read.await else {
                    return;
                };
                source = again;
                if let Some(table) = table {
                    file.store(Arc::new(table));
                }
            }
        });
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if let Some(task) = self
            .task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            task.abort();
        }
    }
}
