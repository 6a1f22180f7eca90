use std::fs;
use std::path::Path;

use super::handler::Served;
use super::lookup::{Answer, lookup};
use super::read::read_zone;
use crate::wire::{Name, Question, Record, Rtype};

const ZONE: &str = r#"
$TTL 300
@       IN SOA ns1 hostmaster 7 3600 600 86400 60
        IN NS  ns1
        IN NS  ns.elsewhere.test.
        IN MX  10 mail
ns1     IN A   192.0.2.1
mail    IN A   192.0.2.2
        IN AAAA 2001:db8::2
www     IN CNAME mail
out     IN CNAME www.elsewhere.test.
loop1   IN CNAME loop2
loop2   IN CNAME loop1
gone    IN CNAME nothing
*.wild  IN A   192.0.2.9
known.wild IN TXT "here"
deep.empty.between IN A 192.0.2.3
sub     IN NS  ns.sub
ns.sub  IN A   192.0.2.53
old     IN DNAME wild
_x._tcp IN SRV 0 5 80 mail
"#;

fn name(text: &str) -> Name {
    Name::from_text(text).expect(text)
}

fn read(folder: &Path, text: &str) -> Result<super::zone::Zone, String> {
    let path = folder.join("db.test");
    fs::write(&path, text).expect("a folder of our own");
    read_zone(&path, &name("example.test.")).map_err(|error| error.to_string())
}

fn shown(records: &[Record]) -> String {
    let mut shown: Vec<_> = records
        .iter()
        .map(|record| match record.target() {
            Some(target) => format!("{} {} {target}", record.owner, record.rtype),
            None => format!("{} {}", record.owner, record.rtype),
        })
        .collect();
    shown.sort();
    shown.join(", ")
}

fn summary(answer: &Answer) -> String {
    let mut summary = answer.rcode.to_string();
    if answer.authoritative {
        summary += " aa";
    }
    for (title, records) in [
        ("an", &answer.records.answer),
        ("ns", &answer.records.authority),
        ("ex", &answer.records.additional),
    ] {
        if !records.is_empty() {
            summary += &format!(
                " | {title}: {}",
                shown(records).replace(".example.test.", "")
            );
        }
    }
    if let Some(target) = &answer.alias_of {
        summary += &format!(" | alias of {target}");
    }
    summary
}

/// Names are short for those in example.test.; the zone's own NS records stand for
/// "authority as usual".
const CASES: &[(&str, Rtype, &str)] = &[
    ("mail", Rtype::A, "NOERROR aa | an: mail A | NS"),
    ("MaIl", Rtype::A, "NOERROR aa | an: MaIl A | NS"),
    ("mail", Rtype::TXT, "NOERROR aa | ns: example.test. SOA"),
    (
        "www",
        Rtype::AAAA,
        "NOERROR aa | an: mail AAAA, www CNAME mail | NS",
    ),
    (
        "www",
        Rtype::TXT,
        "NOERROR aa | an: www CNAME mail | ns: example.test. SOA",
    ),
    ("www", Rtype::CNAME, "NOERROR aa | an: www CNAME mail | NS"),
    (
        "gone",
        Rtype::A,
        "NXDOMAIN aa | an: gone CNAME nothing | ns: example.test. SOA",
    ),
    (
        "out",
        Rtype::A,
        "NOERROR aa | an: out CNAME www.elsewhere.test. | alias of www.elsewhere.test.",
    ),
    ("nope", Rtype::A, "NXDOMAIN aa | ns: example.test. SOA"),
    ("between", Rtype::A, "NOERROR aa | ns: example.test. SOA"),
    (
        "x.empty.between",
        Rtype::A,
        "NXDOMAIN aa | ns: example.test. SOA",
    ),
    ("a.wild", Rtype::A, "NOERROR aa | an: a.wild A | NS"),
    ("a.b.wild", Rtype::A, "NOERROR aa | an: a.b.wild A | NS"),
    ("a.wild", Rtype::TXT, "NOERROR aa | ns: example.test. SOA"),
    ("known.wild", Rtype::A, "NOERROR aa | ns: example.test. SOA"),
    (
        "a.known.wild",
        Rtype::A,
        "NXDOMAIN aa | ns: example.test. SOA",
    ),
    (
        "host.sub",
        Rtype::A,
        "NOERROR | ns: sub NS ns.sub | ex: ns.sub A",
    ),
    (
        "sub",
        Rtype::NS,
        "NOERROR | ns: sub NS ns.sub | ex: ns.sub A",
    ),
    ("sub", Rtype::DS, "NOERROR aa | ns: example.test. SOA"),
    (
        "a.old",
        Rtype::A,
        "NOERROR aa | an: a.old CNAME a.wild, a.wild A, old DNAME wild | NS",
    ),
    (
        "_x._tcp",
        Rtype::SRV,
        "NOERROR aa | an: _x._tcp SRV mail | NS | ex: mail A, mail AAAA",
    ),
    (
        "",
        Rtype::MX,
        "NOERROR aa | an: example.test. MX mail | NS | ex: mail A, mail AAAA",
    ),
    ("", Rtype::SOA, "NOERROR aa | an: example.test. SOA | NS"),
    (
        "",
        Rtype::NS,
        "NOERROR aa | an: example.test. NS ns.elsewhere.test., example.test. NS ns1 | ex: ns1 A",
    ),
];

