use std::sync::{Arc, Mutex};

use crate::plugin::testing::{Answers, Asked, TestBlock, block};
use crate::wire::{Name, Question, Rcode, Record, Rtype, Section};

fn name(text: &str) -> Name {
    Name::from_text(text).unwrap()
}

/// Every name has an address of TTL 50 with its own owner; some have something else.
fn behind(question: &Question) -> (Rcode, Vec<(Section, Record)>) {
    let owner = || question.name().clone();
    let value = |rtype, before: &[u8], text: &str| {
        Record::new(owner(), rtype, 50, [before, name(text).as_wire()].concat())
    };
    let answer = |records: Vec<Record>| {
        (
            Rcode::NOERROR,
            records
                .into_iter()
                .map(|record| (Section::Answer, record))
                .collect(),
        )
    };
    let address =
        |owner: &str, last: u8| Record::new(name(owner), Rtype::A, 50, vec![10, 0, 0, last]);
    let cname = |from: &str, to: &str| Record::cname(name(from), 50, &name(to));
    match (&*question.lower().to_string(), question.rtype) {
        ("nx.example.", _) => (Rcode::NXDOMAIN, Vec::new()),
        ("fail.example.", _) => (Rcode::SERVFAIL, Vec::new()),
        ("app.example.", Rtype::A) => answer(vec![
            cname("app.example", "app.middle"),
            cname("app.middle", "App.cdn.example.net"),
            address("app.cdn.example.net", 1),
            address("app.cdn.example.net", 2),
        ]),
        (_, Rtype::A) => answer(vec![Record::new(owner(), Rtype::A, 50, vec![10, 0, 0, 7])]),
        (_, Rtype::SRV) => {
            let mut additional = address("pod.svc.internal", 3);
            additional.owner = name("pod.svc.internal");
            let (code, mut records) = answer(vec![value(
                Rtype::SRV,
                &[0, 1, 0, 2, 0, 80],
                "pod.svc.internal",
            )]);
            records.push((Section::Additional, additional));
            (code, records)
        }
        (_, Rtype::MX) => answer(vec![value(Rtype::MX, &[0, 10], "mx.svc.internal")]),
        (_, Rtype::PTR) => answer(vec![value(Rtype::PTR, &[], "ftp.service.internal")]),
        (_, Rtype::NAPTR) => {
            let before = b"\x00\x01\x00\x02\x01u\x03sip\x00";
            answer(vec![value(Rtype::NAPTR, before, "n.svc.internal")])
        }
        (_, Rtype::TXT) => (Rcode::NOERROR, Vec::new()),
        _ => (Rcode::NXDOMAIN, Vec::new()),
    }
}

struct Block {
    block: TestBlock,
    asked: Arc<Mutex<Vec<String>>>,
}

fn rules(directives: &str) -> Block {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let behind = Answers {
        answer: behind,
        asked: Arc::clone(&asked),
    };
    Block {
        block: block(".", directives, vec![Arc::new(behind)]).unwrap(),
        asked,
    }
}

impl Block {
    /// What the plugins behind were asked.
    fn asks(&self, question: &str) -> String {
        self.block.told(question);
        self.asked.lock().unwrap().remove(0)
    }

    fn ask(&self, question: &str) -> Asked {
        self.block.ask(question).unwrap()
    }
}

