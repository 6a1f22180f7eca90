use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use futures::future::BoxFuture;
use tokio::task::JoinHandle;

use super::lookup::{Answer, lookup};
use super::read::{ReadError, read_zone};
use super::zone::Zone;
use crate::plugin::{Exchange, Plugin, Position, Step};
use crate::wire::{Name, Question, Rcode, Record, Section};

/// Answers from zone files.
#[derive(Debug)]
pub(super) struct File {
    zones: Arc<[Served]>,
    fallthrough: Vec<Name>,
    reload: Duration,
    watching: Mutex<Option<JoinHandle<()>>>,
}

/// One zone and the file it is read from.
#[derive(Debug)]
pub(super) struct Served {
    path: PathBuf,
    origin: Name,
    zone: ArcSwap<Zone>,
    seen: Mutex<Option<SystemTime>>,
}

impl Served {
    pub(super) fn open(path: PathBuf, origin: &Name) -> Result<Self, ReadError> {
        let seen = modified(&path);
        let zone = read_zone(&path, origin)?;
        Ok(Self {
            path,
            origin: origin.to_lower(),
            zone: ArcSwap::from_pointee(zone),
            seen: Mutex::new(seen),
        })
    }

    pub(super) fn serial(&self) -> u32 {
        self.zone.load().serial
    }

    /// Reads the file again if it has changed. What can't be read leaves the zone as it is;
    /// a zone whose serial has not changed is taken all the same.
    pub(super) fn refresh(&self) {
        let now = modified(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if now.is_none() || *seen == now {
            return;
        }
        *seen = now;
        match read_zone(&self.path, &self.origin) {
            Ok(zone) => {
                tracing::info!(zone = %self.origin, serial = zone.serial, "zone file read again");
                self.zone.store(Arc::new(zone));
            }
            Err(error) => {
                tracing::error!(zone = %self.origin, %error, "the zone stays as it was");
            }
        }
    }
}

fn modified(path: &PathBuf) -> Option<SystemTime> {
    std::fs::metadata(path)
        .and_then(|data| data.modified())
        .ok()
}

impl File {
    pub(super) fn new(zones: Vec<Served>, fallthrough: Vec<Name>, reload: Duration) -> Self {
        Self {
            zones: zones.into(),
            fallthrough,
            reload,
            watching: Mutex::new(None),
        }
    }

    fn zone_of(&self, name: &Name) -> Option<&Served> {
        let holding = self
            .zones
            .iter()
            .filter(|zone| name.is_within(&zone.origin));
        holding.max_by_key(|zone| zone.origin.wire_len())
    }
}

fn write(exchange: &mut Exchange, answer: &Answer) {
    let reply = exchange.answer();
    reply.rcode = answer.rcode;
    reply.authoritative = answer.authoritative;
    for (section, records) in [
        (Section::Answer, &answer.records.answer),
        (Section::Authority, &answer.records.authority),
        (Section::Additional, &answer.records.additional),
    ] {
        for record in records {
            reply.push(section, record);
        }
    }
}

impl Plugin for File {
    fn name(&self) -> &'static str {
        "file"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        let Some(served) = self.zone_of(exchange.question.lower()) else {
            return Step::Next;
        };
        let answer = lookup(&served.zone.load(), &exchange.question);
        let name = exchange.question.lower();
        let falls = || self.fallthrough.iter().any(|zone| name.is_within(zone));
        if answer.rcode == Rcode::NXDOMAIN && falls() {
            return Step::Next;
        }
        if answer.rcode == Rcode::SERVFAIL {
            exchange.error = Some("the zone's CNAMEs lead nowhere".to_owned());
            return Step::Fail(Rcode::SERVFAIL);
        }
        if answer.alias_of.is_some() {
            return Step::Wait;
        }
        write(exchange, &answer);
        Step::Answered
    }

    /// The answer ends in a name outside the zone: the server is asked for it.
    fn wait<'a>(&'a self, exchange: &'a mut Exchange, at: Position<'a>) -> BoxFuture<'a, Step> {
        Box::pin(async move {
            let Some(served) = self.zone_of(exchange.question.lower()) else {
                return Step::Next;
            };
            let mut answer = lookup(&served.zone.load(), &exchange.question);
            if let Some(target) = &answer.alias_of {
                let mut question = Question::new(target.clone(), exchange.question.rtype);
                question.class = exchange.question.class;
                let found = at.resolve(&question, exchange).await;
                let found = found.filter(|found| !found.failed);
                if let Some(records) = found.and_then(|found| found.reply.records().ok()) {
                    answer.records.answer.extend(records.answer);
                }
            }
            write(exchange, &answer);
            Step::Answered
        })
    }

    fn start(&self) {
        if self.reload.is_zero() {
            return;
        }
        let (zones, pause) = (Arc::clone(&self.zones), self.reload);
        let watching = tokio::spawn(async move {
            loop {
                tokio::time::sleep(pause).await;
                let zones = Arc::clone(&zones);
                let read = tokio::task::spawn_blocking(move || {
                    zones.iter().for_each(Served::refresh);
                });
                if read.await.is_err() {
                    return;
                }
            }
        });
        let mut slot = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = slot.replace(watching) {
            old.abort();
        }
    }

    fn zone_serial(&self, zone: &Name) -> Option<u32> {
        let served = self.zones.iter().find(|served| served.origin == *zone)?;
        Some(served.serial())
    }

    fn zone_records(&self, zone: &Name) -> Option<Vec<Record>> {
        let served = self.zones.iter().find(|served| served.origin == *zone)?;
        Some(served.zone.load().records().cloned().collect())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let slot = self.watching.get_mut();
        if let Some(task) = slot.unwrap_or_else(PoisonError::into_inner) {
            task.abort();
        }
    }
}
