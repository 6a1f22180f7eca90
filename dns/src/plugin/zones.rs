use crate::corefile::{ConfigError, Line, Token, zones_from_args};
use crate::wire::Name;

/// The zones that a plugin works in. Names are looked up without allocating.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zones {
    /// Longest first, in lower case.
    names: Vec<Name>,
}

impl Zones {
    /// ZONES arguments of a directive; without any, the zones of its server block.
    ///
    /// # Errors
    /// When an argument is not a zone.
    pub fn from_args(args: &[Token], of_block: &[String]) -> Result<Self, ConfigError> {
        let texts = zones_from_args(args, of_block)?;
        let names = texts.iter().map(|text| Name::from_text(text));
        let mut names = names
            .collect::<Result<Vec<_>, _>>()
            .map_err(|problem| ConfigError {
                at: args.first().map(|first| first.at.clone()),
                message: problem.to_string(),
            })?;
        names.sort_by_key(|name| std::cmp::Reverse(name.label_count()));
        Ok(Self { names })
    }

    /// The longest of them that `name` is in. Give it in lower case.
    #[must_use]
    pub fn find(&self, name: &Name) -> Option<&Name> {
        self.names.iter().find(|zone| name.is_within(zone))
    }

    /// All of them, longest first.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.names
    }
}

/// Where a plugin passes on what it has no answer for (`fallthrough`); by default nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fallthrough {
    zones: Zones,
}

impl Fallthrough {
    /// `fallthrough [ZONES...]`; everywhere without ZONES.
    ///
    /// # Errors
    /// When an argument is not a zone, or there are braces.
    pub fn from_line(line: &Line) -> Result<Self, ConfigError> {
        line.no_body()?;
        let zones = Zones::from_args(line.args(), &[".".to_owned()])?;
        Ok(Self { zones })
    }

    /// Whether it applies to `name`. Give it in lower case.
    #[must_use]
    pub fn lets_through(&self, name: &Name) -> bool {
        self.zones.find(name).is_some()
    }

    /// Whether it applies nowhere.
    #[must_use]
    pub fn is_nowhere(&self) -> bool {
        self.zones.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::corefile;

    fn line(text: &str) -> Line {
        let corefile = corefile::parse(&format!(".\n{text}"), "Corefile", Path::new("")).unwrap();
        corefile.blocks[0].directives[0].clone()
    }

    fn name(text: &str) -> Name {
        Name::from_text(text).unwrap()
    }

    #[test]
    fn the_longest_zone_is_found() {
        let zones = Zones::from_args(line("x org example.ORG a.b").args(), &[]).unwrap();
        let found = |text| zones.find(&name(text)).map(ToString::to_string);
        assert_eq!(found("www.example.org"), Some("example.org.".to_owned()));
        assert_eq!(found("org"), Some("org.".to_owned()));
        assert_eq!(found("b"), None);
    }

    #[test]
    fn fallthrough_is_everywhere_in_zones_or_nowhere() {
        assert!(!Fallthrough::default().lets_through(&name("a.")));
        assert!(Fallthrough::default().is_nowhere());
        let everywhere = Fallthrough::from_line(&line("fallthrough")).unwrap();
        assert!(everywhere.lets_through(&name("a.")));
        let some = Fallthrough::from_line(&line("fallthrough 10.0.0.0/8 a")).unwrap();
        assert!(some.lets_through(&name("1.10.in-addr.arpa")) && some.lets_through(&name("x.a")));
        assert!(!some.lets_through(&name("11.in-addr.arpa")));
    }
}
