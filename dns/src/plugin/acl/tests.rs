use crate::plugin::Outcome;
use crate::plugin::trial::{Behind, Trial, query, reply};
use crate::wire::{EdeCode, Rcode};

/// What clients get: a code, `filtered` or nothing.
async fn got(acl: &str, client: &str, question: &str) -> String {
    let behind = Behind::new("behind", |exchange| {
        reply(exchange, Rcode::NOERROR, &["an x. 5 A 1.2.3.4"])
    });
    let block = Trial::new(acl, vec![behind]).unwrap();
    let mut exchange = query(question);
    let port = if client.contains(':') {
        format!("[{client}]:53")
    } else {
        format!("{client}:53")
    };
    exchange.request.source = port.parse().unwrap();
    if block.run(&mut exchange).await == Outcome::Dropped {
        return "nothing".to_owned();
    }
    assert_eq!(exchange.error, None, "it is no error");
    match exchange.reply.ede.as_ref().map(|(code, _)| *code) {
        Some(EdeCode::FILTERED) => format!("filtered {}", exchange.reply.rcode),
        Some(EdeCode::BLOCKED) => format!("blocked {}", exchange.reply.rcode),
        _ => "an answer".to_owned(),
    }
}

#[tokio::test]
async fn the_first_line_that_fits_decides() {
    let private = "acl {\nallow net 192.168.1.0/24\nblock net 192.168.0.0/16\n}";
    let only = "acl {\nallow net 192.168.0.0/24 192.168.1.7\nblock\n}";
    let by_zone = "acl a.o {\ndrop net *\n}\nacl o {\nfilter type A *\n}";
    let six = "acl {\nblock net 2001:db8:abcd:12::/64\n}";
    let typed = "acl {\nBLOCK type A net 10.0.0.0/8\nfilter TYPE ANY\n}";
    let cases = [
        (private, "192.168.1.2", "x. A", "an answer"),
        (private, "192.168.2.2", "x. A", "blocked REFUSED"),
        (private, "10.0.0.1", "x. A", "an answer"),
        (only, "192.168.0.9", "x. A", "an answer"),
        (only, "192.168.1.7", "x. A", "an answer"),
        (only, "192.168.1.8", "x. A", "blocked REFUSED"),
        (only, "::1", "x. A", "blocked REFUSED"),
        (by_zone, "10.0.0.1", "x.A.o. A", "nothing"),
        (by_zone, "10.0.0.1", "x.b.o. TXT", "filtered NOERROR"),
        (by_zone, "10.0.0.1", "x.p. A", "an answer"),
        (six, "2001:db8:abcd:12::1", "x. AAAA", "blocked REFUSED"),
        (six, "2001:db8:abcd:13::1", "x. AAAA", "an answer"),
        (typed, "10.1.1.1", "x. A", "blocked REFUSED"),
        (typed, "10.1.1.1", "x. AAAA", "an answer"),
        (typed, "11.1.1.1", "x. A", "an answer"),
        (typed, "11.1.1.1", "x. ANY", "filtered NOERROR"),
        ("acl", "11.1.1.1", "x. ANY", "an answer"),
    ];
    for (acl, client, question, expected) in cases {
        assert_eq!(
            got(acl, client, question).await,
            expected,
            "{acl} {client} {question}"
        );
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let cases = [
        (
            "deny net *",
            "unknown option `deny`; known are: allow, block, filter, drop",
        ),
        (
            "block from 10.0.0.0/8",
            "expected `type` or `net`, found `from`",
        ),
        ("block type", "nothing follows `type`"),
        ("block net type A", "nothing follows `net`"),
        ("block type NONSENSE", "`NONSENSE` is not a record type"),
        (
            "block net 10.0.0.0/33",
            "`10.0.0.0/33` is neither an address nor a network",
        ),
    ];
    for (line, expected) in cases {
        let message = Trial::refused(&format!("acl {{\n{line}\n}}"));
        assert!(message.starts_with(expected), "{line}: {message}");
    }
}
