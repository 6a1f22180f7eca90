//! Echo servers, and the thread with the runtime on which all sockets of a testbed are used.
//!
//! Protocol: for each line (TCP) or datagram (UDP) the server answers one line
//! `<place> <own address:port> <source it saw> <bytes received>`.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::namespace::Namespace;
use super::place::{Place, Protocol};

/// The largest line or datagram a server takes, in bytes.
const MAX_REQUEST_BYTES: usize = 65_536;

/// The runtime's thread.
pub(super) struct Engine {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    pub(super) fn start() -> Result<Self> {
        let (stop, stopped) = oneshot::channel::<()>();
        let (send, receive) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("testbed-io".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => {
                        drop(send.send(Ok(runtime.handle().clone())));
                        // Ends when the sender is dropped or used.
                        drop(runtime.block_on(stopped));
                        runtime.shutdown_background();
                    }
                    Err(error) => drop(send.send(Err(error))),
                }
            })?;
        let handle = receive.recv().context("the I/O thread died")??;
        Ok(Self {
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(super) fn stop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }

    /// Runs a future on the I/O thread; its sockets must have been made in their namespace.
    pub(super) fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }

    /// Runs a future on the I/O thread and waits for it here.
    pub(super) fn wait<F>(&self, future: F) -> Result<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (done, result) = mpsc::channel();
        self.spawn(async move {
            // Fails only when the waiting thread is gone.
            drop(done.send(future.await));
        });
        result
            .recv()
            .map_err(|_| anyhow!("a task on the I/O thread panicked"))
    }

    pub(super) fn serve(
        &self,
        namespace: &Namespace,
        place: Place,
        protocol: Protocol,
        address: SocketAddr,
    ) -> Result<()> {
        match protocol {
            Protocol::Tcp => {
                let listener = namespace.run(move || -> std::io::Result<TcpListener> {
                    let listener = TcpListener::bind(address)?;
                    listener.set_nonblocking(true)?;
                    Ok(listener)
                })??;
                self.spawn(serve_tcp(place, listener));
            }
            Protocol::Udp => {
                let socket = namespace.run(move || -> std::io::Result<UdpSocket> {
                    let socket = UdpSocket::bind(address)?;
                    socket.set_nonblocking(true)?;
                    Ok(socket)
                })??;
                self.spawn(serve_udp(place, socket));
            }
        }
        Ok(())
    }
}

async fn serve_tcp(place: Place, listener: TcpListener) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        // A client that gave up between SYN and accept is no reason to stop.
        if let Ok((stream, peer)) = listener.accept().await {
            tokio::spawn(serve_stream(place, stream, peer));
        }
    }
}

async fn serve_stream(place: Place, stream: tokio::net::TcpStream, peer: SocketAddr) -> Result<()> {
    stream.set_nodelay(true)?;
    let by = canonical(stream.local_addr()?);
    let peer = canonical(peer);
    let mut stream = BufReader::with_capacity(MAX_REQUEST_BYTES, stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let answer = format!("{place} {by} {peer} {}\n", line.len());
        stream.get_mut().write_all(answer.as_bytes()).await?;
    }
}

async fn serve_udp(place: Place, socket: UdpSocket) -> Result<()> {
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let by = canonical(socket.local_addr()?);
    let mut buffer = vec![0; MAX_REQUEST_BYTES];
    loop {
        // Errors here are ICMP answers to earlier replies.
        if let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let answer = format!("{place} {by} {} {length}\n", canonical(peer));
            drop(socket.send_to(answer.as_bytes(), peer).await);
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
