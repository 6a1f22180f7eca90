use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::table::parse_address;
use crate::corefile::{ConfigError, Line};
use crate::plugin::BlockSettings;
use crate::plugin::zones::{Fallthrough, Zones};

/// Where names are read from if the Corefile does not say.
const DEFAULT_PATH: &str = "/etc/hosts";
const DEFAULT_TTL_S: u32 = 3600;
const TTL_MAX_S: u32 = 65_535;
const DEFAULT_RELOAD: Duration = Duration::from_secs(5);
/// However short an interval the Corefile asks for.
const RELOAD_MIN: Duration = Duration::from_millis(100);

const OPTIONS: &[&str] = &[
    "an address with its names",
    "ttl",
    "no_reverse",
    "reload",
    "fallthrough",
    "fallthrough_unsupported",
];

/// A `hosts` directive.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) path: PathBuf,
    pub(super) zones: Zones,
    /// Lines in the Corefile: each an address with its names.
    pub(super) inline: Vec<(IpAddr, Line)>,
    pub(super) ttl_s: u32,
    /// Whether PTR records are made.
    pub(super) reverse: bool,
    /// How often the file is looked at; `None` for never.
    pub(super) reload: Option<Duration>,
    pub(super) fallthrough: Fallthrough,
    /// Whether questions of other types about names of ours fall through, too.
    pub(super) fallthrough_unsupported: bool,
}

impl Config {
    pub(super) fn read(line: &Line, block: &BlockSettings) -> Result<Self, ConfigError> {
        let (path, zones) = match line.args() {
            [] => (PathBuf::from(DEFAULT_PATH), &[][..]),
            [path, zones @ ..] => (block.root.join(&**path), zones),
        };
        if !line.args().is_empty() {
            look_at(&path, line)?;
        }
        let mut config = Self {
            path,
            zones: Zones::from_args(zones, &block.zones)?,
            inline: Vec::new(),
            ttl_s: DEFAULT_TTL_S,
            reverse: true,
            reload: Some(DEFAULT_RELOAD),
            fallthrough: Fallthrough::default(),
            fallthrough_unsupported: false,
        };
        let mut unsupported = None;
        for option in line.options() {
            option.no_body()?;
            match &*option.name().text {
                "ttl" => {
                    let [ttl] = option.exactly("a number of seconds")?;
                    config.ttl_s = ttl.number("ttl", 1..=TTL_MAX_S)?;
                }
                "no_reverse" => {
                    option.no_args()?;
                    config.reverse = false;
                }
                "reload" => {
                    let [every] = option.exactly("a duration")?;
                    let every = every.duration("reload")?;
                    config.reload = (!every.is_zero()).then(|| every.max(RELOAD_MIN));
                }
                "fallthrough" => config.fallthrough = Fallthrough::from_line(option)?,
                "fallthrough_unsupported" => {
                    option.no_args()?;
                    config.fallthrough_unsupported = true;
                    unsupported = Some(option);
                }
                address => match parse_address(address) {
                    Some(address) => config.inline.push((address, option.clone())),
                    None => return Err(option.unknown_option(OPTIONS)),
                },
            }
        }
        match unsupported {
            Some(option) if config.fallthrough.is_nowhere() => {
                Err(option.error("`fallthrough_unsupported` needs a `fallthrough` beside it"))
            }
            _ => Ok(config),
        }
    }
}

/// A file that is not there yet may come; one that we may not look at is a mistake.
fn look_at(path: &Path, line: &Line) -> Result<(), ConfigError> {
    let (at, shown) = (&line.name().at, path.display());
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => tracing::warn!("{at}: {shown} is a directory"),
        Ok(_) => {}
        Err(problem) if problem.kind() == ErrorKind::NotFound => {
            tracing::warn!("{at}: there is no file {shown} yet");
        }
        Err(problem) => return Err(line.error(format!("cannot look at {shown}: {problem}"))),
    }
    Ok(())
}
