//! The built server forwarding to real servers and to odd ones.

mod upstreams;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use switchyard_tests::dns::{Client, DnsServer, Query, Reply, Setup};
use switchyard_tests::testbed::wait_for;
use upstreams::{Daemon, Odd, reply_to};

/// A server that forwards `test.` by this line and answers other names itself, at once: so that it
/// is seen to be up whatever the upstreams do.
fn forwarding(forward: &str) -> Result<DnsServer> {
    DnsServer::start(Setup::new(&format!(
        "test.:$DNS {{\n{forward}\n}}\n.:$DNS {{\nany\n}}\n"
    )))
}

/// Everything of a reply that a forwarder has to leave as it is.
fn substance(reply: &Reply) -> String {
    let flags = ["AA", "TC", "RA", "AD"].map(|flag| reply.has_flag(flag));
    let mut sections = [&reply.answer, &reply.authority, &reply.additional].map(Clone::clone);
    for section in &mut sections {
        section.sort();
    }
    format!("{} {flags:?} {sections:?}", reply.rcode)
}

fn same_as_direct(daemon: &Daemon, server: &DnsServer) -> Result<()> {
    for (name, rtype) in [
        ("www.upstream.test.", "A"),
        ("WwW.upstream.test.", "AAAA"),
        ("two.upstream.test.", "A"),
        ("alias.upstream.test.", "CNAME"),
        ("mx.upstream.test.", "MX"),
        ("srv.upstream.test.", "SRV"),
        ("www.upstream.test.", "TXT"),
        ("nobody.upstream.test.", "A"),
        ("www.upstream.test.", "HTTPS"),
    ] {
        let query = Query::new(name, rtype)?;
        // The same with EDNS, since a reply may carry more then.
        for query in [query.clone(), query.with_edns(1232)] {
            let direct = daemon.client().query(&query)?;
            let through = server.client().query(&query)?;
            ensure!(
                substance(&direct) == substance(&through),
                "{name} {rtype}: directly {direct}\nforwarded {through}"
            );
            ensure!(
                query.edns.is_some() == through.opt.is_some(),
                "OPT of {through}"
            );
            let over_tcp = server.client().query_tcp(&query)?;
            ensure!(
                substance(&direct) == substance(&over_tcp),
                "over TCP: {over_tcp}"
            );
        }
    }
    Ok(())
}

/// Asks `count` different names at once, each from a socket of its own; how many came back right.
fn ask_at_once(client: Client, count: usize) -> usize {
    let asking = (0..count).map(|at| {
        std::thread::spawn(move || {
            let reply = client.ask(&format!("n{at}.slow.test."), "A")?;
            ensure!(reply.data("A") == ["192.0.2.9"], "{reply}");
            anyhow::Ok(())
        })
    });
    let asking: Vec<_> = asking.collect();
    asking
        .into_iter()
        .filter_map(|asked| asked.join().ok()?.ok())
        .count()
}

#[test]
fn unbound_s_answers_come_through_unchanged() -> Result<()> {
    let daemon = Daemon::unbound()?;
    for options in ["", "force_tcp", "prefer_udp"] {
        let server = forwarding(&format!("forward . {} {{\n{options}\n}}", daemon.address))?;
        same_as_direct(&daemon, &server)?;
    }
    Ok(())
}

#[test]
fn dnsmasq_s_answers_come_through_unchanged() -> Result<()> {
    let daemon = Daemon::dnsmasq()?;
    for options in ["", "force_tcp", "prefer_udp"] {
        let server = forwarding(&format!("forward . {} {{\n{options}\n}}", daemon.address))?;
        same_as_direct(&daemon, &server)?;
    }
    Ok(())
}

#[test]
fn long_answers_are_truncated_over_udp_and_whole_over_tcp() -> Result<()> {
    let daemon = Daemon::unbound()?;
    let query = Query::new("big.upstream.test.", "TXT")?;
    for options in ["", "force_tcp", "prefer_udp"] {
        let server = forwarding(&format!("forward . {} {{\n{options}\n}}", daemon.address))?;
        let small = server.client().query(&query)?;
        ensure!(
            small.has_flag("TC") && small.bytes.len() <= 512,
            "{options}: {small}"
        );
        let whole = server.client().query_tcp(&query)?;
        ensure!(
            !whole.has_flag("TC") && whole.answer.len() == 20,
            "{options}: {whole}"
        );
        let roomy = server.client().query(&query.clone().with_edns(8192))?;
        // Only who asks the upstream over TCP has all of it for a client with room.
        let expected = if options.is_empty() { 0 } else { 20 };
        ensure!(roomy.answer.len() == expected, "{options}: {roomy}");
    }
    Ok(())
}