#[test]
fn questions_are_rewritten() {
    let cases = [
        ("name a.org b.org", "A.org A", "b.org. A IN"),
        ("name a.org b.org", "x.a.org A", "x.a.org. A IN"),
        ("name exact a.org. B.ORG.", "a.org A", "b.org. A IN"),
        (
            "name prefix foo bar",
            "foo.example.com A",
            "bar.example.com. A IN",
        ),
        (
            "name prefix foo. bar.",
            "foo.example.com A",
            "bar.example.com. A IN",
        ),
        ("name prefix foo bar", "coredns.foo A", "coredns.foo. A IN"),
        (
            "name suffix com org",
            "foo.example.com A",
            "foo.example.org. A IN",
        ),
        (
            "name suffix .com .org",
            "foo.example.com A",
            "foo.example.org. A IN",
        ),
        ("name suffix com org", "com.coredns A", "com.coredns. A IN"),
        (
            "name suffix .ingress.c.rocks nginx.c.rocks",
            "x.ingress.c.rocks A",
            "xnginx.c.rocks. A IN",
        ),
        (
            "name substring service.us-west-1.example.org service.us-west-1.consul",
            "ftp.service.us-west-1.example.org A",
            "ftp.service.us-west-1.consul. A IN",
        ),
        (
            "name substring service svc",
            "com.coredns A",
            "com.coredns. A IN",
        ),
        (
            "name regex (.*)-(us-west-1)\\.example\\.org {1}.service.{2}.consul",
            "FTP-us-west-1.example.org A",
            "ftp.service.us-west-1.consul. A IN",
        ),
        ("name regex ^a {0}.b", "x A", "x. A IN"),
        ("type A TXT", "a A", "a. TXT IN"),
        ("type ANY HINFO", "a ANY", "a. HINFO IN"),
        ("type MX TXT", "a A", "a. A IN"),
        ("class CH IN", "a TXT CH", "a. TXT IN"),
        ("class CH IN", "a TXT", "a. TXT IN"),
    ];
    for (rule, question, expected) in cases {
        let block = rules(&format!("rewrite {rule}"));
        assert_eq!(block.asks(question), expected, "{rule}: {question}");
        // The client gets its own question back.
        let words: Vec<_> = question.split(' ').collect();
        assert_eq!(
            block.ask(question).question,
            format!("{} {}", words[0], words[1]),
            "{rule}"
        );
    }
}

#[test]
fn rules_go_on_or_stop() {
    let chain = |directives: &str| rules(directives).asks("a.org A");
    assert_eq!(
        chain("rewrite name a.org b.org\nrewrite name b.org c.org"),
        "b.org. A IN"
    );
    assert_eq!(
        chain("rewrite stop name a.org b.org\nrewrite name b.org c.org"),
        "b.org. A IN"
    );
    assert_eq!(
        chain("rewrite continue name a.org b.org\nrewrite name b.org c.org"),
        "c.org. A IN"
    );
    assert_eq!(
        chain("rewrite CONTINUE name a.org b.org\nrewrite continue name x y\nrewrite type A TXT"),
        "b.org. TXT IN"
    );
    // A rule that does not match does not stop.
    assert_eq!(
        chain("rewrite name x.org y.org\nrewrite name a.org b.org"),
        "b.org. A IN"
    );
    assert_eq!(
        chain("rewrite stop {\n name\n regex ^(a)[.]org[.]$ {1}.b\n}"),
        "a.b. A IN"
    );
    assert_eq!(
        chain("rewrite continue {\n name a.org b.org\n}\nrewrite {\n name b.org c.org\n}"),
        "c.org. A IN"
    );
}

