use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::task::JoinHandle;

use super::notify;
use crate::plugin::{Exchange, Plugin, Position, Step};
use crate::wire::{Name, Question, Rcode, Record, Reply, Rtype, Section, Transport};

/// Octets of one message of a transfer, before its last record; a message has 65,535 at most.
const MESSAGE_OCTETS: usize = 63_000;

/// Who may have which zones.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// In lower case.
    pub(super) zones: Vec<Name>,
    pub(super) anyone: bool,
    /// They may have it and are told of changes.
    pub(super) secondaries: Vec<SocketAddr>,
}

/// Answers AXFR and IXFR from the zones of the plugins below.
#[derive(Debug)]
pub(super) struct Transfer {
    rules: Vec<Rule>,
    below: OnceLock<Vec<Arc<dyn Plugin>>>,
    notifying: Mutex<Option<JoinHandle<()>>>,
}

impl Transfer {
    pub(super) const fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules,
            below: OnceLock::new(),
            notifying: Mutex::new(None),
        }
    }

    /// The rule for the longest zone a name is in.
    fn rule(&self, name: &Name) -> Option<&Rule> {
        let holding = self.rules.iter().filter_map(|rule| {
            let zones = rule.zones.iter().filter(|zone| name.is_within(zone));
            Some((zones.map(Name::wire_len).max()?, rule))
        });
        let longest = holding.max_by_key(|(length, _)| *length);
        longest.map(|(_, rule)| rule)
    }
}

impl Rule {
    fn allows(&self, client: IpAddr) -> bool {
        self.anyone || self.secondaries.iter().any(|to| to.ip() == client)
    }
}

/// Whether a client that has `theirs` has all of `ours` (RFC 1982 §3.2).
const fn up_to_date(theirs: u32, ours: u32) -> bool {
    ours == theirs || theirs.wrapping_sub(ours) < 1 << 31
}

/// Lays out the records, the SOA first and again at the end, in as many messages as needed.
fn messages(question: &Question, records: &[Record]) -> Vec<Reply> {
    let begin = || {
        let mut reply = Reply::default();
        reply.begin(question);
        reply.authoritative = true;
        reply
    };
    let mut messages = Vec::new();
    let mut message = begin();
    for record in records.iter().chain(records.first()) {
        let octets = message.octets().len() + record.owner.wire_len() + 10 + record.data.len();
        if octets > MESSAGE_OCTETS && message.count(Section::Answer) > 0 {
            messages.push(std::mem::replace(&mut message, begin()));
        }
        message.push(Section::Answer, record);
    }
    messages.push(message);
    messages
}

impl Plugin for Transfer {
    fn name(&self) -> &'static str {
        "transfer"
    }

    fn query(&self, exchange: &mut Exchange, at: Position<'_>) -> Step {
        if !matches!(exchange.question.rtype, Rtype::AXFR | Rtype::IXFR) {
            return Step::Next;
        }
        let Some(rule) = self.rule(exchange.question.lower()) else {
            return Step::Next;
        };
        let client = exchange.request.source;
        if !rule.allows(client.ip()) {
            tracing::warn!(%client, zone = %exchange.question.lower(), "may not transfer the zone");
            return Step::Fail(Rcode::REFUSED);
        }
        if exchange.request.transport == Transport::Udp {
            return Step::Fail(Rcode::REFUSED);
        }
        let zone = exchange.question.lower().clone();
        let plugins = at.plugins_below();
        let found = plugins.iter().find_map(|plugin| plugin.zone_records(&zone));
        let Some(mut records) = found else {
            return Step::Next;
        };
        if exchange.question.rtype == Rtype::IXFR
            && let Some(theirs) = exchange.request.ixfr_serial()
            && let Some(soa) = records.first()
            && up_to_date(theirs, soa.soa_serial().unwrap_or_default())
        {
            records.truncate(1);
            exchange.answer().authoritative = true;
            if let Some(soa) = records.first() {
                exchange.reply.push(Section::Answer, soa);
            }
            return Step::Answered;
        }
        let mut messages = messages(&exchange.question, &records).into_iter();
        if let Some(first) = messages.next() {
            exchange.reply = first;
        }
        exchange.more = messages.collect();
        tracing::info!(%client, %zone, records = records.len(), "zone transferred");
        Step::Answered
    }

    fn placed(&self, at: Position<'_>) {
        let _first_place_counts = self.below.set(at.plugins_below().to_vec());
    }

    fn start(&self) {
        let mut told = Vec::new();
        for rule in self
            .rules
            .iter()
            .filter(|rule| !rule.secondaries.is_empty())
        {
            let zones = rule.zones.iter().cloned();
            told.extend(zones.map(|zone| notify::Told::new(zone, rule.secondaries.clone())));
        }
        if told.is_empty() {
            return;
        }
        let below = self.below.get().cloned().unwrap_or_default();
        let task = tokio::spawn(notify::run(told, below));
        let mut slot = self
            .notifying
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = slot.replace(task) {
            old.abort();
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let slot = self.notifying.get_mut();
        if let Some(task) = slot.unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}
