//! The command line: CoreDNS' flags, and where the cluster is read from.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser};

/// A Kubernetes cluster DNS server: takes CoreDNS' place behind the kube-dns Service.
///
/// CoreDNS' flags have the names and meanings they have there, with one dash or two.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "switchyard-dns",
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_override_self = true
)]
pub struct Flags {
    /// Corefile to load, or `stdin`; default: the file Corefile in the working directory
    #[arg(long, value_name = "FILE")]
    pub conf: Option<PathBuf>,
    /// Port of server blocks that name none
    #[arg(
        long = "dns.port",
        alias = "p",
        short = 'p',
        value_name = "PORT",
        default_value_t = 53
    )]
    pub dns_port: u16,
    /// Read the cluster from YAML and JSON files in this directory and follow their changes;
    /// no API server, whatever the Corefile says
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
    /// kubeconfig file that says how to reach the API server, where the Corefile does not;
    /// without both the Pod's own service account is used
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// List the plugins there are, in the order in which they are asked, and exit
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub plugins: bool,
    /// Print the version and exit
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub version: bool,
    /// Do not print zones and version on start
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub quiet: bool,
    /// File to write the process id to
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Flags that change nothing here.
    #[command(flatten)]
    pub unused: Unused,
}

macro_rules! unused {
    ($($(#[arg($($arg:tt)*)])* $field:ident: $name:literal;)*) => {
        /// Flags of the reference, and of the logging library in it, that change nothing
        /// here. They are accepted, so that a Deployment's arguments keep working, and named
        /// in one log line.
        #[derive(Clone, Debug, Default, clap::Args)]
        pub struct Unused {
            $(
                /// No effect
                #[arg(long = $name, value_name = "VALUE", hide = true, $($($arg)*)*)]
                pub $field: Option<String>,
            )*
        }

        impl Unused {
            /// The names of those that were given.
            #[must_use]
            pub fn given(&self) -> Vec<&'static str> {
                let all = [$(($name, &self.$field)),*];
                let given = all.into_iter().filter(|(_, value)| value.is_some());
                given.map(|(name, _)| name).collect()
            }
        }
    };
}

unused! {
    cpu: "cpu";
    log_backtrace_at: "log_backtrace_at";
    log_dir: "log_dir";
    log_file: "log_file";
    log_file_max_size: "log_file_max_size";
    stderrthreshold: "stderrthreshold";
    vmodule: "vmodule";
    #[arg(short = 'v', num_args = 0..=1, default_missing_value = "true")]
    v: "v";
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    alsologtostderr: "alsologtostderr";
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    logtostderr: "logtostderr";
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    add_dir_header: "add_dir_header";
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    one_output: "one_output";
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    skip_headers: "skip_headers";
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    skip_log_headers: "skip_log_headers";
}

impl Flags {
    /// Reads the process's arguments; the first is the program's name.
    ///
    /// # Errors
    /// Unknown flags and bad values, and the wish for help: [`clap::Error::exit`] prints
    /// either and ends with status 2 or 0.
    pub fn from_arguments(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(two_dashes(arguments))
    }
}

/// Go's flags have one dash or two; long ones get two.
fn two_dashes(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut only_values = false;
    let arguments = arguments.into_iter().map(|argument| {
        only_values = only_values || argument == "--";
        match argument.to_str() {
            Some(text) if !only_values && is_long_with_one_dash(text) => {
                OsString::from(format!("-{text}"))
            }
            _ => argument,
        }
    });
    arguments.collect()
}

fn is_long_with_one_dash(argument: &str) -> bool {
    let Some(name) = argument.strip_prefix('-') else {
        return false;
    };
    let name = name.split_once('=').map_or(name, |(name, _)| name);
    name.len() > 1 && name.starts_with(|first: char| first.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Flags, clap::Error> {
        let program = std::iter::once("switchyard-dns");
        Flags::from_arguments(program.chain(arguments.iter().copied()).map(OsString::from))
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        for dash in ["-", "--"] {
            let flags = read(&[
                &format!("{dash}conf"),
                "/etc/coredns/Corefile",
                &format!("{dash}dns.port=1053"),
                &format!("{dash}quiet"),
                &format!("{dash}manifests"),
                "objects",
            ]);
            let flags = flags.expect("they are known");
            assert_eq!(flags.conf, Some(PathBuf::from("/etc/coredns/Corefile")));
            assert_eq!(flags.dns_port, 1053);
            assert!(flags.quiet && !flags.plugins);
            assert_eq!(flags.manifests, Some(PathBuf::from("objects")));
        }
    }

    #[test]
    fn the_short_port_is_read_in_each_way() {
        for arguments in [
            &["-p", "54"][..],
            &["-p=54"],
            &["--p", "54"],
            &["-dns.port", "54"],
        ] {
            assert_eq!(read(arguments).map(|flags| flags.dns_port).ok(), Some(54));
        }
        assert_eq!(read(&[]).map(|flags| flags.dns_port).ok(), Some(53));
    }

    #[test]
    fn the_last_of_a_flag_counts() {
        let flags = read(&["-conf", "one", "-quiet", "-conf=two"]).expect("they are known");
        assert_eq!(flags.conf, Some(PathBuf::from("two")));
    }

    #[test]
    fn flags_of_the_logging_library_are_accepted_and_named() {
        let flags = read(&[
            "-alsologtostderr",
            "-v=2",
            "-log_dir",
            "/tmp",
            "-cpu",
            "50%",
        ]);
        let given = flags.expect("they are known").unused.given();
        assert_eq!(given, ["cpu", "log_dir", "v", "alsologtostderr"]);
    }

    #[test]
    fn what_is_unknown_or_bad_is_refused() {
        for arguments in [
            &["-config", "x"][..],
            &["-dns.port", "65536"],
            &["-conf"],
            &["Corefile"],
            &["-quiet=maybe"],
        ] {
            assert!(read(arguments).is_err(), "{arguments:?}");
        }
    }
}
