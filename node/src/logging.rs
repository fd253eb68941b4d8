//! Where log lines go: standard error, for people on a terminal and as JSON lines for machines.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::LogFormat;

/// A `--log-level` that is neither a level nor a filter.
#[derive(Debug, thiserror::Error)]
#[error(
    "--log-level {text:?} is neither a level nor a filter ({source}); write error, warn, info, debug, trace or a filter like info,annulus_node::peer=debug"
)]
pub struct LogLevelError {
    text: String,
    source: ParseError,
}

/// Reads `--log-level`.
pub fn filter(level: &str) -> Result<EnvFilter, LogLevelError> {
    EnvFilter::try_new(level).map_err(|source| LogLevelError {
        text: level.to_owned(),
        source,
    })
}

/// Installs the process's logger. The first call counts; a second one is left without effect, which only tests
/// that run several nodes in a process can see.
pub fn install(format: LogFormat, filter: EnvFilter) {
    let json = match format {
        LogFormat::Auto => !stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal());
    let outcome = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.try_init()
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a logger is installed already");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read() {
        for level in ["info", "WARN", "info,annulus_node::peer=debug", "off"] {
            assert!(filter(level).is_ok(), "{level}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_what_to_write_instead() {
        let error = filter("info,=loud").unwrap_err().to_string();
        assert!(error.contains("write error, warn, info"), "{error}");
    }
}
