//! The ratios over the number of Services, drawn.

use std::fmt::Write;

use super::report::{Sized, factor, thousands};
use super::subjects::Kind;
use super::ways::Way;
use super::workload::Workload;

/// What is drawn: one panel each.
const PANELS: [(Way, Workload); 4] = [
    (Way::ClusterIpHere, Workload::Connect),
    (Way::NodePortHere, Workload::Connect),
    (Way::ClusterIpHere, Workload::Request),
    (Way::NodePortHere, Workload::Request),
];
/// Size of a panel's inside, and what is left around it, in pixels.
const INSIDE: (f64, f64) = (340.0, 220.0);
const MARGIN: (f64, f64) = (60.0, 60.0);
/// Below all panels.
const LEGEND: f64 = 40.0;
/// From one line of text to the next, and at most from one character to the next.
const LINE: f64 = 16.0;
const CHARACTER: f64 = 7.5;
/// Ratios at which there may be a line.
const MARKS: [f64; 13] = [
    0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0,
];

/// The drawing. Both axes are logarithmic.
pub(super) fn svg(all: &[Sized]) -> String {
    let panel = (INSIDE.0 + MARGIN.0 * 1.5, INSIDE.1 + MARGIN.1 * 1.5);
    let (width, height) = (panel.0 * 2.0, panel.1 * 2.0 + LEGEND);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let origins = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)];
    for ((way, workload), (column, line)) in PANELS.into_iter().zip(origins) {
        let axes = Axes::of(all, way, workload, (column * panel.0, line * panel.1));
        axes.draw(&mut text, all, [&way.to_string(), &workload.to_string()]);
        for kind in Kind::ALL {
            let points = all.iter().filter_map(|sized| {
                let spread = sized.ratio(way, workload, kind)?;
                Some((axes.x(sized.services), axes.y(spread.median)))
            });
            line_of(&mut text, kind, points);
        }
    }
    let mut x = MARGIN.0;
    for kind in Kind::ALL.into_iter().filter(|&kind| takes_part(all, kind)) {
        let y = height - LEGEND / 2.0;
        line_of(&mut text, kind, [(x, y), (x + 24.0, y)].into_iter());
        label(&mut text, (x + 32.0, y + 4.0), "start", kind.name());
        x += 52.0 + CHARACTER * count(kind.name().len());
    }
    text.push_str("</svg>\n");
    text
}

fn takes_part(all: &[Sized], kind: Kind) -> bool {
    let mut subjects = all.iter().flat_map(|sized| &sized.programmed);
    subjects.any(|subject| subject.kind == kind)
}

const fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Nothing => "#888888",
        Kind::Ebpf => "#0b7a3b",
        Kind::EbpfDirect => "#6fbf73",
        Kind::Nftables => "#12336b",
        Kind::NftablesShape => "#1f5fbf",
        Kind::IptablesNft => "#d9730d",
        Kind::IptablesLegacy => "#b3261e",
    }
}

/// Where a panel is, and what its edges stand for.
struct Axes {
    origin: (f64, f64),
    /// Logarithms of the least and the most Services, and of the ratios.
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    fn of(all: &[Sized], way: Way, workload: Workload, corner: (f64, f64)) -> Self {
        let ratios = all.iter().flat_map(|sized| {
            Kind::ALL.map(|kind| sized.ratio(way, workload, kind).map(|spread| spread.median))
        });
        let ratios: Vec<f64> = ratios.flatten().collect();
        let sizes = all.iter().map(|sized| count(sized.services));
        let most = ratios.iter().copied().fold(2.0, f64::max);
        let least = ratios.iter().copied().fold(0.9, f64::min);
        let (first, last) = sizes.fold((f64::INFINITY, 1.0), |(first, last), size| {
            (size.min(first), size.max(last))
        });
        Self {
            origin: (corner.0 + MARGIN.0, corner.1 + MARGIN.1),
            // A single size has its point on the left.
            x: (first.ln(), last.max(first * 10.0).ln()),
            y: ((least * 0.95).ln(), (most * 1.15).ln()),
        }
    }

    fn x(&self, services: usize) -> f64 {
        let part = (count(services).ln() - self.x.0) / (self.x.1 - self.x.0);
        self.origin.0 + part * INSIDE.0
    }

    fn y(&self, ratio: f64) -> f64 {
        let part = (ratio.ln() - self.y.0) / (self.y.1 - self.y.0);
        self.origin.1 + (1.0 - part) * INSIDE.1
    }

    fn draw(&self, text: &mut String, all: &[Sized], title: [&str; 2]) {
        let (left, top) = self.origin;
        let (right, bottom) = (left + INSIDE.0, top + INSIDE.1);
        for (line, above) in title.into_iter().zip([LINE + 8.0, 8.0]) {
            label(text, (left, top - above), "start", line);
        }
        for mark in MARKS {
            if mark.ln() < self.y.0 || mark.ln() > self.y.1 {
                continue;
            }
            let y = self.y(mark);
            rule(text, (left, y), (right, y));
            label(
                text,
                (left - 6.0, y + 4.0),
                "end",
                &format!("{}×", factor(mark)),
            );
        }
        for sized in all {
            let x = self.x(sized.services);
            rule(text, (x, top), (x, bottom));
            label(
                text,
                (x, bottom + 16.0),
                "middle",
                &thousands(sized.services),
            );
        }
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::INFINITY, f64::from)
}

fn rule(text: &mut String, from: (f64, f64), to: (f64, f64)) {
    // Writing to a String can't fail.
    let _ = writeln!(
        text,
        "<path d=\"M{:.1} {:.1}L{:.1} {:.1}\" stroke=\"#dddddd\"/>",
        from.0, from.1, to.0, to.1
    );
}

fn label(text: &mut String, at: (f64, f64), anchor: &str, words: &str) {
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{words}</text>",
        at.0, at.1
    );
}

fn line_of(text: &mut String, kind: Kind, points: impl Iterator<Item = (f64, f64)>) {
    let (mut path, mut dots, colour) = (String::new(), String::new(), colour(kind));
    for (x, y) in points {
        let verb = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{verb}{x:.1} {y:.1}");
        let _ = writeln!(
            dots,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
        );
    }
    if !path.is_empty() {
        let _ = writeln!(
            text,
            "<path d=\"{path}\" stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"/>\n{dots}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::sized;
    use super::*;

    #[test]
    fn a_line_a_subject_in_each_panel() {
        let drawing = svg(&[sized(10, &[1.1]), sized(1000, &[3.0])]);
        let stroke = format!("stroke=\"{}\"", colour(Kind::IptablesNft));
        assert_eq!(drawing.matches(&stroke).count(), 4 + 1);
        assert!(!drawing.contains(colour(Kind::Ebpf)));
        assert!(!drawing.contains("NaN") && !drawing.contains("inf"));
        assert!(drawing.contains(">1,000</text>"));
    }

    #[test]
    fn more_is_higher_and_further_right() {
        let all = [sized(10, &[1.1]), sized(1000, &[3.0])];
        let axes = Axes::of(&all, Way::ClusterIpHere, Workload::Connect, (0.0, 0.0));
        assert!(axes.y(3.0) < axes.y(1.1));
        assert!((axes.x(1000) - axes.x(10) - INSIDE.0).abs() < 0.01);
    }
}
