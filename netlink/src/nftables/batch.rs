//! Changes as the messages of one transaction.

use std::ops::Range;

use netlink_packet_core::{NLM_F_ACK, NLM_F_ECHO, NLM_F_REQUEST};

use super::change::Change;
use super::error::NftError;
use super::numbers::{BATCH_BEGIN, BATCH_END, BATCH_GENERATION, SUBSYSTEM, element};
use super::table::TableId;
use crate::nft_generation::Generation;
use crate::transport::Span;
use crate::writer::{MessageHead, Writer};

/// Most bytes of the elements in one message. The length of the attribute around them has 16
/// bits.
const ELEMENTS_BYTES_MAX: usize = 65_000;

/// A transaction in the form in which it is sent.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) writer: Writer,
    /// All messages, in order.
    pub(super) messages: Vec<Message>,
    pub(super) span: Span,
}

/// How a transaction is to be made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms {
    /// Only if this is the present generation.
    pub(super) expected: Option<Generation>,
    /// Not at all: the kernel looks at all changes, and takes them back where no
    /// `NFNL_MSG_BATCH_END` follows.
    pub(super) only_check: bool,
}

/// A message within a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    /// Where it begins.
    pub(super) start: usize,
    /// Which change it is of.
    pub(super) change: usize,
    /// The first of the change's elements in it.
    pub(super) first_element: usize,
}

impl Batch {
    /// `sequences` gives the first of so many numbers in a row.
    pub(super) fn of(
        table: &TableId,
        changes: &[Change],
        terms: Terms,
        sequences: impl FnOnce(u32) -> u32,
    ) -> Self {
        let mut writer = Writer::new();
        write_begin(&mut writer, terms.expected);
        let mut messages = Vec::with_capacity(changes.len());
        for (at, change) in changes.iter().enumerate() {
            write_change(&mut writer, table, change, at, &mut messages);
        }
        let count = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        let first = sequences(count.saturating_add(2));
        let last = first.saturating_add(count);
        for (sequence, message) in (first..).skip(1).zip(&messages) {
            writer.set_sequence(message.start, sequence);
        }
        writer.set_sequence(0, first);
        if let Some(message) = messages.last() {
            writer.add_flags(message.start, NLM_F_ACK);
        }
        // The kernel looks at the first message alone for whether the notice of the new
        // generation goes to us, too; notices of what that message did come with it.
        if let (Some(message), true) = (messages.first(), changes.first().is_some_and(is_small)) {
            writer.add_flags(message.start, NLM_F_ECHO);
        }
        if !terms.only_check {
            let end = last.saturating_add(1);
            writer.batch_message(BATCH_END, NLM_F_REQUEST, end, SUBSYSTEM, |_| {});
        }
        Self {
            writer,
            messages,
            span: Span { first, last },
        }
    }

    /// The message with this sequence number, and its bytes.
    pub(super) fn message(&self, sequence: u32) -> Option<(Message, &[u8])> {
        let at = sequence.checked_sub(self.span.first)?.checked_sub(1)?;
        let at = usize::try_from(at).ok()?;
        let message = *self.messages.get(at)?;
        let bytes = self.writer.bytes()?.get(message.start..)?;
        Some((message, bytes))
    }
}

fn write_begin(writer: &mut Writer, expected: Option<Generation>) {
    writer.batch_message(BATCH_BEGIN, NLM_F_REQUEST, 0, SUBSYSTEM, |writer| {
        if let Some(Generation(id)) = expected {
            writer.u32_be(BATCH_GENERATION, id);
        }
    });
}

/// Whether what a change does can be told in about as much as the change itself takes.
const fn is_small(change: &Change) -> bool {
    !matches!(
        change,
        Change::DeleteTable | Change::FlushChain(_) | Change::FlushSet(_)
    )
}

/// One message, or as many as its elements need; none for no elements.
fn write_change(
    writer: &mut Writer,
    table: &TableId,
    change: &Change,
    at: usize,
    messages: &mut Vec<Message>,
) {
    let (command, flags) = change.command();
    let head = MessageHead {
        subsystem: SUBSYSTEM,
        command,
        flags: NLM_F_REQUEST | flags,
        sequence: 0,
        family: table.family.number(),
    };
    let id = u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1);
    let elements = change.elements();
    if elements.is_empty() && change.is_of_elements() {
        return; // without elements, a message that deletes some would delete all
    }
    let mut first_element = 0;
    loop {
        messages.push(Message {
            start: writer.len(),
            change: at,
            first_element,
        });
        let rest = elements.get(first_element..).unwrap_or_default();
        writer.message(&head, |writer| {
            change.write(writer, table, id);
            if rest.is_empty() {
                return;
            }
            writer.nest(element::LIST_ELEMENTS, |writer| {
                let start = writer.len();
                for (count, element) in rest.iter().enumerate() {
                    let before = writer.len();
                    element.write(writer);
                    if writer.len() - start > ELEMENTS_BYTES_MAX && count > 0 {
                        writer.take_back_to(before);
                        break;
                    }
                    first_element += 1;
                }
            });
        });
        if first_element >= elements.len() {
            return;
        }
    }
}

