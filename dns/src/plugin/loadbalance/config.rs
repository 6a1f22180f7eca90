use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use crate::corefile::{ConfigError, Line, Token};

/// How often the weight file is looked at by default.
const RELOAD: Duration = Duration::from_secs(30);

/// How to order addresses.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) policy: Policy,
    /// Addresses in these come first.
    pub(super) prefer: Vec<IpNet>,
}

/// What comes first.
#[derive(Clone, Debug)]
pub(super) enum Policy {
    /// Each order as often as any other.
    RoundRobin,
    /// By weights from this file, looked at so often (zero for once).
    Weighted {
        file: PathBuf,
        at: Token,
        reload: Duration,
    },
}

pub(super) fn read(line: &Line, root: &Path) -> Result<Config, ConfigError> {
    let mut policy = match line.args() {
        [] => Policy::RoundRobin,
        [policy] if &**policy == "round_robin" => Policy::RoundRobin,
        [policy, file] if &**policy == "weighted" => Policy::Weighted {
            file: root.join(&**file),
            at: file.clone(),
            reload: RELOAD,
        },
        [policy, ..] if &**policy == "weighted" => {
            return Err(line.error("`weighted` takes one file"));
        }
        [policy, ..] => {
            return Err(policy.error(format!(
                "expected `round_robin` alone, or `weighted FILE`; found `{policy}`"
            )));
        }
    };
    let mut prefer = Vec::new();
    for option in line.options() {
        option.no_body()?;
        match (&**option.name(), &mut policy) {
            ("reload", Policy::Weighted { reload, .. }) => {
                let [interval] = option.exactly("a duration")?;
                *reload = interval.duration("reload")?;
            }
            ("prefer", _) => {
                for arg in option.between(1, usize::MAX, "one network or more")? {
                    let network = arg.parse().map_err(|_| {
                        arg.error(format!(
                            "`{arg}` is not a network such as 10.0.0.0/8 or 2001:db8::/32"
                        ))
                    });
                    prefer.push(network?);
                }
            }
            (_, Policy::Weighted { .. }) => {
                return Err(option.unknown_option(&["reload", "prefer"]));
            }
            (_, Policy::RoundRobin) => return Err(option.unknown_option(&["prefer"])),
        }
    }
    Ok(Config { policy, prefer })
}
