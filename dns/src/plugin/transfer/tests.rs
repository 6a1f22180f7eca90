use std::net::SocketAddr;
use std::sync::Arc;

use super::handler::{Rule, Transfer};
use crate::plugin::{Chain, Exchange, Outcome, Plugin, Position, Step};
use crate::wire::{Intake, Name, Rcode, Record, Rtype, Transport};

/// A zone with so many addresses beside its SOA.
#[derive(Debug)]
struct Primary(u16);

fn zone() -> Name {
    Name::from_text("example.test.").expect("a name")
}

impl Plugin for Primary {
    fn name(&self) -> &'static str {
        "primary"
    }

    fn query(&self, _: &mut Exchange, _: Position<'_>) -> Step {
        Step::Fail(Rcode::SERVFAIL)
    }

    fn zone_serial(&self, name: &Name) -> Option<u32> {
        (*name == zone()).then_some(7)
    }

    fn zone_records(&self, name: &Name) -> Option<Vec<Record>> {
        self.zone_serial(name)?;
        let soa = [&[0, 0][..], &[0, 0, 0, 7], &[0; 16]].concat();
        let mut records = vec![Record::new(zone(), Rtype::SOA, 5, soa)];
        for number in 0..self.0 {
            let owner = Name::from_text(&format!("host-{number}.example.test.")).expect("a name");
            let [high, low] = number.to_be_bytes();
            records.push(Record::new(owner, Rtype::A, 5, vec![10, 0, high, low]));
        }
        Some(records)
    }
}

/// Asks with an IXFR serial where one is given.
async fn ask(
    hosts: u16,
    name: &str,
    transport: Transport,
    client: &str,
    serial: Option<u32>,
) -> Exchange {
    let rule = Rule {
        zones: vec![zone()],
        anyone: false,
        secondaries: vec!["192.0.2.53:53".parse::<SocketAddr>().expect("an address")],
    };
    let chain = Chain::new(vec![
        Arc::new(Transfer::new(vec![rule])),
        Arc::new(Primary(hosts)),
    ]);
    let mut packet = vec![0, 1, 0, 0, 0, 1, 0, 0, 0, u8::from(serial.is_some()), 0, 0];
    packet.extend_from_slice(Name::from_text(name).expect(name).as_wire());
    packet.extend_from_slice(if serial.is_some() {
        &[0, 251, 0, 1]
    } else {
        &[0, 252, 0, 1]
    });
    if let Some(serial) = serial {
        packet.extend_from_slice(&[0xC0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 22, 0, 0]);
        packet.extend_from_slice(&serial.to_be_bytes());
        packet.extend_from_slice(&[0; 16]);
    }
    let mut exchange = Exchange::default();
    exchange.request.transport = transport;
    exchange.request.source = SocketAddr::new(client.parse().expect(client), 1234);
    assert_eq!(exchange.request.read(&packet), Intake::Query);
    exchange.begin();
    assert_eq!(chain.run(&mut exchange).await, Outcome::Answered);
    exchange
}

#[tokio::test]
async fn a_large_zone_goes_out_in_several_messages_between_two_soa() {
    let exchange = ask(5_000, "Example.Test.", Transport::Tcp, "192.0.2.53", None).await;
    assert!(!exchange.more.is_empty());
    let mut records = Vec::new();
    for message in std::iter::once(&exchange.reply).chain(&exchange.more) {
        assert!(message.octets().len() <= 65_535 && message.authoritative);
        records.extend(message.records().expect("our own").answer);
    }
    assert_eq!(records.len(), 5_002);
    assert_eq!(
        (records[0].rtype, records[5_001].rtype),
        (Rtype::SOA, Rtype::SOA)
    );
    assert_eq!(records[5_000].data, [10, 0, 19, 135]);
}

#[tokio::test]
async fn only_secondaries_get_it_and_only_over_streams() {
    for (transport, client, expected) in [
        (Transport::Tcp, "192.0.2.99", Rcode::REFUSED),
        (Transport::Udp, "192.0.2.53", Rcode::REFUSED),
        (Transport::Tls, "192.0.2.53", Rcode::NOERROR),
    ] {
        let exchange = ask(1, "example.test.", transport, client, None).await;
        assert_eq!(
            exchange.reply.rcode, expected,
            "{transport:?} from {client}"
        );
    }
    let other = ask(1, "www.example.test.", Transport::Tcp, "192.0.2.53", None).await;
    assert_eq!(other.reply.rcode, Rcode::SERVFAIL, "the next plugin's");
}

#[tokio::test]
async fn who_has_the_newest_gets_the_soa_alone() {
    for (serial, expected) in [(7, 1), (8, 1), (6, 3), (0xFFFF_FFFF, 3)] {
        let exchange = ask(
            1,
            "example.test.",
            Transport::Tcp,
            "192.0.2.53",
            Some(serial),
        )
        .await;
        let answer = exchange.reply.records().expect("our own").answer;
        assert_eq!(answer.len(), expected, "serial {serial}");
    }
}

#[tokio::test]
async fn secondaries_are_told_and_told_again_until_they_answer() {
    let secondary = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a socket");
    let rule = Rule {
        zones: vec![zone()],
        anyone: false,
        secondaries: vec![secondary.local_addr().expect("bound")],
    };
    let transfer = Arc::new(Transfer::new(vec![rule]));
    let chain = Chain::new(vec![
        Arc::<Transfer>::clone(&transfer),
        Arc::new(Primary(1)),
    ]);
    transfer.start();
    let mut packet = [0; 512];
    let (first, _) = secondary.recv_from(&mut packet).await.expect("told");
    let id = [packet[0], packet[1]];
    assert_eq!(packet[2..4], [0x24, 0]);
    assert!(packet[..first].ends_with(&[0, 0, 6, 0, 1]));
    let (_, from) = secondary.recv_from(&mut packet).await.expect("told again");
    assert_eq!(packet[..2], id);
    secondary
        .send_to(&[id[0], id[1], 0xA4, 0, 0, 0, 0, 0, 0, 0, 0, 0], from)
        .await
        .expect("sent");
    let third = tokio::time::timeout(
        std::time::Duration::from_millis(2500),
        secondary.recv_from(&mut packet),
    );
    assert!(third.await.is_err(), "told after it had answered");
    drop(chain);
}
