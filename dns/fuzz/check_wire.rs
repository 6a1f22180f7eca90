//! What must hold for any bytes that arrive as a query, and as an upstream's reply. Used by
//! the fuzz target `wire` and, over its kept corpus, by an ordinary test.

use switchyard_dns::wire::{HEADER_OCTETS, Intake, Name, Question, Reply, Request, Rtype};

/// Panics if something that must hold does not.
pub(crate) fn check(bytes: &[u8]) {
    let mut request = Request::new();
    let intake = request.read(bytes);
    assert!(intake != Intake::Silent || bytes.len() < HEADER_OCTETS || bytes[2] & 0x80 != 0);
    assert_eq!(request.octets(), bytes);
    let options: usize = request
        .options()
        .map(|(_, content)| content.len() + 4)
        .sum();
    assert!(options <= bytes.len());
    let _serial = request.ixfr_serial();
    let question = match request.readable_question() {
        Some(question) => question.clone(),
        None => Question::new(Name::ROOT, Rtype::A),
    };
    let mut reply = Reply::default();
    if reply.take_message(&question, bytes).is_err() {
        reply.begin(&question);
    }
    let records = reply.records();
    assert!(records.is_ok(), "what was taken over can be read");
    let answer = records.map(|records| records.answer).unwrap_or_default();
    for limit in [512, 1232, 65_535] {
        let mut cut = reply.clone();
        cut.finish(&request, limit);
        let octets = cut.octets();
        assert!(octets.len() <= limit, "{} of {limit} octets", octets.len());
        let mut again = Reply::default();
        assert_eq!(
            again.take_message(&question, octets),
            Ok(()),
            "our own message"
        );
        let again = again.records().map(|records| records.answer);
        assert!(
            again.is_ok_and(|again| answer.starts_with(&again)),
            "an answer has changed"
        );
    }
}
