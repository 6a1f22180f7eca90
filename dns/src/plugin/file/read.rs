use std::fs;
use std::path::{Path, PathBuf};

use domain::base::iana::Class as DomainClass;
use domain::base::name::ToName;
use domain::base::rdata::ComposeRecordData;
use domain::zonefile::inplace::{Entry, ScannedRecord, Zonefile};

use super::zone::{Zone, ZoneError};
use crate::plugin::check_zone_text;
use crate::wire::{Class, Malformed, Name, Record, Rtype};

/// Octets of one zone file, what it includes counted by itself.
const FILE_OCTETS_MAX: u64 = 256 << 20;
/// Files that include each other.
const INCLUDE_DEPTH_MAX: usize = 8;

/// A zone file that can't be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{}: larger than {FILE_OCTETS_MAX} octets", .0.display())]
    TooLarge(PathBuf),
    #[error("{}: line {reason}", path.display())]
    Syntax { path: PathBuf, reason: String },
    #[error("{}: {reason}", path.display())]
    Record { path: PathBuf, reason: Malformed },
    #[error("{}: $INCLUDE goes deeper than {INCLUDE_DEPTH_MAX} files", .0.display())]
    TooDeep(PathBuf),
    #[error("{}: {reason}", path.display())]
    Zone { path: PathBuf, reason: ZoneError },
}

/// Reads a zone file.
pub(super) fn read_zone(path: &Path, origin: &Name) -> Result<Zone, ReadError> {
    let mut records = Vec::new();
    read_into(path, origin, 0, &mut records)?;
    Zone::new(origin, records).map_err(|reason| ReadError::Zone {
        path: path.to_owned(),
        reason,
    })
}

fn read_into(
    path: &Path,
    origin: &Name,
    depth: usize,
    records: &mut Vec<Record>,
) -> Result<(), ReadError> {
    if depth > INCLUDE_DEPTH_MAX {
        return Err(ReadError::TooDeep(path.to_owned()));
    }
    let io = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(io)?.len() > FILE_OCTETS_MAX {
        return Err(ReadError::TooLarge(path.to_owned()));
    }
    let text = fs::read(path).map_err(io)?;
    let syntax = |reason: String| ReadError::Syntax {
        path: path.to_owned(),
        reason,
    };
    let malformed = |reason| ReadError::Record {
        path: path.to_owned(),
        reason,
    };
    check_zone_text(&String::from_utf8_lossy(&text)).map_err(syntax)?;
    let mut file = Zonefile::with_capacity(text.len() + 1);
    file.extend_from_slice(&text);
    if !text.ends_with(b"\n") {
        file.extend_from_slice(b"\n");
    }
    let base = domain::base::Name::from_octets(origin.as_wire().to_vec().into());
    file.set_origin(base.map_err(|error| syntax(error.to_string()))?);
    file.set_default_class(DomainClass::IN);
    while let Some(entry) = file
        .next_entry()
        .map_err(|error| syntax(placed(&error.to_string())))?
    {
        match entry {
            Entry::Record(record) => records.push(own(&record).map_err(malformed)?),
            Entry::Include {
                path: other,
                origin: base,
            } => {
                let folder = path.parent().unwrap_or_else(|| Path::new("."));
                let base = match base {
                    Some(base) => Name::copied(base.as_slice()).map_err(malformed)?,
                    None => origin.clone(),
                };
                read_into(&folder.join(&*other), &base, depth + 1, records)?;
            }
        }
    }
    Ok(())
}

/// The parser's `LINE:COLUMN: reason`. It has read the end of the line by the time it
/// complains of the last word in it: then it is the line before that is meant.
fn placed(error: &str) -> String {
    let mut parts = error.splitn(3, ':');
    let line = parts.next().and_then(|line| line.parse::<u64>().ok());
    match (line, parts.next(), parts.next()) {
        (Some(line), Some("1"), Some(reason)) if line > 1 => format!("{}:{reason}", line - 1),
        (Some(line), Some(_), Some(reason)) => format!("{line}:{reason}"),
        _ => error.to_owned(),
    }
}

/// A record of the parser's as one of ours.
fn own(record: &ScannedRecord) -> Result<Record, Malformed> {
    let mut owner = Vec::new();
    let Ok(()) = record.owner().compose(&mut owner);
    let mut data = Vec::new();
    let Ok(()) = record.data().compose_rdata(&mut data);
    // The parser takes `a..b` for a name.
    let (owner, _) = Name::read_plain(&owner, 0)
        .ok()
        .filter(|(_, end)| *end == owner.len())
        .ok_or(Malformed("a name has an empty label"))?;
    Ok(Record {
        owner,
        rtype: Rtype(record.rtype().to_int()),
        class: Class(record.class().to_int()),
        ttl: record.ttl().as_secs(),
        data,
    })
}
