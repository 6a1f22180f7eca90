use super::*;
use crate::wire::{Intake, Record};

fn name(text: &str) -> Name {
    Name::from_text(text).expect(text)
}

fn address(owner: &str, last: u8) -> Record {
    Record::new(name(owner), Rtype::A, 30, vec![10, 0, 0, last])
}

/// A query for `text`, with an OPT of this size where one is given.
fn request(text: &str, rtype: Rtype, edns: Option<u16>) -> Request {
    let mut packet = vec![
        0x12,
        0x34,
        0x01,
        0x00,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(edns.is_some()),
    ];
    packet.extend_from_slice(name(text).as_wire());
    packet.extend_from_slice(&rtype.0.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    if let Some(size) = edns {
        packet.extend_from_slice(&[0, 0, 41]);
        packet.extend_from_slice(&size.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0x80, 0, 0, 0]);
    }
    let mut request = Request::new();
    assert_eq!(request.read(&packet), Intake::Query);
    request
}

fn counts(message: &[u8]) -> [u16; 4] {
    [4, 6, 8, 10].map(|at| u16_at(message, at).expect("a header"))
}

const TC: u16 = 0x0200;

#[test]
fn names_that_were_there_before_become_pointers() {
    let request = request("web.ns.svc.cluster.local.", Rtype::CNAME, None);
    let mut reply = Reply::default();
    reply.begin(&request.question);
    let question = reply.octets().len();
    let cname = Record::cname(
        name("web.ns.svc.cluster.local."),
        5,
        &name("other.ns.svc.cluster.local."),
    );
    reply.push(Section::Answer, &cname);
    // Owner: a pointer. Target: one label and a pointer.
    assert_eq!(reply.octets().len(), question + 2 + 10 + 6 + 2);
    reply.push(Section::Answer, &address("other.ns.svc.cluster.local.", 1));
    assert_eq!(reply.octets().len(), question + 20 + 16);
    let records = reply.records().expect("our own");
    assert_eq!(
        records.answer,
        [cname, address("other.ns.svc.cluster.local.", 1)]
    );
}

#[test]
fn the_targets_of_srv_records_are_written_out() {
    let request = request("_p._tcp.web.", Rtype::SRV, None);
    let mut reply = Reply::default();
    reply.begin(&request.question);
    let data = [&[0, 0, 0, 100, 0, 80][..], name("web.").as_wire()].concat();
    let record = Record::new(name("_p._tcp.web."), Rtype::SRV, 5, data.clone());
    reply.push(Section::Answer, &record);
    assert!(reply.octets().ends_with(&data));
}

#[test]
fn what_does_not_fit_is_cut_at_a_record_and_opt_stays() {
    let request = request("web.", Rtype::A, Some(512));
    let mut reply = Reply::default();
    reply.begin(&request.question);
    for last in 0..100 {
        reply.push(Section::Answer, &address("web.", last));
    }
    reply.finish(&request, request.reply_limit());
    let message = reply.octets();
    // 12 + 9 of header and question, 11 of OPT, 16 each.
    assert_eq!(message.len(), 12 + 9 + 30 * 16 + 11);
    assert_eq!(counts(message), [1, 30, 0, 1]);
    assert_eq!(u16_at(message, 2).expect("flags") & TC, TC);
    assert_eq!(message[message.len() - 11..message.len() - 8], [0, 0, 41]);
}

#[test]
fn an_additional_record_that_does_not_fit_sets_tc_as_well() {
    let request = request("web.", Rtype::A, None);
    let mut reply = Reply::default();
    reply.begin(&request.question);
    reply.push(Section::Answer, &address("web.", 1));
    reply.push(
        Section::Additional,
        &Record::new(name("web."), Rtype::TXT, 5, vec![7; 480]),
    );
    reply.finish(&request, 512);
    assert_eq!(counts(reply.octets()), [1, 1, 0, 0]);
    assert_eq!(u16_at(reply.octets(), 2).expect("flags") & TC, TC);
}

#[test]
fn dnssec_ok_is_echoed_and_the_size_is_ours() {
    let request = request("web.", Rtype::A, Some(4096));
    let mut reply = Reply::default();
    reply.begin_with(&request.question, Rcode(16));
    reply.ede = Some((EdeCode::NETWORK_ERROR, "ü".repeat(150)));
    reply.finish(&request, 4096);
    let message = reply.octets();
    assert_eq!(u16_at(message, 0), Some(0x1234));
    assert_eq!(message[3] & 0xF, 0, "the low half of BADVERS");
    let opt = &message[21..];
    assert_eq!(opt[..11], [0, 0, 41, 4, 208, 1, 0, 0x80, 0, 0, 206]);
    assert_eq!(opt[11..17], [0, 15, 0, 202, 0, 23]);
    assert_eq!(opt[17..], *"ü".repeat(100).as_bytes());
}

#[test]
fn a_message_of_somebody_else_is_taken_over_without_its_opt() {
    let asked = request("Web.Example.", Rtype::A, None);
    let mut theirs = Reply::default();
    theirs.begin(&asked.question);
    theirs.push(
        Section::Answer,
        &Record::cname(name("Web.Example."), 9, &name("b.example.")),
    );
    theirs.push(Section::Answer, &address("b.example.", 1));
    theirs.rcode = Rcode::NXDOMAIN;
    theirs.recursion_available = true;
    theirs.finish(&request("web.example.", Rtype::A, Some(1400)), 65_535);
    let mut ours = Reply::default();
    ours.take_message(&asked.question, theirs.octets())
        .expect("well-formed");
    assert_eq!(
        (ours.rcode, ours.recursion_available),
        (Rcode::NXDOMAIN, true)
    );
    assert_eq!(ours.records(), theirs.records());
    assert_eq!(ours.count(Section::Additional), 0);
    assert!(
        ours.take_message(&asked.question, &theirs.octets()[..30])
            .is_err()
    );
}

#[test]
fn only_records_nothing_points_into_may_change_places() {
    let asked = request("web.", Rtype::A, None);
    let mut reply = Reply::default();
    reply.begin(&asked.question);
    reply.push(
        Section::Answer,
        &Record::cname(name("web."), 5, &name("b.")),
    );
    reply.push(Section::Answer, &address("b.", 1));
    reply.push(Section::Answer, &address("b.", 2));
    reply.push(Section::Authority, &address("b.", 3));
    let (start, length, number) = reply.same_shape_run(Section::Answer).expect("two");
    assert_eq!((length, number), (16, 2));
    assert_eq!(
        reply.octets()[start..start + 2],
        [0xC0, 33],
        "owned by the CNAME's target"
    );
    reply.begin(&asked.question);
    reply.push(Section::Answer, &address("elsewhere.", 1));
    assert_eq!(reply.same_shape_run(Section::Answer), None);
}
