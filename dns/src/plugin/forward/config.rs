//! A `forward` line of the Corefile, read.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::policy::{PolicyKind, UPSTREAMS_MAX};
use super::target::{self, Target};
use super::upstream::{HealthCheck, TlsFiles};
use crate::corefile::{ConfigError, Line, Token, zones_from_args};
use crate::wire::{Name, Rcode};

const OPTIONS: &[&str] = &[
    "except",
    "policy",
    "force_tcp",
    "prefer_udp",
    "max_fails",
    "health_check",
    "expire",
    "max_age",
    "max_idle_conns",
    "read_timeout",
    "max_connect_attempts",
    "max_concurrent",
    "next",
    "next_on_nodata",
    "failover",
    "failfast_all_unhealthy_upstreams",
    "tls",
    "tls_servername",
    "source_address",
    "resolver",
];

/// Everything that a `forward` line says.
#[derive(Debug)]
pub(super) struct Config {
    /// Names in these zones are forwarded, …
    pub(super) from: Vec<Name>,
    /// … but not those in these.
    pub(super) except: Vec<Name>,
    /// Whom to ask, and the word that says so.
    pub(super) targets: Vec<(Token, Target)>,
    pub(super) policy: PolicyKind,
    pub(super) transport: TransportChoice,
    pub(super) health: HealthCheck,
    pub(super) expire: Duration,
    pub(super) max_age: Option<Duration>,
    pub(super) max_idle_connections: usize,
    /// How long one upstream is waited for.
    pub(super) read_timeout: Duration,
    /// How many times upstreams are asked for one query; `None`: twice each.
    pub(super) attempts: Option<usize>,
    /// How many queries may wait at a time; `None`: any number.
    pub(super) max_concurrent: Option<usize>,
    /// Replies with these codes are left to the next `forward`.
    pub(super) next: Vec<Rcode>,
    /// NOERROR without answers, too.
    pub(super) next_on_nodata: bool,
    /// Replies with these codes are only taken if no other upstream has a better one.
    pub(super) failover: Vec<Rcode>,
    /// No upstream is asked when all are down.
    pub(super) failfast: bool,
    pub(super) tls_files: TlsFiles,
    pub(super) tls_server_name: Option<String>,
    /// Local addresses, one a family.
    pub(super) sources: Vec<IpAddr>,
    /// Servers that know the addresses of upstreams given by name.
    pub(super) resolver: Vec<SocketAddr>,
}

/// Which transport plain upstreams are asked over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum TransportChoice {
    /// The client's.
    #[default]
    AsClient,
    /// `force_tcp`.
    Tcp,
    /// `prefer_udp`: UDP, and TCP if the reply is truncated.
    UdpFirst,
}

impl Config {
    /// Reads the line. The error names the word that is wrong.
    pub(super) fn read(line: &Line) -> Result<Self, ConfigError> {
        let [from, to @ ..] = line.args() else {
            return Err(
                line.error("`forward` takes FROM and the servers to ask: `forward . 192.0.2.1`")
            );
        };
        if to.is_empty() {
            return Err(line.error(format!("`forward {from}` names no server to ask")));
        }
        let mut config = Self {
            from: names(std::slice::from_ref(from))?,
            except: Vec::new(),
            targets: Vec::new(),
            policy: PolicyKind::default(),
            transport: TransportChoice::default(),
            health: HealthCheck::default(),
            expire: Duration::from_secs(10),
            max_age: None,
            max_idle_connections: 0,
            read_timeout: Duration::from_secs(2),
            attempts: None,
            max_concurrent: None,
            next: Vec::new(),
            next_on_nodata: false,
            failover: Vec::new(),
            failfast: false,
            tls_files: TlsFiles::default(),
            tls_server_name: None,
            sources: Vec::new(),
            resolver: Vec::new(),
        };
        for word in to {
            let targets = target::read(word).map_err(|error| word.error(error))?;
            config
                .targets
                .extend(targets.into_iter().map(|target| (word.clone(), target)));
        }
        too_many(line, config.targets.len())?;
        for option in line.options() {
            option.no_body()?;
            config.read_option(option)?;
        }
        Ok(config)
    }

