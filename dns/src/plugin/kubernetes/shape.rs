//! What a name in a zone stands for, by its form alone.

use super::index::{PortFilter, Selection};
use crate::wire::Name;

/// A name of 255 octets has at most 127 labels.
const LABELS_MAX: usize = 128;

/// Where the labels of a name begin.
#[derive(Debug)]
pub(super) struct Labels {
    starts: [u8; LABELS_MAX],
    count: usize,
}

/// A name below a zone.
#[derive(Debug)]
pub(super) enum Shape<'a> {
    /// The zone itself.
    Apex,
    /// `svc` and `pod`, and `dns`, which `ns.dns` is below: they exist, and have nothing.
    Empty,
    /// `dns-version`.
    Version,
    /// `ns.dns`.
    NameServer,
    /// `namespace.svc`
    Namespace(&'a [u8]),
    /// `namespace.pod`
    PodNamespace(&'a [u8]),
    /// `[…].service.namespace.svc`
    Service {
        /// `service.namespace` as labels.
        key: &'a [u8],
        /// Which part of it.
        part: Part<'a>,
    },
    /// `[…].address.namespace.pod`
    Pod {
        /// The address with dashes.
        label: &'a [u8],
        /// The namespace.
        namespace: &'a [u8],
    },
    /// Nothing that a cluster has.
    Other,
}

/// Which part of a Service is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Part<'a> {
    /// All of it.
    Whole,
    /// The endpoints called so.
    Endpoint(&'a [u8]),
    /// These ports.
    Ports(PortFilter<'a>),
    /// The endpoints of a topology zone.
    Zonal {
        /// The zone as labels.
        zone: &'a [u8],
        /// All endpoints if it has none.
        prefer: bool,
    },
}

impl Labels {
    /// Finds them.
    #[must_use]
    pub(super) fn new(name: &Name) -> Self {
        let mut labels = Self {
            starts: [0; LABELS_MAX],
            count: 0,
        };
        let wire = name.as_wire();
        let mut at = 0;
        while let (Some(length @ 1..), Some(place)) =
            (wire.get(at).copied(), labels.starts.get_mut(labels.count))
        {
            *place = u8::try_from(at).unwrap_or_default();
            labels.count += 1;
            at += usize::from(length) + 1;
        }
        labels
    }

    /// How many there are.
    #[must_use]
    pub(super) const fn count(&self) -> usize {
        self.count
    }

    /// How many labels lie before the octet `at`; `None` if no label begins there.
    #[must_use]
    pub(super) fn before(&self, at: usize, wire_len: usize) -> Option<usize> {
        if at + 1 == wire_len {
            return Some(self.count);
        }
        let starts = self.starts.get(..self.count)?;
        starts.iter().rposition(|start| usize::from(*start) == at)
    }

    fn start(&self, index: usize) -> usize {
        self.starts.get(index).copied().map_or(0, usize::from)
    }
}

/// The label that begins at `at`, without its length.
fn label(wire: &[u8], at: usize) -> &[u8] {
    let length = wire.get(at).copied().map_or(0, usize::from);
    wire.get(at + 1..=at + length).unwrap_or_default()
}

impl<'a> Shape<'a> {
    /// The form of `name`, given in lower case, whose first `count` labels are before its
    /// zone. Names of topology zones only count where they are answered (`zonal`).
    #[must_use]
    pub(super) fn new(name: &'a Name, labels: &Labels, count: usize, zonal: bool) -> Self {
        let wire = name.as_wire();
        let nth = |index: usize| label(wire, labels.start(index));
        // Counted from the zone: 1 is next to it.
        let from_zone = |back: usize| count.checked_sub(back).map_or(&[][..], nth);
        let kind = from_zone(1);
        match (kind, count) {
            (_, 0) => Self::Apex,
            (b"svc" | b"pod" | b"dns", 1) => Self::Empty,
            (b"dns-version", 1) => Self::Version,
            (b"dns", 2) if from_zone(2) == b"ns" => Self::NameServer,
            (b"svc", 2) => Self::Namespace(from_zone(2)),
            (b"pod", 2) => Self::PodNamespace(from_zone(2)),
            (b"pod", 3..=5) => Self::Pod {
                label: from_zone(3),
                namespace: from_zone(2),
            },
            (b"svc", 3..) => {
                let (first, end) = (labels.start(count - 3), labels.start(count - 1));
                let key = wire.get(first..end).unwrap_or_default();
                let part = match count {
                    3 => Some(Part::Whole),
                    4 => Some(Part::Endpoint(nth(0))),
                    5 => Some(Part::Ports(PortFilter {
                        port: without_underscore(nth(0)),
                        protocol: without_underscore(nth(1)),
                    })),
                    _ if zonal => Part::zonal(wire, labels, count),
                    _ => None,
                };
                part.map_or(Self::Other, |part| Self::Service { key, part })
            }
            _ => Self::Other,
        }
    }
}

impl<'a> Part<'a> {
    /// `topology-zone.pin._zone` or `topology-zone.prefer._zone`; the zone may have dots.
    fn zonal(wire: &'a [u8], labels: &Labels, count: usize) -> Option<Self> {
        let nth = |back: usize| label(wire, labels.start(count - back));
        let prefer = match nth(5) {
            b"pin" => false,
            b"prefer" => true,
            _ => return None,
        };
        let zone = wire.get(..labels.start(count - 5))?;
        (nth(4) == b"_zone").then_some(Self::Zonal { zone, prefer })
    }

    /// The endpoints and ports that are meant, where it is not about zones.
    #[must_use]
    pub(super) fn selects(&self) -> (Selection<'a>, PortFilter<'a>) {
        match self {
            Self::Endpoint(label) => (Selection::called(label), PortFilter::default()),
            Self::Ports(filter) => (Selection::All, *filter),
            Self::Whole | Self::Zonal { .. } => (Selection::All, PortFilter::default()),
        }
    }
}

fn without_underscore(label: &[u8]) -> &[u8] {
    label.strip_prefix(b"_").unwrap_or(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str, zonal: bool) -> String {
        let name = Name::from_text(&format!("{text}c.l.")).expect(text);
        let labels = Labels::new(&name);
        let count = labels.before(name.wire_len() - 5, name.wire_len());
        let show = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        match Shape::new(&name, &labels, count.expect("a zone"), zonal) {
            Shape::Apex => "apex".to_owned(),
            Shape::Empty => "empty".to_owned(),
            Shape::Version => "version".to_owned(),
            Shape::NameServer => "server".to_owned(),
            Shape::Namespace(label) => format!("namespace {}", show(label)),
            Shape::PodNamespace(label) => format!("pods of {}", show(label)),
            Shape::Pod { label, namespace } => format!("pod {} {}", show(label), show(namespace)),
            Shape::Service { key, part } => {
                let part = match part {
                    Part::Whole => String::new(),
                    Part::Endpoint(label) => format!(" endpoint {}", show(label)),
                    Part::Ports(filter) => {
                        format!(" port {} {}", show(filter.port), show(filter.protocol))
                    }
                    Part::Zonal { zone, prefer } => format!(" zone {:?} {prefer}", show(zone)),
                };
                format!("{:?}{part}", show(key))
            }
            Shape::Other => "other".to_owned(),
        }
    }

    #[test]
    fn names_are_told_apart() {
        for (name, expected) in [
            ("", "apex"),
            ("svc.", "empty"),
            ("pod.", "empty"),
            ("dns.", "empty"),
            ("dns-version.", "version"),
            ("x.dns-version.", "other"),
            ("ns.dns.", "server"),
            ("x.dns.", "other"),
            ("a.svc.", "namespace a"),
            ("a.pod.", "pods of a"),
            ("a.b.", "other"),
            ("s.n.svc.", "\"\\u{1}s\\u{1}n\""),
            ("e.s.n.svc.", "\"\\u{1}s\\u{1}n\" endpoint e"),
            ("_p._tcp.s.n.svc.", "\"\\u{1}s\\u{1}n\" port p tcp"),
            ("p.tcp.s.n.svc.", "\"\\u{1}s\\u{1}n\" port p tcp"),
            ("x.p.tcp.s.n.svc.", "other"),
            ("1-2-3-4.n.pod.", "pod 1-2-3-4 n"),
            ("x.y.1-2-3-4.n.pod.", "pod 1-2-3-4 n"),
            ("x.y.z.1-2-3-4.n.pod.", "other"),
        ] {
            assert_eq!(shape(name, false), expected, "{name}");
        }
    }

    #[test]
    fn topology_zones_count_where_they_are_answered() {
        let name = "b.a.pin._zone.s.n.svc.";
        assert_eq!(shape(name, false), "other");
        let found = "\"\\u{1}s\\u{1}n\" zone \"\\u{1}b\\u{1}a\" false";
        assert_eq!(shape(name, true), found);
        assert_eq!(shape("b.keep._zone.s.n.svc.", true), "other");
        assert_eq!(shape("b.pin.zone.s.n.svc.", true), "other");
    }
}
