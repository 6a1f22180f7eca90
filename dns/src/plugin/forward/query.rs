//! The query that goes to an upstream, made from the client's.

use crate::wire::{Question, Request};

/// The UDP payload we take from upstreams, in bytes: what fits a packet anywhere (RFC 9715).
const UDP_PAYLOAD_BYTES: u16 = 1232;
const RD: u8 = 0x01;
const AD: u8 = 0x20;
const CD: u8 = 0x10;
const OPT: [u8; 3] = [0, 0, 41];
const DNSSEC_OK: u8 = 0x80;
/// EDNS options that are between a client and its server only: COOKIE (RFC 7873),
/// edns-tcp-keepalive (RFC 7828), Padding (RFC 7830).
const HOP_BY_HOP: [u16; 3] = [10, 11, 12];
/// Where the count of additional records is.
const ARCOUNT: std::ops::Range<usize> = 10..12;

/// A complete message that asks `question` as the client asked: its RD, AD, CD and DO, its
/// EDNS options where they are not meant for us alone, and our UDP payload size. The id is 0.
pub(super) fn build(question: &Question, request: &Request) -> Vec<u8> {
    let name = question.name().as_wire();
    let mut message = Vec::with_capacity(12 + name.len() + 4 + 11);
    let set = |wanted: bool, bit: u8| if wanted { bit } else { 0 };
    message.extend_from_slice(&[
        0,
        0,
        set(request.recursion_desired, RD),
        set(request.authentic_data, AD) | set(request.checking_disabled, CD),
    ]);
    message.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 1]);
    message.extend_from_slice(name);
    message.extend_from_slice(&question.rtype.0.to_be_bytes());
    message.extend_from_slice(&question.class.0.to_be_bytes());
    message.extend_from_slice(&OPT);
    message.extend_from_slice(&UDP_PAYLOAD_BYTES.to_be_bytes());
    message.extend_from_slice(&[0, 0, set(request.dnssec_ok(), DNSSEC_OK), 0]);
    let length_at = message.len();
    message.extend_from_slice(&[0, 0]);
    for (code, content) in request.options() {
        let Ok(length) = u16::try_from(content.len()) else {
            continue;
        };
        if !HOP_BY_HOP.contains(&code) {
            message.extend_from_slice(&code.to_be_bytes());
            message.extend_from_slice(&length.to_be_bytes());
            message.extend_from_slice(content);
        }
    }
    let options = message.len() - length_at - 2;
    let options = u16::try_from(options).unwrap_or_default().to_be_bytes();
    if let Some(place) = message.get_mut(length_at..length_at + 2) {
        place.copy_from_slice(&options);
    }
    message
}

/// The same query without OPT, for an upstream that does not know EDNS (RFC 6891 §6.2.2).
pub(super) fn without_edns(query: &[u8], question: &Question) -> Vec<u8> {
    let mut plain = query.to_vec();
    plain.truncate(12 + question.wire_len());
    if let Some(count) = plain.get_mut(ARCOUNT) {
        count.fill(0);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Intake, Name, Rtype};

    fn request(flags: [u8; 2], opt: &[u8]) -> Request {
        let mut packet = vec![9, 9, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, 0];
        packet[11] = u8::from(!opt.is_empty());
        packet.extend_from_slice(b"\x03wWw\x07example\x00\x00\x1c\x00\x01");
        packet.extend_from_slice(opt);
        let mut request = Request::new();
        assert_eq!(request.read(&packet), Intake::Query);
        request
    }

    const QUESTION: &[u8] = b"\x03wWw\x07example\x00\x00\x1c\x00\x01";

    #[test]
    fn a_client_without_edns_is_asked_for_with_our_size() {
        let request = request([1, 0], b"");
        let query = build(&request.question, &request);
        assert_eq!(query[..12], [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        assert_eq!(&query[12..29], QUESTION);
        assert_eq!(query[29..], [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        let plain = without_edns(&query, &request.question);
        assert_eq!(plain[..12], [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&plain[12..], QUESTION);
    }

    #[test]
    fn flags_and_do_are_the_client_s_and_the_size_is_not() {
        let request = request([0, 0x30], &[0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, 0]);
        let query = build(&request.question, &request);
        assert_eq!(query[2..4], [0, 0x30]);
        assert_eq!(query[29..], [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    }

    #[test]
    fn options_go_on_unless_they_are_for_us_alone() {
        let subnet = [0, 8, 0, 7, 0, 1, 24, 0, 192, 0, 2];
        let cookie = [0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
        let mut opt = vec![0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 23];
        opt.extend_from_slice(&cookie);
        opt.extend_from_slice(&subnet);
        let request = request([1, 0], &opt);
        let query = build(&request.question, &request);
        assert_eq!(query[38..40], [0, 11], "length of the options");
        assert_eq!(query[40..], subnet);
    }

    #[test]
    fn a_rewritten_question_is_the_one_asked() {
        let request = request([1, 0], b"");
        let other = Question::new(Name::from_text("other.example.").unwrap(), Rtype::A);
        let query = build(&other, &request);
        assert_eq!(&query[12..31], b"\x05other\x07example\x00\x00\x01\x00\x01");
    }
}
