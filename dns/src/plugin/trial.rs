//! A server block in a test: directives as a Corefile writes them, a closure as what answers
//! behind them, and queries and records as text.

use std::fmt::Debug;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use domain::base::Message;
use domain::base::message::RecordSection;
use domain::rdata::AllRecordData;

use super::registry;
use super::{BlockSettings, Chain, Environment, Exchange, Outcome, Plugin, Position, Step};
use crate::corefile::{self, ConfigError};
use crate::server::{Route, Routes, StreamTimeouts};
use crate::wire::{Class, Intake, Name, Rcode, Record, Rtype, Section};

/// A server block that can be asked.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) chain: Arc<Chain>,
    // Holds the chain's way to ask the whole server.
    _routes: Arc<Routes>,
}

impl Trial {
    /// Sets up `directives` as the block of the root zone, with `behind` at the end.
    pub(crate) fn new(directives: &str, behind: Vec<Arc<dyn Plugin>>) -> Result<Self, ConfigError> {
        Self::in_environment(directives, behind, &Environment::default())
    }

    pub(crate) fn in_environment(
        directives: &str,
        behind: Vec<Arc<dyn Plugin>>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let text = format!(". {{\n{directives}\n}}");
        let corefile = corefile::parse(&text, "Corefile", Path::new("/nowhere"))?;
        let block = &corefile.blocks[0];
        let mut settings = BlockSettings {
            zones: vec![".".to_owned()],
            server: "dns://:53".into(),
            directives: Vec::new(),
            root: "/nowhere".into(),
            bind: Vec::new(),
            tls: None,
            timeouts: StreamTimeouts::default(),
            debug: false,
            metrics: false,
        };
        let mut plugins = registry::set_up(&block.directives, &mut settings, environment)?;
        plugins.extend(behind);
        let chain = Chain::new(plugins);
        let route = Route::new(&Name::ROOT, Arc::clone(&chain), &"dns://:53".into());
        let routes = Routes::new(vec![route]);
        Ok(Self {
            chain,
            _routes: routes,
        })
    }

    /// What setting up says is wrong, without the place.
    pub(crate) fn refused(directives: &str) -> String {
        let error = Self::new(directives, Vec::new()).expect_err(directives);
        error.message
    }

    /// Asks in the caller's runtime.
    pub(crate) async fn run(&self, exchange: &mut Exchange) -> Outcome {
        self.chain.run(exchange).await
    }

    /// Asks `NAME TYPE [CLASS]`, without a runtime around.
    pub(crate) fn ask(&self, question: &str) -> Exchange {
        let mut exchange = query(question);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let outcome = runtime
            .expect("a runtime")
            .block_on(self.chain.run(&mut exchange));
        assert_eq!(outcome, Outcome::Answered, "{question}");
        exchange
    }
}

/// A query for `NAME TYPE [CLASS]` without EDNS, ready for a chain.
pub(crate) fn query(question: &str) -> Exchange {
    query_with(question, None, &[])
}

/// A query with an OPT record: DO or not, and options.
pub(crate) fn query_with(
    question: &str,
    dnssec_ok: Option<bool>,
    options: &[(u16, &[u8])],
) -> Exchange {
    let words: Vec<_> = question.split_whitespace().collect();
    let class = words
        .get(2)
        .map_or(Class::IN, |text| Class::from_text(text).expect(text));
    let rtype = Rtype::from_text(words[1]).expect(question);
    let mut packet = vec![
        0,
        7,
        1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(dnssec_ok.is_some()),
    ];
    packet.extend_from_slice(Name::from_text(words[0]).expect(question).as_wire());
    packet.extend_from_slice(&rtype.0.to_be_bytes());
    packet.extend_from_slice(&class.0.to_be_bytes());
    if let Some(dnssec_ok) = dnssec_ok {
        let length = |of: usize| u16::try_from(of).expect("short").to_be_bytes();
        let all: usize = options.iter().map(|(_, content)| content.len() + 4).sum();
        packet.extend_from_slice(&[0, 0, 41, 16, 0, 0, 0, u8::from(dnssec_ok) << 7, 0]);
        packet.extend_from_slice(&length(all));
        for (code, content) in options {
            packet.extend_from_slice(&code.to_be_bytes());
            packet.extend_from_slice(&length(content.len()));
            packet.extend_from_slice(content);
        }
    }
    let mut exchange = Exchange::default();
    exchange.request.source = "10.240.0.1:40212".parse().expect("an address");
    exchange.request.local = "10.96.0.10:53".parse().expect("an address");
    assert_eq!(exchange.request.read(&packet), Intake::Query, "{question}");
    exchange.begin();
    exchange
}

