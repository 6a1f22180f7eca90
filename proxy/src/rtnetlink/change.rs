//! Changing what the kernel's routing has: many requests at once, each acknowledged.

use std::io;

use netlink_packet_core::parse_i32;
use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;

use super::{ERROR_CODE_BYTES, RECEIVE_BUFFER_BYTES, RtnetlinkError, open_for_list};

/// Requests sent at once. Each is answered by an acknowledgement, or an error that repeats it,
/// of about 1 KiB of socket memory; the default receive buffer takes 208 KiB.
const REQUESTS_PER_SEND_MAX: usize = 100;

/// A request that was refused.
#[derive(Debug)]
pub struct Refused {
    /// Which of the requests it was.
    pub index: usize,
    /// What the kernel said.
    pub error: io::Error,
}

/// Sends all requests, with these flags beside `NLM_F_REQUEST`, in the network namespace of the
/// calling thread, and waits for their answers. One that is refused stops none of the others;
/// these are returned, in order. `subject` is what they are about, for errors.
///
/// # Errors
/// [`RtnetlinkError`], if the kernel cannot be asked. How many requests were carried out is not
/// known then.
pub fn change(
    subject: &'static str,
    requests: &[RouteNetlinkMessage],
    flags: u16,
) -> Result<Vec<Refused>, RtnetlinkError> {
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let socket = open_for_list().map_err(|source| RtnetlinkError::Open { subject, source })?;
    let mut refused = Vec::new();
    for (batch, part) in requests.chunks(REQUESTS_PER_SEND_MAX).enumerate() {
        let first = batch * REQUESTS_PER_SEND_MAX;
        let answers = send(&socket, part, flags)
            .map_err(|source| RtnetlinkError::Change { subject, source })?;
        refused.extend(answers.into_iter().map(|(index, error)| Refused {
            index: first + index,
            error,
        }));
    }
    Ok(refused)
}

fn send(
    socket: &Socket,
    requests: &[RouteNetlinkMessage],
    flags: u16,
) -> io::Result<Vec<(usize, io::Error)>> {
    let mut bytes = Vec::new();
    for (index, request) in requests.iter().enumerate() {
        let mut message = NetlinkMessage::from(request.clone());
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        message.header.sequence_number = sequence_of(index);
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        if let Some(place) = bytes.get_mut(start..) {
            message.serialize(place);
        }
    }
    socket.send(&bytes, 0)?;
    let mut refused = Vec::new();
    let mut answered = 0;
    let mut buffer = vec![0; RECEIVE_BUFFER_BYTES];
    while answered < requests.len() {
        let length = match socket.recv(&mut buffer.as_mut_slice(), 0) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        answered += read_answers(buffer.get(..length).unwrap_or_default(), &mut refused)?;
    }
    Ok(refused)
}

/// The request at an index; 0 would be a notice.
fn sequence_of(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1)
}

/// How many requests a datagram answers.
fn read_answers(mut bytes: &[u8], refused: &mut Vec<(usize, io::Error)>) -> io::Result<usize> {
    let malformed = |detail| io::Error::new(io::ErrorKind::InvalidData, detail);
    let mut answered = 0;
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(malformed)?;
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        if message.message_type() == NLMSG_ERROR {
            let code = message.payload().get(..ERROR_CODE_BYTES);
            let code = parse_i32(code.unwrap_or_default()).map_err(malformed)?;
            let index = usize::try_from(message.sequence_number().saturating_sub(1));
            if code != 0 {
                let error = io::Error::from_raw_os_error(code.saturating_neg());
                refused.push((index.unwrap_or(usize::MAX), error));
            }
            answered += 1;
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(sequence: u32, code: i32) -> Vec<u8> {
        let mut bytes = 36_u32.to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(code.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes
    }

    #[test]
    fn acknowledgements_are_counted_and_refusals_kept() {
        let mut bytes = answer(1, 0);
        bytes.extend(answer(2, -nix::libc::EEXIST));
        bytes.extend(answer(3, 0));
        let mut refused = Vec::new();
        assert_eq!(read_answers(&bytes, &mut refused).unwrap(), 3);
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0].0, 1);
        assert_eq!(refused[0].1.raw_os_error(), Some(nix::libc::EEXIST));
        assert!(read_answers(&bytes[..20], &mut refused).is_err());
    }
}
