use std::sync::{Arc, Mutex};

use crate::plugin::testing::{Answers, Refuses, TestBlock, block};
use crate::wire::{Name, Question, Rcode, Record, Rtype, Section};

fn templates(directives: &str) -> TestBlock {
    block(".", directives, vec![Arc::new(Refuses)]).unwrap()
}

const ADDRESSES: &str = r#"
template IN A example {
    match (^|[.])ip-10-(?P<b>[0-9]*)-(?P<c>[0-9]*)-(?P<d>[0-9]*)[.]example[.]$
    answer "{{ .Name }} 60 IN A 10.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}"
    fallthrough
}
template IN MX example {
    match ^ip-10-(?P<b>[0-9]*)-(?P<c>[0-9]*)-(?P<d>[0-9]*)[.]example[.]$
    answer "{{ .Name }} 60 IN MX 10 {{ .Name }}"
    additional "{{ .Name }} 60 IN A 10.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}"
    authority "example. IN NS ns0.example."
    additional "ns0.example. 60 IN A 203.0.113.8"
}"#;

#[test]
fn questions_get_what_the_templates_make() {
    let cases = [
        (
            ADDRESSES,
            "IP-10-95-12-8.Example A",
            "NOERROR ip-10-95-12-8.example. 60 IN A 10.95.12.8",
        ),
        (
            ADDRESSES,
            "a.ip-10-1-2-3.example A",
            "NOERROR a.ip-10-1-2-3.example. 60 IN A 10.1.2.3",
        ),
        // No pattern matches: on to the next plugin, or an error.
        (ADDRESSES, "other.example A", "REFUSED"),
        (ADDRESSES, "other.example MX", "SERVFAIL"),
        // Another type, another zone.
        (ADDRESSES, "ip-10-95-12-8.example AAAA", "REFUSED"),
        (ADDRESSES, "ip-10-95-12-8.example.org A", "REFUSED"),
        // Not an address in the end.
        (ADDRESSES, "ip-10-95-12-.example A", "SERVFAIL"),
        (
            "template ANY ANY {\n rcode NXDOMAIN\n}",
            "a.b TXT",
            "NXDOMAIN",
        ),
        (
            "template ANY ANY {\n rcode SERVFAIL\n}",
            "a.b TXT",
            "SERVFAIL",
        ),
        ("template ANY ANY", "a.b TXT", "NOERROR"),
        (
            "template IN A . {\n answer \"{{ .Name }} 60 IN A {{ .Remote }}\"\n}",
            "x A",
            "NOERROR x. 60 IN A 10.240.0.1",
        ),
        (
            "template IN A x {\n match ^(?P<h>[0-9a-f]{2})[.]x[.]$\n answer \"{{ .Name }} IN A 10.0.0.{{ parseInt .Group.h 16 8 }}\"\n}",
            "ff.x A",
            "NOERROR ff.x. 3600 IN A 10.0.0.255",
        ),
        // The type and class asked for, or the template's when any is asked for.
        (
            "template IN TXT . {\n answer \"{{ .Name }} TXT {{ .Type }}-{{ .Class }}\"\n}",
            "x ANY",
            "NOERROR x. 3600 IN TXT \"TXT-IN\"",
        ),
        (
            "template ANY ANY . {\n answer \"{{ .Name }} TXT {{ .Type }}-{{ .Class }}\"\n}",
            "x MX",
            "NOERROR x. 3600 IN TXT \"MX-IN\"",
        ),
        // The first pattern that matches counts.
        (
            "template IN A . {\n match ^(a)[.] ^(.)[.]\n answer \"{{ .Name }} A 10.0.0.{{ len .Match }}\"\n match x\n}",
            "b A",
            "NOERROR b. 3600 IN A 10.0.0.2",
        ),
        (
            "template IN A . {\n match nothing\n fallthrough example.org\n}",
            "b A",
            "SERVFAIL",
        ),
        (
            "template IN A . {\n match nothing\n fallthrough example.org\n}",
            "b.example.org A",
            "REFUSED",
        ),
        // What falls through comes to the next template.
        (
            "template IN A . {\n match nothing\n fallthrough\n}\ntemplate IN A . {\n rcode NXDOMAIN\n}",
            "b A",
            "NXDOMAIN",
        ),
        // A broken template.
        (
            "template IN A . {\n answer \"{{ .Name }} TXT {{ index .Match 2 }}\"\n}",
            "b A",
            "SERVFAIL",
        ),
        (
            "template IN A . {\n answer \"{{ .Name }}\"\n}",
            "b A",
            "SERVFAIL",
        ),
        (
            "template IN A . {\n additional \"{{ .Name }}\"\n}",
            "b A",
            "SERVFAIL",
        ),
        // One that says nothing adds no record.
        (
            "template IN A . {\n answer \"{{ if eq .Name \\\"a.\\\" }}a A 10.0.0.1{{ end }}\"\n}",
            "a A",
            "NOERROR a. 3600 IN A 10.0.0.1",
        ),
        (
            "template IN A . {\n answer \"{{ if eq .Name \\\"a.\\\" }}a A 10.0.0.1{{ end }}\"\n}",
            "b A",
            "NOERROR",
        ),
        (
            "template IN A . {\n upstream\n answer \"a 7 A 10.0.0.1\" \"a 7 A 10.0.0.2\"\n}",
            "a A",
            "NOERROR a. 7 IN A 10.0.0.1; a. 7 IN A 10.0.0.2",
        ),
    ];
    for (directives, question, expected) in cases {
        assert_eq!(
            templates(directives).told(question),
            expected,
            "{directives}: {question}"
        );
    }
}