#[test]
fn unbound_is_asked_over_tls_and_only_under_its_name() -> Result<()> {
    let daemon = Daemon::unbound()?;
    let authority = daemon.authority();
    let line = |name: &str| {
        format!(
            "forward . tls://{} {{\ntls {}\ntls_servername {name}\n}}",
            daemon.tls,
            authority.display()
        )
    };
    same_as_direct(&daemon, &forwarding(&line("dns.upstream.test"))?)?;
    let named = format!(
        "forward . tls://127.0.0.1%dns.upstream.test:{} {{\ntls {}\n}}",
        daemon.tls.port(),
        authority.display()
    );
    same_as_direct(&daemon, &forwarding(&named)?)?;
    let server = forwarding(&line("other.upstream.test"))?;
    let reply = server
        .client()
        .query(&Query::new("www.upstream.test.", "A")?.with_edns(1232))?;
    ensure!(reply.rcode == "SERVFAIL", "{reply}");
    let [(23, text)] = &reply.extended_errors()[..] else {
        anyhow::bail!("{reply}")
    };
    ensure!(
        text.contains("TLS") && text.contains("other.upstream.test"),
        "{text}"
    );
    Ok(())
}

#[test]
fn an_upstream_that_goes_away_and_comes_back_is_used_again() -> Result<()> {
    let mut daemon = Daemon::unbound()?;
    let options = "policy sequential\nread_timeout 200ms\nhealth_check 100ms";
    let spare = Odd::start(|query, _| vec![reply_to(query, 9)])?;
    let server = forwarding(&format!(
        "forward . {} {} {{\n{options}\n}}",
        daemon.address, spare.address
    ))?;
    let ask = || Ok(server.client().ask("www.upstream.test.", "A")?.data("A"));
    let both = |data: Result<Vec<String>>, wanted: &str| data.map(|data| data == [wanted]);
    ensure!(both(ask(), "192.0.2.80")?);
    daemon.stop()?;
    for _ in 0..20 {
        ensure!(
            both(ask(), "192.0.2.9")?,
            "the other upstream answers, every time"
        );
    }
    daemon.start_again()?;
    wait_for(
        "the first upstream",
        Duration::from_secs(5),
        Duration::from_millis(50),
        || both(ask(), "192.0.2.80"),
    )
}

#[test]
fn a_silent_upstream_costs_two_seconds_and_a_dead_one_nothing() -> Result<()> {
    let (silent, good) = (
        Odd::silent()?,
        Odd::start(|query, _| vec![reply_to(query, 9)])?,
    );
    let dead = Odd::silent()?.address;
    for (first, least, most) in [(silent.address, 1900, 3500), (dead, 0, 1000)] {
        let server = forwarding(&format!(
            "forward . {first} {} {{\npolicy sequential\n}}",
            good.address
        ))?;
        let started = Instant::now();
        let reply = server.client().ask("www.slow.test.", "A")?;
        let took = started.elapsed().as_millis();
        ensure!(reply.data("A") == ["192.0.2.9"], "{reply}");
        ensure!((least..most).contains(&took), "{first}: {took} ms");
    }
    Ok(())
}

#[test]
fn silence_ends_in_servfail_that_says_so_before_the_client_gives_up() -> Result<()> {
    let silent = Odd::silent()?;
    let server = forwarding(&format!("forward . {}", silent.address))?;
    let started = Instant::now();
    let reply = server
        .client()
        .query(&Query::new("www.slow.test.", "A")?.with_edns(1232))?;
    ensure!(reply.rcode == "SERVFAIL", "{reply}");
    ensure!(
        started.elapsed() < Duration::from_millis(4900),
        "{:?}",
        started.elapsed()
    );
    let text = format!("{}: no reply in time", silent.address);
    ensure!(reply.extended_errors() == [(22, text)], "{reply}");
    Ok(())
}

