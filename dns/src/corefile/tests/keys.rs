//! Keys of server blocks, and ZONES arguments.

use super::super::{ServerKey, check_duplicates, server_keys, zone_name, zones_from_args};
use super::{Token, parsed};

fn keys(text: &str) -> Result<Vec<ServerKey>, String> {
    let corefile = parsed(text)?;
    server_keys(&corefile.blocks[0]).map_err(|error| error.to_string())
}

#[test]
fn keys_have_a_scheme_a_zone_and_a_port() {
    let cases = [
        (".", "dns://."),
        (".:53", "dns://.:53"),
        (":53", "dns://.:53"),
        (":0", "dns://.:0"),
        ("Example.ORG", "dns://example.org."),
        ("example.org.:1053", "dns://example.org.:1053"),
        ("tls://example.org", "tls://example.org."),
        ("tls://.:853", "tls://.:853"),
        ("dns://.", "dns://."),
        ("dns://:53", "dns://.:53"),
        ("https://.", "https://."),
        ("https3://.", "https3://."),
        ("quic://.", "quic://."),
        ("grpc://example.org:443", "grpc://example.org.:443"),
        ("_tcp.a-b.org", "dns://_tcp.a-b.org."),
        (
            "0/25.2.0.192.in-addr.arpa",
            "dns://0/25.2.0.192.in-addr.arpa.",
        ),
        ("a b:53, c", "dns://a. dns://b.:53 dns://c."),
        ("10.0.0.0/24", "dns://0.0.10.in-addr.arpa."),
        ("10.0.0.7/24:53", "dns://0.0.10.in-addr.arpa.:53"),
        ("10.0.0.0/8:1", "dns://10.in-addr.arpa.:1"),
        (
            "10.0.0.0/15",
            "dns://0.10.in-addr.arpa. dns://1.10.in-addr.arpa.",
        ),
        ("10.128.0.0/10:5", "dns://128.10.in-addr.arpa.:5"),
        ("0.0.0.0/0", "dns://in-addr.arpa."),
        ("192.0.2.1/32", "dns://1.2.0.192.in-addr.arpa."),
        (
            "2003::1/64",
            "dns://0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.2.ip6.arpa.",
        ),
        (
            "2003::1/64:53",
            "dns://0.0.0.0.0.0.0.0.0.0.0.0.3.0.0.2.ip6.arpa.:53",
        ),
        ("fd00::/12", "dns://0.d.f.ip6.arpa."),
        ("fd00::/11", "dns://0.d.f.ip6.arpa. dns://1.d.f.ip6.arpa."),
        (
            "2001:DB8::/30",
            "dns://8.b.d.0.1.0.0.2.ip6.arpa. dns://9.b.d.0.1.0.0.2.ip6.arpa. dns://a.b.d.0.1.0.0.2.ip6.arpa. dns://b.b.d.0.1.0.0.2.ip6.arpa.",
        ),
        ("::/0", "dns://ip6.arpa."),
    ];
    for (text, expected) in cases {
        let shown = keys(text).map(|keys| {
            keys.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        });
        // A network of 64 zones is too long to write out.
        let shown = shown.map(|shown| match shown.split_once(' ') {
            Some((first, rest)) if rest.split(' ').count() > 8 => first.to_owned(),
            _ => shown,
        });
        assert_eq!(shown.as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_network_off_the_boundary_is_as_many_zones_as_it_takes() {
    for (text, zones) in [
        ("10.9.3.0/18", 64),
        ("10.0.0.0/9", 128),
        ("0.0.0.0/1", 128),
        ("10.96.0.0/12", 16),
        ("2001:db8::/113", 8),
        ("192.0.2.0/31", 2),
    ] {
        assert_eq!(keys(text).unwrap().len(), zones, "{text}");
    }
}

#[test]
fn a_key_that_is_none_is_refused_with_its_place() {
    let long = "a.".repeat(128);
    let label = "a".repeat(64);
    let cases = [
        (
            ".:",
            "Corefile:1: expected a port from 0 to 65535 after the last colon of `.:`",
        ),
        (
            ".:dns",
            "Corefile:1: expected a port from 0 to 65535 after the last colon of `.:dns`",
        ),
        (
            ".:65536",
            "Corefile:1: expected a port from 0 to 65535 after the last colon of `.:65536`",
        ),
        (
            ".:+53",
            "Corefile:1: expected a port from 0 to 65535 after the last colon of `.:+53`",
        ),
        (
            "ftp://.",
            "Corefile:1: unknown scheme `ftp` in `ftp://.`; known are: dns, tls, https, https3, quic, grpc",
        ),
        (
            "10.0.0.0/33",
            "Corefile:1: `10.0.0.0/33` is not a network: expected a prefix length within the address",
        ),
        (
            "2001:db8::/129",
            "Corefile:1: `2001:db8::/129` is not a network: expected a prefix length within the address",
        ),
        (
            "a\n,b::",
            "Corefile:2: expected a port from 0 to 65535 after the last colon of `b::`",
        ),
        (
            "2001:db8::1",
            "Corefile:1: `2001:db8:` is neither a zone name nor a network such as 10.0.0.0/24 or 2001:db8::/32",
        ),
        ("a..b", "Corefile:1: `a..b` is not a domain name"),
        ("..", "Corefile:1: `..` is not a domain name"),
        (".a", "Corefile:1: `.a` is not a domain name"),
        (&long, "Corefile:1: `a.a."),
        (&label, "Corefile:1: `aaaaaa"),
        (
            "b\u{fc}cher.example",
            "Corefile:1: `b\u{fc}cher.example` is not a domain name",
        ),
    ];
    for (text, expected) in cases {
        // What is after a newline would be a directive.
        let text = text.replace('\n', ",\n").replace(",\n,", ",\n");
        let error = keys(&text).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}

#[test]
fn a_zone_served_twice_is_refused_with_both_places() {
    let cases = [
        (".:53 {\n}\n.:54 {\n}", None),
        (". {\n}\ntls://. {\n}", None),
        ("a {\n}\nb {\n}", None),
        (
            ". {\n}\n.:53 {\n}",
            Some("Corefile:3: `dns://.:53` is already served by the block at Corefile:1"),
        ),
        (
            "a,\nA.",
            Some("Corefile:2: `dns://a.:53` is already served by the block at Corefile:1"),
        ),
        (
            "tls://. {\n}\n\ntls://.:853 {\n}",
            Some("Corefile:4: `tls://.:853` is already served by the block at Corefile:1"),
        ),
        (
            "10.0.0.0/15 {\n}\n1.10.in-addr.arpa {\n}",
            Some(
                "Corefile:3: `dns://1.10.in-addr.arpa.:53` is already served by the block at Corefile:1",
            ),
        ),
        // Blocks that listen on different addresses.
        (". {\n bind 127.0.0.1\n}\n. {\n bind 127.0.0.2 ::1\n}", None),
        (
            ". {\n bind 127.0.0.1\n}\n. {\n bind 127.0.0.2 127.0.0.1\n}",
            Some("Corefile:4: `dns://.:53` is already served by the block at Corefile:1"),
        ),
        (
            ". {\n bind 127.0.0.1\n}\n. {\n}",
            Some("Corefile:4: `dns://.:53` is already served by the block at Corefile:1"),
        ),
        (
            "a a {\n bind 127.0.0.1\n}",
            Some("Corefile:1: `dns://a.:53` is already served by the block at Corefile:1"),
        ),
    ];
    for (text, expected) in cases {
        let error = check_duplicates(&parsed(text).unwrap(), 53)
            .err()
            .map(|error| error.to_string());
        assert_eq!(error.as_deref(), expected, "{text}");
    }
    // The port of a flag counts for keys without one.
    let corefile = parsed(". {\n}\n.:1053 {\n}").unwrap();
    assert!(check_duplicates(&corefile, 53).is_ok());
    assert!(check_duplicates(&corefile, 1053).is_err());
}

#[test]
fn zones_of_a_plugin_are_names_and_networks_each_once() {
    let of_block = ["block.".to_owned()];
    let zones = |args: &str| {
        let corefile = parsed(&format!(". {{\n plugin {args}\n}}")).unwrap();
        let args: Vec<Token> = corefile.blocks[0].directives[0].args().to_vec();
        zones_from_args(&args, &of_block)
            .map(|zones| zones.join(" "))
            .map_err(|error| error.to_string())
    };
    let cases = [
        ("", Ok("block.")),
        (
            "Cluster.LOCAL in-addr.arpa ip6.arpa.",
            Ok("cluster.local. in-addr.arpa. ip6.arpa."),
        ),
        (".", Ok(".")),
        ("a A. a", Ok("a.")),
        (
            "10.0.0.0/15 1.10.in-addr.arpa",
            Ok("0.10.in-addr.arpa. 1.10.in-addr.arpa."),
        ),
        ("fd00::/8", Ok("d.f.ip6.arpa.")),
        ("a:53 dns://b", Ok("a. b.")),
        ("a {$UNSET}", Ok("a.")),
        (
            "{$UNSET}",
            Err("Corefile:2: expected a zone, found an empty word; is a variable not set?"),
        ),
        ("a b..c", Err("Corefile:2: `b..c` is not a domain name")),
    ];
    for (args, expected) in cases {
        match (zones(args), expected) {
            (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{args}"),
            (Err(got), Err(expected)) => assert!(got.starts_with(expected), "{args}: {got}"),
            (got, expected) => panic!("{args}: {got:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_zone_name_has_one_form() {
    for (text, expected) in [
        ("A", "a."),
        ("a.", "a."),
        (".", "."),
        ("\\065b", "ab."),
        ("a\\.B", "a\\.b."),
        ("*.x", "*.x."),
    ] {
        assert_eq!(zone_name(text).as_deref(), Ok(expected), "{text}");
    }
    assert!(zone_name("").is_err());
}
