use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::handler::{File, Served};
use crate::corefile::{ConfigError, Line, zones_from_args};
use crate::plugin::{Plugin, Setup};
use crate::wire::Name;

/// How often the file is looked at, unless the Corefile says otherwise.
const RELOAD_DEFAULT: Duration = Duration::from_secs(60);
const OPTIONS: &[&str] = &["fallthrough", "reload"];

/// `file DBFILE [ZONES…] { reload DURATION; fallthrough [ZONES…] }`
///
/// # Errors
/// With the line: a file that can't be read or is no zone, or an option nobody knows.
pub(in crate::plugin) fn setup(setup: &mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError> {
    let mut plugins: Vec<Arc<dyn Plugin>> = Vec::new();
    for line in setup.lines {
        plugins.push(Arc::new(read(line, setup)?));
    }
    Ok(plugins)
}

fn read(line: &Line, setup: &Setup<'_>) -> Result<File, ConfigError> {
    let [path, zones @ ..] = line.args() else {
        return Err(line.error("`file` needs a zone file: file DBFILE [ZONES...]"));
    };
    let zones = zones_from_args(zones, &setup.block.zones)?;
    let mut reload = RELOAD_DEFAULT;
    let mut fallthrough = None;
    for option in line.options() {
        match &*option.name().text {
            "reload" => {
                let [interval] = option.exactly("how often to look at the file")?;
                reload = interval.duration("how often to look at the file")?;
            }
            "fallthrough" => fallthrough = Some(names(option, &zones)?),
            "upstream" => {
                return Err(option.error(
                    "`upstream` is gone from `file`: names outside the zone are asked of the server itself",
                ));
            }
            _ => return Err(option.unknown_option(OPTIONS)),
        }
    }
    let path = setup.block.root.join(PathBuf::from(&*path.text));
    let mut served = Vec::new();
    for zone in zones {
        let origin = Name::from_text(&zone).map_err(|error| line.error(error.to_string()))?;
        let zone = Served::open(path.clone(), &origin);
        served.push(zone.map_err(|error| line.error(error.to_string()))?);
    }
    Ok(File::new(served, fallthrough.unwrap_or_default(), reload))
}

/// The zones of a `fallthrough` line; all of the plugin's without any.
fn names(option: &Line, zones: &[String]) -> Result<Vec<Name>, ConfigError> {
    let zones = zones_from_args(option.args(), zones)?;
    let names = zones.iter().map(|zone| Name::from_text(zone));
    let names: Result<_, _> = names.collect();
    names.map_err(|error| option.error(error.to_string()))
}