#[test]
fn a_zone_answers_as_rfc_1034_and_4592_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let zone = read(folder.path(), ZONE).expect("a zone");
    let usual = "ns: example.test. NS ns.elsewhere.test., example.test. NS ns1";
    for (owner, rtype, expected) in CASES {
        let owner = if owner.is_empty() {
            "example.test.".to_owned()
        } else {
            format!("{owner}.example.test.")
        };
        let answer = lookup(&zone, &Question::new(name(&owner), *rtype));
        assert_eq!(
            summary(&answer).replace(usual, "NS"),
            *expected,
            "{owner} {rtype}"
        );
    }
    let answer = lookup(&zone, &Question::new(name("loop1.example.test."), Rtype::A));
    assert!(
        summary(&answer).starts_with("SERVFAIL"),
        "{}",
        summary(&answer)
    );
}

#[test]
fn what_is_no_zone_is_refused_with_file_and_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let soa = "@ 60 IN SOA ns h 1 2 3 4 5\n";
    for (text, expected) in [
        (
            "www 60 IN A 192.0.2.1\n".to_owned(),
            "no SOA record at example.test.",
        ),
        (
            format!("{soa}@ 60 IN SOA ns h 2 2 3 4 5\n"),
            "2 SOA records",
        ),
        (
            format!("{soa}a.other.test. 60 IN A 192.0.2.1\n"),
            "a.other.test. is not in the zone",
        ),
        (
            format!("{soa}a 60 IN CNAME b\na 60 IN A 192.0.2.1\n"),
            "a.example.test. has a CNAME beside",
        ),
        (format!("{soa}a 60 IN A 192.0.2.500\n"), "line 2"),
    ] {
        let error = read(folder.path(), &text).expect_err(&text);
        assert!(
            error.contains("db.test") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn a_file_that_goes_bad_leaves_the_zone_as_it_was() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("db.test");
    let write = |serial: &str, second: u64| {
        let text = ZONE.replace("hostmaster 7", &format!("hostmaster {serial}"));
        fs::write(&path, text).expect("a folder of our own");
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
        let file = fs::File::options().append(true).open(&path).expect("there");
        file.set_modified(time).expect("our own file");
    };
    write("7", 1000);
    let served = Served::open(path.clone(), &name("example.test.")).expect("a zone");
    write("8", 2000);
    served.refresh();
    assert_eq!(served.serial(), 8);
    write("none", 3000);
    served.refresh();
    assert_eq!(served.serial(), 8);
    write("9", 4000);
    served.refresh();
    assert_eq!(served.serial(), 9);
}

#[test]
fn included_files_are_read_from_beside_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("more"), "inner 60 IN A 192.0.2.7\n").expect("written");
    let text = format!("{ZONE}$INCLUDE more\n");
    let zone = read(folder.path(), &text).expect("a zone");
    assert!(zone.node(&name("inner.example.test.")).is_some());
    fs::write(folder.path().join("more"), "$INCLUDE more\n").expect("written");
    let error = read(folder.path(), &text).expect_err("a circle");
    assert!(error.contains("$INCLUDE goes deeper"), "{error}");
}