#[test]
fn replies_are_put_right() {
    let cases = [
        // An exact rule is mapped back without being told to, and names below it too.
        (
            "rewrite name a.org b.org",
            "A.org A",
            "NOERROR A.org. 50 IN A 10.0.0.7",
        ),
        (
            "rewrite name a.org svc.internal",
            "a.org SRV",
            "NOERROR a.org. 50 IN SRV 1 2 80 pod.a.org",
        ),
        (
            "rewrite name prefix foo bar",
            "foo.x A",
            "NOERROR bar.x. 50 IN A 10.0.0.7",
        ),
        (
            "rewrite name prefix foo bar answer auto",
            "foo.x A",
            "NOERROR foo.x. 50 IN A 10.0.0.7",
        ),
        (
            "rewrite name suffix com org answer auto",
            "foo.com A",
            "NOERROR foo.com. 50 IN A 10.0.0.7",
        ),
        (
            "rewrite name suffix .ingress.c.rocks nginx.c.rocks answer auto",
            "x.ingress.c.rocks A",
            "NOERROR x.ingress.c.rocks. 50 IN A 10.0.0.7",
        ),
        (
            "rewrite name suffix .com .internal answer auto",
            "a.com SRV",
            "NOERROR a.com. 50 IN SRV 1 2 80 pod.svc.com",
        ),
        (
            "rewrite name substring com. org. answer auto",
            "a.com.x A",
            "NOERROR a.com.x. 50 IN A 10.0.0.7",
        ),
        (
            "rewrite name substring .com. .org. answer auto",
            "a.com A",
            "NOERROR a.com. 50 IN A 10.0.0.7",
        ),
        (
            "rewrite name regex (.*).c.rocks {1}.c.maps answer auto",
            "foo.c.rocks A",
            "NOERROR foo.c.rocks. 50 IN A 10.0.0.7",
        ),
        (
            "rewrite name regex (.*).c.rocks {1}.c.maps answer name (.*).c.maps {1}.c.works",
            "foo.c.rocks A",
            "NOERROR foo.c.works. 50 IN A 10.0.0.7",
        ),
        (
            "rewrite name regex (.*).c.rocks {1}.c.maps",
            "foo.c.rocks A",
            "NOERROR foo.c.maps. 50 IN A 10.0.0.7",
        ),
        // Values.
        (
            "rewrite name suffix .arpa .arpa answer auto answer value (.*)\\.service\\.internal\\. {1}.rocks.",
            "1.in-addr.arpa PTR",
            "NOERROR 1.in-addr.arpa. 50 IN PTR ftp.rocks.",
        ),
        (
            "rewrite stop {\n name suffix .arpa .arpa\n answer name auto\n answer value (.*)\\.service\\.internal\\. {1}.rocks.\n}",
            "1.in-addr.arpa PTR",
            "NOERROR 1.in-addr.arpa. 50 IN PTR ftp.rocks.",
        ),
        (
            "rewrite name exact a b answer value (.*)[.]svc[.]internal {1}.out",
            "a MX",
            "NOERROR a. 50 IN MX 10 mx.out.",
        ),
        (
            "rewrite name exact a b answer value (.*)[.]svc[.]internal {1}.out",
            "a NAPTR",
            "NOERROR a. 50 IN NAPTR 1 2 \"u\" \"sip\" \"\" n.out.",
        ),
        (
            "rewrite name exact a b answer value (.*)[.]svc {1}.one value (.*)[.]internal[.] {1}.two",
            "a MX",
            "NOERROR a. 50 IN MX 10 mx.one.",
        ),
        // Two rules are undone last first.
        (
            "rewrite continue name a b\nrewrite name b c",
            "a A",
            "NOERROR a. 50 IN A 10.0.0.7",
        ),
        // A value that would be no name stays.
        (
            "rewrite name exact a b answer value (.*)[.]svc[.]internal {1}..out",
            "a MX",
            "NOERROR a. 50 IN MX 10 mx.svc.internal.",
        ),
        // TTLs.
        ("rewrite ttl a 7", "a A", "NOERROR a. 7 IN A 10.0.0.7"),
        ("rewrite ttl a 60-90", "a A", "NOERROR a. 60 IN A 10.0.0.7"),
        ("rewrite ttl a 60-", "a A", "NOERROR a. 60 IN A 10.0.0.7"),
        ("rewrite ttl a -30", "a A", "NOERROR a. 30 IN A 10.0.0.7"),
        ("rewrite ttl a 30-90", "a A", "NOERROR a. 50 IN A 10.0.0.7"),
        ("rewrite ttl b 7", "a A", "NOERROR a. 50 IN A 10.0.0.7"),
        (
            "rewrite continue {\n ttl regex (.*)\\.rocks 15\n}",
            "x.rocks A",
            "NOERROR x.rocks. 15 IN A 10.0.0.7",
        ),
        (
            "rewrite ttl suffix .org 15",
            "x.org A",
            "NOERROR x.org. 15 IN A 10.0.0.7",
        ),
        (
            "rewrite ttl prefix x 15",
            "x.org A",
            "NOERROR x.org. 15 IN A 10.0.0.7",
        ),
        (
            "rewrite ttl substring org 15",
            "x.org A",
            "NOERROR x.org. 15 IN A 10.0.0.7",
        ),
        (
            "rewrite continue name a b\nrewrite ttl b 7",
            "a A",
            "NOERROR a. 7 IN A 10.0.0.7",
        ),
        // Codes, also of replies without records.
        (
            "rewrite rcode fail.example SERVFAIL NXDOMAIN",
            "fail.example A",
            "NXDOMAIN",
        ),
        (
            "rewrite rcode suffix .example 2 0",
            "fail.example A",
            "NOERROR",
        ),
        (
            "rewrite rcode regex fail SERVFAIL REFUSED",
            "nx.example A",
            "NXDOMAIN",
        ),
        (
            "rewrite rcode regex .* NXDOMAIN NOERROR",
            "nx.example A",
            "NOERROR",
        ),
        (
            "rewrite rcode prefix a NOERROR nxdomain",
            "a.b A",
            "NXDOMAIN a.b. 50 IN A 10.0.0.7",
        ),
    ];
    for (directives, question, expected) in cases {
        let block = rules(directives);
        assert_eq!(
            block.block.told(question),
            expected,
            "{directives}: {question}"
        );
        let asked = question.split(' ').next().unwrap();
        assert!(
            block.ask(question).question.starts_with(asked),
            "{directives}"
        );
    }
}

