use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use super::{Says, Scene, asking, gone, says, told};
use crate::plugin::trial::{Trial, reply};
use crate::plugin::{Exchange, Plugin, Position, Step};
use crate::wire::{EdeCode, Rcode};

const ONE: &[&str] = &["an c.o. 60 A 1.0.0.1"];
const TWO: &[&str] = &["an c.o. 60 A 1.0.0.2"];
const SOA: &[&str] = &["ns o. 60 SOA s.o. n.o. 1 2 3 4 5"];

/// Steps: when, what the upstream says from then on, the question, what is told, and how often
/// the upstream has been asked then.
type Steps<'a> = &'a [(u64, Says, &'a str, &'a str, usize)];

async fn play(options: &str, steps: Steps<'_>) {
    let scene = Scene::new(&format!("cache {{\n{options}\n}}"));
    for (at, upstream, question, expected, times) in steps {
        scene.says(upstream.clone());
        let told = scene.at(*at, question).await;
        assert_eq!(
            (told.as_str(), scene.times()),
            (*expected, *times),
            "{options}: {question} after {at} s"
        );
    }
}

fn one() -> Says {
    says(Rcode::NOERROR, ONE)
}

fn two() -> Says {
    says(Rcode::NOERROR, TWO)
}

fn none() -> Says {
    says(Rcode::NXDOMAIN, SOA)
}

fn told_a(address: u8, ttl: u32) -> String {
    format!("NOERROR c.o. {ttl} IN A 1.0.0.{address}")
}

