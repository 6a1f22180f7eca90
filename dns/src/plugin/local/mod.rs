//! `local`: names of this machine. See the README.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, LazyLock};

use prometheus::IntCounterVec;

use super::{Exchange, Plugin, Position, Setup, Step, counter_vec};
use crate::corefile::ConfigError;
use crate::wire::{Name, Rcode, Record, Rtype, Section};

/// A week.
const TTL_S: u32 = 604_800;

static REQUESTS: LazyLock<Option<IntCounterVec>> = LazyLock::new(|| {
    let help = "Queries for names below localhost, or with it in front.";
    counter_vec("coredns_local_localhost_requests_total", help, &[])
});

/// Answers for this machine.
#[derive(Debug)]
struct Local {
    /// Names that begin with `localhost.` are meant, too.
    prefix: bool,
    localhost: Name,
    /// Its own zone and those of addresses nobody has.
    zones: [Name; 4],
    loopback: Name,
}

/// `local { localhost_prefix on|off }`
///
/// # Errors
/// If it has arguments or other options.
pub(super) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let line = setup.only_line()?;
    line.no_args()?;
    let mut prefix = true;
    for option in line.options() {
        option.no_body()?;
        if &**option.name() != "localhost_prefix" {
            return Err(option.unknown_option(&["localhost_prefix"]));
        }
        let [value] = option.exactly("`on` or `off`")?;
        prefix = match &**value {
            "on" => true,
            "off" => false,
            _ => return Err(value.error(format!("expected `on` or `off`, found `{value}`"))),
        };
    }
    let name =
        |text| Name::from_text(text).map_err(|error| ConfigError::without_place(error.to_string()));
    let localhost = name("localhost.")?;
    let _registered = LazyLock::force(&REQUESTS);
    Ok(vec![Arc::new(Local {
        prefix,
        zones: [
            localhost.clone(),
            name("0.in-addr.arpa.")?,
            name("127.in-addr.arpa.")?,
            name("255.in-addr.arpa.")?,
        ],
        localhost,
        loopback: name("1.0.0.127.in-addr.arpa.")?,
    })])
}

impl Local {
    fn is_below_or_in_front(&self, lower: &Name) -> bool {
        if *lower == self.localhost {
            return false;
        }
        let in_front = self.prefix && lower.labels().next() == Some(b"localhost");
        in_front || lower.is_within(&self.localhost)
    }

    fn soa(&self, owner: Name) -> Record {
        let root = b"\x04root";
        let mut data = self.localhost.as_wire().to_vec();
        data.extend_from_slice(root);
        data.extend_from_slice(self.localhost.as_wire());
        for number in [1, 0, 0, 0, TTL_S] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        Record::new(owner, Rtype::SOA, TTL_S, data)
    }

    fn address(owner: &Name, rtype: Rtype) -> Option<Record> {
        let data = match rtype {
            Rtype::A => Ipv4Addr::LOCALHOST.octets().to_vec(),
            Rtype::AAAA => Ipv6Addr::LOCALHOST.octets().to_vec(),
            _ => return None,
        };
        Some(Record::new(owner.clone(), rtype, TTL_S, data))
    }

    /// The records of a name in one of our zones, `zone` in the asker's case.
    fn find(&self, name: &Name, lower: &Name, rtype: Rtype, zone: &Name) -> Option<Record> {
        let target = || self.localhost.as_wire().to_vec();
        let of_name = |data| Record::new(name.clone(), rtype, TTL_S, data);
        if name.wire_len() == zone.wire_len() {
            return match rtype {
                Rtype::SOA => Some(self.soa(name.clone())),
                Rtype::NS => Some(of_name(target())),
                _ if *lower == self.localhost => Self::address(name, rtype),
                _ => None,
            };
        }
        (*lower == self.loopback && rtype == Rtype::PTR).then(|| of_name(target()))
    }
}

impl Plugin for Local {
    fn name(&self) -> &'static str {
        "local"
    }

    fn query(&self, exchange: &mut Exchange, _: Position<'_>) -> Step {
        let lower = exchange.question.lower();
        let rtype = exchange.question.rtype;
        let zone_at = self.zones.iter().find_map(|zone| lower.suffix_at(zone));
        if self.is_below_or_in_front(lower) {
            if let Some(requests) = &*REQUESTS {
                requests.with_label_values::<&str>(&[]).inc();
            }
            let name = exchange.question.name().clone();
            let found = Self::address(&name, rtype);
            let reply = exchange.answer();
            match found {
                Some(record) => reply.push(Section::Answer, &record),
                None => reply.push(Section::Authority, &self.soa(name)),
            }
            return Step::Answered;
        }
        let Some(zone_at) = zone_at else {
            return Step::Next;
        };
        let (name, lower) = (exchange.question.name().clone(), lower.clone());
        let Ok((zone, _)) = Name::read_plain(name.as_wire(), zone_at) else {
            return Step::Next;
        };
        let found = self.find(&name, &lower, rtype, &zone);
        let exists = zone_at == 0 || lower == self.loopback;
        let reply = exchange.answer();
        match found {
            Some(record) => reply.push(Section::Answer, &record),
            None => {
                reply.rcode = if exists {
                    Rcode::NOERROR
                } else {
                    Rcode::NXDOMAIN
                };
                reply.push(Section::Authority, &self.soa(zone));
            }
        }
        Step::Answered
    }
}

