//! How long an answer takes, without the sockets. For people to run:
//! `cargo test --release -p switchyard-dns --test query_speed -- --ignored --nocapture`

mod common;

use std::hint::black_box;
use std::time::Instant;

use common::{Block, COREFILE, cluster, questions};
use switchyard_dns::plugin::Exchange;

const SERVICES: u32 = 10_000;
const TIMES: u32 = 300_000;

#[test]
#[ignore = "a measurement"]
fn nanoseconds_of_each_kind_of_answer() {
    let block = Block::new(COREFILE, &cluster(SERVICES));
    let mut exchange = Exchange::default();
    for (what, packet) in questions() {
        for _ in 0..TIMES / 10 {
            block.answer(&mut exchange, &packet);
        }
        let begun = Instant::now();
        for _ in 0..TIMES {
            block.answer(&mut exchange, black_box(&packet));
        }
        let each = begun.elapsed() / TIMES;
        let octets = exchange.reply.octets().len();
        println!("{what:28} {:>5} ns {octets:>5} octets", each.as_nanos());
    }
}
