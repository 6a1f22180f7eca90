//! What goes over the wire: packets that are no queries, sizes, EDNS, TCP.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use switchyard_tests::dns::{
    Client, DnsServer, Edns, Query, Reply, Setup, encode_name, namespace_object,
};

const SERVICE: &str = "svc1.default.svc.cluster.local.";
const MANY: &str = "many.default.svc.cluster.local.";
const ENDPOINTS: usize = 120;
const COREFILE: &str = "\
.:$DNS {
    bind 127.0.0.1
    ready 127.0.0.1:$READY
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
    }
}
";
/// Long enough for a reply that is not to come to come.
const SILENCE: Duration = Duration::from_millis(150);
const HEADER: usize = 12;

fn objects() -> Vec<Value> {
    let service = |name: &str, ip: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip],
                "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
        })
    };
    let endpoints: Vec<Value> = (0..ENDPOINTS)
        .map(|number| json!({"addresses": [format!("10.1.0.{number}")], "hostname": format!("a-rather-long-hostname-{number}")}))
        .collect();
    vec![
        namespace_object("default", &std::collections::BTreeMap::new()),
        service("svc1", "10.96.0.7"),
        service("many", "None"),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "many", "namespace": "default", "labels": {"kubernetes.io/service-name": "many"}},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "http", "protocol": "TCP", "port": 80}],
        }),
    ]
}

fn start() -> Result<DnsServer> {
    DnsServer::start(Setup::new(COREFILE).with_objects(&objects()))
}

fn still_answers(client: &Client) -> Result<()> {
    let reply = client.ask(SERVICE, "A")?;
    ensure!(reply.data("A") == ["10.96.0.7"], "{reply}");
    let reply = client.query_tcp(&Query::new(SERVICE, "A")?)?;
    ensure!(reply.data("A") == ["10.96.0.7"], "{reply}");
    Ok(())
}

/// What must come back to a packet.
#[derive(Debug, Clone, Copy)]
enum Back {
    Nothing,
    /// One of these codes, with the packet's id.
    Code(&'static [&'static str]),
    /// Anything, or nothing: the server only has to live on.
    Anything,
}

const FORMERR: Back = Back::Code(&["FORMERR"]);
const NOERROR: Back = Back::Code(&["NOERROR"]);
const NOTIMP: Back = Back::Code(&["NOTIMP"]);
const REFUSED: Back = Back::Code(&["REFUSED"]);

/// A query's bytes with some changed: `(offset, new octets)`.
fn changed(query: &[u8], changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = query.to_vec();
    for (at, octets) in changes {
        bytes.splice(*at..*at + octets.len(), octets.iter().copied());
    }
    bytes
}

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn opt(owner: &[u8], size: u16, version: u8, data: &[u8]) -> Result<Vec<u8>> {
    let length = u16::try_from(data.len())?;
    Ok(joined(&[
        owner,
        &[0, 41],
        &size.to_be_bytes(),
        &[0, version, 0, 0],
        &length.to_be_bytes(),
        data,
    ]))
}

/// A header with these counts; id 0xabcd, RD.
fn header(counts: [u8; 4]) -> Vec<u8> {
    let [qd, an, ns, ar] = counts;
    vec![0xab, 0xcd, 1, 0, 0, qd, 0, an, 0, ns, 0, ar]
}

