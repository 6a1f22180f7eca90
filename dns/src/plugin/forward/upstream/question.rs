//! Which reply answers which query, on raw messages (RFC 1035 §4.1, RFC 5452 §9.1).

/// Length of a message's header in bytes.
pub(super) const HEADER_BYTES: usize = 12;
/// The longest name in wire form, its root label included (RFC 1035 §2.3.4).
const NAME_BYTES_MAX: usize = 255;
/// Type and class after the name.
const TYPE_AND_CLASS_BYTES: usize = 4;
/// The longest label; larger length bytes are compression pointers or reserved.
const LABEL_BYTES_MAX: u8 = 63;
/// QR bit and opcode in a header's third byte.
const QR_AND_OPCODE: u8 = 0b1111_1000;
/// What they are in a reply to a QUERY.
const QR_SET_OPCODE_QUERY: u8 = 0b1000_0000;

/// Why a message is not taken as the reply to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ignored {
    /// Shorter than a header, or its question cannot be read.
    Malformed,
    /// The QR bit is clear, or the opcode is another.
    NotAReply,
    /// No query with this id waits: a late reply, or a guess.
    Id,
    /// The question is another one.
    Question,
}

impl Ignored {
    /// The value of the metric's label `reason`.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotAReply => "not_a_reply",
            Self::Id => "id",
            Self::Question => "question",
        }
    }
}

/// The question's bytes (name, type and class) in a query; `None` unless `message` is a query
/// with exactly one question and an uncompressed name.
pub(super) fn question_of(message: &[u8]) -> Option<&[u8]> {
    let header = message.get(..HEADER_BYTES)?;
    if header[2] & QR_AND_OPCODE != 0 || header[4..6] != [0, 1] {
        return None;
    }
    message.get(HEADER_BYTES..question_end(message)?)
}

/// Where the first question of a message ends, in bytes from its start; `None` if it is cut off
/// or its name is compressed.
pub(super) fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER_BYTES;
    loop {
        let length = *message.get(at)?;
        if length > LABEL_BYTES_MAX {
            return None;
        }
        at += 1 + usize::from(length);
        if at > HEADER_BYTES + NAME_BYTES_MAX {
            return None;
        }
        if length == 0 {
            let end = at + TYPE_AND_CLASS_BYTES;
            return (end <= message.len()).then_some(end);
        }
    }
}

/// The id of a message that is long enough and says it is a reply.
pub(super) fn reply_id(message: &[u8]) -> Result<u16, Ignored> {
    let header = message.get(..HEADER_BYTES).ok_or(Ignored::Malformed)?;
    if header[2] & QR_AND_OPCODE != QR_SET_OPCODE_QUERY {
        return Err(Ignored::NotAReply);
    }
    Ok(u16::from_be_bytes([header[0], header[1]]))
}

/// Whether a reply repeats `question`: type and class exactly, the name in any case.
///
/// A first name has nothing before it that a pointer could name, so it must be uncompressed; and
/// no length byte is an ASCII letter, so comparing the whole name without case is exact.
pub(super) fn repeats_question(reply: &[u8], question: &[u8]) -> Result<(), Ignored> {
    let Some(header) = reply.get(..HEADER_BYTES) else {
        return Err(Ignored::Malformed);
    };
    if header[4..6] != [0, 1] {
        return Err(Ignored::Question);
    }
    let Some(theirs) = reply.get(HEADER_BYTES..HEADER_BYTES + question.len()) else {
        return Err(Ignored::Malformed);
    };
    let name_end = question.len().saturating_sub(TYPE_AND_CLASS_BYTES);
    let same = theirs[..name_end].eq_ignore_ascii_case(&question[..name_end])
        && theirs[name_end..] == question[name_end..];
    if same { Ok(()) } else { Err(Ignored::Question) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(b"\x03www\x07example\x00\x00\x01\x00\x01");
        message
    }

    fn reply() -> Vec<u8> {
        let mut message = query();
        message[2] |= 0x80;
        message
    }

    #[test]
    fn the_question_is_the_name_with_type_and_class() {
        let query = query();
        assert_eq!(question_of(&query).unwrap(), &query[12..]);
        let mut with_more = query.clone();
        with_more.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        assert_eq!(question_of(&with_more).unwrap(), &query[12..]);
    }

    #[test]
    fn what_is_no_query_has_no_question() {
        let good = query();
        for length in 0..good.len() {
            assert_eq!(question_of(&good[..length]), None, "cut at {length}");
        }
        assert_eq!(question_of(&reply()), None, "a reply");
        let mut two = query();
        two[5] = 2;
        assert_eq!(question_of(&two), None, "two questions");
        let mut pointer = query();
        pointer[12] = 0xc0;
        assert_eq!(question_of(&pointer), None, "a pointer");
        let mut long = good[..12].to_vec();
        for _ in 0..5 {
            long.push(63);
            long.extend_from_slice(&[b'a'; 63]);
        }
        long.extend_from_slice(&[0, 0, 1, 0, 1]);
        assert_eq!(question_of(&long), None, "a name of 321 bytes");
    }

    #[test]
    fn a_reply_repeats_the_question_in_any_case() {
        let query = query();
        let question = question_of(&query).unwrap();
        let mut shouting = reply();
        shouting[13..16].copy_from_slice(b"WwW");
        assert_eq!(repeats_question(&shouting, question), Ok(()));
        assert_eq!(reply_id(&shouting), Ok(0x1234));
    }

    #[test]
    fn another_name_type_class_or_count_is_another_question() {
        let query = query();
        let question = question_of(&query).unwrap();
        let end = query.len();
        for at in [13, end - 3, end - 1, 5] {
            let mut other = reply();
            other[at] ^= 4;
            assert_eq!(
                repeats_question(&other, question),
                Err(Ignored::Question),
                "byte {at}"
            );
        }
        assert_eq!(
            repeats_question(&reply()[..20], question),
            Err(Ignored::Malformed)
        );
        assert_eq!(reply_id(&query), Err(Ignored::NotAReply));
        assert_eq!(reply_id(&query[..11]), Err(Ignored::Malformed));
    }
}
