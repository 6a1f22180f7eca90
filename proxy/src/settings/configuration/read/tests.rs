use super::*;

fn text(lines: &str) -> String {
    format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{lines}")
}

#[test]
fn unknown_fields_and_fields_given_twice_are_named_and_passed_over() {
    let read = parse(&text(
        "mode: ipvs\nmod: ipvs\niptables: {syncPeriod: 5s, SyncPeriod: 6s}\n\
         switchyard: {ebpf: {speed: 9}}\nmode: nftables\nconntrack:\n  min: 1\n  min: 2\n",
    ))
    .unwrap();
    let expected = [
        "conntrack.min (given twice; the last counts)",
        "iptables.SyncPeriod",
        "mod",
        "mode (given twice; the last counts)",
        "switchyard.ebpf.speed",
    ];
    assert_eq!(read.passed_over, expected);
    assert_eq!(read.troubles, []);
    assert_eq!(read.configuration.mode, "nftables");
    assert_eq!(read.configuration.conntrack.min, 2);
    assert_eq!(
        read.configuration.iptables.sync_period,
        super::super::Span::seconds(5)
    );
}

#[test]
fn json_is_read_and_what_follows_the_first_document_is_not() {
    let read = parse(&format!(
        "{{\"apiVersion\": \"{API_VERSION}\", \"kind\": \"{KIND}\", \"mode\": \"ipvs\"}}"
    ));
    assert_eq!(read.unwrap().configuration.mode, "ipvs");
    let read = parse(&text("mode: ipvs\n---\nmode: nftables\n")).unwrap();
    assert_eq!(read.configuration.mode, "ipvs");
    assert_eq!(
        read.passed_over,
        ["all that comes after the first document"]
    );
}

#[test]
fn of_a_list_every_wrong_element_is_named() {
    let read = parse(&text(
        "nodePortAddresses: [10.0.0.0/8, 5, {a: b}]\nlogging: {vmodule: [7]}\n",
    ))
    .unwrap();
    let paths: Vec<_> = read.troubles.iter().map(|trouble| &*trouble.path).collect();
    let expected = [
        "logging.vmodule[0]",
        "nodePortAddresses[1]",
        "nodePortAddresses[2]",
    ];
    assert_eq!(paths, expected);
}

#[test]
fn what_is_no_configuration_says_so() {
    for (text, path, expected) in [
        ("", "", "a KubeProxyConfiguration"),
        ("- a\n", "", "a KubeProxyConfiguration"),
        ("mode: ipvs\n", "apiVersion", API_VERSION),
        ("a: {b\n", "", "YAML"),
    ] {
        let troubles = parse(text).unwrap_err();
        assert_eq!(
            (&*troubles[0].path, &*troubles[0].expected),
            (path, expected),
            "{text}"
        );
    }
}
