//! A server block in a test: directives as a Corefile writes them, something behind them, and
//! questions as text.

use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};

use domain::base::Message;
use domain::base::message::RecordSection;
use domain::rdata::AllRecordData;

use super::registry;
use super::{BlockSettings, Chain, Environment, Exchange, Outcome, Plugin, Position, Step};
use crate::corefile::{self, ConfigError};
use crate::server::{Route, Routes, StreamTimeouts};
use crate::wire::{Class, Intake, Name, Question, Rcode, Record, Rtype, Section};

/// A server block that can be asked.
#[derive(Debug)]
pub(crate) struct TestBlock {
    pub(crate) chain: Arc<Chain>,
    // Holds the chain's way to ask the whole server.
    _routes: Arc<Routes>,
}

/// What came back, as text. Names have no last dot here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) rcode: String,
    pub(crate) question: String,
    pub(crate) authoritative: bool,
    pub(crate) answer: Vec<String>,
    pub(crate) authority: Vec<String>,
    pub(crate) additional: Vec<String>,
    pub(crate) answered_by: &'static str,
    /// Of the OPT record: each option's code and content.
    pub(crate) options: Vec<(u16, Vec<u8>)>,
}

/// Sets up `directives` as the block of `zone`, with `behind` at the end of its chain.
pub(crate) fn block(
    zone: &str,
    directives: &str,
    behind: Vec<Arc<dyn Plugin>>,
) -> Result<TestBlock, ConfigError> {
    let text = format!("{zone} {{\n{directives}\n}}");
    let corefile = corefile::parse(&text, "Corefile", Path::new("/nowhere"))?;
    let [block] = corefile.blocks.as_slice() else {
        panic!("one block: {text}")
    };
    let mut settings = BlockSettings {
        zones: corefile::server_keys(block)?
            .into_iter()
            .map(|key| key.zone)
            .collect(),
        server: "dns://:53".into(),
        directives: Vec::new(),
        root: "/nowhere".into(),
        bind: Vec::new(),
        tls: None,
        timeouts: StreamTimeouts::default(),
        debug: false,
        metrics: false,
    };
    let environment = Environment::default();
    let mut plugins = registry::set_up(&block.directives, &mut settings, &environment)?;
    plugins.extend(behind);
    let chain = Chain::new(plugins);
    let route = Route::new(&Name::ROOT, Arc::clone(&chain), &"dns://:53".into());
    let routes = Routes::new(vec![route]);
    Ok(TestBlock {
        chain,
        _routes: routes,
    })
}

impl TestBlock {
    /// Asks `NAME TYPE` or `NAME TYPE CLASS`.
    pub(crate) fn ask(&self, question: &str) -> Option<Asked> {
        self.ask_with(question, None)
    }

    /// Asks with an OPT record that has these options.
    pub(crate) fn ask_with(
        &self,
        question: &str,
        options: Option<&[(u16, &[u8])]>,
    ) -> Option<Asked> {
        let mut exchange = Exchange::default();
        exchange.request.source = "10.240.0.1:40212".parse().unwrap();
        exchange.request.local = "10.96.0.10:53".parse().unwrap();
        let packet = packet(question, options);
        assert_eq!(exchange.request.read(&packet), Intake::Query);
        exchange.begin();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let outcome = runtime.block_on(self.chain.run(&mut exchange));
        if outcome == Outcome::Dropped {
            return None;
        }
        let answered_by = exchange.answered_by;
        exchange.reply.finish(&exchange.request, 65_535);
        Some(decoded(exchange.reply.octets(), answered_by))
    }

    /// Asks and gives code and answer section: `NOERROR a 5 IN A 1.2.3.4; ...`.
    pub(crate) fn told(&self, question: &str) -> String {
        let asked = self.ask(question).expect("a reply");
        [vec![asked.rcode], vec![asked.answer.join("; ")]]
            .concat()
            .join(" ")
            .trim()
            .to_owned()
    }
}

