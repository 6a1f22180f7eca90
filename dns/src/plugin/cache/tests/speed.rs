use nix::sys::resource::{UsageWho, getrusage};

use super::{Scene, asking, says};
use crate::plugin::Progress;
use crate::wire::Rcode;

/// CPU time of this thread: other processes do not count.
fn cpu_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let time = usage.user_time();
    time.tv_sec() * 1_000_000 + time.tv_usec()
}

/// Prints what a hit costs; run it with optimization:
/// `CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test -p switchyard-dns --lib a_hit_costs -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a test"]
fn what_a_hit_costs() {
    const TIMES: u32 = 2_000_000;
    const NAMES: u32 = 1_000;
    for directives in ["cache 3600", "cache 3600\nloadbalance"] {
        let scene = Scene::new(directives);
        let records = [
            "an www.example.org. 3600 CNAME b.example.org.",
            "an b.example.org. 3600 A 1.2.3.4",
            "an b.example.org. 3600 A 1.2.3.5",
        ];
        scene.says(says(Rcode::NOERROR, &records));
        let mut exchanges: Vec<_> = (0..NAMES)
            .map(|number| asking(&format!("www{number}.example.org. A")))
            .collect();
        for (number, exchange) in exchanges.iter_mut().enumerate() {
            let name = format!("an www{number}.example.org. 3600 CNAME b.example.org.").leak();
            scene.says(says(Rcode::NOERROR, &[name, records[1], records[2]]));
            let _kept = scene.block.chain.descend(exchange);
        }
        let asked = scene.times();
        let start = cpu_us();
        for _ in 0..TIMES / NAMES {
            for exchange in &mut exchanges {
                exchange.begin();
                assert!(matches!(
                    scene.block.chain.descend(exchange),
                    Progress::Done(_)
                ));
            }
        }
        let nanoseconds = (cpu_us() - start) * 1_000 / i64::from(TIMES);
        assert_eq!(scene.times(), asked, "all were hits");
        println!("{directives:?}: {nanoseconds} ns a hit");
    }
}