/// Divides changes into the fewest transactions of at most `bytes_max`, each as long as it
/// can be; `may_begin` says of which changes one may begin at. The first always begins one.
///
/// # Errors
/// [`NftError::TooLarge`] if a part that may not be divided is larger.
pub fn split(
    table: &TableId,
    changes: &[Change],
    bytes_max: usize,
    mut may_begin: impl FnMut(usize) -> bool,
) -> Result<Vec<Range<usize>>, NftError> {
    let batch = Batch::of(table, changes, Terms::default(), |_| 1);
    let start_of = |change: usize| {
        let at = batch
            .messages
            .partition_point(|message| message.change < change);
        batch.messages.get(at).map(|message| message.start)
    };
    let total = batch.writer.len();
    let frame = start_of(0).unwrap_or(total) + END_BYTES;
    let bytes = |range: &Range<usize>| {
        let end = start_of(range.end).unwrap_or(total - END_BYTES);
        end - start_of(range.start).unwrap_or(end) + frame
    };
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut part = 0..0;
    for at in 1..=changes.len() {
        if at < changes.len() && !may_begin(at) {
            continue;
        }
        if part.end > part.start && bytes(&(part.start..at)) > bytes_max {
            parts.push(part.clone());
            part.start = part.end;
        }
        part.end = at;
        if bytes(&part) > bytes_max {
            return Err(NftError::TooLarge {
                table: table.to_string(),
                bytes: bytes(&part),
                bytes_max,
            });
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    Ok(parts)
}

/// `NFNL_MSG_BATCH_END`: `struct nlmsghdr` and `struct nfgenmsg`.
const END_BYTES: usize = 20;

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::nftables::{Data, Element, Field};

    fn table() -> TableId {
        TableId::new(crate::Family::V4, "t")
    }

    fn flushes(count: usize) -> Vec<Change> {
        vec![Change::FlushChain("c".into()); count]
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_transaction_as_bytes() {
        let terms = Terms {
            expected: Some(Generation(258)),
            only_check: false,
        };
        let batch = Batch::of(&table(), &flushes(1), terms, |_| 7);
        let expected = [
            28, 0, 0, 0, 16, 0, 1, 0, 7, 0, 0, 0, 0, 0, 0, 0, // begin
            0, 0, 0, 10, 8, 0, 1, 0, 0, 0, 1, 2, // of nf_tables, generation 258
            36, 0, 0, 0, 8, 10, 5, 0, 8, 0, 0, 0, 0, 0, 0, 0, // acknowledged
            2, 0, 0, 0, 6, 0, 1, 0, b't', 0, 0, 0, 6, 0, 2, 0, b'c', 0, 0, 0, //
            20, 0, 0, 0, 17, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, // end
        ];
        assert_eq!(batch.writer.bytes(), Some(&expected[..]));
        assert_eq!((batch.span.first, batch.span.last), (7, 8));
        let (message, bytes) = batch.message(8).unwrap();
        assert_eq!((message.change, bytes.len()), (0, 56));
        assert!(batch.message(7).is_none() && batch.message(9).is_none());
    }

    #[test]
    fn many_elements_take_several_messages_of_one_change() {
        let keys = (0..10_000).map(|number| Data::of(Field::Number(number)));
        let change = Change::AddElements {
            set: "s".into(),
            elements: keys.map(Element::new).collect(),
        };
        let batch = Batch::of(&table(), &[change], Terms::default(), |_| 1);
        assert!(batch.writer.bytes().is_some());
        let firsts: Vec<_> = batch.messages.iter().map(|one| one.first_element).collect();
        assert_eq!(firsts, [0, 4062, 8124]);
        assert!(batch.messages.iter().all(|message| message.change == 0));
    }

    #[test]
    fn no_elements_are_no_message() {
        let (set, elements) = ("s".into(), Vec::new());
        let change = Change::DeleteElements { set, elements };
        let batch = Batch::of(&table(), &[change], Terms::default(), |_| 1);
        assert_eq!(batch.messages.len(), 0);
        let batch = Batch::of(
            &table(),
            &[Change::FlushSet("s".into())],
            Terms::default(),
            |_| 1,
        );
        assert_eq!(batch.messages.len(), 1);
    }

    #[test]
    fn parts_are_as_long_as_they_may_be_and_begin_where_they_may() {
        let changes = flushes(7); // of 36 bytes each, in a frame of 40
        let split = |bytes_max, step| split(&table(), &changes, bytes_max, |at| at % step == 0);
        let cases: [(usize, usize, &[Range<usize>]); 4] = [
            (292, 3, slice::from_ref(&(0..7))),
            (291, 3, &[0..6, 6..7]),
            (150, 3, &[0..3, 3..6, 6..7]),
            (112, 1, &[0..2, 2..4, 4..6, 6..7]),
        ];
        for (bytes_max, step, parts) in cases {
            assert_eq!(split(bytes_max, step).unwrap(), parts);
        }
        let NftError::TooLarge { bytes, .. } = split(147, 3).unwrap_err() else {
            panic!("another error");
        };
        assert_eq!(bytes, 148);
        assert_eq!(super::split(&table(), &[], 1, |_| true).unwrap(), []);
    }
}
