use std::fs;
use std::path::Path;

use crate::corefile::{ConfigError, Line};
use crate::plugin::{BlockSettings, Zones};
use crate::wire::Name;

/// Where the server's own search path is.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Whose search path to go through, and for which names.
#[derive(Clone, Debug)]
pub(super) struct Config {
    pub(super) zones: Zones,
    pub(super) source: Source,
}

/// Where the path comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// It is this for all.
    Fixed(Vec<Name>),
    /// The kubernetes plugin knows the client; then follows this.
    Kubernetes(Vec<Name>),
}

pub(super) fn read(line: &Line, block: &BlockSettings) -> Result<Config, ConfigError> {
    line.no_body()?;
    let Some((source, zones)) = line.args().split_last() else {
        return Err(line.error("`autopath` takes a file, or `@kubernetes`"));
    };
    let zones = Zones::from_args(zones, &block.zones)?;
    let source = match source.strip_prefix('@') {
        Some("kubernetes") => {
            if !block.directives.iter().any(|name| name == "kubernetes") {
                tracing::warn!(
                    "{}: `autopath` finds no `kubernetes` in its block",
                    source.at
                );
            }
            // Where there is none, the path is shorter by it.
            let own = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
            Source::Kubernetes(search_path(&own).unwrap_or_default())
        }
        Some(other) => {
            return Err(source.error(format!(
                "`@{other}` knows no search paths; expected `@kubernetes` or a file"
            )));
        }
        None => {
            let path = block.root.join(Path::new(&**source));
            let refuse = |problem: String| source.error(format!("{}: {problem}", path.display()));
            let text = fs::read_to_string(&path).map_err(|it| refuse(it.to_string()))?;
            Source::Fixed(search_path(&text).map_err(refuse)?)
        }
    };
    Ok(Config { zones, source })
}

/// The domains of the last `search` or `domain` line, in lower case, the root at the end.
fn search_path(text: &str) -> Result<Vec<Name>, String> {
    let mut path = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let Some("search" | "domain") = words.next() {
            let names = words.map(Name::from_text).collect::<Result<Vec<_>, _>>();
            path = names.map_err(|problem| problem.to_string())?;
        }
    }
    let mut path: Vec<_> = path.iter().map(Name::to_lower).collect();
    path.retain(|name| !name.is_root());
    path.push(Name::ROOT);
    Ok(path)
}