#[test]
fn all_sections_are_put_right() {
    let asked = rules("rewrite continue name a.org svc.internal\nrewrite ttl svc.internal 5")
        .ask("a.org SRV");
    assert_eq!(asked.answer, ["a.org. 5 IN SRV 1 2 80 pod.a.org"]);
    assert_eq!(asked.additional, ["pod.a.org. 5 IN A 10.0.0.3"]);
    assert_eq!(asked.answered_by, "answers");
}

#[test]
fn a_name_that_is_none_fails_with_the_question_as_it_was() {
    let block = rules("rewrite name example.org example..org");
    let asked = block.ask("example.org A");
    assert_eq!(
        (&*asked.rcode, &*asked.question),
        ("SERVFAIL", "example.org A")
    );
    assert!(block.asked.lock().unwrap().is_empty());
}

#[test]
fn targets_of_cnames_are_rewritten_and_looked_up() {
    let app = "app.example. 50 IN CNAME app.middle.";
    let cases = [
        (
            "cname app.cdn.example.net other.com",
            format!(
                "NOERROR {app}; app.middle. 50 IN CNAME other.com.; other.com. 50 IN A 10.0.0.7"
            ),
        ),
        (
            "cname exact app.middle x.org.",
            "NOERROR app.example. 50 IN CNAME x.org.; x.org. 50 IN A 10.0.0.7".to_owned(),
        ),
        (
            "cname suffix .cdn.example.net. .other.com.",
            format!(
                "NOERROR {app}; app.middle. 50 IN CNAME app.other.com.; app.other.com. 50 IN A 10.0.0.7"
            ),
        ),
        (
            "cname prefix app.cdn. new.",
            format!(
                "NOERROR {app}; app.middle. 50 IN CNAME new.example.net.; new.example.net. 50 IN A 10.0.0.7"
            ),
        ),
        (
            "cname substring .cdn. .cdn2.",
            format!(
                "NOERROR {app}; app.middle. 50 IN CNAME app.cdn2.example.net.; app.cdn2.example.net. 50 IN A 10.0.0.7"
            ),
        ),
        (
            "cname regex (.*).cdn.example.net. {1}.other.cdn.com.",
            format!(
                "NOERROR {app}; app.middle. 50 IN CNAME App.other.cdn.com.; App.other.cdn.com. 50 IN A 10.0.0.7"
            ),
        ),
        (
            "cname nothing.org other.com",
            format!(
                "NOERROR {app}; app.middle. 50 IN CNAME App.cdn.example.net.; app.cdn.example.net. 50 IN A 10.0.0.1; app.cdn.example.net. 50 IN A 10.0.0.2"
            ),
        ),
    ];
    for (rule, expected) in cases {
        assert_eq!(
            rules(&format!("rewrite {rule}"))
                .block
                .told("app.example A"),
            expected,
            "{rule}"
        );
    }
    // A rule that leads back to itself ends.
    let told = rules("rewrite cname app.middle app.example")
        .block
        .told("app.example A");
    assert!(
        told.starts_with("NOERROR app.example. 50 IN CNAME app.example."),
        "{told}"
    );
}

/// Rule, options of the client, options behind, options in the reply.
type EdnsCase<'c> = (
    &'c str,
    &'c [(u16, &'c [u8])],
    &'c str,
    &'c [(u16, &'c [u8])],
);