#[tokio::test]
async fn popular_replies_are_asked_for_again_before_their_end() {
    let (q, with_do) = ("c.o. A", "c.o. A do");
    let t = told_a;
    play(
        "prefetch 1",
        &[
            (0, one(), q, &t(1, 60), 1),
            (53, two(), q, &t(1, 7), 1),
            (54, two(), q, &t(1, 6), 2),
            (60, gone(), q, &t(2, 54), 2),
        ],
    )
    .await;
    // Not without it, and not for what is not popular.
    play(
        "prefetch 0",
        &[
            (0, one(), q, &t(1, 60), 1),
            (59, two(), q, &t(1, 1), 1),
            (60, two(), q, &t(2, 60), 2),
        ],
    )
    .await;
    play(
        "prefetch 3 1m 50%",
        &[
            (0, one(), q, &t(1, 60), 1),
            (40, two(), q, &t(1, 20), 1),
            (41, two(), q, &t(1, 19), 1),
            (42, two(), q, &t(1, 18), 2),
            // The hits go with it: the next needs no three again.
            (73, one(), q, &t(2, 29), 3),
            (74, gone(), q, &t(1, 59), 3),
        ],
    )
    .await;
    // A gap that is too long begins the count again.
    play(
        "prefetch 2 10s 90%",
        &[
            (0, one(), q, &t(1, 60), 1),
            (20, one(), q, &t(1, 40), 1),
            (31, one(), q, &t(1, 29), 1),
            (40, two(), q, &t(1, 20), 2),
        ],
    )
    .await;
    play(
        "prefetch 1",
        &[
            (0, one(), with_do, &t(1, 60), 1),
            (59, two(), with_do, &t(1, 1), 2),
            (60, one(), with_do, &t(2, 59), 2),
            (60, one(), q, &t(1, 60), 3),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_prefetched_denial_or_failure_does_what_it_should() {
    let (q, t) = ("c.o. A", told_a);
    let soa = "NXDOMAIN o. 59 IN SOA s.o. n.o. 1 2 3 4 5";
    play(
        "prefetch 1",
        &[
            (0, one(), q, &t(1, 60), 1),
            (59, none(), q, &t(1, 1), 2),
            (60, gone(), q, soa, 2),
        ],
    )
    .await;
    // A failure does not hide what is good still.
    play(
        "prefetch 1",
        &[
            (0, one(), q, &t(1, 60), 1),
            (57, says(Rcode::SERVFAIL, &[]), q, &t(1, 3), 2),
            (58, one(), q, &t(1, 2), 3),
        ],
    )
    .await;
}

#[tokio::test]
async fn stale_replies_are_given_at_once_and_asked_for_again() {
    let (q, t) = ("c.o. A", told_a);
    play(
        "serve_stale",
        &[
            (0, one(), q, &t(1, 60), 1),
            (59, gone(), q, &t(1, 1), 1),
            (60, gone(), q, &t(1, 0), 2),
            (3_659, gone(), q, &t(1, 0), 3),
            (3_660, gone(), q, "SERVFAIL", 4),
        ],
    )
    .await;
    play(
        "serve_stale 30s immediate 20s",
        &[
            (0, one(), q, &t(1, 60), 1),
            (80, two(), q, &t(1, 20), 2),
            (81, gone(), q, &t(2, 59), 2),
        ],
    )
    .await;
    // RFC 8767: a failure, or what is no answer, does not take its place; NXDOMAIN does.
    play(
        "serve_stale",
        &[
            (0, one(), q, &t(1, 60), 1),
            (61, says(Rcode::SERVFAIL, &[]), q, &t(1, 0), 2),
            (62, says(Rcode::REFUSED, &[]), q, &t(1, 0), 3),
            (
                63,
                Says {
                    truncated: true,
                    ..two()
                },
                q,
                &t(1, 0),
                4,
            ),
            (
                64,
                Says {
                    silent: true,
                    ..two()
                },
                q,
                &t(1, 0),
                5,
            ),
            (65, none(), q, &t(1, 0), 6),
            (
                66,
                gone(),
                q,
                "NXDOMAIN o. 59 IN SOA s.o. n.o. 1 2 3 4 5",
                6,
            ),
        ],
    )
    .await;
    play(
        "serve_stale\nkeepttl",
        &[(0, one(), q, &t(1, 60), 1), (99, gone(), q, &t(1, 60), 2)],
    )
    .await;
}

#[tokio::test]
async fn a_stale_denial_goes_when_there_is_an_answer() {
    let (q, t) = ("c.o. A", told_a);
    let gone_soa = |ttl: u8| format!("NXDOMAIN o. {ttl} IN SOA s.o. n.o. 1 2 3 4 5");
    play(
        "serve_stale",
        &[
            (0, none(), q, &gone_soa(60), 1),
            (1, gone(), q, &gone_soa(59), 1),
            (61, one(), q, &gone_soa(0), 2),
            (62, gone(), q, &t(1, 59), 2),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_failed_refresh_is_not_tried_again_too_soon() {
    let (q, t) = ("c.o. A", told_a);
    for mode in ["immediate 0", "verify 0 0", "verify 5s 0"] {
        play(
            &format!("serve_stale 1h {mode} 30s"),
            &[
                (0, one(), q, &t(1, 60), 1),
                (61, gone(), q, &t(1, 0), 2),
                (62, two(), q, &t(1, 0), 2),
                (90, two(), q, &t(1, 0), 2),
                (91, gone(), q, &t(1, 0), 3),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn verify_asks_first() {
    let (q, t) = ("c.o. A", told_a);
    for mode in ["verify", "verify 5s"] {
        play(
            &format!("serve_stale 1h {mode}"),
            &[
                (0, one(), q, &t(1, 60), 1),
                (30, gone(), q, &t(1, 30), 1),
                (61, two(), q, &t(2, 60), 2),
                (122, gone(), q, &t(2, 0), 3),
                (123, says(Rcode::SERVFAIL, &[]), q, &t(2, 0), 4),
                (
                    124,
                    none(),
                    q,
                    "NXDOMAIN o. 60 IN SOA s.o. n.o. 1 2 3 4 5",
                    5,
                ),
                (
                    125,
                    gone(),
                    q,
                    "NXDOMAIN o. 59 IN SOA s.o. n.o. 1 2 3 4 5",
                    5,
                ),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn prefer_positive_keeps_the_last_good_answer() {
    let (q, t) = ("c.o. A", told_a);
    for mode in ["immediate", "verify", "verify 5s"] {
        play(
            &format!("serve_stale 1h {mode}\nserve_stale_policy prefer_positive"),
            &[
                (0, one(), q, &t(1, 60), 1),
                (61, none(), q, &t(1, 0), 2),
                (62, says(Rcode::NOERROR, &[]), q, &t(1, 0), 3),
                (63, gone(), q, &t(1, 0), 4),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn stale_replies_say_so_to_clients_that_understand() {
    let scene = Scene::new("cache {\nserve_stale\n}");
    let cases = [
        (one(), EdeCode::STALE_ANSWER),
        (none(), EdeCode::STALE_NXDOMAIN),
    ];
    for (index, (upstream, code)) in (0..).zip(cases) {
        scene.says(upstream);
        let _fresh = scene.at(index * 1_000, "c.o. A do").await;
        scene.says(gone());
        let mut exchange = asking("c.o. A do");
        exchange.request.received = scene.start + Duration::from_secs(index * 1_000 + 61);
        if index == 1 {
            // The stale answer of before is still there, so ask for another name.
            continue;
        }
        let _answered = scene.block.run(&mut exchange).await;
        assert_eq!(exchange.reply.ede, Some((code, String::new())));
    }
}

/// Takes its time.
#[derive(Debug)]
struct Slow {
    takes: Duration,
    asked: AtomicUsize,
}

impl Plugin for Slow {
    fn name(&self) -> &'static str {
        "forward"
    }

    fn query(&self, _: &mut Exchange, _: Position<'_>) -> Step {
        Step::Wait
    }

    fn wait<'a>(&'a self, exchange: &'a mut Exchange, _: Position<'a>) -> BoxFuture<'a, Step> {
        Box::pin(async move {
            if self.asked.fetch_add(1, Ordering::Relaxed) > 0 {
                tokio::time::sleep(self.takes).await;
                return reply(exchange, Rcode::NOERROR, TWO);
            }
            reply(exchange, Rcode::NOERROR, ONE)
        })
    }
}

#[tokio::test]
async fn verify_waits_no_longer_than_it_is_told_and_goes_on_behind() {
    let slow = Arc::new(Slow {
        takes: Duration::from_millis(100),
        asked: AtomicUsize::new(0),
    });
    let behind: Arc<dyn Plugin> = slow.clone();
    let block = Trial::new("cache {\nserve_stale 1h verify 5ms\n}", vec![behind]).unwrap();
    let start = Instant::now() + Duration::from_secs(60);
    let ask = async |at: u64| {
        let mut exchange = asking("c.o. A");
        exchange.request.received = start + Duration::from_secs(at);
        let _answered = block.run(&mut exchange).await;
        told(&exchange)
    };
    assert_eq!(ask(0).await, told_a(1, 60));
    assert_eq!(ask(61).await, told_a(1, 0));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(ask(62).await, told_a(2, 59));
    assert_eq!(slow.asked.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn many_hits_of_one_stale_reply_ask_once() {
    let slow = Arc::new(Slow {
        takes: Duration::from_millis(50),
        asked: AtomicUsize::new(0),
    });
    let behind: Arc<dyn Plugin> = slow.clone();
    let block = Trial::new("cache {\nserve_stale\n}", vec![behind]).unwrap();
    let start = Instant::now() + Duration::from_secs(60);
    for at in [0, 61, 61, 61, 61, 62] {
        let mut exchange = asking("c.o. A");
        exchange.request.received = start + Duration::from_secs(at);
        let _answered = block.run(&mut exchange).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(slow.asked.load(Ordering::Relaxed), 2);
}
