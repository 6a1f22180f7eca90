use super::format::{COMBINED, COMMON, Format};
use crate::corefile::{ConfigError, Line};
use crate::wire::{Kind, Name};

/// What to print of which queries.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// This name and all below it, in lower case.
    pub(super) names: Name,
    pub(super) format: Format,
    /// `None` for all.
    pub(super) classes: Option<Vec<Class>>,
}

/// How a query ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Success,
    Denial,
    Error,
}

impl Class {
    pub(super) const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Success | Kind::Delegation => Self::Success,
            Kind::Nodata | Kind::Nxdomain => Self::Denial,
            Kind::ServerError | Kind::Transfer | Kind::OtherError => Self::Error,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Denial => "denial",
            Self::Error => "error",
        }
    }
}

/// Reads one `log`: a rule for each of its names.
pub(super) fn read(line: &Line) -> Result<Vec<Rule>, ConfigError> {
    let (names, format) = match line.args() {
        [names @ .., format] if !names.is_empty() && format.contains('{') => {
            let format = format.replace("{common}", COMMON);
            (names, format.replace("{combined}", COMBINED))
        }
        names => (names, COMMON.to_owned()),
    };
    let format = Format::parse(&format);
    let classes = classes(line)?;
    let rule = |names| Rule {
        names,
        format: format.clone(),
        classes: classes.clone(),
    };
    if names.is_empty() {
        return Ok(vec![rule(Name::ROOT)]);
    }
    let names = names.iter().map(|token| {
        let name = Name::from_text(token).map_err(|problem| token.error(problem.to_string()))?;
        Ok(rule(name.to_lower()))
    });
    names.collect()
}

fn classes(line: &Line) -> Result<Option<Vec<Class>>, ConfigError> {
    let (mut classes, mut all) = (Vec::new(), false);
    for option in line.options() {
        option.no_body()?;
        if &**option.name() != "class" {
            return Err(option.unknown_option(&["class"]));
        }
        let most = usize::MAX;
        for arg in option.between(1, most, "one class or more")? {
            match &**arg {
                "all" => all = true,
                "success" => classes.push(Class::Success),
                "denial" => classes.push(Class::Denial),
                "error" => classes.push(Class::Error),
                _ => {
                    return Err(arg.error(format!(
                        "unknown class `{arg}`; known are: success, denial, error, all"
                    )));
                }
            }
        }
    }
    Ok((!all && !classes.is_empty()).then_some(classes))
}