#[cfg(test)]
mod tests {
    use crate::plugin::Step;
    use crate::plugin::trial::{Behind, Trial, section};
    use crate::wire::{Rcode, Section};

    fn told(directives: &str, question: &str) -> String {
        let behind = Behind::new("behind", |_| Step::Fail(Rcode::REFUSED));
        let exchange = Trial::new(directives, vec![behind]).unwrap().ask(question);
        let records = [Section::Answer, Section::Authority].map(|it| section(&exchange, it));
        let code = exchange.reply.rcode;
        format!("{code} {}", records.concat().join("; "))
            .trim()
            .to_owned()
    }

    #[test]
    fn names_of_this_machine_are_answered_here() {
        let soa = |owner: &str| {
            format!("{owner} 604800 IN SOA localhost. root.localhost. 1 0 0 0 604800")
        };
        let cases = [
            (
                "LocalHost. A",
                "NOERROR LocalHost. 604800 IN A 127.0.0.1".to_owned(),
            ),
            (
                "localhost. AAAA",
                "NOERROR localhost. 604800 IN AAAA ::1".to_owned(),
            ),
            (
                "localhost. NS",
                "NOERROR localhost. 604800 IN NS localhost.".to_owned(),
            ),
            ("localhost. SOA", format!("NOERROR {}", soa("localhost."))),
            ("localhost. MX", format!("NOERROR {}", soa("localhost."))),
            (
                "a.localhost. A",
                "NOERROR a.localhost. 604800 IN A 127.0.0.1".to_owned(),
            ),
            (
                "a.localhost. TXT",
                format!("NOERROR {}", soa("a.localhost.")),
            ),
            (
                "localhost.example.net. A",
                "NOERROR localhost.example.net. 604800 IN A 127.0.0.1".to_owned(),
            ),
            (
                "localhost.example.net. MX",
                format!("NOERROR {}", soa("localhost.example.net.")),
            ),
            (
                "127.in-addr.arpa. A",
                format!("NOERROR {}", soa("127.in-addr.arpa.")),
            ),
            (
                "0.in-addr.arpa. NS",
                "NOERROR 0.in-addr.arpa. 604800 IN NS localhost.".to_owned(),
            ),
            (
                "1.0.0.127.in-addr.arpa. PTR",
                "NOERROR 1.0.0.127.in-addr.arpa. 604800 IN PTR localhost.".to_owned(),
            ),
            (
                "1.0.0.127.In-addr.arpa. A",
                format!("NOERROR {}", soa("127.In-addr.arpa.")),
            ),
            (
                "2.0.0.127.in-addr.arpa. PTR",
                format!("NXDOMAIN {}", soa("127.in-addr.arpa.")),
            ),
            (
                "1.255.in-addr.arpa. PTR",
                format!("NXDOMAIN {}", soa("255.in-addr.arpa.")),
            ),
            ("1.2.in-addr.arpa. PTR", "REFUSED".to_owned()),
            ("xlocalhost. A", "REFUSED".to_owned()),
        ];
        for (question, expected) in cases {
            assert_eq!(told("local", question), expected, "{question}");
        }
        let off = "local {\nlocalhost_prefix off\n}";
        assert_eq!(told(off, "localhost.example.net. A"), "REFUSED");
        assert!(told(off, "a.localhost. A").starts_with("NOERROR"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (directives, expected) in [
            ("local x", "`local` takes no argument"),
            (
                "local {\nfoo\n}",
                "unknown option `foo`; known are: localhost_prefix",
            ),
            (
                "local {\nlocalhost_prefix maybe\n}",
                "expected `on` or `off`, found `maybe`",
            ),
            (
                "local {\nlocalhost_prefix\n}",
                "`localhost_prefix` takes `on` or `off`",
            ),
        ] {
            let message = Trial::refused(directives);
            assert!(message.starts_with(expected), "{directives}: {message}");
        }
    }
}