fn packets() -> Result<Vec<(&'static str, Vec<u8>, Back)>> {
    let question = joined(&[&encode_name(SERVICE)?, &[0, 1, 0, 1]]);
    let plain = joined(&[&header([1, 0, 0, 0]), &question]);
    let with_opt = |opt: &[u8]| joined(&[&header([1, 0, 0, 1]), &question, opt]);
    let asked = |name: &[u8]| joined(&[&header([1, 0, 0, 0]), name, &[0, 1, 0, 1]]);
    let good = opt(&[0], 1232, 0, &[])?;
    let long_label = joined(&[&[64], &[b'a'; 64], &[0]]);
    let reserved = joined(&[&[0x80], &[b'a'; 20], &[0]]);
    let long_name = joined(&[&[[63].as_slice(), &[b'a'; 63]].concat().repeat(4), &[0]]);
    let longest = joined(&[
        &[[63].as_slice(), &[b'a'; 63]].concat().repeat(3),
        &[61],
        &[b'a'; 61],
        &[0],
    ]);
    let record = joined(&[&[0xc0, 12], &[0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 1]]);
    let mut all = vec![
        ("the query itself", plain.clone(), NOERROR),
        ("nothing", Vec::new(), Back::Nothing),
        ("one octet", vec![0xab], Back::Nothing),
        ("eleven octets", plain[..11].to_vec(), Back::Nothing),
        ("a reply", changed(&plain, &[(2, &[0x81])]), Back::Nothing),
        (
            "a reply that is broken",
            changed(&plain[..20], &[(2, &[0x80])]),
            Back::Nothing,
        ),
        ("a header alone", header([1, 0, 0, 0]), FORMERR),
        ("no question", header([0, 0, 0, 0]), FORMERR),
        (
            "no question but OPT",
            joined(&[&header([0, 0, 0, 1]), &good]),
            FORMERR,
        ),
        (
            "two questions",
            joined(&[&header([2, 0, 0, 0]), &question, &question]),
            FORMERR,
        ),
        (
            "two questions announced, one there",
            joined(&[&header([2, 0, 0, 0]), &question]),
            FORMERR,
        ),
        (
            "the question ends in its name",
            plain[..HEADER + 9].to_vec(),
            FORMERR,
        ),
        (
            "the question ends in its type",
            plain[..plain.len() - 3].to_vec(),
            FORMERR,
        ),
        (
            "the question ends in its class",
            plain[..plain.len() - 1].to_vec(),
            FORMERR,
        ),
        ("a name that points to itself", asked(&[0xc0, 12]), FORMERR),
        ("a name in a loop", asked(&[1, b'a', 0xc0, 12]), FORMERR),
        ("a name that points forward", asked(&[0xc0, 18]), FORMERR),
        (
            "a name that points beyond the end",
            asked(&[0xff, 0xff]),
            FORMERR,
        ),
        (
            "half a pointer",
            joined(&[&header([1, 0, 0, 0]), &[0xc0]]),
            FORMERR,
        ),
        ("a label of 64 octets", asked(&long_label), FORMERR),
        ("a label of a reserved kind", asked(&reserved), FORMERR),
        ("a name of 257 octets", asked(&long_name), FORMERR),
        (
            "a name of 255 octets",
            asked(&longest),
            Back::Code(&["SERVFAIL", "NXDOMAIN"]),
        ),
        (
            "octets after the question",
            joined(&[&plain, &[1, 2, 3]]),
            Back::Code(&["NOERROR", "FORMERR"]),
        ),
        (
            "two OPT records",
            joined(&[&header([1, 0, 0, 2]), &question, &good, &good]),
            FORMERR,
        ),
        (
            "an OPT that is announced and missing",
            joined(&[&header([1, 0, 0, 1]), &question]),
            FORMERR,
        ),
        (
            "an OPT with a name",
            with_opt(&opt(&[1, b'a', 0], 1232, 0, &[])?),
            FORMERR,
        ),
        ("an OPT that is cut", with_opt(&good[..7]), FORMERR),
        (
            "an OPT shorter than it says",
            with_opt(&changed(&good, &[(10, &[9])])),
            FORMERR,
        ),
        (
            "an option longer than the OPT",
            with_opt(&opt(&[0], 1232, 0, &[0, 10, 0, 8, 1])?),
            FORMERR,
        ),
        (
            "half an option",
            with_opt(&opt(&[0], 1232, 0, &[0, 10])?),
            FORMERR,
        ),
        (
            "EDNS version 1",
            with_opt(&opt(&[0], 1232, 1, &[])?),
            Back::Code(&["BADVERS", "BADSIG"]),
        ),
        ("EDNS size 0", with_opt(&opt(&[0], 0, 0, &[])?), NOERROR),
        ("EDNS size 511", with_opt(&opt(&[0], 511, 0, &[])?), NOERROR),
        (
            "EDNS size 65535",
            with_opt(&opt(&[0], 65535, 0, &[])?),
            NOERROR,
        ),
        (
            "an unknown option",
            with_opt(&opt(&[0], 1232, 0, &[0xfd, 0xe9, 0, 2, 1, 2])?),
            NOERROR,
        ),
        (
            "two answers in a query",
            joined(&[&header([1, 2, 0, 0]), &question, &record, &record]),
            FORMERR,
        ),
        (
            "two authorities in a query",
            joined(&[&header([1, 0, 2, 0]), &question, &record, &record]),
            FORMERR,
        ),
        (
            "three additionals in a query",
            joined(&[&header([1, 0, 0, 3]), &question, &record, &record, &good]),
            FORMERR,
        ),
        (
            "an answer announced and missing",
            joined(&[&header([1, 1, 0, 0]), &question]),
            FORMERR,
        ),
        (
            "class ANY",
            joined(&[&plain[..plain.len() - 1], &[255]]),
            REFUSED,
        ),
        (
            "class 0",
            joined(&[&plain[..plain.len() - 1], &[0]]),
            REFUSED,
        ),
        (
            "class CHAOS",
            joined(&[&plain[..plain.len() - 1], &[3]]),
            REFUSED,
        ),
        (
            "type 0",
            changed(&plain, &[(plain.len() - 3, &[0])]),
            Back::Code(&["NOERROR", "FORMERR", "REFUSED", "NOTIMP"]),
        ),
        (
            "type OPT",
            changed(&plain, &[(plain.len() - 3, &[41])]),
            Back::Code(&["NOERROR", "FORMERR", "REFUSED", "NOTIMP"]),
        ),
        (
            "all other flags",
            changed(&plain, &[(2, &[0x07, 0xff])]),
            Back::Code(&["NOERROR"]),
        ),
        (
            "octets that are no letters",
            asked(&[3, 0, 255, b'.', 0]),
            Back::Code(&["SERVFAIL", "NXDOMAIN"]),
        ),
        ("the root", asked(&[0]), Back::Code(&["SERVFAIL"])),
        ("2,000 octets of nothing", vec![0; 2000], Back::Anything),
        ("60,000 octets", vec![0x55; 60_000], Back::Anything),
        ("NOTIFY", changed(&plain, &[(2, &[0x20])]), Back::Anything),
    ];
    for (name, opcode) in [
        ("IQUERY", 1_u8),
        ("STATUS", 2),
        ("opcode 3", 3),
        ("UPDATE", 5),
        ("opcode 15", 15),
    ] {
        all.push((name, changed(&plain, &[(2, &[opcode << 3])]), NOTIMP));
    }
    Ok(all)
}

