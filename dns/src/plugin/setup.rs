use std::any::Any;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Fatal, Plugin, ProcessSettings};
use crate::corefile::{ConfigError, Line};
use crate::server::StreamTimeouts;

/// What a plugin's set-up is given. It returns the plugins it makes of its lines (none if
/// all it does is change settings).
#[derive(Debug)]
pub struct Setup<'a> {
    /// Every line of this directive in the block, in order; never empty.
    pub lines: &'a [&'a Line],
    /// The server block it is in. Directives are set up in the order of the registry: what
    /// comes early there (`root`, `bind`, `debug`) is known to those behind.
    pub block: &'a mut BlockSettings,
    /// The whole server.
    pub environment: &'a Environment,
}

/// What every set-up function looks like.
pub type SetupFn = fn(&mut Setup<'_>) -> Result<Vec<Arc<dyn Plugin>>, ConfigError>;

/// One server block, apart from its plugins.
#[derive(Clone, Debug)]
pub struct BlockSettings {
    /// Its zones, fully qualified and in lower case.
    pub zones: Vec<String>,
    /// Label `server` of metrics: `dns://:53`, that of its first key.
    pub server: Arc<str>,
    /// Names of the directives the block has.
    pub directives: Vec<String>,
    /// Where relative paths start from (`root`).
    pub root: PathBuf,
    /// Addresses to listen on (`bind`); all where empty.
    pub bind: Vec<IpAddr>,
    /// Certificates for its `tls://` keys (`tls`).
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// For its streams (`timeouts`).
    pub timeouts: StreamTimeouts,
    /// Panics are not caught, replies that are dropped are logged (`debug`).
    pub debug: bool,
    /// Its queries are counted (`prometheus`).
    pub metrics: bool,
}

/// The server as set-up functions see it.
#[derive(Debug, Default)]
pub struct Environment {
    /// `--manifests`: read the cluster from this directory, whatever the Corefile says.
    pub manifests: Option<PathBuf>,
    /// `--kubeconfig`: reach the API server with this, where the Corefile does not say how.
    pub kubeconfig: Option<PathBuf>,
    /// `-dns.port`: the port of keys without one; 0 for 53.
    pub dns_port: u16,
    /// Where relative paths start from without `root`; the working directory if empty.
    pub folder: PathBuf,
    /// What blocks ask of the process.
    pub process: Mutex<ProcessSettings>,
    /// What lives on over a reload.
    pub carried: Carried,
    /// For what must end the process.
    pub fatal: Fatal,
}

/// Things that a reload keeps: a plugin of the new configuration finds what its like of the
/// old one has left under the same key.
#[derive(Debug, Default)]
pub struct Carried {
    old: HashMap<String, Arc<dyn Any + Send + Sync>>,
    new: Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>,
}

impl Carried {
    /// What is kept under `key`, or else made now.
    pub fn keep<T, F>(&self, key: &str, make: F) -> Arc<T>
    where
        T: Any + Send + Sync,
        F: FnOnce() -> T,
    {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = new.get(key).or_else(|| self.old.get(key)).cloned();
        let kept = kept.and_then(|kept| kept.downcast::<T>().ok());
        let kept = kept.unwrap_or_else(|| Arc::new(make()));
        new.insert(key.to_owned(), Arc::<T>::clone(&kept));
        kept
    }

    /// For the next configuration: what this one has kept.
    #[must_use]
    pub fn pass_on(&self) -> Self {
        let new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        Self {
            old: new.clone(),
            new: Mutex::default(),
        }
    }
}

impl Setup<'_> {
    /// The only line, of a directive that a block may have once.
    ///
    /// # Errors
    /// Names the second.
    pub fn only_line(&self) -> Result<&Line, ConfigError> {
        match self.lines {
            [line] => Ok(line),
            [_, second, ..] => Err(second.error(format!(
                "`{}` may be given once in a server block",
                second.name()
            ))),
            [] => Err(ConfigError::without_place("a directive without lines")),
        }
    }
}
