//! A relay between a server and its API server that notes when bytes went through: that tells
//! when a list had arrived.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;

use super::cpus::{Cpus, Role};

/// Chunks whose times are kept; later ones are relayed but not noted.
const NOTES_CAPACITY: usize = 200_000;
const CHUNK_BYTES: usize = 64 << 10;
/// The list has arrived once this share of all bytes has (per mille): what comes after it are
/// bookmarks and the heads of watches.
const LIST_PER_MILLE: usize = 999;

type Notes = Arc<Mutex<Vec<(Instant, usize)>>>;

/// The relay. Its threads end with the connections, its listener with the process.
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    notes: Notes,
}

impl Relay {
    /// Listens on loopback and passes all on to `to`.
    pub(super) fn start(cpus: Cpus, to: SocketAddr) -> Result<Self> {
        cpus.pin(Role::Load)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let notes = Notes::default();
        let noted = Arc::clone(&notes);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that fails is the client's to open again.
                drop(relay(stream, to, &noted));
            }
        });
        Ok(Self { address, notes })
    }

    /// When the list had arrived of what has come so far, and how many bytes it had.
    pub(super) fn list_arrived(&self) -> Option<(Instant, usize)> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        list_arrived(&notes)
    }
}

fn list_arrived(notes: &[(Instant, usize)]) -> Option<(Instant, usize)> {
    let total: usize = notes.iter().map(|(_, bytes)| bytes).sum();
    let mut sum = 0;
    notes.iter().find_map(|(at, bytes)| {
        sum += bytes;
        (sum * 1000 >= total * LIST_PER_MILLE).then_some((*at, total))
    })
}

fn relay(client: TcpStream, to: SocketAddr, notes: &Notes) -> Result<()> {
    let server = TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from, to) = (client.try_clone()?, server.try_clone()?);
    let notes = Arc::clone(notes);
    std::thread::spawn(move || copy(from, to, |_| {}));
    std::thread::spawn(move || {
        copy(server, client, |bytes| {
            let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
            if notes.len() < NOTES_CAPACITY {
                notes.push((Instant::now(), bytes));
            }
        });
    });
    Ok(())
}

fn copy(mut from: TcpStream, mut to: TcpStream, noted: impl Fn(usize)) {
    let mut buffer = vec![0; CHUNK_BYTES];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        noted(length);
        let chunk = buffer.get(..length).unwrap_or_default();
        if to.write_all(chunk).is_err() {
            break;
        }
    }
    // Either side may have gone first.
    drop(to.shutdown(Shutdown::Both));
    drop(from.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_comes_after_the_list_does_not_count() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let notes = [(at(1), 500_000), (at(2), 500_000), (at(900), 200)];
        assert_eq!(list_arrived(&notes), Some((at(2), 1_000_200)));
        assert_eq!(list_arrived(&[]), None);
    }
}
