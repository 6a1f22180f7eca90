use std::net::IpAddr;
use std::time::Duration;

use futures::future::BoxFuture;

use super::answer::push_soa;
use super::config::PodMode;
use super::external::{End, push_aliases};
use super::find::{Asked, Verdict};
use super::shape::Labels;
use super::{Kubernetes, Zone};
use crate::plugin::{Exchange, Plugin, Position, Step};
use crate::wire::{EdeCode, Name, Rcode, Record, Rtype, Section};

/// What there is to say when a name is missing before the first lists are in.
const NOT_SYNCED: &str = "the cluster's objects are not read yet";

impl Kubernetes {
    /// The longest of our zones that the name (in lower case) is in, and how many of its
    /// labels are before it.
    pub(super) fn zone_of(&self, lower: &Name, labels: &Labels) -> Option<(&Zone, usize)> {
        let wire = lower.as_wire();
        self.zones.iter().find_map(|zone| {
            let at = wire.len().checked_sub(zone.name.wire_len())?;
            if wire.get(at..)? != zone.name.as_wire() {
                return None;
            }
            Some((zone, labels.before(at, wire.len())?))
        })
    }

    /// Answers as far as that needs no waiting.
    fn answer(&self, exchange: &mut Exchange) -> Outcome {
        let limit = exchange.request.reply_limit();
        let Exchange {
            question, reply, ..
        } = &mut *exchange;
        let labels = Labels::new(question.lower());
        let Some((zone, count)) = self.zone_of(question.lower(), &labels) else {
            return Outcome::Step(Step::Next);
        };
        let rtype = question.rtype;
        if matches!(rtype, Rtype::AXFR | Rtype::IXFR) {
            return Outcome::Step(Step::Fail(Rcode::REFUSED));
        }
        let asked = Asked {
            lower: question.lower(),
            written: question.name(),
            labels: &labels,
            zone,
            count,
            rtype,
            owner: [0xC0, 0x0C],
            limit,
        };
        reply.begin(question);
        let verdict = match self.find(reply, &asked) {
            Verdict::Alias(target) => match rtype {
                Rtype::CNAME => {
                    push_aliases(reply, &[*target], self.ttl);
                    Verdict::Found
                }
                Rtype::A | Rtype::AAAA => match self.follow(reply, &asked, *target, question) {
                    End::Answered => Verdict::Found,
                    End::Nowhere => Verdict::Empty,
                    End::Outside(names) => return Outcome::Outside(names),
                },
                _ => Verdict::Empty,
            },
            verdict => verdict,
        };
        reply.authoritative = true;
        let mut soa = || {
            let serial = self.index.serial();
            push_soa(reply, Section::Authority, asked.zone_at(), self.ttl, serial);
        };
        match verdict {
            Verdict::Found => {}
            Verdict::Empty | Verdict::Alias(_) => soa(),
            Verdict::Missing => {
                if self.falls_through(question.lower()) {
                    return Outcome::Step(Step::Next);
                }
                soa();
                return self.missing(exchange);
            }
        }
        Outcome::Step(Step::Answered)
    }

    fn missing(&self, exchange: &mut Exchange) -> Outcome {
        if self.index.is_synced() {
            exchange.reply.rcode = Rcode::NXDOMAIN;
        } else {
            exchange.reply.rcode = Rcode::SERVFAIL;
            exchange.explain(EdeCode::NOT_READY, NOT_SYNCED);
        }
        Outcome::Step(Step::Answered)
    }

    fn falls_through(&self, lower: &Name) -> bool {
        self.fallthrough.iter().any(|zone| lower.is_within(zone))
    }
}

/// How far an answer came.
enum Outcome {
    /// All the way.
    Step(Step),
    /// These names lead to one that others answer.
    Outside(Vec<Name>),
}

/// Of two labels or one before a zone; `None` if the name would be too long.
fn domain(labels: &[&str], zone: &Name) -> Option<Name> {
    let labels = labels.iter().map(|label| label.as_bytes());
    Name::from_labels(labels).ok()?.followed_by(zone).ok()
}

impl Plugin for Kubernetes {
    fn search_path(&self, name: &Name, client: IpAddr) -> Option<Vec<Name>> {
        if self.pods != PodMode::Verified {
            return None;
        }
        let (zone, _) = self.zone_of(name, &Labels::new(name))?;
        // The address of a node is many pods'.
        let pod = self
            .index
            .pod_with(client)
            .filter(|pod| !pod.host_network)?;
        Some(vec![
            domain(&[&pod.name.namespace, "svc"], &zone.name)?,
            domain(&["svc"], &zone.name)?,
            zone.name.clone(),
        ])
    }

    fn name(&self) -> &'static str {
        "kubernetes"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        match self.answer(exchange) {
            Outcome::Step(step) => step,
            Outcome::Outside(_) => Step::Wait,
        }
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange, at: Position<'a>) -> BoxFuture<'a, Step> {
        Box::pin(async move {
            match self.answer(exchange) {
                Outcome::Step(step) => step,
                Outcome::Outside(names) => self.look_outside(exchange, at, names).await,
            }
        })
    }

    fn start(&self) {
        if let Some(source) = &self.source {
            source.start();
        }
    }

    fn ready(&self) -> bool {
        self.index.is_synced()
    }

    fn zone_serial(&self, zone: &Name) -> Option<u32> {
        self.transferred(zone).map(|_| self.index.serial())
    }

    fn zone_records(&self, zone: &Name) -> Option<Vec<Record>> {
        self.transferred(zone).map(|zone| self.all_records(zone))
    }

    fn startup_timeout(&self) -> Duration {
        self.startup_timeout
    }
}
