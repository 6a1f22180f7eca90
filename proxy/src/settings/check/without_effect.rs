use super::{Check, WHOLE_MAX};
use crate::settings::configuration::{Configuration, Span, quantity};

impl Check {
    /// What changes nothing here, and would not be taken by the reference.
    pub(in crate::settings) fn without_effect(&mut self, all: &Configuration) {
        let burst = all.client_connection.burst;
        if !(0..=i64::from(WHOLE_MAX)).contains(&burst) {
            let expected = format!("a whole number from 0 to {WHOLE_MAX}");
            self.wrong("clientConnection.burst", &burst.to_string(), expected);
        }
        if all.config_sync_period <= Span::ZERO {
            let given = all.config_sync_period.to_string();
            self.wrong("configSyncPeriod", &given, "more than 0");
        }
        if all.logging.flush_frequency <= Span::ZERO {
            let given = all.logging.flush_frequency.to_string();
            self.wrong("logging.flushFrequency", &given, "more than 0");
        }
        for (at, module) in all.logging.vmodule.iter().enumerate() {
            if module.file_pattern.is_empty() || module.file_pattern.contains(['=', ',']) {
                let path = format!("logging.vmodule[{at}].filePattern");
                self.wrong(&path, &module.file_pattern, "a pattern of file names");
            }
            let path = format!("logging.vmodule[{at}].verbosity");
            self.whole(&path, module.verbosity);
        }
        let options = &all.logging.options;
        for (format, stream) in [("text", &options.text), ("json", &options.json)] {
            if !quantity::is_valid(&stream.info_buffer_size) {
                let path = format!("logging.options.{format}.infoBufferSize");
                self.wrong(&path, &stream.info_buffer_size, quantity::EXPECTED);
            }
        }
        let version = &all.show_hidden_metrics_for_version;
        let is_version = |text: &str| {
            text.split_once('.').is_some_and(|(major, minor)| {
                major.parse::<u16>().is_ok() && minor.parse::<u16>().is_ok()
            })
        };
        if !version.is_empty() && !is_version(version) {
            let expected = "a minor version such as 1.35";
            self.wrong("showHiddenMetricsForVersion", version, expected);
        }
        if !is_port_range(&all.port_range) {
            self.wrong("portRange", &all.port_range, "ports such as 300-2000");
        }
    }
}

/// `PORT`, `FIRST-LAST`, `FIRST+MORE`, or nothing.
fn is_port_range(text: &str) -> bool {
    let port = |text: &str| text.trim().parse::<u16>().ok();
    let text = text.trim();
    if let Some((first, last)) = text.split_once('-') {
        return matches!((port(first), port(last)), (Some(first), Some(last)) if first <= last);
    }
    match text.split_once('+') {
        Some((first, more)) => port(first).is_some() && port(more).is_some(),
        None => text.is_empty() || port(text).is_some(),
    }
}
