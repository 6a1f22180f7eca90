//! What must come back, and whether it did.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::testbed::{Answer, Family, Outcome, Place};

/// What a kind of packet must meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// All of these endpoints are hit, and no other.
    All(Vec<Target>),
    /// One of these, always the same; remembered under a name if one is given.
    OneOf {
        /// Those that may be hit.
        of: Vec<Target>,
        /// The name under which the one that was hit is remembered.
        remember: Option<String>,
    },
    /// The endpoint remembered under this name.
    Same(String),
    /// Another endpoint than the one remembered under this name.
    OtherThan(String),
    /// Refused: TCP reset or ICMP port unreachable.
    Reject,
    /// Nothing comes back.
    Drop,
    /// Nobody captured it: the world outside the cluster answers.
    Outside,
}

/// An endpoint: an address, and a port where it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    address: IpAddr,
    port: Option<u16>,
}

impl Target {
    /// Whether `by` is this endpoint, in `family`.
    pub fn is(self, by: SocketAddr, family: Family) -> bool {
        family.twin(self.address) == by.ip() && self.port.is_none_or(|port| port == by.port())
    }
}

impl std::str::FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Ok(address) = text.parse() {
            return Ok(Self {
                address,
                port: None,
            });
        }
        let socket: SocketAddr = text
            .parse()
            .map_err(|_| anyhow::anyhow!("`{text}`: expected an address or address:port"))?;
        Ok(Self {
            address: socket.ip(),
            port: Some(socket.port()),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => write!(f, "{}", self.address),
            Some(port) => write!(f, "{}", SocketAddr::new(self.address, port)),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Raw {
    Word(String),
    List(Vec<String>),
    #[serde(rename_all = "camelCase")]
    OneOf {
        one_of: Vec<String>,
        remember: Option<String>,
    },
    Same {
        same: String,
    },
    #[serde(rename_all = "camelCase")]
    OtherThan {
        other_than: String,
    },
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let targets = |list: Vec<String>| -> Result<Vec<Target>, D::Error> {
            let parsed: anyhow::Result<Vec<Target>> =
                list.iter().map(|text| text.parse()).collect();
            let parsed = parsed.map_err(D::Error::custom)?;
            if parsed.is_empty() {
                Err(D::Error::custom("expect: no endpoint is named"))
            } else {
                Ok(parsed)
            }
        };
        match Raw::deserialize(deserializer)? {
            Raw::Word(word) => match word.as_str() {
                "reject" => Ok(Self::Reject),
                "drop" => Ok(Self::Drop),
                "outside" => Ok(Self::Outside),
                _ => Err(D::Error::custom(format!(
                    "expect: `{word}`; expected reject, drop, outside, a list of endpoints, oneOf, same or otherThan"
                ))),
            },
            Raw::List(list) => Ok(Self::All(targets(list)?)),
            Raw::OneOf { one_of, remember } => Ok(Self::OneOf {
                of: targets(one_of)?,
                remember,
            }),
            Raw::Same { same } => Ok(Self::Same(same)),
            Raw::OtherThan { other_than } => Ok(Self::OtherThan(other_than)),
        }
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |targets: &[Target]| {
            targets
                .iter()
                .map(Target::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        };
        match self {
            Self::All(targets) => write!(f, "each of {}", list(targets)),
            Self::OneOf { of, .. } => write!(f, "always the same one of {}", list(of)),
            Self::Same(name) => write!(f, "the endpoint remembered as {name}"),
            Self::OtherThan(name) => {
                write!(f, "another endpoint than the one remembered as {name}")
            }
            Self::Reject => f.write_str("refused"),
            Self::Drop => f.write_str("dropped"),
            Self::Outside => f.write_str("not captured, answered by the fabric"),
        }
    }
}

/// What is wrong with one answer as to its source, if anything.
///
/// In a flow that moved between endpoints only the address counts: a reply of the old endpoint that was
/// still under way leaves a conntrack entry behind, and the kernel gives the flow another port for it.
pub(super) fn wrong_source(
    answer: &Answer,
    masquerade: Option<bool>,
    is_flow: bool,
) -> Option<String> {
    let kept = if is_flow {
        answer.seen.ip() == answer.own.ip()
    } else {
        answer.seen == answer.own
    };
    let family = Family::of(answer.seen.ip());
    let node1 = Place::Node1
        .addresses()
        .iter()
        .filter_map(|text| text.parse().ok())
        .any(|own: IpAddr| family.twin(own) == answer.seen.ip());
    match masquerade {
        Some(true) if !node1 || answer.seen == answer.own => Some(format!(
            "not masqueraded: {} saw {}, client {}",
            answer.by, answer.seen, answer.own
        )),
        Some(false) if !kept => Some(format!(
            "masqueraded: {} saw {}, client {}",
            answer.by, answer.seen, answer.own
        )),
        _ => None,
    }
}

/// What is wrong with the outcomes so far. `Ok(false)` means: nothing, but more packets are needed.
pub(super) fn judge(
    expect: &Expect,
    outcomes: &[Outcome],
    to: SocketAddr,
    remembered: Option<SocketAddr>,
) -> Result<bool, String> {
    let family = Family::of(to.ip());
    match expect {
        Expect::Reject => outcomes.iter().find(|outcome| **outcome != Outcome::Refused),
        Expect::Drop => outcomes
            .iter()
            .find(|outcome| **outcome != Outcome::TimedOut),
        Expect::Outside => outcomes.iter().find(|outcome| {
            !matches!(outcome, Outcome::Answered(answer) if answer.place == Place::Fabric.name() && answer.by == to)
        }),
        Expect::Same(name) => {
            let Some(by) = remembered else { return Err(format!("nothing is remembered as {name}")) };
            outcomes.iter().find(|outcome| !matches!(outcome, Outcome::Answered(answer) if answer.by == by))
        }
        Expect::OtherThan(name) => {
            let Some(by) = remembered else {
                return Err(format!("nothing is remembered as {name}"));
            };
            outcomes.iter().find(|outcome| {
                !matches!(outcome, Outcome::Answered(answer)
                    if answer.by != by && answer.place != Place::Fabric.name())
            })
        }
        Expect::OneOf { of, .. } | Expect::All(of) => outcomes.iter().find(|outcome| {
            !matches!(outcome, Outcome::Answered(answer)
                if answer.place != Place::Fabric.name() && of.iter().any(|target| target.is(answer.by, family)))
        }),
    }
    .map_or(Ok(()), |wrong| Err(wrong.to_string()))?;
    let hit: BTreeSet<SocketAddr> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Answered(answer) => Some(answer.by),
            _ => None,
        })
        .collect();
    match expect {
        Expect::OneOf { .. } if hit.len() > 1 => {
            Err(format!("more than one endpoint answered: {hit:?}"))
        }
        Expect::All(targets) => Ok(targets
            .iter()
            .all(|target| hit.iter().any(|by| target.is(*by, family)))),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(by: &str, seen: &str) -> Outcome {
        Outcome::Answered(Answer {
            place: "pod11".to_owned(),
            by: by.parse().unwrap(),
            seen: seen.parse().unwrap(),
            own: "10.244.1.12:4000".parse().unwrap(),
            bytes: 2,
        })
    }

    const VIP: &str = "10.96.1.1:80";

    #[test]
    fn all_means_each_and_no_other() {
        let expect = Expect::All(vec![
            "10.244.1.11".parse().unwrap(),
            "10.244.2.21".parse().unwrap(),
        ]);
        let vip = VIP.parse().unwrap();
        let one = answer("10.244.1.11:8080", "10.244.1.12:4000");
        let two = answer("10.244.2.21:8080", "10.244.1.12:4000");
        let other = answer("10.244.2.22:8080", "10.244.1.12:4000");
        assert_eq!(
            judge(&expect, std::slice::from_ref(&one), vip, None),
            Ok(false)
        );
        assert_eq!(judge(&expect, &[one.clone(), two], vip, None), Ok(true));
        assert!(judge(&expect, &[one.clone(), other], vip, None).is_err());
        assert!(judge(&expect, &[one, Outcome::TimedOut], vip, None).is_err());
    }

    #[test]
    fn refused_and_dropped_are_not_the_same() {
        let vip = VIP.parse().unwrap();
        assert!(judge(&Expect::Reject, &[Outcome::TimedOut], vip, None).is_err());
        assert!(judge(&Expect::Drop, &[Outcome::Refused], vip, None).is_err());
        assert_eq!(
            judge(&Expect::Drop, &[Outcome::TimedOut], vip, None),
            Ok(true)
        );
    }

    #[test]
    fn masquerade_is_told_by_the_source_the_server_saw() {
        let kept = answer("10.244.1.11:8080", "10.244.1.12:4000");
        let node = answer("10.244.1.11:8080", "192.168.100.11:777");
        for (outcome, masquerade, right) in [
            (&kept, true, false),
            (&kept, false, true),
            (&node, true, true),
            (&node, false, false),
        ] {
            let Outcome::Answered(answer) = outcome else {
                unreachable!()
            };
            assert_eq!(
                wrong_source(answer, Some(masquerade), false).is_none(),
                right,
                "{answer:?} {masquerade}"
            );
        }
    }
}