#[test]
fn lies_are_ignored_and_the_right_reply_behind_them_is_taken() -> Result<()> {
    let lying = Odd::start(|query, _| {
        let mut wrong_id = reply_to(query, 66);
        wrong_id[0] ^= 1;
        let mut wrong_name = reply_to(query, 66);
        wrong_name[13] ^= 1;
        let mut no_reply = reply_to(query, 66);
        no_reply[2] &= 0x7f;
        vec![
            wrong_id,
            wrong_name,
            no_reply,
            vec![0; 5],
            reply_to(query, 9),
        ]
    })?;
    let server = forwarding(&format!("forward . {}", lying.address))?;
    for _ in 0..20 {
        let reply = server.client().ask("www.slow.test.", "A")?;
        ensure!(reply.data("A") == ["192.0.2.9"], "{reply}");
    }
    ensure!(lying.asked() == 20, "asked {} times", lying.asked());
    Ok(())
}

#[test]
fn requests_are_counted_by_upstream_and_code() -> Result<()> {
    let good = Odd::start(|query, _| vec![reply_to(query, 9)])?;
    let server = forwarding(&format!(
        "prometheus 127.0.0.1:$METRICS\nforward . {}",
        good.address
    ))?;
    for _ in 0..20 {
        server.client().ask("www.slow.test.", "A")?;
    }
    let to = format!("to=\"{}\"", good.address);
    let sum = |name: &str, label: &str| server.metric_sum(name, &[&to, label]);
    let answered = sum(
        "coredns_proxy_request_duration_seconds_count",
        "rcode=\"NOERROR\"",
    )?;
    let hits = sum("coredns_proxy_conn_cache_hits_total", "proto=\"udp\"")?;
    let misses = sum("coredns_proxy_conn_cache_misses_total", "proto=\"udp\"")?;
    ensure!(answered.total_cmp(&20.0).is_eq(), "{answered} answered");
    ensure!(
        (hits + misses).total_cmp(&20.0).is_eq(),
        "{hits} hits, {misses} misses"
    );
    ensure!((1.0..=8.0).contains(&misses), "{misses} sockets opened");
    Ok(())
}

#[test]
fn hundreds_of_queries_wait_for_a_slow_upstream_at_once() -> Result<()> {
    const QUERIES: usize = 300;
    let slow = Odd::slow(Duration::from_millis(400))?;
    let server = forwarding(&format!("forward . {}", slow.address))?;
    let started = Instant::now();
    let answered = ask_at_once(server.client(), QUERIES);
    ensure!(answered == QUERIES, "{answered} of {QUERIES} answered");
    ensure!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}",
        started.elapsed()
    );
    Ok(())
}

#[test]
fn a_loop_ends_the_process_and_the_log_says_so() -> Result<()> {
    let corefile = ".:$DNS {\nloop\nforward . 127.0.0.1:$DNS\n}\n";
    let mut server = DnsServer::spawn(Setup::new(corefile))?;
    let status = server.wait_exit(Duration::from_secs(15))?;
    ensure!(status.code() == Some(1), "{status}");
    let log = server.log();
    let line = format!("-> {}) detected for zone \".\"", server.address());
    ensure!(log.contains("Loop (") && log.contains(&line), "{log}");
    Ok(())
}

#[test]
fn without_a_loop_the_process_stays() -> Result<()> {
    let good = Odd::start(|query, _| vec![reply_to(query, 9)])?;
    let corefile = format!(".:$DNS {{\nloop\nforward . {}\n}}\n", good.address);
    let mut server = DnsServer::start(Setup::new(&corefile))?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(server.is_running()?, "{}", server.log_tail());
    let reply = server.client().ask("www.slow.test.", "A")?;
    ensure!(reply.data("A") == ["192.0.2.9"], "{reply}");
    Ok(())
}

#[test]
fn an_upstream_over_https_is_refused_with_line_and_reason() -> Result<()> {
    let mut server = DnsServer::spawn(Setup::new(".:$DNS {\nforward . https://dns.example\n}\n"))?;
    let status = server.wait_exit(Duration::from_secs(10))?;
    ensure!(!status.success(), "{status}");
    let log = server.log();
    ensure!(
        log.contains("Corefile:2: `https://dns.example`: DNS over HTTPS"),
        "{log}"
    );
    Ok(())
}
