//! Asks the cluster's DNS from a pod, with the tools one has at hand.

use anyhow::{Result, bail};
use switchyard_tests::testbed::{Place, Testbed};

use super::dns;

/// Who asks: a pod of the other node than the server's.
const FROM: Place = Place::Pod21;

/// One command, and words that its output must have.
struct Ask {
    what: &'static str,
    command: &'static str,
    must: &'static [&'static str],
}

const ASKS: [Ask; 13] = [
    Ask {
        what: "a short name, by the search list",
        command: "nslookup hello",
        must: &[
            "Server:\t\t10.96.0.10",
            "hello.demo.svc.cluster.local",
            "10.96.2.1",
            "fd00:96::201",
        ],
    },
    Ask {
        what: "the same by dig",
        command: "dig +search +noall +answer hello",
        must: &["hello.demo.svc.cluster.local. 30", "10.96.2.1"],
    },
    Ask {
        what: "a full name",
        command: "dig +short hello.demo.svc.cluster.local AAAA",
        must: &["fd00:96::201"],
    },
    Ask {
        what: "a name of another namespace, over TCP",
        command: "dig +search +tcp +short kube-dns.kube-system.svc",
        must: &["10.96.0.10"],
    },
    Ask {
        what: "a full name, asked over IPv6",
        command: "dig @fd00:96::a +short hello.demo.svc.cluster.local",
        must: &["10.96.2.1"],
    },
    Ask {
        what: "the C library's resolver",
        command: "getent ahostsv4 web",
        must: &["10.96.2.2"],
    },
    Ask {
        what: "a headless Service: its pods",
        command: "dig +search +short db",
        must: &["10.244.1.12", "10.244.2.21"],
    },
    Ask {
        what: "one pod of it, by its hostname",
        command: "nslookup db-1.db",
        must: &["db-1.db.demo.svc.cluster.local", "10.244.2.21"],
    },
    Ask {
        what: "SRV: port and pods of a headless Service",
        command: "dig +short _sql._tcp.db.demo.svc.cluster.local SRV",
        must: &[
            "5432 db-0.db.demo.svc.cluster.local.",
            "5432 db-1.db.demo.svc.cluster.local.",
        ],
    },
    Ask {
        what: "SRV: the port of a NodePort Service, inside the cluster",
        command: "dig +short _http._tcp.web.demo.svc.cluster.local SRV",
        must: &["80 web.demo.svc.cluster.local."],
    },
    Ask {
        what: "an ExternalName, followed outside",
        command: "dig +search +noall +answer files",
        must: &["CNAME", "www.example.com.", "198.51.100.2"],
    },
    Ask {
        what: "PTR: which Service has an address",
        command: "dig +short -x 10.96.2.1",
        must: &["hello.demo.svc.cluster.local."],
    },
    Ask {
        what: "a name that is not there",
        command: "dig +noall +comments +authority nosuch.demo.svc.cluster.local",
        must: &["status: NXDOMAIN", "SOA", "ns.dns.cluster.local."],
    },
];

/// Asks everything and prints what was answered.
///
/// # Errors
/// An answer without the words it must have.
pub(super) fn run(bed: &Testbed) -> Result<()> {
    println!(
        "\nDNS, asked from {FROM} (10.96.0.10 → the proxy's rules → switchyard-dns in pod12):"
    );
    let mut wrong = 0_usize;
    for ask in &ASKS {
        let command = dns::in_pod(bed, ask.command);
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let answer = bed.run(FROM, &words, "")?;
        println!("\n{}\n  $ {}", ask.what, ask.command);
        let text = format!("{}{}", answer.stdout, answer.stderr);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            println!("    {line}");
        }
        // Columns are aligned with tabs or blanks.
        let squeezed = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_there =
            |word: &&str| squeezed.contains(&word.split_whitespace().collect::<Vec<_>>().join(" "));
        let missing: Vec<&str> = ask
            .must
            .iter()
            .copied()
            .filter(|word| !is_there(word))
            .collect();
        if !missing.is_empty() {
            wrong += 1;
            println!("  WRONG: without {}", missing.join(", "));
        }
    }
    if wrong > 0 {
        bail!(
            "{wrong} of {} DNS answers are not as they must be",
            ASKS.len()
        );
    }
    println!("\nall {} answers are as they must be", ASKS.len());
    Ok(())
}
