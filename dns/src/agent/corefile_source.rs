use std::io::Read;
use std::path::{Path, PathBuf};

use crate::corefile::{self, CONFIG_BYTES_LIMIT, ConfigError, Corefile};

/// The file that is read without `-conf`.
const DEFAULT: &str = "Corefile";
/// What `-conf` says to read the standard input.
const STDIN: &str = "stdin";

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorefileSource {
    /// `-conf FILE`
    File(PathBuf),
    /// No flag: `Corefile` in the working directory.
    Default,
    /// `-conf stdin`; read once.
    Stdin,
}

impl CorefileSource {
    /// As the flag says.
    #[must_use]
    pub fn from_flag(conf: Option<&Path>) -> Self {
        match conf {
            None => Self::Default,
            Some(path) if path == Path::new(STDIN) => Self::Stdin,
            Some(path) => Self::File(path.to_owned()),
        }
    }

    /// Whether a second look may find something else.
    #[must_use]
    pub const fn can_change(&self) -> bool {
        !matches!(self, Self::Stdin)
    }

    /// Reads it.
    ///
    /// # Errors
    /// With file and line of what is no Corefile; also if it serves nothing.
    pub fn load(&self) -> Result<Corefile, ConfigError> {
        let corefile = match self {
            Self::File(path) => corefile::load(path),
            Self::Default if Path::new(DEFAULT).exists() => corefile::load(Path::new(DEFAULT)),
            Self::Default => Err(ConfigError::without_place(
                "there is no file Corefile in the working directory; name one with -conf FILE \
                 (the reference's built-in configuration, `whoami` at port 53, is not served)",
            )),
            Self::Stdin => read_stdin().and_then(|text| {
                let folder = Path::new("");
                corefile::parse(&text, STDIN, folder)
            }),
        }?;
        if corefile.blocks.is_empty() {
            return Err(ConfigError::without_place(format!(
                "{} has no server block, so there is nothing to serve",
                self.name()
            )));
        }
        Ok(corefile)
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Default => DEFAULT.to_owned(),
            Self::Stdin => STDIN.to_owned(),
        }
    }
}

fn read_stdin() -> Result<String, ConfigError> {
    let mut text = String::new();
    let read = std::io::stdin()
        .lock()
        .take(CONFIG_BYTES_LIMIT)
        .read_to_string(&mut text);
    let wrong = |error| ConfigError::without_place(format!("cannot read stdin: {error}"));
    read.map_err(wrong).map(|_octets| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_server_blocks_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("Corefile");
        std::fs::write(&path, "# nothing\n").expect("written");
        let source = CorefileSource::from_flag(Some(&path));
        let error = source.load().expect_err("nothing to serve");
        let expected = format!("{} has no server block", path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
}
