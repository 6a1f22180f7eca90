//! What a datagram of the kernel says.

use netlink_packet_core::{ErrorBuffer, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer};

/// One of the kernel's answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer<'a> {
    /// A message of the protocol: its type and what follows `struct nlmsghdr`.
    Message { kind: u16, payload: &'a [u8] },
    /// A request was refused. `original` is our message as the kernel echoes it, cut to its
    /// header in most families.
    Refused {
        sequence: u32,
        code: i32,
        original: &'a [u8],
    },
}

/// Sequence numbers of the messages whose answers end an exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// Of the message whose refusal is one of all.
    pub(super) first: Option<u32>,
    /// Of the message that is answered last.
    pub(super) last: u32,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) finished: bool,
    pub(super) interrupted: bool,
    pub(super) refused_as_a_whole: bool,
}

pub(super) fn read_datagram(
    mut bytes: &[u8],
    ends: Ends,
    on_answer: &mut dyn FnMut(Answer<'_>) -> Result<(), String>,
) -> Result<Progress, String> {
    let mut progress = Progress::default();
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(|error| error.to_string())?;
        let length = usize::try_from(message.length()).map_err(|error| error.to_string())?;
        let sequence = message.sequence_number();
        progress.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        let payload = message.payload();
        match message.message_type() {
            NLMSG_DONE => {
                // A dump may end with an error of its own.
                if let Some(code) = negative_code(payload) {
                    on_answer(Answer::Refused {
                        sequence,
                        code,
                        original: &[],
                    })?;
                }
                progress.finished |= sequence == ends.last;
            }
            NLMSG_ERROR => {
                let error = ErrorBuffer::new_checked(payload).map_err(|error| error.to_string())?;
                if let Some(code) = negative_code(payload) {
                    let original = error.payload();
                    progress.refused_as_a_whole |= ends.first == Some(sequence);
                    on_answer(Answer::Refused {
                        sequence,
                        code,
                        original,
                    })?;
                }
                progress.finished |= sequence == ends.last;
            }
            kind => on_answer(Answer::Message { kind, payload })?,
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(progress)
}

/// The errno in front of an error or end-of-dump message, as a positive number.
fn negative_code(payload: &[u8]) -> Option<i32> {
    let code = payload
        .first_chunk::<4>()
        .copied()
        .map(i32::from_ne_bytes)?;
    (code < 0).then(|| code.saturating_neg())
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::messages::{any_attributes, damaged};
    use crate::writer::Writer;

    const LAST: Ends = Ends {
        first: None,
        last: 1,
    };

    /// Kinds of messages that are read each in its own way, and others.
    const KINDS: [u16; 5] = [0, NLMSG_ERROR, NLMSG_DONE, 4, 0x23];

    fn any_message() -> impl Strategy<Value = (u16, Vec<u8>)> {
        let kind = proptest::sample::select(&KINDS[..]);
        let code = proptest::option::of(any::<i32>());
        (kind, code, any_attributes()).prop_map(|(kind, code, attributes)| {
            let code = code.map(i32::to_ne_bytes).unwrap_or_default();
            (kind, [&code[..], &attributes].concat())
        })
    }

    fn written(messages: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut writer = Writer::new();
        for (sequence, (kind, payload)) in (1..).zip(messages) {
            writer.plain_message(*kind, 0, sequence, |writer| {
                writer.fixed(payload);
                let padding = payload.len().next_multiple_of(4) - payload.len();
                writer.fixed(&vec![0; padding]);
            });
        }
        writer.bytes().unwrap().to_vec()
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(
            bytes in vec(any_message(), 0..5).prop_flat_map(|messages| damaged(written(&messages)))
        ) {
            let _ = read_datagram(&bytes, LAST, &mut |_| Ok(()));
        }

        #[test]
        fn messages_are_handed_on_one_by_one(
            payloads in vec(any_attributes(), 1..5)
        ) {
            let messages: Vec<_> = payloads.iter().map(|bytes| (0x23, bytes.clone())).collect();
            let mut heard = Vec::new();
            let progress = read_datagram(&written(&messages), LAST, &mut |answer| {
                if let Answer::Message { kind: 0x23, payload } = answer {
                    heard.push(payload.to_vec());
                }
                Ok(())
            });
            prop_assert_eq!(progress, Ok(Progress::default()));
            prop_assert_eq!(heard.len(), payloads.len());
            for (heard, sent) in heard.iter().zip(&payloads) {
                prop_assert!(heard.starts_with(sent));
            }
        }
    }
}