/// A section of the reply as text: `owner. TTL IN TYPE data`, each name with its last dot.
pub(crate) fn section(exchange: &Exchange, section: Section) -> Vec<String> {
    let mut reply = exchange.reply.clone();
    reply.finish(&exchange.request, 65_535);
    let message = Message::from_octets(reply.octets()).expect("a message");
    let records = match section {
        Section::Answer => message.answer(),
        Section::Authority => message.authority(),
        Section::Additional => message.additional(),
    };
    texts(records.expect("well-formed records"))
}

fn texts(records: RecordSection<'_, &[u8]>) -> Vec<String> {
    let records = records
        .limit_to::<AllRecordData<_, _>>()
        .map(|record| record.expect("a record"));
    let records = records.filter(|record| record.rtype() != domain::base::Rtype::OPT);
    let texts = records.map(|record| {
        let text = record.to_string();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    });
    texts.collect()
}

/// The answer section as text.
pub(crate) fn answer(exchange: &Exchange) -> Vec<String> {
    section(exchange, Section::Answer)
}

/// A record from `owner TTL TYPE data`.
pub(crate) fn record(text: &str) -> Record {
    let words: Vec<_> = text.split_whitespace().collect();
    let rtype = Rtype::from_text(words[2]).expect(text);
    let name = |at: usize| Name::from_text(words[at]).expect(text).as_wire().to_vec();
    let number = |at: usize| words[at].parse::<u32>().expect(text);
    let short = |at: usize| words[at].parse::<u16>().expect(text).to_be_bytes().to_vec();
    let data = match rtype {
        Rtype::A => words[3].parse::<Ipv4Addr>().expect(text).octets().to_vec(),
        Rtype::AAAA => words[3].parse::<Ipv6Addr>().expect(text).octets().to_vec(),
        Rtype::CNAME | Rtype::NS | Rtype::PTR => name(3),
        Rtype::MX => [short(3), name(4)].concat(),
        Rtype::SRV => [short(3), short(4), short(5), name(6)].concat(),
        Rtype::TXT => {
            let length = u8::try_from(words[3].len()).expect(text);
            [&[length], words[3].as_bytes()].concat()
        }
        Rtype::SOA => {
            let numbers = (5..10).flat_map(|at| number(at).to_be_bytes());
            [name(3), name(4), numbers.collect()].concat()
        }
        other => panic!("no {other} records here: {text}"),
    };
    Record::new(
        Name::from_text(words[0]).expect(text),
        rtype,
        number(1),
        data,
    )
}

/// Answers with this code and records, each begun with `an`, `ns` or `ex`.
pub(crate) fn reply(exchange: &mut Exchange, rcode: Rcode, records: &[&str]) -> Step {
    let reply = exchange.answer();
    reply.rcode = rcode;
    for text in records {
        let (section, rest) = text.split_once(' ').expect(text);
        let section = match section {
            "an" => Section::Answer,
            "ns" => Section::Authority,
            "ex" => Section::Additional,
            _ => panic!("an, ns or ex: {text}"),
        };
        reply.push(section, &record(rest));
    }
    Step::Answered
}

/// Whatever its function makes of a query, under a name of the test's choice. Keeps what it
/// was asked.
pub(crate) struct Behind<F> {
    name: &'static str,
    answer: F,
    pub(crate) asked: Mutex<Vec<String>>,
}

impl<F> Behind<F>
where
    F: Fn(&mut Exchange) -> Step + Send + Sync + 'static,
{
    pub(crate) fn new(name: &'static str, answer: F) -> Arc<Self> {
        Arc::new(Self {
            name,
            answer,
            asked: Mutex::default(),
        })
    }
}

impl<F> Debug for Behind<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl<F> Plugin for Behind<F>
where
    F: Fn(&mut Exchange) -> Step + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        let question = &exchange.question;
        let text = format!("{} {}", question.name(), question.rtype);
        self.asked.lock().expect("unpoisoned").push(text);
        (self.answer)(exchange)
    }
}
