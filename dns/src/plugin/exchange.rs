use std::any::Any;

use crate::wire::{EdeCode, Question, Rcode, Reply, Request};

/// One query on its way down a chain and its reply on the way up. Reused: for what is
/// answered from memory nothing is allocated.
#[derive(Debug, Default)]
pub struct Exchange {
    /// The query as it came.
    pub request: Request,
    /// What is asked now: plugins may rewrite it, and then must put the reply right.
    pub question: Question,
    /// The reply, begun by whoever answers.
    pub reply: Reply,
    /// What follows the reply in a zone transfer, over streams only.
    pub more: Vec<Reply>,
    /// Who answered; `""` if nobody did and the server made the reply from a code.
    pub answered_by: &'static str,
    /// Nobody answered: the reply is a bare code from the server ([`super::Step::Fail`]).
    pub failed: bool,
    /// What went wrong, for the `errors` plugin.
    pub error: Option<String>,
    /// How many questions of ours deep this one is: see [`super::Position::resolve`].
    pub(crate) depth: u8,
    notes: Vec<(usize, Box<dyn Any + Send + Sync>)>,
}

impl Exchange {
    /// Makes it ready for the query that [`Request::read`] has just taken in.
    pub fn begin(&mut self) {
        self.question.set(&self.request.question);
        self.clear();
        self.depth = 0;
    }

    /// Forgets reply and notes, for another try with the same or another question.
    pub fn clear(&mut self) {
        self.answered_by = "";
        self.failed = false;
        self.error = None;
        self.reply.ede = None;
        self.more.clear();
        self.notes.clear();
    }

    /// A new exchange that asks `question` on behalf of this one: same client, same flags.
    #[must_use]
    pub fn asking(&self, question: &Question) -> Self {
        Self {
            request: Request::for_question(question, &self.request),
            question: question.clone(),
            depth: self.depth,
            ..Self::default()
        }
    }

    /// Begins an empty NOERROR answer to the question as it is now.
    pub fn answer(&mut self) -> &mut Reply {
        self.reply.begin(&self.question);
        &mut self.reply
    }

    /// Makes the reply a bare code in answer to what was asked at first.
    pub(crate) fn fail(&mut self, rcode: Rcode) {
        let ede = self.reply.ede.take();
        self.reply.begin_with(&self.request.question, rcode);
        self.reply.ede = ede;
        self.failed = true;
        self.answered_by = "";
    }

    /// Says why there will be no better answer: for clients (RFC 8914) and the log.
    pub fn explain(&mut self, code: EdeCode, reason: impl Into<String>) {
        let reason = reason.into();
        self.error = Some(reason.clone());
        self.reply.ede = Some((code, reason));
    }

    /// Leaves something for this plugin's way up. `index` is [`super::Position::index`].
    pub fn note<T: Any + Send + Sync>(&mut self, index: usize, note: T) {
        self.notes.push((index, Box::new(note)));
    }

    /// Takes what [`Exchange::note`] left.
    pub fn take_note<T: Any>(&mut self, index: usize) -> Option<T> {
        let mut notes = self.notes.iter();
        let at = notes.position(|(by, note)| *by == index && note.is::<T>())?;
        let (_, note) = self.notes.swap_remove(at);
        note.downcast().ok().map(|note| *note)
    }
}