fn check(name: &str, packet: &[u8], back: Back, reply: Option<Vec<u8>>) -> Result<()> {
    let codes = match (back, &reply) {
        (Back::Anything, _) | (Back::Nothing, None) => return Ok(()),
        (Back::Nothing, Some(bytes)) => bail!("{name}: a reply of {} octets", bytes.len()),
        (Back::Code(codes), None) => bail!("{name}: silence, not {codes:?}"),
        (Back::Code(codes), Some(_)) => codes,
    };
    let reply = Reply::decode(reply.unwrap_or_default()).with_context(|| name.to_owned())?;
    ensure!(
        codes.contains(&reply.rcode.as_str()),
        "{name}: {codes:?} expected, got {reply}"
    );
    ensure!(
        Some(reply.id.to_be_bytes().as_slice()) == packet.get(..2),
        "{name}: another id"
    );
    ensure!(
        reply.has_flag("QR") && !reply.has_flag("Z"),
        "{name}: {reply}"
    );
    Ok(())
}

#[test]
fn every_broken_packet_gets_its_answer_over_udp() -> Result<()> {
    let server = start()?;
    let client = server.client().with_patience(Duration::from_secs(2));
    let before = server.log().lines().count();
    let mut wrong = Vec::new();
    for (name, packet, back) in packets()? {
        let patience = match back {
            Back::Code(_) => Duration::from_secs(2),
            Back::Nothing | Back::Anything => SILENCE,
        };
        let reply = client.with_patience(patience).udp(&packet)?;
        wrong.extend(
            check(name, &packet, back, reply)
                .err()
                .map(|error| format!("{error:#}")),
        );
    }
    still_answers(&client)?;
    let log = server.log();
    if log.lines().count() != before {
        wrong.push(format!("the log grew: {}", server.log_tail()));
    }
    ensure!(
        wrong.is_empty(),
        "{} packets:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

#[test]
fn every_broken_packet_gets_its_answer_over_tcp() -> Result<()> {
    let server = start()?;
    let client = server.client();
    let before = server.log().lines().count();
    let mut wrong = Vec::new();
    for (name, packet, back) in packets()? {
        let patience = match back {
            Back::Code(_) => Duration::from_secs(2),
            Back::Nothing | Back::Anything => SILENCE,
        };
        let mut stream = client.with_patience(patience).tcp()?;
        stream.send(&packet)?;
        let reply = stream.receive()?;
        wrong.extend(
            check(name, &packet, back, reply)
                .err()
                .map(|error| format!("{error:#}")),
        );
    }
    still_answers(&client)?;
    if server.log().lines().count() != before {
        wrong.push(format!("the log grew: {}", server.log_tail()));
    }
    ensure!(
        wrong.is_empty(),
        "{} packets:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// Queries with octets changed, cut or added at random, by the thousand.
#[test]
fn nothing_that_is_sent_stops_it() -> Result<()> {
    const PACKETS: usize = 30_000;
    let server = start()?;
    let client = server.client();
    let before = server.log().lines().count();
    let seeds = packets()?;
    let socket = client.socket()?;
    socket.set_nonblocking(true)?;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |limit: usize| -> Result<usize> {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        Ok(usize::try_from(state % u64::try_from(limit.max(1))?)?)
    };
    let mut buffer = [0; 4096];
    for _ in 0..PACKETS {
        let mut packet = seeds[random(seeds.len())?].1.clone();
        packet.truncate(1500);
        for _ in 0..=random(4)? {
            let at = random(packet.len())?;
            if let Some(octet) = packet.get_mut(at) {
                *octet = u8::try_from(random(256)?)?;
            }
        }
        if random(4)? == 0 {
            packet.truncate(random(packet.len())?);
        }
        // A full socket buffer loses a packet; there are more.
        drop(socket.send(&packet));
        while socket.recv(&mut buffer).is_ok() {}
    }
    still_answers(&client)?;
    let grown = server.log().lines().count() - before;
    ensure!(grown == 0, "{grown} lines logged:\n{}", server.log_tail());
    Ok(())
}

#[test]
fn a_query_may_come_in_pieces_over_tcp() -> Result<()> {
    let server = start()?;
    let query = Query::new(SERVICE, "A")?;
    let message = query.encode()?;
    let mut framed = u16::try_from(message.len())?.to_be_bytes().to_vec();
    framed.extend(&message);
    framed.extend(framed.clone());
    let mut stream = server.client().tcp()?;
    for piece in framed.chunks(7) {
        stream.send_raw(piece)?;
        std::thread::sleep(Duration::from_millis(5));
    }
    for _ in 0..2 {
        let reply = Reply::decode(stream.receive()?.context("no reply")?)?;
        ensure!(reply.data("A") == ["10.96.0.7"], "{reply}");
    }
    Ok(())
}

#[test]
fn lies_about_lengths_over_tcp_harm_nobody() -> Result<()> {
    let server = start()?;
    let client = server.client();
    let message = Query::new(SERVICE, "A")?.encode()?;
    let lies: [(&str, Vec<u8>); 5] = [
        ("a length of nothing", vec![0, 0]),
        ("a message shorter than a header", vec![0, 3, 1, 2, 3]),
        ("half a length", vec![0]),
        (
            "much announced, little sent",
            joined(&[&[0xff, 0xff], &message]),
        ),
        (
            "a length that cuts the message",
            joined(&[&[0, 20], &message]),
        ),
    ];
    let before = server.log().lines().count();
    for (name, octets) in lies {
        let mut stream = client.with_patience(SILENCE).tcp()?;
        stream.send_raw(&octets).context(name)?;
        // Whatever it answers, it must not hold others up.
        drop(stream.receive());
        drop(stream);
        still_answers(&client).context(name)?;
    }
    ensure!(
        server.log().lines().count() == before,
        "{}",
        server.log_tail()
    );
    Ok(())
}

/// 300 connections that say nothing, or half a query, hold nobody up, and are closed in the end.
#[test]
fn slow_tcp_clients_hold_nobody_up_and_are_closed() -> Result<()> {
    const SLOW: usize = 300;
    /// The first query must be whole after 3 s; some time is left for a busy machine.
    const CLOSED: Duration = Duration::from_secs(12);
    let server = start()?;
    let client = server.client();
    let message = Query::new(SERVICE, "A")?.encode()?;
    let mut slow = Vec::new();
    for number in 0..SLOW {
        let mut stream = client.with_patience(CLOSED).tcp()?;
        if number % 2 == 0 {
            stream.send_raw(&[0, u8::try_from(message.len())?])?;
            stream.send_raw(&message[..10])?;
        }
        slow.push(stream);
    }
    let began = Instant::now();
    still_answers(&client)?;
    ensure!(
        began.elapsed() < Duration::from_secs(2),
        "slow clients hold others up: {:?}",
        began.elapsed()
    );
    for stream in [0, 1, SLOW - 1] {
        ensure!(
            slow[stream].is_closed()?,
            "connection {stream} is open after {:?}",
            began.elapsed()
        );
    }
    still_answers(&client)
}

fn edns(name: &str, rtype: &str, size: u16) -> Result<Query> {
    Ok(Query::new(name, rtype)?.with_edns(size))
}

#[test]
fn a_reply_that_does_not_fit_says_so_and_keeps_its_opt() -> Result<()> {
    let server = start()?;
    let client = server.client();
    for rtype in ["A", "SRV"] {
        let whole = client.query_tcp(&Query::new(MANY, rtype)?)?;
        ensure!(
            whole.answer.len() == ENDPOINTS && !whole.has_flag("TC"),
            "{whole}"
        );
        ensure!(whole.opt.is_none(), "an OPT nobody asked for");
        for (size, limit) in [
            (None, 512),
            (Some(0), 512),
            (Some(512), 512),
            (Some(700), 700),
            (Some(1232), 1232),
            (Some(1500), 1500),
        ] {
            let query = match size {
                None => Query::new(MANY, rtype)?,
                Some(size) => edns(MANY, rtype, size)?,
            };
            let reply = client.query(&query)?;
            let title = format!("{rtype} with EDNS size {size:?}");
            ensure!(
                reply.bytes.len() <= limit,
                "{title}: {} octets",
                reply.bytes.len()
            );
            ensure!(reply.has_flag("TC"), "{title}: no TC");
            ensure!(reply.rcode == "NOERROR", "{title}: {}", reply.rcode);
            ensure!(
                reply.opt.is_some() == size.is_some(),
                "{title}: {:?}",
                reply.opt
            );
            ensure!(
                reply
                    .answer
                    .iter()
                    .all(|record| whole.answer.iter().any(|all| all.data == record.data)),
                "{title}: a record that is not there"
            );
        }
    }
    let reply = client.query(&edns(MANY, "A", 4096)?)?;
    ensure!(
        reply.answer.len() == ENDPOINTS && !reply.has_flag("TC"),
        "4096 octets are enough: {}",
        reply.answer.len()
    );
    Ok(())
}

#[test]
fn edns_is_answered_with_edns_and_only_then() -> Result<()> {
    let server = start()?;
    let client = server.client();
    ensure!(
        client.ask(SERVICE, "A")?.opt.is_none(),
        "an OPT nobody asked for"
    );
    let cookie = (10, vec![1, 2, 3, 4, 5, 6, 7, 8]);
    for dnssec_ok in [false, true] {
        for options in [Vec::new(), vec![cookie.clone(), (65001, vec![9])]] {
            let mut query = Query::new(SERVICE, "A")?;
            query.edns = Some(Edns {
                size: 4096,
                version: 0,
                dnssec_ok,
                options,
            });
            let reply = client.query(&query)?;
            let opt = reply.opt.clone().context("no OPT")?;
            ensure!(opt.version == 0 && opt.dnssec_ok == dnssec_ok, "{opt:?}");
            ensure!(opt.size >= 512, "{opt:?}");
            ensure!(
                !opt.options.iter().any(|(code, _)| *code == 65001),
                "an unknown option came back"
            );
            ensure!(reply.data("A") == ["10.96.0.7"], "{reply}");
        }
    }
    let mut query = edns(SERVICE, "A", 1232)?;
    if let Some(edns) = &mut query.edns {
        edns.version = 3;
    }
    let reply = client.query(&query)?;
    let opt = reply.opt.clone().context("no OPT")?;
    ensure!(opt.version == 0 && reply.answer.is_empty(), "{reply}");
    Ok(())
}

#[test]
fn replies_repeat_the_question_bit_by_bit() -> Result<()> {
    let server = start()?;
    let client = server.client();
    // `query` itself compares name and case with what was sent.
    for name in [
        "SvC1.DeFaUlT.svc.cluster.LOCAL.",
        "nOpE.default.svc.cluster.local.",
        "wWw.eXaMpLe.OrG.",
    ] {
        for (rd, cd) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut query = Query::new(name, "A")?;
            (query.rd, query.cd) = (rd, cd);
            for reply in [client.query(&query)?, client.query_tcp(&query)?] {
                ensure!(
                    reply.has_flag("RD") == rd && reply.has_flag("CD") == cd,
                    "{reply}"
                );
                ensure!(!reply.has_flag("RA") && !reply.has_flag("AD"), "{reply}");
            }
        }
    }
    Ok(())
}

#[test]
fn bufsize_caps_what_a_client_says_it_can_take() -> Result<()> {
    let corefile = COREFILE.replace("    ready", "    bufsize 600\n    ready");
    let server = DnsServer::start(Setup::new(&corefile).with_objects(&objects()))?;
    let reply = server.client().query(&edns(MANY, "A", 4096)?)?;
    ensure!(
        reply.has_flag("TC") && reply.bytes.len() <= 600,
        "{} octets",
        reply.bytes.len()
    );
    Ok(())
}