#[test]
fn all_sections_are_filled() {
    let asked = templates(ADDRESSES).ask("ip-10-1-2-3.example MX").unwrap();
    assert!(asked.authoritative && asked.answered_by == "template");
    assert_eq!(
        asked.answer,
        ["ip-10-1-2-3.example. 60 IN MX 10 ip-10-1-2-3.example."]
    );
    assert_eq!(asked.authority, ["example. 3600 IN NS ns0.example."]);
    assert_eq!(
        asked.additional,
        [
            "ip-10-1-2-3.example. 60 IN A 10.1.2.3",
            "ns0.example. 60 IN A 203.0.113.8"
        ]
    );
}

#[test]
fn an_extended_error_is_sent_to_who_understands_it() {
    for rcode in ["NXDOMAIN", "SERVFAIL"] {
        let block = templates(&format!(
            "template ANY ANY invalid {{\n rcode {rcode}\n ederror 21 \"Blocked\"\n}}"
        ));
        let asked = block.ask_with("a.invalid A", Some(&[])).unwrap();
        assert_eq!(asked.rcode, rcode);
        assert_eq!(asked.options, [(15, b"\x00\x15Blocked".to_vec())]);
        assert_eq!(block.ask("a.invalid A").unwrap().options, []);
    }
}

#[test]
fn other_classes_come_to_templates_that_take_them() {
    let class = |directive: &str| templates(directive).chain.plugins()[0].any_class();
    assert!(class("template ANY ANY"));
    assert!(class("template CH TXT"));
    assert!(!class("template IN ANY"));
    let block = templates("template CH TXT {\n answer \"{{ .Name }} 0 CH TXT {{ .Class }}\"\n}");
    assert_eq!(block.told("a TXT CH"), "NOERROR a. 0 CH TXT \"CH\"");
    assert_eq!(block.told("a TXT"), "REFUSED");
}

/// What stands behind: an address for `target.`, a chain for `chain.`.
fn behind(question: &Question) -> (Rcode, Vec<(Section, Record)>) {
    let name = |text: &str| Name::from_text(text).unwrap();
    let address = |owner: &str| Record::new(name(owner), Rtype::A, 30, vec![10, 0, 0, 1]);
    let records = match &*question.lower().to_string() {
        "target." => vec![address("target")],
        "chain." => vec![
            Record::cname(name("chain"), 9, &name("target")),
            address("target"),
        ],
        _ => return (Rcode::NXDOMAIN, Vec::new()),
    };
    (
        Rcode::NOERROR,
        records
            .into_iter()
            .map(|record| (Section::Answer, record))
            .collect(),
    )
}

