use super::*;
use crate::metrics::registry;
use crate::wire::{Intake, Request};

const QUERY: &[u8] = b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x1C\x00\x01";

fn answered(by: &'static str, rcode: Rcode) -> Exchange {
    let mut exchange = Exchange::default();
    assert_eq!(exchange.request.read(QUERY), Intake::Query);
    exchange.begin();
    exchange.answer().rcode = rcode;
    exchange.answered_by = by;
    let request: &Request = &exchange.request;
    exchange.reply.finish(request, 512);
    exchange
}

#[test]
fn threads_count_apart_and_are_summed() {
    let id = series(&"dns://:1".into(), &"threads.test.".into());
    let work = move || {
        for _ in 0..1000 {
            count(id, &answered("kubernetes", Rcode::NOERROR), true);
            count(id, &answered("", Rcode::SERVFAIL), true);
            count(id, &answered("", Rcode::NOERROR), false);
            observe_duration(id, Duration::from_micros(300));
        }
    };
    // Twice, so that the second two go on where the first two have ended.
    for _ in 0..2 {
        let threads = [std::thread::spawn(work), std::thread::spawn(work)];
        for thread in threads {
            thread.join().expect("it does not panic");
        }
    }
    let text = registry().render().expect("it can be written");
    let zone = "server=\"dns://:1\",view=\"\",zone=\"threads.test.\"";
    let proto = "proto=\"udp\"";
    for line in [
        format!(
            "coredns_dns_requests_total{{family=\"1\",{proto},server=\"dns://:1\",type=\"AAAA\",view=\"\",zone=\"threads.test.\"}} 12000\n"
        ),
        format!(
            "coredns_dns_responses_total{{plugin=\"kubernetes\",rcode=\"NOERROR\",{zone}}} 4000\n"
        ),
        format!("coredns_dns_responses_total{{plugin=\"\",rcode=\"SERVFAIL\",{zone}}} 4000\n"),
        format!("coredns_dns_request_duration_seconds_bucket{{{zone},le=\"0.00025\"}} 0\n"),
        format!("coredns_dns_request_duration_seconds_bucket{{{zone},le=\"0.0005\"}} 4000\n"),
        format!("coredns_dns_request_duration_seconds_count{{{zone}}} 4000\n"),
        format!("coredns_dns_request_duration_seconds_sum{{{zone}}} 1.2\n"),
        format!(
            "coredns_dns_request_size_bytes_sum{{{proto},{zone}}} {}\n",
            12_000 * QUERY.len()
        ),
        format!("coredns_dns_response_size_bytes_bucket{{{proto},{zone},le=\"100\"}} 8000\n"),
    ] {
        assert!(text.contains(&line), "{line} is not in {text}");
    }
    assert!(!text.contains("coredns_dns_responses_total{plugin=\"\",rcode=\"NOERROR\""));
    let shards = ALL.lock().expect("no test panics with it")[id.0]
        .shards
        .len();
    assert!(shards <= 2, "{shards} shards for two threads at a time");
}

#[test]
fn series_are_the_same_for_the_same_labels() {
    let one = series(&"dns://:2".into(), &"a.".into());
    assert_eq!(series(&"dns://:2".into(), &"a.".into()), one);
    assert_ne!(series(&"dns://:2".into(), &"b.".into()), one);
}