    fn read_option(&mut self, option: &Line) -> Result<(), ConfigError> {
        match &**option.name() {
            "except" => self
                .except
                .extend(names(option.between(1, usize::MAX, "zones")?)?),
            "policy" => self.policy = policy(option)?,
            "force_tcp" => self.transport = self.force_tcp(option)?,
            "prefer_udp" => self.transport = self.prefer_udp(option)?,
            "max_fails" => self.health.max_fails = number(option)?,
            "health_check" => self.read_health_check(option)?,
            "expire" => self.expire = duration(option)?,
            "max_age" => self.max_age = Some(duration(option)?).filter(|age| !age.is_zero()),
            "max_idle_conns" => self.max_idle_connections = number(option)?,
            "read_timeout" => self.read_timeout = positive_duration(option)?,
            "max_connect_attempts" => self.attempts = Some(number(option)?),
            "max_concurrent" => {
                self.max_concurrent = Some(number(option)?).filter(|most| *most > 0);
            }
            "next" => self.next.extend(rcodes(option)?),
            "next_on_nodata" => self.next_on_nodata = flag(option)?,
            "failover" => self.failover.extend(failover_rcodes(option)?),
            "failfast_all_unhealthy_upstreams" => self.failfast = flag(option)?,
            "tls" => self.tls_files = tls_files(option)?,
            "tls_servername" => {
                let [name] = option.exactly("the name in the upstreams' certificate")?;
                self.tls_server_name = Some(name.to_string());
            }
            "source_address" => self.sources.extend(sources(option)?),
            "resolver" => self.resolver.extend(resolvers(option)?),
            "doh_method" => {
                return Err(option.error(
                    "`doh_method`: DNS over HTTPS to upstreams is not built in; DNS over TLS is: tls://",
                ));
            }
            _ => return Err(option.unknown_option(OPTIONS)),
        }
        Ok(())
    }

    fn force_tcp(&self, option: &Line) -> Result<TransportChoice, ConfigError> {
        option.no_args()?;
        self.not_both(option, TransportChoice::UdpFirst)?;
        Ok(TransportChoice::Tcp)
    }

    fn prefer_udp(&self, option: &Line) -> Result<TransportChoice, ConfigError> {
        option.no_args()?;
        self.not_both(option, TransportChoice::Tcp)?;
        Ok(TransportChoice::UdpFirst)
    }

    fn not_both(&self, option: &Line, other: TransportChoice) -> Result<(), ConfigError> {
        if self.transport == other {
            return Err(option.error("`force_tcp` and `prefer_udp` exclude each other"));
        }
        Ok(())
    }

