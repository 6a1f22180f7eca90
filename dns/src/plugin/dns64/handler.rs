use std::net::Ipv4Addr;
use std::sync::LazyLock;

use futures::future::BoxFuture;
use prometheus::{IntCounter, IntCounterVec};

use super::config::Config;
use crate::plugin::{Exchange, Outcome, Plugin, Position, Step, counter_vec};
use crate::wire::{Class, Kind, Record, Records, Rtype};

/// The TTL where no SOA tells one (RFC 6147 §5.1.7).
const TTL_WITHOUT_SOA_S: u32 = 600;

static TRANSLATED: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Queries answered with addresses made by dns64.";
    counter_vec("coredns_dns64_requests_translated_total", help, &["server"])
});

/// Makes AAAA records.
#[derive(Debug)]
pub(super) struct Dns64 {
    config: Config,
    translated: Option<IntCounter>,
}

impl Dns64 {
    pub(super) fn new(config: Config, server: &str) -> Self {
        let translated = TRANSLATED.as_ref();
        Self {
            config,
            translated: translated.map(|family| family.with_label_values(&[server])),
        }
    }

    /// Whether the reply lacks what its client can use (RFC 6147 §5.1.1, §5.1.2).
    fn lacks_addresses(&self, exchange: &Exchange) -> Option<Records> {
        if exchange.reply.kind(Rtype::AAAA) == Kind::Nxdomain {
            return None;
        }
        let records = exchange.reply.records().ok()?;
        let has = records
            .answer
            .iter()
            .any(|record| record.rtype == Rtype::AAAA);
        (self.config.translate_all || !has).then_some(records)
    }

    async fn translate(&self, exchange: &mut Exchange, at: Position<'_>) -> Step {
        if at.below(exchange).await == Outcome::Dropped {
            return Step::Drop;
        }
        if exchange.failed {
            return Step::Fail(exchange.reply.rcode);
        }
        let Some(lacking) = self.lacks_addresses(exchange) else {
            return Step::Answered;
        };
        let mut question = exchange.question.clone();
        question.rtype = Rtype::A;
        let found = at.resolve(&question, exchange).await;
        let Some(found) = found.filter(|found| !found.failed) else {
            return Step::Answered;
        };
        let Ok(mut records) = found.reply.records() else {
            return Step::Answered;
        };
        let soa = lacking.authority.iter().find(|it| it.rtype == Rtype::SOA);
        let ttl = soa.map_or(TTL_WITHOUT_SOA_S, |soa| soa.ttl);
        for record in &mut records.answer {
            self.translate_record(record, ttl);
        }
        let question = exchange.question.clone();
        let reply = exchange.answer();
        reply.truncated = found.reply.truncated;
        reply.recursion_available = found.reply.recursion_available;
        reply.rebuild(&question, &records);
        if let Some(translated) = &self.translated {
            translated.inc();
        }
        Step::Answered
    }

    fn translate_record(&self, record: &mut Record, ttl: u32) {
        let address = <[u8; 4]>::try_from(record.data.as_slice());
        if let (Rtype::A, Ok(address)) = (record.rtype, address) {
            let address = self.config.prefix.with(Ipv4Addr::from(address));
            record.data = address.octets().to_vec();
            record.rtype = Rtype::AAAA;
            record.ttl = record.ttl.min(ttl);
        }
    }
}

impl Plugin for Dns64 {
    fn name(&self) -> &'static str {
        "dns64"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        let question = &exchange.question;
        let eligible = self.config.allow_ipv4 || exchange.request.source.is_ipv6();
        if eligible && question.rtype == Rtype::AAAA && question.class == Class::IN {
            return Step::Wait;
        }
        Step::Next
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange, at: Position<'a>) -> BoxFuture<'a, Step> {
        Box::pin(self.translate(exchange, at))
    }
}
