mod kept;
mod refreshed;
mod speed;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::plugin::trial::{Behind, Trial, query, query_with, reply, section};
use crate::plugin::{Environment, Exchange, Outcome, Plugin, Step};
use crate::wire::{Rcode, Section};

/// What the upstream says from now on.
#[derive(Clone, Debug, Default)]
struct Says {
    rcode: Option<Rcode>,
    records: Vec<&'static str>,
    truncated: bool,
    authentic: bool,
    /// Nobody there: a failure without a reply.
    gone: bool,
    silent: bool,
}

fn says(rcode: Rcode, records: &[&'static str]) -> Says {
    Says {
        rcode: Some(rcode),
        records: records.to_vec(),
        ..Says::default()
    }
}

fn gone() -> Says {
    Says {
        gone: true,
        ..Says::default()
    }
}

/// A server block with `cache` and an upstream, and a clock of its own.
struct Scene {
    block: Trial,
    says: Arc<Mutex<Says>>,
    asked: Arc<Mutex<Vec<String>>>,
    start: Instant,
}

impl Scene {
    fn new(directives: &str) -> Self {
        Self::behind_it(directives, "forward", &Environment::default())
    }

    fn behind_it(directives: &str, name: &'static str, environment: &Environment) -> Self {
        let says = Arc::new(Mutex::new(Says::default()));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (says_to, asked_by) = (Arc::clone(&says), Arc::clone(&asked));
        let behind: Arc<dyn Plugin> = Behind::new(name, move |exchange| {
            let question = &exchange.question;
            let text = format!("{} {}", question.name(), question.rtype);
            asked_by.lock().unwrap().push(text);
            let says = says_to.lock().unwrap().clone();
            answer(exchange, &says)
        });
        let block = Trial::in_environment(directives, vec![behind], environment).unwrap();
        Self {
            block,
            says,
            asked,
            // Later than any clock that is read meanwhile.
            start: Instant::now() + Duration::from_secs(60),
        }
    }

    fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    fn times(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Asks `NAME TYPE [do] [cd] [ad] [edns]` so many seconds after the start. Gives code, AD
    /// if it is set, and all records. Then lets what goes on in the background end.
    async fn at(&self, seconds: u64, question: &str) -> String {
        let mut exchange = asking(question);
        exchange.request.received = self.start + Duration::from_secs(seconds);
        let outcome = self.block.run(&mut exchange).await;
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        match outcome {
            Outcome::Answered => {
                let asked = question.contains(" ad");
                assert_eq!(exchange.request.authentic_data, asked, "put back");
                told(&exchange)
            }
            Outcome::Dropped => "silence".to_owned(),
        }
    }
}

fn asking(question: &str) -> Exchange {
    let (plain, flags) = question
        .match_indices(' ')
        .nth(1)
        .map_or((question, ""), |(at, _)| question.split_at(at));
    let has = |flag| flags.split(' ').any(|it| it == flag);
    let mut exchange = if has("do") || has("edns") {
        query_with(plain, Some(has("do")), &[])
    } else {
        query(plain)
    };
    exchange.request.checking_disabled = has("cd");
    exchange.request.authentic_data = has("ad");
    exchange
}

fn answer(exchange: &mut Exchange, says: &Says) -> Step {
    if says.gone {
        exchange.error = Some("nobody there".to_owned());
        return Step::Fail(Rcode::SERVFAIL);
    }
    if says.silent {
        return Step::Drop;
    }
    let _answered = reply(
        exchange,
        says.rcode.unwrap_or(Rcode::NOERROR),
        &says.records,
    );
    exchange.reply.truncated = says.truncated;
    exchange.reply.authentic_data = says.authentic && exchange.request.authentic_data;
    exchange.reply.recursion_available = true;
    Step::Answered
}

fn told(exchange: &Exchange) -> String {
    let mut words = vec![exchange.reply.rcode.to_string()];
    if exchange.reply.authentic_data {
        words.push("ad".to_owned());
    }
    let all = [Section::Answer, Section::Authority, Section::Additional];
    let records: Vec<_> = all.iter().flat_map(|it| section(exchange, *it)).collect();
    words.push(records.join("; "));
    words.join(" ").trim().to_owned()
}
