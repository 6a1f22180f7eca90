//! Datagrams: one thread and one SO_REUSEPORT socket for each CPU the process may use.
//!
//! A thread sleeps in `recvmmsg`, answers what it got, and sends all answers with one
//! `sendmmsg`: two system calls for a lone query, two for a full batch. What has to wait for
//! somebody goes to the runtime, bounded, and is sent from there.

#[expect(unsafe_code, reason = "recvmmsg and sendmmsg take raw pointers")]
mod batch;
mod socket;
mod worker;

pub(crate) use socket::UdpSocket;
pub(crate) use worker::{UdpWorker, UnderWay, Waiters};
