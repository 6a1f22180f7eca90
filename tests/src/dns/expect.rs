//! What a reply must be, and how it differs from that.

use std::fmt::Write as _;

use super::reply::{Record, Reply};

/// A reply as the case files write it, its short forms already spelled out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// `NOERROR`, …
    pub rcode: String,
    /// All flags that are set, QR included, as [`Reply::flags`] writes them.
    pub flags: String,
    /// Records: `owner ttl TYPE data`; a word `*` stands for any word.
    pub answer: Vec<String>,
    /// The authority section.
    pub authority: Vec<String>,
    /// The additional section.
    pub additional: Vec<String>,
}

impl Expected {
    /// Each way in which `reply` is not this; none if it is. Sections are sets: only a CNAME must
    /// not come after the records of its target.
    pub fn differences(&self, reply: &Reply) -> Vec<String> {
        let mut all = Vec::new();
        if self.rcode != reply.rcode {
            all.push(format!("rcode {}, not {}", reply.rcode, self.rcode));
        }
        if self.flags != reply.flags {
            all.push(format!("flags {}, not {}", reply.flags, self.flags));
        }
        for (name, expected, got) in [
            ("answer", &self.answer, &reply.answer),
            ("authority", &self.authority, &reply.authority),
            ("additional", &self.additional, &reply.additional),
        ] {
            compare_section(name, expected, got, &mut all);
        }
        if let Some(late) = late_cname(&reply.answer) {
            all.push(format!("`{late}` comes after its target"));
        }
        all
    }
}

/// The difference of two texts that are lists of lines, for a failure message.
pub fn report(title: &str, differences: &[String], reply: &Reply) -> String {
    let mut text = format!("{title}\n");
    for difference in differences {
        let _ = writeln!(text, "    {difference}");
    }
    for line in reply.to_string().lines() {
        let _ = writeln!(text, "    | {line}");
    }
    text
}

fn compare_section(name: &str, expected: &[String], got: &[Record], all: &mut Vec<String>) {
    let mut left: Vec<String> = got.iter().map(ToString::to_string).collect();
    for pattern in expected {
        match left.iter().position(|record| matches(pattern, record)) {
            Some(found) => {
                left.swap_remove(found);
            }
            None => all.push(format!("{name}: missing `{pattern}`")),
        }
    }
    for record in left {
        all.push(format!("{name}: too much `{record}`"));
    }
}

/// Whether the words are equal, `*` in the pattern standing for any one.
fn matches(pattern: &str, record: &str) -> bool {
    let (mut pattern, mut record) = (pattern.split_whitespace(), record.split_whitespace());
    loop {
        match (pattern.next(), record.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(expected), Some(got)) if expected == got => {}
            _ => return false,
        }
    }
}

fn late_cname(answer: &[Record]) -> Option<String> {
    let late = answer.iter().enumerate().find(|(at, record)| {
        record.rtype == "CNAME"
            && answer
                .iter()
                .take(*at)
                .any(|before| before.owner.eq_ignore_ascii_case(&record.data))
    });
    late.map(|(_, record)| record.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        let words: Vec<&str> = text.splitn(4, ' ').collect();
        Record {
            owner: words[0].to_owned(),
            ttl: words[1].parse().unwrap(),
            class: String::new(),
            rtype: words[2].to_owned(),
            data: words[3].to_owned(),
        }
    }

    #[test]
    fn words_match_whole_and_case_counts() {
        assert!(matches("a. 5 A 10.0.0.1", "a. 5 A 10.0.0.1"));
        assert!(matches("a. * A 10.0.0.1", "a. 99 A 10.0.0.1"));
        assert!(!matches("a. 5 A 10.0.0.1", "A. 5 A 10.0.0.1"));
        assert!(!matches("a. 5 A", "a. 5 A 10.0.0.1"));
        assert!(!matches("a. 5 A 10.0.0.1", "a. 5 A"));
    }

    #[test]
    fn one_record_too_much_or_twice_is_a_difference() {
        let mut all = Vec::new();
        let got = [record("a. 5 A 1.1.1.1"), record("a. 5 A 1.1.1.1")];
        compare_section("answer", &["a. 5 A 1.1.1.1".to_owned()], &got, &mut all);
        assert_eq!(all, ["answer: too much `a. 5 A 1.1.1.1`"]);
    }

    #[test]
    fn a_cname_after_its_target_is_noticed() {
        let cname = record("a. 5 CNAME b.");
        let target = record("b. 5 A 1.1.1.1");
        assert_eq!(late_cname(&[cname.clone(), target.clone()]), None);
        assert!(late_cname(&[target, cname]).is_some());
    }
}