#[test]
fn a_cname_is_followed_for_addresses() {
    let cname = |to: &str| {
        let directive =
            format!("template IN ANY from {{\n answer \"{{{{ .Name }}}} 60 IN CNAME {to}\"\n}}");
        let behind = Answers {
            answer: behind,
            asked: Arc::new(Mutex::new(Vec::new())),
        };
        block(".", &directive, vec![Arc::new(behind)]).unwrap()
    };
    let cases = [
        (
            "target",
            "from A",
            "NOERROR from. 60 IN CNAME target.; target. 30 IN A 10.0.0.1",
        ),
        (
            "chain",
            "from A",
            "NOERROR from. 60 IN CNAME chain.; chain. 9 IN CNAME target.; target. 30 IN A 10.0.0.1",
        ),
        ("nowhere", "from A", "NOERROR from. 60 IN CNAME nowhere."),
        ("target", "from TXT", "NOERROR from. 60 IN CNAME target."),
        // One that leads to itself ends.
        ("from", "from CNAME", "NOERROR from. 60 IN CNAME from."),
    ];
    for (to, question, expected) in cases {
        assert_eq!(cname(to).told(question), expected, "{to}: {question}");
    }
    let loops = cname("from").told("from A");
    assert!(loops.matches("CNAME").count() <= 10, "{loops}");
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let cases = [
        (
            "template",
            "Corefile:2: `template` takes a class, a type and perhaps zones",
        ),
        (
            "template ANY",
            "Corefile:2: `template` takes a class, a type and perhaps zones",
        ),
        (
            "template X ANY",
            "Corefile:2: `X` is not a class, such as IN or ANY",
        ),
        (
            "template ANY X",
            "Corefile:2: `X` is not a type, such as A or ANY",
        ),
        (
            "template ANY ANY a..b",
            "Corefile:2: `a..b` is not a domain name",
        ),
        (
            "template ANY ANY {\n notavailable\n}",
            "Corefile:3: unknown option `notavailable`; known are: match, answer, additional, authority, rcode, ederror, fallthrough",
        ),
        (
            "template ANY ANY {\n answer\n}",
            "Corefile:3: `answer` takes records as in a zone file, each in quotes, but has no argument",
        ),
        (
            "template ANY ANY {\n match\n}",
            "Corefile:3: `match` takes regular expressions, but has no argument",
        ),
        (
            "template ANY ANY {\n match (\n}",
            "Corefile:3: `(` is not a regular expression: unclosed group",
        ),
        (
            "template ANY ANY {\n rcode\n}",
            "Corefile:3: `rcode` takes a response code such as NXDOMAIN, but has no argument",
        ),
        (
            "template ANY ANY {\n rcode UNDEFINED\n}",
            "Corefile:3: `UNDEFINED` is not a response code",
        ),
        (
            "template ANY ANY {\n answer \"{{\"\n}",
            "Corefile:3: template `{{`: `{{` is not closed",
        ),
        (
            "template ANY ANY {\n authority \"{{ notAFunction }}\"\n}",
            "Corefile:3: template `{{ notAFunction }}`: there is no function `notAFunction`",
        ),
        (
            "template ANY ANY {\n additional \"{{ .Grup.a }}\"\n}",
            "Corefile:3: template `{{ .Grup.a }}`: there is no field .Grup here",
        ),
        (
            "template ANY ANY {\n answer \"a IN A 10.0.0\"\n}",
            "Corefile:3: `a IN A 10.0.0` is not a record",
        ),
        (
            "template ANY ANY {\n ederror x\n}",
            "Corefile:3: the code of an extended error must be a number from 0 to 65535, not `x`",
        ),
        (
            "template ANY ANY {\n ederror 1 b c\n}",
            "Corefile:3: `ederror` takes a code of RFC 8914 and perhaps a text, but has 3 arguments",
        ),
        (
            "template ANY ANY {\n var a 1\n}",
            "Corefile:3: `var` can't be had: the expr language is not built in",
        ),
        (
            "template ANY ANY {\n expr true\n}",
            "Corefile:3: `expr` can't be had: the expr language is not built in",
        ),
    ];
    for (directive, expected) in cases {
        let error = block(".", directive, Vec::new()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{directive}: {error}");
    }
    let long = format!("template ANY ANY {{\n match {}\n}}", "a".repeat(10_001));
    let error = block(".", &long, Vec::new()).unwrap_err().to_string();
    assert_eq!(
        error,
        "Corefile:3: a regular expression has at most 10000 octets, this one 10001"
    );
}
