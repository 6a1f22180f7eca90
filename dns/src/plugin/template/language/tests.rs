use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Data, Program, Value};

fn data() -> Data {
    let matches = ["ip-10-7", "10", "", "7"].map(Value::text);
    let mut group: BTreeMap<_, _> = matches
        .iter()
        .enumerate()
        .map(|(at, value)| (at.to_string(), value.clone()))
        .collect();
    group.insert("a".to_owned(), Value::text("10"));
    group.insert("hex".to_owned(), Value::text("7f"));
    group.insert("none".to_owned(), Value::text(""));
    Data {
        zone: "example.".into(),
        name: "ip-10-7.example.".into(),
        regex: "^ip".into(),
        matches: Arc::new(matches),
        group: Arc::new(group),
        class: "IN".into(),
        rtype: "A".into(),
        remote: "192.0.2.1".into(),
        question_name: "IP-10-7.example.".into(),
        question_type: 1,
        question_class: 1,
        id: 4711,
        recursion_desired: true,
        checking_disabled: false,
        authentic_data: false,
    }
}

#[test]
fn templates_write_what_go_writes() {
    let cases = [
        ("plain", "plain"),
        ("", ""),
        (
            "{{ .Zone }}|{{.Name}}|{{ .Class }}|{{ .Type }}",
            "example.|ip-10-7.example.|IN|A",
        ),
        ("{{ .Remote }} {{ .Regex }}", "192.0.2.1 ^ip"),
        ("{{ .Group.a }}.{{ index .Group \"3\" }}", "10.7"),
        (
            "{{ .Group.missing }}|{{ index .Group \"missing\" }}|{{ .Group.none }}",
            "<no value>||",
        ),
        ("{{ index .Match 1 }}-{{ index .Match 3 }}", "10-7"),
        ("{{ .Match }}", "[ip-10-7 10  7]"),
        (
            "{{ .Question.Name }} {{ .Question.Qtype }} {{ .Question.Qclass }}",
            "IP-10-7.example. 1 1",
        ),
        (
            "{{ .Message.Id }} {{ .Message.RecursionDesired }}",
            "4711 true",
        ),
        ("{{ (index .Message.Question 0).Name }}", "IP-10-7.example."),
        ("{{ .Meta \"a/b\" }}x", "x"),
        ("{{ parseInt .Group.hex 16 8 }}", "127"),
        (
            "{{ parseInt \"0x10\" 0 0 }} {{ parseInt \"010\" 0 64 }}",
            "16 8",
        ),
        ("{{ .Group.hex | printf \"%s-%s\" \"x\" }}", "x-7f"),
        (
            "{{ printf \"%03d|%-4s|%4s|%x|%X|%v|%q|%%\" 7 \"a\" \"b\" 255 \"az\" true \"q\" }}",
            "007|a   |   b|ff|617A|true|\"q\"|%",
        ),
        ("{{ printf \"%02x\" (parseInt \"7\" 10 8) }}", "07"),
        ("{{ len .Name }} {{ len .Match }}", "16 4"),
        ("{{ slice .Name 0 2 }}|{{ slice .Name 13 }}", "ip|le."),
        (
            "{{ print 1 2 \"a\" 3 }}|{{ println \"a\" 1 }}",
            "1 2a3|a 1\n",
        ),
        (
            "{{ if eq .Type \"AAAA\" }}six{{ else if eq .Type \"A\" }}four{{ else }}none{{ end }}",
            "four",
        ),
        ("{{ if .Group.none }}yes{{ else }}no{{ end }}", "no"),
        (
            "{{ if and (eq .Class \"IN\") (ne .Type \"MX\") }}yes{{ end }}",
            "yes",
        ),
        (
            "{{ or .Group.none \"default\" }} {{ and 1 0 2 }} {{ not true }}",
            "default 0 false",
        ),
        (
            "{{ if or true (index .Match 99) }}stopped in time{{ end }}",
            "stopped in time",
        ),
        (
            "{{ lt 1 2 }} {{ le 2 2 }} {{ gt 1 2 }} {{ ge \"b\" \"a\" }} {{ eq 1 2 3 1 }}",
            "true true false true true",
        ),
        ("{{ range .Match }}[{{ . }}]{{ end }}", "[ip-10-7][10][][7]"),
        (
            "{{ range $i, $m := .Match }}{{ $i }}={{ $m }};{{ end }}",
            "0=ip-10-7;1=10;2=;3=7;",
        ),
        (
            "{{ range $m := slice .Match 4 }}x{{ else }}nothing{{ end }}",
            "nothing",
        ),
        (
            "{{ with .Group }}{{ .a }}{{ end }}{{ with .Group.none }}x{{ else }}{{ .Zone }}{{ end }}",
            "10example.",
        ),
        (
            "{{ range .Match }}{{ $.Zone }}{{ end }}",
            "example.example.example.example.",
        ),
        (
            "{{ $x := .Group.a }}{{ $x }}{{ $x = \"b\" }}{{ $x }}",
            "10b",
        ),
        (
            "{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $y := 3 }}{{ end }}{{ $x }}",
            "2",
        ),
        ("{{ $g := .Group }}{{ $g.a }}", "10"),
        ("a {{- \" b \" -}} c", "a b c"),
        ("a {{/* a comment }} */}} b{{- /* trimmed */ -}} c", "a  bc"),
        ("{{ `raw \"x\"` }}{{ \"\\\"\\t\\\\\" }}", "raw \"x\"\"\t\\"),
        (
            "{{ -7 }} {{ 0x1F }} {{ 1_000 }} {{ true }}",
            "-7 31 1000 true",
        ),
        ("} }} {", "} }} {"),
    ];
    for (text, expected) in cases {
        let program = Program::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        assert_eq!(program.run(&data()).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_not_in_the_language_is_refused_before_it_runs() {
    let cases = [
        ("{{", "`{{` is not closed"),
        ("{{ .Name", "`{{` is not closed"),
        ("{{ .Name }", "expected `}`"),
        ("{{ }}", "expected a value"),
        (
            "{{ notAFunction }}",
            "there is no function `notAFunction`; known are: and",
        ),
        ("{{ parseInt }}", "ParseInt does not take 0 arguments"),
        (
            "{{ parseInt .Name 1 }}",
            "ParseInt does not take 2 arguments",
        ),
        (
            "{{ .Grup.a }}",
            "there is no field .Grup here; known are: .Zone",
        ),
        ("{{ .Name.x }}", "there is no field .x in a plain value"),
        (
            "{{ .Question.Nmae }}",
            "there is no field .Nmae here; known are: .Name, .Qtype",
        ),
        ("{{ .Message.Answer }}", "there is no field .Answer here"),
        ("{{ .Var.x }}", "there are no variables of `var`"),
        ("{{ .Meta }}", ".Meta takes one argument"),
        ("{{ print .Meta }}", ".Meta takes an argument"),
        ("{{ .Group.0 }}", "expected the name of a field"),
        ("{{ $x }}", "there is no variable $x"),
        (
            "{{ if true }}{{ $x := 1 }}{{ end }}{{ $x }}",
            "there is no variable $x",
        ),
        ("{{ $x = 1 }}", "there is no variable $x"),
        ("{{ if true }}", "`if` without `end`"),
        ("{{ range .Match }}", "`with` or `range` without `end`"),
        ("{{ end }}", "`end` without"),
        ("{{ else }}", "`else` without"),
        ("{{ define \"x\" }}{{ end }}", "`define` is not supported"),
        ("{{ template \"x\" }}", "`template` is not supported"),
        (
            "{{ .Name .Zone }}",
            "something that is no function has arguments",
        ),
        ("{{ .Name | .Zone }}", "only a function can follow `|`"),
        ("{{ 1.5 }}", "is not a whole number"),
        ("{{ 'a' }}", "unexpected `'`"),
        ("{{ (print 1 }}", "`(` is not closed"),
        ("{{ print \"a }}", "a string is not closed"),
        ("{{/* x", "a comment is not closed"),
    ];
    for (text, expected) in cases {
        let problem = Program::parse(text).expect_err(text);
        assert!(problem.contains(expected), "{text}: {problem}");
    }
    let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100), ")".repeat(100));
    assert!(
        Program::parse(&deep)
            .unwrap_err()
            .contains("within each other")
    );
}

#[test]
fn values_that_do_not_fit_fail_when_it_runs() {
    let cases = [
        ("{{ index .Match 4 }}", "index out of range: 4"),
        ("{{ index .Name \"x\" }}", "has no index"),
        (
            "{{ parseInt \"gg\" 16 8 }}",
            "is not a number of 8 bits to base 16",
        ),
        ("{{ parseInt \"256\" 10 8 }}", "is not a number of 8 bits"),
        ("{{ parseInt \"+1\" 10 8 }}", "is not a number of 8 bits"),
        ("{{ lt 1 \"a\" }}", "have no order"),
        ("{{ eq 1 \"a\" }}", "cannot be compared"),
        ("{{ range .Name }}{{ end }}", "cannot be ranged over"),
        ("{{ printf \"%d\" \"x\" }}", "%d cannot write `x`"),
        ("{{ printf \"%d\" }}", "no value for %d"),
        ("{{ slice .Name 99 }}", "slice out of range"),
        ("{{ .Message }}", "cannot be written"),
        ("{{ with .Name }}{{ .x }}{{ end }}", "has no field .x"),
    ];
    for (text, expected) in cases {
        let problem = Program::parse(text).unwrap().run(&data()).expect_err(text);
        assert!(problem.contains(expected), "{text}: {problem}");
    }
}

fn pieces() -> impl Strategy<Value = String> {
    let words = [
        "{{",
        "}}",
        " ",
        "-",
        ".",
        "$",
        "$x",
        ":=",
        "=",
        "|",
        "(",
        ")",
        ",",
        "if",
        "else",
        "end",
        "range",
        "with",
        ".Match",
        ".Group.a",
        ".Name",
        "index",
        "slice",
        "printf",
        "\"%05d%s\"",
        "parseInt",
        "16",
        "8",
        "-1",
        "eq",
        "and",
        "`x`",
        "\"",
        "\\",
        "/*",
        "*/",
        "true",
        "\u{e9}",
        "text",
    ];
    let word = prop::sample::select(words.to_vec());
    let action = prop::collection::vec(word.clone(), 1..8)
        .prop_map(|words| format!("{{{{ {} }}}}", words.join(" ")));
    prop::collection::vec(prop_oneof![action, word.prop_map(str::to_owned)], 0..10)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_template_makes_the_language_panic(text in pieces()) {
        if let Ok(program) = Program::parse(&text) {
            let _ = program.run(&data());
        }
    }
}