    fn read_health_check(&mut self, option: &Line) -> Result<(), ConfigError> {
        let what = "a duration, perhaps `no_rec`, and perhaps `domain` with a name";
        let [interval, rest @ ..] = option.between(1, 4, what)? else {
            return Ok(());
        };
        self.health.interval = interval.duration("the pause between health checks")?;
        if self.health.interval.is_zero() {
            return Err(interval.error("the pause between health checks must not be 0"));
        }
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            match &**word {
                "no_rec" => self.health.recursion_desired = false,
                "domain" => {
                    let name = rest
                        .next()
                        .ok_or_else(|| word.error("expected a name after `domain`"))?;
                    let name =
                        Name::from_text(name).map_err(|error| name.error(error.to_string()))?;
                    self.health.domain = name.as_wire().into();
                }
                _ => {
                    return Err(word.error(format!(
                        "unknown word `{word}` in `health_check`; known are: no_rec, domain"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// Refuses more upstreams than a query's order has room for.
pub(super) fn too_many(line: &Line, count: usize) -> Result<(), ConfigError> {
    if count > UPSTREAMS_MAX {
        return Err(line.error(format!(
            "`forward` names {count} servers; {UPSTREAMS_MAX} are the most it may"
        )));
    }
    Ok(())
}

fn names(words: &[Token]) -> Result<Vec<Name>, ConfigError> {
    let Some(first) = words.first() else {
        return Ok(Vec::new());
    };
    zones_from_args(words, &[])?
        .iter()
        .map(|zone| Name::from_text(zone).map_err(|error| first.error(error.to_string())))
        .collect()
}

fn policy(option: &Line) -> Result<PolicyKind, ConfigError> {
    let [word] = option.exactly("one of random, round_robin, sequential")?;
    match &**word {
        "random" => Ok(PolicyKind::Random),
        "round_robin" => Ok(PolicyKind::RoundRobin),
        "sequential" => Ok(PolicyKind::Sequential),
        _ => Err(word.error(format!(
            "unknown policy `{word}`; known are: random, round_robin, sequential"
        ))),
    }
}

fn flag(option: &Line) -> Result<bool, ConfigError> {
    option.no_args()?;
    Ok(true)
}

fn number<N>(option: &Line) -> Result<N, ConfigError>
where
    N: std::str::FromStr + PartialOrd + std::fmt::Display + From<u8> + TryFrom<u32>,
{
    let [word] = option.exactly("a number")?;
    let most = N::try_from(u32::MAX).unwrap_or_else(|_| N::from(u8::MAX));
    word.number(&format!("`{}`", option.name()), N::from(0)..=most)
}

fn duration(option: &Line) -> Result<Duration, ConfigError> {
    let [word] = option.exactly("a duration")?;
    word.duration(&format!("`{}`", option.name()))
}

fn positive_duration(option: &Line) -> Result<Duration, ConfigError> {
    let found = duration(option)?;
    if found.is_zero() {
        return Err(option.error(format!("`{}` must not be 0", option.name())));
    }
    Ok(found)
}

fn rcodes(option: &Line) -> Result<Vec<Rcode>, ConfigError> {
    let words = option.between(1, usize::MAX, "response codes such as NXDOMAIN")?;
    words
        .iter()
        .map(|word| {
            Rcode::from_text(word)
                .ok_or_else(|| word.error(format!("`{word}` is no response code")))
        })
        .collect()
}

fn failover_rcodes(option: &Line) -> Result<Vec<Rcode>, ConfigError> {
    let found = rcodes(option)?;
    if found.contains(&Rcode::NOERROR) {
        return Err(option.error("`failover` can't be for NOERROR: that is no failure"));
    }
    Ok(found)
}

fn tls_files(option: &Line) -> Result<TlsFiles, ConfigError> {
    let path = |word: &Token| PathBuf::from(&*word.text);
    let what = "up to three files: CA, or CERT and KEY, or CERT, KEY and CA";
    Ok(match option.between(0, 3, what)? {
        [authorities] => TlsFiles {
            authorities: Some(path(authorities)),
            certificate_and_key: None,
        },
        [certificate, key, rest @ ..] => TlsFiles {
            authorities: rest.first().map(path),
            certificate_and_key: Some((path(certificate), path(key))),
        },
        [] => TlsFiles::default(),
    })
}

fn sources(option: &Line) -> Result<Vec<IpAddr>, ConfigError> {
    let words = option.between(1, 2, "one local address a family")?;
    words
        .iter()
        .map(|word| {
            word.parse()
                .map_err(|_| word.error(format!("`{word}` is not an IP address")))
        })
        .collect()
}

fn resolvers(option: &Line) -> Result<Vec<SocketAddr>, ConfigError> {
    let words = option.between(1, UPSTREAMS_MAX, "addresses of DNS servers")?;
    words
        .iter()
        .map(|word| match target::read(word).as_deref() {
            Ok([Target::Server(server)]) if !server.tls => Ok(server.address),
            _ => Err(word.error(format!("`{word}` is not the address of a DNS server"))),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn line(text: &str) -> Line {
        let corefile =
            crate::corefile::parse(&format!(". {{\n{text}\n}}"), "Corefile", Path::new(""));
        corefile.unwrap().blocks[0].directives[0].clone()
    }

    fn read(text: &str) -> Config {
        Config::read(&line(text)).unwrap()
    }

    fn refusal(text: &str) -> String {
        Config::read(&line(text)).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let config = read("forward . 192.0.2.1 192.0.2.2");
        assert_eq!(config.from, [Name::ROOT]);
        assert_eq!(config.targets.len(), 2);
        assert_eq!(config.policy, PolicyKind::Random);
        assert_eq!(config.transport, TransportChoice::AsClient);
        assert_eq!(config.health, HealthCheck::default());
        assert_eq!(config.health.max_fails, 2);
        assert_eq!(config.health.interval, Duration::from_millis(500));
        assert_eq!(config.expire, Duration::from_secs(10));
        assert_eq!(config.read_timeout, Duration::from_secs(2));
        assert_eq!(config.max_concurrent, None);
    }

    #[test]
    fn every_option_is_read() {
        let config = read(
            "forward Example.ORG 192.0.2.1 {
                except a.example.org 10.0.0.0/8
                policy round_robin
                prefer_udp
                max_fails 3
                health_check 5s no_rec domain example.org
                expire 20s
                max_age 1m
                max_idle_conns 4
                read_timeout 500ms
                max_connect_attempts 7
                max_concurrent 1000
                next NXDOMAIN SERVFAIL
                next_on_nodata
                failover REFUSED
                failfast_all_unhealthy_upstreams
                tls cert.pem key.pem ca.pem
                tls_servername dns.example
                source_address 192.0.2.9
                resolver 192.0.2.53 192.0.2.54:5353
            }",
        );
        let names =
            |names: &[Name]| -> Vec<String> { names.iter().map(ToString::to_string).collect() };
        assert_eq!(names(&config.from), ["example.org."]);
        assert_eq!(
            names(&config.except),
            ["a.example.org.", "10.in-addr.arpa."]
        );
        assert_eq!(config.policy, PolicyKind::RoundRobin);
        assert_eq!(config.transport, TransportChoice::UdpFirst);
        let health = HealthCheck {
            interval: Duration::from_secs(5),
            recursion_desired: false,
            domain: b"\x07example\x03org\x00".as_slice().into(),
            max_fails: 3,
        };
        assert_eq!(config.health, health);
        assert_eq!(config.expire, Duration::from_secs(20));
        assert_eq!(config.max_age, Some(Duration::from_secs(60)));
        assert_eq!(config.max_idle_connections, 4);
        assert_eq!(config.read_timeout, Duration::from_millis(500));
        assert_eq!(config.attempts, Some(7));
        assert_eq!(config.max_concurrent, Some(1000));
        assert_eq!(config.next, [Rcode::NXDOMAIN, Rcode::SERVFAIL]);
        assert_eq!(config.failover, [Rcode::REFUSED]);
        assert!(config.next_on_nodata && config.failfast);
        let files = TlsFiles {
            authorities: Some("ca.pem".into()),
            certificate_and_key: Some(("cert.pem".into(), "key.pem".into())),
        };
        assert_eq!(config.tls_files, files);
        assert_eq!(config.tls_server_name.as_deref(), Some("dns.example"));
        assert_eq!(config.sources.len(), 1);
        let resolver: Vec<String> = config.resolver.iter().map(ToString::to_string).collect();
        assert_eq!(resolver, ["192.0.2.53:53", "192.0.2.54:5353"]);
    }

    #[test]
    fn the_tls_line_takes_its_four_forms() {
        let files =
            |words: &str| read(&format!("forward . tls://192.0.2.1 {{\ntls {words}\n}}")).tls_files;
        assert_eq!(files(""), TlsFiles::default());
        assert_eq!(files("ca").authorities, Some("ca".into()));
        assert_eq!(
            files("cert key").certificate_and_key,
            Some(("cert".into(), "key".into()))
        );
        assert_eq!(files("cert key").authorities, None);
        assert_eq!(files("cert key ca").authorities, Some("ca".into()));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let many = "192.0.2.1 ".repeat(16);
        for (text, reason) in [
            ("forward", "Corefile:2: `forward` takes FROM"),
            ("forward .", "names no server to ask"),
            (
                &format!("forward . {many}"),
                "names 16 servers; 15 are the most",
            ),
            (
                "forward . https://dns.example",
                "DNS over HTTPS to upstreams is not built in",
            ),
            (
                "forward . 192.0.2.1 {\nnonsense\n}",
                "Corefile:3: unknown option `nonsense`; known are: except",
            ),
            (
                "forward . 192.0.2.1 {\npolicy any\n}",
                "unknown policy `any`",
            ),
            (
                "forward . 192.0.2.1 {\nforce_tcp yes\n}",
                "takes no argument",
            ),
            (
                "forward . 192.0.2.1 {\nforce_tcp\nprefer_udp\n}",
                "exclude each other",
            ),
            (
                "forward . 192.0.2.1 {\nmax_fails -1\n}",
                "`max_fails` must be a number from 0",
            ),
            (
                "forward . 192.0.2.1 {\nmax_concurrent many\n}",
                "`max_concurrent` must be a number",
            ),
            ("forward . 192.0.2.1 {\nhealth_check\n}", "takes a duration"),
            ("forward . 192.0.2.1 {\nhealth_check 0s\n}", "must not be 0"),
            (
                "forward . 192.0.2.1 {\nhealth_check 1s rec\n}",
                "unknown word `rec`",
            ),
            (
                "forward . 192.0.2.1 {\nexpire 10\n}",
                "`expire` must be a duration",
            ),
            (
                "forward . 192.0.2.1 {\nfailover NOERROR\n}",
                "that is no failure",
            ),
            (
                "forward . 192.0.2.1 {\nnext NONSENSE\n}",
                "`NONSENSE` is no response code",
            ),
            (
                "forward . 192.0.2.1 {\nresolver tls://192.0.2.1\n}",
                "not the address of a DNS server",
            ),
            ("forward . 192.0.2.1 {\ndoh_method GET\n}", "DNS over HTTPS"),
            ("forward . 192.0.2.1 {\nexcept\n}", "takes zones"),
        ] {
            let refusal = refusal(text);
            assert!(refusal.contains(reason), "{text}: {refusal}");
        }
    }
}