fn packet(question: &str, options: Option<&[(u16, &[u8])]>) -> Vec<u8> {
    let question = parse_question(question);
    let additionals = u8::from(options.is_some());
    let mut packet = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, additionals];
    packet.extend_from_slice(question.name().as_wire());
    packet.extend_from_slice(&question.rtype.0.to_be_bytes());
    packet.extend_from_slice(&question.class.0.to_be_bytes());
    if let Some(options) = options {
        let length = |of: usize| u16::try_from(of).unwrap().to_be_bytes();
        let all: usize = options.iter().map(|(_, content)| content.len() + 4).sum();
        packet.extend_from_slice(&[0, 0, 41, 16, 0, 0, 0, 0, 0]);
        packet.extend_from_slice(&length(all));
        for (code, content) in options {
            packet.extend_from_slice(&code.to_be_bytes());
            packet.extend_from_slice(&length(content.len()));
            packet.extend_from_slice(content);
        }
    }
    packet
}

fn parse_question(text: &str) -> Question {
    let words: Vec<_> = text.split_whitespace().collect();
    let (name, rtype, class) = match words[..] {
        [name, rtype] => (name, rtype, "IN"),
        [name, rtype, class] => (name, rtype, class),
        _ => panic!("NAME TYPE [CLASS]: {text}"),
    };
    let mut question = Question::new(
        Name::from_text(name).unwrap(),
        Rtype::from_text(rtype).unwrap(),
    );
    question.class = Class::from_text(class).unwrap();
    question
}

fn records(section: RecordSection<'_, &[u8]>) -> Vec<String> {
    section
        .limit_to::<AllRecordData<_, _>>()
        .map(|record| record.unwrap())
        .filter(|record| record.rtype() != domain::base::Rtype::OPT)
        .map(|record| {
            record
                .to_string()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

fn decoded(octets: &[u8], answered_by: &'static str) -> Asked {
    let message = Message::from_octets(octets).unwrap();
    let question = message.sole_question().unwrap();
    let opt = message.opt();
    let options = opt.iter().flat_map(|opt| {
        let options = opt.opt().iter::<domain::base::opt::UnknownOptData<_>>();
        options
            .map(|option| option.unwrap())
            .map(|option| (option.code().to_int(), option.data().as_ref().to_vec()))
    });
    Asked {
        rcode: Rcode(message.opt_rcode().to_int()).to_string(),
        question: format!("{} {}", question.qname(), question.qtype()),
        authoritative: message.header().aa(),
        answer: records(message.answer().unwrap()),
        authority: records(message.authority().unwrap()),
        additional: records(message.additional().unwrap()),
        answered_by,
        options: options.collect(),
    }
}

/// The end of a chain: refuses, so that what fell through is seen.
#[derive(Debug)]
pub(crate) struct Refuses;

impl Plugin for Refuses {
    fn name(&self) -> &'static str {
        "refuses"
    }

    fn query(&self, _: &mut Exchange, _: Position<'_>) -> Step {
        Step::Fail(Rcode::REFUSED)
    }
}

/// The end of a chain: answers with whatever its function makes of the question, and keeps the
/// questions it was asked, each with the request's options.
pub(crate) struct Answers<F> {
    pub(crate) answer: F,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl<F> Debug for Answers<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answers")
    }
}

impl<F> Plugin for Answers<F>
where
    F: Fn(&Question) -> (Rcode, Vec<(Section, Record)>) + Send + Sync + 'static,
{
    fn name(&self) -> &'static str {
        "answers"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        let question = &exchange.question;
        let mut text = format!("{} {} {}", question.name(), question.rtype, question.class);
        for (code, content) in exchange.request.options() {
            text += &format!(" {code}={content:?}");
        }
        self.asked.lock().unwrap().push(text);
        let (rcode, records) = (self.answer)(question);
        if rcode != Rcode::NOERROR && records.is_empty() {
            return Step::Fail(rcode);
        }
        let reply = exchange.answer();
        reply.rcode = rcode;
        for (section, record) in &records {
            reply.push(*section, record);
        }
        Step::Answered
    }

    fn answers_any_class(&self) -> bool {
        true
    }
}
