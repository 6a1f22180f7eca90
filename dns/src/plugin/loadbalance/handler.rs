use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::task::AbortHandle;

use super::config::{Config, Policy};
use super::order;
use super::weights::{WEIGHT_FILE_OCTETS_LIMIT, Weights};
use crate::corefile::ConfigError;
use crate::plugin::{Exchange, Plugin, Position, Step};
use crate::wire::{Kind, Rcode, Record, Records, Rtype, Section, Shuffled};

/// Orders addresses.
#[derive(Debug)]
pub(super) struct LoadBalance {
    weighted: Option<Weighted>,
    prefer: Vec<IpNet>,
}

#[derive(Debug)]
struct Weighted {
    file: PathBuf,
    reload: Duration,
    weights: Arc<ArcSwap<Weights>>,
    following: Mutex<Option<AbortHandle>>,
}

impl LoadBalance {
    /// Reads the weight file, if there is to be one.
    pub(super) fn new(config: Config) -> Result<Self, ConfigError> {
        let weighted = match config.policy {
            Policy::RoundRobin => None,
            Policy::Weighted { file, at, reload } => {
                let weights = match read(&file) {
                    Ok(text) => Weights::parse(&text)
                        .map_err(|problem| at.error(format!("{}, {problem}", file.display())))?,
                    Err(problem) if reload.is_zero() => {
                        return Err(at.error(format!("{}: {problem}", file.display())));
                    }
                    Err(problem) => {
                        tracing::warn!(file = %file.display(), %problem, "no weights yet");
                        Weights::default()
                    }
                };
                Some(Weighted {
                    file,
                    reload,
                    weights: Arc::new(ArcSwap::from_pointee(weights)),
                    following: Mutex::default(),
                })
            }
        };
        Ok(Self {
            weighted,
            prefer: config.prefer,
        })
    }

    fn rearrange(&self, records: &mut Records) {
        match &self.weighted {
            None => {
                for section in [&mut records.answer, &mut records.additional] {
                    order::arrange(section, fastrand::shuffle, fastrand::shuffle);
                }
            }
            Some(weighted) => {
                let weights = weighted.weights.load();
                for section in [&mut records.answer, &mut records.additional] {
                    first_by_weight(section, &weights);
                }
            }
        }
        if !self.prefer.is_empty() {
            order::prefer(&mut records.answer, &self.prefer);
            order::prefer(&mut records.additional, &self.prefer);
        }
    }
}

fn first_by_weight(records: &mut [Record], weights: &Weights) {
    if !records
        .iter()
        .any(|record| order::address(record).is_some())
    {
        return;
    }
    let choose = |addresses: &mut [Record]| {
        let first = weights.choose(addresses, |total| fastrand::usize(..total));
        addresses.swap(0, first);
    };
    order::arrange(records, choose, |_| {});
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    let octets = file
        .take(WEIGHT_FILE_OCTETS_LIMIT + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(octets).is_ok_and(|octets| octets > WEIGHT_FILE_OCTETS_LIMIT) {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(text)
}

/// Reads the file every `reload` and takes it over where it is in order.
async fn follow(file: PathBuf, reload: Duration, weights: Arc<ArcSwap<Weights>>) {
    let mut last = None;
    loop {
        tokio::time::sleep(reload).await;
        let path = file.clone();
        let text = tokio::task::spawn_blocking(move || read(&path)).await;
        let text = text.map_err(io::Error::other).flatten();
        let parsed = match text {
            Ok(text) if last.as_ref() == Some(&text) => continue,
            Ok(text) => {
                let parsed = Weights::parse(&text).map_err(|problem| problem.to_string());
                last = Some(text);
                parsed
            }
            Err(problem) => Err(problem.to_string()),
        };
        match parsed {
            Ok(parsed) => {
                weights.store(Arc::new(parsed));
                tracing::info!(file = %file.display(), "weights read");
            }
            Err(problem) => {
                tracing::error!(file = %file.display(), %problem, "the weights stay as they are");
            }
        }
    }
}

impl Plugin for LoadBalance {
    fn name(&self) -> &'static str {
        "loadbalance"
    }

    fn query(&self, _: &mut Exchange, _: Position<'_>) -> Step {
        Step::Next
    }

    fn response(&self, exchange: &mut Exchange, _: Position<'_>) {
        let (reply, rtype) = (&mut exchange.reply, exchange.question.rtype);
        let several = |section| reply.count(section) > 1;
        if reply.rcode != Rcode::NOERROR
            || !(several(Section::Answer) || several(Section::Additional))
            || reply.kind(rtype) == Kind::Transfer
        {
            return;
        }
        let asked_for_addresses = matches!(rtype, Rtype::A | Rtype::AAAA | Rtype::SRV);
        if self.weighted.is_some() && !asked_for_addresses && self.prefer.is_empty() {
            return;
        }
        if self.weighted.is_none()
            && self.prefer.is_empty()
            && reply.shuffle_addresses(|below| fastrand::usize(..below)) == Shuffled::InPlace
        {
            return;
        }
        // What can't be decoded goes out as it came.
        if let Ok(mut records) = reply.records() {
            self.rearrange(&mut records);
            reply.rebuild(&exchange.question, &records);
        }
    }

    fn start(&self) {
        let Some(weighted) = &self.weighted else {
            return;
        };
        if weighted.reload.is_zero() {
            return;
        }
        let weights = Arc::clone(&weighted.weights);
        let task = tokio::spawn(follow(weighted.file.clone(), weighted.reload, weights));
        let mut following = weighted
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *following = Some(task.abort_handle());
    }
}

impl Drop for Weighted {
    fn drop(&mut self) {
        let following = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = &*following {
            task.abort();
        }
    }
}
