//! DNS over a byte stream: each message after its length in two bytes (RFC 1035 §4.2.2).

/// How much is read at a time, at least.
const READ_BYTES: usize = 4096;
/// What an idle connection's buffer may keep.
const KEPT_BYTES: usize = 16 * 1024;
const PREFIX_BYTES: usize = 2;

/// Appends `query` as one frame with `id` in place of its own. False, and nothing appended, if
/// the message is shorter than its id or longer than 65,535 bytes.
pub(super) fn append_query(stream: &mut Vec<u8>, id: u16, query: &[u8]) -> bool {
    let (Ok(length), Some(rest)) = (u16::try_from(query.len()), query.get(2..)) else {
        return false;
    };
    stream.reserve(PREFIX_BYTES + query.len());
    stream.extend_from_slice(&length.to_be_bytes());
    stream.extend_from_slice(&id.to_be_bytes());
    stream.extend_from_slice(rest);
    true
}

/// Bytes received and not yet taken. Never longer than one message and one read.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    buffer: Vec<u8>,
}

impl Incoming {
    /// Where to read the next bytes to: append to it.
    pub(super) fn spare(&mut self) -> &mut Vec<u8> {
        self.buffer.reserve(READ_BYTES);
        &mut self.buffer
    }

    /// Hands over every complete message and keeps what follows the last one.
    pub(super) fn take_messages(&mut self, mut take: impl FnMut(&[u8])) {
        let mut at = 0;
        while let Some(message) = message_at(&self.buffer, at) {
            take(message);
            at += PREFIX_BYTES + message.len();
        }
        self.buffer.drain(..at);
        if self.buffer.is_empty() {
            self.buffer.shrink_to(KEPT_BYTES);
        }
    }
}

fn message_at(buffer: &[u8], at: usize) -> Option<&[u8]> {
    let prefix = buffer.get(at..at + PREFIX_BYTES)?;
    let length = usize::from(u16::from_be_bytes([prefix[0], prefix[1]]));
    buffer.get(at + PREFIX_BYTES..at + PREFIX_BYTES + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        assert!(append_query(&mut stream, 0x0102, b"xxfirst"));
        assert!(append_query(&mut stream, 0x0304, b"xx"));
        stream.extend_from_slice(&[0, 0]);
        assert!(append_query(&mut stream, 0x0506, b"xxlast"));
        let expected: [&[u8]; 4] = [b"\x01\x02first", b"\x03\x04", b"", b"\x05\x06last"];
        for step in 1..=stream.len() {
            let mut incoming = Incoming::default();
            let mut found: Vec<Vec<u8>> = Vec::new();
            for piece in stream.chunks(step) {
                incoming.spare().extend_from_slice(piece);
                incoming.take_messages(|message| found.push(message.to_vec()));
            }
            assert_eq!(found, expected, "in pieces of {step} bytes");
        }
    }

    #[test]
    fn a_message_too_long_for_its_prefix_is_refused() {
        let mut stream = Vec::new();
        assert!(!append_query(&mut stream, 1, &[0; 65_536]));
        assert!(!append_query(&mut stream, 1, &[0]));
        assert!(stream.is_empty());
    }
}