#[test]
fn edns_options_are_changed_for_those_behind() {
    let client = &[(0xffee, b"old".as_slice()), (0xfff0, b"other".as_slice())][..];
    let none: &[(u16, &[u8])] = &[];
    let cases: &[EdnsCase<'_>] = &[
        (
            "local set 0xffee 0x616263",
            none,
            "65518=[97, 98, 99]",
            &[(0xffee, b"abc")],
        ),
        (
            "local set 65518 abc revert",
            none,
            "65518=[97, 98, 99]",
            none,
        ),
        (
            "local set 0xffee abc",
            client,
            "65518=[97, 98, 99] 65520=[111, 116, 104, 101, 114]",
            &[(0xffee, b"abc")],
        ),
        (
            "local set 0xffee abc revert",
            client,
            "65518=[97, 98, 99] 65520=[111, 116, 104, 101, 114]",
            &[(0xffee, b"old")],
        ),
        (
            "local append 0xffee abc",
            client,
            "65518=[111, 108, 100] 65520=[111, 116, 104, 101, 114]",
            &[(0xffee, b"old")],
        ),
        (
            "local append 0xffee abc",
            none,
            "65518=[97, 98, 99]",
            &[(0xffee, b"abc")],
        ),
        (
            "local replace 0xffee a",
            client,
            "65518=[97] 65520=[111, 116, 104, 101, 114]",
            &[(0xffee, b"a")],
        ),
        ("local replace 0xffee abc", none, "", none),
        (
            "local unset 0xffee",
            client,
            "65520=[111, 116, 104, 101, 114]",
            none,
        ),
        (
            "local set 0xffee {qname}",
            none,
            "65518=[97, 46]",
            &[(0xffee, b"a.")],
        ),
        (
            "local set 0xffee {qtype}",
            none,
            "65518=[0, 1]",
            &[(0xffee, b"\0\x01")],
        ),
        (
            "local set 0xffee {client_ip}",
            none,
            "65518=[10, 240, 0, 1]",
            &[(0xffee, b"\x0a\xf0\0\x01")],
        ),
        (
            "local set 0xffee {client_port} revert",
            none,
            "65518=[157, 20]",
            none,
        ),
        (
            "local set 0xffee {server_ip} revert",
            none,
            "65518=[10, 96, 0, 10]",
            none,
        ),
        (
            "local set 0xffee {server_port} revert",
            none,
            "65518=[0, 53]",
            none,
        ),
        (
            "local set 0xffee {protocol} revert",
            none,
            "65518=[117, 100, 112]",
            none,
        ),
        ("local set 0xffee {some/label}", none, "", none),
        ("nsid set", none, "3=[]", none),
        ("nsid append", &[(3, b"x")], "3=[120]", none),
        ("nsid replace", &[(3, b"x")], "3=[]", none),
        ("nsid unset", &[(3, b"x")], "", none),
        (
            "subnet set 24 56",
            none,
            "8=[0, 1, 24, 0, 10, 240, 0]",
            none,
        ),
        ("subnet replace 24 56", none, "", none),
        ("subnet unset", &[(8, b"\0\x01\0\0")], "", none),
    ];
    for (rule, client, behind, shown) in cases {
        let block = rules(&format!("rewrite edns0 {rule}"));
        let asked = block.block.ask_with("a A", Some(client)).unwrap();
        let seen = block.asked.lock().unwrap().remove(0);
        assert_eq!(
            seen.trim(),
            format!("a. A IN {behind}").trim(),
            "{rule} {client:?}"
        );
        let shown: Vec<_> = shown
            .iter()
            .map(|(code, content)| (*code, content.to_vec()))
            .collect();
        assert_eq!(asked.options, shown, "{rule} {client:?}");
    }
    // A client without EDNS gets none, but those behind do.
    let block = rules("rewrite edns0 local set 0xffee a");
    assert_eq!(block.asks("a A"), "a. A IN 65518=[97]");
    assert_eq!(block.ask("a A").options, []);
    // Only what is to be reverted is.
    let both = "rewrite continue {\n edns0 local set 0xffee abcd\n}\nrewrite edns0 local replace 0xffee bcde revert";
    let asked = rules(both).block.ask_with("a A", Some(&[])).unwrap();
    assert_eq!(asked.options, [(0xffee, b"abcd".to_vec())]);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let cases = [
        ("", "`rewrite` needs a field; known are: name"),
        ("continue", "`rewrite` needs a field; known are: name"),
        ("nmae a b", "unknown field `nmae`; known are: name"),
        ("answer name a b", "`answer` belongs behind a `name` rule"),
        ("name a", "`name` takes two names"),
        (
            "name like a b",
            "names are not matched by `like`; known are: exact",
        ),
        ("name regex ( b", "`(` is not a regular expression"),
        (
            "name regex (.*).a {1}.{2}.b",
            "`{1}.{2}.b` uses group 2, but `(.*).a` has 1",
        ),
        (
            "name suffix a b answer",
            "expected `auto`, `name` or `value` after `answer`",
        ),
        (
            "name suffix a b answer name",
            "`answer name` takes an expression and a name",
        ),
        (
            "name suffix a b answer other",
            "unknown answer `other`; known are: auto, name, value",
        ),
        (
            "name suffix a b other",
            "expected `answer` or nothing, found `other`",
        ),
        (
            "name regex a b answer name (.*).b {1}.{2}.a",
            "`{1}.{2}.a` uses group 2",
        ),
        (
            "name regex a b answer name (.*).b {1}.a value c",
            "`answer value` takes an expression and a name",
        ),
        (
            "name suffix a b answer auto answer name a b",
            "`answer name` cannot stand beside `answer auto`",
        ),
        ("type A", "`type` takes two types, but has 1 words"),
        ("type A X", "`X` is not a type"),
        ("class IN X", "`X` is not a class"),
        ("ttl a", "`ttl` needs names and 1 more words"),
        (
            "ttl a x",
            "expected seconds or a range such as 30-300, 30- or -30, found `x`",
        ),
        ("ttl a -", "expected seconds or a range"),
        ("ttl a 9-8", "expected seconds or a range"),
        ("ttl a 1-2-3", "expected seconds or a range"),
        (
            "ttl exact a 1 2",
            "`ttl` takes names and a number of seconds or a range, but has 2 words",
        ),
        ("rcode a 1", "`rcode` needs names and 2 more words"),
        ("rcode a 24 1", "`24` is not a response code"),
        ("rcode a SERVFAIL SORRY", "`SORRY` is not a response code"),
        ("cname a", "`cname` takes two targets"),
        ("cname like a b", "targets are matched by one of"),
        ("edns0 local", "`edns0` takes local, nsid or subnet"),
        ("edns0 local put 1 a", "unknown action `put`"),
        (
            "edns0 local set 0x1ffff a",
            "expected the code of an option",
        ),
        ("edns0 local set 1", "`local` takes a code and data"),
        (
            "edns0 local set 1 0xabc",
            "`0xabc` is not a whole number of octets",
        ),
        (
            "edns0 local set 1 0x+a",
            "`0x+a` is not a whole number of octets",
        ),
        (
            "edns0 local set 1 {who}",
            "unknown variable `{who}`; known are: {qname}",
        ),
        ("edns0 nsid set x", "`nsid` takes nothing behind the action"),
        (
            "edns0 subnet set 33 56",
            "the prefix length for IPv4 must be a number from 0 to 32, not `33`",
        ),
        (
            "edns0 subnet set 24 129",
            "the prefix length for IPv6 must be a number from 0 to 128, not `129`",
        ),
        (
            "edns0 other set 1 2",
            "unknown option `other`; known are: local, nsid, subnet",
        ),
        ("name a b {\n x\n}", "`rewrite` takes no block in braces"),
    ];
    for (rule, expected) in cases {
        let error = block(".", &format!("rewrite {rule}"), Vec::new())
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with(&format!("Corefile:2: {expected}")),
            "{rule}: {error}"
        );
    }
    for rule in [
        "name exact srv3.rocks srv4.rocks",
        "name suffix rocks rocks.",
        "name regex srv1.rocks 10",
        "name regex a b answer name b a name b a",
        "name regex a b answer name (.*).b {1}.a answer value (.*).b {1}.a",
        "name suffix a b answer value a b name a b",
        "rcode regex (.*)\\.rocks badsig 23",
        "ttl a 0",
    ] {
        assert!(
            block(".", &format!("rewrite {rule}"), Vec::new()).is_ok(),
            "{rule}"
        );
    }
}
